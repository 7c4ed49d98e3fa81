"""Triton kernels of ``instance_norm_act``: a reduction and an elementwise pass in each direction.

A program of a reduction processes a chunk of an image's pixels and a block of channels; a small
kernel combines the chunks in a fixed order. No atomics: every run gives the same bits.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from gioada_fast.ops.triton._common import on_device_of

ELEMENTS = 1024  # per block [pixels, channels]
MAX_CHANNELS = 64  # per block
BLOCKS_PER_CHUNK = 8  # a program reduces them one after the other
TOTAL_CHUNKS, TOTAL_CHANNELS = 16, 32  # block of the kernels that combine chunks


@triton.jit
def merge_moments(count_a, mean_a, squares_a, count_b, mean_b, squares_b):
    # Mean and sum of squared deviations of both together (Chan et al.).
    count = count_a + count_b
    share = tl.where(count > 0, count_b / tl.where(count > 0, count, 1.0), 0.0)
    delta = mean_b - mean_a
    squares = squares_a + squares_b + delta * delta * (count_a * share)
    return count, mean_a + delta * share, squares


@triton.jit
def moments_kernel(
    x,  # [N, pixels, C]
    partial,  # [N, chunks, 2, C] float64: mean, sum of squared deviations from it
    pixels,
    chunks,
    C,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
    CHUNK: tl.constexpr,
):
    n = (tl.program_id(0) // chunks).to(tl.int64)
    start = tl.program_id(0) % chunks * CHUNK
    end = tl.minimum(start + CHUNK, pixels)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    is_channel = c < C
    count = tl.zeros([BLOCK_C], tl.float64)
    mean = tl.zeros([BLOCK_C], tl.float64)
    squares = tl.zeros([BLOCK_C], tl.float64)
    while start < end:  # not range(): it fails in Triton's interpreter with NumPy >= 2.4
        pixel = start + tl.arange(0, BLOCK_P)
        mask = (pixel < end)[:, None] & is_channel[None, :]
        at = (n * pixels + pixel)[:, None] * C + c[None, :]
        value = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
        block_count = tl.minimum(end - start, BLOCK_P).to(tl.float32)
        rounded = tl.sum(value, axis=0) / block_count
        difference = tl.where(mask, value - rounded[None, :], 0.0)
        excess = tl.sum(difference, axis=0) / block_count
        block_squares = tl.sum(difference * difference, axis=0) - block_count * excess * excess
        count, mean, squares = merge_moments(
            count,
            mean,
            squares,
            block_count.to(tl.float64),
            rounded.to(tl.float64) + excess.to(tl.float64),
            block_squares.to(tl.float64),
        )
        start += BLOCK_P
    out = partial + tl.program_id(0).to(tl.int64) * 2 * C + c
    tl.store(out, mean, mask=is_channel)
    tl.store(out + C, squares, mask=is_channel)


@triton.jit
def statistics_kernel(
    partial,  # [N, chunks, 2, C] float64
    mean,  # [N, C]
    rstd,  # [N, C]
    pixels,
    chunks,
    C,
    eps,
    CHUNK: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_CHUNKS: tl.constexpr,
):
    n = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    is_channel = c < C
    counts = tl.zeros([BLOCK_CHUNKS, BLOCK_C], tl.float64)
    means = tl.zeros([BLOCK_CHUNKS, BLOCK_C], tl.float64)
    squares = tl.zeros([BLOCK_CHUNKS, BLOCK_C], tl.float64)
    start = 0
    while start < chunks:
        chunk = start + tl.arange(0, BLOCK_CHUNKS)
        mask = (chunk < chunks)[:, None] & is_channel[None, :]
        size = tl.minimum(pixels - chunk * CHUNK, CHUNK)
        count = tl.where(mask, size[:, None], 0).to(tl.float64)
        at = partial + (n * chunks + chunk)[:, None] * 2 * C + c[None, :]
        chunk_mean = tl.load(at, mask=mask, other=0.0)
        chunk_squares = tl.load(at + C, mask=mask, other=0.0)
        counts, means, squares = merge_moments(
            counts, means, squares, count, chunk_mean, chunk_squares
        )
        start += BLOCK_CHUNKS
    total = tl.sum(means * counts, axis=0) / pixels
    difference = means - total[None, :]
    variance = tl.sum(squares + difference * difference * counts, axis=0) / pixels + eps
    # 0 for a constant channel with eps 0; see reciprocal_deviation in csrc/instance_norm_act.h
    root = tl.sqrt(tl.where(variance > 0, variance, 1.0))
    scale = tl.where(variance > 0, 1.0 / root, tl.where(variance == 0, 0.0, variance))
    tl.store(mean + n * C + c, total.to(tl.float32), mask=is_channel)
    tl.store(rstd + n * C + c, scale.to(tl.float32), mask=is_channel)


@triton.jit
def reflect(padded, size, PAD: tl.constexpr):
    # Source of a padded index; see reflect in csrc/instance_norm_act.h.
    index = tl.abs(padded - PAD)
    return tl.where(index < size, index, 2 * (size - 1) - index)


@triton.jit
def padded_copy_of(copy, index, size, PAD: tl.constexpr):
    # Padded index of a copy, or -1; see padded_copy_of in csrc/instance_norm_act.h.
    from_end = size - 1 - index
    lo = tl.where((index >= 1) & (index <= PAD), PAD - index, -1)
    hi = tl.where((from_end >= 1) & (from_end <= PAD), PAD + size - 1 + from_end, -1)
    return tl.where(copy == 0, PAD + index, tl.where(copy == 1, lo, hi))


@triton.jit
def normalize_kernel(
    x,  # [N, H, W, C]
    residual,  # [N, H, W, C], rows [W, C] dense, read if HAS_RESIDUAL
    mean,  # [N, C]
    rstd,  # [N, C]
    out,  # [N, H + 2 PAD, W + 2 PAD, C]
    negative_slope,
    blocks,  # blocks of pixels per image of out
    H,
    W,
    C,
    residual_stride_n,
    residual_stride_h,
    HAS_RESIDUAL: tl.constexpr,
    PAD: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    n = (tl.program_id(0) // blocks).to(tl.int64)
    pixel = tl.program_id(0) % blocks * BLOCK_P + tl.arange(0, BLOCK_P)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    is_channel = c < C
    out_pixels = (H + 2 * PAD) * (W + 2 * PAD)
    inside = pixel < out_pixels
    y = tl.where(inside, reflect(pixel // (W + 2 * PAD), H, PAD), 0).to(tl.int64)
    from_x = tl.where(inside, reflect(pixel % (W + 2 * PAD), W, PAD), 0)
    mask = inside[:, None] & is_channel[None, :]
    at = ((n * H + y) * W + from_x)[:, None] * C + c[None, :]
    value = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
    centre = tl.load(mean + n * C + c, mask=is_channel, other=0.0)
    scale = tl.load(rstd + n * C + c, mask=is_channel, other=0.0)
    z = (value - centre[None, :]) * scale[None, :]
    z = tl.where(z > 0, z, negative_slope * z)
    if HAS_RESIDUAL:
        at = (n * residual_stride_n + y * residual_stride_h + from_x * C)[:, None] + c[None, :]
        z += tl.load(residual + at, mask=mask, other=0.0).to(tl.float32)
    at = (n * out_pixels + pixel)[:, None] * C + c[None, :]
    tl.store(out + at, z.to(out.dtype.element_ty), mask=mask)


@triton.jit
def fold(grad, n, y, x, c, H, W, C, mask, PAD: tl.constexpr):
    # [pixels, channels]: grad summed over pixels (y, x) of image n and their copies in the padding.
    width = W + 2 * PAD
    grad += n * (H + 2 * PAD) * width * C
    direct = ((y + PAD) * width + x + PAD).to(tl.int64)[:, None] * C + c[None, :]
    total = tl.load(grad + direct, mask=mask, other=0.0).to(tl.float32)
    if PAD > 0:
        mirrored = (y <= PAD) | (y >= H - 1 - PAD) | (x <= PAD) | (x >= W - 1 - PAD)
        if tl.max(mirrored.to(tl.int32), axis=0) > 0:
            copy = 1
            while copy < 9:  # not unrolled: the loads would not fit into registers
                row = padded_copy_of(copy // 3, y, H, PAD)
                column = padded_copy_of(copy % 3, x, W, PAD)
                exists = mask & ((row >= 0) & (column >= 0))[:, None]
                at = (row * width + column).to(tl.int64)[:, None] * C + c[None, :]
                total += tl.load(grad + at, mask=exists, other=0.0).to(tl.float32)
                copy += 1
    return total


@triton.jit
def sums_kernel(
    grad,  # [N, H + 2 PAD, W + 2 PAD, C]
    x,  # [N, H, W, C]
    mean,  # [N, C]
    grad_residual,  # [N, H, W, C], written if WANTS_RESIDUAL
    partial,  # [N, chunks, 2, C] float64: sums of gz and gz (x - mean)
    negative_slope,
    chunks,
    H,
    W,
    C,
    WANTS_RESIDUAL: tl.constexpr,
    PAD: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
    CHUNK: tl.constexpr,
):
    n = (tl.program_id(0) // chunks).to(tl.int64)
    start = tl.program_id(0) % chunks * CHUNK
    end = tl.minimum(start + CHUNK, H * W)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    is_channel = c < C
    centre = tl.load(mean + n * C + c, mask=is_channel, other=0.0)
    sum_gz = tl.zeros([BLOCK_C], tl.float64)
    sum_gzx = tl.zeros([BLOCK_C], tl.float64)
    while start < end:
        pixel = start + tl.arange(0, BLOCK_P)
        mask = (pixel < end)[:, None] & is_channel[None, :]
        at = (n * H * W + pixel)[:, None] * C + c[None, :]
        centred = tl.load(x + at, mask=mask, other=0.0).to(tl.float32) - centre[None, :]
        gy = fold(grad, n, pixel // W, pixel % W, c, H, W, C, mask, PAD)
        if WANTS_RESIDUAL:
            tl.store(grad_residual + at, gy.to(grad_residual.dtype.element_ty), mask=mask)
        gz = tl.where(centred > 0, gy, negative_slope * gy)
        sum_gz += tl.sum(gz, axis=0)
        # float64: with outliers, the gradient is a small difference of large sums like this one
        sum_gzx += tl.sum(tl.where(mask, gz * centred, 0.0).to(tl.float64), axis=0)
        start += BLOCK_P
    out = partial + tl.program_id(0).to(tl.int64) * 2 * C + c
    tl.store(out, sum_gz, mask=is_channel)
    tl.store(out + C, sum_gzx, mask=is_channel)


@triton.jit
def totals_kernel(
    partial,  # [N, chunks, 2, C] float64
    rstd,  # [N, C]
    totals,  # [N, 2, C]: mean(gz), rstd mean(gz z)
    pixels,
    chunks,
    C,
    BLOCK_C: tl.constexpr,
    BLOCK_CHUNKS: tl.constexpr,
):
    n = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    is_channel = c < C
    gz = tl.zeros([BLOCK_CHUNKS, BLOCK_C], tl.float64)
    gzx = tl.zeros([BLOCK_CHUNKS, BLOCK_C], tl.float64)
    start = 0
    while start < chunks:
        chunk = start + tl.arange(0, BLOCK_CHUNKS)
        mask = (chunk < chunks)[:, None] & is_channel[None, :]
        at = partial + (n * chunks + chunk)[:, None] * 2 * C + c[None, :]
        gz += tl.load(at, mask=mask, other=0.0)
        gzx += tl.load(at + C, mask=mask, other=0.0)
        start += BLOCK_CHUNKS
    scale = tl.load(rstd + n * C + c, mask=is_channel, other=0.0).to(tl.float64)
    at = totals + n * 2 * C + c
    mean_gz = tl.sum(gz, axis=0) / pixels
    slope = tl.sum(gzx, axis=0) / pixels * scale * scale
    tl.store(at, mean_gz.to(tl.float32), mask=is_channel)
    tl.store(at + C, slope.to(tl.float32), mask=is_channel)


@triton.jit
def gradient_kernel(
    grad,  # [N, H + 2 PAD, W + 2 PAD, C]
    x,  # [N, H, W, C]
    mean,  # [N, C]
    rstd,  # [N, C]
    totals,  # [N, 2, C]
    out,  # [N, H, W, C]
    negative_slope,
    blocks,  # blocks of pixels per image
    H,
    W,
    C,
    PAD: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    n = (tl.program_id(0) // blocks).to(tl.int64)
    pixel = tl.program_id(0) % blocks * BLOCK_P + tl.arange(0, BLOCK_P)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    is_channel = c < C
    mask = (pixel < H * W)[:, None] & is_channel[None, :]
    at = (n * H * W + pixel)[:, None] * C + c[None, :]
    centre = tl.load(mean + n * C + c, mask=is_channel, other=0.0)
    scale = tl.load(rstd + n * C + c, mask=is_channel, other=0.0)
    mean_gz = tl.load(totals + n * 2 * C + c, mask=is_channel, other=0.0)
    slope = tl.load(totals + (n * 2 + 1) * C + c, mask=is_channel, other=0.0)
    centred = tl.load(x + at, mask=mask, other=0.0).to(tl.float32) - centre[None, :]
    gy = fold(grad, n, pixel // W, pixel % W, c, H, W, C, mask, PAD)
    gz = tl.where(centred > 0, gy, negative_slope * gy)
    gx = scale[None, :] * ((gz - mean_gz[None, :]) - centred * slope[None, :])
    tl.store(out + at, gx.to(out.dtype.element_ty), mask=mask)


def _block(channels: int) -> dict[str, int]:
    """Numbers of pixels and channels per block."""
    block_c = min(triton.next_power_of_2(channels), MAX_CHANNELS)
    return {"BLOCK_P": ELEMENTS // block_c, "BLOCK_C": block_c}


def launch(
    x: Tensor,
    residual: Tensor | None,
    negative_slope: float,
    pad: int,
    eps: float,
    out: Tensor,
    mean: Tensor,
    rstd: Tensor,
) -> None:
    """Fill ``out`` [N, C, H + 2 pad, W + 2 pad], ``mean`` and ``rstd`` [N, C].

    ``x`` and ``out`` are channels-last; rows [W, C] of the residual are dense.
    """
    n, c, h, w = x.shape
    block = _block(c)
    chunk = block["BLOCK_P"] * BLOCKS_PER_CHUNK
    chunks = triton.cdiv(h * w, chunk)
    blocks = triton.cdiv((h + 2 * pad) * (w + 2 * pad), block["BLOCK_P"])
    channel_blocks = triton.cdiv(c, block["BLOCK_C"])
    partial = mean.new_empty((n, chunks, 2, c), dtype=torch.float64)
    with on_device_of(x):
        moments_kernel[(n * chunks, channel_blocks)](
            x, partial, h * w, chunks, c, CHUNK=chunk, **block
        )
        statistics_kernel[(n, triton.cdiv(c, TOTAL_CHANNELS))](
            partial,
            mean,
            rstd,
            h * w,
            chunks,
            c,
            eps,
            CHUNK=chunk,
            BLOCK_C=TOTAL_CHANNELS,
            BLOCK_CHUNKS=TOTAL_CHUNKS,
        )
        normalize_kernel[(n * blocks, channel_blocks)](
            x,
            residual if residual is not None else x,
            mean,
            rstd,
            out,
            negative_slope,
            blocks,
            h,
            w,
            c,
            *(residual.stride()[0::2] if residual is not None else (0, 0)),
            HAS_RESIDUAL=residual is not None,
            PAD=pad,
            **block,
        )


def launch_backward(
    grad: Tensor,
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
    negative_slope: float,
    pad: int,
    grad_x: Tensor,
    grad_residual: Tensor,
) -> None:
    """Fill ``grad_x`` and, unless empty, ``grad_residual``; all images are channels-last."""
    n, c, h, w = x.shape
    block = _block(c)
    chunk = block["BLOCK_P"] * BLOCKS_PER_CHUNK
    chunks = triton.cdiv(h * w, chunk)
    blocks = triton.cdiv(h * w, block["BLOCK_P"])
    channel_blocks = triton.cdiv(c, block["BLOCK_C"])
    partial = mean.new_empty((n, chunks, 2, c), dtype=torch.float64)
    totals = mean.new_empty((n, 2, c))
    with on_device_of(x):
        sums_kernel[(n * chunks, channel_blocks)](
            grad,
            x,
            mean,
            grad_residual,
            partial,
            negative_slope,
            chunks,
            h,
            w,
            c,
            WANTS_RESIDUAL=grad_residual.numel() > 0,
            PAD=pad,
            CHUNK=chunk,
            **block,
        )
        totals_kernel[(n, triton.cdiv(c, TOTAL_CHANNELS))](
            partial,
            rstd,
            totals,
            h * w,
            chunks,
            c,
            BLOCK_C=TOTAL_CHANNELS,
            BLOCK_CHUNKS=TOTAL_CHUNKS,
        )
        gradient_kernel[(n * blocks, channel_blocks)](
            grad,
            x,
            mean,
            rstd,
            totals,
            grad_x,
            negative_slope,
            blocks,
            h,
            w,
            c,
            PAD=pad,
            **block,
        )
