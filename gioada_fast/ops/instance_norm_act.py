"""Instance or group norm fused with activation, residual and the next layer's reflection padding.

    z   = (x - mean) / sqrt(var + eps)           mean and var of each image and group of channels
    a   = z weight + bias                        of each channel
    out = reflect(act(a) + residual, pad)

    ga  = act'(a) fold(grad)                     fold: sum over a pixel and its copies in the pad
    gz  = weight ga
    gx  = (gz - mean(gz) - z mean(gz z)) / sqrt(var + eps)
    gradients of weight and bias: sums of ga z and of ga over images and pixels

The forward pass reads x twice and writes the result; the backward pass reads x and the gradient
twice and writes the result. Intermediate values are recomputed, not stored. All tensors stay
channels-last; PyTorch's instance norm and reflection padding convert them.

Sources: instance norm from Ulyanov et al. (arXiv 1607.08022), with the defaults of
``nn.InstanceNorm2d``; group norm from Wu and He (arXiv 1803.08494); SiLU and GELU from Hendrycks
and Gimpel (arXiv 1606.08415); activation, residual and padding as in the networks of Johnson et al.
(arXiv 1603.08155) and CycleGAN (arXiv 1703.10593).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gioada_fast.ops._checks import check_choice, check_device, check_dtype, check_image
from gioada_fast.ops._native import run
from gioada_fast.ops._registry import FusedOp, refuse_second_derivative

_NAME = "instance_norm_act"
ACTIVATIONS = ("none", "relu", "leaky_relu", "silu", "gelu")
_SLOPES = {"none": 1.0, "relu": 0.0}  # the kernels compute both as leaky_relu


def reference(
    x: Tensor,
    activation: str = "none",
    negative_slope: float = 0.2,
    residual: Tensor | None = None,
    pad: int = 0,
    eps: float = 1e-5,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    groups: int | None = None,
) -> Tensor:
    """The op in plain PyTorch; arguments as for ``instance_norm_act``."""
    y = x if x.dtype == torch.float64 else x.float()
    n, c, h, w = x.shape
    groups = c if groups is None else groups
    # torch.instance_norm, because F.instance_norm refuses images of one pixel. Flattened, because
    # PyTorch 2.13 on the CPU computes a wrong gradient for a single image if the incoming gradient
    # is channels-last. A group is one channel with the pixels of all of its channels.
    y = y.reshape(n, groups, c // groups * h * w)
    y = torch.instance_norm(y, None, None, None, None, True, 0.0, eps, False)
    y = y.view(x.shape)
    if weight is not None:
        y = y * weight.to(y.dtype)[:, None, None]
    if bias is not None:
        y = y + bias.to(y.dtype)[:, None, None]
    if activation == "relu":
        y = F.relu(y)
    elif activation == "leaky_relu":
        y = F.leaky_relu(y, negative_slope)
    elif activation == "silu":
        y = F.silu(y)
    elif activation == "gelu":
        y = F.gelu(y)
    if residual is not None:
        y = y + residual
    if pad > 0:
        y = F.pad(y, (pad, pad, pad, pad), mode="reflect")
    return y.to(x.dtype).contiguous(memory_format=torch.channels_last)


def sample(
    n: int = 2,
    c: int = 19,
    h: int = 4,
    w: int = 5,
    activation: str = "silu",
    pad: int = 1,
    residual: bool = True,
    negative_slope: float = 0.2,
    eps: float = 1e-5,
    affine: str | None = "both",
    groups: int | None = None,
) -> dict[str, Any]:
    """Random arguments. ``affine`` names the parameters: "weight", "bias", "both".

    Without affine parameters and groups, no value is so close to the mean that rounding could flip
    its sign.
    """
    noise = torch.randn(n, c, h, w)
    noise += 0.3 * (noise - noise.mean((2, 3), keepdim=True)).sign()
    scale = torch.linspace(0.5, 2.0, c).view(1, c, 1, 1)
    x = (scale * noise + 3 * torch.randn(1, c, 1, 1)).requires_grad_()
    other = torch.randn(n, c, h, w).requires_grad_() if residual else None
    weight = torch.randn(c).requires_grad_() if affine in ("weight", "both") else None
    bias = torch.randn(c).requires_grad_() if affine in ("bias", "both") else None
    return {
        "x": x,
        "activation": activation,
        "negative_slope": negative_slope,
        "residual": other,
        "pad": pad,
        "eps": eps,
        "weight": weight,
        "bias": bias,
        "groups": groups,
    }


def _check(
    x: Tensor,
    activation: str,
    residual: Tensor | None,
    pad: int,
    eps: float,
    weight: Tensor | None,
    bias: Tensor | None,
    groups: int | None,
) -> None:
    if x.dim() in (3, 5):
        raise ValueError(
            f"x: {list(x.shape)}, expected [N, C, H, W]: reshape x, for example to "
            "[N, C, 1, L] or [N, C, D * H, W]"
        )
    check_image("x", x)
    check_dtype("x", x)
    check_choice("activation", activation, ACTIVATIONS)
    _, c, h, w = x.shape
    if pad < 0 or pad >= h or pad >= w:
        raise ValueError(f"pad is {pad}, expected 0 <= pad < min(h, w) of x {list(x.shape)}")
    if not eps >= 0:
        raise ValueError(f"eps is {eps}, expected 0 or more")
    if residual is not None:
        if residual.shape != x.shape:
            raise ValueError(f"residual: {list(residual.shape)}, expected {list(x.shape)} as x")
        check_dtype("residual", residual, (x.dtype,))
        check_device("residual", residual, "x", x)
    for name, parameter in (("weight", weight), ("bias", bias)):
        if parameter is not None:
            if parameter.shape != (c,):
                raise ValueError(f"{name}: {list(parameter.shape)}, expected [{c}], one a channel")
            check_dtype(name, parameter, tuple({torch.float32: None, x.dtype: None}))
            check_device(name, parameter, "x", x)
    if groups is not None:
        if not isinstance(groups, int | torch.SymInt):
            raise TypeError(f"groups is {groups!r}, expected an int or None")
        if groups < 1 or c % groups != 0:
            raise ValueError(f"groups is {groups}, expected a divisor of the {c} channels of x")


def _empty_image(x: Tensor, pad: int = 0) -> Tensor:
    """Uninitialised channels-last image. Not a view, so that results can be modified in place."""
    n, c, h, w = x.shape
    return torch.empty(
        (n, c, h + 2 * pad, w + 2 * pad),
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last,
    )


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
    weight: Tensor | None,
    bias: Tensor | None,
    activation: str,
    negative_slope: float,
    groups: int,
    pad: int,
    eps: float,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """The result, and mean and 1 / sqrt(var + eps) [N, C] in float32; x is channels-last.

    ``activation`` is "leaky_relu", which includes ReLU and none, "silu" or "gelu". Mean and
    1 / sqrt(var + eps) of a group are repeated for each of its channels.
    """
    mean, rstd = (x.new_empty(x.shape[:2], dtype=torch.float32) for _ in range(2))
    return _empty_image(x, pad), mean, rstd


def _kernel(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    activation: str,
    negative_slope: float,
    groups: int,
    pad: int,
    eps: float,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    results = _fake(
        x, residual, weight, bias, activation, negative_slope, groups, pad, eps, backend
    )
    if x.numel():
        run(
            _NAME,
            backend,
            x,
            _with_dense_rows(residual),
            _dense_float(weight),
            _dense_float(bias),
            activation,
            negative_slope,
            groups,
            pad,
            eps,
            *results,
        )
    return results


def _dense_float(parameter: Tensor | None) -> Tensor | None:
    return None if parameter is None else parameter.float().contiguous()


def _backward_fake(
    grad: Tensor,
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    activation: str,
    negative_slope: float,
    groups: int,
    pad: int,
    wants_residual: bool,
    wants_affine: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, of residual, and of weight and bias [2, C]; those not needed are empty.

    ``grad`` and ``x`` are channels-last. The gradients of weight and bias are float32.
    """
    grad_residual = _empty_image(x) if wants_residual else x.new_empty(0)
    grad_affine = mean.new_empty((2, x.shape[1]) if wants_affine else 0)
    return _empty_image(x), grad_residual, grad_affine


