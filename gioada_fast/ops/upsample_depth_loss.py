"""Loss of small depth maps against full-size targets, without upsampled depth in memory.

    z    = bilinear(depth, size of target)                                [N, 1, H, W], never stored
    e    = z - target; log(z) - log(target) for silog
    f(e) = |e|                                                                          for l1
    f(e) = |e| up to c, (e^2 + c^2) / 2c above, c = max_p |e_p| / 5                     for berhu
    f(e) = e^2                                                                          for l2
    loss = sum_p w_p f(e_p) / sum_p w_p, over valid pixels p with weights w (default 1)
    loss = mean(e^2) - silog_lambda mean(e)^2, with weighted means as above             for silog

The reduction "sum" leaves out the division; "none" returns w f(e), 0 at invalid pixels.

One pass computes the loss and its gradient, which needs the same values; the backward only scales
it. With the reduction "none", the gradient takes a pass in the backward. c is a constant in the
gradient; berhu needs one more pass to find it, silog to find mean(e).

Source: berHu from Laina et al. (arXiv 1606.00373), with one c for the whole batch; silog, the
scale-invariant logarithmic error, from Eigen et al. (arXiv 1406.2283), over the whole batch.
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
    check_device,
    check_dtype,
    check_image,
    checked_pixel_weight,
)
from gioada_fast.ops._native import run
from gioada_fast.ops._registry import FusedOp, empty_gradient, loss_gradient

KINDS = ("l1", "berhu", "l2", "silog")

_NAME = "upsample_depth_loss"


def reference(
    depth: Tensor,
    target: Tensor,
    kind: str = "l1",
    valid: Tensor | None = None,
    *,
    reduction: str = "mean",
    pixel_weight: Tensor | None = None,
    align_corners: bool = True,
    silog_lambda: float = 0.5,
) -> Tensor:
    """The op in plain PyTorch; arguments as for ``upsample_depth_loss``."""
    depth = depth if depth.dtype == torch.float64 else depth.float()
    if target.numel() == 0:
        return depth[:0].sum() + depth.new_zeros(target.shape if reduction == "none" else ())
    z = F.interpolate(depth, size=target.shape[2:], mode="bilinear", align_corners=align_corners)
    target = target.to(z.dtype)
    weight = torch.ones_like(z)
    if pixel_weight is not None:
        weight = pixel_weight.to(z.dtype).reshape(z.shape)
    if valid is not None:
        # Masked before further arithmetic: 0 times the slope of a NaN error is a NaN gradient.
        z, target, weight = z.where(valid, 1.0), target.where(valid, 1.0), weight.where(valid, 0.0)
    if kind == "silog":
        error = z.log() - target.log()
        mean = _mean(weight * error, weight)
        return _mean(weight * error.square(), weight) - silog_lambda * mean.square()
    loss = error = (z - target).abs()
    if kind == "berhu":
        c = (error.detach().amax() / 5).clamp_min(torch.finfo(error.dtype).tiny)
        loss = torch.where(error <= c, error, (error.square() + c.square()) / (2 * c))
    elif kind == "l2":
        loss = error.square()
    if reduction == "none":
        return weight * loss
    return (weight * loss).sum() if reduction == "sum" else _mean(weight * loss, weight)


def sample(
    n: int = 2,
    h: int = 3,
    w: int = 4,
    height: int = 7,
    width: int = 21,
    kind: str = "berhu",
    invalid: float = 0.1,
) -> dict[str, Any]:
    """Random arguments; the target is NaN where it is not valid.

    All values are positive for silog. For the other kinds, no error is close to 0, where the slope
    jumps and rounding could flip its sign.
    """
    error = torch.randn(n, 1, height, width)
    resize: dict[str, Any] = dict(size=(height, width), mode="bilinear", align_corners=True)
    if kind == "silog":
        depth = 0.5 + torch.rand(n, 1, h, w)
        target = F.interpolate(depth, **resize) * error.exp()
    else:
        depth = torch.randn(n, 1, h, w)
        target = F.interpolate(depth, **resize) + error + 0.1 * error.sign()
    valid = torch.rand(target.shape) >= invalid if invalid else None
    if valid is not None:
        target[~valid] = float("nan")
    return {"depth": depth.requires_grad_(), "target": target, "kind": kind, "valid": valid}


def _mean(losses: Tensor, weight: Tensor) -> Tensor:
    """Sum of the losses / sum of their weights; 0, with gradient 0, if both sums are 0."""
    loss, total = losses.sum(), weight.sum()
    counts = (total != 0) | (loss != 0)
    return loss * torch.where(counts, 1 / torch.where(counts, total, 1.0), 0.0)


def _check(
    depth: Tensor,
    target: Tensor,
    kind: str,
    valid: Tensor | None,
    reduction: str,
    silog_lambda: float,
) -> None:
    check_choice("kind", kind, KINDS)
    check_choice("reduction", reduction, REDUCTIONS)
    if kind == "silog" and reduction != "mean":
        raise ValueError(f"reduction is {reduction!r}, but silog has only the mean over all pixels")
    if not 0 <= silog_lambda <= 1:
        raise ValueError(f"silog_lambda is {silog_lambda}, expected a number from 0 to 1")
    check_image("depth", depth, channels=1)
    check_dtype("depth", depth)
    if target.dim() != 4 or target.shape[:2] != depth.shape[:2]:
        raise ValueError(
            f"target: {list(target.shape)}, expected [N, 1, H, W] with N = {depth.shape[0]} "
            f"as in depth {list(depth.shape)}"
        )
    exact = (torch.float64,) if depth.dtype == torch.float64 else ()
    check_dtype("target", target, (torch.float32, torch.bfloat16, torch.float16, *exact))
    check_device("target", target, "depth", depth)
    if target.requires_grad:
        raise ValueError("target requires a gradient, which this loss does not have")
    if valid is not None:
        if valid.shape != target.shape:
            raise ValueError(f"valid: {list(valid.shape)}, expected {list(target.shape)} as target")
        check_dtype("valid", valid, (torch.bool,))
        check_device("valid", valid, "depth", depth)


def _fake(
    depth: Tensor,
    target: Tensor,
    valid: Tensor | None,
    pixel_weight: Tensor | None,
    kind: str,
    reduction: str,
    silog_lambda: float,
    align_corners: bool,
    wants_grad: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Loss and its gradient in float32: channels-last, or empty if not needed here."""
    shape = target.shape if reduction == "none" else ()
    loss = depth.new_empty(shape, dtype=torch.float32)
    return loss, empty_gradient(depth, wants_grad and reduction != "none")


