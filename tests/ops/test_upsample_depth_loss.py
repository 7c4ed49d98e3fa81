"""``upsample_depth_loss``: the shared op tests, kinds, reductions, weights, extreme errors."""

import functools

import pytest
import torch
import torch.nn.functional as F

from gioada_fast import ops
from gioada_fast.ops._checks import REDUCTIONS
from gioada_fast.ops.upsample_depth_loss import KINDS, reference, sample, upsample_depth_loss
from tests.op_checks import TARGETS, OpChecks, assert_as_good_as_eager, require, run


def upsample(depth, size):
    return F.interpolate(depth, size=size, mode="bilinear", align_corners=True)


def make(n, h, w, height, width, kind="l1", invalid=0.1):
    """Depth, target, kind and validity for one case."""
    return tuple(sample(n, h, w, height, width, kind, invalid).values())


def weights(n, height, width, negative=False):
    """Weights of pixels [N, 1, H, W], some of them 0."""
    weight = torch.rand(n, 1, height, width, generator=torch.Generator().manual_seed(1))
    return (2 * weight - 0.5 if negative else 2 * weight) * (weight > 0.1)


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
    "l2": dict(n=2, h=4, w=5, height=28, width=35, kind="l2"),
    "silog": dict(n=2, h=4, w=5, height=28, width=35, kind="silog"),
    "silog, one cell": dict(n=3, h=1, w=2, height=9, width=20, kind="silog", invalid=0.0),
    "silog, downsampling": dict(n=1, h=9, w=25, height=7, width=6, kind="silog"),
}
OPTIONS = {
    "silog, one cell": dict(silog_lambda=1.0),
    "silog, downsampling": dict(silog_lambda=0.0),
}
# Every kind with every reduction, with and without weights, and the mean also with all valid.
for _kind in KINDS:
    for _reduction in REDUCTIONS if _kind != "silog" else ("mean",):
        for _weighted in (False, True):
            for _invalid in (0.0, 0.2) if _reduction == "mean" else (0.2,):
                _id = f"{_kind}, {_reduction}"
                _id += ", weights" if _weighted else ""
                _id += ", all valid" if not _invalid else ""
                SHAPES[_id] = dict(n=2, h=3, w=4, height=9, width=13, kind=_kind, invalid=_invalid)
                OPTIONS[_id] = dict(reduction=_reduction)
                if _weighted:
                    OPTIONS[_id]["pixel_weight"] = weights(2, 9, 13, negative=_kind != "silog")

