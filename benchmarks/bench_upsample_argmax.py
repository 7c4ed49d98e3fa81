"""``upsample_argmax`` against ``F.interpolate`` and ``argmax``.

Logits are random, so that all classes compete at every pixel, or smooth, as from a network.
"""

import pytest
import torch
import torch.nn.functional as F

from gioada_fast.ops import upsample_argmax

# n, c, h, w, H, W; align_corners; dtype.
SHAPES = {
    "flagship 1x16, 65x129 to 1024x2048": ((1, 16, 65, 129, 1024, 2048), True, torch.int64),
    "flagship in uint8 1x16, 65x129 to 1024x2048": (
        (1, 16, 65, 129, 1024, 2048),
        True,
        torch.uint8,
    ),
    "flagship, half pixels 1x16, 65x129 to 1024x2048": (
        (1, 16, 65, 129, 1024, 2048),
        False,
        torch.int64,
    ),
    "demo 4x11, 24x31 to 180x240": ((4, 11, 24, 31, 180, 240), True, torch.int64),
    "19 classes, half pixels 1x19, 128x128 to 512x512": (
        (1, 19, 128, 128, 512, 512),
        False,
        torch.int64,
    ),
    "150 classes, half pixels 1x150, 128x128 to 512x512": (
        (1, 150, 128, 128, 512, 512),
        False,
        torch.int64,
    ),
}


def random_logits(n, c, h, w, device):
    return 2 * torch.randn(n, c, h, w, device=device)


def smooth_logits(n, c, h, w, device):
    grid = 8 * torch.randn(n, c, max(2, h // 8), max(2, w // 8), device=device)
    return F.interpolate(grid, size=(h, w), mode="bicubic")


def fused(logits, size, align_corners, dtype):
    return upsample_argmax(logits, size, align_corners=align_corners, dtype=dtype)


def eager(logits, size, align_corners, dtype):
    """As public code writes it."""
    full = F.interpolate(logits, size=size, mode="bilinear", align_corners=align_corners)
    return full.argmax(1).to(dtype)


@pytest.mark.parametrize("smooth", [False, True], ids=["random", "smooth"])
@pytest.mark.parametrize("shape", SHAPES)
def bench_upsample_argmax(shape, smooth, race, device):
    (n, c, h, w, height, width), align_corners, dtype = SHAPES[shape]
    torch.manual_seed(0)
    logits = (smooth_logits if smooth else random_logits)(n, c, h, w, device)
    race(
        "upsample_argmax",
        f"{shape}, {'smooth' if smooth else 'random'}",
        fused,
        eager,
        (logits, (height, width), align_corners, dtype),
        bytes_moved=logits.nbytes + n * height * width * dtype.itemsize,
    )
