"""Reading frames from disk: images, label maps and depth maps, each checked as it is read."""

from pathlib import Path

import cv2
import numpy as np

from ..errors import InputError
from .labels import UNKNOWN

# Parallelism is over images, in the loader's processes.
cv2.setNumThreads(0)


def read_image(path: Path) -> np.ndarray:
    """RGB uint8 [H, W, 3] of a PNG or JPEG file."""
    return cv2.cvtColor(_read(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def read_labels(path: Path, table: np.ndarray) -> np.ndarray:
    """Train ids uint8 [H, W] of a single-channel 8-bit file of ids.

    Args:
        path: the file.
        table: int16 [256] from ``labels.lookup_table``.

    Raises:
        InputError: the file has ids that the data set does not define.
    """
    ids = _read(path, cv2.IMREAD_UNCHANGED)
    if ids.ndim != 2 or ids.dtype != np.uint8:
        raise InputError(
            f"{path}: label map is {ids.dtype} {list(ids.shape)}, expected uint8 with one channel"
        )
    labels = table[ids]
    if (labels == UNKNOWN).any():
        found = int(ids[labels == UNKNOWN].max())
        known = np.flatnonzero(table != UNKNOWN)
        raise InputError(
            f"{path}: labels has values up to {found}, the data set defines {known.min()} to "
            f"{known.max()}: is it labelled with other classes?"
        )
    return labels.astype(np.uint8)


def read_depth_centimetres(path: Path) -> np.ndarray:
    """Metres float32 [H, W] of a 16-bit file of centimetres; 0 and 65535 become 0, "no depth"."""
    depth = _read(path, cv2.IMREAD_UNCHANGED)
    if depth.ndim != 2 or depth.dtype != np.uint16:
        raise InputError(
            f"{path}: depth map is {depth.dtype} {list(depth.shape)}, expected uint16 with one "
            "channel"
        )
    return np.where(depth == 65535, 0, depth).astype(np.float32) / 100


def list_images(folder: Path) -> list[Path]:
    """PNG and JPEG files of a folder, sorted by name."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in {".png", ".jpg", ".jpeg"})
    if not found:
        raise InputError(f"{folder}: no PNG or JPEG image in it")
    return found


def _read(path: Path, flags: int) -> np.ndarray:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    data = np.fromfile(path, np.uint8)
    array = cv2.imdecode(data, flags) if data.size else None
    if array is None:
        raise InputError(f"{path}: not a readable image ({data.size} bytes)")
    return array
