"""Triton kernel of ``upsample_argmax``: a block of pixels in one row of cells at a time.

A program loops over the classes, reads four logits per class and column, and keeps the best class
of each pixel in registers.
"""

import triton
import triton.language as tl
from torch import Tensor

from gioada_fast.ops._bilinear import Axis
from gioada_fast.ops.triton._common import cell_begin, cell_count, cell_of, frac_of, on_device_of

ROWS, COLUMNS = 8, 64  # block of pixels; 128 columns would spill registers
MAX_LOGIT = tl.constexpr(2.0**126)  # clamps infinities, as in csrc/upsample_argmax.h
NAN = tl.constexpr(tl.PropagateNan.ALL)


@triton.jit
def predict(corner, right, down, stride_c, C, frac_x, frac_y, inside):
    # Classes int32 [rows, columns] of pixels in one row of cells. corner: [columns] addresses of
    # the top left corners of the pixels' cells in class 0; right, down: offsets to the other
    # corners; inside: [columns] whether a column is in the image.
    best = tl.full([frac_y.shape[0], frac_x.shape[0]], float("-inf"), tl.float32)
    predicted = tl.zeros([frac_y.shape[0], frac_x.shape[0]], tl.int32)
    frac_y = frac_y[:, None]
    at = corner
    c = 0
    while c < C:
        z00 = tl.load(at, mask=inside, other=0.0).to(tl.float32)
        z01 = tl.load(at + right, mask=inside, other=0.0).to(tl.float32)
        z10 = tl.load(at + down, mask=inside, other=0.0).to(tl.float32)
        z11 = tl.load(at + down + right, mask=inside, other=0.0).to(tl.float32)
        z00 = tl.clamp(z00, -MAX_LOGIT, MAX_LOGIT, propagate_nan=NAN)
        z01 = tl.clamp(z01, -MAX_LOGIT, MAX_LOGIT, propagate_nan=NAN)
        z10 = tl.clamp(z10, -MAX_LOGIT, MAX_LOGIT, propagate_nan=NAN)
        z11 = tl.clamp(z11, -MAX_LOGIT, MAX_LOGIT, propagate_nan=NAN)
        above = (1.0 - frac_x) * z00 + frac_x * z01
        below = (1.0 - frac_x) * z10 + frac_x * z11
        z = (1.0 - frac_y) * above[None, :] + frac_y * below[None, :]
        # As in torch.argmax, the first of equals wins, and NaN is larger than any number.
        better = (z > best) | ((z != z) & (best == best))
        best = tl.where(better, z, best)
        predicted = tl.where(better, c, predicted)
        at += stride_c
        c += 1
    return predicted


@triton.jit
def argmax_kernel(
    logits,  # [N, C, h, w], any strides
    predictions,  # [N, H, W]
    C,
    rows,  # Axis
    columns,  # Axis
    stride_n,
    stride_c,
    stride_h,
    stride_w,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    # One program per row of cells and block of columns.
    cell_rows = cell_count(rows)
    tiles_x = tl.cdiv(columns[1], COLUMNS)
    tile = tl.program_id(0)
    row = tile // tiles_x % cell_rows
    n = (tile // tiles_x // cell_rows).to(tl.int64)
    x = tile % tiles_x * COLUMNS + tl.arange(0, COLUMNS)
    inside = x < columns[1]
    column = cell_of(x, columns)
    frac_x = frac_of(x, column, columns)
    corner = logits + n * stride_n + row.to(tl.int64) * stride_h + column.to(tl.int64) * stride_w
    right = tl.where(columns[0] > 1, stride_w, 0)
    down = tl.where(rows[0] > 1, stride_h, 0)
    y_start = cell_begin(row, rows)
    y_end = cell_begin(row + 1, rows)
    while y_start < y_end:
        y = y_start + tl.arange(0, ROWS)
        frac_y = frac_of(y, row, rows)
        predicted = predict(corner, right, down, stride_c, C, frac_x, frac_y, inside)
        pixel = (n * rows[1] + y[:, None]) * columns[1] + x[None, :]
        valid = (y[:, None] < y_end) & inside[None, :]
        tl.store(predictions + pixel, predicted.to(predictions.dtype.element_ty), mask=valid)
        y_start += ROWS


def launch(logits: Tensor, rows: Axis, columns: Axis, predictions: Tensor) -> None:
    """Fill ``predictions`` [N, H, W]; at least one pixel."""
    n, c, h, _ = logits.shape
    programs = n * max(h - 1, 1) * triton.cdiv(columns.size_out, COLUMNS)
    with on_device_of(logits):
        argmax_kernel[(programs,)](
            logits,
            predictions,
            c,
            rows,
            columns,
            *logits.stride(),
            ROWS=ROWS,
            COLUMNS=COLUMNS,
        )
