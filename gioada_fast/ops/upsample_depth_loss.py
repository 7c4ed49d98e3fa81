"""Loss of small depth maps against full-size targets, without upsampled depth in memory.

    e    = bilinear(depth, size of target) - target                       [N, 1, H, W], never stored
    loss = sum_p f(e_p) / number of valid pixels                                over valid pixels p
    f(e) = |e|                                                                          for l1
    f(e) = |e| up to c, (e^2 + c^2) / 2c above, c = max_p |e_p| / 5                     for berhu

One pass computes the loss and its gradient ``f'(e)``, which needs the same values; the backward
only scales it. c is a constant in the gradient; berHu needs one more pass to find it.

Source: berHu from Laina et al. (arXiv 1606.00373), with one c for the whole batch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from gioada_fast.ops._bilinear import axes
from gioada_fast.ops._checks import check_choice, check_device, check_dtype, check_image
from gioada_fast.ops._native import run
from gioada_fast.ops._registry import FusedOp, empty_gradient, loss_gradient

KINDS = ("l1", "berhu")

_NAME = "upsample_depth_loss"


def reference(
    depth: Tensor,
    target: Tensor,
    kind: str = "l1",
    valid: Tensor | None = None,
    *,
    align_corners: bool = True,
) -> Tensor:
    """The op in plain PyTorch; arguments as for ``upsample_depth_loss``."""
    depth = depth if depth.dtype == torch.float64 else depth.float()
    if target.numel() == 0:
        return depth[:0].sum()
    valid = torch.ones_like(target, dtype=torch.bool) if valid is None else valid
    z = F.interpolate(depth, size=target.shape[2:], mode="bilinear", align_corners=align_corners)
    # Masked before further arithmetic: 0 times the slope of a NaN error would be a NaN gradient.
    error = torch.where(valid, z - target.to(z.dtype), 0.0).abs()
    if kind == "berhu":
        c = (error.detach().amax() / 5).clamp_min(torch.finfo(error.dtype).tiny)
        error = torch.where(error <= c, error, (error.square() + c.square()) / (2 * c))
    return error.sum() / valid.sum().clamp_min(1)


def _check(depth: Tensor, target: Tensor, kind: str, valid: Tensor | None) -> None:
    check_choice("kind", kind, KINDS)
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
    kind: str,
    align_corners: bool,
    wants_grad: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Loss and its gradient in float32: channels-last, or empty if not needed."""
    return depth.new_empty((), dtype=torch.float32), empty_gradient(depth, wants_grad)


def _kernel(
    depth: Tensor,
    target: Tensor,
    valid: Tensor | None,
    kind: str,
    align_corners: bool,
    wants_grad: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    loss, grad = _fake(depth, target, valid, kind, align_corners, wants_grad, backend)
    if target.numel() == 0:
        return loss.zero_(), grad.zero_()
    resize = axes(depth.shape[2:], target.shape[2:], align_corners)
    run(_NAME, backend, depth, target, valid, kind, *resize, loss, grad)
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


def upsample_depth_loss(
    depth: Tensor,
    target: Tensor,
    kind: str = "l1",
    valid: Tensor | None = None,
    *,
    align_corners: bool = True,
) -> Tensor:
    """Mean L1 or berHu error of bilinearly upsampled depth over valid pixels.

    Args:
        depth: [N, 1, h, w] prediction, float32 or bfloat16, any memory format. float64 is computed
            by ``reference``.
        target: [N, 1, H, W], float32 or bfloat16, on the device of ``depth``; float64 with float64
            depth. Has no gradient. Values of invalid pixels, even NaN, have no effect.
        kind: "l1": |e|. "berhu": |e| up to c, (e^2 + c^2) / 2c above, where c is a fifth of the
            largest valid |e| of the batch and constant in the gradient.
        valid: [N, 1, H, W] bool, the pixels that count, or None for all.
        align_corners: as in ``torch.nn.functional.interpolate``.

    Returns:
        Scalar float32 (float64 for float64 depth). 0, with gradient 0, when no pixel counts. The
        gradient with respect to ``depth`` has its dtype and is channels-last.

    If depth or a valid target is not finite, the loss is NaN or infinite. The gradient of an error
    of 0 is 0.

    Deterministic: every run gives the same bits, for any number of CPU threads. Second derivatives
    are refused; ``reference`` has them.

    Raises:
        ValueError: shapes or devices disagree, h or w is 0, ``target`` requires a gradient, or
            ``kind`` is unknown.
        TypeError: a dtype other than the above.
        RuntimeError: the requested back end does not run here.
    """
    _check(depth, target, kind, valid)
    backend = _op.choose(depth)
    if backend == "reference":
        return reference(depth, target, kind, valid, align_corners=align_corners)
    if valid is not None:
        valid = valid.contiguous()
    wants_grad = depth.requires_grad and torch.is_grad_enabled()
    loss, _ = _op(depth, target.contiguous(), valid, kind, align_corners, wants_grad, backend)
    return loss
