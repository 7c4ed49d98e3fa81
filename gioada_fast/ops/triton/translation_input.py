"""Triton kernel of ``translation_input``: each program writes all channels of some pixels.

Adjacent lanes write adjacent channels. A block has rows of channels, so that the two divisions that
find a pixel's place are made once for all of its channels.
"""

import triton
import triton.language as tl
from torch import Tensor

from gioada_fast.ops.triton._common import on_device_of

ELEMENTS = 2048  # of a block [pixels, channels]


@triton.jit
def fill_kernel(
    image,  # [N, 3, H, W], any strides
    depth,  # [N, 1, H, W], any strides
    labels,  # [N, H, W]
    out,  # [N, H, W, 4 + C]
    pixels,
    C,
    H,
    W,
    image_n,
    image_c,
    image_h,
    image_w,
    depth_n,
    depth_h,
    depth_w,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    pixel = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    channel = tl.arange(0, BLOCK_C)[None, :]
    inside = pixel < pixels
    row = pixel // W
    x = pixel - row * W
    n = row // H
    y = row - n * H

    at = (n * image_n + y * image_h + x * image_w)[:, None] + channel.to(tl.int64) * image_c
    value = tl.load(image + at, mask=inside[:, None] & (channel < 3), other=0).to(tl.float32)
    value = tl.div_rn(value, 127.5) - 1.0
    at = n * depth_n + y * depth_h + x * depth_w
    depth_value = tl.load(depth + at, mask=inside, other=0.0).to(tl.float32)
    label = tl.load(labels + pixel, mask=inside, other=-1).to(tl.int64)
    value = tl.where(channel == 3, depth_value[:, None], value)
    value = tl.where(channel > 3, (label[:, None] == channel - 4).to(tl.float32), value)
    mask = inside[:, None] & (channel < 4 + C)
    tl.store(out + pixel[:, None] * (4 + C) + channel, value, mask=mask)


def launch(image: Tensor, depth: Tensor, labels: Tensor, out: Tensor) -> None:
    """Fill ``out`` [N, 4 + C, H, W], channels-last; at least one pixel."""
    n, channels, height, width = out.shape
    pixels = n * height * width
    block_c = triton.next_power_of_2(channels)
    block_p = max(1, ELEMENTS // block_c)
    depth_n, _, depth_h, depth_w = depth.stride()
    with on_device_of(image):
        fill_kernel[(triton.cdiv(pixels, block_p),)](
            image,
            depth,
            labels,
            out,
            pixels,
            channels - 4,
            height,
            width,
            *image.stride(),
            depth_n,
            depth_h,
            depth_w,
            BLOCK_P=block_p,
            BLOCK_C=block_c,
        )
