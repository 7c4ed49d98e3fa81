"""``translation_input`` against a concatenation of the normalised image, depth and one-hot labels.

The rivals also return a channels-last tensor, as the network needs it.
"""

import pytest
import torch

from benchmarks.harness import require_fast
from gioada_fast.ops import translation_input

# n, classes, H, W; dtype of the result.
SHAPES = {
    "flagship 1x16, 512x1024": ((1, 16, 512, 1024), torch.float32),
    "flagship 1x16, 512x1024, float16": ((1, 16, 512, 1024), torch.float16),
    "demo 4x11, 180x240": ((4, 11, 180, 240), torch.float32),
    "odd 2x19, 357x611": ((2, 19, 357, 611), torch.float32),
}


def eager(image, depth, labels, num_classes, dtype):
    """As public code writes it, with a comparison: faster than ``F.one_hot`` and a permute."""
    classes = torch.arange(num_classes, device=labels.device).view(1, -1, 1, 1)
    one_hot = (labels.unsqueeze(1) == classes).to(dtype)
    parts = [(image.float() / 127.5 - 1).to(dtype), depth.to(dtype), one_hot]
    return torch.cat(parts, dim=1).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", SHAPES)
def bench_translation_input(shape, race, device):
    (n, classes, height, width), dtype = SHAPES[shape]
    require_fast(dtype, device)
    torch.manual_seed(0)
    image = torch.randint(0, 256, (n, 3, height, width), dtype=torch.uint8, device=device)
    depth = torch.rand(n, 1, height, width, device=device)
    labels = torch.randint(0, classes, (n, height, width), dtype=torch.uint8, device=device)
    pixels = n * height * width
    race(
        "translation_input",
        shape,
        translation_input,
        eager,
        (image, depth, labels, classes, dtype),
        bytes_moved=pixels * (3 + 4 + 1 + dtype.itemsize * (4 + classes)),
    )
