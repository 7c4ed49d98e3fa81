"""``gan_loss`` of several discriminator maps against one call of a PyTorch loss per map."""

import pytest
import torch
import torch.nn.functional as F

from benchmarks.harness import require_fast
from gioada_fast.ops import gan_loss

# Shapes of the maps, alternately real and fake; kind; dtype.
SHAPES = {
    "flagship lsgan, 4 of 1x1x62x126": ([(1, 1, 62, 126)] * 4, "lsgan", torch.float32),
    "flagship lsgan, 4 of 1x1x62x126, float16": ([(1, 1, 62, 126)] * 4, "lsgan", torch.float16),
    "demo lsgan, 2 of 4x1x20x28, 2 of 4x1x5x7": (
        [(4, 1, 20, 28)] * 2 + [(4, 1, 5, 7)] * 2,
        "lsgan",
        torch.float32,
    ),
    "odd bce, 3 of 3x1x17x31": ([(3, 1, 17, 31)] * 3, "bce", torch.float32),
}


@pytest.mark.parametrize("backward", [True, False], ids=["forward+backward", "forward"])
@pytest.mark.parametrize("shape", SHAPES)
def bench_gan_loss(shape, backward, race, device):
    sizes, kind, dtype = SHAPES[shape]
    require_fast(dtype, device)
    torch.manual_seed(0)
    maps = [torch.randn(size, device=device).to(dtype).requires_grad_(backward) for size in sizes]
    real = [i % 2 == 0 for i in range(len(maps))]
    targets = [
        torch.full_like(x, float(r), dtype=torch.float32).detach()
        for x, r in zip(maps, real, strict=True)
    ]
    loss = F.mse_loss if kind == "lsgan" else F.binary_cross_entropy_with_logits

    def eager(*maps):
        """As public code writes it, except that the target tensors are built only once.

        Autocast computes these losses in float32.
        """
        return torch.stack([loss(x.float(), t) for x, t in zip(maps, targets, strict=True)])

    race(
        "gan_loss",
        shape,
        lambda *maps: gan_loss(maps, real, kind),
        eager,
        tuple(maps),
    )
