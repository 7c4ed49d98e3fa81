"""The two-level adaptation step: the objective of GIO-Ada, term by term.

    min over G_img, G_task   max over D_img, D_out
      L_seg + lambda_depth L_depth     on the translated source, half of it left as rendered
    + lambda_img L_img                 D_img: translated source against target
    + lambda_out L_out                 D_out: output of translated source against that of target
    + lambda_self L_self               beyond the paper, off by default: see self_training.py

The minimum is the table ``TERMS``; a new term is a function and a row there.

Source: Chen, Li, Chen, Van Gool (CVPR 2019, arXiv 1812.05040).
"""

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from .config import AdaptationConfig, ModelConfig
from .depth import encode_depth, has_depth
from .labels import IGNORE
from .models import OutputDiscriminator, PatchDiscriminator, TaskNet, TranslationNet
from .models.layers import normalise
from .ops import gan_loss, semantic_depth_concat, upsample_cross_entropy, upsample_depth_loss
from .self_training import Mixed, class_mix, self_training_loss


class Batch(NamedTuple):
    """Raw tensors as they come from the loader; source and target have equal sizes."""

    source_image: Tensor
    """uint8 [N, 3, H, W]."""
    source_labels: Tensor
    """uint8 [N, H, W] train ids, 255 ignored."""
    source_depth: Tensor
    """float32 [N, 1, H, W] metres, 0 where there is none."""
    target_image: Tensor | None
    """uint8 [N, 3, H, W]; there are no target labels. None: source only."""
    class_mix_noise: Tensor | None = None
    """float32 [N, C] random numbers, by which self-training chooses classes; None without it."""


class TaskOutput(NamedTuple):
    """What the task network makes of N images."""

    logits: Tensor
    """[N, C, h, w]."""
    depth: Tensor
    """[N, 1, h, w], encoded."""


class StepTensors(NamedTuple):
    """What the terms of the generators' loss are computed from; None where a level is off."""

    y_s: Tensor
    """uint8 [N, H, W] labels of the source, 255 ignored."""
    d_s: Tensor
    """float32 [N, 1, H, W] encoded depth of the source."""
    valid: Tensor
    """bool [N, 1, H, W]: where the source has depth."""
    class_weights: Tensor | None
    """[C] weights of the cross-entropy."""
    source: TaskOutput
    """G_task's output for the source, translated where the input level is on."""
    images: tuple[Tensor, Tensor] | None
    """Input level: (translated source, target of the same pairs), [M, 3, H, W] in [-1, 1]."""
    image_patches: Tensor | None
    """Input level: D_img's logits for the translated source."""
    target: TaskOutput | None
    """Output level: G_task's output for the target."""
    outputs: Tensor | None
    """Output level: maps [2 N, C or C + 1, H, W] of the source, then of the target."""
    output_patches: tuple[Tensor, Tensor] | None
    """Output level: D_out's logits for the maps of (source, target)."""
    mixed: Mixed | None
    """Self-training: the mixed images and their labels."""
    mixed_logits: Tensor | None
    """Self-training: G_task's logits [N, C, h, w] for the mixed images."""


Maps = list[tuple[Tensor, bool]]
"""Patch logits of a discriminator, each with whether the loss wants them to say real."""


@dataclass(frozen=True)
class Term:
    """A term of the generators' loss, a row of ``TERMS``."""

    name: str
    """As logged: ``loss/<name>``."""
    symbol: str
    """In the formula."""
    weight: Callable[[AdaptationConfig], float]
    """Its factor in the total."""
    scale: Literal["seg", "depth", "pairs"]
    """The field of ``LossScale`` that it is multiplied by: what its mean is over."""
    loss: Callable[[StepTensors, AdaptationConfig], Tensor | Maps]
    """Computes it: a scalar, or for a GAN loss the maps whose losses are averaged. The maps of all
    terms go through one call of ``ops.gan_loss``."""
    on: Callable[[StepTensors], bool] = lambda t: True
    """Whether the step has the tensors that it needs."""


def segmentation_loss(t: StepTensors, config: AdaptationConfig) -> Tensor:
    """L_seg: cross-entropy of the upsampled logits, mean over the labelled pixels."""
    return upsample_cross_entropy(t.source.logits, t.y_s, weight=t.class_weights)


def depth_loss(t: StepTensors, config: AdaptationConfig) -> Tensor:
    """L_depth: error of the upsampled depth, mean over the valid pixels; 0 if none is valid."""
    return upsample_depth_loss(t.source.depth, t.d_s, config.depth_loss, t.valid)


def image_loss(t: StepTensors, config: AdaptationConfig) -> Maps:
    """L_img: D_img shall take the translated source for a target image."""
    assert t.image_patches is not None
    return [(t.image_patches, True)]


