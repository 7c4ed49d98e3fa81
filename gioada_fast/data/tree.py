"""The files of a data set: in folders, in linked folders, and in zip archives without unpacking.

A member of an archive is found at every path that unpacking the archive may give. The member
``a/1.png`` of ``x/img.zip`` is

    x/a/1.png          unpacked beside the archive
    x/img/a/1.png      unpacked into a folder of the archive's name
    x/img.zip/a/1.png  with the archive as a folder; without ``a/`` if all its members are in ``a/``

A file on disk hides a member at the same path. Nothing is kept open: processes and threads share no
position in a file.
"""

import os
import re
import stat
import struct
import time
import zipfile
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError

_HIDDEN = {
    *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir"),
    *("lost+found", "$recycle.bin", "system volume information"),
}
"""Lower-case names that operating systems and file servers leave among files and on disks."""

_MAX_BYTES = 2**31
"""Largest member that is read into memory: a damaged index may give any size."""

_HEADER = struct.Struct("<4s22xHH")
"""A member's header: signature, and the lengths of the name and of the extra field after it."""


def read_bytes(path: Path) -> bytes:
    """Content of a file.

    Raises:
        InputError: there is no such file, or it or its archive is damaged or cannot be read.
    """
    name = os.fspath(path)
    try:
        if stat.S_ISREG(os.stat(name).st_mode):
            with open(name, "rb") as file:
                return file.read()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        pass
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    damaged: list[str] = []
    for archive, member in _archives_with(name, damaged):
        if member in archive.members:
            return archive.read(member, path)
    raise InputError(f"{path}: {_why_not(name, damaged)}")


def is_file(path: Path) -> bool:
    """Whether there is a file of that path, on disk or in an archive.

    Raises:
        InputError: the path is in a damaged archive.
    """
    mode = _mode(name := os.fspath(path))
    return stat.S_ISREG(mode) or any(
        member in archive.members for archive, member in _archives_with(name)
    )


def missing(paths: Iterable[Path]) -> list[Path]:
    """The paths for which ``is_file`` is false. Faster for many: lists each folder once."""
    on_disk: dict[str, set[str]] = {}
    in_archives: dict[str, set[str]] = {}
    absent = []
    for path in paths:
        folder, name = os.path.split(path)
        if folder not in on_disk:
            on_disk[folder] = _file_names(folder)
        if name in on_disk[folder]:
            continue
        if folder not in in_archives:
            in_archives[folder] = {
                member
                for archive, inner in _archives_with(folder, as_folder=True)
                for member in archive.under(inner)
            }
        if name not in in_archives[folder] and not is_file(path):
            absent.append(path)
    return absent


def is_folder(path: Path) -> bool:
    """Whether there is a folder of that path, on disk or in an archive; an archive is one, too.

    Raises:
        InputError: the path is in a damaged archive.
    """
    mode = _mode(name := os.fspath(path))
    return stat.S_ISDIR(mode) or any(
        archive.has_folder(folder) for archive, folder in _archives_with(name, as_folder=True)
    )


def stamp(path: Path) -> tuple[int, int]:
    """Two numbers that change with a file: size and time of change, or a member's size and CRC-32.

    They are 0 if there is no such file.
    """
    name = os.fspath(path)
    try:
        found = os.stat(name)
        return found.st_size, found.st_mtime_ns
    except (OSError, ValueError):
        pass
    for archive, member in _archives_with(name):
        if member in archive.members:
            return _content(archive.members[member])
    return 0, 0


def files_under(folder: Path) -> list[Path]:
    """All files in a folder and its subfolders, sorted by path.

    Links to folders are followed, but not into a folder that contains them. Archives are replaced
    by their members, each of them listed once. Hidden files are skipped, see ``hidden_under``.
    Links to files are listed even if they are broken, so that reading reports them.

    Raises:
        InputError: there is no such folder, it cannot be listed, or an archive in it is damaged.
    """
    return _listed(folder, _Pattern("**")).files


