"""Triton kernels of ``instance_norm_act``: a reduction and an elementwise walk each way.

A program of a reduction has a chunk of an image's pixels and a block of channels; a small kernel
completes what the chunks leave, in a fixed order. No atomics: the same bits every run.
"""

import triton
import triton.language as tl
from torch import Tensor

from gioada_fast.ops.triton._common import on_device_of

ELEMENTS = 2048  # of a block [pixels, channels]
MOST_CHANNELS = 64  # of a block
BLOCKS_OF_CHUNK = 8  # of pixels, one after the other
TOTAL_CHANNELS = 32  # of a block [chunks, channels] that completes sums,
TOTAL_CHUNKS = 16  # and its chunks


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
    partial,  # [N, chunks, 3, C]: first value, mean minus it, sum of squared deviations
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
    # An offset of the channel costs no precision: means are relative to a value of the chunk.
    origin = tl.load(x + (n * pixels + start) * C + c, mask=is_channel, other=0.0).to(tl.float32)
    count = 0.0
    mean = tl.zeros([BLOCK_C], tl.float32)
    squares = tl.zeros([BLOCK_C], tl.float32)
    while start < end:  # and not range: NumPy >= 2.4 breaks it in Triton's interpreter
        pixel = start + tl.arange(0, BLOCK_P)
        mask = (pixel < end)[:, None] & is_channel[None, :]
        at = (n * pixels + pixel)[:, None] * C + c[None, :]
        value = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
        value = tl.where(mask, value - origin[None, :], 0.0)
        block_count = tl.minimum(end - start, BLOCK_P).to(tl.float32)
        block_mean = tl.sum(value, axis=0) / block_count
        difference = tl.where(mask, value - block_mean[None, :], 0.0)
        block_squares = tl.sum(difference * difference, axis=0)
        count, mean, squares = merge_moments(
            count, mean, squares, block_count, block_mean, block_squares
        )
        start += BLOCK_P
    out = partial + tl.program_id(0).to(tl.int64) * 3 * C + c
    tl.store(out, origin, mask=is_channel)
    tl.store(out + C, mean, mask=is_channel)
    tl.store(out + 2 * C, squares, mask=is_channel)


