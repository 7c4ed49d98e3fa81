"""The trunks against the published architectures in plain PyTorch."""

import pytest
import torch
from torch import Tensor, nn

from gioada_fast.errors import InputError
from gioada_fast.models import TRUNKS, TaskNet
from gioada_fast.models.layers import channels
from gioada_fast.models.trunks import trunk_class


class PublishedVGG16(nn.Sequential):
    """``DeeplabVGG`` of AdaptSegNet without its classifier."""

    def __init__(self, width: float):
        layers: list[nn.Module] = []
        c_in = 3

        def add(base: int, dilation: int) -> None:
            nonlocal c_in, layers
            c = channels(base, width)
            layers += [nn.Conv2d(c_in, c, 3, padding=dilation, dilation=dilation)]
            layers += [nn.ReLU(inplace=True)]
            c_in = c

        for base, convs in ((64, 2), (128, 2), (256, 3)):
            for _ in range(convs):
                add(base, 1)
            layers.append(nn.MaxPool2d(2))
        for base, dilation in ((512, 1), (512, 2)):
            for _ in range(3):
                add(base, dilation)
        for _ in range(2):
            add(1024, 4)
        super().__init__(*layers)
        self.out_channels = c_in


class PublishedResNet101(nn.Sequential):
    """ResNet-101 of output stride 8, with group norm or fixed batch norm."""

    def __init__(self, width: float, norm: str):
        c_in = channels(64, width)
        layers: list[nn.Module] = [nn.Conv2d(3, c_in, 7, 2, 3, bias=False), _norm(norm, c_in)]
        layers += [nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
        for base, blocks, stride, dilation in (
            (64, 3, 1, 1),
            (128, 4, 2, 1),
            (256, 23, 1, 2),
            (512, 3, 1, 4),
        ):
            c = channels(base, width)
            for block in range(blocks):
                layers.append(PublishedBottleneck(c_in, c, 1 if block else stride, dilation, norm))
                c_in = 4 * c
        super().__init__(*layers)
        self.out_channels = c_in


class PublishedBottleneck(nn.Module):
    """``Bottleneck`` of torchvision with dilation."""

    def __init__(self, c_in: int, c: int, stride: int, dilation: int, norm: str):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(c_in, c, 1, bias=False),
            _norm(norm, c),
            nn.ReLU(inplace=True),
            nn.Conv2d(c, c, 3, stride, dilation, dilation, bias=False),
            _norm(norm, c),
            nn.ReLU(inplace=True),
            nn.Conv2d(c, 4 * c, 1, bias=False),
            _norm(norm, 4 * c),
        )
        self.downsample = nn.Sequential()
        if stride != 1 or c_in != 4 * c:
            conv = nn.Conv2d(c_in, 4 * c, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, _norm(norm, 4 * c))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.body(x) + self.downsample(x))


def _norm(kind: str, c: int) -> nn.Module:
    if kind == "group":
        return nn.GroupNorm(c // 8, c)
    return nn.BatchNorm2d(c).eval().requires_grad_(False)


def published(backbone, norm):
    return PublishedVGG16(0.125) if backbone == "vgg16" else PublishedResNet101(0.125, norm)


@pytest.mark.parametrize(
    ("backbone", "norm"),
    [("vgg16", "none"), ("resnet101", "group"), ("resnet101", "frozen_batch")],
)
def test_a_trunk_computes_what_the_published_architecture_does(backbone, norm):
    """Compares in float64. ``test_yardstick.py`` has VGG-16 with group norm."""
    ours, theirs = TRUNKS[backbone](0.125, norm).double(), published(backbone, norm).double()
    for buffer in ours.buffers():
        buffer.add_(0.1 * torch.rand_like(buffer))
    state = {k: v for k, v in theirs.state_dict().items() if "num_batches" not in k}
    for source, target in zip(ours.state_dict().values(), state.values(), strict=True):
        target.copy_(source)
    x = torch.randn(1, 3, 48, 64, dtype=torch.float64)
    found, expected = ours(x), theirs(x)
    assert found.shape[1] == ours.out_channels
    torch.testing.assert_close(found, expected)
    weight = torch.randn_like(found)
    grads = [
        torch.autograd.grad(out, [p for p in net.parameters() if p.requires_grad], weight)
        for out, net in ((found, ours), (expected, theirs))
    ]
    torch.testing.assert_close(*grads)


def test_the_older_name_of_frozen_batch_norm_builds_the_same_network():
    new, old = (TRUNKS["resnet101"](0.125, norm).state_dict() for norm in ("frozen_batch", "none"))
    assert [(k, v.shape) for k, v in new.items()] == [(k, v.shape) for k, v in old.items()]


def test_the_error_for_an_unknown_trunk_or_norm_lists_the_choices():
    with pytest.raises(InputError, match=r"model\.backbone is 'vgg19'.*vgg16, resnet101"):
        trunk_class("vgg19")
    with pytest.raises(InputError, match=r"model\.norm is 'batch', but VGG16 has group, none"):
        TaskNet(4, "vgg16", 0.125, norm="batch")
