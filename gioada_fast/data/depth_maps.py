"""Readers of depth maps: from the files' values to metres."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from ..errors import InputError
from ..labels import FAR
from .rasters import read_stored


@dataclass(frozen=True)
class DepthReader:
    """How the depth maps of a data set are read."""

    read: Callable[[Path], np.ndarray]
    """Reads a file: metres float32 [H, W], 0 where there is no depth or more than ``FAR``."""
    per_metre: float | None
    """Counts per metre of 16-bit maps; None if files hold more than 16 bits."""


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
    stored = read_stored(path, cv2.IMREAD_UNCHANGED)
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
    image = read_stored(path, cv2.IMREAD_UNCHANGED)
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
