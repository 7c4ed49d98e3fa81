"""Cross-entropy of small logits against full-size labels, without upsampled logits in memory.

    z   = bilinear(logits, size of labels)                               [N, C, H, W], never stored
    l_p = v_p ((1 - e) w[y_p] (lse_p - z[y_p, p]) + e / C sum_c w[c] (lse_p - z[c, p]))
    lse_p = logsumexp_c z[c, p],    l_p = 0 where y_p is ignored

with class weights w, pixel weights v and label smoothing e. The reduction is one of

    mean: sum_p l_p / sum_p w[y_p] v_p over valid pixels p, or sum_p l_p / (N H W)
    sum:  sum_p l_p
    none: l_p

One pass computes a mean or a sum and its gradient, which needs the same values; the backward only
scales it. With "none", the backward runs the pass for a sum, with the gradients of the losses as
further pixel weights.

Sources: segmentation loss of DeepLab-v2 (arXiv 1606.00915) in the form of AdaptSegNet and ADVENT,
which upsample the logits first; class weights and label smoothing as in
``torch.nn.functional.cross_entropy``; the mean over all pixels is the default of mmsegmentation.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gioada_fast.ops._bilinear import axes
from gioada_fast.ops._checks import (
    REDUCTIONS,
    check_bool,
    check_choice,
    check_constant,
    check_dtype,
    check_image,
    check_label_values,
    check_wrong_label,
    checked_labels,
    checked_pixel_weight,
)
from gioada_fast.ops._native import run
from gioada_fast.ops._registry import FusedOp, empty_gradient, loss_gradient

MEANS_OVER = ("valid", "all")

_NAME = "upsample_cross_entropy"


def reference(
    logits: Tensor,
    labels: Tensor,
    ignore_index: int = 255,
    weight: Tensor | None = None,
    *,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    pixel_weight: Tensor | None = None,
    align_corners: bool = True,
    mean_over: str = "valid",
) -> Tensor:
    """The op in plain PyTorch; arguments as for ``upsample_cross_entropy``."""
    classes, size = logits.shape[1], labels.shape[1:]
    if labels.numel() == 0:
        z = logits.sum() * logits.new_zeros(labels.shape[0], classes, *size)
    else:
        z = F.interpolate(logits, size=size, mode="bilinear", align_corners=align_corners)
    z = z if z.dtype == torch.float64 else z.float()
    y = labels.long()
    valid = (y != ignore_index) & (y >= 0) & (y < classes)
    w = z.new_ones(classes) if weight is None else weight.to(z.dtype)
    v = z.new_ones(y.shape) if pixel_weight is None else pixel_weight.reshape(y.shape).to(z.dtype)
    losses = F.cross_entropy(
        z,
        y.masked_fill(~valid, -100),
        w,
        ignore_index=-100,
        reduction="none",
        label_smoothing=label_smoothing,
    )
    # Masked before it is multiplied: 0 times NaN would be NaN.
    v = v.masked_fill(~valid, 0)
    losses = losses * v
    if reduction == "none":
        return losses
    loss = losses.sum()
    if reduction == "sum":
        return loss
    if mean_over == "all":
        return loss / max(y.numel(), 1)
    total = (w[y.masked_fill(~valid, 0)] * v).sum()
    return loss * torch.where((total != 0) | (loss != 0), 1 / total, 0)


def sample(
    n: int = 2,
    c: int = 19,
    h: int = 3,
    w: int = 4,
    height: int = 7,
    width: int = 21,
    ignored: float = 0.1,
    label_dtype: torch.dtype = torch.int64,
    weighted: bool = True,
    pixel_weighted: bool = True,
    scale: float = 3.0,
) -> dict[str, Any]:
    """Random arguments; pixel weights are NaN where the label is ignored."""
    logits = (scale * torch.randn(n, c, h, w)).requires_grad_()
    labels = torch.randint(0, c, (n, height, width))
    labels[torch.rand(labels.shape) < ignored] = 255
    weight = torch.rand(c) if weighted else None
    pixel_weight = None
    if pixel_weighted:
        pixel_weight = torch.rand(labels.shape).masked_fill(labels == 255, float("nan"))
    return {
        "logits": logits,
        "labels": labels.to(label_dtype),
        "ignore_index": 255,
        "weight": weight,
        "pixel_weight": pixel_weight,
    }


def _check(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    reduction: str,
    label_smoothing: float,
    mean_over: str,
) -> None:
    check_image("logits", logits)
    check_dtype("logits", logits)
    if labels.is_floating_point():
        raise TypeError(
            f"labels: {labels.dtype} {list(labels.shape)}, expected class ids: this loss does not "
            "take probabilities of classes"
        )
    if weight is not None:
        if weight.shape != (logits.shape[1],):
            raise ValueError(
                f"weight: {list(weight.shape)}, expected [C] with C = {logits.shape[1]}"
            )
        check_constant("weight", weight, "logits", logits)
    check_choice("reduction", reduction, REDUCTIONS)
    check_choice("mean_over", mean_over, MEANS_OVER)
    if mean_over == "all" and reduction != "mean":
        raise ValueError(f"mean_over is 'all', but reduction is {reduction!r}, expected 'mean'")
    if not isinstance(label_smoothing, int | float | torch.SymFloat):
        raise TypeError(f"label_smoothing is {label_smoothing!r}, expected a number")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing is {label_smoothing}, expected a number in [0, 1]")


def _fake(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    pixel_weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    reduction: str,
    mean_over: str,
    align_corners: bool,
    wants_grad: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Loss and its gradient in float32: channels-last, or empty if not needed."""
    shape = labels.shape if reduction == "none" else ()
    return logits.new_empty(shape, dtype=torch.float32), empty_gradient(logits, wants_grad)


