"""``semantic_depth_concat`` against ``F.interpolate``, ``F.softmax`` and ``torch.cat``."""

import pytest
import torch
import torch.nn.functional as F

from gioada_fast.ops import semantic_depth_concat

# n, c, h, w, H, W; guards for forward and for forward + backward, with room for noise.
SHAPES = {
    "flagship 1x16, 65x129 to 512x1024": ((1, 16, 65, 129, 512, 1024), (7, 6)),
    "demo 4x11, 24x31 to 180x240": ((4, 11, 24, 31, 180, 240), (5, 3.3)),
    "odd 2x19, 45x77 to 357x611": ((2, 19, 45, 77, 357, 611), (4.5, 5)),
}


def eager(logits, depth, size):
    """As public code writes it."""
    full = F.interpolate(logits, size=size, mode="bilinear", align_corners=True)
    full_depth = F.interpolate(depth, size=size, mode="bilinear", align_corners=True)
    return torch.cat([F.softmax(full, dim=1), full_depth], dim=1)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "forward+backward"])
@pytest.mark.parametrize("shape", SHAPES)
def bench_semantic_depth_concat(shape, backward, race, device):
    (n, c, h, w, height, width), guards = SHAPES[shape]
    torch.manual_seed(0)
    logits = (2 * torch.randn(n, c, h, w, device=device)).requires_grad_(backward)
    depth = torch.randn(n, 1, h, w, device=device).requires_grad_(backward)
    written = 4 * n * (c + 1) * height * width
    race(
        "semantic_depth_concat",
        shape,
        semantic_depth_concat,
        eager,
        (logits, depth, (height, width)),
        guard=guards[backward],
        channels_last=True,
        bytes_moved=written * (1 + backward),
    )
