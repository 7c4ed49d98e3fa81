"""The two-level adaptation step: the objective of GIO-Ada, term by term.

    min over G_img, G_task   max over D_img, D_out
      L_seg + lambda_depth L_depth     on the translated source, half of it left as rendered
    + lambda_img L_img                 D_img: translated source against target
    + lambda_out L_out                 D_out: output of translated source against that of target
    + lambda_self L_self               beyond the paper, off by default: see self_training.py

Source: Chen, Li, Chen, Van Gool (CVPR 2019, arXiv 1812.05040).
"""

import copy
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .config import AdaptationConfig, ModelConfig
from .depth import encode_depth, has_depth
from .labels import IGNORE
from .losses import depth_loss, segmentation_loss
from .models import OutputDiscriminator, PatchDiscriminator, TaskNet, TranslationNet
from .models.layers import normalise
from .ops import gan_loss, semantic_depth_concat
from .self_training import class_mix, self_training_loss

Patches = dict[str, list[tuple[Tensor, bool]]]
"""For each adversarial term, maps of a discriminator's logits and whether they shall be real."""


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
    class_draws: Tensor | None = None
    """float32 [N, C] random numbers, by which self-training chooses classes; None without it."""


class GeneratorStep(NamedTuple):
    """What the generators' side computed and the discriminators' side needs."""

    losses: dict[str, Tensor]
    """Terms of the objective by name, and their weighted ``total``."""
    images: tuple[Tensor, Tensor] | None
    """(translated source, target), detached, where the input level is on; half of the batch's
    pairs with ``keep_half_untranslated``."""
    outputs: tuple[Tensor, Tensor] | None
    """Output maps of (source as the task network saw it, target), detached, where the output level
    is on."""


class Share(NamedTuple):
    """A batch's share in the means of an update that is made of several batches.

    The task's losses are means over labelled pixels, of which each batch has another number.
    """

    seg: Tensor
    depth: Tensor
    pairs: float
    """Of the adversarial losses."""


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
            ours, theirs = list(self.teacher.parameters()), list(self.task.parameters())
            torch._foreach_lerp_(ours, theirs, 1 - self.config.teacher_decay)

    def pixel_weights(self, batch: Batch) -> Tensor:
        """Float64 [2]: what the means of L_seg and L_depth divide the batch's sums by."""
        labels, valid = batch.source_labels, has_depth(batch.source_depth)
        counted = labels != IGNORE
        if self.class_weights is not None:
            classes = torch.where(counted, labels, 0).long()
            counted = torch.where(counted, self.class_weights[classes], 0)
        return torch.stack([counted.sum(dtype=torch.float64), valid.sum(dtype=torch.float64)])

    def generators_loss(self, batch: Batch, share: Share | None = None) -> GeneratorStep:
        """L_seg + lambda_depth L_depth + lambda_img L_img + lambda_out L_out + lambda_self L_self.

        To be called with the discriminators ``frozen``: their weights get no gradient here. The
        target goes through no network whose level is off; with ``batch.target_image`` None both
        levels and self-training are off, whatever the settings.

        Args:
            batch: the frames.
            share: where an update is made of several batches, by how much each loss counts.
        """
        config, target = self.config, batch.target_image
        size = batch.source_labels.shape[1:]
        y_s = batch.source_labels
        d_s, valid = encode_depth(batch.source_depth, config.depth_encoding)
        x_t = None if target is None else normalise(target)
        input_level = self.translation is not None and x_t is not None
        output_level = self.output_discriminator is not None and x_t is not None
        self_training = self.teacher is not None and x_t is not None

        losses: dict[str, Tensor] = {}
        patches: Patches = {}
        images = outputs = None
        x_s = normalise(batch.source_image)
        if input_level:
            some = slice(None, None, 2 if config.keep_half_untranslated else 1)
            translated = self.translation(batch.source_image[some], d_s[some], y_s[some])
            patches["img"] = [(self.image_discriminator(translated), True)]
            images = translated.detach(), x_t[some]
            x_s[some] = translated
        n = x_s.shape[0]
        seen = [x_s, *([x_t] if output_level else [])]
        if self_training:
            draws, threshold = batch.class_draws, config.confidence
            mixed = class_mix(x_s, y_s, x_t, draws, self.teacher, threshold)
            seen.append(mixed.image)
        logits, depth = self.task(torch.cat(seen) if len(seen) > 1 else x_s)
        losses["seg"] = segmentation_loss(logits[:n], y_s, self.class_weights)
        losses["depth"] = depth_loss(depth[:n], d_s, valid, config.depth_loss)
        if output_level:
            joint = config.output_level == "joint"
            o = semantic_depth_concat(logits[: 2 * n], depth[: 2 * n] if joint else None, size)
            p = self.output_discriminator(o)
            # both sides of the minimum: the target's output shall look like the source's, and
            # through G_task and G_img the translated source's like the target's
            patches["out"] = [(p[n:], True), (p[:n], False)]
            outputs = o[:n].detach(), o[n:].detach()
        if self_training:
            losses["self"] = self_training_loss(logits[-n:], mixed, self.class_weights)
        losses |= self._gan_losses(patches, generator=True)
        if share is not None:
            shares = {"seg": share.seg, "depth": share.depth}
            losses = {name: loss * shares.get(name, share.pairs) for name, loss in losses.items()}

        losses["total"] = losses["seg"] + config.lambda_depth * losses["depth"]
        if input_level:
            losses["total"] = losses["total"] + config.lambda_img * losses["img"]
        if output_level:
            losses["total"] = losses["total"] + config.lambda_out * losses["out"]
        if self_training:
            losses["total"] = losses["total"] + config.lambda_self * losses["self"]
        return GeneratorStep(losses, images, outputs)

    def discriminators_loss(
        self, step: GeneratorStep, share: Share | None = None
    ) -> dict[str, Tensor]:
        """What D_img and D_out minimise: real against fake, on what the generators just made."""
        patches: Patches = {}
        if step.images is not None:
            fake, real = self.image_discriminator(torch.cat(step.images)).chunk(2)
            patches["d_img"] = [(real, True), (fake, False)]
        if step.outputs is not None:
            source, target = self.output_discriminator(torch.cat(step.outputs)).chunk(2)
            patches["d_out"] = [(source, True), (target, False)]
        losses = self._gan_losses(patches, generator=False)
        if share is not None:
            losses = {name: loss * share.pairs for name, loss in losses.items()}
        return losses

    def _gan_losses(self, patches: Patches, generator: bool) -> dict[str, Tensor]:
        """The mean over each term's maps; all maps of a side are small, and go in one call."""
        if not patches:
            return {}
        maps, real = zip(*itertools.chain(*patches.values()), strict=True)
        losses = gan_loss(maps, real, self.config.gan_loss, generator)
        terms = losses.split([len(pairs) for pairs in patches.values()])
        return {name: term.mean() for name, term in zip(patches, terms, strict=True)}


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
