"""Layers and helpers shared by the networks."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..ops import instance_norm_act

GROUP_SIZE = 8
"""Number of channels in a group of group norm; all numbers of channels are multiples of it."""


def channels(base: int, width: float) -> int:
    """``base * width``, rounded to a multiple of ``GROUP_SIZE`` and at least one group."""
    return max(GROUP_SIZE, round(base * width / GROUP_SIZE) * GROUP_SIZE)


def normalise(image: Tensor) -> Tensor:
    """Convert uint8 [N, 3, H, W] to float32 in [-1, 1], channels-last, on the same device."""
    x = image.to(torch.float32, memory_format=torch.channels_last, copy=True)
    return x.div_(127.5).sub_(1)


def recomputed(function: Callable, *args: Any, random: bool = True) -> Any:
    """``function(*args)``, which keeps only its arguments for the backward pass.

    The backward pass calls the function again for the other tensors that it needs: less memory, one
    more forward pass, the same gradients to the bit. Without gradients this is a plain call.

    Args:
        function: takes ``args``, some of which are tensors.
        args: its arguments.
        random: whether the function draws random numbers, as dropout does. The second call then
            draws the same ones.
    """
    if not torch.is_grad_enabled():
        return function(*args)
    return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=random)


class GroupNormAct(nn.GroupNorm):
    """act(group norm(x)) + residual, with ``GROUP_SIZE`` adjacent channels per group.

    Group norm does not depend on the batch. The parameters are those of ``nn.GroupNorm``.

    Args:
        num_channels: a multiple of ``GROUP_SIZE``.
        activation: of ``instance_norm_act``; "none" by default.
    """

    def __init__(self, num_channels: int, activation: str = "none"):
        super().__init__(num_channels // GROUP_SIZE, num_channels)
        self.activation = activation

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        return instance_norm_act(
            x,
            self.activation,
            residual=residual,
            eps=self.eps,
            weight=self.weight,
            bias=self.bias,
            groups=self.num_groups,
        )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.activation}"


class GroupNormReLU(nn.Module):
    """Group norm with ``GROUP_SIZE`` channels per group, followed by ReLU.

    With G groups, group g consists of channels g, g + G, and so on, which is not the order of
    ``nn.GroupNorm`` and ``GroupNormAct``; trained weights depend on it. A channels-last image can
    then be read as G channels with ``GROUP_SIZE`` times as many pixels, whose instance norm is the
    group norm. There are no affine parameters: the convolution before it can scale and shift the
    channels of a group relative to each other.
    """

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        x = x.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
        x = x.reshape(n, h, w * GROUP_SIZE, c // GROUP_SIZE).permute(0, 3, 1, 2)
        x = instance_norm_act(x, "relu").permute(0, 2, 3, 1)
        return x.reshape(n, h, w, c).permute(0, 3, 1, 2)


class InstanceNormAct(nn.Module):
    """act(instance norm(x)) + residual, padded by reflection for the next convolution.

    Args:
        activation: "none", "relu", or "leaky_relu" with slope 0.2.
        pad: pixels of padding on each side.
    """

    def __init__(self, activation: str = "none", pad: int = 0):
        super().__init__()
        self.activation = activation
        self.pad = pad

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        return instance_norm_act(x, self.activation, residual=residual, pad=self.pad)

    def extra_repr(self) -> str:
        return f"{self.activation}, pad={self.pad}"


class ActivationPool(nn.Sequential):
    """An activation, perhaps with a norm, and the pooling after it, both recomputed.

    For the backward pass it keeps neither the large input of the pooling nor its indices, which are
    int64. Both layers take little time beside the convolutions.
    """

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = recomputed(super().forward, x, random=False)
        return out


class UpsamplingConv2d(nn.Conv2d):
    """3x3 convolution of an image that was upsampled by a factor of 2, nearest.

    The upsampled image has each pixel four times, so that the 9 products for an output pixel are of
    4 pixels only. A transposed convolution with the sums of the weights, 4x4 and of stride 2,
    computes the same with 4 products, and without the upsampled image.

    The parameters are those of ``nn.Conv2d(in_channels, out_channels, 3, padding=1)``.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(self, input: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """[N, C, h, w] to [N, C', *size]; sizes are 2h, the default, or 2h - 1; 2w or 2w - 1."""
        twice = [2 * n for n in input.shape[2:]]
        size = twice if size is None else list(size)
        # A last row or column that is there once has padding as neighbour. An exported graph takes
        # sizes of both kinds.
        if torch.compiler.is_exporting() or size != twice:
            return super().forward(F.interpolate(input, size=size, mode="nearest"))
        taps = F.pad(self.weight, (1, 1, 1, 1))
        taps = taps[:, :, 1:] + taps[:, :, :-1]
        taps = taps[..., 1:] + taps[..., :-1]
        taps = taps.flip(2, 3).transpose(0, 1)
        return F.conv_transpose2d(input, taps, self.bias, stride=2, padding=1)


class PixelShuffleConv2d(nn.Conv2d):
    """Convolution with a few output channels, which computes 2x2 pixels at a time.

    Convolutions are fast if they have at least as many output channels as a vector has elements.
    This one has stride 2 and four times as many channels: its kernel, larger by 1, holds the
    weights at the four places from which they give the four pixels.

    The parameters are those of ``nn.Conv2d(in_channels, out_channels, kernel_size)``.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int):
        super().__init__(in_channels, out_channels, kernel_size)

    def forward(self, input: Tensor) -> Tensor:
        if torch.compiler.is_exporting():  # of sizes that may be odd
            return super().forward(input)
        height, width = (n - k + 1 for n, k in zip(input.shape[2:], self.kernel_size, strict=True))
        if height % 2 or width % 2:
            input = F.pad(input, (0, width % 2, 0, height % 2))
        places = [(right, 1 - right, low, 1 - low) for low in (0, 1) for right in (0, 1)]
        weight = torch.stack([F.pad(self.weight, place) for place in places], 1).flatten(0, 1)
        assert self.bias is not None
        four = F.conv2d(input, weight, self.bias.repeat_interleave(4), stride=2)
        return F.pixel_shuffle(four, 2)[:, :, :height, :width]


def upsample(x: Tensor, size: Sequence[int]) -> Tensor:
    """Upsample [N, C, h, w] to [N, C, *size], bilinear with align_corners=True."""
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=True)


def interior(x: Tensor, border: int) -> Tensor:
    """View of [N, C, H, W] without ``border`` pixels on each side.

    Its gradient is channels-last, unlike the gradient of a slice, so that it is fast to add to the
    gradient of the other branch.
    """
    return _Interior.apply(x, border)


class _Interior(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, border: int) -> Tensor:
        ctx.border = border
        return x[:, :, border : x.shape[2] - border, border : x.shape[3] - border]

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return F.pad(grad, (ctx.border,) * 4), None
