"""``upsample_depth_loss`` against ``F.interpolate`` and a masked mean."""

from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F

from gioada_fast.ops import upsample_depth_loss


class Case(NamedTuple):
    """Sizes and options of a case."""

    kind: str
    shape: tuple[int, int, int, int, int]
    """n, h, w, H, W."""
    align_corners: bool = True
    dtype: torch.dtype = torch.float32


FLAGSHIP = (1, 65, 129, 512, 1024)
CASES = {
    "flagship 1x1, 65x129 to 512x1024": Case("l1", FLAGSHIP),
    "demo 4x1, 24x31 to 180x240": Case("l1", (4, 24, 31, 180, 240)),
    "odd 2x1, 45x77 to 357x611": Case("l1", (2, 45, 77, 357, 611)),
    "flagship 1x1, berHu": Case("berhu", FLAGSHIP),
    "flagship, half pixels": Case("l1", FLAGSHIP, align_corners=False),
    "flagship, float16": Case("l1", FLAGSHIP, dtype=torch.float16),
    "flagship, l2": Case("l2", FLAGSHIP),
    "flagship, silog": Case("silog", FLAGSHIP),
}


def eager(depth, target, kind, valid, align_corners):
    """As public code writes it, multiplying by the mask, which is faster than indexing with it.

    float16 depth is upsampled in float32, as under autocast.
    """
    size = target.shape[2:]
    full = F.interpolate(depth.float(), size=size, mode="bilinear", align_corners=align_corners)
    if kind == "silog":
        error = (full.log() - target.log()) * valid
        mean = error.sum() / valid.sum()
        return error.square().sum() / valid.sum() - 0.5 * mean.square()
    error = (full - target).abs() * valid
    if kind == "berhu":
        c = 0.2 * error.detach().max()
        error = torch.where(error <= c, error, (error**2 + c**2) / (2 * c))
    elif kind == "l2":
        error = error.square()
    return error.sum() / valid.sum()


def fused(depth, target, kind, valid, align_corners):
    return upsample_depth_loss(depth, target, kind, valid, align_corners=align_corners)


@pytest.mark.parametrize("backward", [True, False], ids=["forward+backward", "forward"])
@pytest.mark.parametrize("name", CASES)
def bench_upsample_depth_loss(name, backward, race, device):
    kind, (n, h, w, height, width), align_corners, dtype = CASES[name]
    torch.manual_seed(0)
    depth = torch.randn(n, 1, h, w, device=device)
    target = torch.randn(n, 1, height, width, device=device)
    if kind == "silog":
        depth, target = depth.exp(), target.exp()
    depth = depth.to(dtype).requires_grad_(backward)
    valid = torch.rand(target.shape, device=device) >= 0.1
    race(
        "upsample_depth_loss",
        name,
        fused,
        eager,
        (depth, target, kind, valid, align_corners),
        # Target and mask are read once, twice if a statistic comes first; depth is read, its
        # gradient written.
        bytes_moved=(5 * (1 + (kind in ("berhu", "silog"))) * target.numel() + 8 * depth.numel()),
    )
