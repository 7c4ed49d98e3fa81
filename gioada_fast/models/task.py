"""The task network G_task: image to segmentation and depth."""

import torch
from torch import Tensor, nn

from .resnet import ResNet101
from .vgg import VGG16

BACKBONES = {"vgg16": VGG16, "resnet101": ResNet101}

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class TaskNet(nn.Module):
    """DeepLab-v2: one trunk of output stride 8, two heads.

    Args:
        num_classes: C.
        backbone: ``vgg16`` or ``resnet101``.
        width: factor on the trunk's channels.
        norm: ``group`` or ``none``, see the backbones.

    Source: Chen et al. (arXiv 1606.00915).
    """

    def __init__(
        self,
        num_classes: int,
        backbone: str = "vgg16",
        width: float = 1.0,
        norm: str = "group",
    ):
        super().__init__()
        self.trunk = BACKBONES[backbone](width=width, norm=norm)
        self.segmentation = AtrousHead(self.trunk.out_channels, num_classes)
        self.depth = AtrousHead(self.trunk.out_channels, 1)
        mean = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1)
        std = torch.tensor(IMAGENET_STD).view(1, 3, 1, 1)
        # ((x + 1) / 2 - mean) / std as one multiplication and addition
        self.register_buffer("input_scale", 0.5 / std, persistent=False)
        self.register_buffer("input_shift", (0.5 - mean) / std, persistent=False)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Segment and estimate depth.

        Args:
            image: [N, 3, H, W] in [-1, 1].

        Returns:
            (logits [N, C, h, w], depth [N, 1, h, w]) at about H / 8 x W / 8; depth is encoded.
        """
        x = image * self.input_scale + self.input_shift
        features = self.trunk(x.contiguous(memory_format=torch.channels_last))
        return self.segmentation(features), self.depth(features)


class AtrousHead(nn.Module):
    """Sum of four 3x3 convolutions of dilation 6, 12, 18 and 24."""

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Conv2d(c_in, c_out, 3, padding=dilation, dilation=dilation)
            for dilation in (6, 12, 18, 24)
        )
        for branch in self.branches:
            nn.init.normal_(branch.weight, std=0.01)
            nn.init.zeros_(branch.bias)

    def forward(self, x: Tensor) -> Tensor:
        first, *others = self.branches
        out = first(x)
        for branch in others:
            out = out + branch(x)
        return out
