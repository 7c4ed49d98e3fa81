"""Mean loss of discriminator logits against constant targets, for many maps at once.

    t = 1 or 0, s = 1 or -1 for real or fake
    lsgan:  mean (x - t)^2
    bce:    mean log(1 + exp(-s x))
    hinge:  mean max(0, 1 - s x); for the generator, mean -s x

An update has three such maps for the generators and four for the discriminators, each with a few
thousand logits, so the number of calls matters more than the arithmetic. The gradient depends
only on the logits: the op saves nothing else, and one pass in the backward writes the scaled
gradient.

Sources: Mao et al. (arXiv 1611.04076), Goodfellow et al. (arXiv 1406.2661), Lim and Ye
(arXiv 1705.02894).
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gioada_fast.ops._checks import check_choice, check_dtype
from gioada_fast.ops._native import run
from gioada_fast.ops._registry import FusedOp, refuse_second_derivative

_NAME = "gan_loss"
GAN_LOSSES = ("lsgan", "bce", "hinge")
_LINEAR = "linear"  # the hinge loss of a generator


def reference(
    logits: Tensor | Sequence[Tensor],
    real: bool | Sequence[bool],
    kind: str = "lsgan",
    generator: bool = False,
) -> Tensor:
    """The op in plain PyTorch; arguments as for ``gan_loss``."""
    maps, targets = _as_lists(logits, real)
    return torch.stack([_mean(x, t, kind, generator) for x, t in zip(maps, targets, strict=True)])


def sample(
    sizes: Sequence[Sequence[int]] = ((2, 1, 9, 13), (2, 1, 5, 7)),
    kind: str = "lsgan",
    generator: bool = False,
    scale: float = 2.0,
) -> dict[str, Any]:
    """Random arguments: maps of these sizes, alternately real and fake."""
    maps = [(scale * torch.randn(tuple(size))).requires_grad_() for size in sizes]
    real = [i % 2 == 0 for i in range(len(maps))]
    return {"logits": maps, "real": real, "kind": kind, "generator": generator}


def _mean(x: Tensor, real: bool, kind: str, generator: bool) -> Tensor:
    x = x if x.dtype == torch.float64 else x.float()
    if x.numel() == 0:
        return x.sum()
    signed = x if real else -x
    if kind == "lsgan":
        return (x - float(real)).square().mean()
    if kind == "bce":
        return F.softplus(-signed).mean()
    return (-signed if generator else F.relu(1 - signed)).mean()


def _as_lists(
    logits: Tensor | Sequence[Tensor], real: bool | Sequence[bool]
) -> tuple[list[Tensor], list[bool]]:
    if not hasattr(logits, "__iter__"):
        raise TypeError(f"logits: {type(logits).__name__}, expected a tensor or a list of tensors")
    maps = [logits] if isinstance(logits, Tensor) else list(logits)
    if isinstance(real, bool):
        return maps, [real] * len(maps)
    if not hasattr(real, "__iter__"):
        raise TypeError(f"real: {real!r}, expected a bool or a list of bools")
    return maps, list(real)


def _check(maps: list[Tensor], targets: list[bool], kind: str) -> None:
    check_choice("kind", kind, GAN_LOSSES)
    if not maps:
        raise ValueError("logits: an empty list, expected at least one map")
    if len(targets) != len(maps):
        raise ValueError(f"real: {len(targets)} targets for {len(maps)} maps")
    for target in targets:
        if target is not True and target is not False:
            raise TypeError(f"real: {targets}, expected bools")
    for i, x in enumerate(maps):
        if not isinstance(x, Tensor):
            raise TypeError(f"logits[{i}]: {type(x).__name__}, expected a tensor")
        if x.dim() == 0:
            raise ValueError(f"logits[{i}]: [], expected at least one dimension")
        if i == 0:
            dtype, device = x.dtype, x.device
        elif x.dtype != dtype:
            raise TypeError(f"logits[{i}]: {x.dtype}, but logits[0] is {dtype}")
        elif x.device != device:
            raise ValueError(f"logits[{i}]: on {x.device}, but logits[0] on {device}")
    check_dtype("logits", maps[0])


def _fake(logits: list[Tensor], real: list[bool], kind: str, backend: str) -> Tensor:
    return logits[0].new_empty(len(logits), dtype=torch.float32)


def _kernel(logits: list[Tensor], real: list[bool], kind: str, backend: str) -> Tensor:
    loss = _fake(logits, real, kind, backend)
    run(_NAME, backend, logits, real, kind, loss)
    return loss


def _backward_fake(
    logits: list[Tensor], grad_loss: Tensor, real: list[bool], kind: str, backend: str
) -> list[Tensor]:
    return [torch.empty_like(x) for x in logits]


def _backward_kernel(
    logits: list[Tensor], grad_loss: Tensor, real: list[bool], kind: str, backend: str
) -> list[Tensor]:
    grad = _backward_fake(logits, grad_loss, real, kind, backend)
    run(f"{_NAME}_backward", backend, logits, grad_loss, real, kind, grad)
    return grad


def _setup_context(ctx, inputs: tuple, output: Tensor) -> None:
    logits, *ctx.others = inputs
    ctx.save_for_backward(*logits)


def _backward(ctx, grad_loss: Tensor) -> tuple:
    refuse_second_derivative(_NAME)
    grad = _backward_op(list(ctx.saved_tensors), grad_loss.contiguous(), *ctx.others)
    return grad, None, None, None


_backward_op = FusedOp(
    f"{_NAME}_backward", fake=_backward_fake, kernel=_backward_kernel, backends=("cpp", "triton")
)
_op = FusedOp(
    _NAME,
    fake=_fake,
    kernel=_kernel,
    backends=("cpp", "triton"),
    setup_context=_setup_context,
    backward=_backward,
)


def gan_loss(
    logits: Tensor | Sequence[Tensor],
    real: bool | Sequence[bool],
    kind: str = "lsgan",
    generator: bool = False,
) -> Tensor:
    """Mean loss of every map of discriminator logits against its target, real or fake.

    Args:
        logits: maps of any shape and memory format, float32, bfloat16 or float16, all of one dtype
            on one device; or one such tensor. A map that is not contiguous is copied. float64 is
            computed by ``reference``.
        real: the target of each map: True for real, False for fake. One bool for all maps, or one
            for each.
        kind: ``lsgan``, ``bce`` or ``hinge``.
        generator: whether this is the generator's side; only ``hinge`` makes a difference.

    Returns:
        [K] float32, the mean of each of the K maps (float64 for float64 maps). 0 for an empty map.
        Gradients have the maps' dtype.

    Deterministic: every run gives the same bits, for any number of CPU threads. If a logit is not
    finite, neither is the loss of its map. Second derivatives are refused; ``reference`` has them.

    Raises:
        ValueError: there is no map, a map has no dimension, maps are on several devices, the
            numbers of maps and targets differ, or the kind is unknown.
        TypeError: a dtype other than the above, maps of several dtypes, a map that is not a
            tensor, or a target that is not a bool.
        RuntimeError: the requested back end does not run here.
    """
    maps, targets = _as_lists(logits, real)
    _check(maps, targets, kind)
    backend = _op.choose(maps[0])
    if backend == "reference":
        return reference(maps, targets, kind, generator)
    kind = _LINEAR if generator and kind == "hinge" else kind
    return _op([x.contiguous() for x in maps], targets, kind, backend)
