"""ResNet-101 with output stride 8 as in DeepLab-v2, with the key names of torchvision."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import GroupNormAct, channels
from .base import Trunk

_STAGES = ((64, 3, 1, 1), (128, 4, 2, 1), (256, 23, 1, 2), (512, 3, 1, 4))
"""(channels, blocks, stride, dilation) of layer1 to layer4."""
_EXPANSION = 4


class FrozenBatchNorm2d(nn.Module):
    """act(batch norm(x)) + residual, with fixed statistics, weight and bias.

    For pretrained weights: statistics of small batches are too noisy to train with.

    Args:
        num_channels: channels of x.
        activation: "none" or "relu".
        eps: added to the variance.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_channels: int, activation: str = "none", eps: float = 1e-5):
        super().__init__()
        self.activation = activation
        self.eps = eps
        self.register_buffer("weight", torch.ones(num_channels))
        self.register_buffer("bias", torch.zeros(num_channels))
        self.register_buffer("running_mean", torch.zeros(num_channels))
        self.register_buffer("running_var", torch.ones(num_channels))

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        shift = self.bias - self.running_mean * scale
        y = x * scale.to(x.dtype).view(1, -1, 1, 1) + shift.to(x.dtype).view(1, -1, 1, 1)
        if self.activation == "relu":
            y = F.relu(y, inplace=True)
        return y if residual is None else y + residual


def _norm(kind: str, num_channels: int, activation: str = "none") -> nn.Module:
    norm = GroupNormAct if kind == "group" else FrozenBatchNorm2d
    return norm(num_channels, activation)


class Bottleneck(nn.Module):
    """1x1, dilated 3x3 and 1x1 convolution with a shortcut, with the key names of torchvision."""

    def __init__(self, c_in: int, c: int, stride: int, dilation: int, norm: str):
        super().__init__()
        c_out = c * _EXPANSION
        self.conv1 = nn.Conv2d(c_in, c, 1, bias=False)
        self.bn1 = _norm(norm, c, "relu")
        self.conv2 = nn.Conv2d(
            c, c, 3, stride=stride, padding=dilation, dilation=dilation, bias=False
        )
        self.bn2 = _norm(norm, c, "relu")
        self.conv3 = nn.Conv2d(c, c_out, 1, bias=False)
        self.bn3 = _norm(norm, c_out)
        self.downsample = None
        if stride != 1 or c_in != c_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(c_in, c_out, 1, stride=stride, bias=False), _norm(norm, c_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.bn1(self.conv1(x))
        x = self.bn2(self.conv2(x))
        return F.relu(self.bn3(self.conv3(x), shortcut), inplace=True)


class ResNet101(Trunk):
    """ResNet-101 without its classifier; layer3 and layer4 are dilated instead of strided.

    Args:
        width: factor on the channels; 1 for pretrained weights.
        norm: ``group`` to train from scratch, ``frozen_batch`` for the batch norm of pretrained
            weights; ``none`` is the older name of ``frozen_batch``.

    Source: He et al. (arXiv 1512.03385); DeepLab-v2 (arXiv 1606.00915).
    """

    NORMS = ("group", "frozen_batch", "none")
    IMAGENET_URL = "https://download.pytorch.org/models/resnet101-63fe2227.pth"  # IMAGENET1K_V1

    def __init__(self, width: float = 1.0, norm: str = "group"):
        super().__init__(width, norm)
        c_in = channels(64, width)
        self.conv1 = nn.Conv2d(3, c_in, 7, stride=2, padding=3, bias=False)
        self.bn1 = _norm(norm, c_in, "relu")
        stages: list[nn.Sequential] = []
        for base, blocks, stride, dilation in _STAGES:
            c = channels(base, width)
            stage: list[nn.Module] = []
            for block in range(blocks):
                stage.append(Bottleneck(c_in, c, stride if block == 0 else 1, dilation, norm))
                c_in = c * _EXPANSION
            stages.append(nn.Sequential(*stage))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.out_channels = c_in
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """See ``Trunk.forward``."""
        x = self.bn1(self.conv1(x))
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        for block in self.blocks():
            x = self.run(block, x)
        return x

    def blocks(self) -> Sequence[Sequence[nn.Module]]:
        """The bottlenecks."""
        layers = (self.layer1, self.layer2, self.layer3, self.layer4)
        return [[block] for layer in layers for block in layer]
