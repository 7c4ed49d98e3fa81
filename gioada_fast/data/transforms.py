"""Cropping and resizing of images, labels and depth."""

from pathlib import Path

import cv2
import numpy as np

from ..errors import InputError
from .files import LabelledFrame


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


def covering_size(shape: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """Size of an image (H, W) scaled, without changing its shape, until it just covers ``size``.

    It is ``size`` itself if the two differ by no more than a pixel.
    """
    scale = max(size[0] / shape[0], size[1] / shape[1])
    height, width = round(shape[0] * scale), round(shape[1] * scale)
    if height - size[0] <= 1 and width - size[1] <= 1:
        return size
    return height, width


def fit(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scale uint8 [H, W, 3] without changing its shape until it just covers ``size`` (H, W)."""
    return resize_image(image, covering_size(image.shape[:2], size))


def crop_to_shape(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The largest centred part of [H, W] or [H, W, 3] that has the shape of ``size``, as a view."""
    height, width = array.shape[:2]
    if covering_size((height, width), size) == size:
        return array
    scale = min(height / size[0], width / size[1])
    h = min(height, max(1, round(size[0] * scale)))
    w = min(width, max(1, round(size[1] * scale)))
    top, left = (height - h) // 2, (width - w) // 2
    return array[top : top + h, left : left + w]


def resize_frame(frame: LabelledFrame, size: tuple[int, int]) -> LabelledFrame:
    """A frame cropped to the shape of ``size`` (H, W) and resized to it."""
    image, labels, depth = (crop_to_shape(array, size) for array in frame)
    return LabelledFrame(
        resize_image(image, size), resize_nearest(labels, size), resize_nearest(depth, size)
    )


def kept_share(shape: tuple[int, int], size: tuple[int, int]) -> float:
    """Share of an image's pixels (H, W) that ``crop_to_shape`` keeps, 0 to 1."""
    kept = crop_to_shape(np.broadcast_to(np.uint8(0), shape), size)
    return kept.size / (shape[0] * shape[1])


def check_same_size(image: np.ndarray, other: np.ndarray, path: Path, other_path: Path) -> None:
    """Refuse a label or depth map of another size than its image."""
    if image.shape[:2] != other.shape[:2]:
        (h, w), (other_h, other_w) = image.shape[:2], other.shape[:2]
        raise InputError(f"{other_path}: {other_w}x{other_h}, but its image {path} is {w}x{h}")
