"""Triton kernels of ``instance_norm_act``: a reduction and an elementwise pass in each direction.

A program of a reduction processes a chunk of an image's pixels and a block of channels; a small
kernel combines the chunks, and the channels of a group, in a fixed order. No atomics: every run
gives the same bits.
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
    span,  # channels per program: a group if GROUPED, else BLOCK_C groups of one channel
    eps,
    GROUPED: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_CHUNKS: tl.constexpr,
):
    n = tl.program_id(0).to(tl.int64)
    first = tl.program_id(1) * span
    end = tl.minimum(first + span, C)
    counts = tl.zeros([BLOCK_CHUNKS, BLOCK_C], tl.float64)
    means = tl.zeros([BLOCK_CHUNKS, BLOCK_C], tl.float64)
    squares = tl.zeros([BLOCK_CHUNKS, BLOCK_C], tl.float64)
    tile = first
    while tile < end:
        c = tile + tl.arange(0, BLOCK_C)
        start = 0
        while start < chunks:
            chunk = start + tl.arange(0, BLOCK_CHUNKS)
            mask = (chunk < chunks)[:, None] & (c < end)[None, :]
            size = tl.minimum(pixels - chunk * CHUNK, CHUNK)
            count = tl.where(mask, size[:, None], 0).to(tl.float64)
            at = partial + (n * chunks + chunk)[:, None] * 2 * C + c[None, :]
            chunk_mean = tl.load(at, mask=mask, other=0.0)
            chunk_squares = tl.load(at + C, mask=mask, other=0.0)
            counts, means, squares = merge_moments(
                counts, means, squares, count, chunk_mean, chunk_squares
            )
            start += BLOCK_CHUNKS
        tile += BLOCK_C
    total = tl.sum(means * counts, axis=0)
    elements = tl.cast(pixels, tl.int64)
    if GROUPED:
        elements *= span
        total = tl.zeros([BLOCK_C], tl.float64) + tl.sum(total)
    total /= elements
    difference = means - total[None, :]
    variance = tl.sum(squares + difference * difference * counts, axis=0)
    if GROUPED:
        variance = tl.zeros([BLOCK_C], tl.float64) + tl.sum(variance)
    variance = variance / elements + eps
    # 0 for a constant group with eps 0; see reciprocal_deviation in csrc/instance_norm_act.h
    root = tl.sqrt(tl.where(variance > 0, variance, 1.0))
    scale = tl.where(variance > 0, 1.0 / root, tl.where(variance == 0, 0.0, variance))
    tile = first
    while tile < end:
        c = tile + tl.arange(0, BLOCK_C)
        tl.store(mean + n * C + c, total.to(tl.float32), mask=c < end)
        tl.store(rstd + n * C + c, scale.to(tl.float32), mask=c < end)
        tile += BLOCK_C


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
def normalized(x, mean, rstd, weight, bias, c, C, HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr):
    # [pixels, channels]: x - mean, and the activation's argument; mean and rstd are of one image.
    centred = x - tl.load(mean + c, mask=c < C, other=0.0)[None, :]
    a = centred * tl.load(rstd + c, mask=c < C, other=0.0)[None, :]
    if HAS_WEIGHT:
        a *= tl.load(weight + c, mask=c < C, other=0.0)[None, :]
    if HAS_BIAS:
        a += tl.load(bias + c, mask=c < C, other=0.0)[None, :]
    return centred, a


@triton.jit
def gate(a, ACTIVATION: tl.constexpr):
    # SiLU and GELU are a gate(a): the gate and its derivative, as in csrc/instance_norm_act.h.
    if ACTIVATION == "silu":
        e = tl.exp(-tl.abs(a))
        upper = 1.0 / (1.0 + e)
        lower = e * upper
        return tl.where(a < 0, lower, upper), upper * lower
    else:
        density = tl.exp(a * a * -0.5) * 0.398942280  # 1 / sqrt(2 pi)
        return 0.5 + 0.5 * tl.erf(a * 0.707106781), density


@triton.jit
def activate(a, negative_slope, ACTIVATION: tl.constexpr):
    if ACTIVATION == "leaky_relu":
        return tl.where(a > 0, a, negative_slope * a)
    else:
        value, _ = gate(a, ACTIVATION)
        return a * value


@triton.jit
def activation_gradient(a, grad, negative_slope, ACTIVATION: tl.constexpr):
    if ACTIVATION == "leaky_relu":
        return tl.where(a > 0, grad, negative_slope * grad)
    else:
        value, slope = gate(a, ACTIVATION)
        return grad * (a * slope + value)


@triton.jit
def normalize_kernel(
    x,  # [N, H, W, C]
    residual,  # [N, H, W, C], rows [W, C] dense, read if HAS_RESIDUAL
    mean,  # [N, C]
    rstd,  # [N, C]
    weight,  # [C], read if HAS_WEIGHT
    bias,  # [C], read if HAS_BIAS
    out,  # [N, H + 2 PAD, W + 2 PAD, C]
    negative_slope,
    blocks,  # blocks of pixels per image of out
    H,
    W,
    C,
    residual_stride_n,
    residual_stride_h,
    HAS_RESIDUAL: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    ACTIVATION: tl.constexpr,
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
    _, a = normalized(value, mean + n * C, rstd + n * C, weight, bias, c, C, HAS_WEIGHT, HAS_BIAS)
    result = activate(a, negative_slope, ACTIVATION)
    if HAS_RESIDUAL:
        at = (n * residual_stride_n + y * residual_stride_h + from_x * C)[:, None] + c[None, :]
        result += tl.load(residual + at, mask=mask, other=0.0).to(tl.float32)
    at = (n * out_pixels + pixel)[:, None] * C + c[None, :]
    tl.store(out + at, result.to(out.dtype.element_ty), mask=mask)


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
    rstd,  # [N, C]
    weight,  # [C], read if HAS_WEIGHT
    bias,  # [C], read if HAS_BIAS
    grad_residual,  # [N, H, W, C], written if WANTS_RESIDUAL
    partial,  # [N, chunks, 2, C] float64: sums of ga = gy act'(a) and ga (x - mean)
    negative_slope,
    chunks,
    H,
    W,
    C,
    WANTS_RESIDUAL: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    ACTIVATION: tl.constexpr,
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
    sum_ga = tl.zeros([BLOCK_C], tl.float64)
    sum_gax = tl.zeros([BLOCK_C], tl.float64)
    while start < end:
        pixel = start + tl.arange(0, BLOCK_P)
        mask = (pixel < end)[:, None] & is_channel[None, :]
        at = (n * H * W + pixel)[:, None] * C + c[None, :]
        value = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
        centred, a = normalized(
            value, mean + n * C, rstd + n * C, weight, bias, c, C, HAS_WEIGHT, HAS_BIAS
        )
        gy = fold(grad, n, pixel // W, pixel % W, c, H, W, C, mask, PAD)
        if WANTS_RESIDUAL:
            tl.store(grad_residual + at, gy.to(grad_residual.dtype.element_ty), mask=mask)
        ga = activation_gradient(a, gy, negative_slope, ACTIVATION)
        sum_ga += tl.sum(ga, axis=0)
        # float64: with outliers, the gradient is a small difference of large sums like this one
        sum_gax += tl.sum(tl.where(mask, ga * centred, 0.0).to(tl.float64), axis=0)
        start += BLOCK_P
    out = partial + tl.program_id(0).to(tl.int64) * 2 * C + c
    tl.store(out, sum_ga, mask=is_channel)
    tl.store(out + C, sum_gax, mask=is_channel)


@triton.jit
def totals_kernel(
    partial,  # [N, chunks, 2, C] float64
    rstd,  # [N, C]
    weight,  # [C], read if HAS_WEIGHT
    totals,  # [N, 2, C]: mean(gz), rstd mean(gz z)
    shares,  # [N, 2, C] float64: the images' shares in the gradients of weight and bias
    pixels,
    chunks,
    C,
    span,  # channels per program, as in statistics_kernel
    GROUPED: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    WANTS_AFFINE: tl.constexpr,  # writes shares
    BLOCK_C: tl.constexpr,
    BLOCK_CHUNKS: tl.constexpr,
):
    n = tl.program_id(0).to(tl.int64)
    first = tl.program_id(1) * span
    end = tl.minimum(first + span, C)
    sum_gz = tl.zeros([BLOCK_C], tl.float64)
    sum_gzx = tl.zeros([BLOCK_C], tl.float64)
    tile = first
    while tile < end:
        c = tile + tl.arange(0, BLOCK_C)
        ga = tl.zeros([BLOCK_CHUNKS, BLOCK_C], tl.float64)
        gax = tl.zeros([BLOCK_CHUNKS, BLOCK_C], tl.float64)
        start = 0
        while start < chunks:
            chunk = start + tl.arange(0, BLOCK_CHUNKS)
            mask = (chunk < chunks)[:, None] & (c < end)[None, :]
            at = partial + (n * chunks + chunk)[:, None] * 2 * C + c[None, :]
            ga += tl.load(at, mask=mask, other=0.0)
            gax += tl.load(at + C, mask=mask, other=0.0)
            start += BLOCK_CHUNKS
        sum_ga = tl.sum(ga, axis=0)
        sum_gax = tl.sum(gax, axis=0)
        if WANTS_AFFINE:
            scale = tl.load(rstd + n * C + c, mask=c < end, other=0.0)
            tl.store(shares + n * 2 * C + c, sum_gax * scale.to(tl.float64), mask=c < end)
            tl.store(shares + (n * 2 + 1) * C + c, sum_ga, mask=c < end)
        if HAS_WEIGHT:
            factor = tl.load(weight + c, mask=c < end, other=0.0).to(tl.float64)
            sum_ga *= factor
            sum_gax *= factor
        sum_gz += sum_ga
        sum_gzx += sum_gax
        tile += BLOCK_C
    elements = tl.cast(pixels, tl.int64)
    if GROUPED:
        elements *= span
        sum_gz = tl.zeros([BLOCK_C], tl.float64) + tl.sum(sum_gz)
        sum_gzx = tl.zeros([BLOCK_C], tl.float64) + tl.sum(sum_gzx)
    tile = first
    while tile < end:
        c = tile + tl.arange(0, BLOCK_C)
        scale = tl.load(rstd + n * C + c, mask=c < end, other=0.0).to(tl.float64)
        at = totals + n * 2 * C + c
        tl.store(at, (sum_gz / elements).to(tl.float32), mask=c < end)
        tl.store(at + C, (sum_gzx / elements * scale * scale).to(tl.float32), mask=c < end)
        tile += BLOCK_C


@triton.jit
def affine_kernel(
    shares,  # [N, 2, C] float64
    grad_affine,  # [2, C]
    N,
    C,
    BLOCK_C: tl.constexpr,
):
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    weight = tl.zeros([BLOCK_C], tl.float64)
    bias = tl.zeros([BLOCK_C], tl.float64)
    n = 0
    while n < N:
        at = shares + n * 2 * C + c
        weight += tl.load(at, mask=c < C, other=0.0)
        bias += tl.load(at + C, mask=c < C, other=0.0)
        n += 1
    tl.store(grad_affine + c, weight.to(tl.float32), mask=c < C)
    tl.store(grad_affine + C + c, bias.to(tl.float32), mask=c < C)


@triton.jit
def gradient_kernel(
    grad,  # [N, H + 2 PAD, W + 2 PAD, C]
    x,  # [N, H, W, C]
    mean,  # [N, C]
    rstd,  # [N, C]
    weight,  # [C], read if HAS_WEIGHT
    bias,  # [C], read if HAS_BIAS
    totals,  # [N, 2, C]
    out,  # [N, H, W, C]
    negative_slope,
    blocks,  # blocks of pixels per image
    H,
    W,
    C,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    ACTIVATION: tl.constexpr,
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
    scale = tl.load(rstd + n * C + c, mask=is_channel, other=0.0)
    mean_gz = tl.load(totals + n * 2 * C + c, mask=is_channel, other=0.0)
    slope = tl.load(totals + (n * 2 + 1) * C + c, mask=is_channel, other=0.0)
    value = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
    centred, a = normalized(
        value, mean + n * C, rstd + n * C, weight, bias, c, C, HAS_WEIGHT, HAS_BIAS
    )
    gy = fold(grad, n, pixel // W, pixel % W, c, H, W, C, mask, PAD)
    gz = activation_gradient(a, gy, negative_slope, ACTIVATION)
    if HAS_WEIGHT:
        gz *= tl.load(weight + c, mask=is_channel, other=0.0)[None, :]
    gx = scale[None, :] * ((gz - mean_gz[None, :]) - centred * slope[None, :])
    tl.store(out + at, gx.to(out.dtype.element_ty), mask=mask)


def _block(channels: int) -> dict[str, int]:
    """Numbers of pixels and channels per block."""
    block_c = min(triton.next_power_of_2(channels), MAX_CHANNELS)
    return {"BLOCK_P": ELEMENTS // block_c, "BLOCK_C": block_c}


def _span(channels: int, groups: int) -> tuple[int, int, bool]:
    """Channels per program of a combining kernel, programs per image, whether a span is a group."""
    if groups == channels:
        return TOTAL_CHANNELS, triton.cdiv(channels, TOTAL_CHANNELS), False
    return channels // groups, groups, True


def launch(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    activation: str,
    negative_slope: float,
    groups: int,
    pad: int,
    eps: float,
    out: Tensor,
    mean: Tensor,
    rstd: Tensor,
) -> None:
    """Fill ``out`` [N, C, H + 2 pad, W + 2 pad], ``mean`` and ``rstd`` [N, C].

    ``x`` and ``out`` are channels-last; rows [W, C] of the residual are dense. ``weight`` and
    ``bias`` are float32 [C].
    """
    n, c, h, w = x.shape
    block = _block(c)
    chunk = block["BLOCK_P"] * BLOCKS_PER_CHUNK
    chunks = triton.cdiv(h * w, chunk)
    blocks = triton.cdiv((h + 2 * pad) * (w + 2 * pad), block["BLOCK_P"])
    channel_blocks = triton.cdiv(c, block["BLOCK_C"])
    span, spans, grouped = _span(c, groups)
    partial = mean.new_empty((n, chunks, 2, c), dtype=torch.float64)
    with on_device_of(x):
        moments_kernel[(n * chunks, channel_blocks)](
            x, partial, h * w, chunks, c, CHUNK=chunk, **block
        )
        statistics_kernel[(n, spans)](
            partial,
            mean,
            rstd,
            h * w,
            chunks,
            c,
            span,
            eps,
            GROUPED=grouped,
            CHUNK=chunk,
            BLOCK_C=TOTAL_CHANNELS,
            BLOCK_CHUNKS=TOTAL_CHUNKS,
        )
        normalize_kernel[(n * blocks, channel_blocks)](
            x,
            residual if residual is not None else x,
            mean,
            rstd,
            weight if weight is not None else mean,
            bias if bias is not None else mean,
            out,
            negative_slope,
            blocks,
            h,
            w,
            c,
            *(residual.stride()[0::2] if residual is not None else (0, 0)),
            HAS_RESIDUAL=residual is not None,
            HAS_WEIGHT=weight is not None,
            HAS_BIAS=bias is not None,
            ACTIVATION=activation,
            PAD=pad,
            **block,
        )


def launch_backward(
    grad: Tensor,
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    activation: str,
    negative_slope: float,
    groups: int,
    pad: int,
    grad_x: Tensor,
    grad_residual: Tensor,
    grad_affine: Tensor,
) -> None:
    """Fill ``grad_x`` and those of the other gradients that are not empty.

    All images are channels-last; ``weight`` and ``bias`` are float32 [C], ``grad_affine`` is
    float32 [2, C].
    """
    n, c, h, w = x.shape
    block = _block(c)
    chunk = block["BLOCK_P"] * BLOCKS_PER_CHUNK
    chunks = triton.cdiv(h * w, chunk)
    blocks = triton.cdiv(h * w, block["BLOCK_P"])
    channel_blocks = triton.cdiv(c, block["BLOCK_C"])
    span, spans, grouped = _span(c, groups)
    partial = mean.new_empty((n, chunks, 2, c), dtype=torch.float64)
    totals = mean.new_empty((n, 2, c))
    wants_affine = grad_affine.numel() > 0
    shares = mean.new_empty((n, 2, c) if wants_affine else 0, dtype=torch.float64)
    affine = {"HAS_WEIGHT": weight is not None, "HAS_BIAS": bias is not None}
    weight_or_any, bias_or_any = (mean if v is None else v for v in (weight, bias))
    with on_device_of(x):
        sums_kernel[(n * chunks, channel_blocks)](
            grad,
            x,
            mean,
            rstd,
            weight_or_any,
            bias_or_any,
            grad_residual,
            partial,
            negative_slope,
            chunks,
            h,
            w,
            c,
            WANTS_RESIDUAL=grad_residual.numel() > 0,
            ACTIVATION=activation,
            PAD=pad,
            CHUNK=chunk,
            **affine,
            **block,
        )
        totals_kernel[(n, spans)](
            partial,
            rstd,
            weight_or_any,
            totals,
            shares,
            h * w,
            chunks,
            c,
            span,
            GROUPED=grouped,
            HAS_WEIGHT=weight is not None,
            WANTS_AFFINE=wants_affine,
            BLOCK_C=TOTAL_CHANNELS,
            BLOCK_CHUNKS=TOTAL_CHUNKS,
        )
        if wants_affine:
            affine_kernel[(triton.cdiv(c, TOTAL_CHANNELS),)](
                shares, grad_affine, n, c, BLOCK_C=TOTAL_CHANNELS
            )
        gradient_kernel[(n * blocks, channel_blocks)](
            grad,
            x,
            mean,
            rstd,
            weight_or_any,
            bias_or_any,
            totals,
            grad_x,
            negative_slope,
            blocks,
            h,
            w,
            c,
            ACTIVATION=activation,
            PAD=pad,
            **affine,
            **block,
        )
