"""``gan_loss``: the shared op tests, its kinds against PyTorch's functions, and lists of maps."""

import pytest
import torch
import torch.nn.functional as F

from gioada_fast import ops
from gioada_fast.ops.gan_loss import GAN_LOSSES, gan_loss, reference, sample
from tests.op_checks import DTYPES, TARGETS, OpChecks, require, run


def make(*shape, **options):
    """As ``sample``, with the maps one by one."""
    maps, *others = sample(*shape, **options).values()
    return *maps, *others


def of_list(function):
    """The op with its maps as separate arguments, as ``OpChecks`` passes them."""
    return staticmethod(lambda *args: function(list(args[:-3]), *args[-3:]))


SHAPES = {
    "small": dict(sizes=[(2, 1, 3, 4), (1, 1, 5, 5)]),
    "odd": dict(sizes=[(3, 1, 17, 31), (1, 1, 1, 7)], kind="bce"),
    "flagship": dict(sizes=[(1, 1, 62, 126)] * 4),
    "demo": dict(sizes=[(4, 1, 20, 28)] * 2 + [(4, 1, 5, 7)] * 2),
    "one map": dict(sizes=[(2, 1, 9, 5)], kind="hinge"),
    "one logit": dict(sizes=[(1,)], kind="bce"),
    "generator's hinge": dict(sizes=[(1, 1, 6, 7), (2, 1, 3, 3)], kind="hinge", generator=True),
    "generator's bce": dict(sizes=[(1, 1, 6, 7), (2, 1, 3, 3)], kind="bce", generator=True),
    "an empty map": dict(sizes=[(0, 1, 3, 4), (2, 1, 3, 4), (3, 0)], kind="bce"),
    "only empty maps": dict(sizes=[(0, 1, 3, 4), (0,)]),
    "nine maps": dict(sizes=[(n, 1, 4, 3) for n in range(9)], kind="hinge"),
    "1-D to 5-D": dict(sizes=[(9,), (2, 3), (2, 2, 5), (1, 2, 3, 4), (1, 2, 1, 2, 2)]),
    "large logits": dict(sizes=[(1, 1, 8, 9), (1, 1, 9, 8)], kind="bce", scale=100.0),
    "around a chunk": dict(sizes=[(4095,), (4096,), (4097,)], kind="bce"),
    "several parts": dict(sizes=[(1, 1, 301, 307), (40, 1, 5, 7)], kind="bce"),
}

BAD_INPUTS = {
    "no map": (lambda *a: a[-3:], ValueError, "at least one map"),
    "kind": (lambda x, y, r, k, g: (x, y, r, "wgan", g), ValueError, "'wgan', expected one of"),
    "targets": (lambda x, y, r, k, g: (x, y, [True], k, g), ValueError, "1 targets for 2 maps"),
    "target 1": (lambda x, y, r, k, g: (x, y, [True, 1], k, g), TypeError, "True, 1.*bools"),
    "scalar": (lambda x, y, r, k, g: (x, y.sum(), r, k, g), ValueError, r"logits\[1\]: \[\]"),
    "no tensor": (lambda x, y, r, k, g: (x, 3.0, r, k, g), TypeError, r"logits\[1\]: float"),
    "target float": (lambda x, y, r, k, g: (x, y, 1.0, k, g), TypeError, "real: 1.0, expected a"),
    "target tensor": (
        lambda x, y, r, k, g: (x, y, torch.tensor([True, False]), k, g),
        TypeError,
        "real: .*tensor.*expected bools",
    ),
    "int32": (
        lambda x, y, r, k, g: (x.int(), y.int(), r, k, g),
        TypeError,
        "torch.int32, expected float32, bfloat16, float16 or float64",
    ),
    "complex64": (
        lambda x, y, r, k, g: (x.cfloat(), y.cfloat(), r, k, g),
        TypeError,
        "torch.complex64, expected",
    ),
    "two dtypes": (
        lambda x, y, r, k, g: (x, y.bfloat16(), r, k, g),
        TypeError,
        r"logits\[1\]: torch.bfloat16, but logits\[0\] is torch.float32",
    ),
    "float16 and bfloat16": (
        lambda x, y, r, k, g: (x.half(), y.bfloat16(), r, k, g),
        TypeError,
        r"logits\[1\]: torch.bfloat16, but logits\[0\] is torch.float16",
    ),
    "two devices": (
        lambda x, y, r, k, g: (x, y.to("meta"), r, k, g),
        ValueError,
        r"logits\[1\]: on meta, but logits\[0\] on cpu",
    ),
}


