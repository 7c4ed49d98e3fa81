"""Instance norm fused with activation, residual and the next layer's reflection padding.

    z   = (x - mean) / sqrt(var + eps)           mean and var of each image and channel
    out = reflect(act(z) + residual, pad)

    gz  = act'(z) fold(grad)                     fold: sum over a pixel and its copies in the pad
    gx  = (gz - mean(gz) - z mean(gz z)) / sqrt(var + eps)

The forward pass reads x twice and writes the result; the backward pass reads x and the gradient
twice and writes the result. Intermediate values are recomputed, not stored. All tensors stay
channels-last; PyTorch's instance norm and reflection padding convert them.

Sources: instance norm from Ulyanov et al. (arXiv 1607.08022), with the defaults of
``nn.InstanceNorm2d``; activation, residual and padding as in the networks of Johnson et al. (arXiv
1603.08155) and CycleGAN (arXiv 1703.10593).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from gioada_fast.ops._checks import check_choice, check_device, check_dtype, check_image
from gioada_fast.ops._native import run
from gioada_fast.ops._registry import FusedOp, refuse_second_derivative

_NAME = "instance_norm_act"
ACTIVATIONS = ("none", "relu", "leaky_relu")


def reference(
    x: Tensor,
    activation: str = "none",
    negative_slope: float = 0.2,
    residual: Tensor | None = None,
    pad: int = 0,
    eps: float = 1e-5,
) -> Tensor:
    """The op in plain PyTorch; arguments as for ``instance_norm_act``."""
    y = x if x.dtype == torch.float64 else x.float()
    # torch.instance_norm, because F.instance_norm refuses images of one pixel. Flattened, because
    # PyTorch 2.13 on the CPU computes a wrong gradient for a single image if the incoming gradient
    # is channels-last.
    y = torch.instance_norm(y.flatten(2), None, None, None, None, True, 0.0, eps, False)
    y = y.view(x.shape)
    if activation != "none":
        y = F.relu(y) if activation == "relu" else F.leaky_relu(y, negative_slope)
    if residual is not None:
        y = y + residual
    if pad > 0:
        y = F.pad(y, (pad, pad, pad, pad), mode="reflect")
    return y.to(x.dtype).contiguous(memory_format=torch.channels_last)


def _check(x: Tensor, activation: str, residual: Tensor | None, pad: int, eps: float) -> None:
    check_image("x", x)
    check_dtype("x", x)
    check_choice("activation", activation, ACTIVATIONS)
    h, w = x.shape[2:]
    if pad < 0 or pad >= h or pad >= w:
        raise ValueError(f"pad is {pad}, expected 0 <= pad < min(h, w) of x {list(x.shape)}")
    if not eps >= 0:
        raise ValueError(f"eps is {eps}, expected 0 or more")
    if residual is not None:
        if residual.shape != x.shape:
            raise ValueError(f"residual: {list(residual.shape)}, expected {list(x.shape)} as x")
        check_dtype("residual", residual, (x.dtype,))
        check_device("residual", residual, "x", x)


def _empty_image(x: Tensor, pad: int = 0) -> Tensor:
    n, c, h, w = x.shape
    return x.new_empty((n, h + 2 * pad, w + 2 * pad, c)).permute(0, 3, 1, 2)


def _with_dense_rows(residual: Tensor | None) -> Tensor | None:
    """The residual, copied unless its rows are [W, C] in memory, as inside a padded image."""
    if residual is None:
        return None
    _, c, _, w = residual.shape
    _, stride_c, _, stride_w = residual.stride()
    if (c == 1 or stride_c == 1) and (w == 1 or stride_w == c):
        return residual
    return residual.contiguous(memory_format=torch.channels_last)


def _fake(
    x: Tensor,
    residual: Tensor | None,
    negative_slope: float,
    pad: int,
    eps: float,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """The result, and mean and 1 / sqrt(var + eps) [N, C] in float32; x is channels-last."""
    mean, rstd = (x.new_empty(x.shape[:2], dtype=torch.float32) for _ in range(2))
    return _empty_image(x, pad), mean, rstd


def _kernel(
    x: Tensor, residual: Tensor | None, negative_slope: float, pad: int, eps: float, backend: str
) -> tuple[Tensor, Tensor, Tensor]:
    results = _fake(x, residual, negative_slope, pad, eps, backend)
    if x.numel():
        residual = _with_dense_rows(residual)
        run(_NAME, backend, x, residual, negative_slope, pad, eps, *results)
    return results


def _backward_fake(
    grad: Tensor,
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
    negative_slope: float,
    pad: int,
    wants_residual: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Gradients of x and of the residual, empty if not needed; grad and x are channels-last."""
    return _empty_image(x), _empty_image(x) if wants_residual else x.new_empty(0)


