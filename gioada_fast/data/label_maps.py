"""Readers of label maps: from the files' ids or colours to train ids."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from ..errors import InputError
from .rasters import read_stored

LabelReader = Callable[[Path], np.ndarray]
"""Train ids uint8 [H, W] of a label map, IGNORE included."""

Colours = Mapping[tuple[int, int, int], int]
"""Train id of each colour (R, G, B) of a label map, IGNORE included."""


_UNKNOWN = -1


def id_labels(train_ids: Mapping[int, int], in_red: bool = False) -> LabelReader:
    """Reader of label maps that contain ids.

    Args:
        train_ids: train id, or IGNORE, of each id.
        in_red: ids are in the first channel (R), 8 or 16 bits; otherwise in the only channel, 8
            bits.
    """
    table = np.full(256, _UNKNOWN, np.int16)
    table[list(train_ids)] = list(train_ids.values())
    return partial(_read_ids, table=table, in_red=in_red)


def colour_labels(train_ids: Callable[[Path], Colours]) -> LabelReader:
    """Reader of label maps that contain colours; their train ids may differ from file to file."""
    return partial(_read_colours, train_ids=train_ids)


def _read_ids(path: Path, table: np.ndarray, in_red: bool) -> np.ndarray:
    ids = read_stored(path, cv2.IMREAD_UNCHANGED)
    if in_red and ids.ndim == 3:
        ids = ids[:, :, 2]  # OpenCV's order is BGR
    elif in_red or ids.ndim != 2 or ids.dtype != np.uint8:
        expected = "ids in R, G and B" if in_red else "uint8 with one channel"
        raise InputError(f"{path}: label map is {ids.dtype} {list(ids.shape)}, expected {expected}")
    known = np.flatnonzero(table != _UNKNOWN)
    largest = int(ids.max(initial=0))
    labels = table[np.minimum(ids, 255)]
    if largest > 255 or (labels == _UNKNOWN).any():
        unknown = largest if largest > 255 else int(ids[labels == _UNKNOWN].max())
        raise InputError(
            f"{path}: labels has values up to {unknown}, the data set defines {known.min()} to "
            f"{known.max()}: is it labelled with other classes?"
        )
    return labels.astype(np.uint8)


def _read_colours(path: Path, train_ids: Callable[[Path], Colours]) -> np.ndarray:
    image = read_stored(path, cv2.IMREAD_UNCHANGED)
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
