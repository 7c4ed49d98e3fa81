"""VGG-16 with output stride 8 as in DeepLab-v2, with the key names of torchvision."""

import itertools
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..layers import ActivationPool, GroupNormReLU, channels
from .base import Trunk

# Stages of (index of the convolution in torchvision's vgg16().features, output channels, dilation).
# For output stride 8, the last two of the five pooling layers are left out and the last stage is
# dilated.
_STAGES = (
    ((0, 64, 1), (2, 64, 1)),
    ((5, 128, 1), (7, 128, 1)),
    ((10, 256, 1), (12, 256, 1), (14, 256, 1)),
    ((17, 512, 1), (19, 512, 1), (21, 512, 1)),
    ((24, 512, 2), (26, 512, 2), (28, 512, 2)),
)
_POOLINGS = 3


class VGG16(Trunk):
    """VGG-16: thirteen convolutions, and two dilated convolutions in place of fc6 and fc7.

    Args:
        width: factor on the channels; 1 for pretrained weights.
        norm: ``group`` to train from scratch, ``none`` as published.

    Source: Simonyan and Zisserman (arXiv 1409.1556); DeepLab-v2 (arXiv 1606.00915), in the form of
    AdaptSegNet's ``DeeplabVGG``.
    """

    NORMS = ("group", "none")
    IMAGENET_URL = "https://download.pytorch.org/models/vgg16-397923af.pth"  # IMAGENET1K_V1

    def __init__(self, width: float = 1.0, norm: str = "group"):
        super().__init__(width, norm)
        self.norm = norm
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        c_in = 3
        for number, stage in enumerate(_STAGES, start=1):
            for index, base, dilation in stage:
                c_out = channels(base, width)
                layers[str(index)] = _conv(c_in, c_out, dilation)
                layers[f"{index}_relu"] = _activation(norm)
                c_in = c_out
            if number <= _POOLINGS:
                name, activation = layers.popitem()
                layers[name] = ActivationPool(activation, nn.MaxPool2d(2))
        self.features = nn.Sequential(layers)
        self.out_channels = channels(1024, width)
        fc: list[nn.Module] = []
        for _ in range(2):
            fc += [_conv(c_in, self.out_channels, 4), _activation(norm)]
            c_in = self.out_channels
        self.fc = nn.Sequential(*fc)

    def forward(self, x: Tensor) -> Tensor:
        """See ``Trunk.forward``; h is H // 8 and w is W // 8."""
        for stage in self.stages():
            x = self.run(stage, x)
        return x

    def blocks(self) -> Sequence[Sequence[nn.Module]]:
        """Each convolution with its norm, ReLU and pooling."""
        layers = [*self.features, *self.fc]
        return [layers[i : i + 2] for i in range(0, len(layers), 2)]

    def stages(self) -> Sequence[Sequence[nn.Module]]:
        """The five stages of VGG-16, and the convolutions in place of fc6 and fc7.

        Without a norm, a convolution alone has nothing to compute again: it keeps its input, and
        the ReLU after it its output.
        """
        blocks = iter(self.blocks())
        sizes = [*map(len, _STAGES), len(self.fc) // 2]
        return [
            [layer for block in itertools.islice(blocks, size) for layer in block] for size in sizes
        ]

    def pretrained_keys(self) -> set[str]:
        """The thirteen convolutions; the two in place of fc6 and fc7 start from random weights."""
        return {f"features.{key}" for key in self.features.state_dict()}

    @torch.no_grad()
    def scale_to_unit_variance(self) -> None:
        """Scale every convolution so that its output has about unit variance.

        Activations of the pretrained VGG-16 are in the hundreds, so that no learning rate suits all
        layers. ReLU and pooling are positively homogeneous: dividing a layer's weight, its bias and
        all later biases by s divides the features by s and changes nothing else. The scales are
        measured on fixed noise with the spectrum of photographs. With group norm nothing is scaled.
        """
        if self.norm != "none":
            return
        x = _photograph_like_noise()
        scale = 1.0
        for layer in self.features:
            if isinstance(layer, nn.Conv2d):
                assert layer.bias is not None
                layer.bias.div_(scale)
                deviation = float(layer(x).std())
                layer.weight.div_(deviation)
                layer.bias.div_(deviation)
                scale *= deviation
            x = layer(x)


def _activation(norm: str) -> nn.Module:
    return GroupNormReLU() if norm == "group" else nn.ReLU()


def _conv(c_in: int, c_out: int, dilation: int) -> nn.Conv2d:
    conv = nn.Conv2d(c_in, c_out, 3, padding=dilation, dilation=dilation)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


def _photograph_like_noise(size: int = 128) -> Tensor:
    """Noise [4, 3, size, size] with a 1/f spectrum and unit variance, the same in each call."""
    generator = torch.Generator().manual_seed(0)
    spectrum = torch.fft.rfft2(torch.randn(4, 3, size, size, generator=generator))
    frequency = torch.hypot(torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)[None, :])
    frequency[0, 0] = 1 / size
    noise = torch.fft.irfft2(spectrum / frequency)
    return noise / noise.std()
