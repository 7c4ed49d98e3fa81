"""Self-training on the target: an averaged teacher, class-mix, and masked consistency.

    y_t  = argmax_c z_t,  p_t = max_c softmax_c z_t     z_t: the teacher's upsampled logits
    q    = fraction of an image's pixels with p_t above the threshold
    M    = pixels of half of the classes in y_s          chosen at random for each pair
    x_m  = M x_s + (1 - M) x_t
    L_self = m CE_M(G_task(x_m), y_s) + (1 - m) q CE_(1-M)(G_task(x_m), y_t)

    x_h  = x_t with patches hidden                       chosen at random for each pair
    L_mask = q CE(G_task(x_h), y_t)                      over all pixels, hidden or not

With ``depth_agreement``, the means over the teacher's labels are weighted by a, how well the
teacher's depth agrees with a depth map of the target, as in CorDA.

m is the fraction of the image that M covers. CE_M is the mean cross-entropy over the pixels of M,
with the class weights of L_seg, as in L_mask. Without class weights the task network forgot signs,
fences and pedestrians, because the teacher is rarely confident of them.

The teacher's weights are an exponential moving average of the weights of G_task. Self-training sees
source images, source labels and target images, but no target labels.

Source: L_self is DACS (Tranheden, Olsson, Pinto, Svensson, WACV 2021, arXiv 2007.08702), which
DAFormer (Hoyer, Dai, Van Gool, CVPR 2022, arXiv 2111.14887) uses too. L_mask is MIC (Hoyer, Dai,
Wang, Van Gool, CVPR 2023, arXiv 2212.01322). Three differences: q is computed for each image and
not for the batch, so that an update does not depend on how its pairs are split into batches; the
mixed and masked images get no colour jitter and no blur; and by default only every other pair of a
batch is mixed and masked (``self_train_half``). In L_mask, the classes have weights.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .depth import NEAR, decode_depth, has_depth
from .labels import FAR, IGNORE
from .models import TaskNet
from .models.layers import upsample
from .ops import upsample_cross_entropy

DEPTH_MARGIN = 0.03
"""Difference of encoded depth up to which a pasted pixel counts as no farther than what it covers:
with predicted depth, a road pasted over a road would be torn otherwise (DepthMix: 0.03)."""


class PseudoLabels(NamedTuple):
    """What the teacher sees in the target images."""

    labels: Tensor
    """uint8 [N, H, W]: y_t, train ids."""
    confidence: Tensor
    """float32 [N]: q."""
    depth: Tensor | None = None
    """float32 [N, 1, H, W]: encoded depth, which is arbitrary where no depth is learned (the sky).
    None if nothing needs it."""
    agreement: Tensor | None = None
    """float32 [N, H, W]: a, factor of the loss of each pixel (``depth_agreement``), or None for
    1."""


class Augmented(NamedTuple):
    """Target images of which parts are replaced, and the labels to train on."""

    image: Tensor
    """float [N, 3, H, W] in [-1, 1]."""
    labels: Tensor
    """uint8 [N, H, W] train ids: source labels where pasted, the teacher's labels elsewhere."""
    confidence: Tensor
    """float32 [N]: q."""
    pasted: Tensor | None = None
    """bool [N, H, W]: M, the pixels that come from the source; None if nothing is pasted."""
    agreement: Tensor | None = None
    """float32 [N, H, W]: a, or None for 1. It has no effect on pasted pixels."""


@torch.no_grad()
def pseudo_labels(
    teacher: TaskNet, x_t: Tensor, size: Sequence[int], threshold: float, depth: bool = False
) -> PseudoLabels:
    """Labels that the teacher predicts for the target images.

    Args:
        teacher: predicts without gradients.
        x_t: [N, 3, H, W] target images in [-1, 1].
        size: (H, W).
        threshold: probability above which a prediction counts as confident.
        depth: whether to return depth, too.
    """
    logits, small_depth = teacher(x_t)
    probability, y_t = upsample(logits.float(), size).softmax(1).max(1)
    confidence = (probability > threshold).flatten(1).mean(1, dtype=torch.float32)
    d_t = upsample(small_depth.float(), size) if depth else None
    return PseudoLabels(y_t.to(torch.uint8), confidence, d_t)


