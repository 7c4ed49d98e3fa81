"""Triton kernels of ``semantic_depth_concat``.

Forward: a program computes a run of pixels; in the result, the channels of a pixel are adjacent.
Backward: one program for each cell of the logits' grid sums the gradients of its four corners over
the pixels of the cell; a second kernel adds up the gradient of each point from the four cells
around it. No atomics: every run gives the same bits.
"""

import triton
import triton.language as tl
from torch import Tensor

from gioada_fast.ops._bilinear import Axis
from gioada_fast.ops.triton._common import (
    cell_begin,
    cell_count,
    cell_of,
    frac_of,
    launch_gradient,
    on_device_of,
)

FORWARD_ELEMENTS = 1024  # per block [pixels, classes]
BACKWARD_ELEMENTS = 1024  # per block [pixels, classes]

# Triton specialises kernels on strides such as 1. That changes the layout of a block over threads,
# and with it the order of sums over classes. Without specialisation, every memory format gives the
# same bits.
LOGIT_STRIDES = ["stride_n", "stride_c", "stride_h", "stride_w"]
DEPTH_STRIDES = ["depth_stride_n", "depth_stride_h", "depth_stride_w"]


@triton.jit
def lerp(first, second, frac):
    # The explicit fma makes forward and backward round alike. Otherwise the compiler may fuse
    # different products in the two kernels, and the backward uses slightly different probabilities.
    return tl.fma(1.0 - frac, first, frac * second)


@triton.jit
def interpolate(p, right, down, frac_x, frac_y, mask):
    above_left = tl.load(p, mask, 0.0).to(tl.float32)
    above_right = tl.load(p + right, mask, 0.0).to(tl.float32)
    below_left = tl.load(p + down, mask, 0.0).to(tl.float32)
    below_right = tl.load(p + down + right, mask, 0.0).to(tl.float32)
    above = lerp(above_left, above_right, frac_x)
    return lerp(above, lerp(below_left, below_right, frac_x), frac_y)


