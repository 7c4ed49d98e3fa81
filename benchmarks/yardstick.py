"""The whole update as public code writes it: the baseline for the time of our step.

This file repeats the networks, the objective and the update of ``gioada_fast.adaptation`` in plain
PyTorch, in the manner of CycleGAN, AdaptSegNet, ADVENT and DADA: layer by layer, with full-size
logits, separate forward and backward passes for source and target and for real and fake, constant
target tensors, a host synchronisation for every loss, and PyTorch's default optimisers. It takes
the settings, the weights and the trunk's layout (see ``plain_trunk.py``) from gioada_fast.

The comparison is fair. The yardstick computes nothing twice that good public code computes once:
the loss and the discriminator share the upsampled maps, the first backward pass frees the source's
graph before the target's graph is built, and the discriminators' inputs are kept. Work that loader
processes can do (floats in [-1, 1], encoded depth and its mask, one-hot labels) is done before the
clock starts.
"""

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.plain_trunk import IN_ORDER, Order, channel_orders, plain_trunk
from gioada_fast.adaptation import Batch, TwoLevelAdaptation
from gioada_fast.config import Config
from gioada_fast.models import TaskNet, Trunk

NETWORKS = ("task", "translation", "image_discriminator", "output_discriminator")


class Loaded(NamedTuple):
    """A batch as public loaders deliver it."""

    source: Tensor
    """float32 [N, 3, H, W] in [-1, 1]."""
    labels: Tensor
    """int64 [N, H, W], 255 ignored."""
    one_hot: Tensor
    """float32 [N, C, H, W], zero where ignored."""
    depth: Tensor
    """float32 [N, 1, H, W], encoded; 0 where there is no depth."""
    mask: Tensor
    """float32 [N, 1, H, W], 1 where there is depth."""
    target: Tensor
    """float32 [N, 3, H, W] in [-1, 1]."""


