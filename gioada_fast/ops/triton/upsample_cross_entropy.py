"""Triton kernels of ``upsample_cross_entropy``: one program for each cell of the logits' grid.

The pixels of a cell depend on its four corners. A program sums the corners' gradients over its
pixels; a second kernel sums losses and weights; a third adds up the gradient of each point from the
four cells around it. No atomics: every run gives the same bits.
"""

import triton
import triton.language as tl
from torch import Tensor

from gioada_fast.ops._bilinear import Axis
from gioada_fast.ops.triton._common import (
    cell_begin,
    cell_count,
    frac_of,
    launch_gradient,
    on_device_of,
    total_kernel,
)

ELEMENTS = 1024  # per block [pixels, classes]
TOTAL_BLOCK = 1024


@triton.jit
def cells_kernel(
    logits,  # [N, C, h, w], any strides
    labels,  # [N, H, W]
    weight,  # [C], read if HAS_WEIGHT
    pixel_weight,  # [N, H, W], read if HAS_PIXEL_WEIGHT
    partial,  # [N, cells, 4 corners, C], written if WANTS_GRAD
    losses,  # REDUCTION none: [N, H, W]; else [N, cells, 2]: sums of losses and of weights
    ignore_index,
    label_smoothing,
    C,
    rows,  # Axis
    columns,  # Axis
    stride_n,
    stride_c,
    stride_h,
    stride_w,
    HAS_WEIGHT: tl.constexpr,
    HAS_PIXEL_WEIGHT: tl.constexpr,
    SMOOTH: tl.constexpr,
    REDUCTION: tl.constexpr,
    MEAN_OVER: tl.constexpr,
    WANTS_GRAD: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    program = tl.program_id(0)
    cells_x = cell_count(columns)
    cells_y = cell_count(rows)
    cell_x = program % cells_x
    cell_y = program // cells_x % cells_y
    n = (program // (cells_x * cells_y)).to(tl.int64)

    classes = tl.arange(0, BLOCK_C)
    is_class = classes < C
    right = tl.where(columns[0] > 1, stride_w, 0)
    down = tl.where(rows[0] > 1, stride_h, 0)
    corner = logits + n * stride_n + cell_y.to(tl.int64) * stride_h
    corner += cell_x.to(tl.int64) * stride_w + classes.to(tl.int64) * stride_c
    z00 = tl.load(corner, mask=is_class, other=0.0).to(tl.float32)
    z01 = tl.load(corner + right, mask=is_class, other=0.0).to(tl.float32)
    z10 = tl.load(corner + down, mask=is_class, other=0.0).to(tl.float32)
    z11 = tl.load(corner + down + right, mask=is_class, other=0.0).to(tl.float32)

    if SMOOTH:
        if HAS_WEIGHT:
            w = tl.load(weight + classes, mask=is_class, other=0.0)
        else:
            w = is_class.to(tl.float32)
        w_sum = tl.sum(w)

    x_begin = cell_begin(cell_x, columns)
    y_begin = cell_begin(cell_y, rows)
    width = cell_begin(cell_x + 1, columns) - x_begin
    pixels = width * (cell_begin(cell_y + 1, rows) - y_begin)

    loss_sum = 0.0
    weight_sum = 0.0
    g00 = tl.zeros([BLOCK_C], tl.float32)
    g01 = tl.zeros([BLOCK_C], tl.float32)
    g10 = tl.zeros([BLOCK_C], tl.float32)
    g11 = tl.zeros([BLOCK_C], tl.float32)
    start = 0
    while start < pixels:  # not range(): it fails in Triton's interpreter with NumPy >= 2.4
        pixel = start + tl.arange(0, BLOCK_P)
        inside = pixel < pixels
        y = y_begin + pixel // width
        x = x_begin + pixel % width
        at = (n * rows[1] + y) * columns[1] + x
        raw_label = tl.load(labels + at, mask=inside, other=0).to(tl.int64)
        is_valid = inside & (raw_label != ignore_index) & (raw_label >= 0) & (raw_label < C)
        label = tl.where(is_valid, raw_label, 0).to(tl.int32)
        v = is_valid.to(tl.float32)
        if HAS_PIXEL_WEIGHT:
            v = tl.load(pixel_weight + at, mask=is_valid, other=0.0)
        a = v
        if HAS_WEIGHT:
            a *= tl.load(weight + label, mask=is_valid, other=0.0)
        if MEAN_OVER == "all":
            weight_sum += tl.sum(inside.to(tl.float32))
        else:
            weight_sum += tl.sum(a)

        frac_y = frac_of(y, cell_y, rows)[:, None]
        frac_x = frac_of(x, cell_x, columns)[:, None]
        row_above = z00[None, :] * (1.0 - frac_x) + z01[None, :] * frac_x
        row_below = z10[None, :] * (1.0 - frac_x) + z11[None, :] * frac_x
        z = row_above * (1.0 - frac_y) + row_below * frac_y
        z = tl.where(is_class[None, :], z, float("-inf"))
        is_label = classes[None, :] == label[:, None]
        largest = tl.max(z, axis=1)
        exps = tl.exp(z - largest[:, None])
        total = tl.sum(exps, axis=1)
        picked = tl.sum(tl.where(is_label, z, 0.0), axis=1)
        # a and b: see csrc/upsample_cross_entropy.h
        if SMOOTH:
            a *= 1.0 - label_smoothing
            b = v * (label_smoothing / C)
            centred = tl.where(is_class[None, :], z - largest[:, None], 0.0)
            weighted = tl.sum(w[None, :] * centred, axis=1)
            loss = a * (tl.log(total) - (picked - largest)) + b * (w_sum * tl.log(total) - weighted)
        else:
            loss = a * (tl.log(total) - (picked - largest))
        is_out_of_range = (raw_label != ignore_index) & ((raw_label < 0) | (raw_label >= C))
        loss = tl.where(is_valid, loss, tl.where(is_out_of_range, float("nan"), 0.0))
        if REDUCTION == "none":
            tl.store(losses + at, loss, mask=inside)
        else:
            loss_sum += tl.sum(tl.where(inside, loss, 0.0))
        if WANTS_GRAD:
            if SMOOTH:
                g = exps * ((a + b * w_sum) / total)[:, None] - b[:, None] * w[None, :]
            else:
                g = exps * (a / total)[:, None]
            g -= tl.where(is_label, a[:, None], 0.0)
            g_right = g * frac_x
            g_left = g - g_right
            g01 += tl.sum(g_right * (1.0 - frac_y), axis=0)
            g11 += tl.sum(g_right * frac_y, axis=0)
            g00 += tl.sum(g_left * (1.0 - frac_y), axis=0)
            g10 += tl.sum(g_left * frac_y, axis=0)
        start += BLOCK_P

    if REDUCTION != "none":
        tl.store(losses + 2 * program, loss_sum)
        tl.store(losses + 2 * program + 1, weight_sum)
    if WANTS_GRAD:
        out = partial + program.to(tl.int64) * 4 * C + classes
        tl.store(out, g00, mask=is_class)
        tl.store(out + C, g01, mask=is_class)
        tl.store(out + 2 * C, g10, mask=is_class)
        tl.store(out + 3 * C, g11, mask=is_class)


def launch(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    pixel_weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    reduction: str,
    mean_over: str,
    rows: Axis,
    columns: Axis,
    loss: Tensor,
    grad: Tensor,
) -> None:
    """Fill ``loss`` and, unless empty, ``grad`` [N, C, h, w]; at least one pixel.

    Both are float32. ``loss`` is [], or [N, H, W] if the reduction is none; ``grad`` is
    channels-last.
    """
    wants_grad = grad.numel() > 0
    n, c, h, w = logits.shape
    programs = n * max(h - 1, 1) * max(w - 1, 1)
    block_c = triton.next_power_of_2(c)
    partial = loss.new_empty(programs * 4 * c if wants_grad else 0)
    sums = loss.new_empty(2 * programs)
    scale = loss.new_empty(1)
    with on_device_of(logits):
        cells_kernel[(programs,)](
            logits,
            labels,
            weight if weight is not None else sums,
            pixel_weight if pixel_weight is not None else sums,
            partial,
            loss if reduction == "none" else sums,
            ignore_index,
            label_smoothing,
            c,
            rows,
            columns,
            *logits.stride(),
            HAS_WEIGHT=weight is not None,
            HAS_PIXEL_WEIGHT=pixel_weight is not None,
            SMOOTH=label_smoothing > 0,
            REDUCTION=reduction,
            MEAN_OVER=mean_over,
            WANTS_GRAD=wants_grad,
            BLOCK_P=max(1, ELEMENTS // block_c),
            BLOCK_C=block_c,
        )
        if reduction != "none":
            total_kernel[(1,)](sums, programs, loss, scale, REDUCTION=reduction, BLOCK=TOTAL_BLOCK)
        if wants_grad:
            launch_gradient(partial, grad, scale if reduction == "mean" else None)
