"""Shared by the Triton kernels: the device of a launch, bilinear resizing, sums of losses.

The upsampling kernels write partial sums over pixels. ``total_kernel`` combines those of the loss
to a mean or a sum, ``launch_gradient`` those of the gradient to the gradient of the input.
"""

import contextlib

import torch
import triton
import triton.language as tl
from torch import Tensor

GRADIENT_BLOCK = 1024  # elements per program of gradient_kernel


def on_device_of(tensor: Tensor) -> contextlib.AbstractContextManager:
    """Context in which kernels are launched on the tensor's device."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()


# An axis of a resize is the tuple Axis of ops/_bilinear.py: size_in, size_out, step, offset, unit.


@triton.jit
def cell_count(axis):
    return tl.maximum(axis[0] - 1, 1)


@triton.jit
def cell_begin(cell, axis):
    # First output index of a cell; see Axis::begin_of in csrc/common.h.
    _, size_out, step, offset, unit = axis
    distance = tl.maximum(cell.to(tl.int64) * unit - offset, 0)
    begin = tl.minimum((distance + step - 1) // tl.maximum(step, 1), size_out)
    at_end = (cell >= cell_count(axis)) | ((step == 0) & (cell > 0))
    return tl.where(cell <= 0, 0, tl.where(at_end, size_out, begin)).to(tl.int32)


@triton.jit
def cell_of(index, axis):
    # Cell of an output index; see Axis::cell_of in csrc/common.h.
    size_in, _, step, offset, unit = axis
    cell = tl.maximum(index.to(tl.int64) * step + offset, 0) // unit
    return tl.maximum(tl.minimum(cell, size_in - 2), 0).to(tl.int32)


@triton.jit
def frac_of(index, cell, axis):
    # Weight of input point cell + 1, from 0 to 1.
    size_in, _, step, offset, unit = axis
    position = index.to(tl.int64) * step + offset
    rest = tl.minimum(tl.maximum(position - cell.to(tl.int64) * unit, 0), unit)
    return tl.where(size_in == 1, 0.0, rest.to(tl.float32) / tl.cast(unit, tl.float32))


@triton.jit
def total_kernel(
    sums,  # [programs, 2]: loss, weight
    programs,
    loss,  # [1]
    scale,  # [1]: written if REDUCTION is mean; see loss_scale in csrc/reduction.h
    REDUCTION: tl.constexpr,
    BLOCK: tl.constexpr,
):
    losses = tl.zeros([BLOCK], tl.float64)
    weights = tl.zeros([BLOCK], tl.float64)
    start = 0
    while start < programs:
        i = start + tl.arange(0, BLOCK)
        losses += tl.load(sums + 2 * i, mask=i < programs, other=0.0).to(tl.float64)
        weights += tl.load(sums + 2 * i + 1, mask=i < programs, other=0.0).to(tl.float64)
        start += BLOCK
    total = tl.sum(losses)
    if REDUCTION == "mean":
        weight = tl.sum(weights)
        counts = (weight != 0) | (total != 0)
        factor = tl.where(counts, 1.0 / tl.where(counts, weight, 1.0), 0.0)
        tl.store(loss, (total * factor).to(tl.float32))
        tl.store(scale, factor.to(tl.float32))
    else:
        tl.store(loss, total.to(tl.float32))


@triton.jit
def gradient_kernel(
    partial,  # [N, cells, 4 corners, channels]
    scale,  # [1] factor, read if HAS_SCALE
    grad,  # [N, h, w, C]: channels [first, first + C) of partial
    elements,
    channels,
    first,
    C,
    h,
    w,
    HAS_SCALE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    c = i % C + first
    x = i // C % w
    y = i // (C * w) % h
    n = i // (C * w * h)
    cells_x = tl.maximum(w - 1, 1)
    cells_y = tl.maximum(h - 1, 1)
    total = tl.zeros([BLOCK], tl.float32)
    for corner in tl.static_range(4):
        # The point is this corner of the cell corner // 2 rows above and corner % 2 to the left.
        cell_y = y - corner // 2
        cell_x = x - corner % 2
        exists = (cell_y >= 0) & (cell_y < cells_y) & (cell_x >= 0) & (cell_x < cells_x)
        cell = (n * cells_y + cell_y) * cells_x + cell_x
        at = partial + (cell * 4 + corner) * channels + c
        total += tl.load(at, mask=exists & (i < elements), other=0.0)
    if HAS_SCALE:
        total *= tl.load(scale)
    tl.store(grad + i, total, mask=i < elements)


def launch_gradient(
    partial: Tensor,
    grad: Tensor,
    scale: Tensor | None = None,
    channels: int | None = None,
    first: int = 0,
) -> None:
    """Fill ``grad`` [N, C, h, w], float32 and channels-last, from partial sums of its cells.

    Args:
        partial: [N, cells, 4 corners, channels].
        grad: channels [first, first + C) of ``partial``; at least one element.
        scale: [1] factor of the gradient, or None.
        channels: number of channels of ``partial``; C by default.
    """
    _, c, h, w = grad.shape
    elements = grad.numel()
    gradient_kernel[(triton.cdiv(elements, GRADIENT_BLOCK),)](
        partial,
        partial if scale is None else scale,
        grad,
        elements,
        c if channels is None else channels,
        first,
        c,
        h,
        w,
        HAS_SCALE=scale is not None,
        BLOCK=GRADIENT_BLOCK,
    )
