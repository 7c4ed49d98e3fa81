"""Compares the back ends of the ops: all of their results and gradients, against float64.

A result is right if

    err(op, reference in float64) <= 2 err(reference in the op's dtype, reference in float64)

plus a few float32 roundings of the largest value. Whole numbers must be equal.
``python -m gioada_fast.info --check`` and the tests use this rule.
"""

import importlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gioada_fast.ops._registry import PREFERENCE, backend, backends, registered

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""What kernels compute in; float64 is computed by ``reference``."""


@dataclass(frozen=True)
class Comparison:
    """How one op on one back end differs from the reference.

    Attributes:
        op: name of the op.
        backend: one of ``BACKENDS``.
        device: device type.
        differences: for each dtype, the largest difference to the reference in float64, of results
            and gradients, relative to the largest value of each.
        wrong: what is wrong with it, one sentence for each dtype; empty if it is right.
    """

    op: str
    backend: str
    device: str
    differences: dict[torch.dtype, float]
    wrong: tuple[str, ...]


def check_ops() -> Iterator[Comparison]:
    """Run the sample of each op on every back end that runs it here, and compare.

    The sample is the result of ``sample()`` in the op's module. A call takes milliseconds, but
    Triton compiles its kernels in the first one.
    """
    for op, (name, found) in itertools.product(public_ops(), backends().items()):
        for device in found.devices:
            usable = device == "cpu" or torch.cuda.is_available()
            if usable and name in registered()[op].backends_on(device):
                yield _check(op, name, device)


def obstacles(op: str, device: str) -> dict[str, str]:
    """Why back ends that are made for a device type do not run an op on it, by back end."""
    found = {name: registered()[op].obstacle(name, device) for name in PREFERENCE[device]}
    return {name: reason for name, reason in found.items() if reason is not None}


def public_ops() -> list[str]:
    """Names of the ops that can be called, without their backward passes."""
    return [name for name in registered() if not name.endswith("_backward")]


def sample_of(op: str) -> dict[str, Any]:
    """Arguments of an op that are compared, the same in every process; in float32 on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _module(op).sample()


def _module(op: str) -> ModuleType:
    return importlib.import_module(f"gioada_fast.ops.{op}")


def _check(op: str, name: str, device: str) -> Comparison:
    module = _module(op)
    differences: dict[torch.dtype, float] = {}
    wrong: list[str] = []
    for dtype in DTYPES:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            arguments = module.sample()
        inputs = cast((arguments,), dtype, device)
        for key, value in arguments.items():
            if isinstance(value, torch.dtype) and value.is_floating_point:
                inputs[0][key] = dtype  # of the result
        roundoff = roundoff_of((name, device), dtype)
        try:
            with backend(name):
                compared = compare(
                    lambda given: getattr(module, op)(**given),
                    lambda given: module.reference(**given),
                    inputs,
                    roundoff,
                )
        except Exception as problem:  # any error of a kernel or its launch
            reason = str(problem).strip().partition("\n")[0]
            wrong.append(f"fails in {_short(dtype)}: {type(problem).__name__}: {reason}")
            continue
        differences[dtype] = max(difference.relative for difference in compared)
        for difference in compared:
            if not difference.right:
                wrong.append(
                    f"differs by {difference.relative:.1e} of the largest value in "
                    f"{_short(dtype)}, allowed is {difference.allowed / difference.scale:.1e}"
                )
                break
    return Comparison(op, name, device, differences, tuple(wrong))


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


class Difference(NamedTuple):
    """How a result or a gradient differs from float64."""

    absolute: float
    allowed: float
    """The largest absolute difference that is right."""
    scale: float
    """The largest value in float64, or 1 if all values are 0."""

    @property
    def right(self) -> bool:
        """Whether the difference is allowed; a NaN is not."""
        return self.absolute <= self.allowed

    @property
    def relative(self) -> float:
        """The difference as a part of the largest value."""
        return self.absolute / self.scale


def compare(
    fused: Callable, reference: Callable, inputs: tuple, roundoff: float = 0.0
) -> list[Difference]:
    """Differences to float64 of each result and gradient.

    Args:
        fused: called with ``inputs``; returns a tensor or several.
        reference: the same in plain PyTorch.
        inputs: arguments; tensors may be in lists and dictionaries.
        roundoff: an extra error that the back end may have, relative to the largest value.
    """
    exact = run(reference, cast(inputs, torch.float64, "cpu"))
    eager = run(reference, inputs)
    found = run(fused, inputs)
    differences = []
    for f, e, x in zip(found, eager, exact, strict=True):
        largest = x.abs().max().item() if x.numel() else 0.0
        allowed = 0.0
        if x.is_floating_point():
            allowed = 2 * error(e, x) + (8 * torch.finfo(torch.float32).eps + roundoff) * largest
        differences.append(Difference(error(f, x), allowed, largest or 1.0))
    return differences


def run(function: Callable, inputs: tuple) -> list[Tensor]:
    """Results, and gradients of the floating-point inputs that require them, all in one list.

    Gradients are those of a weighted sum of the results, with different weights for all elements.
    """
    inputs = _map(lambda x: x.detach().requires_grad_(x.requires_grad), inputs)
    leaves = [x for x in _tensors(inputs) if x.requires_grad]
    results = function(*inputs)
    results = list(results) if isinstance(results, tuple | list) else [results]
    loss = sum(
        (r * torch.linspace(0.5, 1.5, r.numel(), dtype=r.dtype, device=r.device).view_as(r)).sum()
        for r in results
        if r.requires_grad
    )
    grads = torch.autograd.grad(loss, leaves) if leaves else ()
    return [r.detach() for r in results] + list(grads)


def cast(inputs: tuple, dtype: torch.dtype, device: str | None = None) -> tuple:
    """Copies on ``device``, floating-point tensors in ``dtype``; requires_grad stays the same."""

    def one(x: Tensor) -> Tensor:
        y = x.detach().to(device=device or x.device)
        return y.to(dtype).requires_grad_(x.requires_grad) if y.is_floating_point() else y

    return _map(one, inputs)


def error(found: Tensor, exact: Tensor) -> float:
    """Largest absolute difference; infinite if shapes differ, or one is NaN and the other not."""
    if found.shape != exact.shape:
        return float("inf")
    if found.numel() == 0:
        return 0.0
    difference = (found.double().cpu() - exact.cpu()).abs()
    return difference.nan_to_num(nan=float("inf")).max().item()


def roundoff_of(target: tuple[str, str], dtype: torch.dtype) -> float:
    """Additional relative rounding error of a target: Triton's interpreter truncates bfloat16."""
    truncates = target == ("triton", "cpu") and dtype == torch.bfloat16
    return torch.finfo(dtype).eps / 2 if truncates else 0.0


def _map(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """The same structure of tuples, lists and dictionaries, with other tensors."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, tuple | list):
        return type(value)(_map(function, item) for item in value)
    if isinstance(value, dict):
        return {key: _map(function, item) for key, item in value.items()}
    return value


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)
