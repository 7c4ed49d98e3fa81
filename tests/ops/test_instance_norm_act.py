"""``instance_norm_act``: the shared op tests, difficult statistics, and gradients."""

import functools
import importlib

import pytest
import torch
import torch.nn.functional as F

from gioada_fast import ops
from gioada_fast.ops.instance_norm_act import instance_norm_act, reference, sample
from tests.op_checks import TARGETS, OpChecks, assert_as_good_as_eager, cast, require, run

# In the package, the attribute of this name is the function.
module = importlib.import_module("gioada_fast.ops.instance_norm_act")


def make(n, c, h, w, activation="relu", residual=False, affine=None, **options):
    """Arguments of one case."""
    options |= dict(activation=activation, residual=residual, affine=affine)
    return tuple(sample(n, c, h, w, **options).values())


def positional(function):
    """``function`` with positional arguments only, in the order of ``make``."""

    def call(x, activation="none", slope=0.2, residual=None, pad=0, eps=1e-5, *affine):
        weight, bias, groups = affine or (None, None, None)
        return function(
            x, activation, slope, residual, pad, eps, weight=weight, bias=bias, groups=groups
        )

    return staticmethod(call)


SHAPES = {
    "small": dict(n=2, c=3, h=5, w=6, residual=True, affine="both", groups=1),
    "odd": dict(n=1, c=5, h=7, w=4, activation="leaky_relu", residual=True),
    "flagship, smaller": dict(n=1, c=64, h=64, w=128),
    "demo, smaller": dict(n=4, c=16, h=45, w=60),
    "end of a block": dict(n=4, c=64, h=23, w=30, activation="none", residual=True),
    "discriminator": dict(n=2, c=24, h=13, w=21, activation="leaky_relu", pad=0),
    "last norm": dict(n=1, c=8, h=20, w=33, pad=3),
    "48 channels": dict(n=1, c=48, h=5, w=9),
    "70 channels": dict(n=2, c=70, h=6, w=5, residual=True),
    "512 channels": dict(n=1, c=512, h=3, w=4, activation="leaky_relu", pad=0),
    "17 channels, no pad, residual": dict(n=3, c=17, h=11, w=13, pad=0, residual=True),
    "1 channel": dict(n=2, c=1, h=9, w=50, pad=2, residual=True),
    "pad as wide as can be": dict(n=1, c=6, h=5, w=4, pad=3, residual=True),
    "pad that meets in the middle": dict(n=1, c=3, h=9, w=8, pad=4, activation="none"),
    "one row": dict(n=1, c=4, h=1, w=40, pad=0),
    "one column": dict(n=1, c=4, h=70, w=1, pad=0),
    "two rows": dict(n=2, c=12, h=2, w=40, pad=1, residual=True),
    "one pixel": dict(n=3, c=4, h=1, w=1, pad=0, residual=True),
    "steep slope, large eps": dict(
        n=1, c=9, h=8, w=9, activation="leaky_relu", negative_slope=1.5, eps=0.3
    ),
    "affine, pad": dict(n=3, c=20, h=6, w=7, activation="leaky_relu", pad=2, affine="both"),
    "SiLU": dict(n=2, c=5, h=6, w=5, activation="silu", residual=True),
    "GELU, weight": dict(n=1, c=16, h=5, w=5, activation="gelu", affine="weight"),
    "8 groups of 8, ReLU": dict(n=2, c=64, h=5, w=6, pad=0, affine="both", groups=8),
    "2 groups of 17, SiLU, bias": dict(
        n=2, c=34, h=4, w=3, activation="silu", affine="bias", groups=2, residual=True
    ),
    "one group, GELU": dict(n=1, c=17, h=9, w=8, activation="gelu", pad=0, affine="both", groups=1),
    "2 groups of 40, SiLU": dict(
        n=1, c=80, h=3, w=4, activation="silu", pad=0, affine="both", groups=2
    ),
    "groups of one pixel": dict(n=2, c=6, h=1, w=1, pad=0, affine="both", groups=2),
    "32 groups, larger": dict(
        n=1, c=256, h=9, w=11, activation="silu", pad=0, affine="both", groups=32
    ),
    "affine, larger": dict(n=1, c=64, h=24, w=31, activation="gelu", affine="both"),
}
LARGE = (
    "32 groups, larger",
    "affine, larger",
    "flagship, smaller",
    "demo, smaller",
    "end of a block",
)

