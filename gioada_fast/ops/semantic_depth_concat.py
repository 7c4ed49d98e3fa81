"""The input of D_out: the task network's class probabilities and depth, concatenated.

    out[:, :C] = softmax_c(z),  z = bilinear(logits, size)
    out[:, C]  = bilinear(depth, size)

Each pixel is computed and written once. The backward recomputes the probabilities p from the small
logits, which is cheaper than storing them, computes

    dz_c = p_c (grad_c - sum_k p_k grad_k)

and sums it to the size of the logits in the same pass. Only ``out`` and its gradient exist in full
size.

Sources: joint output space of GIO-Ada (arXiv 1812.05040), section on output-level adaptation;
semantics alone, without depth, is AdaptSegNet's (arXiv 1802.10349).
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gioada_fast.ops._bilinear import axes
from gioada_fast.ops._checks import check_bool, check_device, check_dtype, check_image
from gioada_fast.ops._native import run
from gioada_fast.ops._registry import FusedOp, empty_gradient, refuse_second_derivative

_NAME = "semantic_depth_concat"


def reference(
    logits: Tensor,
    depth: Tensor | None,
    size: tuple[int, int] | None = None,
    *,
    align_corners: bool = True,
    scale_factor: float | tuple[float, float] | None = None,
) -> Tensor:
    """The op in plain PyTorch; arguments as for ``semantic_depth_concat``."""
    resize = functools.partial(
        F.interpolate,
        size=size,
        scale_factor=scale_factor,
        mode="bilinear",
        align_corners=align_corners,
    )
    # As the kernels, in one dtype; CPU autocast cannot concatenate float16.
    with torch.autocast(logits.device.type, enabled=False):
        maps = [F.softmax(resize(logits), dim=1)]
        if depth is not None:
            maps.append(resize(depth))
        joint = torch.cat(maps, dim=1)
    return joint.contiguous(memory_format=torch.channels_last)


def sample(
    n: int = 2,
    c: int = 19,
    h: int = 3,
    w: int = 4,
    height: int | None = 7,
    width: int | None = 21,
    with_depth: bool = True,
    scale: float = 3.0,
    requires: str = "both",
) -> dict[str, Any]:
    """Random arguments. ``requires`` says which inputs have a gradient: "logits", "depth", "both".

    The size is None if ``height`` is.
    """
    logits = (scale * torch.randn(n, c, h, w)).requires_grad_(requires != "depth")
    depth = torch.randn(n, 1, h, w).requires_grad_(requires != "logits") if with_depth else None
    size = None if height is None else (height, width)
    return {"logits": logits, "depth": depth, "size": size}


def _check(logits: Tensor, depth: Tensor | None) -> None:
    check_image("logits", logits)
    check_dtype("logits", logits)
    if depth is None:
        return
    check_image("depth", depth, channels=1)
    if depth.shape[::2] != logits.shape[::2] or depth.shape[3] != logits.shape[3]:
        raise ValueError(
            f"depth: {list(depth.shape)}, expected batch and size of logits {list(logits.shape)}"
        )
    if depth.dtype != logits.dtype:
        raise TypeError(f"depth: {depth.dtype}, but logits {logits.dtype}")
    check_device("depth", depth, "logits", logits)


def _result_size(
    logits: Tensor,
    size: tuple[int, int] | None,
    scale_factor: float | tuple[float, float] | None,
) -> tuple[tuple[int, int], tuple[float, float] | None]:
    """(H, W) of the result; (vertical, horizontal) factor, or None if ``size`` was given."""
    if (size is None) == (scale_factor is None):
        given = "neither" if size is None else "both"
        raise ValueError(
            f"size: {size}, scale_factor: {scale_factor}, expected one of the two, found {given}"
        )
    if size is not None:
        if not all(isinstance(s, int | torch.SymInt) for s in size):
            raise TypeError(f"size: {tuple(size)}, expected integers (H, W)")
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f"size: {tuple(size)}, expected (H, W), both at least 1")
        return size, None
    assert scale_factor is not None
    factors = scale_factor if isinstance(scale_factor, tuple | list) else (scale_factor,) * 2
    expected = "expected a number or (vertical, horizontal)"
    if not all(isinstance(f, int | float | torch.SymInt | torch.SymFloat) for f in factors):
        raise TypeError(f"scale_factor: {scale_factor}, {expected}")
    if len(factors) != 2 or not all(0 < f < math.inf for f in factors):
        raise ValueError(f"scale_factor: {scale_factor}, {expected}, above 0 and finite")
    vertical, horizontal = float(factors[0]), float(factors[1])
    h, w = logits.shape[2:]
    size = math.floor(h * vertical), math.floor(w * horizontal)
    if min(size) < 1:
        raise ValueError(
            f"scale_factor: {scale_factor} makes {size[0]} x {size[1]} pixels of logits "
            f"{list(logits.shape)}, expected at least 1 x 1"
        )
    return size, (vertical, horizontal)


def _fake(
    logits: Tensor,
    depth: Tensor | None,
    height: int,
    width: int,
    align_corners: bool,
    scale_factor: Sequence[float] | None,
    backend: str,
) -> Tensor:
    """Empty result [N, C (+ 1), H, W], channels-last."""
    n, c = logits.shape[:2]
    channels = c + int(depth is not None)  # torch 2.11 cannot add a bool to a symbolic size
    return logits.new_empty((n, height, width, channels)).permute(0, 3, 1, 2)


def _kernel(
    logits: Tensor,
    depth: Tensor | None,
    height: int,
    width: int,
    align_corners: bool,
    scale_factor: Sequence[float] | None,
    backend: str,
) -> Tensor:
    out = _fake(logits, depth, height, width, align_corners, scale_factor, backend)
    if out.numel():
        resize = axes(logits.shape[2:], (height, width), align_corners, scale_factor)
        run(_NAME, backend, logits, depth, *resize, out)
    return out


def _backward_fake(
    grad: Tensor,
    logits: Tensor,
    align_corners: bool,
    scale_factor: Sequence[float] | None,
    wants_logits: bool,
    wants_depth: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Gradients of logits and depth in float32, channels-last; empty if not needed."""
    return empty_gradient(logits, wants_logits), empty_gradient(logits[:, :1], wants_depth)


