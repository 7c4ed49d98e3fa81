"""Frames on disk: the files of a data set, and how they are found."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import InputError
from . import tree
from .depth_maps import DepthReader
from .label_maps import LabelReader

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp")
"""In lower case; files may have them in any case."""

_OTHER_ARCHIVES = (".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
_MAX_SHOWN = 5


class FrameFiles(NamedTuple):
    """Files of one frame; None for kinds that the data set does not have."""

    image: Path
    labels: Path | None = None
    depth: Path | None = None


class LabelledFrame(NamedTuple):
    """image uint8 [H, W, 3] RGB, labels uint8 [H, W] train ids, depth float32 [H, W] metres."""

    image: np.ndarray
    labels: np.ndarray
    depth: np.ndarray


@dataclass(frozen=True)
class DataSet:
    """Frames in the order of their names, and their readers."""

    name: str
    """Shown in messages and tables."""
    root: Path
    frames: Sequence[FrameFiles]
    read_labels: LabelReader | None = None
    depth: DepthReader | None = None
    size: tuple[int, int] | None = None
    """(H, W) that a run crops and resizes frames to; None: any."""
    upright: bool = False
    """Whether to turn images as their EXIF orientation says."""

    def missing(self) -> list[Path]:
        """Files that belong to an image but do not exist."""
        return tree.missing(path for frame in self.frames for path in frame if path is not None)


def find_root(root: str | None, setting: str, layout: str) -> Path:
    """The folder of a data set, which may be a zip archive or a folder in one.

    Args:
        root: value of the setting.
        setting: its name.
        layout: what to download and which folders are expected.

    Raises:
        InputError: the setting is unset, there is no such folder, or the archive is damaged.
    """
    if root is None:
        raise InputError(f"{setting} is not set: {layout}")
    folder = expand(root, setting)
    if tree.is_folder(folder):
        return folder
    problem = "no such folder"
    if tree.is_file(folder):
        problem = "is a file, not a folder"
        if folder.suffix.lower() in _OTHER_ARCHIVES:
            problem += f"; {folder.suffix} archives must be unpacked, only .zip is read as it is"
    raise InputError(f"{folder}: {problem}; set {setting}: {layout}")


def expand(path: str, setting: str) -> Path:
    """The path that a setting gives, with the home folder in place of ``~``."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(f"{setting} is {path}: {error}") from error


def find_images(root: Path, pattern: str, layout: str) -> list[Path]:
    """Images under a folder, sorted by path.

    Args:
        root: of the data set.
        pattern: a glob without suffix, see ``tree.matching``.
        layout: what to download and which folders are expected.

    Raises:
        InputError: none matches, or two differ in their suffixes only.
    """
    images = tree.matching(root, pattern, IMAGE_SUFFIXES)
    if not images:
        raise InputError(no_match(root, pattern, layout))
    by_name(images, "remove one of them")
    return images


def by_name(files: Sequence[Path], remedy: str) -> dict[str, Path]:
    """Files by their paths without suffixes.

    Raises:
        InputError: two files differ in their suffixes only; ``remedy`` says what to do.
    """
    named: dict[str, Path] = {}
    for file in files:
        other = named.setdefault(os.path.splitext(file)[0], file)
        if other is not file:
            raise InputError(
                f"{other} and {file.name} have the same name, so they would be one frame: {remedy}"
            )
    return named


def no_match(root: Path, pattern: str, layout: str) -> str:
    """The message that no image matches a pattern, with what is there instead."""
    first, *_ = pattern.split("/")
    folders, _ = tree.contents(root)
    nearer = [root / name for name in folders if tree.is_folder(root / name / first)]
    beside = root.parent / first
    if first not in folders and not tree.is_file(root) and tree.is_folder(beside):
        nearer.append(root.parent)
    if nearer:
        return f"{root}: no image matches {pattern}; is the data set's folder {nearer[0]}? {layout}"
    place = root
    for part in pattern.split("/")[:-1]:
        if not tree.is_folder(place / part):
            break
        place /= part
    return f"{root}: no image matches {pattern}; {describe_folder(place)}; {layout}"


def describe_folder(folder: Path) -> str:
    """Says what a folder contains, for messages: numbers of files by suffix, and subfolders."""
    if not tree.is_folder(folder):
        return f"there is no folder {folder}"
    folders, files = tree.contents(folder)
    suffixes = Counter(Path(name).suffix.lower() or "no suffix" for name in files)
    found = [f"{count} {suffix}" for suffix, count in suffixes.most_common(_MAX_SHOWN)]
    found += [f"{name}/" for name in folders[:_MAX_SHOWN]]
    more = len(suffixes) + len(folders) - len(found)
    if more:
        found.append(f"{more} more")
    hint = ""
    if ".zip" in suffixes:
        hint = " (archives in an archive are not read: unpack the outer one)"
    return f"{folder} contains {', '.join(found) or 'no files'}{hint}"