def hidden_under(folder: Path) -> int:
    """Number of files that ``files_under`` skips.

    These are files and folders whose names start with a dot (among them AppleDouble's ``._*``), and
    what macOS, Windows and file servers add: ``__MACOSX``, ``Thumbs.db``, ``desktop.ini``,
    ``@eaDir``.
    """
    return _listed(folder, _Pattern("**"), count_hidden=True).hidden


def matching(folder: Path, pattern: str, suffixes: tuple[str, ...]) -> list[Path]:
    """The files of ``files_under`` whose path under the folder matches, sorted by path.

    Visits only subfolders that the pattern can match.

    Args:
        folder: where the pattern starts.
        pattern: a glob without suffix: ``*``, ``?`` and ``[abc]`` match within a name, ``**``
            matches any text, also across folders.
        suffixes: of the files, in lower case; their files may have them in any case.
    """
    return _listed(folder, _Pattern(pattern, suffixes)).files


def contents(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the subfolders and files in a folder and in its archives."""
    root = os.fspath(folder)
    folders: set[str] = set()
    files: set[str] = set()
    members: Iterable[str]
    if stat.S_ISDIR(_mode(root)):
        shown = [entry for entry in _entries(root) if not _is_hidden(entry.name)]
        folders.update(entry.name for entry in shown if _is_folder_on_disk(entry))
        files.update(entry.name for entry in shown if entry.name not in folders)
        archives = _zip_files(root)
        files.difference_update(map(os.path.basename, archives))
        members = chain.from_iterable(_archive(file).names for file in archives)
    else:
        members = chain.from_iterable(
            archive.under(inner) for archive, inner in _archives_with(root, as_folder=True)
        )
    for name in members:
        first, _, rest = name.partition("/")
        (folders if rest else files).add(first)
    return sorted(folders), sorted(files)


class _Pattern:
    """A compiled glob, see ``matching``."""

    def __init__(self, pattern: str, suffixes: tuple[str, ...] | None = None):
        self.suffixes = suffixes
        self._regex = _regex(pattern)
        parts = pattern.split("/")
        exact = next((i for i, part in enumerate(parts) if "**" in part), len(parts) - 1)
        self._folders = [_regex(part) for part in parts[:exact]]
        self._names = set(parts[:-1])
        self._deeper = exact < len(parts) - 1 or "**" in parts[-1]

    def enters(self, name: str, depth: int) -> bool:
        """Whether files in a folder can match; its parents, ``depth`` of them, are entered."""
        if depth < len(self._folders):
            return self._folders[depth].fullmatch(name) is not None
        return self._deeper

    def shows(self, name: str) -> bool:
        """Whether a name is not hidden, or the pattern contains it literally."""
        return not _is_hidden(name) or name in self._names

    def matches(self, path: str) -> bool:
        if self.suffixes is None:
            return self._regex.fullmatch(path) is not None
        stem, suffix = os.path.splitext(path)
        return suffix.lower() in self.suffixes and self._regex.fullmatch(stem) is not None


def _regex(pattern: str) -> re.Pattern[str]:
    pieces = re.split(r"(\*\*|\*|\?|\[[^]]+\])", pattern)
    special = {"**": ".+", "*": "[^/]*", "?": "[^/]"}
    for i, piece in enumerate(pieces):
        if i % 2 == 0:
            pieces[i] = re.escape(piece)
        elif piece in special:
            pieces[i] = special[piece]
        else:
            inner = piece[1:-1].replace("\\", r"\\").replace("[", r"\[")
            pieces[i] = f"[^/{inner[1:]}]" if inner[0] == "!" else f"[{inner}]"
    try:
        return re.compile("".join(pieces), re.DOTALL)
    except re.error as error:
        raise InputError(f"pattern {pattern}: {error}") from error


def _is_hidden(name: str) -> bool:
    return name[:1] == "." or name.lower() in _HIDDEN


class _Listing(NamedTuple):
    files: list[Path]
    hidden: int


def _listed(folder: Path, pattern: _Pattern, count_hidden: bool = False) -> _Listing:
    root = os.fspath(folder)
    walk = _Walk(pattern, count_hidden)
    if stat.S_ISDIR(_mode(root)):
        walk.on_disk(root)
    elif not is_folder(folder):
        raise InputError(f"{folder}: no such folder")
    if not walk.names:
        walk.in_archives(root)
    # in the order of Path, which compares part by part
    names = sorted(walk.names, key=lambda name: name.split("/"))
    parts = [name.rpartition("/") for name in names]
    # joining a name to its folder is faster than parsing the whole path
    folders = {parent: folder / parent for parent in {parent for parent, _, _ in parts}}
    return _Listing([folders[parent] / name for parent, _, name in parts], walk.hidden)


class _Walk:
    """Collects the files under a folder that match a pattern."""

    def __init__(self, pattern: _Pattern, count_hidden: bool):
        self.names: dict[str, zipfile.ZipInfo | None] = {}
        """Paths under the folder, and the members that are there; None for files on disk."""
        self.hidden = 0
        self._pattern = pattern
        self._count_hidden = count_hidden

    def on_disk(self, root: str) -> None:
        """Walk a folder on disk, then the archives in it: the deepest first, as in reading."""
        archives: list[tuple[int, str, str]] = []
        todo: list[tuple[str, str, tuple[tuple[int, int], ...]]] = [(root, "", ())]
        while todo:
            folder, prefix, parents = todo.pop()
            identity = _identity(folder)
            if identity in parents:  # a link to a folder that contains it
                continue
            parents = (*parents, identity)
            for entry in _entries(folder):
                name = entry.name
                if not self._pattern.shows(name):
                    self._hide(entry)
                elif _is_folder_on_disk(entry):
                    if self._pattern.enters(name, len(parents) - 1):
                        todo.append((entry.path, f"{prefix}{name}/", parents))
                elif _is_zip(name) and _is_file_on_disk(entry):
                    archives.append((-len(parents), entry.path, prefix))
                elif self._pattern.matches(prefix + name) and (
                    entry.is_symlink() or _is_file_on_disk(entry)
                ):
                    self.names[prefix + name] = None
        for _, file, prefix in sorted(archives):
            self._add_members(_archive(file), prefix)

    def in_archives(self, root: str) -> None:
        """List a folder of archives: of one, or of the nearest beside the folder."""
        level = None
        used = set()
        for archive, folder in _archives_with(root, as_folder=True):
            beside = os.path.dirname(archive.file)
            if level not in (None, beside):
                break
            if archive.file in used:
                continue
            members = archive.under(folder)
            names = [name for name in members if self._pattern.matches(name)]
            if names:
                level = beside
                used.add(archive.file)
                self.names.update(dict.fromkeys(names))
                self.hidden += archive.hidden

    def _add_members(self, archive: "_Archive", prefix: str) -> None:
        """Add members at their paths beside the archive or, where none matches, in its folder."""
        matches = self._pattern.matches
        beside, apart = prefix, f"{prefix}{archive.stem}/"
        found = [name for name in archive.names if matches(beside + name)]
        if not found:
            beside, apart = apart, beside
            found = [name for name in archive.names if matches(beside + name)]
        for name in found:
            path, other, member = beside + name, apart + name, archive.members[name]
            if self.names.get(other, member) is None:  # unpacked there
                continue
            if path not in self.names:
                self.names[path] = member
                continue
            first = self.names[path]
            # members of two archives at one path, unless one archive is a copy of the other
            if first is not None and _content(first) != _content(member) and matches(other):
                self.names[other] = member
        self.hidden += archive.hidden

    def _hide(self, entry: os.DirEntry[str]) -> None:
        if not self._count_hidden:
            return
        if entry.is_dir(follow_symlinks=False):
            self.hidden += sum(len(files) for _, _, files in os.walk(entry.path))
        else:
            self.hidden += 1


def _file_names(folder: str) -> set[str]:
    try:
        with os.scandir(folder or ".") as entries:
            return {entry.name for entry in entries if _is_file_on_disk(entry)}
    except OSError:
        return set()


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed: {error.strerror}") from error


def _is_folder_on_disk(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_file_on_disk(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def _identity(folder: str) -> tuple[int, int]:
    found = os.stat(folder)
    return found.st_dev, found.st_ino


def _mode(path: str) -> int:
    """Type of a path on disk; 0 if there is none."""
    try:
        return os.stat(path).st_mode
    except (OSError, ValueError):
        return 0


def _is_zip(name: str) -> bool:
    return name[-4:].lower() == ".zip"


class _Archive:
    """The index of a zip archive."""

    def __init__(self, file: str):
        self.file = file
        self.stem = os.path.basename(file)[:-4]
        with zipfile.ZipFile(file) as archive:
            self.members = {
                _member_path(member): member
                for member in archive.infolist()
                if not member.is_dir() and not member.filename.endswith("\\")
            }
        """By the path that unpacking gives."""
        self.names = sorted(
            name for name in self.members if not any(map(_is_hidden, name.split("/")))
        )
        """Paths of the members that are not hidden."""
        self.hidden = len(self.members) - len(self.names)
        first, _, rest = (self.names or [""])[0].partition("/")
        self.top = first if rest and self.names[-1].startswith(f"{first}/") else None
        """The only folder at the top, if no member is outside it."""

    def under(self, folder: str) -> list[str]:
        """Paths of the members in a folder, relative to it; all for an empty name."""
        if not folder:
            return self.names
        start = bisect_left(self.names, f"{folder}/")
        stop = bisect_left(self.names, f"{folder}0")  # "0" is the character after "/"
        return [name[len(folder) + 1 :] for name in self.names[start:stop]]

    def has_folder(self, folder: str) -> bool:
        if not folder:
            return True
        start = bisect_left(self.names, f"{folder}/")
        return start < len(self.names) and self.names[start].startswith(f"{folder}/")

    def read(self, name: str, path: Path) -> bytes:
        """Content of a member; ``path`` is its name in messages."""
        member = self.members[name]
        where = f"{path}: member {member.filename} of {self.file}"
        if member.flag_bits & 1:
            raise InputError(f"{where} is encrypted: unpack the archive with its password")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise InputError(f"{where} is a link, which is not followed: unpack the archive")
        if member.file_size > _MAX_BYTES:
            raise InputError(f"{where} has {member.file_size} bytes: unpack the archive")
        try:
            try:
                with open(self.file, "rb") as file:
                    stored = _stored(file.fileno(), member)
            except OSError as error:  # the archive is gone, or the disk fails
                raise InputError(f"{where} cannot be read: {error.strerror or error}") from error
            with zipfile.ZipExtFile(BytesIO(stored), "r", member) as content:
                return content.read()
        except InputError:
            raise
        except NotImplementedError as error:
            raise InputError(f"{where} cannot be read ({error}): unpack the archive") from error
        except Exception as error:  # zipfile and the decompressors raise many
            raise InputError(
                f"{where} is damaged ({str(error) or type(error).__name__}): download the archive "
                "again"
            ) from error


def _stored(descriptor: int, member: zipfile.ZipInfo) -> bytes:
    """A member's content as stored in the archive, still compressed."""
    # offsets are negative if the start of the archive is missing
    header = os.pread(descriptor, _HEADER.size, max(0, member.header_offset))
    if member.header_offset < 0 or len(header) < _HEADER.size or header[:4] != b"PK\3\4":
        raise zipfile.BadZipFile("it is not where the archive's index says")
    _, name_length, extra_length = _HEADER.unpack(header)
    start = member.header_offset + _HEADER.size + name_length + extra_length
    # a damaged index may give any size
    size = min(member.compress_size, max(0, os.fstat(descriptor).st_size - start))
    pieces = []
    while size and (piece := os.pread(descriptor, size, start)):
        pieces.append(piece)
        size, start = size - len(piece), start + len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _member_path(member: zipfile.ZipInfo) -> str:
    """The path that unpacking gives, as in ``ZipFile.extract``."""
    name = member.filename
    if member.create_system == 0 and "/" not in name:  # old tools on Windows
        name = name.replace("\\", "/")
    if name.startswith(("/", "./", "../")) or "/./" in name or "/../" in name or "//" in name:
        name = "/".join(part for part in name.split("/") if part not in ("", ".", ".."))
    return name


def _archive(file: str) -> _Archive:
    """The index of an archive on disk.

    Raises:
        InputError: it cannot be read.
    """
    try:
        found = os.stat(file)
        return _indexed(file, found.st_mtime_ns, found.st_size)
    except Exception as error:  # zipfile raises many for damaged files
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(
            f"{file}: not a readable zip archive ({reason}): download it again, or move it away"
        ) from error


@cache
def _indexed(file: str, mtime_ns: int, size: int) -> _Archive:
    return _Archive(file)


def _archives_with(
    path: str, damaged: list[str] | None = None, as_folder: bool = False
) -> Iterator[tuple[_Archive, str]]:
    """The archives that may contain a path, the nearest first, and the path in each of them.

    Archives beside the path's folders that cannot be read are passed over, because they need not
    belong to the data set; their messages are appended to ``damaged``.
    """
    folder, inner = path, ""
    if not as_folder:
        folder, inner = os.path.split(path)
    while True:
        mode = _mode(folder or ".")
        if stat.S_ISREG(mode):
            if _is_zip(folder):
                archive = _archive(folder)
                yield archive, inner
                if archive.top is not None:
                    yield archive, f"{archive.top}/{inner}".rstrip("/")
            return
        if stat.S_ISDIR(mode):
            files = _zip_files(folder or ".")
            first, _, rest = inner.partition("/")
            apart = [file for file in files if os.path.basename(file)[:-4] == first]
            for file, name in (*((f, inner) for f in files), *((f, rest) for f in apart)):
                if not name and not (as_folder and file in apart):
                    continue
                try:
                    archive = _archive(file)
                except InputError as error:
                    if damaged is not None:
                        damaged.append(str(error))
                else:
                    yield archive, name
        parent, name = os.path.split(folder)
        if not name:
            return
        folder, inner = parent, f"{name}/{inner}" if inner else name


def _content(member: zipfile.ZipInfo) -> tuple[int, int]:
    return member.file_size, member.CRC


def _zip_files(folder: str) -> tuple[str, ...]:
    try:
        changed = os.stat(folder).st_mtime_ns
        # the clock of a file system may stand still for some milliseconds
        if time.time_ns() - changed < 2_000_000_000:
            return _find_zip_files(folder)
        return _remembered_zip_files(folder, changed)
    except OSError:
        return ()


def _find_zip_files(folder: str) -> tuple[str, ...]:
    with os.scandir(folder) as entries:
        return tuple(
            sorted(
                entry.path
                for entry in entries
                if _is_zip(entry.name) and not _is_hidden(entry.name) and _is_file_on_disk(entry)
            )
        )


@lru_cache(maxsize=1024)
def _remembered_zip_files(folder: str, changed: int) -> tuple[str, ...]:
    return _find_zip_files(folder)


def _why_not(path: str, damaged: list[str]) -> str:
    """Why a file cannot be read that is neither on disk nor in an archive."""
    mode = _mode(path)
    if stat.S_ISDIR(mode):
        return "is a folder, not a file"
    if mode:
        return "is neither a file nor a folder"
    if os.path.islink(path):
        return f"no such file: it is a link to {os.readlink(path)}"
    return "; ".join(["no such file", *damaged])
