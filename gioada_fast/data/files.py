"""Frames on disk: the files of a data set, and readers for images, labels and depth."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from ..errors import InputError
from ..labels import FAR, UNKNOWN

# The loader's processes already run in parallel.
cv2.setNumThreads(0)

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


LabelReader = Callable[[Path], np.ndarray]
"""Train ids uint8 [H, W] of a label map, IGNORE included."""

Colours = Mapping[tuple[int, int, int], int]
"""Train id of each colour (R, G, B) of a label map, IGNORE included."""


@dataclass(frozen=True)
class DepthReader:
    """How the depth maps of a data set are read."""

    read: Callable[[Path], np.ndarray]
    """Reads a file: metres float32 [H, W], 0 where there is no depth or more than ``FAR``."""
    per_metre: float | None
    """Counts per metre of 16-bit maps; None if files hold more than 16 bits."""


@dataclass(frozen=True)
class DataSet:
    """Frames in the order of their names, and their readers."""

    name: str
    """Shown in messages and tables."""
    root: Path
    frames: Sequence[FrameFiles]
    read_labels: LabelReader | None = None
    depth: DepthReader | None = None

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


def read_image(path: Path) -> np.ndarray:
    """RGB uint8 [H, W, 3] of a PNG or JPEG file."""
    return cv2.cvtColor(_read(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def id_labels(table: np.ndarray, in_red: bool = False) -> LabelReader:
    """Reader of label maps that contain ids.

    Args:
        table: int16 [256] from ``Labelling.table`` or ``lookup_table``.
        in_red: ids are in the first channel (R), 8 or 16 bits; otherwise in the only channel, 8
            bits.
    """
    return partial(_read_ids, table=table, in_red=in_red)


def colour_labels(train_ids: Callable[[Path], Colours]) -> LabelReader:
    """Reader of label maps that contain colours; their train ids may differ from file to file."""
    return partial(_read_colours, train_ids=train_ids)


def _read_ids(path: Path, table: np.ndarray, in_red: bool) -> np.ndarray:
    ids = _read(path, cv2.IMREAD_UNCHANGED)
    if in_red and ids.ndim == 3:
        ids = ids[:, :, 2]  # OpenCV's order is BGR
    elif in_red or ids.ndim != 2 or ids.dtype != np.uint8:
        expected = "ids in R, G and B" if in_red else "uint8 with one channel"
        raise InputError(f"{path}: label map is {ids.dtype} {list(ids.shape)}, expected {expected}")
    known = np.flatnonzero(table != UNKNOWN)
    largest = int(ids.max(initial=0))
    labels = table[np.minimum(ids, 255)]
    if largest > 255 or (labels == UNKNOWN).any():
        unknown = largest if largest > 255 else int(ids[labels == UNKNOWN].max())
        raise InputError(
            f"{path}: labels has values up to {unknown}, the data set defines {known.min()} to "
            f"{known.max()}: is it labelled with other classes?"
        )
    return labels.astype(np.uint8)


def _read_colours(path: Path, train_ids: Callable[[Path], Colours]) -> np.ndarray:
    image = _read(path, cv2.IMREAD_UNCHANGED)
    if image.dtype != np.uint8 or image.ndim != 3:
        raise InputError(
            f"{path}: label map is {image.dtype} {list(image.shape)}, expected uint8 with colours"
        )
    colours = train_ids(path)
    codes = np.array(sorted(r << 16 | g << 8 | b for r, g, b in colours), np.int32)
    values = {r << 16 | g << 8 | b: train_id for (r, g, b), train_id in colours.items()}
    table = np.array([values[int(code)] for code in codes], np.uint8)
    b, g, r = (image[:, :, channel].astype(np.int32) for channel in range(3))
    pixels = r << 16 | g << 8 | b
    # frames have far fewer colours than pixels
    distinct, inverse = np.unique(pixels, return_inverse=True)
    places = np.minimum(np.searchsorted(codes, distinct), len(codes) - 1)
    unknown = distinct[codes[places] != distinct]
    if unknown.size:
        code = int(unknown[0])
        raise InputError(
            f"{path}: colour ({code >> 16}, {code >> 8 & 255}, {code & 255}) belongs to no class"
        )
    return table[places][inverse].reshape(pixels.shape)


def depth_counts(per_metre: float) -> DepthReader:
    """Reader of 16-bit depth maps; 0 and 65535 mean no depth, and all channels must be equal."""
    return DepthReader(partial(_read_counts, per_metre=per_metre), per_metre)


def metres(counts: np.ndarray, per_metre: float) -> np.ndarray:
    """Metres float32 of uint16 counts; 0 means no depth."""
    return np.divide(counts, np.float32(per_metre), dtype=np.float32)


def counts(metres: np.ndarray, per_metre: float) -> np.ndarray:
    """Inverse of ``metres``: uint16 counts."""
    return np.rint(metres * np.float64(np.float32(per_metre))).astype(np.uint16)


def _read_counts(path: Path, per_metre: float) -> np.ndarray:
    stored = _read(path, cv2.IMREAD_UNCHANGED)
    if stored.ndim == 3 and (stored == stored[:, :, :1]).all():
        stored = stored[:, :, 0]
    if stored.ndim != 2 or stored.dtype != np.uint16:
        raise InputError(
            f"{path}: depth map is {stored.dtype} {list(stored.shape)}, expected uint16 with one "
            "channel, or equal ones"
        )
    depth = metres(np.where(stored == 65535, 0, stored), per_metre)
    return _with_depth(np.where(depth > FAR, np.float32(0), depth), path)


def _read_24_bits(path: Path) -> np.ndarray:
    image = _read(path, cv2.IMREAD_UNCHANGED)
    if image.dtype != np.uint8 or image.ndim != 3:
        raise InputError(
            f"{path}: depth map is {image.dtype} {list(image.shape)}, expected uint8 with the "
            "depth's 24 bits in R, G and B"
        )
    b, g, r = (image[:, :, channel].astype(np.float64) for channel in range(3))
    depth = (r + 256 * g + 65536 * b) * (1000 / (2**24 - 1))
    return _with_depth(np.where(depth > FAR, 0, depth).astype(np.float32), path)


CENTIMETRES = depth_counts(100)

CARLA_DEPTH = DepthReader(_read_24_bits, None)
"""24 bits, R + 256 G + 65536 B, from 0 to 1000 metres."""


def _with_depth(depth: np.ndarray, path: Path) -> np.ndarray:
    if not depth.any():
        raise InputError(f"{path}: no pixel has a depth: is it a depth map of another format?")
    return depth


def _read(path: Path, flags: int) -> np.ndarray:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    data = np.fromfile(path, np.uint8)
    array = cv2.imdecode(data, flags) if data.size else None
    if array is None:
        raise InputError(f"{path}: not a readable image ({data.size} bytes)")
    return array
