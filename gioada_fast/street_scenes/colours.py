"""Linear RGB colours."""

import colorsys

import numpy as np


def hsv(hue: float, saturation: float, value: float) -> np.ndarray:
    """Converts a display colour from HSV to linear RGB.

    Args:
        hue: in turns, 0 is red; wraps around.
        saturation: clamped to 0 .. 1.
        value: clamped to 0 .. 1.

    Returns:
        float32 [3].
    """
    rgb = colorsys.hsv_to_rgb(hue % 1, min(max(saturation, 0), 1), min(max(value, 0), 1))
    return np.array(rgb, np.float32) ** 2.2


def grey(albedo: float) -> np.ndarray:
    """Linear RGB float32 [3] of a neutral surface."""
    return np.full(3, albedo, np.float32)