class TestGanLoss(OpChecks):
    name = "gan_loss"
    fused = of_list(gan_loss)
    reference = of_list(reference)
    shapes = SHAPES
    interpreted = tuple(SHAPES)
    bad_inputs = BAD_INPUTS

    def inputs(self, shape):
        return make(**shape)

    def operator_inputs(self, backend, device):
        *maps, real, kind, _ = self.small()
        maps = [x.detach().to(device).requires_grad_() for x in maps]
        return maps, real, kind, backend


@pytest.fixture(params=[*TARGETS, pytest.param(("reference", "cpu"), id="reference")])
def device(request):
    """A device, once for each back end that runs on it."""
    backend, device = require(*request.param, "gan_loss")
    with ops.backend(backend):
        yield device


@pytest.mark.parametrize("real", [True, False])
def test_losses_equal_pytorch_functions(device, real):
    x = 3 * torch.randn(2, 1, 7, 9, device=device)
    target = torch.full_like(x, float(real))
    sign = 1 if real else -1
    expected = {
        "lsgan": F.mse_loss(x, target),
        "bce": F.binary_cross_entropy_with_logits(x, target),
        "hinge": F.relu(1 - sign * x).mean(),
    }
    assert set(expected) == set(GAN_LOSSES)
    for kind, loss in expected.items():
        torch.testing.assert_close(gan_loss(x, real, kind), loss[None])
    torch.testing.assert_close(gan_loss(x, real, "hinge", generator=True), -sign * x.mean()[None])
    for kind in ("lsgan", "bce"):
        both = (gan_loss(x, real, kind, generator=g) for g in (True, False))
        assert torch.equal(*both)


def test_one_tensor_is_a_list_of_one(device):
    x = torch.randn(2, 1, 4, 5, device=device, requires_grad=True)
    one, grad = run(lambda x: gan_loss(x, True), (x,))
    same, same_grad = run(lambda x: gan_loss([x], [True]), (x,))
    assert one.shape == (1,) and torch.equal(one, same) and torch.equal(grad, same_grad)


def test_one_target_applies_to_all_maps(device):
    maps = [torch.randn(2, 1, 4, n, device=device) for n in (3, 4)]
    assert torch.equal(gan_loss(maps, False), gan_loss(maps, [False, False]))


def test_maps_are_independent(device):
    """Loss and gradient of a map do not depend on the other maps and their weights."""
    maps = [torch.randn(n, 1, 5, 6, device=device, requires_grad=True) for n in (2, 1, 3)]
    real, weight = [False, True, True], torch.tensor([1.0, 0.0, -3.0], device=device)
    losses = gan_loss(maps, real, "bce")
    grads = torch.autograd.grad(losses, maps, weight)
    for x, r, w, loss, grad in zip(maps, real, weight, losses, grads, strict=True):
        alone = gan_loss(x, r, "bce")
        torch.testing.assert_close(alone[0], loss)
        torch.testing.assert_close(torch.autograd.grad(w * alone[0], x)[0], grad)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_maps_may_be_views_of_one_batch(device, dtype):
    """Maps may be chunks of one tensor, which then gets the gradient."""
    both = torch.randn(4, 1, 5, 6, device=device).to(dtype).requires_grad_()
    loss = gan_loss(both.chunk(2), [True, False])
    (grad,) = torch.autograd.grad(loss.sum(), both)
    real, fake = both.detach().float().chunk(2)
    torch.testing.assert_close(
        loss, torch.stack([(real - 1).square().mean(), fake.square().mean()])
    )
    expected = torch.cat([real - 1, fake]) * 2 / real.numel()
    torch.testing.assert_close(grad, expected.to(dtype))


