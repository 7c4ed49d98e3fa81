"""Class predictions at full size from small logits, without upsampled logits in memory.

    z[c, p]        = bilinear(logits, size)                              [N, C, H, W], never stored
    predictions[p] = argmax_c z[c, p]

Interpolation is convex: within a cell, the values of a class stay in the range of its four corners.
A class cannot win if the range of another class lies above its own. In a smooth map, most cells
therefore have few candidates, and their pixels need little arithmetic.

Source: prediction of semantic segmentation from logits that are upsampled before the argmax
(DeepLab-v2, arXiv 1606.00915).
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gioada_fast.ops._bilinear import axes
from gioada_fast.ops._checks import LABELS, check_bool, check_dtype, check_image, check_size
from gioada_fast.ops._native import run
from gioada_fast.ops._registry import FusedOp

_NAME = "upsample_argmax"
MAX_LOGIT = 2.0**126  # an infinite logit counts as this; see clamp_finite() in csrc


def reference(
    logits: Tensor,
    size: Sequence[int],
    *,
    align_corners: bool = True,
    dtype: torch.dtype = torch.int64,
) -> Tensor:
    """The op in plain PyTorch; arguments as for ``upsample_argmax``."""
    if logits.shape[0] == 0:
        return torch.empty((0, *size), dtype=dtype, device=logits.device)
    z = logits if logits.dtype == torch.float64 else logits.float()
    z = z.clamp(-MAX_LOGIT, MAX_LOGIT)  # 0 times infinity would be NaN
    z = F.interpolate(z, size, mode="bilinear", align_corners=align_corners)
    return z.argmax(1).to(dtype)


def sample(
    shape: Sequence[int] = (2, 19, 3, 4),
    size: Sequence[int] = (7, 21),
    scale: float = 3.0,
) -> dict[str, Any]:
    """Random arguments."""
    return {"logits": scale * torch.randn(tuple(shape)), "size": size}


def _check(logits: Tensor, size: Sequence[int], dtype: torch.dtype) -> None:
    check_image("logits", logits)
    check_dtype("logits", logits)
    check_size(size)
    if dtype not in LABELS:
        raise TypeError(f"dtype: {dtype}, expected torch.int64, torch.int32 or torch.uint8")
    if dtype == torch.uint8 and logits.shape[1] > 256:
        raise ValueError(
            f"dtype: torch.uint8 holds 256 classes, but logits have {logits.shape[1]}: "
            "use torch.int64 or torch.int32"
        )


def _fake(
    logits: Tensor,
    height: int,
    width: int,
    align_corners: bool,
    dtype: torch.dtype,
    backend: str,
) -> Tensor:
    """Empty predictions [N, H, W]."""
    return logits.new_empty((logits.shape[0], height, width), dtype=dtype)


def _kernel(
    logits: Tensor,
    height: int,
    width: int,
    align_corners: bool,
    dtype: torch.dtype,
    backend: str,
) -> Tensor:
    predictions = _fake(logits, height, width, align_corners, dtype, backend)
    if predictions.numel():
        resize = axes(logits.shape[2:], (height, width), align_corners)
        run(_NAME, backend, logits, *resize, predictions)
    return predictions


_op = FusedOp(_NAME, fake=_fake, kernel=_kernel, backends=("cpp", "triton", "cuda"))


def upsample_argmax(
    logits: Tensor,
    size: Sequence[int],
    *,
    align_corners: bool = True,
    dtype: torch.dtype = torch.int64,
) -> Tensor:
    """Class of the largest logit at each pixel, logits resized bilinearly; the first of equals.

    Args:
        logits: [N, C, h, w] class scores, float32, bfloat16 or float16, any memory format.
            float64 is computed by ``reference``.
        size: (H, W) of the result; may be smaller than (h, w).
        align_corners: as in ``torch.nn.functional.interpolate``.
        dtype: of the result: ``torch.int64``, ``torch.int32``, or ``torch.uint8`` for up to 256
            classes.

    Returns:
        [N, H, W] in ``dtype``. Has no gradient.

    Interpolation is in float32: if the two largest logits of a pixel differ by less than the
    rounding error, either class may win. A class masked with -infinity never wins against a finite
    one. NaN is larger than any number, as in ``torch.argmax``; a class is NaN at a pixel if one of
    its logits at the four corners of the pixel's cell is NaN. ``upsample_confusion_matrix`` counts
    these same predictions.

    Deterministic: every run gives the same result, for any number of CPU threads.

    Raises:
        ValueError: C, h or w is 0, ``size`` is smaller than 1 pixel, or ``dtype`` is too small for
            the classes.
        TypeError: a dtype other than the above, or sizes that are not integers.
        RuntimeError: the requested back end does not run here.
    """
    check_bool("align_corners", align_corners)
    _check(logits, size, dtype)
    logits = logits.detach()
    backend = _op.choose(logits)
    if backend == "reference":
        return reference(logits, size, align_corners=align_corners, dtype=dtype)
    return _op(logits, *size, align_corners, dtype, backend)
