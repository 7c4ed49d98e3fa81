"""``upsample_depth_loss``: the shared op tests, valid pixels, kinds and extreme errors."""

import pytest
import torch
import torch.nn.functional as F

from gioada_fast import ops
from gioada_fast.ops.upsample_depth_loss import KINDS, reference, upsample_depth_loss
from tests.op_checks import TARGETS, OpChecks, assert_as_good_as_eager, require, run


def upsample(depth, size):
    return F.interpolate(depth, size=size, mode="bilinear", align_corners=True)


def make(n, h, w, height, width, kind="l1", invalid=0.1):
    """Depth, target, kind and validity for one case.

    No error is close to 0, where the slope jumps and rounding could flip its sign.
    """
    depth = torch.randn(n, 1, h, w)
    error = torch.randn(n, 1, height, width)
    target = upsample(depth, (height, width)) + error + 0.1 * error.sign()
    valid = torch.rand(target.shape) >= invalid if invalid else None
    if valid is not None:
        target[~valid] = float("nan")
    return depth.requires_grad_(), target, kind, valid


SHAPES = {
    "small": dict(n=2, h=3, w=4, height=9, width=13),
    "odd": dict(n=1, h=4, w=3, height=7, width=18, kind="berhu"),
    "flagship": dict(n=1, h=65, w=129, height=512, width=1024),
    "flagship, berhu": dict(n=1, h=65, w=129, height=512, width=1024, kind="berhu"),
    "batch": dict(n=5, h=5, w=7, height=37, width=50, kind="berhu"),
    "large batch": dict(n=70, h=2, w=3, height=5, width=6),
    "many rows": dict(n=3, h=700, w=3, height=720, width=5, kind="berhu"),
    "many rows, downsampling": dict(n=3, h=700, w=3, height=300, width=5),
    "several strips": dict(n=1, h=4, w=37, height=29, width=289),
    "1x1 depth": dict(n=2, h=1, w=1, height=6, width=5),
    "1x1 target": dict(n=1, h=5, w=4, height=1, width=1, invalid=0.0),
    "one row": dict(n=1, h=1, w=6, height=4, width=40),
    "one column": dict(n=1, h=6, w=1, height=40, width=3, kind="berhu"),
    "wide cells": dict(n=1, h=2, w=2, height=3, width=300),
    "high cells": dict(n=1, h=2, w=2, height=300, width=3, kind="berhu"),
    "downsampling": dict(n=1, h=9, w=25, height=7, width=6),
    "downsampling, berhu": dict(n=2, h=90, w=200, height=11, width=5, kind="berhu"),
    "same size": dict(n=1, h=6, w=7, height=6, width=7),
    "all valid": dict(n=2, h=4, w=5, height=28, width=35, invalid=0.0),
    "all valid, berhu": dict(n=2, h=4, w=5, height=28, width=35, invalid=0.0, kind="berhu"),
    "few valid": dict(n=2, h=4, w=5, height=28, width=35, invalid=0.98),
}

BAD_INPUTS = {
    "no such kind": (lambda d, t, k, v: (d, t, "l2"), ValueError, "kind is 'l2', expected one of"),
    "depth 3-D": (lambda d, t, k, v: (d[0], t), ValueError, r"depth: \[1, 3, 4\]"),
    "two channels": (
        lambda d, t, k, v: (d.expand(2, 2, 3, 4), t),
        ValueError,
        r"depth: \[2, 2, 3, 4\], expected \[N, 1, h, w\]",
    ),
    "no row": (lambda d, t, k, v: (d[:, :, :0], t), ValueError, r"depth: \[2, 1, 0, 4\]"),
    "depth int32": (lambda d, t, k, v: (d.int(), t), TypeError, "depth: torch.int32"),
    "target 3-D": (lambda d, t, k, v: (d, t[:, 0]), ValueError, r"target: \[2, 9, 13\]"),
    "other batch": (
        lambda d, t, k, v: (d, t[:1]),
        ValueError,
        r"target: \[1, 1, 9, 13\], expected \[N, 1, H, W\] with N = 2",
    ),
    "target of two channels": (
        lambda d, t, k, v: (d, t.expand(2, 2, 9, 13)),
        ValueError,
        r"target: \[2, 2, 9, 13\]",
    ),
    "target int64": (lambda d, t, k, v: (d, t.long()), TypeError, "target: torch.int64"),
    "target float64": (
        lambda d, t, k, v: (d, t.double()),
        TypeError,
        "target: torch.float64, expected float32, bfloat16 or float16",
    ),
    "target elsewhere": (
        lambda d, t, k, v: (d, t.to("meta")),
        ValueError,
        "target: on meta, but depth on cpu",
    ),
    "target with gradient": (
        lambda d, t, k, v: (d, t.requires_grad_()),
        ValueError,
        "target requires a gradient",
    ),
    "valid of another shape": (
        lambda d, t, k, v: (d, t, k, v[:, :, 1:]),
        ValueError,
        r"valid: \[2, 1, 8, 13\], expected \[2, 1, 9, 13\]",
    ),
    "valid float": (lambda d, t, k, v: (d, t, k, v.float()), TypeError, "valid: torch.float32"),
    "valid elsewhere": (
        lambda d, t, k, v: (d, t, k, v.to("meta")),
        ValueError,
        "valid: on meta, but depth on cpu",
    ),
}


