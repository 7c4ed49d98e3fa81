"""The task network G_task, which predicts segmentation and depth from an image."""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .trunks import Trunk, trunk_class

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class TaskNet(nn.Module):
    """DeepLab-v2 with two heads on one trunk of output stride 8.

    Args:
        num_classes: C.
        backbone: a key of ``trunks.TRUNKS``.
        width: factor on the trunk's channels.
        norm: one of the trunk's ``NORMS``.

    Source: Chen et al. (arXiv 1606.00915).
    """

    input_scale: Tensor
    input_shift: Tensor

    def __init__(
        self,
        num_classes: int,
        backbone: str = "vgg16",
        width: float = 1.0,
        norm: str = "group",
    ):
        super().__init__()
        self.trunk: Trunk = trunk_class(backbone)(width, norm)
        self.segmentation = AtrousHead(self.trunk.out_channels, num_classes)
        self.depth = AtrousHead(self.trunk.out_channels, 1)
        mean = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1)
        std = torch.tensor(IMAGENET_STD).view(1, 3, 1, 1)
        # ((x + 1) / 2 - mean) / std as one multiplication and addition
        self.register_buffer("input_scale", 0.5 / std, persistent=False)
        self.register_buffer("input_shift", (0.5 - mean) / std, persistent=False)

    @property
    def neutral(self) -> Tensor:
        """[1, 3, 1, 1]: the colour, in [-1, 1], that the trunk sees as 0: ImageNet's mean."""
        return -self.input_shift / self.input_scale

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Predict segmentation and depth.

        Args:
            image: [N, 3, H, W] in [-1, 1].

        Returns:
            (logits [N, C, h, w], encoded depth [N, 1, h, w]), h and w about H / 8 and W / 8.
        """
        x = image * self.input_scale + self.input_shift
        features = self.trunk(x.contiguous(memory_format=torch.channels_last))
        logits, depth = atrous_heads(features, (self.segmentation, self.depth))
        return logits, depth


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
