"""The two-level adaptation step: the objective of GIO-Ada, term by term.

    min over G_img, G_task   max over D_img, D_out
      L_seg + lambda_depth L_depth     on the source images, half of them translated
    + lambda_img L_img                 D_img: translated source against target
    + lambda_out L_out                 D_out: output for the source against output for the target
    + lambda_self L_self               not in the paper, off by default: see self_training.py
    + lambda_mask L_mask               likewise
    + lambda_target_depth L_depth_t    likewise: on the target images, against depth maps
    + lambda_labelled L_labelled       likewise: on the target images whose labels may be used

``TERMS`` lists the terms of the generators' loss. A new term is a function and a row there.

Source: Chen, Li, Chen, Van Gool (CVPR 2019, arXiv 1812.05040).
"""

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from .config import AdaptationConfig, ModelConfig
from .depth import align_relative_depth, encode_depth, has_depth, surface_normals
from .labels import IGNORE
from .models import OutputDiscriminator, PatchDiscriminator, TaskNet, TranslationNet
from .models.layers import normalise, upsample
from .ops import gan_loss, semantic_depth_concat, upsample_cross_entropy, upsample_depth_loss
from .self_training import (
    Augmented,
    class_mix,
    depth_agreement,
    hide_patches,
    pseudo_labels,
    self_training_loss,
)


