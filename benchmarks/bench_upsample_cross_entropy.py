"""``upsample_cross_entropy`` against ``F.interpolate`` and ``F.cross_entropy``."""

import pytest
import torch
import torch.nn.functional as F

from gioada_fast.ops import upsample_cross_entropy

# n, c, h, w, H, W; guards for forward and for forward + backward, with room for noise.
SHAPES = {
    "flagship 1x16, 65x129 to 512x1024": ((1, 16, 65, 129, 512, 1024), (5.5, 15)),
    "demo 4x11, 24x31 to 180x240": ((4, 11, 24, 31, 180, 240), (6, 10)),
    "odd 2x19, 45x77 to 357x611": ((2, 19, 45, 77, 357, 611), (6, 10)),
}


def eager(logits, labels):
    """As public code writes it."""
    full = F.interpolate(logits, size=labels.shape[1:], mode="bilinear", align_corners=True)
    return F.cross_entropy(full, labels, ignore_index=255)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "forward+backward"])
@pytest.mark.parametrize("shape", SHAPES)
def bench_upsample_cross_entropy(shape, backward, race, device):
    (n, c, h, w, height, width), guards = SHAPES[shape]
    torch.manual_seed(0)
    logits = (2 * torch.randn(n, c, h, w, device=device)).requires_grad_(backward)
    labels = torch.randint(0, c, (n, height, width), device=device)
    labels[torch.rand(labels.shape, device=device) < 0.1] = 255
    race(
        "upsample_cross_entropy",
        shape,
        upsample_cross_entropy,
        eager,
        (logits, labels),
        guard=guards[backward],
    )