def output_loss(t: StepTensors, config: AdaptationConfig) -> Maps:
    """L_out: D_out shall take the target's output for the source's, and the other way round.

    These are both sides of the minimum: G_task makes the target's output look like the source's,
    and through G_task, G_img makes the translated source's output look like the target's.
    """
    assert t.output_patches is not None
    source, target = t.output_patches
    return [(target, True), (source, False)]


def mixed_loss(t: StepTensors, config: AdaptationConfig) -> Tensor:
    """L_self: cross-entropy on the mixed images against labels and pseudo-labels."""
    assert t.mixed is not None and t.mixed_logits is not None
    return self_training_loss(t.mixed_logits, t.mixed, t.class_weights)


TERMS = [
    Term("seg", "L_seg", lambda c: 1.0, "seg", segmentation_loss),
    Term("depth", "L_depth", lambda c: c.lambda_depth, "depth", depth_loss),
    Term(
        "img",
        "L_img",
        lambda c: c.lambda_img,
        "pairs",
        image_loss,
        on=lambda t: t.image_patches is not None,
    ),
    Term(
        "out",
        "L_out",
        lambda c: c.lambda_out,
        "pairs",
        output_loss,
        on=lambda t: t.output_patches is not None,
    ),
    Term(
        "self",
        "L_self",
        lambda c: c.lambda_self,
        "pairs",
        mixed_loss,
        on=lambda t: t.mixed is not None,
    ),
]
"""The objective of the generators: the total is the sum of weight times loss over the rows."""


class GeneratorStep(NamedTuple):
    """What the generators' side computed and the discriminators' side needs."""

    losses: dict[str, Tensor]
    """Terms of the objective by name, and their weighted ``total``."""
    images: tuple[Tensor, Tensor] | None
    """(translated source, target), detached, where the input level is on; half of the batch's
    pairs with ``keep_half_untranslated``."""
    outputs: Tensor | None
    """Output maps of the source as the task network saw it, then of the target, detached, where the
    output level is on."""


class LossScale(NamedTuple):
    """Factors that make accumulated per-batch means equal the mean over the whole update.

    Batches differ in how many pixels have a label and a depth.
    """

    seg: Tensor
    """For means over labelled pixels."""
    depth: Tensor
    """For means over pixels with depth."""
    pairs: float
    """For means over the pairs of a batch."""


