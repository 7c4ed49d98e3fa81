"""Files in folders, links and zip archives appear at the paths that unpacking gives."""

import contextlib
import errno
import multiprocessing
import os
import random
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gioada_fast.data import tree
from gioada_fast.errors import InputError

PNG = (".png",)


def write_zip(path: Path, members: dict[str, str], method=zipfile.ZIP_STORED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def write(folder: Path, *names: str) -> None:
    """Files whose content is their name."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def listed(folder: Path, root: Path | None = None) -> list[str]:
    return [path.relative_to(root or folder).as_posix() for path in tree.files_under(folder)]


@pytest.mark.parametrize(
    "path",
    ["x/a/1.png", "x/img/a/1.png", "x/img.zip/a/1.png", "x/img.zip/1.png"],
)
def test_a_member_is_read_at_every_path_that_unpacking_may_give(tmp_path, path):
    write_zip(tmp_path / "x/img.zip", {"a/1.png": "one", "a/2.png": "two"})
    assert tree.read_bytes(tmp_path / path) == b"one"
    assert tree.is_file(tmp_path / path) and not tree.is_folder(tmp_path / path)
    assert tree.is_folder((tmp_path / path).parent)


def test_members_are_listed_once_and_files_on_disk_hide_them(tmp_path):
    write_zip(tmp_path / "x/img.zip", {"a/1.png": "member", "a/2.png": "two", "a/3.png": "three"})
    write(tmp_path, "x/a/1.png", "x/img/a/3.png")
    assert listed(tmp_path) == ["x/a/1.png", "x/a/2.png", "x/img/a/3.png"]
    assert tree.read_bytes(tmp_path / "x/a/1.png") == b"x/a/1.png"


def test_patterns_match_beside_the_archive_or_else_in_its_folder(tmp_path):
    write_zip(tmp_path / "img.zip", {"a/1.png": "1", "a/2.PNG": "2", "b/3.txt": "3"})
    for pattern, names in (
        ("a/*", ["a/1.png", "a/2.PNG"]),
        ("img/*/*", ["img/a/1.png", "img/a/2.PNG"]),
        ("**", ["a/1.png", "a/2.PNG"]),
        ("img/**", ["img/a/1.png", "img/a/2.PNG"]),
        ("*", []),
        ("[ab]/?", ["a/1.png", "a/2.PNG"]),
        ("[!a]/*", []),
    ):
        found = tree.matching(tmp_path, pattern, PNG)
        assert [path.relative_to(tmp_path).as_posix() for path in found] == names
        assert all(map(tree.is_file, found))
    with pytest.raises(InputError, match=r"pattern \[z-a\]/\*: bad character range"):
        tree.matching(tmp_path, "[z-a]/*", PNG)


def test_an_archive_given_as_folder(tmp_path):
    archive = write_zip(tmp_path / "SET.ZIP", {"SET/rgb/1.png": "1", "SET/ids/1.png": "2"})
    assert listed(archive) == ["SET/ids/1.png", "SET/rgb/1.png"]
    assert listed(archive / "SET" / "rgb") == listed(archive / "rgb") == ["1.png"]
    assert tree.matching(archive, "rgb/*", PNG) == [archive / "rgb" / "1.png"]
    assert tree.matching(archive, "SET/rgb/*", PNG) == [archive / "SET" / "rgb" / "1.png"]
    assert tree.is_folder(archive / "ids") and not tree.is_folder(archive / "depth")
    assert tree.contents(archive / "SET") == (["ids", "rgb"], [])


def test_archives_with_members_of_the_same_names(tmp_path):
    for name in ("images", "labels"):
        write_zip(tmp_path / f"{name}.zip", {"1.png": name, "2.png": name})
    for name in ("images", "labels"):
        (first, _) = tree.matching(tmp_path, f"{name}/*", PNG)
        assert first == tmp_path / name / "1.png" and tree.read_bytes(first) == name.encode()
    assert listed(tmp_path) == ["1.png", "2.png", "labels/1.png", "labels/2.png"]
    assert [tree.read_bytes(path) for path in tree.files_under(tmp_path)][1:3] == [
        b"images", b"labels",
    ]  # fmt: skip


def test_an_archive_in_a_subfolder_comes_before_one_above_it(tmp_path):
    write_zip(tmp_path / "a.zip", {"s/1.png": "above", "s/2.png": "above"})
    write_zip(tmp_path / "s" / "z.zip", {"1.png": "beside"})
    assert listed(tmp_path) == ["a/s/1.png", "s/1.png", "s/2.png"]
    contents = [tree.read_bytes(path) for path in tree.files_under(tmp_path)]
    assert contents == [b"above", b"beside", b"above"]


NAMES = ["a/1.png", "a/b c/ü.PNG", "a/日本.png", "[x]/*.png", "a/dot.name.1.png", "top.txt"]


@pytest.mark.parametrize("method", ["STORED", "DEFLATED", "BZIP2", "LZMA"])
def test_an_archive_lists_and_reads_like_its_unpacked_folder(tmp_path, method):
    write(tmp_path / "unpacked", *NAMES, ".hidden/1.png", "a/._1.png", "Thumbs.db")
    (tmp_path / "zipped").mkdir()
    archive = zipfile.ZipFile(tmp_path / "zipped" / "x.zip", "w", getattr(zipfile, f"ZIP_{method}"))
    with archive:
        for path in sorted((tmp_path / "unpacked").rglob("*")):
            archive.write(path, path.relative_to(tmp_path / "unpacked"))
    for folder in (tmp_path / "zipped", tmp_path / "zipped" / "x", tmp_path / "zipped" / "x.zip"):
        assert listed(folder) == listed(tmp_path / "unpacked")
        for path in tree.files_under(folder):
            assert tree.read_bytes(path).decode() == path.relative_to(folder).as_posix()
    assert tree.hidden_under(tmp_path / "zipped") == tree.hidden_under(tmp_path / "unpacked") == 3
    with pytest.raises(InputError, match=r"zipped/a/4\.png: no such file"):
        tree.read_bytes(tmp_path / "zipped" / "a" / "4.png")
    with pytest.raises(InputError, match=r"unpacked/a: is a folder, not a file"):
        tree.read_bytes(tmp_path / "unpacked" / "a")


def test_names_that_tools_write_are_those_of_unpacking(tmp_path):
    info = zipfile.ZipInfo("a\\3.png")
    info.create_system = 0  # Windows
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in ("./a/1.png", "/a/2.png", info, "a/../../b/4.png"):
            archive.writestr(name, "")
    assert listed(tmp_path) == ["a/1.png", "a/2.png", "a/3.png", "a/b/4.png"]


def test_hidden_files_are_skipped_and_counted(tmp_path):
    hidden = ("._1.png", ".DS_Store", "a/Thumbs.db", "a/desktop.ini", "__MACOSX/a/._1.png",
              ".git/a/1", ".git/2", "@eaDir/1.png/thumb.jpg", "._x.zip")  # fmt: skip
    write(tmp_path, "1.png", "a/2.png", *hidden)
    assert listed(tmp_path) == ["1.png", "a/2.png"]
    assert tree.hidden_under(tmp_path) == len(hidden)
    # a name in the pattern is not hidden
    assert tree.matching(tmp_path, ".git/*", ("",)) == [tmp_path / ".git" / "2"]


def test_links_to_folders_are_followed_once(tmp_path):
    write(tmp_path / "elsewhere", "1.png", "sub/2.png")
    root = tmp_path / "root"
    write(root, "own/3.png")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "own" / "up").symlink_to(root)
    (tmp_path / "elsewhere" / "again").symlink_to(tmp_path / "elsewhere")
    (root / "itself").symlink_to("itself")
    (root / "broken.png").symlink_to("nowhere.png")
    expected = ["broken.png", "itself", "linked/1.png", "linked/sub/2.png", "own/3.png"]
    assert listed(root) == expected
    assert tree.matching(root, "linked/sub/*", PNG) == [root / "linked" / "sub" / "2.png"]
    for name, words in (("broken.png", "it is a link to nowhere.png"), ("itself", "Too many")):
        assert not tree.is_file(root / name) and not tree.is_folder(root / name)
        with pytest.raises(InputError, match=words):
            tree.read_bytes(root / name)


def test_special_files_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    assert listed(tmp_path) == [] and not tree.is_file(tmp_path / "pipe.png")
    with pytest.raises(InputError, match="neither a file nor a folder"):
        tree.read_bytes(tmp_path / "pipe.png")


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "truncated":
        del content[len(content) // 2 :]
    elif how == "begin missing":
        del content[:10]
    elif how == "no archive":
        content[:] = b"<html>404</html>"
    elif how == "empty":
        content.clear()
    elif how == "changed":
        content[content.index(b"pixels")] ^= 1
    elif how == "encrypted":  # the flag, in the index
        content[content.index(b"PK\1\2") + 8] |= 1
    elif how == "unknown method":
        content[content.index(b"PK\1\2") + 10] = 9
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("truncated", r"x\.zip: not a readable zip archive \(File is not a zip file\): download"),
        ("no archive", r"x\.zip: not a readable zip archive"),
        ("empty", r"x\.zip: not a readable zip archive"),
        ("begin missing", r"member a/1\.png of .*x\.zip is damaged"),
        ("changed", r"a/1\.png: member a/1\.png of .*x\.zip is damaged \(Bad CRC-32"),
        ("encrypted", r"member a/1\.png of .*x\.zip is encrypted: unpack"),
        ("unknown method", r"member a/1\.png of .*x\.zip cannot be read .*: unpack"),
    ],
)
def test_damaged_archives_are_refused_by_name(tmp_path, how, words):
    damage(write_zip(tmp_path / "x.zip", {"a/1.png": "pixels"}), how)
    with pytest.raises(InputError, match=words):
        for path in tree.files_under(tmp_path):
            tree.read_bytes(path)
    with pytest.raises(InputError, match=r"x\.zip"):
        tree.read_bytes(tmp_path / "a" / "1.png")
    with pytest.raises(InputError, match=r"x\.zip"):
        tree.is_folder(tmp_path / "x.zip") and tree.read_bytes(tmp_path / "x.zip" / "1.png")


def test_a_disk_that_fails_is_not_called_a_damaged_archive(tmp_path, monkeypatch):
    write_zip(tmp_path / "x.zip", {"a/1.png": "pixels"})
    (file,) = tree.files_under(tmp_path)

    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(InputError, match=r"of .*x\.zip cannot be read: Input/output error$"):
        tree.read_bytes(file)


def test_any_damage_ends_in_an_input_error(tmp_path):
    rng = random.Random(0)
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA):
        path = write_zip(tmp_path / "x.zip", {f"{i}.png": "pixels" * 9 for i in range(3)}, method)
        content = path.read_bytes()
        for _ in range(100):
            changed = bytearray(content)
            for _ in range(rng.randrange(1, 4)):
                changed[rng.randrange(len(changed))] = rng.randrange(256)
            path.write_bytes(changed[rng.choice([0, 0, 0, rng.randrange(50)]) :])
            with contextlib.suppress(InputError):
                for file in tree.files_under(tmp_path):
                    tree.read_bytes(file)


def test_large_archives(tmp_path):
    """Sizes and offsets of zip64, in a sparse file."""
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        with archive.open("before.png", "w", force_zip64=True) as member:
            member.write(b"before")
        archive.fp.seek(5 << 30)
        archive.start_dir = archive.fp.tell()
        archive.writestr("after.png", "after")
    assert [tree.read_bytes(path) for path in tree.files_under(tmp_path)] == [b"after", b"before"]


def test_threads_and_forked_processes_read_the_same_archive(tmp_path):
    contents = {f"{i:03d}.png": os.urandom(20_000 + i) for i in range(40)}
    write_zip(tmp_path / "x.zip", contents)
    files = tree.files_under(tmp_path)
    expected = list(contents.values())
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(tree.read_bytes, files * 5)) == expected * 5
    with multiprocessing.get_context("fork").Pool(3) as pool:
        assert pool.map(tree.read_bytes, files * 5, chunksize=1) == expected * 5


def test_a_replaced_archive_is_read_anew(tmp_path):
    for text in ("first", "second, longer"):
        write_zip(tmp_path / "x.zip", {"1.png": text})
        assert tree.read_bytes(tmp_path / "1.png").decode() == text
    write_zip(tmp_path / "y.zip", {"2.png": "other"})
    assert listed(tmp_path) == ["1.png", "2.png"]
    assert tree.read_bytes(tmp_path / "2.png") == b"other"


def test_unrelated_damaged_archives_above_a_set_do_no_harm(tmp_path):
    write(tmp_path, "broken.zip", "set/1.png")
    assert listed(tmp_path / "set") == ["1.png"]
    assert not tree.is_file(tmp_path / "set" / "2.png")
    with pytest.raises(InputError, match=r"2\.png: no such file; .*broken\.zip: not a readable"):
        tree.read_bytes(tmp_path / "set" / "2.png")


def test_a_copy_of_an_archive_adds_nothing(tmp_path):
    for name in ("x", "x (1)"):
        write_zip(tmp_path / f"{name}.zip", {"a/1.png": "same", "a/2.png": "2"})
    write_zip(tmp_path / "y.zip", {"a/1.png": "other", "a/2.png": "2"})
    assert listed(tmp_path) == ["a/1.png", "a/2.png", "y/a/1.png"]


def test_missing_files_are_those_that_are_no_files(tmp_path):
    write(tmp_path, "a/1.png", "b/2.png")
    write_zip(tmp_path / "x.zip", {"a/3.png": "", "c/d/4.png": ""})
    (tmp_path / "a" / "link.png").symlink_to("1.png")
    (tmp_path / "a" / "broken.png").symlink_to("no.png")
    names = ("a/1.png", "a/3.png", "a/link.png", "a/broken.png", "a/5.png", "b/2.png", "b/3.png",
             "c/d", "c/d/4.png", "c/4.png", "x/c/d/4.png", "x.zip/c/d/4.png", "no/1.png",
             "a", "x.zip")  # fmt: skip
    paths = [tmp_path / name for name in names]
    expected = [path for path in paths if not tree.is_file(path)]
    assert tree.missing(paths) == expected
    found = {path.relative_to(tmp_path).as_posix() for path in expected}
    assert found == {"a/broken.png", "a/5.png", "b/3.png", "c/d", "c/4.png", "no/1.png", "a"}