@torch.no_grad()
def depth_agreement(predicted: Tensor, metres: Tensor, encoding: str) -> Tensor:
    """How well predicted depth agrees with a depth map: the smaller depth / the larger one.

    A teacher that misjudges the distance of a surface has often misjudged its class, too. CorDA
    (Wang et al., ICCV 2021, arXiv 2104.13613) weights pseudo-labels by the relative difference,
    max(0, 1 - |z - z'| / z), of two predictions. The ratio is symmetric and never 0.

    Args:
        predicted: [N, 1, H, W] encoded depth.
        metres: [N, 1, H, W] depth map, 0 where unknown.
        encoding: of ``predicted``, see ``encode_depth``.

    Returns:
        float32 [N, H, W] in (0, 1], 1 where the map has no depth.
    """
    z, z_map = decode_depth(predicted, encoding), metres.clamp(NEAR, FAR)
    ratio = torch.minimum(z, z_map) / torch.maximum(z, z_map)
    return torch.where(has_depth(metres), ratio, 1.0).squeeze(1)


@torch.no_grad()
def class_mix(
    x_s: Tensor,
    y_s: Tensor,
    x_t: Tensor,
    noise: Tensor,
    pseudo: PseudoLabels,
    d_s: tuple[Tensor, Tensor] | None = None,
    by_depth: bool = False,
    nearer_only: bool = False,
) -> Augmented:
    """Paste half of the classes of each source image over the target image of its pair.

    ``by_depth`` and ``nearer_only`` compare encoded depth pixel by pixel: the source's with the
    teacher's. Source pixels without depth count as infinitely far. So do target pixels to which the
    teacher gives a class that has no depth in the source image, such as the sky, because the
    teacher has not learned depth there. Images of which no pixel has depth are mixed without them.

    With ``nearer_only``, a pixel is pasted only if it is at most ``DEPTH_MARGIN`` farther than what
    it covers. Source: DepthMix (Hoyer et al., CVPR 2021, arXiv 2012.10782), which pastes all nearer
    pixels, not those of half of the classes, and scales the disparity of each image to [0, 1].

    With ``by_depth``, the pasted classes are those with the smallest mean difference of depth over
    their pixels. Source: the depth-guided contextual filter of Chen, Zheng, Yang (ACM MM 2024,
    arXiv 2311.12682). Of the random classes, that filter drops those whose number of pixels at the
    depth where most of them would be pasted differs from what the teacher sees there; it counts in
    intervals of a depth map of the target. Here half of the classes are always pasted, and the
    depths of source and teacher are compared at the place where a class would be pasted.

    Args:
        x_s: [N, 3, H, W] source images in [-1, 1].
        y_s: uint8 [N, H, W] labels of the source; ignored pixels are never pasted.
        x_t: [N, 3, H, W] target images in [-1, 1].
        noise: float32 [N, C] a random number for each class. An image has k classes: the
            ceil(k / 2) classes with the smallest numbers are pasted.
        pseudo: the teacher's labels of the target images, with depth for the next arguments.
        d_s: (encoded depth of the source, mask of its valid pixels), both [N, 1, H, W].
        by_depth: choose the classes by depth instead of ``noise``.
        nearer_only: do not paste what is farther than the target.

    Returns:
        The mixed images and their labels, without gradients.
    """
    classes = torch.arange(noise.shape[1], device=y_s.device).view(-1, 1, 1)
    is_class = y_s.unsqueeze(1) == classes
    nearer = None
    if by_depth or nearer_only:
        assert d_s is not None and pseudo.depth is not None
        (depth, valid), d_t = d_s, pseudo.depth
        shows_depth = (is_class & valid).flatten(2).any(2)  # [N, C]
        # a class that the source image does not show keeps the teacher's depth
        is_far = is_class.flatten(2).any(2) & ~shows_depth
        of_pixel = is_far.gather(1, pseudo.labels.flatten(1).long()).view_as(d_t)
        d_t = torch.where(of_pixel, 0.0, d_t)
        known = valid.flatten(1).any(1)
        if by_depth:
            difference = (depth - d_t).abs() * is_class
            sizes = is_class.sum((2, 3)).clamp(min=1)
            noise = torch.where(known[:, None], difference.sum((2, 3)) / sizes, noise)
        if nearer_only:
            nearer = (depth >= d_t - DEPTH_MARGIN).squeeze(1) | ~known[:, None, None]
    pasted = _half_of_the_classes(is_class, noise)
    if nearer is not None:
        pasted = pasted & nearer
    return Augmented(
        torch.where(pasted.unsqueeze(1), x_s, x_t),
        torch.where(pasted, y_s, pseudo.labels),
        pseudo.confidence,
        pasted,
        pseudo.agreement,
    )


