"""Fused ops: each computes what its ``reference`` does, in one pass, deterministically.

``backends()`` says what runs here and why not the rest; ``with backend("reference"):`` and the
environment variable ``GIOADA_BACKEND`` override the automatic choice.
"""

from gioada_fast.ops._registry import BACKENDS, Backend, backend, backends, registered
from gioada_fast.ops.gan_loss import gan_loss
from gioada_fast.ops.upsample_cross_entropy import upsample_cross_entropy

__all__ = [
    "BACKENDS",
    "Backend",
    "backend",
    "backends",
    "gan_loss",
    "registered",
    "upsample_cross_entropy",
]
