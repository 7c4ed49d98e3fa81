"""Depth encodings: metres to the number that the networks see, and back.

Every encoding is 1 at ``NEAR`` metres and falls with distance; what has no depth (the sky, a hole
in the sensor's map) is encoded as 0, infinitely far, and is not valid: no loss is taken there.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .labels import FAR

NEAR = 2.0
"""Metres; what is nearer is clamped."""

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
    """Bool, as ``depth`` in metres: where there is a depth that can be trained on."""
    return (depth > 0) & (depth <= FAR)


def encode_depth(depth: Tensor, encoding: str = "inverse") -> tuple[Tensor, Tensor]:
    """Encoded depth and its validity.

    Args:
        depth: metres, any shape, float32; 0 is "no depth".
        encoding: ``inverse`` (near / d, as DADA and GIO-Ada train on), ``log`` or ``linear``.

    Returns:
        (encoded, valid): as ``depth`` in [0, 1], and bool; invalid pixels are encoded as 0.
    """
    valid = has_depth(depth)
    encoded = _ENCODE[encoding](depth.clamp(NEAR, FAR))
    return torch.where(valid, encoded, 0.0), valid


def decode_depth(encoded: Tensor, encoding: str = "inverse") -> Tensor:
    """Metres, the inverse of ``encode_depth`` between ``NEAR`` and ``FAR``."""
    return _DECODE[encoding](encoded)
