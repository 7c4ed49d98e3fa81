"""The heads of the task network, which turn a trunk's features into segmentation and depth.

``deeplab`` has two heads on one feature map. The other two fuse all feature maps in one decoder,
whose result a 1x1 convolution turns into the segmentation and another one into the depth. Where
the published decoders have batch norm, these have group norm: the loss of a pair then does not
depend on the rest of its batch.
"""

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import GroupNormAct

DILATIONS = (6, 12, 18)
"""Dilations of the DAFormer decoder, beside its 1x1 convolution."""


class Decoder(nn.Module):
    """Projects feature maps to the same channels and size; subclasses fuse them.

    The size is the finest map's. If its stride is above 8, as in vision transformers, the
    maps are upsampled to a stride of about 4, as Rein does (Wei et al., CVPR 2024, arXiv
    2312.04265).

    Args:
        scales: (stride, channels) of each map, finest first.
        channels: of the projections and of the result, a multiple of 8.
    """

    def __init__(self, scales: Sequence[tuple[int, int]], channels: int):
        super().__init__()
        self.projections = nn.ModuleList(nn.Conv2d(c, channels, 1) for _, c in scales)
        finest = scales[0][0]
        self.upsampling = 2 ** round(math.log2(finest / 4)) if finest > 8 else 1
        self.dropout = nn.Dropout2d(0.1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps [N, C_i, h_i, w_i] to [N, channels, h, w]."""
        size = [side * self.upsampling for side in maps[0].shape[2:]]
        projected = [
            _resize(project(x), size) for project, x in zip(self.projections, maps, strict=True)
        ]
        fused: Tensor = self.dropout(self.fuse(torch.cat(projected, dim=1)))
        return fused

    def fuse(self, x: Tensor) -> Tensor:
        """All projected maps [N, maps * channels, h, w] to [N, channels, h, w]."""
        raise NotImplementedError


class SegFormerDecoder(Decoder):
    """All-MLP decoder: a 1x1 convolution, norm and ReLU fuse the maps.

    Source: Xie et al. (NeurIPS 2021, arXiv 2105.15203).
    """

    def __init__(self, scales: Sequence[tuple[int, int]], channels: int):
        super().__init__(scales, channels)
        self.fusion = _conv_norm_relu(len(scales) * channels, channels)

    def fuse(self, x: Tensor) -> Tensor:
        """See ``Decoder.fuse``."""
        out: Tensor = self.fusion(x)
        return out


class DAFormerDecoder(Decoder):
    """Context-aware fusion: depthwise separable convolutions of several dilations.

    Source: Hoyer, Dai, Van Gool (CVPR 2022, arXiv 2111.14887), decoder ``sepaspp`` of its
    repository; the atrous spatial pyramid comes from DeepLab-v3+ (arXiv 1802.02611).
    """

    def __init__(self, scales: Sequence[tuple[int, int]], channels: int):
        super().__init__(scales, channels)
        c_in = len(scales) * channels
        branches = [_conv_norm_relu(c_in, channels)]
        for dilation in DILATIONS:
            depthwise = _conv_norm_relu(c_in, c_in, 3, dilation, groups=c_in)
            branches.append(nn.Sequential(depthwise, _conv_norm_relu(c_in, channels)))
        self.branches = nn.ModuleList(branches)
        self.bottleneck = _conv_norm_relu(len(branches) * channels, channels, 3)

    def fuse(self, x: Tensor) -> Tensor:
        """See ``Decoder.fuse``."""
        out: Tensor = self.bottleneck(torch.cat([branch(x) for branch in self.branches], dim=1))
        return out


DECODERS: dict[str, type[Decoder]] = {"segformer": SegFormerDecoder, "daformer": DAFormerDecoder}
"""Decoders by their name in ``model.head``."""


def classifier(c_in: int, c_out: int) -> nn.Conv2d:
    """1x1 convolution for the output of a decoder, which starts at about zero."""
    conv = nn.Conv2d(c_in, c_out, 1)
    nn.init.normal_(conv.weight, std=0.01)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


def _resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Upsample to a size; not with align_corners, because the maps cover the same pixels."""
    if list(x.shape[2:]) == list(size):
        return x
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


def _conv_norm_relu(
    c_in: int, c_out: int, kernel: int = 1, dilation: int = 1, groups: int = 1
) -> nn.Sequential:
    padding = kernel // 2 * dilation
    conv = nn.Conv2d(
        c_in, c_out, kernel, padding=padding, dilation=dilation, groups=groups, bias=False
    )
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return nn.Sequential(conv, GroupNormAct(c_out, "relu"))


class AtrousHead(nn.Module):
    """Sum of four 3x3 convolutions of dilation 6, 12, 18 and 24."""

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        convs = [nn.Conv2d(c_in, c_out, 3, padding=d, dilation=d) for d in (6, 12, 18, 24)]
        for conv in convs:
            nn.init.normal_(conv.weight, std=0.01)
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)
        self.branches = nn.ModuleList(convs)

    def forward(self, x: Tensor) -> Tensor:
        """[N, c_in, h, w] to [N, c_out, h, w]."""
        return atrous_heads(x, (self,))[0]


def atrous_heads(x: Tensor, heads: Sequence[AtrousHead]) -> tuple[Tensor, ...]:
    """Outputs of all heads, from one 1x1 convolution that computes all taps of all branches.

    Each tap of a dilated convolution is a 1x1 convolution whose result is shifted. One convolution
    for all taps has enough output channels to be fast, while a head with few channels does not;
    PyTorch's gradients of convolutions with a large dilation are also slow on CPUs. The shifted
    results are added in float32. Taps that lie outside the image for every pixel are skipped.

    Args:
        x: [N, c_in, h, w].
        heads: heads with the same dilations.
    """
    if torch.compiler.is_exporting():
        return _plain_heads(x, heads)
    h, w = x.shape[2:]
    channels = [head.branches[0].out_channels for head in heads]
    branches = list(zip(*(head.branches for head in heads), strict=True))
    weights: dict[tuple[int, int], Tensor] = {}  # by shift; all branches share the centre tap
    for convs in branches:
        weight = torch.cat([conv.weight for conv in convs])
        dilation = convs[0].dilation[0]
        for i, j in itertools.product(range(3), range(3)):
            shift = (i - 1) * dilation, (j - 1) * dilation
            if abs(shift[0]) < h and abs(shift[1]) < w:
                tap = weight[:, :, i, j]
                weights[shift] = weights[shift] + tap if shift in weights else tap
    taps = F.conv2d(x, torch.cat(list(weights.values()))[:, :, None, None])
    biases = torch.stack([torch.cat([conv.bias for conv in convs]) for convs in branches])
    # mean, not sum: the gradient of a sum is one tensor that all branches share, and accumulation
    # would add the gradient of a further batch to it once per branch
    bias = biases.mean(0) * len(branches)
    out = bias.float().view(-1, 1, 1)
    for (dy, dx), tap in zip(weights, taps.split(sum(channels), 1), strict=True):
        out = out + F.pad(tap, (-dx, dx, -dy, dy))
    return out.to(taps.dtype).split(channels, 1)


def _plain_heads(x: Tensor, heads: Sequence[AtrousHead]) -> tuple[Tensor, ...]:
    """``atrous_heads`` by dilated convolutions, which are the same for an image of any size."""
    outputs = []
    for head in heads:
        first, *others = (branch(x) for branch in head.branches)
        outputs.append(sum(others, first))
    return tuple(outputs)
