"""Cross-entropy of small logits against full-size labels, without upsampled logits in memory.

    z    = bilinear(logits, size of labels)                              [N, C, H, W], never stored
    loss = sum_p w[y_p] (logsumexp_c z[c, p] - z[y_p, p]) / sum_p w[y_p]        over valid pixels p

One pass computes the loss and its gradient ``w[y_p] (softmax_c z - [c = y_p]) / sum w``, which
needs the same values; the backward only scales it.

Sources: segmentation loss of DeepLab-v2 (arXiv 1606.00915) in the form of AdaptSegNet and ADVENT,
which upsample the logits first; class weights as in ``torch.nn.functional.cross_entropy``.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from gioada_fast.ops._bilinear import axes
from gioada_fast.ops._checks import (
    check_constant,
    check_dtype,
    check_image,
    check_label_values,
    check_wrong_label,
    checked_labels,
)
from gioada_fast.ops._native import run
from gioada_fast.ops._registry import FusedOp, empty_gradient, loss_gradient

_NAME = "upsample_cross_entropy"


def reference(
    logits: Tensor,
    labels: Tensor,
    ignore_index: int = 255,
    weight: Tensor | None = None,
    *,
    align_corners: bool = True,
) -> Tensor:
    """The op in plain PyTorch; arguments as for ``upsample_cross_entropy``."""
    if labels.numel() == 0:
        return logits.sum() * 0.0
    classes = logits.shape[1]
    z = F.interpolate(logits, size=labels.shape[1:], mode="bilinear", align_corners=align_corners)
    z = z if z.dtype == torch.float64 else z.float()
    y = labels.long()
    y = y.masked_fill((y == ignore_index) | (y < 0) | (y >= classes), -100)
    w = z.new_ones(classes) if weight is None else weight.to(z.dtype)
    loss = F.cross_entropy(z, y, w, ignore_index=-100, reduction="sum")
    total = (w[y.clamp(min=0)] * (y >= 0)).sum()
    return loss * torch.where(total > 0, 1 / total, 0)


def _check(logits: Tensor, weight: Tensor | None) -> None:
    check_image("logits", logits)
    check_dtype("logits", logits)
    if weight is not None:
        if weight.shape != (logits.shape[1],):
            raise ValueError(
                f"weight: {list(weight.shape)}, expected [C] with C = {logits.shape[1]}"
            )
        check_constant("weight", weight, "logits", logits)


def _fake(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    align_corners: bool,
    wants_grad: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Loss and its gradient in float32: channels-last, or empty if not needed."""
    return logits.new_empty((), dtype=torch.float32), empty_gradient(logits, wants_grad)


def _kernel(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    align_corners: bool,
    wants_grad: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    loss, grad = _fake(logits, labels, weight, ignore_index, align_corners, wants_grad, backend)
    if labels.numel() == 0:
        return loss.zero_(), grad.zero_()
    resize = axes(logits.shape[2:], labels.shape[1:], align_corners)
    wrong = run(_NAME, backend, logits, labels, weight, ignore_index, *resize, loss, grad)
    check_wrong_label(wrong, labels, logits.shape[1], ignore_index)
    return loss, grad


_setup_context, _backward = loss_gradient(_NAME, arguments=7)
_op = FusedOp(
    _NAME,
    fake=_fake,
    kernel=_kernel,
    backends=("cpp", "triton", "cuda"),
    setup_context=_setup_context,
    backward=_backward,
)


def upsample_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    ignore_index: int = 255,
    weight: Tensor | None = None,
    *,
    align_corners: bool = True,
) -> Tensor:
    """Mean cross-entropy of bilinearly upsampled logits over valid pixels.

    Args:
        logits: [N, C, h, w] class scores, float32, bfloat16 or float16, any memory format.
            float64 is computed by ``reference``.
        labels: [N, H, W] or [N, 1, H, W] class ids, int64, int32 or uint8, on the device of
            ``logits``.
        ignore_index: label of pixels that do not count.
        weight: [C] weight of each class, floating point, or None for ones. Has no gradient.
        align_corners: as in ``torch.nn.functional.interpolate``.

    Returns:
        Scalar float32 (float64 for float64 logits). 0, with gradient 0, when no pixel counts. The
        gradient with respect to ``logits`` has their dtype and is channels-last.

    A label that is neither ``ignore_index`` nor in [0, C) raises on CPU. On a GPU, raising would
    wait for the device; there the kernels return NaN. The reference ignores such labels on a GPU
    and in a compiled graph. Logits that are not finite make the loss NaN or infinite.

    Deterministic: every run gives the same bits, for any number of CPU threads. Second derivatives
    are refused; ``reference`` has them.

    Raises:
        ValueError: shapes or devices disagree; C, h or w is 0; a label is out of range; ``weight``
            requires a gradient.
        TypeError: a dtype other than the above.
        RuntimeError: the requested back end does not run here.
    """
    _check(logits, weight)
    labels = checked_labels(labels, "logits", logits)
    backend = _op.choose(logits)
    if backend != "cpp":
        check_label_values(labels, logits.shape[1], ignore_index)
    if backend == "reference":
        return reference(logits, labels, ignore_index, weight, align_corners=align_corners)
    if weight is not None:
        weight = weight.float().contiguous()
    wants_grad = logits.requires_grad and torch.is_grad_enabled()
    loss, _ = _op(
        logits, labels.contiguous(), weight, ignore_index, align_corners, wants_grad, backend
    )
    return loss
