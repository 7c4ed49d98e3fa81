"""Decodes image files of every supported format into arrays."""

from pathlib import Path

import cv2
import numpy as np

from ..errors import InputError
from .tree import read_bytes

# The loader's processes already run in parallel.
cv2.setNumThreads(0)


def read_image(path: Path) -> np.ndarray:
    """RGB uint8 [H, W, 3] of a PNG or JPEG file."""
    return cv2.cvtColor(read_stored(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def read_stored(path: Path, flags: int) -> np.ndarray:
    data = np.frombuffer(read_bytes(path), np.uint8)
    array = cv2.imdecode(data, flags) if data.size else None
    if array is None:
        raise InputError(f"{path}: not a readable image ({data.size} bytes)")
    return array