BAD_INPUTS = {
    "no such kind": (lambda d, t, k, v: (d, t, "L1"), ValueError, "kind is 'L1', expected one of"),
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


BAD_OPTIONS = {  # keyword arguments, exception, part of its message
    "reduction": (dict(reduction="average"), ValueError, "reduction is 'average', expected one of"),
    "silog sum": (dict(kind="silog", reduction="sum"), ValueError, "reduction is 'sum', but silog"),
    "silog none": (dict(kind="silog", reduction="none"), ValueError, "is 'none', but silog"),
    "lambda > 1": (dict(kind="silog", silog_lambda=1.5), ValueError, "silog_lambda is 1.5"),
    "lambda < 0": (dict(kind="silog", silog_lambda=-0.1), ValueError, "silog_lambda is -0.1"),
    "weight shape": (
        dict(pixel_weight=torch.ones(2, 9, 12)),
        ValueError,
        r"pixel_weight: \[2, 9, 12\], expected .*\[2, 9, 13\]",
    ),
    "weight 2-D": (dict(pixel_weight=torch.ones(9, 13)), ValueError, r"pixel_weight: \[9, 13\]"),
    "weight int64": (
        dict(pixel_weight=torch.ones(2, 1, 9, 13, dtype=torch.int64)),
        TypeError,
        "pixel_weight: torch.int64",
    ),
    "weight elsewhere": (
        dict(pixel_weight=torch.ones(2, 1, 9, 13, device="meta")),
        ValueError,
        "pixel_weight: on meta, but depth on cpu",
    ),
    "weight with gradient": (
        dict(pixel_weight=torch.ones(2, 1, 9, 13, requires_grad=True)),
        ValueError,
        "pixel_weight requires a gradient",
    ),
}


class TestUpsampleDepthLoss(OpChecks):
    name = "upsample_depth_loss"
    fused = staticmethod(upsample_depth_loss)
    reference = staticmethod(reference)
    shapes = SHAPES
    options = OPTIONS
    alignments = (True, False)
    interpreted = (
        *("small", "odd", "several strips", "1x1 depth", "1x1 target", "one row", "one column"),
        *("wide cells", "high cells", "downsampling", "same size", "silog, one cell"),
        # test_equals_pytorch_functions runs the others, in float32.
        *("l2, mean, weights", "l1, sum, weights", "berhu, none, weights", "silog, mean, weights"),
    )
    bad_inputs = BAD_INPUTS

    def inputs(self, shape):
        return make(**shape)

    def operator_inputs(self, backend, device):
        depth, target, _, valid = self.small()
        depth = depth.detach().to(device).requires_grad_()
        # opcheck compares inputs before and after, and NaN is not equal to itself.
        target = target.nan_to_num().to(device)
        weight = weights(2, 9, 13).to(device)
        tensors = depth, target, valid.to(device), weight
        return *tensors, "berhu", "mean", 0.5, True, True, backend


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
    depth, target, _, valid = make(2, 3, 4, 9, 13, kind, invalid=0.2)
    return *on(device, depth, target, valid), kind


def assert_same_bits(found, expected):
    assert all(torch.equal(f, e) for f, e in zip(found, expected, strict=True))


def expected_loss(errors, weight, kind, reduction, silog_lambda):
    """The loss of errors in float64 by PyTorch's functions; silog: of errors of the logarithms."""
    if kind == "silog":
        mean = (weight * errors).sum() / weight.sum()
        return (weight * errors**2).sum() / weight.sum() - silog_lambda * mean**2
    zero = torch.zeros_like(errors)
    if kind == "l1":
        losses = F.l1_loss(errors, zero, reduction="none")
    elif kind == "l2":
        losses = F.mse_loss(errors, zero, reduction="none")
    else:
        c = errors.detach().abs().max() / 5
        losses = torch.stack([e if e <= c else (e * e + c * c) / (2 * c) for e in errors.abs()])
    losses = losses * weight
    return {"mean": losses.sum() / weight.sum(), "sum": losses.sum(), "none": losses}[reduction]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_equals_pytorch_functions(device, kind, reduction, weighted):
    """Equals upsampling and PyTorch's losses of the valid pixels, with c of berHu as a constant."""
    if kind == "silog" and reduction != "mean":
        pytest.skip("refused")
    depth, target, valid, _ = case(device, kind)
    weight = weights(2, 9, 13).to(device) if weighted else torch.ones_like(target)
    keywords = dict(reduction=reduction, silog_lambda=0.85)
    if weighted:
        keywords["pixel_weight"] = weight[:, 0]
    loss = upsample_depth_loss(depth, target, kind, valid, **keywords)
    (grad,) = torch.autograd.grad(loss.sum(), depth)
    assert loss.dtype == torch.float32
    if reduction == "none":
        assert loss.shape == target.shape and not loss[~valid].any()
        loss = loss[valid]

    exact = depth.detach().double().requires_grad_()
    z, t = upsample(exact, target.shape[2:])[valid], target[valid].double()
    errors = z.log() - t.log() if kind == "silog" else z - t
    expected = expected_loss(errors, weight[valid].double(), kind, reduction, 0.85)
    torch.testing.assert_close(loss, expected.float())
    (expected_grad,) = torch.autograd.grad(expected.sum(), exact)
    torch.testing.assert_close(grad, expected_grad.float())


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


def test_nothing_counts(device, kind):
    """Weights of 0 everywhere: 0, not 0 / 0. Their sum may be 0 otherwise: then as PyTorch."""
    depth, target, valid, _ = case(device, kind)
    zero = functools.partial(upsample_depth_loss, pixel_weight=torch.zeros_like(target))
    loss, grad = run(zero, (depth, target, kind, valid))
    assert loss == 0 and not grad.any()
    if kind != "silog":
        weight = torch.ones_like(target)
        weight[1] = -1
        loss = upsample_depth_loss(depth, target.nan_to_num(), kind, pixel_weight=weight)
        assert loss.isinf()


@pytest.mark.parametrize("shape", [(0, 1, 8, 9), (2, 1, 0, 9), (2, 1, 8, 0)])
def test_no_pixels(device, kind, shape):
    for dtype in (torch.float32, torch.bfloat16):
        depth = torch.randn(shape[0], 1, 4, 5, device=device, dtype=dtype, requires_grad=True)
        target = torch.zeros(shape, device=device)
        for valid in (None, torch.zeros(shape, dtype=torch.bool, device=device)):
            for reduction in REDUCTIONS if kind != "silog" else ("mean",):
                fused = functools.partial(upsample_depth_loss, reduction=reduction)
                loss, grad = run(fused, (depth, target, kind, valid))
                assert loss.shape == (shape if reduction == "none" else ())
                assert not loss.any() and loss.dtype == torch.float32
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
    depth = (torch.rand(2, 1, 5, 6, device=device) + 0.5).requires_grad_()
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


def test_silog_of_numbers_that_are_not_positive(device):
    """Not finite if a valid number is not positive; invalid ones have no effect."""
    depth, target, valid, kind = case(device, "silog")
    valid[1, 0, 8, 12] = True
    for z, t in ((None, 0.0), (-1.0, None), (-1.0, -1.0)):
        changed, changed_target = depth.detach().clone(), target.nan_to_num(1.0)
        if z is not None:
            changed[1, 0, 2, 3] = z
        if t is not None:
            changed_target[1, 0, 8, 12] = t
        inputs = changed.requires_grad_(), changed_target, kind
        assert not upsample_depth_loss(*inputs, valid).isfinite()
        without = valid.clone()
        without[1, 0, 6:, 8:] = False  # all pixels of the last point
        assert all(x.isfinite().all() for x in run(upsample_depth_loss, (*inputs, without)))


@pytest.mark.parametrize("factor", [1e-3, 1e4])
@pytest.mark.parametrize("target", TARGETS)
def test_silog_is_invariant_to_scale(target, factor):
    """With lambda 1, silog is a variance: a factor cancels. Kernels lose no digits by that."""
    backend, device = require(*target)
    depth, depths, valid, kind = case(device, "silog")
    fused = functools.partial(upsample_depth_loss, silog_lambda=1.0)
    with ops.backend(backend):
        loss, grad = run(fused, (depth, depths, kind, valid))
        scaled = (depth.detach() * factor).requires_grad_()
        scaled_loss, scaled_grad = run(fused, (scaled, depths, kind, valid))
    torch.testing.assert_close(scaled_loss, loss, rtol=2e-6, atol=0)
    torch.testing.assert_close(scaled_grad * factor, grad, rtol=1e-4, atol=1e-6)


def test_berhu_of_subnormal_errors(device):
    depth, target, valid, kind = case(device, "berhu")
    scaled = (depth.detach() * 1e-40).requires_grad_(), target * 1e-40, kind, valid
    assert all(x.isfinite().all() for x in run(upsample_depth_loss, scaled))


@pytest.mark.parametrize(
    "dtypes",
    [
        (torch.float32, torch.bfloat16),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float16),
    ],
    ids=str,
)
def test_other_target_dtype(device, kind, dtypes):
    depth, target, valid, _ = case(device, kind)
    depth = depth.detach().to(dtypes[0]).requires_grad_()
    inputs = depth, target.to(dtypes[1]), kind, valid
    assert_as_good_as_eager(upsample_depth_loss, reference, inputs)