def _kernel(
    depth: Tensor,
    target: Tensor,
    valid: Tensor | None,
    pixel_weight: Tensor | None,
    kind: str,
    reduction: str,
    silog_lambda: float,
    align_corners: bool,
    wants_grad: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    tensors = depth, target, valid, pixel_weight
    options = kind, reduction, silog_lambda
    loss, grad = _fake(*tensors, *options, align_corners, wants_grad, backend)
    if target.numel() == 0:
        return loss.zero_(), grad.zero_()
    resize = axes(depth.shape[2:], target.shape[2:], align_corners)
    run(_NAME, backend, *tensors, *options, *resize, loss, grad)
    return loss, grad


def _gradient_of_each(
    grad_losses: Tensor,
    depth: Tensor,
    target: Tensor,
    valid: Tensor | None,
    pixel_weight: Tensor | None,
    kind: str,
    reduction: str,
    silog_lambda: float,
    align_corners: bool,
    wants_grad: bool,
    backend: str,
) -> Tensor:
    """Gradient of the sum of all losses times ``grad_losses`` [N, 1, H, W]."""
    weight = grad_losses if pixel_weight is None else pixel_weight * grad_losses
    tensors = depth.detach(), target, valid, weight.contiguous()
    _, grad = _op(*tensors, kind, "sum", silog_lambda, align_corners, True, backend)
    return grad


_setup_context, _backward = loss_gradient(_NAME, arguments=10, of_each=_gradient_of_each)
_op = FusedOp(
    _NAME,
    fake=_fake,
    kernel=_kernel,
    backends=("cpp", "triton", "cuda"),
    setup_context=_setup_context,
    backward=_backward,
)


def upsample_depth_loss(
    depth: Tensor,
    target: Tensor,
    kind: str = "l1",
    valid: Tensor | None = None,
    *,
    reduction: str = "mean",
    pixel_weight: Tensor | None = None,
    align_corners: bool = True,
    silog_lambda: float = 0.5,
) -> Tensor:
    """Error of bilinearly upsampled depth over valid pixels.

    Args:
        depth: [N, 1, h, w] prediction, float32, bfloat16 or float16, any memory format. float64 is
            computed by ``reference``.
        target: [N, 1, H, W], float32, bfloat16 or float16, on the device of ``depth``; float64 with
            float64 depth. Has no gradient. Values of invalid pixels, even NaN, have no effect.
        kind: "l1": |e|. "berhu": |e| up to c, (e^2 + c^2) / 2c above, where c is a fifth of the
            largest valid |e| of the batch, whatever its weight, and constant in the gradient.
            "l2": e^2. "silog": mean(d^2) - silog_lambda mean(d)^2, where d is the difference of the
            logarithms of depth, once upsampled, and target; for positive (metric) depth.
        valid: [N, 1, H, W] bool, the pixels that count, or None for all.
        reduction: "mean": the sum over the valid pixels / the sum of their weights. "sum", or
            "none": the loss of every pixel, 0 if it is invalid. "silog" has only "mean".
        pixel_weight: [N, 1, H, W] or [N, H, W], factors of the pixels' losses, of any sign and any
            floating-point dtype (computed in float32), or None for 1. Has no gradient.
        align_corners: as in ``torch.nn.functional.interpolate``.
        silog_lambda: from 0 (error of the logarithms) to 1 (their variance: a factor of the whole
            prediction has no effect). Eigen et al. use 0.5.

    Returns:
        Scalar float32, or [N, 1, H, W] float32 for the reduction "none" (float64 for float64
        depth). A mean is 0, with gradient 0, when no pixel counts: the sums of losses and of
        weights are 0. The gradient with respect to ``depth`` has its dtype and is channels-last.

    If depth or a valid target is not finite, the loss is NaN or infinite; for silog, also if one of
    them is not positive. The gradient of an error of 0 is 0 for the other kinds.

    Deterministic: every run gives the same bits, for any number of CPU threads. Second derivatives
    are refused; ``reference`` has them.

    Raises:
        ValueError: shapes or devices disagree, h or w is 0, ``target`` or ``pixel_weight`` requires
            a gradient, ``kind`` or ``reduction`` is unknown, silog with another reduction than
            "mean", or ``silog_lambda`` is outside [0, 1].
        TypeError: a dtype other than the above.
        RuntimeError: the requested back end does not run here.
    """
    check_bool("align_corners", align_corners)
    _check(depth, target, kind, valid, reduction, silog_lambda)
    if pixel_weight is not None:
        pixel_weight = checked_pixel_weight(pixel_weight, target, "depth", depth)
    backend = _op.choose(depth)
    if backend == "reference":
        return reference(
            depth,
            target,
            kind,
            valid,
            reduction=reduction,
            pixel_weight=pixel_weight,
            align_corners=align_corners,
            silog_lambda=silog_lambda,
        )
    if valid is not None:
        valid = valid.contiguous()
    if pixel_weight is not None:
        pixel_weight = pixel_weight.float().contiguous()
    wants_grad = depth.requires_grad and torch.is_grad_enabled()
    tensors = depth, target.contiguous(), valid, pixel_weight
    loss, _ = _op(*tensors, kind, reduction, silog_lambda, align_corners, wants_grad, backend)
    return loss