class Batch(NamedTuple):
    """Raw tensors from the loader; source and target images have the same size."""

    source_image: Tensor
    """uint8 [N, 3, H, W]."""
    source_labels: Tensor
    """uint8 [N, H, W] train ids, 255 ignored."""
    source_depth: Tensor
    """float32 [N, 1, H, W] metres, 0 where there is no depth."""
    target_image: Tensor | None
    """uint8 [N, 3, H, W], or None when training on the source only. They have no labels."""
    class_mix_noise: Tensor | None = None
    """float32 [N, C] random numbers that choose the classes to paste; None without
    self-training."""
    mask_noise: Tensor | None = None
    """float32 [N, ceil(H / mask_patch), ceil(W / mask_patch)] in [0, 1): masked consistency hides
    the patches below ``mask_ratio``; None without it."""
    target_depth: Tensor | None = None
    """float32 [N, 1, H, W] depth of the target images in metres, or relative as stored (larger is
    nearer) if data.target.depth_kind says so, 0 where unknown; None if nothing reads it."""
    labelled_image: Tensor | None = None
    """uint8 [N, 3, H, W] of data.target.labelled; None without."""
    labelled_labels: Tensor | None = None
    """uint8 [N, H, W] train ids of ``labelled_image``, 255 ignored."""

    def map(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        """The batch of the function's results for the tensors that are there."""
        return Batch._make(None if tensor is None else function(tensor) for tensor in self)


class TaskOutput(NamedTuple):
    """Output of the task network for N images."""

    logits: Tensor
    """[N, C, h, w]."""
    depth: Tensor
    """[N, 1, h, w], encoded."""


class StepTensors(NamedTuple):
    """Input of the loss terms of the generators. Tensors of a level that is off are None."""

    y_s: Tensor
    """uint8 [N, H, W] labels of the source, 255 ignored."""
    d_s: Tensor
    """float32 [N, 1, H, W] encoded depth of the source."""
    valid: Tensor
    """bool [N, 1, H, W]: where the source has depth."""
    class_weights: Tensor | None
    """[C] weights of the cross-entropy."""
    source: TaskOutput
    """Output of G_task for the source images, translated or not (``keep_half_untranslated``)."""
    images: tuple[Tensor, Tensor] | None
    """Input level: input of D_img for (translated source, target of the same pairs), both
    [M, 3, H, W] in [-1, 1], or [M, 4, H, W] with the encoded depth that G_task predicts."""
    image_patches: Tensor | None
    """Input level: patch logits of D_img for the translated source images."""
    target: TaskOutput | None
    """Output level or depth on the target: output of G_task for the target images."""
    outputs: Tensor | None
    """Output level: input of D_out, [2 N, C or C + 1, H, W]; first the source, then the target."""
    output_patches: tuple[Tensor, Tensor] | None
    """Output level: patch logits of D_out for (source, target)."""
    mixed: tuple[Augmented, Tensor] | None
    """Self-training: mixed images with their labels, and logits [N, C, h, w] of G_task for them."""
    masked: tuple[Augmented, Tensor] | None
    """Masked consistency: the same of target images with hidden patches."""
    target_depth: Tensor | None
    """Depth on the target: float32 [N, 1, H, W] metres, 0 where unknown."""
    labelled: tuple[Augmented, Tensor] | None
    """Labelled target images: with their labels, and logits [N, C, h, w] of G_task for them."""


Maps = list[tuple[Tensor, bool]]
"""Maps of patch logits, each with its label in the GAN loss: real (True) or fake."""


@dataclass(frozen=True)
class Term:
    """One term of the generators' loss: a row of ``TERMS``."""

    name: str
    """Name in the logs: ``loss/<name>``."""
    symbol: str
    """Symbol in the formula at the top of this file."""
    weight: Callable[[AdaptationConfig], float]
    """Returns the term's factor in the total, usually a setting."""
    scale: Literal["seg", "depth", "pairs", "translated", "self_trained"]
    """What the loss is a mean over: the field of ``LossScale`` that multiplies it."""
    loss: Callable[[StepTensors, AdaptationConfig], Tensor | Maps]
    """Returns the loss as a scalar. A GAN loss returns maps instead and is the mean of their
    losses; one call of ``ops.gan_loss`` takes the maps of all terms."""
    needs: str | None = None
    """Field of ``StepTensors`` without which the term is off. None: always on."""

    def is_on(self, t: StepTensors) -> bool:
        """Whether the step has the tensors that ``loss`` needs."""
        return self.needs is None or getattr(t, self.needs) is not None


def segmentation_loss(t: StepTensors, config: AdaptationConfig) -> Tensor:
    """L_seg: cross-entropy of the upsampled logits, mean over the labelled pixels."""
    return upsample_cross_entropy(t.source.logits, t.y_s, weight=t.class_weights)


def depth_loss(t: StepTensors, config: AdaptationConfig) -> Tensor:
    """L_depth: error of the upsampled encoded depth, mean over the pixels with depth, 0 if none."""
    return upsample_depth_loss(t.source.depth, t.d_s, config.depth_loss, t.valid)


def image_loss(t: StepTensors, config: AdaptationConfig) -> Maps:
    """L_img: D_img should classify the translated source images as real."""
    assert t.image_patches is not None
    return [(t.image_patches, True)]


def output_loss(t: StepTensors, config: AdaptationConfig) -> Maps:
    """L_out: D_out should take the target's output for the source's, and the reverse.

    G_task makes the target's output look like the source's. Through G_task, G_img makes the
    translated source's output look like the target's.
    """
    assert t.output_patches is not None
    source, target = t.output_patches
    return [(target, True), (source, False)]


def mixed_loss(t: StepTensors, config: AdaptationConfig) -> Tensor:
    """L_self: cross-entropy on the mixed images, against labels and pseudo-labels."""
    assert t.mixed is not None
    mixed, logits = t.mixed
    return self_training_loss(logits, mixed, t.class_weights)


def masked_loss(t: StepTensors, config: AdaptationConfig) -> Tensor:
    """L_mask: cross-entropy on partly hidden target images, against the teacher's labels."""
    assert t.masked is not None
    masked, logits = t.masked
    return self_training_loss(logits, masked, t.class_weights)


def target_depth_loss(t: StepTensors, config: AdaptationConfig) -> Tensor:
    """L_depth_t: error of the target's encoded depth, mean over the images.

    An image's loss is the mean over its pixels with depth, 0 if none.
    """
    assert t.target is not None and t.target_depth is not None
    depth, valid = encode_depth(t.target_depth, config.depth_encoding)
    pixels = valid.sum((1, 2, 3), keepdim=True).clamp(min=1) * len(valid)
    weight = (1 / pixels).expand(valid.shape)
    return upsample_depth_loss(
        t.target.depth, depth, config.depth_loss, valid, reduction="sum", pixel_weight=weight
    )


def labelled_loss(t: StepTensors, config: AdaptationConfig) -> Tensor:
    """L_labelled: cross-entropy on target images with labels, mean over the images.

    An image's loss is the mean over its labelled pixels, 0 if none.
    """
    assert t.labelled is not None
    labelled, logits = t.labelled
    return self_training_loss(logits, labelled, t.class_weights)


TERMS = [
    Term("seg", "L_seg", lambda c: 1.0, "seg", segmentation_loss),
    Term("depth", "L_depth", lambda c: c.lambda_depth, "depth", depth_loss),
    Term("img", "L_img", lambda c: c.lambda_img, "translated", image_loss, needs="image_patches"),
    Term("out", "L_out", lambda c: c.lambda_out, "pairs", output_loss, needs="output_patches"),
    Term("self", "L_self", lambda c: c.lambda_self, "self_trained", mixed_loss, needs="mixed"),
    Term("mask", "L_mask", lambda c: c.lambda_mask, "self_trained", masked_loss, needs="masked"),
    Term(
        "target_depth",
        "L_depth_t",
        lambda c: c.lambda_target_depth,
        "pairs",
        target_depth_loss,
        needs="target_depth",
    ),
    Term(
        "labelled",
        "L_labelled",
        lambda c: c.lambda_labelled,
        "pairs",
        labelled_loss,
        needs="labelled",
    ),
]
"""The objective of the generators; ``total`` sums weight times loss over the terms that are on."""


class GeneratorStep(NamedTuple):
    """Losses of the generators, and the tensors that the discriminators need."""

    losses: dict[str, Tensor]
    """Loss of each term by name, and their weighted sum ``total``."""
    images: tuple[Tensor, Tensor] | None
    """``StepTensors.images``, detached."""
    outputs: Tensor | None
    """``StepTensors.outputs``, detached."""

    @property
    def is_empty(self) -> bool:
        """Whether the discriminators have nothing to learn from it."""
        return self.images is None and self.outputs is None


class LossScale(NamedTuple):
    """Factors that make the sum of per-batch means equal the mean over the whole update.

    Batches differ in how many pixels have a label or a depth, so these are not all the same number.
    """

    seg: Tensor
    """For means over labelled pixels."""
    depth: Tensor
    """For means over pixels with depth."""
    pairs: float
    """For means over pairs of images."""
    translated: float
    """For means over the pairs whose source image is translated."""
    self_trained: float
    """For means over the pairs of self-training."""


class TwoLevelAdaptation(nn.Module):
    """The networks of a configuration, and the losses of generators and discriminators.

    Args:
        num_classes: C.
        config: levels, and weights and kinds of the losses.
        model: sizes of the networks.
        relative_target_depth: whether ``Batch.target_depth`` has unknown scale and shift.

    ``class_weights`` is a buffer that callers may set: [C] weights of the cross-entropy, or None
    for equal weights. ``translation`` and ``image_discriminator`` are None if the input level is
    off, ``output_discriminator`` if the output level is off, ``teacher`` without self-training. The
    teacher gets no gradient: ``start_teacher`` copies ``task`` into it, ``update_teacher`` moves it
    towards ``task``.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        num_classes: int,
        config: AdaptationConfig,
        model: ModelConfig,
        relative_target_depth: bool = False,
    ):
        super().__init__()
        self.config, self.relative_target_depth = config, relative_target_depth
        self.task = TaskNet(
            num_classes,
            model.backbone,
            model.trunk_width,
            model.trunk_norm,
            model.trunk_config,
            model.head,
            model.head_channels,
            model.task_checkpointing,
        )
        self.translation: TranslationNet | None = None
        self.image_discriminator: PatchDiscriminator | None = None
        self.output_discriminator: OutputDiscriminator | None = None
        if config.input_level != "none":
            self.translation = TranslationNet(
                num_classes,
                config.input_level in ("geometry", "normals"),
                model.translation_width,
                model.translation_blocks,
                model.translation_checkpointing,
                normals=config.input_level == "normals",
                change=model.translation_change,
            )
            in_channels = 3 + (config.image_discriminator_input == "depth")
            self.image_discriminator = PatchDiscriminator(model.discriminator_width, in_channels)
        if config.output_level != "none":
            in_channels = num_classes + (config.output_level == "joint")
            self.output_discriminator = OutputDiscriminator(in_channels, model.discriminator_width)
        self.teacher: TaskNet | None = None
        if config.self_training:
            # evaluation mode: the teacher drops nothing
            self.teacher = copy.deepcopy(self.task).requires_grad_(False).eval()
        self.register_buffer("class_weights", None)

    def start_teacher(self) -> None:
        """Copy the task network's weights into the teacher, if there is one."""
        if self.teacher is not None:
            self.teacher.load_state_dict(self.task.state_dict())

    @torch.no_grad()
    def update_teacher(self) -> None:
        """Move the teacher's weights towards the task network's; call this after each update."""
        if self.teacher is not None:
            teacher: list[Tensor] = list(self.teacher.parameters())
            task: list[Tensor] = list(self.task.parameters())
            torch._foreach_lerp_(teacher, task, 1 - self.config.teacher_decay)

    def pixel_weights(self, batch: Batch) -> Tensor:
        """Float64 [2]: the denominators of the means in L_seg and L_depth for this batch."""
        labels, valid = batch.source_labels, has_depth(batch.source_depth)
        counted = labels != IGNORE
        if self.class_weights is not None:
            classes = torch.where(counted, labels, 0).long()
            counted = torch.where(counted, self.class_weights[classes], 0)
        return torch.stack([counted.sum(dtype=torch.float64), valid.sum(dtype=torch.float64)])

    def translated(self, first: int = 0) -> slice:
        """Which of the pairs first, first + 1, ... of a batch have their source translated."""
        return _every_other(first) if self.config.keep_half_untranslated else slice(None)

    def self_trained(self, first: int = 0) -> slice:
        """Which of the pairs first, first + 1, ... of a batch self-training uses."""
        return _every_other(first) if self.config.self_train_half else slice(None)

    def generators_loss(
        self, batch: Batch, scale: LossScale | None = None, first: int = 0
    ) -> GeneratorStep:
        """The loss of each term that is on, and their weighted sum.

        Call this with the discriminators ``frozen``, so that their weights get no gradient. The
        target passes only through networks of levels that are on. If ``batch.target_image`` is
        None, both levels and self-training are off.

        Args:
            batch: the frames.
            scale: factors of the losses if the update accumulates several batches.
            first: if ``batch`` is a part of a batch, the index of its first pair there.
        """
        t = self._run_networks(batch, first)
        terms = [term for term in TERMS if term.is_on(t)]
        values = {term.name: term.loss(t, self.config) for term in terms}
        losses = self._losses(values, generator=True)
        if scale is not None:
            losses = {term.name: losses[term.name] * getattr(scale, term.scale) for term in terms}
        weighted = [term.weight(self.config) * losses[term.name] for term in terms]
        losses["total"] = sum(weighted[1:], start=weighted[0])
        images = None if t.images is None else (t.images[0].detach(), t.images[1])
        outputs = None if t.outputs is None else t.outputs.detach()
        return GeneratorStep(losses, images, outputs)

    def _run_networks(self, batch: Batch, first: int) -> StepTensors:
        """Run G_img, D_img, G_task and D_out once each, as far as their levels are on."""
        config, y_s = self.config, batch.source_labels
        d_s, valid = encode_depth(batch.source_depth, config.depth_encoding)
        x_s = normalise(batch.source_image)
        x_t = None if batch.target_image is None else normalise(batch.target_image)
        n, (height, width) = y_s.shape[0], y_s.shape[1:]

        images = image_patches = None
        part = self.translated(first)
        if self.translation is not None and x_t is not None and len(x_s[part]):
            normals = (
                surface_normals(batch.source_depth[part]) if self.translation.normals else None
            )
            translated = self.translation(
                batch.source_image[part], d_s[part], y_s[part], x_s[part], normals
            )
            images = translated, x_t[part]
            if translated.shape[0] == n:
                x_s = translated
            else:
                x_s[part] = translated

        inputs, learns_depth = [x_s], config.lambda_target_depth > 0
        if x_t is not None and (self.output_discriminator is not None or learns_depth):
            inputs.append(x_t)
        augmented = {} if x_t is None else self._augment(batch, x_s, x_t, (d_s, valid), first)
        if batch.labelled_image is not None:
            assert batch.labelled_labels is not None
            certain = torch.ones(len(batch.labelled_image), device=x_s.device)
            x_l = normalise(batch.labelled_image)
            augmented["labelled"] = Augmented(x_l, batch.labelled_labels, certain)
        inputs.extend(part.image for part in augmented.values())
        logits, depth = self.task(torch.cat(inputs) if len(inputs) > 1 else x_s)
        parts = logits.split([len(images) for images in inputs])[len(inputs) - len(augmented) :]
        learned = dict(zip(augmented, zip(augmented.values(), parts, strict=True), strict=True))

        target = outputs = output_patches = target_depth = None
        if x_t is not None and (self.output_discriminator is not None or learns_depth):
            target = TaskOutput(logits[n : 2 * n], depth[n : 2 * n])
        if target is not None and learns_depth:
            target_depth = self._target_metres(batch, target.depth)
        if self.output_discriminator is not None and x_t is not None:
            outputs = self._output_map(logits[: 2 * n], depth[: 2 * n], (height, width))
            patches = self.output_discriminator(outputs)
            output_patches = patches[:n], patches[n:]
        if images is not None:
            assert self.image_discriminator is not None
            if config.image_discriminator_input == "depth":
                translated, real = images
                # after the pass with gradients: autocast may reuse the weights that it has cast,
                # and those cast here have no gradient
                depth_t = self._predicted_depth(real) if target is None else target.depth[part]
                images = with_depth(translated, depth[:n][part]), with_depth(real, depth_t)
            image_patches = self.image_discriminator(images[0])
        return StepTensors(
            y_s=y_s,
            d_s=d_s,
            valid=valid,
            class_weights=self.class_weights,
            source=TaskOutput(logits[:n], depth[:n]),
            images=images,
            image_patches=image_patches,
            target=target,
            outputs=outputs,
            output_patches=output_patches,
            mixed=learned.get("mixed"),
            masked=learned.get("masked"),
            target_depth=target_depth,
            labelled=learned.get("labelled"),
        )

    def _target_metres(self, batch: Batch, predicted: Tensor) -> Tensor:
        """Depth maps of the target in metres; relative ones are aligned to the predicted depth."""
        assert batch.target_depth is not None
        if not self.relative_target_depth:
            return batch.target_depth
        size, encoding = batch.target_depth.shape[2:], self.config.depth_encoding
        return align_relative_depth(
            batch.target_depth, upsample(predicted.detach().float(), size), encoding
        )

    def _augment(
        self, batch: Batch, x_s: Tensor, x_t: Tensor, d_s: tuple[Tensor, Tensor], first: int
    ) -> dict[str, Augmented]:
        """Self-training's images for G_task, by their field in ``StepTensors``; {} without it."""
        config, part = self.config, self.self_trained(first)
        if self.teacher is None or not len(x_t[part]):
            return {}
        batch, x_s, x_t = batch.map(lambda tensor: tensor[part]), x_s[part], x_t[part]
        y_s, d_s = batch.source_labels, (d_s[0][part], d_s[1][part])
        by_depth, nearer_only = config.mix_classes == "depth", config.mix_order == "depth"
        needs_depth = by_depth or nearer_only or config.depth_agreement
        size, threshold = y_s.shape[1:], config.confidence
        pseudo = pseudo_labels(self.teacher, x_t, size, threshold, needs_depth)
        if config.depth_agreement:
            assert pseudo.depth is not None
            metres = self._target_metres(batch, pseudo.depth)
            agreement = depth_agreement(pseudo.depth, metres, config.depth_encoding)
            pseudo = pseudo._replace(agreement=agreement)
        noise = batch.class_mix_noise
        assert noise is not None
        mixed = class_mix(x_s, y_s, x_t, noise, pseudo, d_s, by_depth, nearer_only)
        augmented = {"mixed": mixed}
        if config.mask_ratio > 0:
            assert batch.mask_noise is not None
            ratio, patch, fill = config.mask_ratio, config.mask_patch, self.teacher.neutral
            augmented["masked"] = hide_patches(x_t, batch.mask_noise, ratio, patch, fill, pseudo)
        return augmented

    def _output_map(self, logits: Tensor, depth: Tensor, size: tuple[int, int]) -> Tensor:
        """Input of D_out at the size of the images, from the output of G_task."""
        level = self.config.output_level
        if level == "product":
            return information_times_depth(
                semantic_depth_concat(logits.float(), depth.float(), size)
            )
        return semantic_depth_concat(logits, depth if level == "joint" else None, size)

    @torch.no_grad()
    def _predicted_depth(self, images: Tensor) -> Tensor:
        """Encoded depth [M, 1, h, w] of images, without gradients."""
        return self.task(images)[1]

    def discriminators_loss(
        self, generated: GeneratorStep, scale: LossScale | None = None
    ) -> dict[str, Tensor]:
        """Losses of D_img and D_out: real against fake, on the generators' latest tensors."""
        maps: dict[str, Maps] = {}
        if generated.images is not None:
            assert self.image_discriminator is not None
            fake, real = self.image_discriminator(torch.cat(generated.images)).chunk(2)
            maps["d_img"] = [(real, True), (fake, False)]
        if generated.outputs is not None:
            assert self.output_discriminator is not None
            source, target = self.output_discriminator(generated.outputs).chunk(2)
            maps["d_out"] = [(source, True), (target, False)]
        losses = self._losses(maps, generator=False)
        if scale is not None:
            scales = {"d_img": scale.translated, "d_out": scale.pairs}
            losses = {name: loss * scales[name] for name, loss in losses.items()}
        return losses

    def _losses(self, values: Mapping[str, Tensor | Maps], generator: bool) -> dict[str, Tensor]:
        """Replace each list of maps by the mean of their GAN losses; scalars stay as they are.

        One call computes the losses of all maps, because the overhead of a call exceeds the cost of
        one map's loss.
        """
        maps = {name: value for name, value in values.items() if not isinstance(value, Tensor)}
        losses = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        if not maps:
            return losses
        logits, real = zip(*itertools.chain(*maps.values()), strict=True)
        means = gan_loss(logits, real, self.config.gan_loss, generator)
        parts = means.split([len(pairs) for pairs in maps.values()])
        return losses | {name: part.mean() for name, part in zip(maps, parts, strict=True)}


def _every_other(first: int) -> slice:
    """Even indices of a batch, of which the part from ``first`` on is at hand."""
    return slice(first % 2, None, 2)


def information_times_depth(joint: Tensor) -> Tensor:
    """DADA's input of D_out: the weighted self-information of the classes times the depth.

        out[:, c] = -p_c log(p_c) / log(C) d

    D_out then sees uncertain pixels, and near ones more than far ones.

    Args:
        joint: float32 [N, C + 1, H, W], result of ``semantic_depth_concat``: p, then d.

    Returns:
        [N, C, H, W]. Both p and d get gradients.

    Source: Vu et al. (ICCV 2019, arXiv 1904.01886); the self-information comes from ADVENT (arXiv
    1811.12833).
    """
    p, depth = joint[:, :-1], joint[:, -1:]
    # 1e-30 keeps the gradient finite where a probability underflows to 0
    return p * torch.log(p + 1e-30) * (depth / -math.log(p.shape[1]))


def with_depth(image: Tensor, depth: Tensor) -> Tensor:
    """Image [N, 3, H, W] and predicted depth [N, 1, h, w] as one input [N, 4, H, W] of D_img.

    No gradient passes through the depth. Otherwise the image GAN loss, whose weight is the largest
    of all, would train the depth head to predict whatever D_img takes for real.
    """
    joint = torch.cat([image, upsample(depth.detach().float(), image.shape[2:])], dim=1)
    return joint.contiguous(memory_format=torch.channels_last)


@contextmanager
def frozen(*networks: nn.Module | None) -> Iterator[None]:
    """Give the networks' weights no gradient inside the block; their inputs still get one."""
    present = [network for network in networks if network is not None]
    for network in present:
        network.requires_grad_(False)
    try:
        yield
    finally:
        for network in present:
            network.requires_grad_(True)
