"""What a decoder returns, and the error that it raises."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

MAX_PIXELS = 10**8
"""Larger pictures are refused: damaged headers ask for any size."""
MAX_FILE_PIXELS = 2**30
"""The same for pictures that OpenCV decodes: its own limit."""


class Undecodable(Exception):
    """The content cannot be decoded; the message says what it is."""


@dataclass(frozen=True)
class Raster:
    """A picture or an array as its file stores it."""

    content: str
    """Name of the file format."""
    pixels: np.ndarray
    """[H, W] or [H, W, C] without alpha; colours are R, G, B. Grey of 1, 2 or 4 bits has the values
    0 to 2^bits - 1. Arrays of npy and npz files have any shape."""
    bits: int
    """Bits per sample in the file."""
    palette: np.ndarray | None = None
    """Colours uint8 [N, 3], which ``pixels`` index."""
    lossy: str | None = None
    """Name of the compression if it changes values."""
    white_is_zero: bool = False
    """0 is white in a grey picture of more than one bit (TIFF)."""
    max_value: int | None = None
    """Largest sample that the file declares (PNG: sBIT, TIFF: MaxSampleValue)."""


class Header(NamedTuple):
    """What the header of a picture says."""

    height: int
    width: int
    channels: int
    """Including alpha; a palette counts as 3."""
    bits: int
    """Bits per channel."""
