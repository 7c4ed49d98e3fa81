"""Triton kernels of ``upsample_depth_loss``: one program for several adjacent cells of a row.

The pixels of a cell depend on its four corners. A program sums the corners' gradients over the
pixels of each cell; further kernels sum the losses, and add up the gradient of each point from the
four cells around it. BerHu first needs a pass for the largest error. No atomics: every run gives
the same bits.
"""

import torch
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

CELLS = 16  # per program
PIXELS = 32  # per cell and iteration
TOTAL_BLOCK = 1024


@triton.jit
def cells_kernel(
    depth,  # [N, h, w], any strides
    target,  # [N, H, W]
    valid,  # [N, H, W] bytes, read if HAS_VALID
    threshold,  # [2]: berHu's c, 1 / c; read if BERHU
    largest,  # [programs] largest |e|, written if FIND_LARGEST
    partial,  # [N, cells, 4 corners], written if WANTS_GRAD
    sums,  # [programs, 2]: loss, number of valid pixels; written unless FIND_LARGEST
    rows,  # Axis
    columns,  # Axis
    stride_n,
    stride_h,
    stride_w,
    HAS_VALID: tl.constexpr,
    BERHU: tl.constexpr,
    FIND_LARGEST: tl.constexpr,
    WANTS_GRAD: tl.constexpr,
    CELLS: tl.constexpr,
    PIXELS: tl.constexpr,
):
    program = tl.program_id(0)
    cells_x = cell_count(columns)
    cells_y = cell_count(rows)
    blocks_x = (cells_x + CELLS - 1) // CELLS
    cell_x = program % blocks_x * CELLS + tl.arange(0, CELLS)
    cell_y = program // blocks_x % cells_y
    n = (program // (blocks_x * cells_y)).to(tl.int64)
    is_cell = cell_x < cells_x

    right = tl.where(columns[0] > 1, stride_w, 0)
    down = tl.where(rows[0] > 1, stride_h, 0)
    corner = depth + n * stride_n + cell_y.to(tl.int64) * stride_h
    corner += cell_x.to(tl.int64) * stride_w
    z00 = tl.load(corner, mask=is_cell, other=0.0).to(tl.float32)[:, None]
    z01 = tl.load(corner + right, mask=is_cell, other=0.0).to(tl.float32)[:, None]
    z10 = tl.load(corner + down, mask=is_cell, other=0.0).to(tl.float32)[:, None]
    z11 = tl.load(corner + down + right, mask=is_cell, other=0.0).to(tl.float32)[:, None]

    x_begin = cell_begin(cell_x, columns)
    y_begin = cell_begin(cell_y, rows)
    width = cell_begin(cell_x + 1, columns) - x_begin
    pixels = width * (cell_begin(cell_y + 1, rows) - y_begin)
    max_pixels = tl.max(pixels)
    x_begin = x_begin[:, None]
    width = tl.maximum(width, 1)[:, None]

    error = 0.0
    loss = 0.0
    count = 0
    g00 = tl.zeros([CELLS], tl.float32)
    g01 = tl.zeros([CELLS], tl.float32)
    g10 = tl.zeros([CELLS], tl.float32)
    g11 = tl.zeros([CELLS], tl.float32)
    start = 0
    while start < max_pixels:  # not range(): it fails in Triton's interpreter with NumPy >= 2.4
        pixel = (start + tl.arange(0, PIXELS))[None, :]
        is_valid = pixel < pixels[:, None]
        y = y_begin + pixel // width
        x = x_begin + pixel % width
        at = (n * rows[1] + y) * columns[1] + x
        # Reads the target of invalid pixels too, so that the two loads overlap.
        t = tl.load(target + at, mask=is_valid, other=0.0).to(tl.float32)
        if HAS_VALID:
            is_valid = is_valid & (tl.load(valid + at, mask=is_valid, other=0) != 0)

        frac_y = frac_of(y, cell_y, rows)
        frac_x = frac_of(x, cell_x[:, None], columns)
        row_above = z00 * (1.0 - frac_x) + z01 * frac_x
        row_below = z10 * (1.0 - frac_x) + z11 * frac_x
        z = row_above * (1.0 - frac_y) + row_below * frac_y
        e = tl.where(is_valid, z - t, 0.0)
        magnitude = tl.abs(e)
        if FIND_LARGEST:
            error = tl.maximum(error, tl.max(magnitude))
        else:
            f = magnitude
            slope = tl.where(e > 0, 1.0, tl.where(e < 0, -1.0, 0.0))
            if BERHU:
                # |e| + (|e| - c)^2 / 2c above c: this overflows only if f does
                excess = tl.maximum(magnitude - tl.load(threshold), 0.0)
                ratio = excess * tl.load(threshold + 1)
                f += excess * (0.5 * ratio)
                slope += slope * ratio
            loss += tl.sum(f)
            count += tl.sum(is_valid.to(tl.int32))
            if WANTS_GRAD:
                g_right = slope * frac_x
                g_left = slope - g_right
                g01 += tl.sum(g_right * (1.0 - frac_y), axis=1)
                g11 += tl.sum(g_right * frac_y, axis=1)
                g00 += tl.sum(g_left * (1.0 - frac_y), axis=1)
                g10 += tl.sum(g_left * frac_y, axis=1)
        start += PIXELS

    if FIND_LARGEST:
        tl.store(largest + program, error)
    else:
        tl.store(sums + 2 * program, loss)
        tl.store(sums + 2 * program + 1, tl.cast(count, tl.float32))
    if WANTS_GRAD:
        out = partial + ((n * cells_y + cell_y) * cells_x + cell_x) * 4
        tl.store(out, g00, mask=is_cell)
        tl.store(out + 1, g01, mask=is_cell)
        tl.store(out + 2, g10, mask=is_cell)
        tl.store(out + 3, g11, mask=is_cell)


@triton.jit
def threshold_kernel(
    largest,  # [programs]
    programs,
    threshold,  # [2]: c, 1 / c
    BLOCK: tl.constexpr,
):
    errors = tl.zeros([BLOCK], tl.float32)
    start = 0
    while start < programs:
        i = start + tl.arange(0, BLOCK)
        errors = tl.maximum(errors, tl.load(largest + i, mask=i < programs, other=0.0))
        start += BLOCK
    # At least the smallest normal number: avoids 1 / 0 if all errors are 0.
    c = tl.maximum(tl.max(errors) / 5.0, 1.17549435e-38)
    tl.store(threshold, c)
    tl.store(threshold + 1, 1.0 / c)


def launch(
    depth: Tensor,
    target: Tensor,
    valid: Tensor | None,
    kind: str,
    rows: Axis,
    columns: Axis,
    loss: Tensor,
    grad: Tensor,
) -> None:
    """Fill ``loss`` [] and, unless empty, ``grad`` [N, 1, h, w] (float32); at least one pixel."""
    berhu, wants_grad = kind == "berhu", grad.numel() > 0
    n, _, h, w = depth.shape
    stride_n, _, stride_h, stride_w = depth.stride()
    cells_x, cells_y = max(w - 1, 1), max(h - 1, 1)
    programs = n * cells_y * triton.cdiv(cells_x, CELLS)
    largest = loss.new_empty(programs if berhu else 0)
    threshold = loss.new_empty(2)
    partial = loss.new_empty(n * cells_y * cells_x * 4 if wants_grad else 0)
    sums = loss.new_empty(2 * programs)
    scale = loss.new_empty(1)

    def cells(find_largest: bool) -> None:
        cells_kernel[(programs,)](
            depth,
            target,
            valid.view(torch.uint8) if valid is not None else sums,
            threshold,
            largest,
            partial,
            sums,
            rows,
            columns,
            stride_n,
            stride_h,
            stride_w,
            HAS_VALID=valid is not None,
            BERHU=berhu,
            FIND_LARGEST=find_largest,
            WANTS_GRAD=wants_grad and not find_largest,
            CELLS=CELLS,
            PIXELS=PIXELS,
        )

    with on_device_of(depth):
        if berhu:
            cells(find_largest=True)
            threshold_kernel[(1,)](largest, programs, threshold, BLOCK=TOTAL_BLOCK)
        cells(find_largest=False)
        total_kernel[(1,)](sums, programs, loss, scale, REDUCTION="mean", BLOCK=TOTAL_BLOCK)
        if wants_grad:
            launch_gradient(partial, grad, scale)