class Yardstick:
    """A copy of ``adaptation`` in public code: same weights, same objective, same update.

    Args:
        adaptation: the networks to copy, on their device.
        config: the settings that they were built from.
        channels_last: memory format of weights and images.
        precision: ``fp32``, or ``bf16`` for autocast.
        compile: whether the networks and the losses go through ``torch.compile``.
    """

    def __init__(
        self,
        adaptation: TwoLevelAdaptation,
        config: Config,
        channels_last: bool = False,
        precision: str = "fp32",
        compile: bool = False,
    ):
        self.config, self.settings = config, config.adaptation
        if self.settings.gan_loss != "lsgan" or self.settings.depth_loss != "l1":
            raise NotImplementedError(
                f"losses {self.settings.gan_loss} and {self.settings.depth_loss}: the yardstick "
                "has only lsgan and l1"
            )
        if self.settings.keep_half_untranslated:
            raise NotImplementedError(
                "keep_half_untranslated: the yardstick translates every source image"
            )
        self.device = next(adaptation.parameters()).device
        self.num_classes = adaptation.task.segmentation.branches[0].out_channels
        self.bf16 = precision == "bf16"
        format = torch.channels_last if channels_last else torch.contiguous_format
        self.memory_format = format
        self.networks = build_networks(self.num_classes, config, adaptation.task.trunk)
        for name, network in self.networks.items():
            copy_weights(getattr(adaptation, name), network)
            network.to(self.device, memory_format=format)
        self.discriminators = [n for name, n in self.networks.items() if "discriminator" in name]
        self.optimisers = build_optimisers(self.networks, config)
        self.cross_entropy = nn.CrossEntropyLoss(adaptation.class_weights, ignore_index=255)
        self.mse = nn.MSELoss()

        def compiled(function: Callable) -> Callable:
            return torch.compile(function, dynamic=False) if compile else function

        self._run = {name: compiled(network) for name, network in self.networks.items()}
        self._source_side = compiled(self._losses_and_map)
        self._target_side = compiled(self._map)
        self._gan_loss = compiled(self._lsgan)

    def load(self, batch: Batch) -> Loaded:
        """Do the work of the loader's processes."""
        labels = batch.source_labels.long()
        classes = torch.arange(self.num_classes, device=labels.device).view(1, -1, 1, 1)
        depth, mask = encode(batch.source_depth, self.settings.depth_encoding)
        loaded = Loaded(
            source=batch.source_image.float() / 127.5 - 1,
            labels=labels,
            one_hot=(labels[:, None] == classes).float(),
            depth=depth,
            mask=mask,
            target=batch.target_image.float() / 127.5 - 1,
        )
        images = (x.contiguous(memory_format=self.memory_format) for x in loaded if x.dim() == 4)
        return Loaded(*(next(images) if x.dim() == 4 else x for x in loaded))

    def zero_grad(self) -> None:
        """Drop all gradients and free their memory."""
        for optimiser in self.optimisers.values():
            optimiser.zero_grad(set_to_none=True)

    def update(self, batch: Loaded) -> dict[str, float]:
        """Update every network once."""
        self.zero_grad()
        losses = self.gradients(batch)
        for optimiser in self.optimisers.values():
            optimiser.step()
        return losses

    def gradients(self, batch: Loaded) -> dict[str, float]:
        """Accumulate the gradients of the weights and return the losses, fetched one by one."""
        settings, run = self.settings, self._run
        img, out = "image_discriminator" in run, "output_discriminator" in run
        losses: dict[str, float] = {}
        for discriminator in self.discriminators:
            discriminator.requires_grad_(False)

        # the generators, on the source
        with self._autocast():
            x_s = self._translate(batch) if img else batch.source
            logits, depth = run["task"](x_s)
            seg, l_depth, o_s = self._source_side(logits, depth, batch)
            loss = seg + settings.lambda_depth * l_depth
            if img:
                l_img = self._gan_loss(run["image_discriminator"](x_s), 1.0)
                loss = loss + settings.lambda_img * l_img
            if out:
                l_out = 0.5 * self._gan_loss(run["output_discriminator"](o_s), 0.0)
                loss = loss + settings.lambda_out * l_out
        loss.backward()
        losses |= {"seg": seg.item(), "depth": l_depth.item()}
        losses |= {"img": l_img.item()} if img else {}
        losses |= {"out": l_out.item()} if out else {}
        x_s, o_s = x_s.detach(), o_s.detach() if out else None

        # the generators, on the target
        if out:
            with self._autocast():
                o_t = self._target_side(*run["task"](batch.target), batch.target.shape[2:])
                loss = 0.5 * self._gan_loss(run["output_discriminator"](o_t), 1.0)
            (settings.lambda_out * loss).backward()
            losses["out"] += loss.item()
            o_t = o_t.detach()
        weights = {"seg": 1, "depth": settings.lambda_depth}
        weights |= {"img": settings.lambda_img, "out": settings.lambda_out}
        losses["total"] = sum(weights[name] * loss for name, loss in losses.items())

        # the discriminators
        for discriminator in self.discriminators:
            discriminator.requires_grad_(True)
        if img:
            losses["d_img"] = self._train_discriminator("image_discriminator", batch.target, x_s)
        if out:
            losses["d_out"] = self._train_discriminator("output_discriminator", o_s, o_t)
        return losses

    def _translate(self, batch: Loaded) -> Tensor:
        geometry = self.settings.input_level == "geometry"
        parts = (batch.source, batch.depth, batch.one_hot)
        x = torch.cat(parts, dim=1) if geometry else batch.source
        return self._run["translation"](x, batch.source)

    def _losses_and_map(
        self, logits: Tensor, depth: Tensor, batch: Loaded
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        size = batch.labels.shape[1:]
        logits, depth = _upsample(logits, size), _upsample(depth, size)
        seg = self.cross_entropy(logits, batch.labels)
        error = F.l1_loss(depth * batch.mask, batch.depth, reduction="sum")
        return seg, error / batch.mask.sum().clamp(min=1), self._joint(logits, depth)

    def _map(self, logits: Tensor, depth: Tensor, size: tuple[int, int]) -> Tensor:
        joint = self.settings.output_level == "joint"
        return self._joint(_upsample(logits, size), _upsample(depth, size) if joint else None)

    def _joint(self, logits: Tensor, depth: Tensor | None) -> Tensor | None:
        if self.settings.output_level == "none":
            return None
        probabilities = F.softmax(logits, dim=1)
        if self.settings.output_level == "semantics":
            return probabilities
        return torch.cat([probabilities, depth], dim=1)

    def _lsgan(self, logits: Tensor, label: float) -> Tensor:
        return self.mse(logits, torch.full_like(logits, label))

    def _train_discriminator(self, name: str, real: Tensor, fake: Tensor) -> float:
        with self._autocast():
            loss_real = self._gan_loss(self._run[name](real), 1.0)
            loss_fake = self._gan_loss(self._run[name](fake), 0.0)
            loss = 0.5 * (loss_real + loss_fake)
        loss.backward()
        return loss.item()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def assert_gradients_of(self, adaptation: TwoLevelAdaptation, rtol: float) -> None:
        """Assert that gradients equal ``adaptation``'s, within ``rtol`` of their 2-norm.

        A bias before an instance norm has no effect, so its exact gradient is zero. The computed
        one is the rounding error of a sum whose terms are as large as in the gradient of the
        weight, so the difference is compared with the norm of the weight's gradient.
        """
        for name, network in self.networks.items():
            without_effect = set(_biases_before_a_norm(network))
            scale = 0.0
            for key, p, grad in _pairs(getattr(adaptation, name), network):
                if p not in without_effect:
                    scale = p.grad.norm().item()
                error = (p.grad - grad).norm().item()
                assert error <= rtol * scale, (
                    f"{name}.{key}: gradients differ by {error:.1e}, their norm is {scale:.1e}"
                )


def copy_weights(ours: nn.Module, theirs: nn.Module) -> None:
    """Copy all weights of ``ours``, layer by layer; the names of weights may differ."""

    def weights(network: nn.Module) -> dict[str, Tensor]:
        return {k: v for k, v in network.state_dict().items() if "num_batches" not in k}

    source, target = weights(ours), weights(theirs)
    shapes = [[x.shape for x in values.values()] for values in (source, target)]
    assert shapes[0] == shapes[1], "the networks have different layers"
    orders = _channel_orders(ours)
    for x, (key, y) in zip(source.values(), target.items(), strict=True):
        y.copy_(_reordered(x, orders.get(key)))


def _pairs(ours: nn.Module, theirs: nn.Module) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield (key, weight, gradient of our weight) for each trained weight of ``theirs``."""
    orders = _channel_orders(ours)
    trained = [(k, p) for k, p in theirs.named_parameters() if p.requires_grad]
    for (key, p), q in zip(trained, ours.parameters(), strict=True):
        yield key, p, _reordered(q.grad, orders.get(key))


def _channel_orders(ours: nn.Module) -> dict[str, tuple[Order, ...]]:
    """Orders of our (output, input) channels, by the key of the weight in the yardstick."""
    if not isinstance(ours, TaskNet):
        return {}
    of_trunk, features = channel_orders(ours.trunk)
    orders = {f"trunk.{key}": order for key, order in of_trunk.items()}
    for head in ("segmentation", "depth"):
        orders |= {f"{head}.convs.{i}.weight": (IN_ORDER, features) for i in range(4)}
    return orders


def _reordered(x: Tensor, order: tuple[Order, ...] | None) -> Tensor:
    for dim, channels in enumerate(order or ()):
        x = x[channels] if dim == 0 else x[:, channels]
    return x


def _biases_before_a_norm(network: nn.Module) -> Iterator[Tensor]:
    for module in network.modules():
        if isinstance(module, nn.Sequential):
            for layer, following in pairwise(module):
                if isinstance(layer, nn.Conv2d) and isinstance(following, nn.InstanceNorm2d):
                    yield layer.bias


def encode(metres: Tensor, encoding: str) -> tuple[Tensor, Tensor]:
    """(encoded depth, mask): 1 at 2 m, falling to 0 at 655.34 m; 0 where there is no depth."""
    near, far = 2.0, 655.34
    mask = (metres > 0) & (metres <= far)
    d = metres.clamp(near, far)
    if encoding == "inverse":
        depth = near / d
    elif encoding == "log":
        depth = 1 - torch.log(d / near) / math.log(far / near)
    else:
        depth = 1 - (d - near) / (far - near)
    return depth * mask, mask.float()


def build_networks(num_classes: int, config: Config, trunk: Trunk) -> dict[str, nn.Module]:
    """The networks of a configuration, by name."""
    levels, model = config.adaptation, config.model
    networks: dict[str, nn.Module] = {"task": DeepLab(num_classes, trunk)}
    if levels.input_level != "none":
        extra = 1 + num_classes if levels.input_level == "geometry" else 0
        networks["translation"] = ResnetGenerator(
            3 + extra, model.translation_width, model.translation_blocks
        )
        networks["image_discriminator"] = n_layer_discriminator(model.discriminator_width)
    if levels.output_level != "none":
        networks["output_discriminator"] = fc_discriminator(
            num_classes + (levels.output_level == "joint"), model.discriminator_width
        )
    return networks


def build_optimisers(
    networks: dict[str, nn.Module], config: Config
) -> dict[str, torch.optim.Optimizer]:
    """The optimisers of the adaptation, with PyTorch's default implementations."""
    settings, lr, task = config.optimiser, config.adaptation_lr, networks["task"]
    trunk = [p for p in task.trunk.parameters() if p.requires_grad]
    heads = [*task.segmentation.parameters(), *task.depth.parameters()]
    groups = [{"params": trunk, "lr": lr * config.trunk_lr_factor}, {"params": heads, "lr": lr}]
    decay = settings.weight_decay
    optimisers: dict[str, torch.optim.Optimizer] = {
        "task": torch.optim.AdamW(groups, weight_decay=decay)
        if settings.task == "adamw"
        else torch.optim.SGD(groups, lr=lr, momentum=0.9, weight_decay=decay)
    }
    for name, lr, betas in (
        ("translation", settings.translation_lr, (0.5, 0.999)),
        ("image_discriminator", settings.image_discriminator_lr, (0.5, 0.999)),
        ("output_discriminator", settings.output_discriminator_lr, (0.9, 0.99)),
    ):
        if name in networks:
            optimisers[name] = torch.optim.Adam(networks[name].parameters(), lr, betas)
    return optimisers


def _channels(base: int, width: float) -> int:
    return max(8, round(base * width / 8) * 8)


def _upsample(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


class ResnetGenerator(nn.Module):
    """Generator of CycleGAN that predicts a change of the image.

    Height and width must be multiples of 4.
    """

    def __init__(self, in_channels: int, width: float, blocks: int):
        super().__init__()
        c1, c2, c4 = (_channels(base, width) for base in (64, 128, 256))
        layers = [nn.ReflectionPad2d(3), *_norm_relu(nn.Conv2d(in_channels, c1, 7))]
        layers += _norm_relu(nn.Conv2d(c1, c2, 3, stride=2, padding=1))
        layers += _norm_relu(nn.Conv2d(c2, c4, 3, stride=2, padding=1))
        layers += [ResnetBlock(c4) for _ in range(blocks)]
        for c_in, c_out in ((c4, c2), (c2, c1)):
            layers += [nn.Upsample(scale_factor=2)]
            layers += _norm_relu(nn.Conv2d(c_in, c_out, 3, padding=1))
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(c1, 3, 7)]
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        return torch.tanh(self.model(x).float() + torch.atanh(0.999 * image))


class ResnetBlock(nn.Module):
    """Residual block of CycleGAN."""

    def __init__(self, c: int):
        super().__init__()
        first = [nn.ReflectionPad2d(1), *_norm_relu(nn.Conv2d(c, c, 3))]
        second = [nn.ReflectionPad2d(1), nn.Conv2d(c, c, 3), nn.InstanceNorm2d(c)]
        self.conv_block = nn.Sequential(*first, *second)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


def _norm_relu(conv: nn.Conv2d) -> list[nn.Module]:
    return [conv, nn.InstanceNorm2d(conv.out_channels), nn.ReLU(inplace=True)]


def n_layer_discriminator(width: float) -> nn.Sequential:
    """The 70x70 PatchGAN of CycleGAN."""
    c1, c2, c4, c8 = (_channels(base, width) for base in (64, 128, 256, 512))
    layers: list[nn.Module] = [nn.Conv2d(3, c1, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
    for c_in, c_out, stride in ((c1, c2, 2), (c2, c4, 2), (c4, c8, 1)):
        layers += [nn.Conv2d(c_in, c_out, 4, stride, 1), nn.InstanceNorm2d(c_out)]
        layers += [nn.LeakyReLU(0.2, inplace=True)]
    return nn.Sequential(*layers, nn.Conv2d(c8, 1, 4, 1, 1))


def fc_discriminator(in_channels: int, width: float) -> nn.Sequential:
    """Output discriminator of AdaptSegNet."""
    sizes = [in_channels, *(_channels(base, width) for base in (64, 128, 256, 512)), 1]
    layers: list[nn.Module] = []
    for c_in, c_out in pairwise(sizes):
        layers += [nn.Conv2d(c_in, c_out, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
    return nn.Sequential(*layers[:-1])


class DeepLab(nn.Module):
    """DeepLab-v2 with a second head for depth, as in DADA."""

    def __init__(self, num_classes: int, trunk: Trunk):
        super().__init__()
        self.trunk = plain_trunk(trunk)
        self.segmentation = Classifier(trunk.out_channels, num_classes)
        self.depth = Classifier(trunk.out_channels, 1)
        mean, std = torch.tensor([(0.485, 0.456, 0.406), (0.229, 0.224, 0.225)]).view(2, 1, 3, 1, 1)
        # mean and standard deviation of ImageNet, for images in [-1, 1]
        self.register_buffer("mean", 2 * mean - 1, persistent=False)
        self.register_buffer("std", 2 * std, persistent=False)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = self.trunk((image - self.mean) / self.std)
        return self.segmentation(x), self.depth(x)


class Classifier(nn.Module):
    """``Classifier_Module`` of AdaptSegNet."""

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(c_in, c_out, 3, padding=d, dilation=d) for d in (6, 12, 18, 24)
        )

    def forward(self, x: Tensor) -> Tensor:
        out = self.convs[0](x)
        for conv in self.convs[1:]:
            out += conv(x)
        return out
