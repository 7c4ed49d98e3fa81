"""``semantic_depth_concat`` against ``F.interpolate``, ``F.softmax`` and ``torch.cat``."""

import functools

import pytest
import torch
import torch.nn.functional as F

from benchmarks.harness import require_fast
from gioada_fast.ops import semantic_depth_concat

# n, c, h, w, H, W
SIZES = {
    "flagship 1x16, 65x129 to 512x1024": (1, 16, 65, 129, 512, 1024),
    "demo 4x11, 24x31 to 180x240": (4, 11, 24, 31, 180, 240),
    "odd 2x19, 45x77 to 357x611": (2, 19, 45, 77, 357, 611),
    "1x150, 128x128 to 512x512": (1, 150, 128, 128, 512, 512),
    "1x2, 128x128 to 512x512": (1, 2, 128, 128, 512, 512),
}
FLAGSHIP, DEMO, ODD, MANY, FEW = SIZES
# Size, align_corners, dtype.
CASES = [
    (FLAGSHIP, True, torch.float32),
    (FLAGSHIP, False, torch.float32),
    (FLAGSHIP, True, torch.float16),
    (DEMO, True, torch.float32),
    (ODD, True, torch.float32),
    (MANY, False, torch.float32),
    (FEW, False, torch.float32),
]


def eager(logits, depth, size, *, align_corners):
    """As public code writes it."""
    resize = functools.partial(
        F.interpolate, size=size, mode="bilinear", align_corners=align_corners
    )
    return torch.cat([F.softmax(resize(logits), dim=1), resize(depth)], dim=1)


@pytest.mark.parametrize("backward", [True, False], ids=["forward+backward", "forward"])
@pytest.mark.parametrize(("size", "align_corners", "dtype"), CASES)
def bench_semantic_depth_concat(size, align_corners, dtype, backward, race, device):
    require_fast(dtype, device)
    n, c, h, w, height, width = SIZES[size]
    torch.manual_seed(0)
    logits = (2 * torch.randn(n, c, h, w, device=device)).to(dtype).requires_grad_(backward)
    depth = torch.randn(n, 1, h, w, device=device).to(dtype).requires_grad_(backward)
    variant = ("" if align_corners else ", align_corners=False") + (
        "" if dtype == torch.float32 else f", {str(dtype).removeprefix('torch.')}"
    )
    race(
        "semantic_depth_concat",
        size + variant,
        functools.partial(semantic_depth_concat, align_corners=align_corners),
        functools.partial(eager, align_corners=align_corners),
        (logits, depth, (height, width)),
        channels_last=True,
        bytes_moved=logits.element_size() * n * (c + 1) * height * width * (1 + backward),
    )