def _backward_kernel(
    grad: Tensor,
    logits: Tensor,
    align_corners: bool,
    scale_factor: Sequence[float] | None,
    wants_logits: bool,
    wants_depth: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    grads = _backward_fake(
        grad, logits, align_corners, scale_factor, wants_logits, wants_depth, backend
    )
    if grad.numel():
        resize = axes(logits.shape[2:], grad.shape[2:], align_corners, scale_factor)
        run(f"{_NAME}_backward", backend, grad, logits, *resize, *grads)
    return grads


def _setup_context(ctx, inputs: tuple, output: Tensor) -> None:
    logits, _, _, _, *ctx.options = inputs
    ctx.save_for_backward(logits)


def _backward(ctx, grad: Tensor) -> tuple:
    refuse_second_derivative(_NAME)
    (logits,) = ctx.saved_tensors
    needed = ctx.needs_input_grad[:2]
    *resize, backend = ctx.options
    grads = _backward_op(grad, logits, *resize, *needed, backend)
    each = (g.to(logits.dtype) if n else None for g, n in zip(grads, needed, strict=True))
    return *each, None, None, None, None, None


_backward_op = FusedOp(
    f"{_NAME}_backward",
    fake=_backward_fake,
    kernel=_backward_kernel,
    backends=("cpp", "triton", "cuda"),
)
_op = FusedOp(
    _NAME,
    fake=_fake,
    kernel=_kernel,
    backends=("cpp", "triton", "cuda"),
    setup_context=_setup_context,
    backward=_backward,
)


def semantic_depth_concat(
    logits: Tensor,
    depth: Tensor | None,
    size: tuple[int, int] | None = None,
    *,
    align_corners: bool = True,
    scale_factor: float | tuple[float, float] | None = None,
) -> Tensor:
    """Joint output map seen by the output discriminator: class probabilities and depth, full size.

    Args:
        logits: [N, C, h, w] class scores, float32, bfloat16 or float16, any memory format. float64
            is computed by ``reference``.
        depth: [N, 1, h, w] predicted encoded depth, dtype and device of ``logits``, or None for
            semantics alone.
        size: (H, W) of the result. Give either ``size`` or ``scale_factor``.
        align_corners: as in ``torch.nn.functional.interpolate``.
        scale_factor: H / h and W / w, as one number or as (vertical, horizontal); H and W are
            rounded down. As in ``torch.nn.functional.interpolate`` without
            ``recompute_scale_factor``: if ``align_corners`` is False, the positions of the pixels
            follow from this factor, not from the rounded sizes.

    Returns:
        [N, C + 1, H, W] in the dtype of ``logits``, channels-last: softmax over the classes of the
        upsampled logits, then the upsampled depth (bilinear). [N, C, H, W]
        without depth. Gradients with respect to ``logits`` and ``depth`` are channels-last, summed
        in float32 for any dtype.

    A logit that is not finite makes all classes NaN at the pixels around it.

    Deterministic: every run gives the same bits, for any number of CPU threads. Second derivatives
    are refused; ``reference`` has them.

    Raises:
        ValueError: shapes or devices disagree; C, h or w is 0; ``size`` and ``scale_factor`` are
            both given or both missing; a factor is not above 0; the result is smaller than 1 pixel.
        TypeError: a dtype other than the above, or two different ones; ``size`` or
            ``scale_factor`` are no numbers.
        RuntimeError: the requested back end does not run here.
    """
    check_bool("align_corners", align_corners)
    _check(logits, depth)
    (height, width), factors = _result_size(logits, size, scale_factor)
    backend = _op.choose(logits)
    if backend == "reference":
        return reference(
            logits, depth, size, align_corners=align_corners, scale_factor=scale_factor
        )
    return _op(logits, depth, height, width, align_corners, factors, backend)