@triton.jit(do_not_specialize=LOGIT_STRIDES + DEPTH_STRIDES)
def forward_kernel(
    logits,  # [N, C, h, w], any strides
    depth,  # [N, 1, h, w], any strides, read if HAS_DEPTH
    out,  # [N, H, W, C + HAS_DEPTH]
    pixels,  # N * H * W
    C,
    rows,  # Axis
    columns,  # Axis
    stride_n,
    stride_c,
    stride_h,
    stride_w,
    depth_stride_n,
    depth_stride_h,
    depth_stride_w,
    HAS_DEPTH: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    pixel = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    inside = pixel < pixels
    x = (pixel % columns[1]).to(tl.int32)
    y = (pixel // columns[1] % rows[1]).to(tl.int32)
    n = pixel // columns[1] // rows[1]
    cell_x = cell_of(x, columns)
    cell_y = cell_of(y, rows)
    frac_x = frac_of(x, cell_x, columns)
    frac_y = frac_of(y, cell_y, rows)
    more_x = columns[0] > 1
    more_y = rows[0] > 1

    classes = tl.arange(0, BLOCK_C)
    is_class = classes < C
    corner = logits + n * stride_n + cell_y.to(tl.int64) * stride_h
    corner += cell_x.to(tl.int64) * stride_w
    z = interpolate(
        corner[:, None] + (classes.to(tl.int64) * stride_c)[None, :],
        tl.where(more_x, stride_w, 0),
        tl.where(more_y, stride_h, 0),
        frac_x[:, None],
        frac_y[:, None],
        inside[:, None] & is_class[None, :],
    )
    z = tl.where(is_class[None, :], z, float("-inf"))
    exps = tl.exp(z - tl.max(z, axis=1)[:, None])
    probability = exps * tl.div_rn(1.0, tl.sum(exps, axis=1))[:, None]
    at = out + pixel * (C + HAS_DEPTH)
    tl.store(at[:, None] + classes[None, :], probability, mask=inside[:, None] & is_class[None, :])
    if HAS_DEPTH:
        corner = depth + n * depth_stride_n + cell_y.to(tl.int64) * depth_stride_h
        value = interpolate(
            corner + cell_x.to(tl.int64) * depth_stride_w,
            tl.where(more_x, depth_stride_w, 0),
            tl.where(more_y, depth_stride_h, 0),
            frac_x,
            frac_y,
            inside,
        )
        tl.store(at + C, value, mask=inside)


@triton.jit(do_not_specialize=LOGIT_STRIDES)
def backward_kernel(
    grad,  # [N, C (+ 1), H, W], any strides
    logits,  # [N, C, h, w], any strides, read if WANTS_LOGITS
    partial,  # [N, cells, 4 corners, channels]: C if WANTS_LOGITS, and 1 if WANTS_DEPTH
    C,
    rows,  # Axis
    columns,  # Axis
    grad_stride_n,
    grad_stride_c,
    grad_stride_h,
    grad_stride_w,
    stride_n,
    stride_c,
    stride_h,
    stride_w,
    WANTS_LOGITS: tl.constexpr,
    WANTS_DEPTH: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    program = tl.program_id(0)
    cells_x = cell_count(columns)
    cells_y = cell_count(rows)
    cell_x = program % cells_x
    cell_y = program // cells_x % cells_y
    n = (program // (cells_x * cells_y)).to(tl.int64)
    x_begin = cell_begin(cell_x, columns)
    y_begin = cell_begin(cell_y, rows)
    width = cell_begin(cell_x + 1, columns) - x_begin
    pixels = width * (cell_begin(cell_y + 1, rows) - y_begin)

    classes = tl.arange(0, BLOCK_C)
    is_class = classes < C
    if WANTS_LOGITS:
        right = tl.where(columns[0] > 1, stride_w, 0)
        down = tl.where(rows[0] > 1, stride_h, 0)
        corner = logits + n * stride_n + cell_y.to(tl.int64) * stride_h
        corner += cell_x.to(tl.int64) * stride_w + classes.to(tl.int64) * stride_c
        z00 = tl.load(corner, mask=is_class, other=0.0).to(tl.float32)
        z01 = tl.load(corner + right, mask=is_class, other=0.0).to(tl.float32)
        z10 = tl.load(corner + down, mask=is_class, other=0.0).to(tl.float32)
        z11 = tl.load(corner + down + right, mask=is_class, other=0.0).to(tl.float32)

    g00 = tl.zeros([BLOCK_C], tl.float32)
    g01 = tl.zeros([BLOCK_C], tl.float32)
    g10 = tl.zeros([BLOCK_C], tl.float32)
    g11 = tl.zeros([BLOCK_C], tl.float32)
    d00 = 0.0
    d01 = 0.0
    d10 = 0.0
    d11 = 0.0
    start = 0
    while start < pixels:  # not range(): it fails in Triton's interpreter with NumPy >= 2.4
        pixel = start + tl.arange(0, BLOCK_P)
        inside = pixel < pixels
        y = y_begin + pixel // width
        x = x_begin + pixel % width
        at = grad + n * grad_stride_n + y.to(tl.int64) * grad_stride_h
        at += x.to(tl.int64) * grad_stride_w
        frac_y = frac_of(y, cell_y, rows)
        frac_x = frac_of(x, cell_x, columns)
        if WANTS_LOGITS:
            d = frac_y[:, None]
            r = frac_x[:, None]
            row_above = lerp(z00[None, :], z01[None, :], r)
            row_below = lerp(z10[None, :], z11[None, :], r)
            z = lerp(row_above, row_below, d)
            z = tl.where(is_class[None, :], z, float("-inf"))
            exps = tl.exp(z - tl.max(z, axis=1)[:, None])
            probability = exps * tl.div_rn(1.0, tl.sum(exps, axis=1))[:, None]
            g = tl.load(
                at[:, None] + (classes.to(tl.int64) * grad_stride_c)[None, :],
                mask=inside[:, None] & is_class[None, :],
                other=0.0,
            ).to(tl.float32)
            g = probability * (g - tl.sum(probability * g, axis=1)[:, None])
            g_right = g * r
            g_left = g - g_right
            g01 += tl.sum(g_right * (1.0 - d), axis=0)
            g11 += tl.sum(g_right * d, axis=0)
            g00 += tl.sum(g_left * (1.0 - d), axis=0)
            g10 += tl.sum(g_left * d, axis=0)
        if WANTS_DEPTH:
            at += tl.cast(C, tl.int64) * grad_stride_c  # cast: Triton makes C = 1 a constant
            g_depth = tl.load(at, mask=inside, other=0.0).to(tl.float32)
            d_right = g_depth * frac_x
            d_left = g_depth - d_right
            d01 += tl.sum(d_right * (1.0 - frac_y))
            d11 += tl.sum(d_right * frac_y)
            d00 += tl.sum(d_left * (1.0 - frac_y))
            d10 += tl.sum(d_left * frac_y)
        start += BLOCK_P

    channels = C * WANTS_LOGITS + WANTS_DEPTH
    out = partial + program.to(tl.int64) * 4 * channels
    if WANTS_LOGITS:
        tl.store(out + classes, g00, mask=is_class)
        tl.store(out + channels + classes, g01, mask=is_class)
        tl.store(out + 2 * channels + classes, g10, mask=is_class)
        tl.store(out + 3 * channels + classes, g11, mask=is_class)
    if WANTS_DEPTH:
        out += channels - 1
        tl.store(out, d00)
        tl.store(out + channels, d01)
        tl.store(out + 2 * channels, d10)
        tl.store(out + 3 * channels, d11)


def launch(logits: Tensor, depth: Tensor | None, rows: Axis, columns: Axis, out: Tensor) -> None:
    """Fill ``out`` [N, C (+ 1), H, W], channels-last; at least one pixel."""
    n, c, _, _ = logits.shape
    pixels = n * rows.size_out * columns.size_out
    block_c = triton.next_power_of_2(c)
    block_p = max(1, FORWARD_ELEMENTS // block_c)
    strides = (0, 0, 0) if depth is None else (depth.stride(0), *depth.stride()[2:])
    with on_device_of(logits):
        forward_kernel[(triton.cdiv(pixels, block_p),)](
            logits,
            logits if depth is None else depth,
            out,
            pixels,
            c,
            rows,
            columns,
            *logits.stride(),
            *strides,
            HAS_DEPTH=depth is not None,
            BLOCK_P=block_p,
            BLOCK_C=block_c,
        )


def launch_backward(
    grad: Tensor,
    logits: Tensor,
    rows: Axis,
    columns: Axis,
    grad_logits: Tensor,
    grad_depth: Tensor,
) -> None:
    """Fill ``grad_logits`` [N, C, h, w] and ``grad_depth`` [N, 1, h, w], unless they are empty.

    Both are float32 and channels-last; ``grad`` [N, C (+ 1), H, W] has at least one pixel.
    """
    n, c, h, w = logits.shape
    programs = n * max(h - 1, 1) * max(w - 1, 1)
    wants_logits, wants_depth = grad_logits.numel() > 0, grad_depth.numel() > 0
    channels = c * wants_logits + wants_depth
    block_c = triton.next_power_of_2(c)
    partial = logits.new_empty(programs * 4 * channels, dtype=grad_logits.dtype)
    with on_device_of(logits):
        backward_kernel[(programs,)](
            grad,
            logits,
            partial,
            c,
            rows,
            columns,
            *grad.stride(),
            *logits.stride(),
            WANTS_LOGITS=wants_logits,
            WANTS_DEPTH=wants_depth,
            BLOCK_P=max(1, BACKWARD_ELEMENTS // block_c),
            BLOCK_C=block_c,
        )
        for result, first in ((grad_logits, 0), (grad_depth, channels - 1)):
            if result.numel():
                launch_gradient(partial, result, channels=channels, first=first)
