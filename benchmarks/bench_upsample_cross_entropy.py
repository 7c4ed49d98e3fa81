"""``upsample_cross_entropy`` against ``F.interpolate`` and ``F.cross_entropy``."""

from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F

from gioada_fast.ops import upsample_cross_entropy


class Case(NamedTuple):
    """Sizes and options of a case."""

    shape: tuple[int, int, int, int, int, int]
    """n, c, h, w, H, W."""
    align_corners: bool = True
    dtype: torch.dtype = torch.float32


CASES = {
    "flagship 1x16, 65x129 to 512x1024": Case((1, 16, 65, 129, 512, 1024)),
    "flagship, half pixels": Case((1, 16, 65, 129, 512, 1024), align_corners=False),
    "flagship, float16": Case((1, 16, 65, 129, 512, 1024), dtype=torch.float16),
    "demo 4x11, 24x31 to 180x240": Case((4, 11, 24, 31, 180, 240)),
    "odd 2x19, 45x77 to 357x611": Case((2, 19, 45, 77, 357, 611)),
    "ADE20K 1x150, 128x128 to 512x512": Case((1, 150, 128, 128, 512, 512), align_corners=False),
    "binary 2x2, 128x128 to 512x512": Case((2, 2, 128, 128, 512, 512), align_corners=False),
}


@pytest.mark.parametrize("backward", [True, False], ids=["forward+backward", "forward"])
@pytest.mark.parametrize("name", CASES)
def bench_upsample_cross_entropy(name, backward, race, device):
    (n, c, h, w, height, width), align_corners, dtype = CASES[name]
    torch.manual_seed(0)
    logits = (2 * torch.randn(n, c, h, w, device=device)).to(dtype).requires_grad_(backward)
    labels = torch.randint(0, c, (n, height, width), device=device)
    labels[torch.rand(labels.shape, device=device) < 0.1] = 255

    # Gradients of a mean are too small for float16: they are scaled, as a GradScaler does.
    loss_scale = 2.0**16 if dtype is torch.float16 else 1.0

    def fused(logits, labels):
        return loss_scale * upsample_cross_entropy(logits, labels, align_corners=align_corners)

    def eager(logits, labels):
        """As public code writes it; float16 as under autocast, which computes losses in float32."""
        full = F.interpolate(
            logits, size=labels.shape[1:], mode="bilinear", align_corners=align_corners
        )
        return loss_scale * F.cross_entropy(full.float(), labels, ignore_index=255)

    race("upsample_cross_entropy", name, fused, eager, (logits, labels))
