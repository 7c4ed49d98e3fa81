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

import torch
import torch.nn.functional as F
from torch import Tensor

from gioada_fast.ops._bilinear import axes
from gioada_fast.ops._checks import check_device, check_dtype, check_image
from gioada_fast.ops._native import run
from gioada_fast.ops._registry import FusedOp, empty_gradient, refuse_second_derivative

_NAME = "semantic_depth_concat"


def reference(
    logits: Tensor, depth: Tensor | None, size: tuple[int, int], *, align_corners: bool = True
) -> Tensor:
    """The op in plain PyTorch; arguments as for ``semantic_depth_concat``."""
    resize = functools.partial(
        F.interpolate, size=size, mode="bilinear", align_corners=align_corners
    )
    # As the kernels, in one dtype; CPU autocast cannot concatenate float16.
    with torch.autocast(logits.device.type, enabled=False):
        maps = [F.softmax(resize(logits), dim=1)]
        if depth is not None:
            maps.append(resize(depth))
        joint = torch.cat(maps, dim=1)
    return joint.contiguous(memory_format=torch.channels_last)


def _check(logits: Tensor, depth: Tensor | None, size: tuple[int, int]) -> None:
    check_image("logits", logits)
    check_dtype("logits", logits)
    if not all(isinstance(s, int | torch.SymInt) for s in size):
        raise TypeError(f"size: {tuple(size)}, expected integers (H, W)")
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size: {tuple(size)}, expected (H, W), both at least 1")
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


def _fake(
    logits: Tensor,
    depth: Tensor | None,
    height: int,
    width: int,
    align_corners: bool,
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
    backend: str,
) -> Tensor:
    out = _fake(logits, depth, height, width, align_corners, backend)
    if out.numel():
        resize = axes(logits.shape[2:], (height, width), align_corners)
        run(_NAME, backend, logits, depth, *resize, out)
    return out


def _backward_fake(
    grad: Tensor,
    logits: Tensor,
    align_corners: bool,
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
    wants_logits: bool,
    wants_depth: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    grads = _backward_fake(grad, logits, align_corners, wants_logits, wants_depth, backend)
    if grad.numel():
        resize = axes(logits.shape[2:], grad.shape[2:], align_corners)
        run(f"{_NAME}_backward", backend, grad, logits, *resize, *grads)
    return grads


def _setup_context(ctx, inputs: tuple, output: Tensor) -> None:
    logits, _, _, _, ctx.align_corners, ctx.backend = inputs
    ctx.save_for_backward(logits)


def _backward(ctx, grad: Tensor) -> tuple:
    refuse_second_derivative(_NAME)
    (logits,) = ctx.saved_tensors
    needed = ctx.needs_input_grad[:2]
    grads = _backward_op(grad, logits, ctx.align_corners, *needed, ctx.backend)
    each = (g.to(logits.dtype) if n else None for g, n in zip(grads, needed, strict=True))
    return *each, None, None, None, None


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
    logits: Tensor, depth: Tensor | None, size: tuple[int, int], *, align_corners: bool = True
) -> Tensor:
    """Joint output map seen by the output discriminator: class probabilities and depth, full size.

    Args:
        logits: [N, C, h, w] class scores, float32 or bfloat16, any memory format. float64 is
            computed by ``reference``.
        depth: [N, 1, h, w] predicted encoded depth, dtype and device of ``logits``, or None for
            semantics alone.
        size: (H, W) of the result.
        align_corners: as in ``torch.nn.functional.interpolate``.

    Returns:
        [N, C + 1, H, W] in the dtype of ``logits``, channels-last: softmax over the classes of the
        upsampled logits, then the upsampled depth (bilinear). [N, C, H, W]
        without depth. Gradients with respect to ``logits`` and ``depth`` are channels-last, summed
        in float32 for any dtype.

    A logit that is not finite makes all classes NaN at the pixels around it.

    Deterministic: every run gives the same bits, for any number of CPU threads. Second derivatives
    are refused; ``reference`` has them.

    Raises:
        ValueError: shapes or devices disagree, C, h or w is 0, or ``size`` is smaller than 1 pixel.
        TypeError: a dtype other than the above, or two different ones.
        RuntimeError: the requested back end does not run here.
    """
    _check(logits, depth, size)
    backend = _op.choose(logits)
    if backend == "reference":
        return reference(logits, depth, size, align_corners=align_corners)
    return _op(logits, depth, *size, align_corners, backend)