class TestUpsampleDepthLoss(OpChecks):
    name = "upsample_depth_loss"
    fused = staticmethod(upsample_depth_loss)
    reference = staticmethod(reference)
    shapes = SHAPES
    alignments = (True, False)
    interpreted = (
        *("small", "odd", "several strips", "1x1 depth", "1x1 target", "one row", "one column"),
        *("wide cells", "high cells", "downsampling", "same size"),
    )
    bad_inputs = BAD_INPUTS

    def inputs(self, shape):
        return make(**shape)

    def operator_inputs(self, backend, device):
        depth, target, _, valid = self.small()
        depth = depth.detach().to(device).requires_grad_()
        # opcheck compares inputs before and after, and NaN is not equal to itself.
        return depth, target.nan_to_num().to(device), valid.to(device), "berhu", True, True, backend


@pytest.fixture(params=[*TARGETS, pytest.param(("reference", "cpu"), id="reference")])
def device(request):
    """A device, once for each back end that runs on it."""
    backend, device = require(*request.param)
    with ops.backend(backend):
        yield device


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def on(device, *tensors):
    return [t.detach().to(device).requires_grad_(t.requires_grad) for t in tensors]


def case(device, kind):
    """Depth, target, validity and kind of a small case."""
    depth, target, _, valid = make(2, 3, 4, 9, 13, invalid=0.2)
    return *on(device, depth, target, valid), kind


def assert_same_bits(found, expected):
    assert all(torch.equal(f, e) for f, e in zip(found, expected, strict=True))


def test_equals_pytorch_functions(device, kind):
    """Equals upsampling and a loop over the valid pixels, with c of berHu as a constant."""
    depth, target, valid, _ = case(device, kind)
    loss = upsample_depth_loss(depth, target, kind, valid)
    (grad,) = torch.autograd.grad(loss, depth)
    exact = depth.detach().double().requires_grad_()
    errors = (upsample(exact, target.shape[2:]) - target)[valid].abs()
    c = float("inf") if kind == "l1" else errors.max().item() / 5
    assert kind == "l1" or 0.1 < (errors <= c).double().mean() < 0.9
    expected = sum(e if e <= c else (e * e + c * c) / (2 * c) for e in errors) / valid.sum()
    torch.testing.assert_close(loss, expected.float())
    torch.testing.assert_close(grad, torch.autograd.grad(expected, exact)[0].float())


def test_threshold_uses_the_largest_error_of_the_batch(device):
    """A single large error anywhere sets c of berHu for every pixel."""
    depth = torch.zeros(2, 1, 2, 3, device=device)
    places = [(0, 0, 0), (1, 5, 12), (0, 8, 3), (1, 4, 7)]
    losses = []
    for i, (n, y, x) in enumerate(places):
        target = torch.ones(2, 1, 9, 13, device=device)
        target[n, 0, y, x] = 20.0 * (-1) ** i
        losses.append(upsample_depth_loss(depth, target, "berhu").item())
    c, pixels = 20 / 5, 2 * 9 * 13
    expected = ((20**2 + c**2) / (2 * c) + (pixels - 1)) / pixels
    assert losses == pytest.approx([expected] * len(losses), rel=1e-6)


def test_without_mask_all_pixels_are_valid(device, kind):
    depth, target, valid, _ = case(device, kind)
    target = target.nan_to_num(1.0)
    found = run(upsample_depth_loss, (depth, target, kind, None))
    assert_same_bits(found, run(upsample_depth_loss, (depth, target, kind, torch.ones_like(valid))))


@pytest.mark.parametrize("value", [float("nan"), -float("inf")])
def test_invalid_targets_have_no_effect(device, kind, value):
    depth, target, valid, _ = case(device, kind)
    expected = run(upsample_depth_loss, (depth, target.masked_fill(~valid, 0.0), kind, valid))
    found = run(upsample_depth_loss, (depth, target.masked_fill(~valid, value), kind, valid))
    assert_same_bits(found, expected)
    assert all(f.isfinite().all() for f in found)


