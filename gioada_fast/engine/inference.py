"""Trained networks on images: what they predict, as arrays for pictures and files."""

import numpy as np
import torch
from torch import Tensor

from ..models import TaskNet, TranslationNet
from ..models.layers import normalise, upsample
from .device import autocast


@torch.no_grad()
def predict_maps(
    task: TaskNet,
    images: Tensor,
    precision: str = "auto",
    size: tuple[int, int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Segmentation and depth.

    Args:
        task: the network, on its device.
        images: uint8 [N, 3, H, W].
        precision: see ``device.autocast``.
        size: (H', W') of the result; unset, that of the images.

    Returns:
        (train ids uint8 [N, H', W'], encoded depth float32 [N, H', W']).
    """
    device = next(task.parameters()).device
    with autocast(device, precision):
        logits, depth = task(normalise(images.to(device)))
    size = size or (images.shape[2], images.shape[3])
    labels = upsample(logits.float(), size).argmax(1).to(torch.uint8)
    return labels.cpu().numpy(), upsample(depth.float(), size)[:, 0].cpu().numpy()


@torch.no_grad()
def translate_images(
    translation: TranslationNet,
    images: Tensor,
    depth: Tensor,
    labels: Tensor,
    precision: str = "auto",
) -> np.ndarray:
    """Translated source images.

    Args:
        translation: the network, on its device.
        images: uint8 [N, 3, H, W].
        depth: float32 [N, 1, H, W] encoded.
        labels: uint8 [N, H, W] train ids.
        precision: see ``device.autocast``.

    Returns:
        uint8 [N, H, W, 3] RGB.
    """
    device = next(translation.parameters()).device
    with autocast(device, precision):
        translated = translation(images.to(device), depth.to(device), labels.to(device))
    pixels = ((translated + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).cpu().numpy()


def image_tensor(images: np.ndarray) -> Tensor:
    """uint8 [N, H, W, 3] to uint8 [N, 3, H, W]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2)
