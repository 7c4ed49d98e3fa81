import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gioada_fast import ops
from gioada_fast.models import (
    OutputDiscriminator,
    PatchDiscriminator,
    TaskNet,
    TranslationNet,
)
from gioada_fast.models.heads import AtrousHead, atrous_heads
from gioada_fast.models.layers import (
    GroupNormReLU,
    InstanceNormAct,
    interior,
    normalise,
)
from gioada_fast.models.trunks.resnet import ResNet101
from gioada_fast.models.trunks.vgg import VGG16, _photograph_like_noise


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
@pytest.mark.parametrize("change", ["logit", "fraction"])
def test_an_untrained_translation_network_returns_its_input(size, geometry, change):
    net = TranslationNet(4, geometry, width=0.125, blocks=1, change=change)
    x = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    depth = torch.rand(2, 1, *size)
    labels = torch.randint(0, 4, (2, *size), dtype=torch.uint8)
    y = net(x, depth, labels)
    assert y.shape == x.shape and y.dtype == torch.float32
    assert (y - normalise(x)).abs().max() < 2e-3


def test_a_fraction_changes_white_and_black_pixels_where_a_logit_does_not():
    inputs = [x[:1] for x in geometry(32, 40)]
    inputs[0][..., :20], inputs[0][..., 20:] = 0, 255
    moved = {}
    for change in ("logit", "fraction"):
        net = TranslationNet(4, width=0.125, blocks=1, change=change)
        for bias in (-0.3, 0.3):
            nn.init.constant_(net.to_image.bias, bias)
            moved[change, bias] = net(*inputs) - normalise(inputs[0])
    t = float(torch.tanh(torch.tensor(0.3)))
    for bias, black, white in ((-0.3, 0.0, -2 * t), (0.3, 2 * t, 0.0)):
        expected = torch.full((1, 3, 32, 40), black)
        expected[..., 20:] = white
        torch.testing.assert_close(moved["fraction", bias], expected, atol=1e-6, rtol=0)
        assert moved["logit", bias].abs().max() < 2e-3
    with pytest.raises(ValueError, match="logit or fraction"):
        TranslationNet(4, change="other")


def test_translation_with_normals_needs_them_and_uses_them():
    net = TranslationNet(4, width=0.125, blocks=1, normals=True)
    inputs = [x[:1] for x in geometry(32, 40)]
    with pytest.raises(ValueError, match="normals is None"):
        net(*inputs)
    normals = image(1, 3, 32, 40)
    assert (net(*inputs, normals=normals) - normalise(inputs[0])).abs().max() < 2e-3
    nn.init.normal_(net.to_image.weight, std=0.1)
    difference = net(*inputs, normals=normals) - net(*inputs, normals=-normals)
    assert difference.abs().max() > 1e-3


def test_translation_uses_geometry_only_when_asked():
    x = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    depth = torch.rand(1, 1, 64, 64)
    labels = torch.randint(0, 4, (1, 64, 64), dtype=torch.uint8)
    for geometry in (True, False):
        net = TranslationNet(4, geometry, width=0.125, blocks=1)
        nn.init.normal_(net.to_image.weight, std=0.1)
        y = net(x, depth, labels)
        for other in (net(x, 1 - depth, labels), net(x, depth, 3 - labels)):
            assert bool(((other - y).abs() > 1e-3).any()) == geometry


def plain_conv(conv):
    """PyTorch's convolution with the weights of a layer that may compute it in another way."""
    plain = nn.Conv2d(
        conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding
    )
    plain.weight, plain.bias = conv.weight, conv.bias
    return plain