BAD_INPUTS = {
    "x 3-D": (
        lambda x, *_: (x[0],),
        ValueError,
        r"x: \[3, 5, 6\], expected \[N, C, H, W\]: reshape x",
    ),
    "x 5-D": (
        lambda x, *_: (x[None],),
        ValueError,
        r"x: \[1, 2, 3, 5, 6\], expected \[N, C, H, W\]",
    ),
    "x 2-D": (lambda x, *_: (x[0, 0],), ValueError, r"x: \[5, 6\], expected \[N, C, h, w\]"),
    "no channel": (lambda x, a, s, r, p, e, *_: (x[:, :0],), ValueError, r"x: \[2, 0, 5, 6\]"),
    "x int32": (lambda x, a, s, r, p, e, *_: (x.int(),), TypeError, "torch.int32"),
    "activation": (
        lambda x, *_: (x, "tanh"),
        ValueError,
        "activation is 'tanh', expected one of none, relu, leaky_relu, silu, gelu",
    ),
    "pad of the height": (
        lambda x, a, s, r, p, e, *_: (x, a, s, r, 5),
        ValueError,
        r"pad is 5, expected 0 <= pad < min\(h, w\) of x \[2, 3, 5, 6\]",
    ),
    "pad of the width": (
        lambda x, a, s, r, p, e, *_: (x.transpose(2, 3), a, s, None, 5),
        ValueError,
        "pad is 5",
    ),
    "negative pad": (lambda x, a, s, r, p, e, *_: (x, a, s, r, -1), ValueError, "pad is -1"),
    "negative eps": (
        lambda x, a, s, r, p, e, *_: (x, a, s, r, p, -1e-5),
        ValueError,
        "eps is -1e-05",
    ),
    "eps NaN": (
        lambda x, a, s, r, p, e, *_: (x, a, s, r, p, float("nan")),
        ValueError,
        "eps is nan",
    ),
    "padded residual": (
        lambda x, a, s, r, p, e, *_: (x, a, s, F.pad(r, (1, 1, 1, 1))),
        ValueError,
        r"residual: \[2, 3, 7, 8\], expected \[2, 3, 5, 6\] as x",
    ),
    "residual bfloat16": (
        lambda x, a, s, r, p, e, *_: (x, a, s, r.bfloat16()),
        TypeError,
        "residual: torch.bfloat16, expected float32",
    ),
    "residual elsewhere": (
        lambda x, a, s, r, p, e, *_: (x, a, s, r.to("meta")),
        ValueError,
        "residual: on meta, but x on cpu",
    ),
    "weight for other channels": (
        lambda *v: (*v[:6], torch.ones(4), None, None),
        ValueError,
        r"weight: \[4\], expected \[3\], one a channel",
    ),
    "bias 4-D": (
        lambda *v: (*v[:6], None, torch.ones(1, 3, 1, 1), None),
        ValueError,
        r"bias: \[1, 3, 1, 1\], expected \[3\]",
    ),
    "weight bfloat16": (
        lambda *v: (*v[:6], torch.ones(3, dtype=torch.bfloat16), None, None),
        TypeError,
        "weight: torch.bfloat16, expected float32",
    ),
    "bias float16, x bfloat16": (
        lambda x, *v: (x.bfloat16(), "relu", 0.2, None, 0, 1e-5, None, torch.ones(3).half(), None),
        TypeError,
        "bias: torch.float16, expected float32 or bfloat16",
    ),
    "weight elsewhere": (
        lambda *v: (*v[:6], torch.ones(3, device="meta"), None, None),
        ValueError,
        "weight: on meta, but x on cpu",
    ),
    "groups that do not divide": (
        lambda *v: (*v[:6], None, None, 2),
        ValueError,
        "groups is 2, expected a divisor of the 3 channels",
    ),
    "no group": (lambda *v: (*v[:6], None, None, 0), ValueError, "groups is 0, expected a divisor"),
    "negative groups": (lambda *v: (*v[:6], None, None, -3), ValueError, "groups is -3"),
    "groups float": (
        lambda *v: (*v[:6], None, None, 3.0),
        TypeError,
        "groups is 3.0, expected an int",
    ),
}


