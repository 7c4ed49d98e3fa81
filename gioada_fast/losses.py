"""The task's losses, by name; the adversarial ones are ``ops.gan_loss``."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .ops import upsample_cross_entropy, upsample_depth_loss
from .ops.upsample_depth_loss import KINDS as DEPTH_LOSSES

GAN_LOSSES = ("lsgan", "bce", "hinge")
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

    Args:
        depth: [N, 1, h, w] predicted, encoded.
        target: [N, 1, H, W] encoded.
        valid: [N, 1, H, W] bool.
        kind: one of DEPTH_LOSSES.
    """
    return upsample_depth_loss(depth, target, kind, valid)


def gan_loss(logits: Tensor, real: bool, kind: str = "lsgan", generator: bool = False) -> Tensor:
    """Mean loss of a discriminator's patch logits against one constant target.

    lsgan: (x - t)^2, t in {0, 1}.  bce: softplus(-x) for real, softplus(x) for fake.
    hinge: max(0, 1 - x) for real, max(0, 1 + x) for fake; a generator's is -x, or x.

    Args:
        logits: [N, 1, h, w].
        real: the target: what the discriminator is taught, or what the generator wants it to say.
        generator: whether this is the generator's side; only hinge makes a difference.

    Source: Mao et al. (arXiv 1611.04076), Goodfellow et al. (arXiv 1406.2661), Lim and Ye
    (arXiv 1705.02894).
    """
    x = logits.float()
    signed = x if real else -x
    if kind == "lsgan":
        return (x - float(real)).square().mean()
    if kind == "bce":
        return F.softplus(-signed).mean()
    if kind == "hinge":
        return (-signed if generator else F.relu(1 - signed)).mean()
    raise ValueError(f"kind is {kind!r}, expected one of {', '.join(GAN_LOSSES)}")
    full = upsample(depth.float(), target.shape[2:])
    error = torch.where(valid, (full - target).abs(), 0.0)
    if kind == "berhu":
        c = (error.detach().amax() / 5).clamp_min(torch.finfo(error.dtype).tiny)
        error = torch.where(error <= c, error, (error.square() + c.square()) / (2 * c))
    return error.sum() / valid.sum().clamp_min(1)