class PlainTranslationNet(nn.Module):
    """CycleGAN's generator from PyTorch's own modules, with the weights of a TranslationNet."""

    def __init__(self, net):
        super().__init__()
        convs = (plain_conv(m) for m in net.modules() if isinstance(m, nn.Conv2d))
        layers = [nn.ReflectionPad2d(3)]
        for _ in range(3):
            layers += self.conv_norm_relu(next(convs))
        self.encoder = nn.Sequential(*layers)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.ReflectionPad2d(1),
                *self.conv_norm_relu(next(convs)),
                nn.ReflectionPad2d(1),
                *self.conv_norm_relu(next(convs))[:2],
            )
            for _ in net.blocks
        )
        self.ups = nn.ModuleList(nn.Sequential(*self.conv_norm_relu(next(convs))) for _ in range(2))
        self.to_image = nn.Sequential(nn.ReflectionPad2d(3), next(convs))

    @staticmethod
    def conv_norm_relu(conv):
        return [conv, nn.InstanceNorm2d(conv.out_channels), nn.ReLU()]

    def forward(self, image, depth, labels):
        x = self.encoder(ops.translation_input(image, depth, labels, 4))
        for block in self.blocks:
            x = x + block(x)
        half = (image.shape[2] + 1) // 2, (image.shape[3] + 1) // 2
        for up, size in zip(self.ups, (half, image.shape[2:]), strict=True):
            x = up(F.interpolate(x, size=size))
        return torch.tanh(self.to_image(x).float() + torch.atanh(normalise(image) * 0.999))


def plain_patch_discriminator(net):
    """The discriminator of pix2pix with the weights of a PatchDiscriminator."""
    first, *inner, last = (m for m in net.modules() if isinstance(m, nn.Conv2d))
    norms = [(conv, nn.InstanceNorm2d(conv.out_channels), nn.LeakyReLU(0.2)) for conv in inner]
    return nn.Sequential(first, nn.LeakyReLU(0.2), *(m for group in norms for m in group), last)


def translation(blocks=2):
    torch.manual_seed(0)
    net = TranslationNet(4, width=0.125, blocks=blocks)
    nn.init.normal_(net.to_image.weight, std=0.1)
    return net.to(memory_format=torch.channels_last)


def geometry(height, width):
    torch.manual_seed(1)
    labels = torch.randint(0, 4, (2, height, width), dtype=torch.uint8)
    picture = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)
    return picture, torch.rand(2, 1, height, width), labels


def results(net, inputs, weights):
    """The network's output, and the gradients of the weights and of a float input."""
    inputs = [x.detach() for x in inputs]
    leaves = [*weights, *(x.requires_grad_() for x in inputs[:1] if x.is_floating_point())]
    out = net(*inputs)
    loss = (out * torch.linspace(0.5, 1.5, out.shape[-1])).sum()
    return [out.detach(), *torch.autograd.grad(loss, leaves)]


def assert_close(found, expected, tolerance):
    """Assert equality relative to the norm of each tensor.

    The gradient of a bias before an instance norm is nothing but rounding error.
    """
    largest = max(float(e.norm()) for e in expected)
    for f, e in zip(found, expected, strict=True):
        assert float((f - e).norm()) <= tolerance * max(float(e.norm()), 0.01 * largest)


@pytest.mark.parametrize(("size", "blocks"), [((36, 44), 2), ((33, 50), 3), ((28, 29), 0)])
def test_translation_equals_plain_pytorch(size, blocks):
    net = translation(blocks)
    inputs, weights = geometry(*size), list(net.parameters())
    expected = results(PlainTranslationNet(net), inputs, weights)
    assert_close(results(net, inputs, weights), expected, 1e-4)


def test_patch_discriminator_equals_plain_pytorch():
    torch.manual_seed(0)
    net = PatchDiscriminator(width=0.125)
    inputs, weights = (image(2, 3, 72, 93),), list(net.parameters())
    expected = results(plain_patch_discriminator(net), inputs, weights)
    assert_close(results(net, inputs, weights), expected, 1e-4)


@pytest.mark.parametrize("network", ["translation", "discriminator"])
def test_autocast_is_as_accurate_as_in_plain_pytorch(network):
    if network == "translation":
        net, inputs = translation(), geometry(36, 44)
        plain = PlainTranslationNet(net)
    else:
        net, inputs = PatchDiscriminator(width=0.125), (image(2, 3, 72, 93),)
        plain = plain_patch_discriminator(net)
    weights = [w for w in net.parameters() if w.dim() > 1]  # see assert_close on the biases
    exact = results(plain, inputs, weights)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected, found = results(plain, inputs, weights), results(net, inputs, weights)
    for f, e, x in zip(found, expected, exact, strict=True):
        assert f.dtype == e.dtype
        assert float((f - x).norm()) <= 1.5 * float((e - x).norm())