def test_pixel_weight_of_any_dtype(device):
    depth, target, valid, kind = case(device, "l2")
    weight = weights(2, 9, 13).to(device).half()
    expected, *results = (
        run(functools.partial(upsample_depth_loss, pixel_weight=w), (depth, target, kind, valid))
        for w in (weight.float(), weight, weight[:, 0], weight.double())
    )
    for found in results:
        assert_same_bits(found, expected)


def test_float16_with_grad_scaler(device):
    """A step under autocast has the gradient of float32; one that overflows is skipped."""
    depth, target, valid, kind = case(device, "berhu")
    head = torch.nn.Conv2d(1, 1, 1).to(device)
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler(device, init_scale=1024.0)

    def loss(dtype):
        with torch.autocast(device, dtype=torch.float16, enabled=dtype == torch.float16):
            z = head(depth.detach())
            assert z.dtype == dtype
            return upsample_depth_loss(z, target, kind, valid, reduction="none").mean()

    expected = torch.autograd.grad(loss(torch.float32), head.weight)[0]
    scaler.scale(loss(torch.float16)).backward()
    scaler.unscale_(optimizer)
    torch.testing.assert_close(head.weight.grad, expected, rtol=1e-2, atol=1e-3)
    before = head.weight.detach().clone()
    scaler.step(optimizer)
    scaler.update()
    assert not torch.equal(head.weight, before)

    after = head.weight.detach().clone()
    optimizer.zero_grad()
    scaler.scale(loss(torch.float16) * 1e6).backward()
    scaler.step(optimizer)
    scaler.update()
    assert torch.equal(head.weight, after) and scaler.get_scale() == 512.0