class TestInstanceNormAct(OpChecks):
    name = "instance_norm_act"
    fused = positional(instance_norm_act)
    reference = positional(reference)
    shapes = SHAPES
    interpreted = tuple(i for i in SHAPES if i not in LARGE)
    bad_inputs = BAD_INPUTS

    def inputs(self, shape):
        return make(**shape)

    def operator_inputs(self, backend, device):
        x, _, _, residual, _, _, weight, bias, _ = cast(self.small(), torch.float32, device)
        x, residual = (
            t.detach().to(memory_format=torch.channels_last, copy=True).requires_grad_()
            for t in (x, residual)
        )
        return x, residual, weight, bias, "silu", 1.0, 1, 1, 1e-5, backend


@pytest.fixture(params=[*TARGETS, pytest.param(("reference", "cpu"), id="reference")])
def device(request):
    """A device, once for each back end that runs on it."""
    backend, device = require(*request.param)
    with ops.backend(backend):
        yield device


def parameters(device, channels):
    """Weight and bias."""
    return [torch.randn(channels, device=device).requires_grad_() for _ in range(2)]


def image(device, *shape, scale=1.0):
    x = scale * torch.randn(*shape, device=device)
    return x.to(memory_format=torch.channels_last).requires_grad_()


ACTIVATIONS = {
    "none": lambda y: y,
    "relu": F.relu,
    "leaky_relu": lambda y: F.leaky_relu(y, 0.1),
    "silu": F.silu,
    "gelu": F.gelu,
}


