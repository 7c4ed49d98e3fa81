"""Triton kernels of ``gan_loss``: one launch for all maps, forward and backward.

Maps are passed as a tuple of pointers. The forward has one program for each part of a map. The maps
of our discriminators have one part: its program writes the result.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from gioada_fast.ops.triton._common import on_device_of

BLOCK = 4096
PART = 8 * BLOCK  # logits per program of the forward
WARPS = 16


@triton.jit
def select(map, values):
    # values[map] of a tuple, for an index that is known only at run time.
    chosen = values[0]
    for k in tl.static_range(1, len(values)):
        chosen = tl.where(map == k, values[k], chosen)
    return chosen


@triton.jit
def exp_nonpositive(x):
    # exp(x) for x <= 0, accurate to rounding; NaN stays NaN. On a GPU, tl.exp(x) is exp2 of the
    # rounded x / log(2): at x = -80 its relative error is 3e-6.
    x = tl.where(x < -200.0, -200.0, x)  # exp is 0 there; avoids infinity - infinity
    whole = tl.floor(x * 1.44269504 + 0.5)
    rest = x - whole * 0.693359375  # log(2) in two parts; this product is exact
    rest += whole * 2.12194440e-4
    return tl.exp(rest) * tl.exp2(whole)


@triton.jit
def loss_of(x, real, KIND: tl.constexpr):
    # Comparisons are written so that NaN stays NaN.
    if KIND == "lsgan":
        error = x - real
        return error * error
    v = x - 2.0 * real * x  # -s x
    if KIND == "bce":
        # log(1 + e) as the power series of 2 atanh(e / (2 + e)), accurate even for tiny e
        e = exp_nonpositive(-tl.abs(v))
        z = e / (2.0 + e)
        q = z * z
        p = q * (1.0 / 15) + 1.0 / 13
        p = p * q + 1.0 / 11
        p = p * q + 1.0 / 9
        p = p * q + 1.0 / 7
        p = p * q + 1.0 / 5
        p = p * q + 1.0 / 3
        p = p * q + 1.0
        return tl.where(v < 0.0, 0.0, v) + 2.0 * z * p
    if KIND == "hinge":
        return tl.where(1.0 + v < 0.0, 0.0, 1.0 + v)
    return v


@triton.jit
def gradient_of(x, real, KIND: tl.constexpr):
    if KIND == "lsgan":
        return 2.0 * (x - real)
    sign = 1.0 - 2.0 * real  # -s
    v = sign * x
    if KIND == "bce":
        e = exp_nonpositive(-tl.abs(v))
        return sign * tl.where(v >= 0.0, 1.0, e) / (1.0 + e)
    if KIND == "hinge":
        return tl.where(1.0 + v <= 0.0, 0.0, sign)
    return sign + 0.0 * x


@triton.jit
def loss_kernel(
    logits,  # [maps] pointers
    elements,  # [maps]
    real,  # [maps] 0. or 1.
    partial,  # [maps, parts]: sums of losses / elements
    KIND: tl.constexpr,
    PART: tl.constexpr,
    BLOCK: tl.constexpr,
):
    map = tl.program_id(0)
    part = tl.program_id(1).to(tl.int64)
    x = select(map, logits)
    count = select(map, elements)
    is_real = select(map, real)
    sums = tl.zeros([BLOCK], tl.float32)
    start = part * PART
    end = tl.minimum(start + PART, count)
    while start < end:  # not range(): it fails in Triton's interpreter with NumPy >= 2.4
        i = start + tl.arange(0, BLOCK)
        value = tl.load(x + i, mask=i < end, other=0.0).to(tl.float32)
        sums += tl.where(i < end, loss_of(value, is_real, KIND), 0.0)
        start += BLOCK
    total = tl.sum(sums) / tl.maximum(count, 1).to(tl.float32)
    tl.store(partial + map * tl.num_programs(1) + part, total)


@triton.jit
def backward_kernel(
    logits,  # [maps] pointers
    elements,  # [maps]
    real,  # [maps] 0. or 1.
    grad_loss,  # [maps]
    grad,  # [maps] pointers
    KIND: tl.constexpr,
    BLOCK: tl.constexpr,
):
    map = tl.program_id(0)
    x = select(map, logits)
    g = select(map, grad)
    count = select(map, elements)
    is_real = select(map, real)
    i = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    scale = tl.load(grad_loss + map) / tl.maximum(count, 1).to(tl.float32)
    value = tl.load(x + i, mask=i < count, other=0.0).to(tl.float32)
    gradient = scale * gradient_of(value, is_real, KIND)
    tl.store(g + i, gradient.to(g.dtype.element_ty), mask=i < count)


def launch(logits: list[Tensor], real: list[bool], kind: str, loss: Tensor) -> None:
    """Fill ``loss`` [K] with the mean losses of K contiguous maps."""
    elements = tuple(x.numel() for x in logits)
    parts = max(1, triton.cdiv(max(elements), PART))
    partial = loss.new_empty((len(logits), parts)) if parts > 1 else loss
    with on_device_of(loss):
        loss_kernel[(len(logits), parts)](
            tuple(logits),
            elements,
            tuple(map(float, real)),
            partial,
            KIND=kind,
            PART=PART,
            BLOCK=BLOCK,
            num_warps=WARPS,
        )
    if parts > 1:
        torch.sum(partial, 1, out=loss)


def launch_backward(
    logits: list[Tensor], grad_loss: Tensor, real: list[bool], kind: str, grad: list[Tensor]
) -> None:
    """Fill ``grad``, K gradients of contiguous maps in their dtype; ``grad_loss`` is [K]."""
    elements = tuple(x.numel() for x in logits)
    blocks = triton.cdiv(max(elements), BLOCK)
    if blocks == 0:
        return
    with on_device_of(grad_loss):
        backward_kernel[(len(logits), blocks)](
            tuple(logits),
            elements,
            tuple(map(float, real)),
            grad_loss,
            tuple(grad),
            KIND=kind,
            BLOCK=BLOCK,
            num_warps=WARPS,
        )