def test_float64_depth(kind):
    """float64 depth uses the reference for any dtype of target."""
    depth, target, valid, _ = case("cpu", kind)
    exact = run(
        upsample_depth_loss, (depth.detach().double().requires_grad_(), target, kind, valid)
    )
    assert all(x.dtype == torch.float64 for x in exact)
    for f, e in zip(run(upsample_depth_loss, (depth, target, kind, valid)), exact, strict=True):
        torch.testing.assert_close(f.double(), e, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_second_derivative_raises(reduction):
    require("cpp", "cpu")
    depth, target, valid, kind = case("cpu", "berhu")
    with ops.backend("cpp"):
        loss = upsample_depth_loss(depth, target, kind, valid, reduction=reduction)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss.sum(), depth, create_graph=True)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradcheck_of_weights_and_reductions(kind, reduction):
    if (kind == "silog" and reduction != "mean") or kind == "berhu":
        pytest.skip("refused, or c of berHu is a constant in the gradient")
    depth, target, valid, _ = case("cpu", kind)
    weight = weights(2, 9, 13).double()
    target = target.double()

    def loss(x):
        return upsample_depth_loss(
            x, target, kind, valid, reduction=reduction, pixel_weight=weight, silog_lambda=0.85
        )

    assert torch.autograd.gradcheck(loss, depth.detach().double().requires_grad_())


@pytest.mark.parametrize("bad", BAD_OPTIONS)
def test_bad_options(bad):
    keywords, exception, message = BAD_OPTIONS[bad]
    depth, target, _, valid = make(2, 3, 4, 9, 13)
    with pytest.raises(exception, match=message):
        upsample_depth_loss(depth, target, valid=valid, **keywords)


def test_compile_and_autocast_per_pixel():
    """Losses of single pixels, whose gradient is a second call of the operator."""
    require("cpp", "cpu")
    depth, target, valid, _ = case("cpu", "berhu")
    weight = weights(2, 9, 13)

    def step(x):
        keywords = dict(reduction="none", pixel_weight=weight)
        return upsample_depth_loss(x * 1.5, target, "berhu", valid, **keywords) * 2.0

    torch.compiler.reset()
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    with ops.backend("cpp"):
        expected = run(step, (depth,))
        for f, e in zip(run(compiled, (depth,)), expected, strict=True):
            torch.testing.assert_close(f, e)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert_same_bits(run(step, (depth,)), expected)


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_opcheck_of_reductions(reduction):
    require("cpp", "cpu")
    depth, target, valid, kind = case("cpu", "berhu")
    arguments = depth, target.nan_to_num(), valid, None, kind, reduction, 0.5, False, True, "cpp"
    torch.library.opcheck(torch.ops.gioada_fast.upsample_depth_loss.default, arguments)
