"""Triton kernel of ``translation_input``: each lane computes one element of the result.

Adjacent lanes write adjacent channels, so stores fill whole cache lines. All channels of a pixel
read the same few bytes, which stay in the cache.
"""

import triton
import triton.language as tl
from torch import Tensor

from gioada_fast.ops.triton._common import on_device_of

BLOCK = 1024


@triton.jit
def fill_kernel(
    image,  # [N, 3, H, W], any strides
    depth,  # [N, 1, H, W], any strides
    labels,  # [N, H, W]
    out,  # [N, H, W, 4 + C]
    elements,
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
    BLOCK: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < elements
    pixel = i // (4 + C)
    channel = (i - pixel * (4 + C)).to(tl.int32)
    x = pixel % W
    y = pixel // W % H
    n = pixel // W // H

    at = n * image_n + channel * image_c + y * image_h + x * image_w
    value = tl.load(image + at, mask=inside & (channel < 3), other=0).to(tl.float32)
    value = tl.div_rn(value, 127.5) - 1.0
    at = n * depth_n + y * depth_h + x * depth_w
    depth_value = tl.load(depth + at, mask=inside & (channel == 3), other=0.0).to(tl.float32)
    label = tl.load(labels + pixel, mask=inside & (channel > 3), other=-1).to(tl.int64)
    value = tl.where(channel == 3, depth_value, value)
    value = tl.where(channel > 3, (label == channel - 4).to(tl.float32), value)
    tl.store(out + i, value, mask=inside)


def launch(image: Tensor, depth: Tensor, labels: Tensor, out: Tensor) -> None:
    """Fill ``out`` [N, 4 + C, H, W], channels-last; at least one pixel."""
    _, _, height, width = image.shape
    elements = out.numel()
    depth_n, _, depth_h, depth_w = depth.stride()
    with on_device_of(image):
        fill_kernel[(triton.cdiv(elements, BLOCK),)](
            image,
            depth,
            labels,
            out,
            elements,
            out.shape[1] - 4,
            height,
            width,
            *image.stride(),
            depth_n,
            depth_h,
            depth_w,
            BLOCK=BLOCK,
        )
