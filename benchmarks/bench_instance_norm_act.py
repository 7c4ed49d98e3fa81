"""``instance_norm_act`` against PyTorch's norms, an activation, a sum and ``F.pad``."""

from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F

from benchmarks.harness import require_fast
from gioada_fast.ops import instance_norm_act


class Case(NamedTuple):
    """A row of the benchmark."""

    size: tuple[int, int, int, int]
    activation: str
    residual: bool = False
    pad: int = 0
    affine: bool = False
    groups: int | None = None
    dtype: torch.dtype = torch.float32


CASES = {
    "flagship 1x64x256x512, ReLU, pad 1": Case((1, 64, 256, 512), "relu", pad=1),
    "demo 4x16x180x240, ReLU, pad 1": Case((4, 16, 180, 240), "relu", pad=1),
    "residual 4x64x45x60, pad 1": Case((4, 64, 45, 60), "none", residual=True, pad=1),
    "odd 2x24x91x123, leaky ReLU": Case((2, 24, 91, 123), "leaky_relu"),
    "affine 1x64x256x512, ReLU": Case((1, 64, 256, 512), "relu", affine=True),
    "32 groups 2x256x64x128, affine, ReLU": Case((2, 256, 64, 128), "relu", affine=True, groups=32),
    "32 groups 2x256x64x128, affine, SiLU": Case((2, 256, 64, 128), "silu", affine=True, groups=32),
    "32 groups 2x256x64x128, affine, GELU": Case((2, 256, 64, 128), "gelu", affine=True, groups=32),
    "32 groups 2x256x64x128, affine, SiLU, float16": Case(
        (2, 256, 64, 128), "silu", affine=True, groups=32, dtype=torch.float16
    ),
}
ACTIVATIONS = {
    "none": lambda y, slope: y,
    "relu": lambda y, slope: F.relu(y),
    "leaky_relu": F.leaky_relu,
    "silu": lambda y, slope: F.silu(y),
    "gelu": lambda y, slope: F.gelu(y),
}


def fused(x, activation, negative_slope, residual, pad, weight, bias, groups):
    return instance_norm_act(
        x, activation, negative_slope, residual, pad, weight=weight, bias=bias, groups=groups
    )


def eager(x, activation, negative_slope, residual, pad, weight, bias, groups):
    """As public code writes it."""
    if groups is None:
        y = F.instance_norm(x, weight=weight, bias=bias)
    else:
        y = F.group_norm(x, groups, weight, bias)
    y = ACTIVATIONS[activation](y, negative_slope)
    if residual is not None:
        y = residual + y
    return F.pad(y, (pad, pad, pad, pad), mode="reflect") if pad > 0 else y


@pytest.mark.parametrize("backward", [True, False], ids=["forward+backward", "forward"])
@pytest.mark.parametrize("name", CASES)
def bench_instance_norm_act(name, backward, race, device):
    case = CASES[name]
    require_fast(case.dtype, device)
    torch.manual_seed(0)

    def tensor(*size):
        x = torch.randn(size, device=device).to(case.dtype)
        return x.requires_grad_(backward)

    x = tensor(*case.size)
    residual = tensor(*case.size) if case.residual else None
    weight, bias = (tensor(case.size[1]) if case.affine else None for _ in range(2))
    # Forward reads x twice (statistics, result) and the residual once, and writes the result.
    # Backward reads x and the gradient twice each (sums, result), and writes the gradients.
    images = (10 if case.residual else 8) if backward else (4 if case.residual else 3)
    race(
        "instance_norm_act",
        name,
        fused,
        eager,
        (x, case.activation, 0.2, residual, case.pad, weight, bias, case.groups),
        channels_last=True,
        bytes_moved=images * x.nbytes,
    )
