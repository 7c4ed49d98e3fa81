import pytest
import torch

from gioada_fast.models import (
    OutputDiscriminator,
    PatchDiscriminator,
    TaskNet,
    TranslationNet,
)
from gioada_fast.models.layers import normalise
from gioada_fast.models.resnet import ResNet101
from gioada_fast.models.vgg import VGG16, _photograph_like_noise


def image(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("backbone", ["vgg16", "resnet101"])
@pytest.mark.parametrize("norm", ["group", "none"])
def test_task_net_has_output_stride_8_and_two_heads(backbone, norm):
    net = TaskNet(5, backbone, width=0.125, norm=norm)
    logits, depth = net(image(2, 3, 64, 88))
    assert logits.shape[:2] == (2, 5) and depth.shape[:2] == (2, 1)
    assert logits.shape[2:] == depth.shape[2:]
    assert abs(logits.shape[2] - 8) <= 1 and abs(logits.shape[3] - 11) <= 1


@pytest.mark.parametrize("size", [(64, 64), (65, 91), (90, 121)])
@pytest.mark.parametrize("geometry", [True, False])
def test_untrained_translation_changes_nothing(size, geometry):
    net = TranslationNet(4, geometry, width=0.125, blocks=1)
    x = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    depth = torch.rand(2, 1, *size)
    labels = torch.randint(0, 4, (2, *size), dtype=torch.uint8)
    y = net(x, depth, labels)
    assert y.shape == x.shape and y.dtype == torch.float32
    assert (y - normalise(x)).abs().max() < 2e-3


def test_translation_uses_geometry_only_when_asked():
    x = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    depth = torch.rand(1, 1, 64, 64)
    labels = torch.randint(0, 4, (1, 64, 64), dtype=torch.uint8)
    for geometry in (True, False):
        net = TranslationNet(4, geometry, width=0.125, blocks=1)
        torch.nn.init.normal_(net.to_image[1].weight, std=0.1)
        y = net(x, depth, labels)
        for other in (net(x, 1 - depth, labels), net(x, depth, 3 - labels)):
            assert bool(((other - y).abs() > 1e-3).any()) == geometry


def test_discriminators_see_the_receptive_field_of_the_papers():
    patch = PatchDiscriminator(width=0.125)
    assert patch(image(1, 3, 256, 256)).shape == (1, 1, 30, 30)
    x = image(1, 3, 256, 256).requires_grad_()
    patch.apply(_without_norm)
    patch(x)[0, 0, 15, 15].backward()
    rows = (x.grad.abs().sum((0, 1, 3)) > 0).nonzero()
    assert rows.max() - rows.min() + 1 == 70
    assert OutputDiscriminator(6, width=0.125)(image(2, 6, 64, 96)).shape == (2, 1, 2, 3)


def _without_norm(module):
    if isinstance(module, torch.nn.InstanceNorm2d):
        module.forward = lambda x: x


def test_vgg_has_the_key_names_and_shapes_of_torchvision():
    trunk = VGG16(width=1, norm="none")
    state = trunk.state_dict()
    numbers = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    assert trunk.pretrained_keys() == {
        f"features.{n}.{kind}" for n in numbers for kind in ("weight", "bias")
    }
    assert state["features.28.weight"].shape == (512, 512, 3, 3)


def test_resnet_has_the_key_names_and_shapes_of_torchvision():
    state = ResNet101(width=1, norm="none").state_dict()
    assert state["conv1.weight"].shape == (64, 3, 7, 7)
    assert state["layer3.22.conv2.weight"].shape == (256, 256, 3, 3)
    assert state["layer4.0.downsample.1.running_var"].shape == (2048,)
    # torchvision's file has these, the classifier, and a batch counter for each norm
    assert sum("num_batches" not in key for key in state) == 104 * 5


def test_unit_variance_keeps_the_function_up_to_a_factor():
    torch.manual_seed(0)
    trunk = VGG16(width=0.125, norm="none")
    for layer in trunk.features:
        if isinstance(layer, torch.nn.Conv2d):
            layer.weight.data *= 3
            torch.nn.init.normal_(layer.bias)
    x = image(1, 3, 64, 64)
    before = trunk.features(x)
    trunk.scale_to_unit_variance()
    after = trunk.features(x)
    factor = float((before.norm() / after.norm()).detach())
    assert factor > 100
    torch.testing.assert_close(
        after * factor, before, rtol=1e-3, atol=1e-3 * float(before.detach().max())
    )
    y = _photograph_like_noise()
    for layer in trunk.features:
        y = layer(y)
        if isinstance(layer, torch.nn.Conv2d):
            assert abs(float(y.std()) - 1) < 0.01
