"""The task's losses, by name; the adversarial ones are ``ops.gan_loss``."""

from torch import Tensor

from .ops import upsample_cross_entropy, upsample_depth_loss
from .ops.upsample_depth_loss import KINDS as DEPTH_LOSSES

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

    Args:
        depth: [N, 1, h, w] predicted, encoded.
        target: [N, 1, H, W] encoded.
        valid: [N, 1, H, W] bool.
        kind: one of DEPTH_LOSSES.
    """
    return upsample_depth_loss(depth, target, kind, valid)
