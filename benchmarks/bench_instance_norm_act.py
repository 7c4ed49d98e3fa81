"""``instance_norm_act`` against ``F.instance_norm``, an activation, a sum and ``F.pad``."""

import pytest
import torch
import torch.nn.functional as F

from gioada_fast.ops import instance_norm_act

# (n, c, h, w), activation, residual, pad; guards for forward and for forward + backward.
SHAPES = {
    "flagship 1x64x256x512, ReLU, pad 1": ((1, 64, 256, 512), "relu", False, 1, (3, 2.2)),
    "demo 4x16x180x240, ReLU, pad 1": ((4, 16, 180, 240), "relu", False, 1, (3.4, 2.1)),
    "residual 4x64x45x60, pad 1": ((4, 64, 45, 60), "none", True, 1, (2.4, 2.1)),
    "odd 2x24x91x123, leaky ReLU": ((2, 24, 91, 123), "leaky_relu", False, 0, (1.2, 1.1)),
}


def eager(x, activation, negative_slope, residual, pad):
    """As public code writes it."""
    y = F.instance_norm(x)
    if activation == "relu":
        y = F.relu(y)
    elif activation == "leaky_relu":
        y = F.leaky_relu(y, negative_slope)
    if residual is not None:
        y = residual + y
    return F.pad(y, (pad, pad, pad, pad), mode="reflect") if pad > 0 else y


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "forward+backward"])
@pytest.mark.parametrize("shape", SHAPES)
def bench_instance_norm_act(shape, backward, race, device):
    size, activation, has_residual, pad, guards = SHAPES[shape]
    torch.manual_seed(0)
    x = torch.randn(size, device=device).requires_grad_(backward)
    residual = torch.randn(size, device=device).requires_grad_(backward) if has_residual else None
    # Forward reads x twice (statistics, result) and the residual once, and writes the result.
    # Backward reads x and the gradient twice each (sums, result), and writes the gradients.
    images = (10 if has_residual else 8) if backward else (4 if has_residual else 3)
    race(
        "instance_norm_act",
        shape,
        instance_norm_act,
        eager,
        (x, activation, 0.2, residual, pad),
        guard=guards[backward],
        channels_last=True,
        bytes_moved=images * x.nbytes,
    )
