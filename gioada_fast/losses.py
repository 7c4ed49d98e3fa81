"""The task's losses, by name; the adversarial ones are ``ops.gan_loss``."""

import torch
from torch import Tensor

from .models.layers import upsample
from .ops import upsample_cross_entropy

DEPTH_LOSSES = ("l1", "berhu")

__all__ = ["DEPTH_LOSSES", "depth_loss", "segmentation_loss"]


def segmentation_loss(logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    """L_seg: cross-entropy of the upsampled logits, mean over the labelled pixels.

    Args:
        logits: [N, C, h, w].
        labels: [N, H, W] train ids, 255 ignored.
        weight: [C] class weights, or None.
    """
    return upsample_cross_entropy(logits, labels, weight=weight)


def depth_loss(depth: Tensor, target: Tensor, valid: Tensor, kind: str = "l1") -> Tensor:
    """L_depth: error of the upsampled depth, mean over the valid pixels; 0 where none is valid.

    l1: |e|.  berhu: |e| up to c, (e^2 + c^2) / 2c above, c = max|e| / 5 over the batch.

    Args:
        depth: [N, 1, h, w] predicted, encoded; upsampled bilinearly (align_corners=True).
        target: [N, 1, H, W] encoded.
        valid: [N, 1, H, W] bool.

    Source: berHu from Laina et al. (arXiv 1606.00373).
    """
    full = upsample(depth.float(), target.shape[2:])
    error = torch.where(valid, (full - target).abs(), 0.0)
    if kind == "berhu":
        c = (error.detach().amax() / 5).clamp_min(torch.finfo(error.dtype).tiny)
        error = torch.where(error <= c, error, (error.square() + c.square()) / (2 * c))
    return error.sum() / valid.sum().clamp_min(1)
