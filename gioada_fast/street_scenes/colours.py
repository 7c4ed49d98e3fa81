"""Colours as linear RGB."""

import colorsys

import numpy as np


def hsv(hue: float, saturation: float, value: float) -> np.ndarray:
    """HSV, hue in turns, of a display colour to linear RGB float32 [3]."""
    rgb = colorsys.hsv_to_rgb(hue % 1, min(max(saturation, 0), 1), min(max(value, 0), 1))
    return np.array(rgb, np.float32) ** 2.2


def grey(albedo: float) -> np.ndarray:
    """Neutral linear RGB float32 [3]."""
    return np.full(3, albedo, np.float32)
