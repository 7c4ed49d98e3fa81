"""Self-training on the target: an averaged teacher, class-mix, and the loss on the mixed image.

    y_t  = argmax_c z_t,  p_t = max_c softmax_c z_t     z_t: the teacher's upsampled logits
    q    = fraction of an image's pixels with p_t above the threshold
    M    = pixels of half of the classes in y_s          chosen at random for each pair
    x_m  = M x_s + (1 - M) x_t
    L_self = m CE_M(G_task(x_m), y_s) + (1 - m) q CE_(1-M)(G_task(x_m), y_t)

m is the fraction of the image that M covers. CE_M is the mean cross-entropy over the pixels of M,
with the class weights of L_seg. Without class weights the task network forgot signs, fences and
pedestrians, because the teacher is rarely confident of them.

The teacher's weights are an exponential moving average of the weights of G_task. Self-training sees
source images, source labels and target images, but no target labels.

Source: DACS (Tranheden, Olsson, Pinto, Svensson, WACV 2021, arXiv 2007.08702); DAFormer (Hoyer,
Dai, Van Gool, CVPR 2022, arXiv 2111.14887) uses it too. Two differences: q is computed for each
image and not for the batch, so that an update does not depend on how its pairs are split into
batches; and the mixed images get no colour jitter and no blur.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .labels import IGNORE
from .models import TaskNet
from .models.layers import upsample
from .ops import upsample_cross_entropy


class Mixed(NamedTuple):
    """Target images with source classes pasted over them, and the labels to train on."""

    image: Tensor
    """float [N, 3, H, W] in [-1, 1]."""
    pasted: Tensor
    """bool [N, H, W]: M, the pixels that come from the source."""
    labels: Tensor
    """uint8 [N, H, W] train ids: source labels where pasted, the teacher's labels elsewhere."""
    confidence: Tensor
    """float32 [N]: q."""


@torch.no_grad()
def class_mix(
    x_s: Tensor, y_s: Tensor, x_t: Tensor, noise: Tensor, teacher: TaskNet, threshold: float
) -> Mixed:
    """Paste half of the classes of each source image over the target image of its pair.

    Args:
        x_s: [N, 3, H, W] source images in [-1, 1].
        y_s: uint8 [N, H, W] labels of the source; ignored pixels are never pasted.
        x_t: [N, 3, H, W] target images in [-1, 1].
        noise: float32 [N, C] a random number for each class. An image has k classes: the
            ceil(k / 2) classes with the smallest numbers are pasted.
        teacher: predicts labels for the target images before anything is pasted.
        threshold: probability above which a prediction counts as confident.

    Returns:
        The mixed images and their labels, without gradients.
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
    """Bool [N, H, W]: pixels of the chosen classes, computed without waiting for the device."""
    classes = torch.arange(noise.shape[1], device=labels.device).view(-1, 1, 1)
    is_class = labels.unsqueeze(1) == classes
    present = is_class.flatten(2).any(2)
    rank = torch.where(present, noise, torch.inf).argsort(dim=1, stable=True).argsort(1)
    chosen = rank < (present.sum(1, keepdim=True) + 1) // 2
    return (is_class & chosen[:, :, None, None]).any(1)


def self_training_loss(logits: Tensor, mixed: Mixed, weight: Tensor | None = None) -> Tensor:
    """L_self, mean over the images.

    Args:
        logits: [N, C, h, w] output of G_task for ``mixed.image``.
        mixed: result of ``class_mix``.
        weight: [C] class weights of the cross-entropy, or None.
    """
    valid = mixed.labels != IGNORE
    w = valid.float()
    if weight is not None:
        w = w * weight[mixed.labels.long() * valid]
    m = mixed.pasted.mean((1, 2), keepdim=True, dtype=torch.float32)
    q = mixed.confidence[:, None, None]

    def share(part: Tensor, factor: Tensor) -> Tensor:
        """Pixel weights [N, 1, 1] of a part: the part's sum becomes its mean times the factor."""
        total = (w * part).sum((1, 2), keepdim=True)
        return torch.where(total > 0, factor / total, 0)

    pixel_weight = torch.where(
        mixed.pasted, share(mixed.pasted, m), share(~mixed.pasted, (1 - m) * q)
    )
    loss = upsample_cross_entropy(
        logits, mixed.labels, IGNORE, weight, reduction="sum", pixel_weight=pixel_weight
    )
    return loss / len(logits)
