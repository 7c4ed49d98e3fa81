"""Frames on disk: the files of a data set, and how they are found."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import InputError
from .depth_maps import DepthReader
from .label_maps import LabelReader

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")


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
        return [
            path
            for frame in self.frames
            for path in frame
            if path is not None and not path.is_file()
        ]


def find_root(root: str | None, setting: str, layout: str) -> Path:
    """The folder of a data set.

    Args:
        root: value of the setting.
        setting: its name.
        layout: what to download and which folders are expected.
    """
    if root is None:
        raise InputError(f"{setting} is not set: {layout}")
    folder = Path(root).expanduser()
    if folder.is_dir():
        return folder
    problem = "is a file, not a folder" if folder.exists() else "no such folder"
    raise InputError(f"{folder}: {problem}; set {setting}: {layout}")


def find_images(root: Path, pattern: str, layout: str) -> list[Path]:
    """Images under ``root`` that match a glob pattern without suffix, sorted by path."""
    images = sorted(
        path for path in root.glob(pattern + ".*") if path.suffix.lower() in IMAGE_SUFFIXES
    )
    if not images:
        raise InputError(f"{root}: no PNG or JPEG image matches {pattern}; {layout}")
    return images


def list_images(folder: Path) -> list[Path]:
    """PNG and JPEG files of a folder, sorted by name."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    images = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    if not images:
        raise InputError(f"{folder}: no PNG or JPEG image in it")
    return images
