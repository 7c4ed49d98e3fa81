"""``upsample_confusion_matrix`` against ``F.interpolate``, ``argmax`` and ``torch.bincount``.

Logits are random, so that all classes compete at every pixel, or smooth, as from a network.
"""

import pytest
import torch
import torch.nn.functional as F

from benchmarks.bench_upsample_argmax import random_logits, smooth_logits
from gioada_fast.ops import upsample_confusion_matrix

# n, c, h, w, H, W; align_corners.
SHAPES = {
    "flagship 1x16, 65x129 to 1024x2048": ((1, 16, 65, 129, 1024, 2048), True),
    "demo 4x11, 24x31 to 180x240": ((4, 11, 24, 31, 180, 240), True),
    "odd 2x19, 45x77 to 357x611": ((2, 19, 45, 77, 357, 611), True),
    "flagship, half pixels 1x16, 65x129 to 1024x2048": ((1, 16, 65, 129, 1024, 2048), False),
    "2 classes, half pixels 1x2, 128x128 to 512x512": ((1, 2, 128, 128, 512, 512), False),
    "150 classes, half pixels 1x150, 128x128 to 512x512": ((1, 150, 128, 128, 512, 512), False),
}


def fused(logits, labels, align_corners):
    return upsample_confusion_matrix(logits, labels, align_corners=align_corners)


def eager(logits, labels, align_corners):
    """As public code writes it, but with an extra row for ignored pixels: faster than a mask."""
    classes = logits.shape[1]
    full = F.interpolate(
        logits, size=labels.shape[1:], mode="bilinear", align_corners=align_corners
    )
    rows = torch.where((labels >= 0) & (labels < classes), labels, classes)
    cells = (rows * classes + full.argmax(1)).flatten()
    counts = torch.bincount(cells, minlength=(classes + 1) * classes)
    return counts.view(classes + 1, classes)[:classes]


@pytest.mark.parametrize("smooth", [False, True], ids=["random", "smooth"])
@pytest.mark.parametrize("shape", SHAPES)
def bench_upsample_confusion_matrix(shape, smooth, race, device):
    (n, c, h, w, height, width), align_corners = SHAPES[shape]
    torch.manual_seed(0)
    logits = random_logits(n, c, h, w, device)
    labels = torch.randint(0, c, (n, height, width), device=device)
    if smooth:
        logits = smooth_logits(n, c, h, w, device)
        labels = F.interpolate(logits, size=labels.shape[1:], mode="bilinear").argmax(1)
    labels[torch.rand(labels.shape, device=device) < (0.02 if smooth else 0.1)] = 255
    race(
        "upsample_confusion_matrix",
        f"{shape}, {'smooth' if smooth else 'random'}",
        fused,
        eager,
        (logits, labels, align_corners),
        bytes_moved=logits.nbytes + labels.nbytes,
    )
