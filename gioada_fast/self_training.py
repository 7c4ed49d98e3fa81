"""Self-training on the target: an averaged teacher, class-mix, and the loss on the mixed image.

    y_t  = argmax_c z_t,  p_t = max_c softmax_c z_t     z_t: the teacher's logits, upsampled
    q    = share of an image's pixels with p_t above the threshold
    M    = pixels of half of the classes in y_s          chosen at random, for each pair
    x_m  = M x_s + (1 - M) x_t
    L_self = m CE_M(G_task(x_m), y_s) + (1 - m) q CE_(1-M)(G_task(x_m), y_t)

m is M's share of the image, CE_M the mean over its pixels, which has the class weights of L_seg:
without them signs, fences and pedestrians, of which the teacher is rarely sure, were forgotten.

The teacher's weights are an exponential moving average of G_task's. Only pixels and labels of the
source and pixels of the target go in.

Source: DACS (Tranheden, Olsson, Pinto, Svensson, WACV 2021, arXiv 2007.08702), as DAFormer (Hoyer,
Dai, Van Gool, CVPR 2022, arXiv 2111.14887) has it too. There q is that of a batch; here it is each
image's own, so that an update does not depend on how its pairs are cut into batches. Their colour
jitter and blur of the mixed image are left out.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .labels import IGNORE
from .models import TaskNet
from .models.layers import upsample
from .ops import upsample_cross_entropy


class Mixed(NamedTuple):
    """Target images with classes of the source pasted over them, and what is taken for true."""

    image: Tensor
    """float [N, 3, H, W] in [-1, 1]."""
    pasted: Tensor
    """bool [N, H, W]: which pixels are the source's."""
    labels: Tensor
    """uint8 [N, H, W] train ids: the source's labels where pasted, the teacher's elsewhere."""
    confidence: Tensor
    """float32 [N]: q."""


@torch.no_grad()
def class_mix(
    x_s: Tensor, y_s: Tensor, x_t: Tensor, noise: Tensor, teacher: TaskNet, threshold: float
) -> Mixed:
    """Paste half of each source image's classes over the target image of its pair.

    Args:
        x_s: [N, 3, H, W] source images in [-1, 1].
        y_s: uint8 [N, H, W] their labels; ignored pixels are never pasted.
        x_t: [N, 3, H, W] target images in [-1, 1].
        noise: float32 [N, C] a random number for each class: of the classes in an image, the half
            with the smallest ones is pasted, rounded up.
        teacher: labels the target images as they are, without what is pasted.
        threshold: of the probability that makes a pixel of the target a confident one.

    Returns:
        Everything without a gradient.
    """
    logits, _ = teacher(x_t)
    probability, y_t = upsample(logits.float(), y_s.shape[1:]).softmax(1).max(1)
    pasted = _half_of_the_classes(y_s, noise)
    return Mixed(
        torch.where(pasted.unsqueeze(1), x_s, x_t),
        pasted,
        torch.where(pasted, y_s, y_t.to(torch.uint8)),
        (probability > threshold).flatten(1).mean(1, dtype=torch.float32),
    )


def _half_of_the_classes(labels: Tensor, noise: Tensor) -> Tensor:
    """Bool [N, H, W]: pixels of the classes that are chosen. Nothing waits for the device."""
    classes = torch.arange(noise.shape[1], device=labels.device).view(-1, 1, 1)
    is_class = labels.unsqueeze(1) == classes
    present = is_class.flatten(2).any(2)
    rank = torch.where(present, noise, torch.inf).argsort(dim=1, stable=True).argsort(1)
    chosen = rank < (present.sum(1, keepdim=True) + 1) // 2
    return (is_class & chosen[:, :, None, None]).any(1)


def self_training_loss(logits: Tensor, mixed: Mixed, weight: Tensor | None = None) -> Tensor:
    """L_self: the mean over the images.

    Args:
        logits: [N, C, h, w] of G_task for ``mixed.image``.
        mixed: what ``class_mix`` made.
        weight: [C] class weights of the cross-entropy, or None.
    """
    pasted = torch.where(mixed.pasted, mixed.labels, IGNORE)
    pseudo = torch.where(mixed.pasted, IGNORE, mixed.labels)
    share = mixed.pasted.flatten(1).mean(1, dtype=torch.float32)
    # the fused loss is a mean over its valid pixels, and has no weight for each image
    images = zip(*(x.split(1) for x in (logits, pasted, pseudo)), strict=True)
    losses = [
        torch.stack([upsample_cross_entropy(z, y, weight=weight) for y in ys]) for z, *ys in images
    ]
    source, target = torch.stack(losses, dim=1)
    return (share * source + (1 - share) * mixed.confidence * target).mean()
