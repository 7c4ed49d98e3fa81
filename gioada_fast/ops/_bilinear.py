"""Positions of a bilinear resize, as the exact integers that all kernels take."""

import functools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

# A scale factor is rounded to a fraction with a denominator up to this: as exact as float32. The
# kernels' 64-bit integers hold the positions of 2^37 pixels.
MAX_DENOMINATOR = 2**24


class Axis(NamedTuple):
    """One axis of a resize: output point i lies at ``(i * step + offset) / unit``.

    Positions count input points and are clamped to [0, size_in - 1]. See ``Axis`` in
    ``csrc/common.h``; the Triton kernels take it as a tuple.
    """

    size_in: int
    size_out: int
    step: int
    offset: int
    unit: int


@functools.lru_cache(maxsize=1024)
def axis(
    size_in: int, size_out: int, align_corners: bool, scale_factor: float | None = None
) -> Axis:
    """Positions as in ``torch.nn.functional.interpolate``.

    Args:
        size_in: number of input points.
        size_out: number of output points.
        align_corners: True puts the first and last points of both onto each other. False puts the
            outer edges of the first and last pixels onto each other.
        scale_factor: if given and ``align_corners`` is False, the ratio of the sizes; by default
            size_out / size_in.
    """
    if align_corners:
        step, offset, unit = size_in - 1, 0, size_out - 1
    else:
        scale = Fraction(size_out, size_in)
        if scale_factor is not None:
            scale = Fraction(scale_factor).limit_denominator(MAX_DENOMINATOR)
        # (i + 1/2) / scale - 1/2
        step = 2 * scale.denominator
        offset, unit = scale.denominator - scale.numerator, 2 * scale.numerator
    if size_in <= 1 or unit <= 0:  # all points lie at the first input point
        step, offset, unit = 0, 0, 1
    divisor = math.gcd(step, offset, unit)
    return Axis(size_in, size_out, step // divisor, offset // divisor, unit // divisor)


def axes(
    size_in: Sequence[int],
    size_out: Sequence[int],
    align_corners: bool,
    scale_factor: Sequence[float] | None = None,
) -> tuple[Axis, Axis]:
    """``axis`` of the rows and of the columns; sizes and factors are (height, width)."""
    vertical, horizontal = scale_factor if scale_factor is not None else (None, None)
    return (
        axis(size_in[0], size_out[0], align_corners, vertical),
        axis(size_in[1], size_out[1], align_corners, horizontal),
    )