def _kernel(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    pixel_weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    reduction: str,
    mean_over: str,
    align_corners: bool,
    wants_grad: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    shape = labels.shape if reduction == "none" else ()
    loss = logits.new_empty(shape, dtype=torch.float32)
    grad = empty_gradient(logits, wants_grad)
    if labels.numel() == 0:
        return loss.zero_(), grad.zero_()
    wrong = run(
        _NAME,
        backend,
        logits,
        labels,
        weight,
        pixel_weight,
        ignore_index,
        label_smoothing,
        reduction,
        mean_over,
        *axes(logits.shape[2:], labels.shape[1:], align_corners),
        loss,
        grad,
    )
    check_wrong_label(wrong, labels, logits.shape[1], ignore_index)
    return loss, grad


def _gradient_of_each(
    grad_losses: Tensor,
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    pixel_weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    reduction: str,
    mean_over: str,
    align_corners: bool,
    wants_grad: bool,
    backend: str,
) -> Tensor:
    """Gradient of the sum of all losses times ``grad_losses`` [N, H, W]."""
    v = grad_losses if pixel_weight is None else grad_losses * pixel_weight
    _, grad = _op(
        logits,
        labels,
        weight,
        v.contiguous(),
        ignore_index,
        label_smoothing,
        "sum",
        mean_over,
        align_corners,
        True,
        backend,
    )
    return grad


_setup_context, _backward = loss_gradient(_NAME, arguments=11, of_each=_gradient_of_each)
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
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    pixel_weight: Tensor | None = None,
    align_corners: bool = True,
    mean_over: str = "valid",
) -> Tensor:
    """Cross-entropy of bilinearly upsampled logits.

    Equals ``torch.nn.functional.cross_entropy`` of ``torch.nn.functional.interpolate``, whose
    arguments have the same names.

    Args:
        logits: [N, C, h, w] class scores, float32, bfloat16 or float16, any memory format.
            float64 is computed by ``reference``.
        labels: [N, H, W] or [N, 1, H, W] class ids, int64, int32 or uint8, on the device of
            ``logits``.
        ignore_index: label of pixels that do not count: their loss is 0.
        weight: [C] weight of each class, floating point of any sign, or None for ones. Has no
            gradient.
        reduction: "mean", "sum" or "none".
        label_smoothing: in [0, 1], the part of each pixel's label that is spread over all classes.
        pixel_weight: [N, H, W] or [N, 1, H, W] factor of each pixel's loss, floating point of any
            sign, or None for ones. Has no gradient. Values of ignored pixels, even NaN, have no
            effect.
        align_corners: as in ``torch.nn.functional.interpolate``.
        mean_over: what a mean divides by. "valid": the sum of ``weight[label] * pixel_weight`` over
            pixels that are not ignored. "all": the number N H W of all pixels.

    Returns:
        Scalar, or [N, H, W] if ``reduction`` is "none"; float32 (float64 for float64 logits). A
        mean is 0, with gradient 0, when no pixel counts: when the losses and their weights both
        add up to 0. The gradient with respect to ``logits`` has their dtype and is channels-last.

    A label that is neither ``ignore_index`` nor in [0, C) raises on CPU. On a GPU, raising would
    wait for the device; there the kernels return NaN. The reference ignores such labels on a GPU
    and in a compiled graph. Logits that are not finite make the losses of pixels near them NaN or
    infinite, except where the label is ignored, and the gradient NaN.

    Deterministic: every run gives the same bits, for any number of CPU threads. Second derivatives
    are refused; ``reference`` has them.

    Raises:
        ValueError: shapes or devices disagree; C, h or w is 0; a label is out of range; ``weight``
            or ``pixel_weight`` requires a gradient; ``reduction`` or ``mean_over`` is unknown;
            ``mean_over`` is "all" without a mean; ``label_smoothing`` is not in [0, 1].
        TypeError: a dtype other than the above; labels that are probabilities.
        RuntimeError: the requested back end does not run here.
    """
    check_bool("align_corners", align_corners)
    _check(logits, labels, weight, reduction, label_smoothing, mean_over)
    labels = checked_labels(labels, "logits", logits)
    if pixel_weight is not None:
        pixel_weight = checked_pixel_weight(pixel_weight, labels, "logits", logits)
    backend = _op.choose(logits)
    if backend != "cpp":
        check_label_values(labels, logits.shape[1], ignore_index)
    if backend == "reference":
        return reference(
            logits,
            labels,
            ignore_index,
            weight,
            reduction=reduction,
            label_smoothing=label_smoothing,
            pixel_weight=pixel_weight,
            align_corners=align_corners,
            mean_over=mean_over,
        )
    if weight is not None:
        weight = weight.float().contiguous()
    if pixel_weight is not None:
        pixel_weight = pixel_weight.float().contiguous()
    wants_grad = reduction != "none" and logits.requires_grad and torch.is_grad_enabled()
    loss, _ = _op(
        logits,
        labels.contiguous(),
        weight,
        pixel_weight,
        ignore_index,
        label_smoothing,
        reduction,
        mean_over,
        align_corners,
        wants_grad,
        backend,
    )
    return loss