def test_no_valid_pixel(device, kind):
    depth, target, valid, _ = case(device, kind)
    target[:] = float("nan")
    loss, grad = run(upsample_depth_loss, (depth, target, kind, torch.zeros_like(valid)))
    assert loss == 0 and not grad.any()


@pytest.mark.parametrize("shape", [(0, 1, 8, 9), (2, 1, 0, 9), (2, 1, 8, 0)])
def test_no_pixels(device, kind, shape):
    for dtype in (torch.float32, torch.bfloat16):
        depth = torch.randn(shape[0], 1, 4, 5, device=device, dtype=dtype, requires_grad=True)
        target = torch.zeros(shape, device=device)
        for valid in (None, torch.zeros(shape, dtype=torch.bool, device=device)):
            loss, grad = run(upsample_depth_loss, (depth, target, kind, valid))
            assert loss == 0 and loss.dtype == torch.float32
            assert grad.shape == depth.shape and grad.dtype == dtype and not grad.any()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinity_reach_the_loss(device, kind, value):
    depth, target, valid, _ = case(device, kind)
    valid[1, 0, 8, 12] = True
    wrong = target.clone()
    wrong[1, 0, 8, 12] = value
    assert not torch.isfinite(upsample_depth_loss(depth, wrong, kind, valid))
    with torch.no_grad():
        depth[1, 0, 2, 3] = value
    assert not torch.isfinite(upsample_depth_loss(depth, target, kind, valid))


def test_errors_of_zero(device, kind):
    """BerHu does not divide 0 by 0, and the gradient of an error of 0 is 0."""
    depth = torch.randn(2, 1, 5, 6, device=device, requires_grad=True)
    loss, grad = run(upsample_depth_loss, (depth, depth.detach(), kind, None))
    assert loss == 0 and not grad.any()


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("target", TARGETS)
def test_berhu_of_errors_of_any_size(target, scale):
    """Squares of such errors underflow or overflow; unlike plain PyTorch, kernels avoid them."""
    backend, device = require(*target)
    depth, target, valid, kind = case(device, "berhu")
    with ops.backend(backend):
        loss, grad = run(upsample_depth_loss, (depth, target, kind, valid))
        scaled = (depth.detach() * scale).requires_grad_(), target * scale, kind, valid
        scaled_loss, scaled_grad = run(upsample_depth_loss, scaled)
    torch.testing.assert_close(scaled_loss / scale, loss, rtol=1e-5, atol=0)
    torch.testing.assert_close(scaled_grad, grad, rtol=1e-4, atol=1e-6)


def test_berhu_of_subnormal_errors(device):
    depth, target, valid, kind = case(device, "berhu")
    scaled = (depth.detach() * 1e-40).requires_grad_(), target * 1e-40, kind, valid
    assert all(x.isfinite().all() for x in run(upsample_depth_loss, scaled))


@pytest.mark.parametrize(
    "dtypes", [(torch.float32, torch.bfloat16), (torch.bfloat16, torch.float32)]
)
def test_other_target_dtype(device, kind, dtypes):
    depth, target, valid, _ = case(device, kind)
    depth = depth.detach().to(dtypes[0]).requires_grad_()
    inputs = depth, target.to(dtypes[1]), kind, valid
    assert_as_good_as_eager(upsample_depth_loss, reference, inputs)


def test_float64_depth(kind):
    """float64 depth uses the reference for any dtype of target."""
    depth, target, valid, _ = case("cpu", kind)
    exact = run(
        upsample_depth_loss, (depth.detach().double().requires_grad_(), target, kind, valid)
    )
    assert all(x.dtype == torch.float64 for x in exact)
    for f, e in zip(run(upsample_depth_loss, (depth, target, kind, valid)), exact, strict=True):
        torch.testing.assert_close(f.double(), e, rtol=1e-5, atol=1e-7)


def test_second_derivative_raises():
    require("cpp", "cpu")
    depth, target, valid, kind = case("cpu", "berhu")
    with ops.backend("cpp"):
        loss = upsample_depth_loss(depth, target, kind, valid)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss, depth, create_graph=True)


def test_backward_scales_and_accumulates(device, kind):
    """Retained graphs and scaled losses work as for any PyTorch loss."""
    depth, target, valid, _ = case(device, kind)
    loss = upsample_depth_loss(depth, target, kind, valid)
    (once,) = torch.autograd.grad(loss, depth, retain_graph=True)
    (scaled,) = torch.autograd.grad(loss * -4, depth)
    torch.testing.assert_close(scaled, -4 * once)
