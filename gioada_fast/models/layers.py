"""Small pieces shared by the networks."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import instance_norm_act

GROUP_SIZE = 8


def channels(base: int, width: float) -> int:
    """``base`` channels times the width factor, at least one group of eight."""
    return max(GROUP_SIZE, round(base * width / GROUP_SIZE) * GROUP_SIZE)


def group_norm(num_channels: int) -> nn.GroupNorm:
    """Group norm with eight channels a group: no batch statistics, the same for any batch size."""
    return nn.GroupNorm(num_channels // GROUP_SIZE, num_channels)


def normalise(image: Tensor) -> Tensor:
    """uint8 [N, 3, H, W] to float32 in [-1, 1], channels-last, on the image's device."""
    return image.to(torch.float32, memory_format=torch.channels_last) / 127.5 - 1


class InstanceNormAct(nn.Module):
    """act(instance norm(x)) + residual, with the reflection padding of the convolution after it.

    Args:
        activation: "none", "relu", or "leaky_relu" of slope 0.2.
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


def upsample(x: Tensor, size: tuple[int, int]) -> Tensor:
    """[N, C, h, w] to [N, C, *size], bilinear with align_corners=True as in the whole field."""
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=True)
