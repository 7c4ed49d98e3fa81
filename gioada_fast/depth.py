"""Depth encodings: from metres to the numbers that the networks see, and back.

Every encoding is 1 at ``NEAR`` metres and decreases with distance. Pixels without depth (the sky,
holes in a sensor's map) are encoded as 0, like infinitely far ones, and are invalid: they do not
count in the loss.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .labels import FAR

NEAR = 2.0
"""Metres; smaller depths are clamped to it."""

_LOG_RANGE = math.log(FAR / NEAR)

_ENCODE: dict[str, Callable[[Tensor], Tensor]] = {
    "inverse": lambda d: NEAR / d,
    "log": lambda d: 1 - torch.log(d / NEAR) / _LOG_RANGE,
    "linear": lambda d: 1 - (d - NEAR) / (FAR - NEAR),
}
_DECODE: dict[str, Callable[[Tensor], Tensor]] = {
    "inverse": lambda e: NEAR / e.clamp(NEAR / FAR, 1),
    "log": lambda e: NEAR * torch.exp((1 - e.clamp(0, 1)) * _LOG_RANGE),
    "linear": lambda e: NEAR + (1 - e.clamp(0, 1)) * (FAR - NEAR),
}
ENCODINGS = tuple(_ENCODE)


def has_depth(depth: Tensor) -> Tensor:
    """Mask of the pixels whose depth, in metres, is valid for training: bool, of the same shape."""
    return (depth > 0) & (depth <= FAR)


def encode_depth(depth: Tensor, encoding: str = "inverse") -> tuple[Tensor, Tensor]:
    """Encode depth and mark its valid pixels.

    Args:
        depth: metres, any shape, float32; 0 means no depth.
        encoding: ``inverse`` (NEAR / depth, as in DADA and GIO-Ada), ``log`` or ``linear``.

    Returns:
        (encoded, valid), both of the shape of ``depth``: encoded depth in [0, 1], 0 at invalid
        pixels, and bool.
    """
    valid = has_depth(depth)
    encoded = _ENCODE[encoding](depth.clamp(NEAR, FAR))
    return torch.where(valid, encoded, 0.0), valid


def decode_depth(encoded: Tensor, encoding: str = "inverse") -> Tensor:
    """Decode to metres between ``NEAR`` and ``FAR``: the inverse of ``encode_depth``."""
    return _DECODE[encoding](encoded)