@triton.jit
def statistics_kernel(
    partial,  # [N, chunks, 3, C]
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
        at = partial + (n * chunks + chunk)[:, None] * 3 * C + c[None, :]
        origin = tl.load(at, mask=mask, other=0.0).to(tl.float64)
        excess = tl.load(at + C, mask=mask, other=0.0).to(tl.float64)
        chunk_squares = tl.load(at + 2 * C, mask=mask, other=0.0).to(tl.float64)
        counts, means, squares = merge_moments(
            counts, means, squares, count, origin + excess, chunk_squares
        )
        start += BLOCK_CHUNKS
    total = tl.sum(means * counts, axis=0) / pixels
    difference = means - total[None, :]
    variance = tl.sum(squares + difference * difference * counts, axis=0) / pixels + eps
    # 0 with eps 0: constant to the last bit; see reciprocal_deviation in csrc/instance_norm_act.h
    root = tl.sqrt(tl.where(variance > 0, variance, 1.0))
    scale = tl.where(variance > 0, 1.0 / root, tl.where(variance == 0, 0.0, variance))
    tl.store(mean + n * C + c, total.to(tl.float32), mask=is_channel)
    tl.store(rstd + n * C + c, scale.to(tl.float32), mask=is_channel)


@triton.jit
def reflect(padded, size, PAD: tl.constexpr):
    # The source of a padded index; see reflect in csrc/instance_norm_act.h.
    index = tl.abs(padded - PAD)
    return tl.where(index < size, index, 2 * (size - 1) - index)


@triton.jit
def image_of(image: tl.constexpr, index, size, PAD: tl.constexpr):
    # A padded index with this source, or -1; see image_of in csrc/instance_norm_act.h.
    if image == 0:
        result = PAD + index
    elif image == 1:
        result = tl.where((index >= 1) & (index <= PAD), PAD - index, -1)
    else:
        from_end = size - 1 - index
        result = tl.where((from_end >= 1) & (from_end <= PAD), PAD + size - 1 + from_end, -1)
    return result


@triton.jit
def normalize_kernel(
    x,  # [N, H, W, C]
    residual,  # [N, H, W, C], rows contiguous, read if HAS_RESIDUAL
    mean,  # [N, C]
    rstd,  # [N, C]
    out,  # [N, H + 2 PAD, W + 2 PAD, C]
    negative_slope,
    blocks,  # of pixels of an image of out
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
    # [pixels, channels] sums over all that padding made of pixels (y, x) of image n.
    total = tl.zeros(mask.shape, tl.float32)
    for i in tl.static_range(3 if PAD > 0 else 1):
        row = image_of(i, y, H, PAD)
        for j in tl.static_range(3 if PAD > 0 else 1):
            column = image_of(j, x, W, PAD)
            there = (row >= 0) & (column >= 0)
            pixel = (n * (H + 2 * PAD) + row) * (W + 2 * PAD) + column
            at = grad + pixel[:, None] * C + c[None, :]
            total += tl.load(at, mask=mask & there[:, None], other=0.0).to(tl.float32)
    return total


@triton.jit
def sums_kernel(
    grad,  # [N, H + 2 PAD, W + 2 PAD, C]
    x,  # [N, H, W, C]
    mean,  # [N, C]
    grad_residual,  # [N, H, W, C], written if WANTS_RESIDUAL
    partial,  # [N, chunks, 2, C]
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
    sum_gz = tl.zeros([BLOCK_C], tl.float32)
    sum_gzx = tl.zeros([BLOCK_C], tl.float32)
    while start < end:
        pixel = start + tl.arange(0, BLOCK_P)
        mask = (pixel < end)[:, None] & is_channel[None, :]
        at = (n * H * W + pixel)[:, None] * C + c[None, :]
        centred = tl.load(x + at, mask=mask, other=0.0).to(tl.float32) - centre[None, :]
        gz = fold(grad, n, pixel // W, pixel % W, c, H, W, C, mask, PAD)
        if WANTS_RESIDUAL:
            tl.store(grad_residual + at, gz.to(grad_residual.dtype.element_ty), mask=mask)
        gz = tl.where(centred > 0, gz, negative_slope * gz)
        sum_gz += tl.sum(gz, axis=0)
        sum_gzx += tl.sum(tl.where(mask, gz * centred, 0.0), axis=0)
        start += BLOCK_P
    out = partial + tl.program_id(0).to(tl.int64) * 2 * C + c
    tl.store(out, sum_gz, mask=is_channel)
    tl.store(out + C, sum_gzx, mask=is_channel)


@triton.jit
def totals_kernel(
    partial,  # [N, chunks, 2, C]
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
        gz += tl.load(at, mask=mask, other=0.0).to(tl.float64)
        gzx += tl.load(at + C, mask=mask, other=0.0).to(tl.float64)
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
    blocks,  # of pixels of an image
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
    gz = fold(grad, n, pixel // W, pixel % W, c, H, W, C, mask, PAD)
    gz = tl.where(centred > 0, gz, negative_slope * gz)
    gx = scale[None, :] * ((gz - mean_gz[None, :]) - centred * slope[None, :])
    tl.store(out + at, gx.to(out.dtype.element_ty), mask=mask)


def _block(channels: int) -> dict[str, int]:
    """Pixels and channels of a block."""
    block_c = min(triton.next_power_of_2(channels), MOST_CHANNELS)
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
    """Fill ``out`` and the statistics; all channels-last, rows of the residual dense."""
    n, c, h, w = x.shape
    block = _block(c)
    chunk = block["BLOCK_P"] * BLOCKS_OF_CHUNK
    chunks = triton.cdiv(h * w, chunk)
    blocks = triton.cdiv((h + 2 * pad) * (w + 2 * pad), block["BLOCK_P"])
    channel_blocks = triton.cdiv(c, block["BLOCK_C"])
    partial = mean.new_empty((n, chunks, 3, c))
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
    """Fill the gradients; all channels-last, ``grad_residual`` empty where not wanted."""
    n, c, h, w = x.shape
    block = _block(c)
    chunk = block["BLOCK_P"] * BLOCKS_OF_CHUNK
    chunks = triton.cdiv(h * w, chunk)
    blocks = triton.cdiv(h * w, block["BLOCK_P"])
    channel_blocks = triton.cdiv(c, block["BLOCK_C"])
    partial = mean.new_empty((n, chunks, 2, c))
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
