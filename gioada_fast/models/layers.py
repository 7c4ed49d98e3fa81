"""Small pieces shared by the networks."""

import torch.nn.functional as F
from torch import Tensor, nn

GROUP_SIZE = 8


def channels(base: int, width: float) -> int:
    """``base`` channels times the width factor, at least one group of eight."""
    return max(GROUP_SIZE, round(base * width / GROUP_SIZE) * GROUP_SIZE)


def group_norm(num_channels: int) -> nn.GroupNorm:
    """Group norm with eight channels a group: no batch statistics, the same for any batch size."""
    return nn.GroupNorm(num_channels // GROUP_SIZE, num_channels)


def upsample(x: Tensor, size: tuple[int, int]) -> Tensor:
    """[N, C, h, w] to [N, C, *size], bilinear with align_corners=True as in the whole field."""
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=True)
