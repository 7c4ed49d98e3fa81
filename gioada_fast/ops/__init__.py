"""Fused ops: each computes the same as its ``reference``, fused and deterministic.

``backends()`` lists which back ends run here, and why the others do not. The context
``with backend("reference"):`` and the environment variable ``GIOADA_BACKEND`` override the
automatic choice.
"""

from gioada_fast.ops._registry import BACKENDS, Backend, backend, backends, registered
from gioada_fast.ops.gan_loss import gan_loss
from gioada_fast.ops.instance_norm_act import instance_norm_act
from gioada_fast.ops.semantic_depth_concat import semantic_depth_concat
from gioada_fast.ops.translation_input import translation_input
from gioada_fast.ops.upsample_argmax import upsample_argmax
from gioada_fast.ops.upsample_confusion_matrix import upsample_confusion_matrix
from gioada_fast.ops.upsample_cross_entropy import upsample_cross_entropy
from gioada_fast.ops.upsample_depth_loss import upsample_depth_loss

__all__ = [
    "BACKENDS",
    "Backend",
    "backend",
    "backends",
    "gan_loss",
    "instance_norm_act",
    "registered",
    "semantic_depth_concat",
    "translation_input",
    "upsample_argmax",
    "upsample_confusion_matrix",
    "upsample_cross_entropy",
    "upsample_depth_loss",
]
