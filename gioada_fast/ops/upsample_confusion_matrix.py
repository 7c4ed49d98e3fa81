"""Confusion matrix of small logits against full-size labels, without upsampled logits in memory.

    z[c, p]    = bilinear(logits, size of labels)                        [N, C, H, W], never stored
    counts[i, j] = number of pixels p with label i and argmax_c z[c, p] = j

The predictions are those of ``upsample_argmax``, from the same kernel code.

Source: evaluation of semantic segmentation as in the Cityscapes and CamVid benchmarks, on logits
that are upsampled before the argmax (DeepLab-v2, arXiv 1606.00915).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gioada_fast.ops._bilinear import axes
from gioada_fast.ops._checks import (
    check_bool,
    check_dtype,
    check_image,
    check_label_values,
    check_wrong_label,
    checked_labels,
)
from gioada_fast.ops._native import run
from gioada_fast.ops._registry import FusedOp
from gioada_fast.ops.upsample_argmax import reference as argmax_reference

_NAME = "upsample_confusion_matrix"
MAX_CLASSES = 46340  # the matrix and an extra row are indexed with 32 bits


def reference(
    logits: Tensor, labels: Tensor, ignore_index: int = 255, *, align_corners: bool = True
) -> Tensor:
    """The op in plain PyTorch; arguments as for ``upsample_confusion_matrix``."""
    classes = logits.shape[1]
    counts = torch.zeros((classes + 1) * classes, dtype=torch.int64, device=logits.device)
    if labels.numel():
        y = labels.long()
        # Ignored pixels are counted in an extra row, which is dropped.
        y = y.masked_fill((y == ignore_index) | (y < 0) | (y >= classes), classes)
        predicted = argmax_reference(logits, labels.shape[1:], align_corners=align_corners)
        cells = (y * classes + predicted).flatten()
        counts = counts.index_add(0, cells, torch.ones_like(cells))
    return counts.view(classes + 1, classes)[:classes].clone()


def sample(
    n: int = 2,
    c: int = 19,
    h: int = 3,
    w: int = 4,
    height: int = 7,
    width: int = 21,
    ignored: float = 0.1,
    label_dtype: torch.dtype = torch.int64,
    scale: float = 3.0,
    offset: float = 0.0,
    blocks: int = 1,
) -> dict[str, Any]:
    """Random arguments, constant over ``blocks`` x ``blocks`` input points."""
    grid = torch.randn(n, c, -(-h // blocks), -(-w // blocks))
    logits = grid.repeat_interleave(blocks, 2).repeat_interleave(blocks, 3)[:, :, :h, :w]
    labels = F.interpolate(logits, size=(height, width), mode="nearest").argmax(1)
    if blocks == 1:
        labels = torch.randint(0, c, (n, height, width))
    labels[torch.rand(labels.shape) < ignored] = 255
    labels = labels.to(label_dtype)
    return {"logits": offset + scale * logits, "labels": labels, "ignore_index": 255}


def _check(logits: Tensor) -> None:
    check_image("logits", logits)
    check_dtype("logits", logits)
    if logits.shape[1] > MAX_CLASSES:
        raise ValueError(f"logits: {logits.shape[1]} classes, expected at most {MAX_CLASSES}")


def _fake(
    logits: Tensor, labels: Tensor, ignore_index: int, align_corners: bool, backend: str
) -> Tensor:
    """Counts, int64 [C, C]."""
    classes = logits.shape[1]
    return logits.new_zeros((classes, classes), dtype=torch.int64)


def _kernel(
    logits: Tensor, labels: Tensor, ignore_index: int, align_corners: bool, backend: str
) -> Tensor:
    counts = _fake(logits, labels, ignore_index, align_corners, backend)
    if labels.numel():
        resize = axes(logits.shape[2:], labels.shape[1:], align_corners)
        wrong = run(_NAME, backend, logits, labels, ignore_index, *resize, counts)
        check_wrong_label(wrong, labels, logits.shape[1], ignore_index)
    return counts


_op = FusedOp(_NAME, fake=_fake, kernel=_kernel, backends=("cpp", "triton", "cuda"))


def upsample_confusion_matrix(
    logits: Tensor, labels: Tensor, ignore_index: int = 255, *, align_corners: bool = True
) -> Tensor:
    """Counts of (label, prediction), logits upsampled bilinearly.

    The prediction is the class of the largest logit, the first of equals.

    Args:
        logits: [N, C, h, w] class scores, float32, bfloat16 or float16, any memory format.
            float64 is computed by ``reference``.
        labels: [N, H, W] or [N, 1, H, W] class ids, int64, int32 or uint8, on the device of
            ``logits``.
        ignore_index: label of pixels that do not count.
        align_corners: as in ``torch.nn.functional.interpolate``.

    Returns:
        int64 [C, C], rows the label, columns the prediction. Has no gradient.

    A label that is neither ``ignore_index`` nor in [0, C) raises on CPU. On a GPU, raising would
    wait for the device; there its pixel is not counted. Near ties, infinity and NaN are treated as
    in ``upsample_argmax``.

    Deterministic: counts are integers. Nothing is read back to the host.

    Raises:
        ValueError: shapes or devices disagree; C, h or w is 0; C is above 46340; a label is out
            of range.
        TypeError: a dtype other than the above.
        RuntimeError: the requested back end does not run here.
    """
    check_bool("align_corners", align_corners)
    _check(logits)
    labels = checked_labels(labels, "logits", logits)
    backend = _op.choose(logits)
    if backend != "cpp":
        check_label_values(labels, logits.shape[1], ignore_index)
    if backend == "reference":
        return reference(logits.detach(), labels, ignore_index, align_corners=align_corners)
    return _op(logits.detach(), labels.contiguous(), ignore_index, align_corners, backend)