def _half_of_the_classes(is_class: Tensor, noise: Tensor) -> Tensor:
    """Bool [N, H, W]: pixels of the chosen classes, computed without waiting for the device."""
    present = is_class.flatten(2).any(2)
    rank = torch.where(present, noise, torch.inf).argsort(dim=1, stable=True).argsort(1)
    chosen = rank < (present.sum(1, keepdim=True) + 1) // 2
    return (is_class & chosen[:, :, None, None]).any(1)


@torch.no_grad()
def hide_patches(
    x_t: Tensor, noise: Tensor, ratio: float, patch: int, fill: Tensor, pseudo: PseudoLabels
) -> Augmented:
    """Hide square patches of the target images; the labels stay those of the whole images.

    Args:
        x_t: [N, 3, H, W] target images in [-1, 1].
        noise: float32 [N, ceil(H / patch), ceil(W / patch)] in [0, 1), a random number for each
            patch: those below ``ratio`` are hidden. Patches at the right and at the bottom are cut
            off by the border. (MIC stretches a grid of round(H / patch) rows to the image.)
        ratio: expected fraction of the hidden patches.
        patch: side of a patch in pixels.
        fill: [3] or [1, 3, 1, 1] colour of hidden pixels. In MIC they are 0 after the
            normalisation with ImageNet's mean: ``TaskNet.neutral``.
        pseudo: the teacher's labels of the target images.
    """
    n, _, height, width = x_t.shape
    rows, columns = noise.shape[1:]
    hidden = (noise < ratio)[:, :, None, :, None].expand(n, rows, patch, columns, patch)
    hidden = hidden.reshape(n, 1, rows * patch, columns * patch)[:, :, :height, :width]
    image = torch.where(hidden, fill.view(1, 3, 1, 1), x_t)
    return Augmented(image, pseudo.labels, pseudo.confidence, agreement=pseudo.agreement)


def self_training_loss(
    logits: Tensor, augmented: Augmented, weight: Tensor | None = None
) -> Tensor:
    """L_self, or L_mask if nothing is pasted: mean over the images.

    Args:
        logits: [N, C, h, w] output of G_task for ``augmented.image``.
        augmented: result of ``class_mix`` or ``hide_patches``.
        weight: [C] class weights of the cross-entropy, or None.
    """
    labels, pasted = augmented.labels, augmented.pasted
    valid = labels != IGNORE
    w = valid.float()
    if weight is not None:
        w = w * weight[labels.long() * valid]
    a = augmented.agreement
    if a is not None:
        a = a if pasted is None else torch.where(pasted, 1.0, a)
        w = w * a
    q = augmented.confidence[:, None, None]

    def share(weights: Tensor, factor: Tensor) -> Tensor:
        """Pixel weights [N, 1, 1] of a part: the part's sum becomes its mean times the factor."""
        total = weights.sum((1, 2), keepdim=True)
        return torch.where(total > 0, factor / total, 0)

    if pasted is None:
        pixel_weight = share(w, q).expand(labels.shape)
    else:
        m = pasted.mean((1, 2), keepdim=True, dtype=torch.float32)
        pixel_weight = torch.where(pasted, share(w * pasted, m), share(w * ~pasted, (1 - m) * q))
    if a is not None:
        pixel_weight = pixel_weight * a
    loss = upsample_cross_entropy(
        logits, labels, IGNORE, weight, reduction="sum", pixel_weight=pixel_weight
    )
    return loss / len(logits)
