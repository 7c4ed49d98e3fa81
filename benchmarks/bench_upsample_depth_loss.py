"""``upsample_depth_loss`` against ``F.interpolate`` and a masked mean."""

import pytest
import torch
import torch.nn.functional as F

from gioada_fast.ops import upsample_depth_loss

# kind, (n, h, w, H, W); guards for forward and for forward + backward, with room for noise.
SHAPES = {
    "flagship 1x1, 65x129 to 512x1024": ("l1", (1, 65, 129, 512, 1024), (6, 11)),
    "demo 4x1, 24x31 to 180x240": ("l1", (4, 24, 31, 180, 240), (4.5, 5)),
    "odd 2x1, 45x77 to 357x611": ("l1", (2, 45, 77, 357, 611), (5.5, 8)),
    "flagship 1x1, berHu": ("berhu", (1, 65, 129, 512, 1024), (6, 14)),
}


def eager(depth, target, kind, valid):
    """As public code writes it, multiplying by the mask, which is faster than indexing with it."""
    full = F.interpolate(depth, size=target.shape[2:], mode="bilinear", align_corners=True)
    error = (full - target).abs() * valid
    if kind == "berhu":
        c = 0.2 * error.detach().max()
        error = torch.where(error <= c, error, (error**2 + c**2) / (2 * c))
    return error.sum() / valid.sum()


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "forward+backward"])
@pytest.mark.parametrize("shape", SHAPES)
def bench_upsample_depth_loss(shape, backward, race, device):
    kind, (n, h, w, height, width), guards = SHAPES[shape]
    torch.manual_seed(0)
    depth = torch.randn(n, 1, h, w, device=device).requires_grad_(backward)
    target = torch.randn(n, 1, height, width, device=device)
    valid = torch.rand(target.shape, device=device) >= 0.1
    race(
        "upsample_depth_loss",
        shape,
        upsample_depth_loss,
        eager,
        (depth, target, kind, valid),
        guard=guards[backward],
        # Target and mask are read once, twice for berHu; depth is read, its gradient written.
        bytes_moved=(5 * (1 + (kind == "berhu")) * target.numel() + 8 * depth.numel()),
    )