@pytest.mark.parametrize("residual", [False, True], ids=["", "residual"])
@pytest.mark.parametrize("pad", [0, 1, 3])
@pytest.mark.parametrize("activation", ["none", "relu", "leaky_relu"])
def test_equals_pytorch_functions(device, activation, pad, residual):
    """Equals PyTorch's instance norm, activations and padding, and their gradients."""
    x = image(device, 2, 10, 6, 7)
    r = image(device, 2, 10, 6, 7) if residual else None

    def plain(x, r):
        y = ACTIVATIONS[activation](F.instance_norm(x))
        return F.pad(y if r is None else y + r, (pad,) * 4, mode="reflect")

    found = run(lambda x, r: instance_norm_act(x, activation, 0.1, r, pad), (x, r))
    expected = run(plain, (x, r))
    for f, e in zip(found, expected, strict=True):
        torch.testing.assert_close(f, e, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("groups", "eps"), [(None, 1e-5), (None, 0.1), (1, 1e-5), (4, 0.1), (12, 1e-5)]
)
@pytest.mark.parametrize("activation", module.ACTIVATIONS)
def test_equals_pytorch_norms_with_affine_parameters(device, activation, groups, eps):
    """Equals F.group_norm and F.instance_norm, and their gradients."""
    x, weight, bias = image(device, 2, 12, 3, 4), *parameters(device, 12)

    def fused(x, weight, bias):
        return instance_norm_act(
            x, activation, 0.1, eps=eps, weight=weight, bias=bias, groups=groups
        )

    def plain(x, weight, bias):
        if groups is None:
            return ACTIVATIONS[activation](F.instance_norm(x, None, None, weight, bias, eps=eps))
        return ACTIVATIONS[activation](F.group_norm(x, groups, weight, bias, eps))

    found, expected = run(fused, (x, weight, bias)), run(plain, (x, weight, bias))
    for f, e in zip(found, expected, strict=True):
        torch.testing.assert_close(f, e, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("groups", [None, 2])
def test_affine_parameters_may_stay_float32(device, dtype, groups):
    """Equals the same parameters in the image's dtype; their gradients are float32."""
    x = image(device, 2, 8, 5, 6).detach().to(dtype).requires_grad_()
    weight, bias = (p.detach().to(dtype).requires_grad_() for p in parameters(device, 8))

    def fused(x, weight, bias):
        return instance_norm_act(x, "silu", weight=weight, bias=bias, groups=groups)

    out, grad_x, *grads = run(fused, (x, weight.float(), bias.float()))
    same_out, same_grad_x, *rounded = run(fused, (x, weight, bias))
    assert torch.equal(out, same_out) and torch.equal(grad_x, same_grad_x)
    for grad, small in zip(grads, rounded, strict=True):
        assert grad.dtype == torch.float32 and small.dtype == dtype
        assert torch.equal(grad.to(dtype), small)


def test_one_affine_parameter_alone(device):
    """Equals the other one being 1 or 0, also where only some of the gradients are needed."""
    x, weight, bias = image(device, 2, 6, 5, 4), *parameters(device, 6)
    one, zero = torch.ones(6, device=device), torch.zeros(6, device=device)
    for alone, both in (((weight, None), (weight, zero)), ((None, bias), (one, bias))):
        found, expected = (
            run(TestInstanceNormAct.fused, (x, "gelu", 0.2, None, 0, 1e-5, *affine, 3))
            for affine in (alone, both)
        )
        for f, e in zip(found, expected, strict=True):
            torch.testing.assert_close(f, e, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("activation", ["silu", "gelu"])
def test_activations_are_exact_over_their_range(device, activation):
    """Value and gradient for arguments from -12 to 12, within a few roundings of float32."""
    a = torch.linspace(-12, 12, 193, device=device)
    # pairs of -1 and 1 are their own normalised values, so that the bias is the argument
    x = torch.stack([-torch.ones_like(a), torch.ones_like(a)], 1).view(1, -1, 1, 2)
    for sign in (-1, 1):
        bias = (a - sign).requires_grad_()
        out = instance_norm_act(x, activation, bias=bias, eps=0.0)[0, :, 0, (sign + 1) // 2]
        (grad,) = torch.autograd.grad(out.sum(), bias)
        exact = (bias.double() + sign).detach().requires_grad_()
        expected = ACTIVATIONS[activation](exact)
        (expected_grad,) = torch.autograd.grad(expected.sum(), exact)
        torch.testing.assert_close(out.double(), expected, rtol=0, atol=1.5e-6)
        torch.testing.assert_close(grad.double(), expected_grad, rtol=0, atol=1.5e-6)


def test_channels_of_a_group_with_very_different_offsets(device):
    """As accurate as eager where the channels' means differ far more than their values."""
    x = torch.randn(1, 12, 13, 15, device=device)
    x += 100 * torch.randn(1, 12, 1, 1, device=device)
    x[:, 4:8] += 1e4
    assert_as_good_as_eager(
        functools.partial(instance_norm_act, groups=3),
        functools.partial(reference, groups=3),
        (x.requires_grad_(),),
    )


def test_float16_with_a_large_offset(device):
    """Statistics are those of the float16 values, although squares of them overflow float16."""
    x = (1000 + 4 * torch.randn(1, 4, 15, 20, device=device)).half().requires_grad_()
    assert_as_good_as_eager(
        functools.partial(instance_norm_act, groups=2),
        functools.partial(reference, groups=2),
        (x,),
    )


def test_trains_in_float16_with_a_gradient_scaler():
    """Steps of GradScaler: unscaled gradients are those of float32, and an overflow is skipped."""
    require("cpp", "cpu")
    x = torch.randn(2, 8, 9, 7)
    weight, bias = parameters("cpu", 8)
    optimizer = torch.optim.SGD([weight, bias], lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)

    def loss_of(image):
        return instance_norm_act(image, "silu", weight=weight, bias=bias, groups=4).mean()

    with ops.backend("cpp"):
        expected = torch.autograd.grad(loss_of(x), [weight, bias])
        scaler.scale(loss_of(x.half())).backward()
        scaler.unscale_(optimizer)
        for p, e in zip((weight, bias), expected, strict=True):
            torch.testing.assert_close(p.grad, e, rtol=1e-2, atol=1e-4)
        scaler.step(optimizer)
        scaler.update()
        before = weight.detach().clone()
        optimizer.zero_grad()
        scaler.scale(loss_of(x.half()) * float("inf")).backward()
        scaler.step(optimizer)
        scaler.update()
    assert torch.equal(weight, before) and scaler.get_scale() == 2.0**9


@pytest.mark.parametrize("offset", [100.0, -1e4])
@pytest.mark.parametrize("shape", [(1, 16, 30, 40), (2, 5, 17, 9)])
def test_accurate_for_large_mean_and_small_variance(device, shape, offset):
    """As accurate as eager where a plain sum of squares would lose the variance."""
    x = (offset + 0.01 * torch.randn(*shape, device=device)).requires_grad_()
    assert_as_good_as_eager(instance_norm_act, reference, (x,))


def test_accurate_with_outliers_at_the_start(device):
    """Accurate even if the first pixel or rows differ from the rest."""
    for rows in (1, 3):
        x = torch.randn(1, 16, 30, 40, device=device)
        x[:, :, :rows, : 40 if rows > 1 else 1] += 1000
        assert_as_good_as_eager(instance_norm_act, reference, (x.requires_grad_(),))


def test_accurate_for_values_that_rise_through_the_image(device):
    rise = torch.linspace(0, 1e3, 64, device=device)[:, None]
    x = torch.randn(1, 8, 64, 40, device=device) + rise
    assert_as_good_as_eager(instance_norm_act, reference, (x.requires_grad_(),))


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("function", [instance_norm_act, reference])
def test_any_layout_of_the_gradient(device, function, n):
    """PyTorch's own instance norm fails here: one image, no activation, channels-last gradient."""
    x = image(device, n, 6, 8, 7)
    centred = (x - x.mean((2, 3), keepdim=True)).detach().requires_grad_()
    exact = centred * torch.rsqrt(centred.square().mean((2, 3), keepdim=True) + 1e-5)
    grad = torch.randn(x.shape, device=device)
    (expected,) = torch.autograd.grad(exact, centred, grad)
    expected = expected - expected.mean((2, 3), keepdim=True)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        result = function(x)
        (found,) = torch.autograd.grad(result, x, grad.contiguous(memory_format=memory_format))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("eps", [1e-5, 0.0])
@pytest.mark.parametrize("activation", module.ACTIVATIONS)
def test_image_of_one_pixel(device, activation, eps):
    """The normalised value and its gradient are 0."""
    x, r = image(device, 3, 5, 1, 1, scale=100), image(device, 3, 5, 1, 1)
    out, grad_x, grad_r = run(instance_norm_act, (x, activation, 0.2, r, 0, eps))
    torch.testing.assert_close(out, r.detach(), rtol=0, atol=2e-2 if eps else 0)
    assert not grad_x.any() and grad_r.all()


@pytest.mark.parametrize("eps", [1e-5, 0.0])
def test_constant_channel(device, eps):
    """The result is finite and about 0 for any constant."""
    x = image(device, 1, 5, 6, 7).detach()
    x[:, 1], x[:, 3] = 0.0, 1234.567
    for activation in module.ACTIVATIONS:
        out, grad = run(instance_norm_act, (x.requires_grad_(), activation, 0.2, None, 1, eps))
        assert out.isfinite().all() and grad.isfinite().all()
        assert out[:, [1, 3]].abs().max() < 0.1


def test_nan_stays_in_its_channel(device):
    for value in (float("nan"), float("inf")):
        x = image(device, 2, 9, 6, 7).detach()
        x[1, 4, 2, 3] = value
        out = instance_norm_act(x, "relu", pad=1)
        finite = torch.ones_like(out, dtype=torch.bool)
        finite[1, 4] = False
        assert out[finite].isfinite().all() and out[1, 4].isnan().all()


@pytest.mark.parametrize("channels", [1, 4, 8, 19])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_residual_may_be_the_interior_of_a_padded_image(device, channels, dtype):
    """The residual is read in place and gives the same result and gradients as a copy."""
    padded = image(device, 2, channels, 9, 10).detach().to(dtype)
    x = image(device, 2, channels, 7, 8).detach().to(dtype).requires_grad_()
    interior = padded[:, :, 1:-1, 1:-1].requires_grad_()
    assert module._with_dense_rows(interior) is interior
    found = run(instance_norm_act, (x, "none", 0.2, interior, 1))
    copy = interior.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
    expected = run(instance_norm_act, (x, "none", 0.2, copy, 1))
    assert all(torch.equal(f, e) for f, e in zip(found, expected, strict=True))


@pytest.mark.parametrize("pad", [0, 2])
def test_incoming_gradient_of_any_strides(device, pad):
    x, r = image(device, 2, 6, 5, 7), image(device, 2, 6, 5, 7)
    out = instance_norm_act(x, "leaky_relu", 0.2, r, pad)
    weights = torch.randn(out.shape, device=device)
    sliced = torch.empty(2, 6, *(2 * s for s in out.shape[2:]), device=device)[:, :, ::2, ::2]
    for grad in (weights, sliced.copy_(weights), weights[:1].expand_as(out), torch.ones_like(out)):
        same = grad.clone(memory_format=torch.contiguous_format)
        expected = torch.autograd.grad(reference(x, "leaky_relu", 0.2, r, pad), (x, r), same)
        found = torch.autograd.grad(out, (x, r), grad, retain_graph=True)
        for f, e in zip(found, expected, strict=True):
            torch.testing.assert_close(f, e, rtol=1e-4, atol=1e-5)
    expanded = torch.autograd.grad(out.sum(), (x, r), retain_graph=True)
    expected = torch.autograd.grad(reference(x, "leaky_relu", 0.2, r, pad).sum(), (x, r))
    for f, e in zip(expanded, expected, strict=True):
        torch.testing.assert_close(f, e, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pad", [0, 1])
def test_gradient_of_one_input_only(device, pad):
    x, r = image(device, 1, 8, 6, 5), image(device, 1, 8, 6, 5)
    both = run(instance_norm_act, (x, "relu", 0.2, r, pad))
    _, only_x = run(instance_norm_act, (x, "relu", 0.2, r.detach(), pad))
    _, only_r = run(instance_norm_act, (x.detach(), "relu", 0.2, r, pad))
    assert torch.equal(only_x, both[1]) and torch.equal(only_r, both[2])


def test_result_may_be_modified_in_place(device):
    x = image(device, 2, 6, 5, 4)
    _, expected = run(lambda x: F.relu(instance_norm_act(x, "silu")), (x,))
    _, found = run(lambda x: F.relu(instance_norm_act(x, "silu"), inplace=True), (x,))
    assert torch.equal(found, expected)


def test_saves_only_x_and_statistics():
    require("cpp", "cpu")
    x, r = image("cpu", 2, 8, 6, 5), image("cpu", 2, 8, 6, 5)
    saved = []
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t)
    with ops.backend("cpp"), hooks:
        instance_norm_act(x, "relu", 0.2, r, 1)
    (image_saved,) = (t for t in saved if t.dim() == 4)
    assert image_saved.data_ptr() == x.data_ptr()
    assert sorted(t.numel() for t in saved) == [16, 16, x.numel()]


def test_empty_batch(device):
    x, r = image(device, 0, 3, 4, 5), image(device, 0, 3, 4, 5)
    fused = TestInstanceNormAct.fused
    out, *grads = run(fused, (x, "relu", 0.2, r, 2, 1e-5, *parameters(device, 3), 1))
    assert out.shape == (0, 3, 8, 9)
    assert all(g.shape == x.shape for g in grads[:2])
    assert all(g.shape == (3,) and not g.any() for g in grads[2:])


@pytest.mark.parametrize("of", ["x", "weight"])
def test_second_derivative_raises(of):
    x, weight, bias = image("cpu", 1, 3, 4, 5), *parameters("cpu", 3)
    with ops.backend("cpp"):
        loss = instance_norm_act(x, weight=weight, bias=bias).square().sum()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss, {"x": x, "weight": weight}[of], create_graph=True)
