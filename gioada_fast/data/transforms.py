"""Resizing of images, labels and depth."""

from pathlib import Path

import cv2
import numpy as np

from ..errors import InputError


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize uint8 [H, W, 3] to ``size`` (H, W): area averaging to shrink, bilinear to enlarge."""
    if image.shape[:2] == tuple(size):
        return image
    shrinks = image.shape[0] >= size[0] and image.shape[1] >= size[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(image, size[::-1], interpolation=method)


def resize_nearest(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize labels or depth [H, W] to ``size`` (H, W) by nearest neighbour: no value is new."""
    if array.shape == tuple(size):
        return array
    return cv2.resize(array, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)


def check_same_size(image: np.ndarray, other: np.ndarray, path: Path, other_path: Path) -> None:
    """Refuse a label or depth map of another size than its image."""
    if image.shape[:2] != other.shape[:2]:
        (h, w), (other_h, other_w) = image.shape[:2], other.shape[:2]
        raise InputError(f"{other_path}: {other_w}x{other_h}, but its image {path} is {w}x{h}")
