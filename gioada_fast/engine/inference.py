"""Applies trained networks to images and returns NumPy arrays."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..depth import encode_depth, surface_normals
from ..models import TaskNet, TranslationNet
from ..models.layers import normalise, upsample
from ..ops import upsample_argmax
from .device import autocast
from .windows import Inference, predict_blocks


class Piece(NamedTuple):
    """A rectangle of the predictions for images."""

    rows: slice
    columns: slice
    labels: np.ndarray
    """Train ids, uint8 [N, rows, columns]."""
    depth: np.ndarray
    """Encoded depth, float32 [N, rows, columns]."""


@torch.no_grad()
def predict_pieces(
    task: TaskNet,
    images: Sequence[np.ndarray],
    size: tuple[int, int],
    precision: str = "auto",
    inference: Inference | None = None,
) -> Iterator[Piece]:
    """Predict segmentation and depth, one rectangle after the other.

    Args:
        task: the network, on its device.
        images, size, precision, inference: as for ``windows.predict_blocks``.
    """
    device = next(task.parameters()).device
    for block in predict_blocks(task, images, size, device, precision, inference):
        labels = upsample_argmax(block.logits, block.size, dtype=torch.uint8)
        depth = upsample(block.depth.float(), block.size)[:, 0]
        yield Piece(block.rows, block.columns, labels.cpu().numpy(), depth.cpu().numpy())


@torch.no_grad()
def predict_maps(
    task: TaskNet,
    images: Tensor,
    precision: str = "auto",
    size: tuple[int, int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Predict segmentation and depth.

    Args:
        task: the network, on its device.
        images: uint8 [N, 3, H, W].
        precision: see ``device.autocast``.
        size: (H', W') of the result; None: the size of the images.

    Returns:
        (train ids uint8 [N, H', W'], encoded depth float32 [N, H', W']).
    """
    device = next(task.parameters()).device
    was_training = task.training
    task.eval()
    with autocast(device, precision):
        logits, depth = task(normalise(images.to(device)))
    task.train(was_training)
    size = size or (images.shape[2], images.shape[3])
    labels = upsample_argmax(logits, size, dtype=torch.uint8)
    return labels.cpu().numpy(), upsample(depth.float(), size)[:, 0].cpu().numpy()


@torch.no_grad()
def translate_images(
    translation: TranslationNet,
    images: Tensor,
    depth: Tensor,
    labels: Tensor,
    depth_encoding: str,
    precision: str = "auto",
) -> np.ndarray:
    """Translate source images.

    Args:
        translation: the network, on its device.
        images: uint8 [N, 3, H, W].
        depth: metres, float32 [N, 1, H, W]; 0 means no depth.
        labels: train ids, uint8 [N, H, W].
        depth_encoding: the encoding that the network was trained with.
        precision: see ``device.autocast``.

    Returns:
        RGB uint8 [N, H, W, 3].
    """
    device = next(translation.parameters()).device
    depth = depth.to(device)
    encoded, _ = encode_depth(depth, depth_encoding)
    normals = surface_normals(depth) if translation.normals else None
    with autocast(device, precision):
        translated = translation(images.to(device), encoded, labels.to(device), normals=normals)
    pixels = ((translated + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).cpu().numpy()


def image_tensor(images: np.ndarray) -> Tensor:
    """Images uint8 [N, H, W, 3] as a tensor uint8 [N, 3, H, W]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2)
