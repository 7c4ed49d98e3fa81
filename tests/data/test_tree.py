"""Files in folders, links and zip archives appear at the paths that unpacking gives."""

import os
import zipfile
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
    ):
        found = tree.matching(tmp_path, pattern, PNG)
        assert [path.relative_to(tmp_path).as_posix() for path in found] == names
        assert all(map(tree.is_file, found))
