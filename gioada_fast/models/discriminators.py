"""The two discriminators: D_img for images, D_out for segmentation and depth."""

from itertools import pairwise

from torch import nn

from .layers import InstanceNormAct, channels


class PatchDiscriminator(nn.Sequential):
    """D_img, the 70x70 PatchGAN: image [N, in_channels, H, W] to patch logits [N, 1, h, w].

    Five 4x4 convolutions with 64, 128, 256 (stride 2), 512 and 1 (stride 1) channels, instance norm
    after the second to the fourth, leaky ReLU 0.2.

    Args:
        width: factor on the channels.
        in_channels: 3 for an image in [-1, 1], 4 for an image and its encoded depth.

    Source: Isola et al. (arXiv 1611.07004), as in CycleGAN.
    """

    def __init__(self, width: float = 1.0, in_channels: int = 3):
        c1, c2, c4, c8 = (channels(base, width) for base in (64, 128, 256, 512))
        super().__init__(
            nn.Conv2d(in_channels, c1, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
            *_conv_norm_act(c1, c2, stride=2),
            *_conv_norm_act(c2, c4, stride=2),
            *_conv_norm_act(c4, c8, stride=1),
            nn.Conv2d(c8, 1, 4, stride=1, padding=1),
        )


class OutputDiscriminator(nn.Sequential):
    """D_out: output map [N, in_channels, H, W] to patch logits [N, 1, H/32, W/32].

    Five 4x4 convolutions of stride 2 with 64, 128, 256, 512 and 1 channels, leaky ReLU 0.2 and no
    norm.

    Args:
        in_channels: C + 1 for segmentation and depth, C for segmentation only or for its product
            with depth.
        width: factor on the channels.

    Source: AdaptSegNet (arXiv 1802.10349); the joint input comes from GIO-Ada (arXiv 1812.05040),
    the product from DADA (arXiv 1904.01886).
    """

    def __init__(self, in_channels: int, width: float = 1.0):
        sizes = [in_channels, *(channels(base, width) for base in (64, 128, 256, 512)), 1]
        layers: list[nn.Module] = []
        for c_in, c_out in pairwise(sizes):
            layers += [
                nn.Conv2d(c_in, c_out, 4, stride=2, padding=1),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        super().__init__(*layers[:-1])


def _conv_norm_act(c_in: int, c_out: int, stride: int) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(c_in, c_out, 4, stride=stride, padding=1)
    return conv, InstanceNormAct("leaky_relu")
