"""Triton kernels of ``upsample_depth_loss``: one program for several adjacent cells of a row.

The pixels of a cell depend on its four corners. A program sums the corners' gradients over the
pixels of each cell; further kernels sum the losses, and add up the gradient of each point from the
four cells around it. Kinds that need a statistic of all errors have a pass before it. No atomics:
every run gives the same bits.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from gioada_fast.ops._bilinear import Axis
from gioada_fast.ops.triton._common import (
    cell_begin,
    cell_count,
    launch_gradient,
    on_device_of,
    total_kernel,
)

CELLS = 16  # per program
PIXELS = 16  # per cell and iteration; 32 spills registers on sm_90
TOTAL_BLOCK = 1024


@triton.jit
def frac_from(first, offset, axis):
    # Weights of input point cell + 1 in the output points first + offset, given the first one's
    # distance from the cell in units of 1 / axis.unit: less arithmetic than _common.frac_of.
    distance = tl.cast(first + offset * axis[2], tl.float32) / tl.cast(axis[4], tl.float32)
    return tl.minimum(tl.maximum(distance, 0.0), 1.0)


@triton.jit
def cells_kernel(
    depth,  # [N, h, w], any strides
    target,  # [N, H, W]
    valid,  # [N, H, W] bytes, read if HAS_VALID
    pixel_weight,  # [N, H, W], read if HAS_WEIGHT
    statistic,  # berhu: [2] c, 1 / c; silog: [1] mean error
    losses,  # [N, H, W], written in PASS map
    partial,  # [N, cells, 4 corners], written in PASS gradient
    sums,  # [programs, 2]: loss, weight; PASS statistic: largest |e|, or errors and their weight
    silog_lambda,
    rows,  # Axis
    columns,  # Axis
    stride_n,
    stride_h,
    stride_w,
    KIND: tl.constexpr,
    PASS: tl.constexpr,  # statistic, map, loss or gradient
    HAS_VALID: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
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
    first_x = (x_begin * columns[2] + columns[3] - cell_x * columns[4])[:, None]
    first_y = y_begin * rows[2] + rows[3] - cell_y * rows[4]
    begin = ((n * rows[1] + y_begin) * columns[1] + x_begin)[:, None]
    width = tl.maximum(width, 1)[:, None]
    if KIND == "silog" and PASS != "statistic":
        mean = tl.load(statistic)
        offset = 2.0 * (1.0 - silog_lambda) * mean

    largest = 0.0
    loss = 0.0
    count = 0
    weights = 0.0
    g00 = tl.zeros([CELLS], tl.float32)
    g01 = tl.zeros([CELLS], tl.float32)
    g10 = tl.zeros([CELLS], tl.float32)
    g11 = tl.zeros([CELLS], tl.float32)
    start = 0
    while start < max_pixels:  # not range(): it fails in Triton's interpreter with NumPy >= 2.4
        pixel = (start + tl.arange(0, PIXELS))[None, :]
        inside = pixel < pixels[:, None]
        y = pixel // width
        x = pixel % width
        at = begin + y.to(tl.int64) * columns[1] + x
        # Reads the target of invalid pixels too, so that the two loads overlap.
        t = tl.load(target + at, mask=inside, other=0.0).to(tl.float32)
        is_valid = inside
        if HAS_VALID:
            is_valid = inside & (tl.load(valid + at, mask=inside, other=0) != 0)

        frac_y = frac_from(first_y, y, rows)
        frac_x = frac_from(first_x, x, columns)
        row_above = z00 * (1.0 - frac_x) + z01 * frac_x
        row_below = z10 * (1.0 - frac_x) + z11 * frac_x
        z = row_above * (1.0 - frac_y) + row_below * frac_y

        # f(e) and its derivative, as in csrc/upsample_depth_loss.h.
        if KIND == "silog":
            z = tl.where(is_valid, z, 1.0)
            ratio = z / tl.where(is_valid, t, 1.0)
            positive = (ratio >= 1.17549435e-38) & (z > 0)
            e = tl.where(positive, tl.log(tl.where(positive, ratio, 1.0)), float("nan"))
        else:
            e = tl.where(is_valid, z - t, 0.0)
        if PASS == "statistic":
            f = e
            slope = e
        elif KIND == "silog":
            deviation = e - mean
            f = tl.where(is_valid, deviation * deviation + 0.5 * offset * mean, 0.0)
            slope = tl.where(is_valid, (2.0 * deviation + offset) / z, 0.0)
        elif KIND == "l2":
            f = e * e
            slope = 2.0 * e
        else:
            f = tl.abs(e)
            slope = tl.where(e > 0, 1.0, tl.where(e < 0, -1.0, 0.0))
            if KIND == "berhu":
                # |e| + (|e| - c)^2 / 2c above c: this overflows only if f does
                excess = tl.maximum(f - tl.load(statistic), 0.0)
                ratio = excess * tl.load(statistic + 1)
                f += excess * (0.5 * ratio)
                slope += slope * ratio

        if PASS == "statistic" and KIND == "berhu":
            largest = tl.maximum(largest, tl.max(tl.abs(e)))
        else:
            if HAS_WEIGHT:
                weight = tl.load(pixel_weight + at, mask=is_valid, other=0.0)
                f *= weight
                slope *= weight
            if PASS == "map":
                tl.store(losses + at, f, mask=inside)
            else:
                loss += tl.sum(f)
                if HAS_WEIGHT:
                    weights += tl.sum(weight)
                else:
                    count += tl.sum(is_valid.to(tl.int32))
            if PASS == "gradient":
                g_right = slope * frac_x
                g_left = slope - g_right
                g01 += tl.sum(g_right * (1.0 - frac_y), axis=1)
                g11 += tl.sum(g_right * frac_y, axis=1)
                g00 += tl.sum(g_left * (1.0 - frac_y), axis=1)
                g10 += tl.sum(g_left * frac_y, axis=1)
        start += PIXELS

    if PASS == "statistic" and KIND == "berhu":
        tl.store(sums + program, largest)
    elif PASS != "map":
        tl.store(sums + 2 * program, loss)
        tl.store(sums + 2 * program + 1, weights if HAS_WEIGHT else tl.cast(count, tl.float32))
    if PASS == "gradient":
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
    pixel_weight: Tensor | None,
    kind: str,
    reduction: str,
    silog_lambda: float,
    rows: Axis,
    columns: Axis,
    loss: Tensor,
    grad: Tensor,
) -> None:
    """Fill ``loss`` and, unless empty, ``grad`` [N, 1, h, w] (float32); at least one pixel.

    ``loss`` is [N, 1, H, W] for the reduction "none", which has no ``grad``; else [].
    """
    wants_grad = grad.numel() > 0
    n, _, h, w = depth.shape
    stride_n, _, stride_h, stride_w = depth.stride()
    cells_x, cells_y = max(w - 1, 1), max(h - 1, 1)
    programs = n * cells_y * triton.cdiv(cells_x, CELLS)
    statistic = loss.new_empty(2)
    partial = loss.new_empty(n * cells_y * cells_x * 4 if wants_grad else 0)
    sums = loss.new_empty(2 * programs)
    scale = loss.new_empty(1)

    def cells(name: str) -> None:
        cells_kernel[(programs,)](
            depth,
            target,
            valid.view(torch.uint8) if valid is not None else sums,
            pixel_weight if pixel_weight is not None else sums,
            statistic,
            loss,
            partial,
            sums,
            silog_lambda,
            rows,
            columns,
            stride_n,
            stride_h,
            stride_w,
            KIND=kind,
            PASS=name,
            HAS_VALID=valid is not None,
            HAS_WEIGHT=pixel_weight is not None,
            CELLS=CELLS,
            PIXELS=PIXELS,
        )

    with on_device_of(depth):
        if kind == "berhu":
            cells("statistic")
            threshold_kernel[(1,)](sums, programs, statistic, BLOCK=TOTAL_BLOCK)
        elif kind == "silog":
            cells("statistic")
            total_kernel[(1,)](
                sums, programs, statistic, scale, REDUCTION="mean", BLOCK=TOTAL_BLOCK
            )
        if reduction == "none":
            cells("map")
            return
        cells("gradient" if wants_grad else "loss")
        total_kernel[(1,)](sums, programs, loss, scale, REDUCTION=reduction, BLOCK=TOTAL_BLOCK)
        if wants_grad:
            launch_gradient(partial, grad, scale if reduction == "mean" else None)