def test_gradient_of_some_maps_only(device):
    maps = [torch.randn(1, 1, 5, 6, device=device) for _ in range(3)]
    maps[1].requires_grad_()
    losses = gan_loss(maps, True)
    losses.sum().backward()
    torch.testing.assert_close(maps[1].grad, 2 * (maps[1].detach() - 1) / 30)
    assert maps[0].grad is None and maps[2].grad is None


def test_bce_of_large_logits_is_finite(device):
    x = torch.tensor([-100.0, 100.0], device=device)
    (right, wrong), grad = run(
        lambda x: gan_loss([x, x.neg()], True, "bce"), (x[1:].clone().requires_grad_(),)
    )
    assert 0 <= float(right) < 1e-30 and float(wrong) == pytest.approx(100)
    # run() weighs the losses by 0.5 and 1.5; only the second has a gradient, of size 1
    assert float(grad) == pytest.approx(1.5)
    for real in (True, False):
        loss, grad = run(lambda x, r=real: gan_loss(x, r, "bce"), (x.clone().requires_grad_(),))
        assert float(loss) == pytest.approx(50)
        assert grad.isfinite().all()


def test_small_bce_is_accurate_to_rounding(device):
    """The error is relative to the loss, even for a tiny loss."""
    x = torch.linspace(0, 80, 161, device=device)
    loss = gan_loss(list(x[:, None]), True, "bce")
    exact = F.softplus(-x.double())
    assert ((loss - exact) / exact).abs().max() < 1e-6


@pytest.mark.parametrize("kind", GAN_LOSSES)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinity_reach_the_loss(device, kind, value):
    good, bad = torch.randn(2, 1, 5, 6, device=device).chunk(2)
    bad[0, 0, 2, 3] = value
    losses = gan_loss([good, bad], False, kind)
    assert torch.isfinite(losses[0]) and not torch.isfinite(losses[1])


def test_no_list_raises():
    with pytest.raises(TypeError, match="logits: NoneType, expected a tensor or a list of tensors"):
        gan_loss(None, True)


def test_grad_scaler_with_float16(device):
    """The gradient of a scaled loss is scaled in float32, and rounds to float16 once."""
    scaler = torch.amp.GradScaler(device, init_scale=2.0**16)
    weight = torch.full((8,), 0.5, device=device, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=1.0)
    x = torch.linspace(-2, 2, 8, device=device)
    loss = gan_loss((weight * x).half(), True)
    scaler.scale(loss[0]).backward()
    assert loss.dtype == torch.float32 and weight.grad.isfinite().all()
    scaler.step(optimizer)
    scaler.update()
    logits = (0.5 * x).half().double()
    expected = 0.5 - (2 / 8 * (logits - 1)) * x.double()
    torch.testing.assert_close(weight.double(), expected, rtol=1e-3, atol=1e-4)
    assert scaler.get_scale() == 2.0**16


def test_second_derivative_raises():
    x = torch.randn(1, 1, 4, 5, requires_grad=True)
    with ops.backend("cpp"):
        loss = gan_loss(x, True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss, x, create_graph=True)


def test_backward_scales_and_accumulates(device):
    """Retained graphs and scaled losses work as for any PyTorch loss."""
    x = torch.randn(1, 1, 4, 5, device=device, requires_grad=True)
    loss = gan_loss(x, True, "bce")
    (once,) = torch.autograd.grad(loss, x, retain_graph=True)
    (scaled,) = torch.autograd.grad(loss * -4, x)
    torch.testing.assert_close(scaled, -4 * once)


@pytest.mark.parametrize("kind", GAN_LOSSES)
@pytest.mark.parametrize("real", [True, False])
def test_generator_pushes_logits_towards_its_target(device, kind, real):
    x = torch.full((4,), 0.5, device=device, requires_grad=True)
    (grad,) = torch.autograd.grad(gan_loss(x, real, kind, generator=True), x)
    assert bool((grad < 0).all() if real else (grad > 0).all())