def _backward_kernel(
    grad: Tensor,
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
    negative_slope: float,
    pad: int,
    wants_residual: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    results = _backward_fake(grad, x, mean, rstd, negative_slope, pad, wants_residual, backend)
    if x.numel():
        run(f"{_NAME}_backward", backend, grad, x, mean, rstd, negative_slope, pad, *results)
    return results


def _setup_context(ctx, inputs: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, _, ctx.negative_slope, ctx.pad, _, ctx.backend = inputs
    _, mean, rstd = output
    ctx.mark_non_differentiable(mean, rstd)
    ctx.save_for_backward(x, mean, rstd)


def _backward(ctx, grad: Tensor, *_: Tensor) -> tuple:
    refuse_second_derivative(_NAME)
    grad = grad.contiguous(memory_format=torch.channels_last)
    wants_residual = ctx.needs_input_grad[1]
    folds = ctx.pad > 0
    grad_x, grad_residual = _backward_op(
        grad,
        *ctx.saved_tensors,
        ctx.negative_slope,
        ctx.pad,
        wants_residual and folds,
        ctx.backend,
    )
    if not folds:
        grad_residual = grad
    return grad_x, grad_residual if wants_residual else None, None, None, None, None


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


def instance_norm_act(
    x: Tensor,
    activation: str = "none",
    negative_slope: float = 0.2,
    residual: Tensor | None = None,
    pad: int = 0,
    eps: float = 1e-5,
) -> Tensor:
    """Instance norm, then activation, sum with ``residual`` and reflection padding.

    Args:
        x: [N, C, H, W], float32 or bfloat16, any memory format; channels-last is not copied.
            float64 is computed by ``reference``.
        activation: "none", "relu" or "leaky_relu".
        negative_slope: factor of negative values for "leaky_relu".
        residual: [N, C, H, W], dtype and device of ``x``, or None. The interior of a padded
            channels-last tensor, ``y[:, :, 1:-1, 1:-1]``, is read in place.
        pad: pixels added on each side; less than H and W.
        eps: added to the variance, which is biased; 0 or more.

    Returns:
        [N, C, H + 2 pad, W + 2 pad], dtype of ``x``, channels-last, as are the gradients of ``x``
        and ``residual``.

    Statistics and sums are float32 or better. A channel that is constant, as in an image of one
    pixel, is normalised to about 0; its gradient is finite, and 0 for one pixel.

    Deterministic: every run gives the same bits, for any number of CPU threads. Second derivatives
    are refused; ``reference`` has them.

    Raises:
        ValueError: shapes or devices disagree, C, H or W is 0, ``pad`` or ``eps`` is out of range,
            or ``activation`` is unknown.
        TypeError: a dtype other than the above.
        RuntimeError: the requested back end does not run here.
    """
    _check(x, activation, residual, pad, eps)
    backend = _op.choose(x)
    if backend == "reference":
        return reference(x, activation, negative_slope, residual, pad, eps)
    slope = {"none": 1.0, "relu": 0.0, "leaky_relu": float(negative_slope)}[activation]
    x = x.contiguous(memory_format=torch.channels_last)
    out, _, _ = _op(x, residual, slope, pad, float(eps), backend)
    return out