@pytest.mark.parametrize("bfloat16", [False, True], ids=["float32", "autocast"])
def test_networks_compile_in_one_graph(bfloat16):
    torch.manual_seed(0)
    for net, inputs in (
        (translation(), geometry(36, 44)),
        (PatchDiscriminator(width=0.125), (image(2, 3, 40, 48),)),
    ):
        torch.compiler.reset()
        compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            expected = results(net, inputs, net.parameters())
            found = results(compiled, inputs, net.parameters())
        assert_close(found, expected, 0.05 if bfloat16 else 1e-4)


def test_discriminators_have_the_receptive_fields_of_the_papers():
    patch = PatchDiscriminator(width=0.125)
    assert patch(image(1, 3, 256, 256)).shape == (1, 1, 30, 30)
    x = image(1, 3, 256, 256).requires_grad_()
    patch.apply(_without_norm)
    patch(x)[0, 0, 15, 15].backward()
    rows = (x.grad.abs().sum((0, 1, 3)) > 0).nonzero()
    assert rows.max() - rows.min() + 1 == 70
    assert OutputDiscriminator(6, width=0.125)(image(2, 6, 64, 96)).shape == (2, 1, 2, 3)


def _without_norm(module):
    if isinstance(module, InstanceNormAct):
        module.forward = nn.LeakyReLU(0.2).forward


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
    # torchvision's file also has the classifier and a batch counter for each norm
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


@pytest.mark.parametrize(("h", "w"), [(30, 40), (9, 20), (5, 4), (1, 1)])
def test_atrous_heads_equal_the_sums_of_their_branches(h, w):
    """Compares outputs and all gradients; in small images, some taps are always outside."""
    heads = AtrousHead(6, 5).double(), AtrousHead(6, 1).double()
    for head in heads:
        for branch in head.branches:
            torch.nn.init.normal_(branch.bias)
    parameters = [p for head in heads for p in head.parameters()]
    x = torch.randn(2, 6, h, w, dtype=torch.float64, requires_grad=True)
    found = atrous_heads(x, heads)
    expected = [sum(branch(x) for branch in head.branches) for head in heads]
    weights = [torch.randn_like(out) for out in expected]
    grads = torch.autograd.grad(found, [x, *parameters], weights)
    for f, e in zip(
        [*found, *grads],
        [*expected, *torch.autograd.grad(expected, [x, *parameters], weights)],
        strict=True,
    ):
        # the bias goes through float32
        torch.testing.assert_close(f, e, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(heads[0](x), expected[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_group_norm_equals_that_of_pytorch_on_reordered_channels(layout):
    x = torch.randn(2, 24, 5, 7).to(memory_format=layout).requires_grad_()
    order = torch.arange(24).view(8, 3).t().flatten()  # channels of one group side by side
    found = GroupNormReLU()(x)[:, order]
    expected = torch.relu(torch.nn.functional.group_norm(x[:, order], 3))
    torch.testing.assert_close(found, expected)
    weight = torch.randn_like(found)
    torch.testing.assert_close(
        *(torch.autograd.grad(out, x, weight)[0] for out in (found, expected)), rtol=1e-4, atol=1e-5
    )


def test_the_gradient_of_an_interior_is_channels_last():
    x = torch.randn(2, 8, 7, 9).to(memory_format=torch.channels_last).requires_grad_()
    y = interior(x, 2)
    assert torch.equal(y, x[:, :, 2:-2, 2:-2]) and y.data_ptr() == x[:, :, 2:, 2:].data_ptr()
    weight = torch.randn(y.shape).to(memory_format=torch.channels_last)
    grad = torch.autograd.grad(y, x, weight)[0]
    assert grad.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(grad, torch.nn.functional.pad(weight, (2,) * 4))