def _backward_kernel(
    grad: Tensor,
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    activation: str,
    negative_slope: float,
    groups: int,
    pad: int,
    wants_residual: bool,
    wants_affine: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    results = _backward_fake(
        grad,
        x,
        mean,
        rstd,
        weight,
        bias,
        activation,
        negative_slope,
        groups,
        pad,
        wants_residual,
        wants_affine,
        backend,
    )
    if x.numel():
        run(
            f"{_NAME}_backward",
            backend,
            grad,
            x,
            mean,
            rstd,
            _dense_float(weight),
            _dense_float(bias),
            activation,
            negative_slope,
            groups,
            pad,
            *results,
        )
    else:
        results[2].zero_()
    return results


def _setup_context(ctx, inputs: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, _, weight, bias, ctx.activation, ctx.negative_slope, ctx.groups, ctx.pad, _, ctx.backend = (
        inputs
    )
    _, mean, rstd = output
    ctx.mark_non_differentiable(mean, rstd)
    ctx.save_for_backward(x, mean, rstd, weight, bias)


def _backward(ctx, grad: Tensor, *_: Tensor) -> tuple:
    refuse_second_derivative(_NAME)
    grad = grad.contiguous(memory_format=torch.channels_last)
    _, wants_residual, wants_weight, wants_bias, *_ = ctx.needs_input_grad
    # Read once: activation checkpointing gives saved tensors a single time.
    saved = ctx.saved_tensors
    weight, bias = saved[3:]
    folds = ctx.pad > 0
    grad_x, grad_residual, grad_affine = _backward_op(
        grad,
        *saved,
        ctx.activation,
        ctx.negative_slope,
        ctx.groups,
        ctx.pad,
        wants_residual and folds,
        wants_weight or wants_bias,
        ctx.backend,
    )
    if not folds:
        grad_residual = grad
    return (
        grad_x,
        grad_residual if wants_residual else None,
        grad_affine[0].to(weight.dtype) if wants_weight else None,
        grad_affine[1].to(bias.dtype) if wants_bias else None,
        *[None] * 6,
    )


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
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    groups: int | None = None,
) -> Tensor:
    """Instance or group norm, then activation, sum with ``residual`` and reflection padding.

    ``reflect(act(F.instance_norm(x, weight=weight, bias=bias, eps=eps)) + residual, pad)``, or with
    ``groups`` ``F.group_norm(x, groups, weight, bias, eps)`` in place of the instance norm.

    Args:
        x: [N, C, H, W], float32, bfloat16 or float16, any memory format; channels-last is not
            copied. float64 is computed by ``reference``.
        activation: "none", "relu", "leaky_relu", "silu" or "gelu" (the exact one, with erf).
        negative_slope: factor of negative values for "leaky_relu".
        residual: [N, C, H, W], dtype and device of ``x``, or None. The interior of a padded
            channels-last tensor, ``y[:, :, 1:-1, 1:-1]``, is read in place.
        pad: pixels added on each side; less than H and W.
        eps: added to the variance, which is biased; 0 or more.
        weight: [C] factor of each normalised channel, float32 or dtype of ``x``, or None.
        bias: [C] summand of each normalised channel, float32 or dtype of ``x``, or None.
        groups: number of groups of C / groups adjacent channels that share mean and variance, for
            group norm; a divisor of C. None: one for each channel, which is instance norm.

    Returns:
        [N, C, H + 2 pad, W + 2 pad], dtype of ``x``, channels-last, as are the gradients of ``x``
        and ``residual``. The gradients of ``weight`` and ``bias`` have their dtypes.

    Statistics and sums are float32 or better. A group that is constant, as in instance norm of an
    image of one pixel, is normalised to about 0; its gradient is finite, and for one pixel about 0
    (0 without ``weight``). There are no running statistics.

    Deterministic: every run gives the same bits, for any number of CPU threads. Second derivatives
    are refused; ``reference`` has them.

    Raises:
        ValueError: shapes or devices disagree, C, H or W is 0, ``x`` is not 4-D, ``pad`` or ``eps``
            is out of range, ``groups`` does not divide C, or ``activation`` is unknown.
        TypeError: a dtype other than the above, or ``groups`` is no integer.
        RuntimeError: the requested back end does not run here.
    """
    _check(x, activation, residual, pad, eps, weight, bias, groups)
    backend = _op.choose(x)
    if backend == "reference":
        return reference(
            x,
            activation,
            negative_slope,
            residual,
            pad,
            eps,
            weight=weight,
            bias=bias,
            groups=groups,
        )
    x = x.contiguous(memory_format=torch.channels_last)
    out, _, _ = _op(
        x,
        residual,
        weight,
        bias,
        "leaky_relu" if activation in _SLOPES else activation,
        float(_SLOPES.get(activation, negative_slope)),
        x.shape[1] if groups is None else groups,
        pad,
        float(eps),
        backend,
    )
    return out