class TwoLevelAdaptation(nn.Module):
    """The networks that the settings ask for, and the losses of both sides.

    Args:
        num_classes: C.
        config: levels, weights and kinds of the losses.
        model: sizes of the networks.

    ``class_weights`` is a buffer to set: [C] weights of the cross-entropy, None for equal ones.
    ``translation`` and ``image_discriminator`` are None where the input level is off,
    ``output_discriminator`` where the output level is. ``teacher``, None without self-training, has
    no gradient: ``start_teacher`` makes it equal to ``task``, ``update_teacher`` lets it follow.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        num_classes: int,
        config: AdaptationConfig,
        model: ModelConfig,
    ):
        super().__init__()
        self.config = config
        self.task = TaskNet(num_classes, model.backbone, model.trunk_width, model.trunk_norm)
        self.translation: TranslationNet | None = None
        self.image_discriminator: PatchDiscriminator | None = None
        self.output_discriminator: OutputDiscriminator | None = None
        if config.input_level != "none":
            geometry = config.input_level == "geometry"
            self.translation = TranslationNet(
                num_classes,
                geometry,
                model.translation_width,
                model.translation_blocks,
                model.translation_checkpointing,
            )
            self.image_discriminator = PatchDiscriminator(model.discriminator_width)
        if config.output_level != "none":
            in_channels = num_classes + (config.output_level == "joint")
            self.output_discriminator = OutputDiscriminator(in_channels, model.discriminator_width)
        self.teacher: TaskNet | None = None
        if config.self_training:
            self.teacher = copy.deepcopy(self.task).requires_grad_(False)
        self.register_buffer("class_weights", None)

    def start_teacher(self) -> None:
        """Make the teacher equal to the task network, where there is one."""
        if self.teacher is not None:
            self.teacher.load_state_dict(self.task.state_dict())

    @torch.no_grad()
    def update_teacher(self) -> None:
        """Move the teacher's weights towards the task network's; to be called after an update."""
        if self.teacher is not None:
            ours: list[Tensor] = list(self.teacher.parameters())
            theirs: list[Tensor] = list(self.task.parameters())
            torch._foreach_lerp_(ours, theirs, 1 - self.config.teacher_decay)

    def pixel_weights(self, batch: Batch) -> Tensor:
        """Float64 [2]: what the means of L_seg and L_depth divide the batch's sums by."""
        labels, valid = batch.source_labels, has_depth(batch.source_depth)
        counted = labels != IGNORE
        if self.class_weights is not None:
            classes = torch.where(counted, labels, 0).long()
            counted = torch.where(counted, self.class_weights[classes], 0)
        return torch.stack([counted.sum(dtype=torch.float64), valid.sum(dtype=torch.float64)])

    def generators_loss(self, batch: Batch, scale: LossScale | None = None) -> GeneratorStep:
        """The sum of weight times loss over ``TERMS``, and each loss.

        To be called with the discriminators ``frozen``: their weights get no gradient here. The
        target goes through no network whose level is off; with ``batch.target_image`` None both
        levels and self-training are off, whatever the settings.

        Args:
            batch: the frames.
            scale: where an update is made of several batches, by how much each loss counts.
        """
        t = self._run_networks(batch)
        terms = [term for term in TERMS if term.on(t)]
        values = {term.name: term.loss(t, self.config) for term in terms}
        losses = self._losses(values, generator=True)
        if scale is not None:
            losses = {term.name: losses[term.name] * getattr(scale, term.scale) for term in terms}
        first, *others = (term.weight(self.config) * losses[term.name] for term in terms)
        losses["total"] = sum(others, start=first)
        images = None if t.images is None else (t.images[0].detach(), t.images[1])
        outputs = None if t.outputs is None else t.outputs.detach()
        return GeneratorStep(losses, images, outputs)

    def _run_networks(self, batch: Batch) -> StepTensors:
        """Every network of the generators' side once: G_img, D_img, G_task, D_out."""
        config, y_s = self.config, batch.source_labels
        d_s, valid = encode_depth(batch.source_depth, config.depth_encoding)
        x_s = normalise(batch.source_image)
        x_t = None if batch.target_image is None else normalise(batch.target_image)
        n, (height, width) = y_s.shape[0], y_s.shape[1:]

        images = image_patches = None
        if self.translation is not None and x_t is not None:
            assert self.image_discriminator is not None
            some = slice(None, None, 2 if config.keep_half_untranslated else 1)
            translated = self.translation(batch.source_image[some], d_s[some], y_s[some], x_s[some])
            images, image_patches = (translated, x_t[some]), self.image_discriminator(translated)
            if translated.shape[0] == n:
                x_s = translated
            else:
                x_s[some] = translated

        seen, mixed = [x_s], None
        if self.output_discriminator is not None and x_t is not None:
            seen.append(x_t)
        if self.teacher is not None and x_t is not None:
            assert batch.class_mix_noise is not None
            noise, threshold = batch.class_mix_noise, config.confidence
            mixed = class_mix(x_s, y_s, x_t, noise, self.teacher, threshold)
            seen.append(mixed.image)
        logits, depth = self.task(torch.cat(seen) if len(seen) > 1 else x_s)

        target = outputs = output_patches = None
        if self.output_discriminator is not None and x_t is not None:
            target = TaskOutput(logits[n : 2 * n], depth[n : 2 * n])
            joint = depth[: 2 * n] if config.output_level == "joint" else None
            outputs = semantic_depth_concat(logits[: 2 * n], joint, (height, width))
            patches = self.output_discriminator(outputs)
            output_patches = patches[:n], patches[n:]
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
            mixed=mixed,
            mixed_logits=None if mixed is None else logits[-n:],
        )

    def discriminators_loss(
        self, generated: GeneratorStep, scale: LossScale | None = None
    ) -> dict[str, Tensor]:
        """What D_img and D_out minimise: real against fake, on what the generators just made."""
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
            losses = {name: loss * scale.pairs for name, loss in losses.items()}
        return losses

    def _losses(self, values: Mapping[str, Tensor | Maps], generator: bool) -> dict[str, Tensor]:
        """Scalars as they are; for maps, the mean GAN loss over them.

        All maps of a side are small, and go in one call.
        """
        maps = {name: value for name, value in values.items() if not isinstance(value, Tensor)}
        losses = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        if not maps:
            return losses
        logits, real = zip(*itertools.chain(*maps.values()), strict=True)
        means = gan_loss(logits, real, self.config.gan_loss, generator)
        parts = means.split([len(pairs) for pairs in maps.values()])
        return losses | {name: part.mean() for name, part in zip(maps, parts, strict=True)}


@contextmanager
def frozen(*networks: nn.Module | None) -> Iterator[None]:
    """No gradient for the networks' weights inside; one still flows through to their input."""
    present = [network for network in networks if network is not None]
    for network in present:
        network.requires_grad_(False)
    try:
        yield
    finally:
        for network in present:
            network.requires_grad_(True)
