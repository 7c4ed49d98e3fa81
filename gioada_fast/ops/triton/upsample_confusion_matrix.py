"""Triton kernel of ``upsample_confusion_matrix``: a block of pixels in one row of cells at a time.

The predictions are those of ``upsample_argmax``. A program counts its pixels in its own histogram;
with more than 32 classes, it adds every pixel to the result instead. Counts are integers, so the
order of additions does not matter.
"""

import triton
import triton.language as tl
from torch import Tensor

from gioada_fast.ops._bilinear import Axis
from gioada_fast.ops.triton._common import cell_begin, cell_count, cell_of, frac_of, on_device_of
from gioada_fast.ops.triton.upsample_argmax import COLUMNS, ROWS, predict

MAX_PROGRAMS = 1024  # 7 per multiprocessor of an H100
MAX_BINS = 1024


@triton.jit
def count_kernel(
    logits,  # [N, C, h, w], any strides
    labels,  # [N, H, W]
    counts,  # int64 [C, C]: label, prediction
    ignore_index,
    C,
    rows,  # Axis
    columns,  # Axis
    stride_n,
    stride_c,
    stride_h,
    stride_w,
    tiles,  # N * rows of cells * blocks of columns
    programs,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BINS: tl.constexpr,  # of the histogram; 0: no histogram
):
    cell_rows = cell_count(rows)
    tiles_x = tl.cdiv(columns[1], COLUMNS)
    right = tl.where(columns[0] > 1, stride_w, 0)
    down = tl.where(rows[0] > 1, stride_h, 0)
    histogram = tl.zeros([BINS if BINS > 0 else 1], tl.int32)
    tile = tl.program_id(0)
    while tile < tiles:
        row = tile // tiles_x % cell_rows
        n = (tile // tiles_x // cell_rows).to(tl.int64)
        x = tile % tiles_x * COLUMNS + tl.arange(0, COLUMNS)
        inside = x < columns[1]
        column = cell_of(x, columns)
        frac_x = frac_of(x, column, columns)
        corner = (
            logits + n * stride_n + row.to(tl.int64) * stride_h + column.to(tl.int64) * stride_w
        )
        y_start = cell_begin(row, rows)
        y_end = cell_begin(row + 1, rows)
        while y_start < y_end:
            y = y_start + tl.arange(0, ROWS)
            frac_y = frac_of(y, row, rows)
            predicted = predict(corner, right, down, stride_c, C, frac_x, frac_y, inside)
            pixel = (n * rows[1] + y[:, None]) * columns[1] + x[None, :]
            valid = (y[:, None] < y_end) & inside[None, :]
            label = tl.load(labels + pixel, mask=valid, other=0).to(tl.int64)
            valid = valid & (label != ignore_index) & (label >= 0) & (label < C)
            element = tl.where(valid, label, 0).to(tl.int32) * C + predicted
            if BINS > 0:
                element = tl.reshape(element, [ROWS * COLUMNS])
                histogram += tl.histogram(element, BINS, mask=tl.reshape(valid, [ROWS * COLUMNS]))
            else:
                tl.atomic_add(counts + element, 1, mask=valid, sem="relaxed")
            y_start += ROWS
        tile += programs
    if BINS > 0:
        elements = tl.arange(0, BINS)
        used = histogram > 0
        tl.atomic_add(counts + elements, histogram.to(tl.int64), mask=used, sem="relaxed")


def launch(
    logits: Tensor, labels: Tensor, ignore_index: int, rows: Axis, columns: Axis, counts: Tensor
) -> None:
    """Add to ``counts`` int64 [C, C]; at least one pixel."""
    n, c, h, _ = logits.shape
    tiles = n * max(h - 1, 1) * triton.cdiv(columns.size_out, COLUMNS)
    programs = min(tiles, MAX_PROGRAMS)
    bins = triton.next_power_of_2(c * c)
    with on_device_of(logits):
        count_kernel[(programs,)](
            logits,
            labels,
            counts,
            ignore_index,
            c,
            rows,
            columns,
            *logits.stride(),
            tiles,
            programs,
            ROWS=ROWS,
            COLUMNS=COLUMNS,
            BINS=bins if bins <= MAX_BINS else 0,
        )
