"""``upsample_cross_entropy``: the shared op tests, PyTorch's own loss, labels, weights, NaN."""

import functools

import pytest
import torch
import torch.nn.functional as F

from gioada_fast import ops
from gioada_fast.ops.upsample_cross_entropy import reference, sample, upsample_cross_entropy
from tests.op_checks import TARGETS, OpChecks, require, run


def make(*shape, weighted=False, pixel_weighted=False, **options):
    """Logits, labels, ignore_index, weight and pixel_weight for one case."""
    options |= dict(weighted=weighted, pixel_weighted=pixel_weighted)
    return tuple(sample(*shape, **options).values())


def with_positional_pixel_weight(function):
    """The function as one of tensors that may all change their device, dtype and memory format."""

    @functools.wraps(function)
    def call(logits, labels, ignore_index=255, weight=None, pixel_weight=None, **options):
        return function(logits, labels, ignore_index, weight, pixel_weight=pixel_weight, **options)

    return call


SHAPES = {
    "small": dict(n=2, c=4, h=3, w=4, height=9, width=13),
    "odd": dict(n=1, c=5, h=4, w=3, height=7, width=18),
    "flagship": dict(n=1, c=16, h=65, w=129, height=512, width=1024),
    "19 classes": dict(n=3, c=19, h=3, w=5, height=19, width=34),
    "70 classes": dict(n=1, c=70, h=3, w=5, height=17, width=33),
    "1 class": dict(n=1, c=1, h=3, w=4, height=9, width=9),
    "1x1 logits": dict(n=2, c=3, h=1, w=1, height=6, width=5),
    "1x1 labels": dict(n=1, c=3, h=5, w=4, height=1, width=1),
    "one row": dict(n=1, c=3, h=1, w=6, height=4, width=40),
    "one column": dict(n=1, c=3, h=6, w=1, height=40, width=3),
    "wide cells": dict(n=1, c=3, h=2, w=2, height=5, width=300),
    "downsampling": dict(n=1, c=6, h=20, w=30, height=7, width=9),
    "same size": dict(n=1, c=4, h=6, w=7, height=6, width=7),
    "uint8, weighted": dict(
        n=2, c=11, h=4, w=5, height=28, width=35, label_dtype=torch.uint8, weighted=True
    ),
    "large logits": dict(n=1, c=4, h=3, w=4, height=9, width=9, scale=200.0),
    "sum": dict(n=2, c=5, h=4, w=3, height=11, width=18),
    "sum, smooth": dict(n=1, c=5, h=4, w=3, height=11, width=18, weighted=True),
    "none": dict(n=2, c=5, h=4, w=3, height=11, width=18, label_dtype=torch.int32),
    "none, smooth, weights": dict(
        n=1, c=19, h=4, w=5, height=11, width=34, weighted=True, pixel_weighted=True
    ),
    "pixel weights": dict(n=2, c=5, h=4, w=3, height=11, width=18, pixel_weighted=True),
    "smooth, 1x1": dict(n=2, c=5, h=1, w=1, height=3, width=4, weighted=True),
    "smooth, weights, 40 classes": dict(
        n=1, c=40, h=3, w=4, height=9, width=17, weighted=True, pixel_weighted=True
    ),
    "smooth, large logits": dict(n=1, c=4, h=3, w=4, height=9, width=9, scale=200.0),
    "over all, weights": dict(
        n=2, c=5, h=4, w=3, height=11, width=18, weighted=True, pixel_weighted=True, ignored=0.5
    ),
    "bands, none": dict(n=1, c=3, h=65, w=9, height=140, width=37, pixel_weighted=True),
}
OPTIONS = {
    "sum": dict(reduction="sum"),
    "sum, smooth": dict(reduction="sum", label_smoothing=0.1),
    "none": dict(reduction="none"),
    "none, smooth, weights": dict(reduction="none", label_smoothing=0.2),
    "smooth, 1x1": dict(label_smoothing=1.0),
    "smooth, weights, 40 classes": dict(label_smoothing=0.3),
    "smooth, large logits": dict(label_smoothing=0.1),
    "over all, weights": dict(mean_over="all", label_smoothing=0.1),
    "bands, none": dict(reduction="none", label_smoothing=0.1),
}

BAD_INPUTS = {
    "logits 3-D": (lambda x, y, i, w, v: (x[0], y), ValueError, r"logits: \[4, 3, 4\]"),
    "no class": (lambda x, y, i, w, v: (x[:, :0], y), ValueError, r"logits: \[2, 0, 3, 4\]"),
    "logits int32": (lambda x, y, i, w, v: (x.int(), y), TypeError, "torch.int32"),
    "labels 4-D": (lambda x, y, i, w, v: (x, y[None]), ValueError, r"labels: \[1, 2, 9, 13\]"),
    "other batch": (
        lambda x, y, i, w, v: (x, y[:1]),
        ValueError,
        r"expected \[N, H, W\] or \[N, 1, H, W\] with N = 2",
    ),
    "labels int16": (lambda x, y, i, w, v: (x, y.short()), TypeError, "torch.int16"),
    "labels elsewhere": (
        lambda x, y, i, w, v: (x, y.to("meta")),
        ValueError,
        "labels: on meta, but logits on cpu",
    ),
    "short weight": (
        lambda x, y, i, w, v: (x, y, i, torch.ones(3)),
        ValueError,
        r"weight: \[3\], expected \[C\] with C = 4",
    ),
    "integer weight": (
        lambda x, y, i, w, v: (x, y, i, torch.ones(4, dtype=torch.int64)),
        TypeError,
        "torch.int64",
    ),
    "weight with gradient": (
        lambda x, y, i, w, v: (x, y, i, torch.ones(4, requires_grad=True)),
        ValueError,
        "requires a gradient",
    ),
}


# id -> (arguments, exception, part of its message), for logits [2, 4, 3, 4], labels [2, 9, 13]
BAD_OPTIONS = {
    "reduction": (
        dict(reduction="avg"),
        ValueError,
        "reduction is 'avg', expected one of mean, sum, none",
    ),
    "no reduction": (dict(reduction=None), ValueError, "reduction is None"),
    "mean_over": (
        dict(mean_over="batch"),
        ValueError,
        "mean_over is 'batch', expected one of valid, all",
    ),
    "sum over all": (
        dict(reduction="sum", mean_over="all"),
        ValueError,
        "mean_over is 'all', but reduction is 'sum', expected 'mean'",
    ),
    "none over all": (
        dict(reduction="none", mean_over="all"),
        ValueError,
        "mean_over is 'all', but reduction is 'none'",
    ),
    "smoothing above 1": (
        dict(label_smoothing=1.5),
        ValueError,
        r"label_smoothing is 1.5, expected a number in \[0, 1\]",
    ),
    "smoothing below 0": (dict(label_smoothing=-0.1), ValueError, "label_smoothing is -0.1"),
    "smoothing NaN": (dict(label_smoothing=float("nan")), ValueError, "label_smoothing is nan"),
    "smoothing text": (
        dict(label_smoothing="0.1"),
        TypeError,
        "label_smoothing is '0.1', expected a number",
    ),
    "small pixel weights": (
        dict(pixel_weight=torch.ones(2, 3, 4)),
        ValueError,
        r"pixel_weight: \[2, 3, 4\], expected \[N, H, W\] or \[N, 1, H, W\] = \[2, 9, 13\] or",
    ),
    "pixel weights of an image": (
        dict(pixel_weight=torch.ones(9, 13)),
        ValueError,
        r"pixel_weight: \[9, 13\]",
    ),
    "pixel weights of classes": (
        dict(pixel_weight=torch.ones(2, 4, 9, 13)),
        ValueError,
        r"pixel_weight: \[2, 4, 9, 13\]",
    ),
    "integer pixel weights": (
        dict(pixel_weight=torch.ones(2, 9, 13, dtype=torch.int64)),
        TypeError,
        "pixel_weight: torch.int64, expected float32, bfloat16, float16 or float64",
    ),
    "bool pixel weights": (
        dict(pixel_weight=torch.ones(2, 9, 13, dtype=torch.bool)),
        TypeError,
        "pixel_weight: torch.bool",
    ),
    "pixel weights elsewhere": (
        dict(pixel_weight=torch.ones(2, 9, 13, device="meta")),
        ValueError,
        "pixel_weight: on meta, but logits on cpu",
    ),
    "pixel weights with gradient": (
        dict(pixel_weight=torch.ones(2, 9, 13, requires_grad=True)),
        ValueError,
        "pixel_weight requires a gradient",
    ),
    "probabilities": (
        dict(labels=torch.ones(2, 4, 9, 13)),
        TypeError,
        r"labels: torch.float32 \[2, 4, 9, 13\], expected class ids: this loss does not take prob",
    ),
    "float labels": (dict(labels=torch.ones(2, 9, 13)), TypeError, "labels: torch.float32"),
}


class TestUpsampleCrossEntropy(OpChecks):
    name = "upsample_cross_entropy"
    fused = staticmethod(with_positional_pixel_weight(upsample_cross_entropy))
    reference = staticmethod(with_positional_pixel_weight(reference))
    shapes = SHAPES
    options = OPTIONS
    alignments = (True, False)
    interpreted = tuple(i for i in SHAPES if i not in ("flagship", "downsampling", "bands, none"))
    bad_inputs = BAD_INPUTS

    def inputs(self, shape):
        return make(**shape)

    def operator_inputs(self, backend, device):
        return operator_inputs("mean", backend, device)


def operator_inputs(reduction, backend, device):
    logits, labels, ignore_index, _, v = make(**SHAPES["small"], pixel_weighted=True)
    logits = logits.detach().to(device).requires_grad_()
    wants_grad = reduction != "none"
    return (
        logits,
        labels.to(device),
        torch.ones(4, device=device),
        v.nan_to_num().to(device),  # opcheck compares arguments, and NaN differs from itself
        ignore_index,
        0.1,
        reduction,
        "valid",
        True,
        wants_grad,
        backend,
    )


@pytest.fixture(params=[*TARGETS, pytest.param(("reference", "cpu"), id="reference")])
def device(request):
    """A device, once for each back end that runs on it."""
    backend, device = require(*request.param)
    with ops.backend(backend):
        yield device


def on(device, *tensors):
    return [t.detach().to(device).requires_grad_(t.requires_grad) for t in tensors]


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_equals_pytorch_functions(device, reduction, label_smoothing, align_corners):
    """Equals upsampling and PyTorch's loss, with class weights of either sign and without."""
    logits, labels, _, weight, _ = make(2, 4, 2, 2, 5, 7, weighted=True)
    logits, labels, weight = on(device, logits, labels, weight)
    full = F.interpolate(logits, size=(5, 7), mode="bilinear", align_corners=align_corners)
    for w in (None, weight - 0.7):
        options = dict(reduction=reduction, label_smoothing=label_smoothing)
        expected = F.cross_entropy(full, labels, w, ignore_index=255, **options)
        found = upsample_cross_entropy(
            logits, labels, 255, w, align_corners=align_corners, **options
        )
        torch.testing.assert_close(found, expected)
        cotangent = torch.randn_like(found)
        grads = [
            torch.autograd.grad(x, logits, cotangent, retain_graph=True) for x in (found, expected)
        ]
        torch.testing.assert_close(*grads)


@pytest.mark.parametrize("weighted", [False, True])
def test_pixel_weights_and_mean_over_all_pixels(device, weighted):
    """Equal products with PyTorch's loss of each pixel, and their means."""
    made = make(2, 4, 2, 2, 5, 7, weighted=weighted, ignored=0.4)
    logits, labels = on(device, *made[:2])
    w = made[3].to(device) if weighted else None
    v = torch.randn(2, 5, 7, device=device)
    call = functools.partial(upsample_cross_entropy, logits, labels, 255, w)
    full = F.interpolate(logits, size=(5, 7), mode="bilinear", align_corners=True)
    each = F.cross_entropy(full, labels, w, ignore_index=255, reduction="none")
    torch.testing.assert_close(call(mean_over="all"), each.mean())
    valid = labels != 255
    v_nan = v.masked_fill(~valid, float("nan"))
    for given in (v, v_nan.double(), v_nan[:, None]):
        torch.testing.assert_close(call(pixel_weight=given, reduction="none"), each * v)
    torch.testing.assert_close(call(pixel_weight=v_nan, reduction="sum"), (each * v).sum())
    torch.testing.assert_close(call(pixel_weight=v_nan, mean_over="all"), (each * v).mean())
    v = v.abs()
    total = v[valid] if w is None else v[valid] * w[labels[valid]]
    torch.testing.assert_close(call(pixel_weight=v), (each * v).sum() / total.sum())


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_weights_that_cancel_divide_as_in_pytorch(device, label_smoothing):
    logits = torch.tensor([[1.0, 3.0], [2.0, -1.0]], device=device).view(2, 2, 1, 1)
    labels = torch.tensor([0, 1], device=device).view(2, 1, 1)
    w = torch.tensor([1.0, -1.0], device=device)
    expected = F.cross_entropy(logits, labels, w, label_smoothing=label_smoothing)
    assert expected.isinf()
    found = upsample_cross_entropy(logits, labels, 255, w, label_smoothing=label_smoothing)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("bad_id", list(BAD_OPTIONS))
def test_bad_options(bad_id):
    options, exception, message = BAD_OPTIONS[bad_id]
    logits, labels, *_ = make(**SHAPES["small"])
    with pytest.raises(exception, match=message):
        upsample_cross_entropy(**{"logits": logits, "labels": labels} | options)


@pytest.mark.parametrize("target", TARGETS)
def test_opcheck_of_losses_of_pixels(target):
    operator = torch.ops.gioada_fast.upsample_cross_entropy.default
    torch.library.opcheck(operator, operator_inputs("none", *require(*target)))


@pytest.mark.parametrize("options", [OPTIONS["none, smooth, weights"], OPTIONS["sum, smooth"]])
def test_options_compile_to_one_graph(options):
    require("cpp", "cpu")
    torch.compiler.reset()

    def step(logits, labels, weight, pixel_weight):
        return 2 * upsample_cross_entropy(
            1.5 * logits, labels, 255, weight, pixel_weight=pixel_weight, **options
        )

    compiled = torch.compile(step, fullgraph=True, dynamic=True, backend="aot_eager")
    for shape_id in ("none, smooth, weights", "over all, weights"):
        logits, labels, _, *weights = make(**SHAPES[shape_id])
        with ops.backend("cpp"), torch.autocast("cpu", dtype=torch.bfloat16):
            for found, expected in zip(
                run(compiled, (logits, labels, *weights)),
                run(step, (logits, labels, *weights)),
                strict=True,
            ):
                assert found.dtype == torch.float32
                torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_grad_scaler(device, reduction):
    """A float16 model under a GradScaler has the gradients of a float32 model, to rounding."""
    if device == "cuda":
        pytest.skip("the scaler is the CPU's")
    logits, labels, _, _, v = make(1, 3, 4, 5, 8, 9, pixel_weighted=True)
    mix = torch.randn(3, 3, 1, 1)

    def gradient(dtype, scaler):
        parameter = mix.clone().requires_grad_()
        optimiser = torch.optim.SGD([parameter], lr=1.0)
        with torch.autocast("cpu", dtype=dtype, enabled=scaler.is_enabled()):
            z = F.conv2d(logits.detach(), parameter)
            assert z.dtype == dtype
            loss = upsample_cross_entropy(
                z, labels, reduction=reduction, pixel_weight=v, label_smoothing=0.1
            ).mean()
        scaler.scale(loss).backward()
        scaler.unscale_(optimiser)
        return parameter.grad

    scaled = gradient(torch.float16, torch.amp.GradScaler("cpu", init_scale=2.0**10))
    plain = gradient(torch.float32, torch.amp.GradScaler("cpu", enabled=False))
    assert plain.any()
    torch.testing.assert_close(scaled, plain, rtol=1e-2, atol=2e-3 * plain.abs().max().item())


@pytest.mark.parametrize(
    "options",
    [{}, dict(reduction="sum"), dict(reduction="none"), dict(mean_over="all", label_smoothing=0.1)],
    ids=str,
)
@pytest.mark.parametrize("ignored", ["labels", "pixel weights"])
def test_no_pixel_counts(device, ignored, options):
    made = make(1, 3, 4, 5, 8, 9, ignored=2.0 if ignored == "labels" else 0.0)
    logits, labels = on(device, *made[:2])
    v = torch.full((1, 8, 9), float("nan") if ignored == "labels" else 0.0, device=device)
    loss, grad = run(
        functools.partial(upsample_cross_entropy, pixel_weight=v, **options), (logits, labels)
    )
    assert loss.shape == (labels.shape if options.get("reduction") == "none" else ())
    assert not loss.any() and not grad.any()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(0, 8, 9), (2, 0, 9)])
def test_no_pixels(device, shape, reduction):
    logits = torch.randn(shape[0], 3, 4, 5, device=device, requires_grad=True)
    labels = torch.zeros(shape, dtype=torch.uint8, device=device)
    loss, grad = run(
        functools.partial(upsample_cross_entropy, reduction=reduction), (logits, labels)
    )
    assert loss.shape == (shape if reduction == "none" else ())
    assert not loss.any() and loss.dtype == torch.float32
    assert grad.shape == logits.shape and not grad.any()


def test_ignored_images_may_have_any_logits(device):
    """NaN under ignored labels does not reach the losses."""
    logits, labels = on(device, *make(2, 3, 4, 5, 8, 9)[:2])
    expected = upsample_cross_entropy(logits[:1], labels[:1], label_smoothing=0.1)
    with torch.no_grad():
        logits[1], labels[1] = float("nan"), 255
    found = upsample_cross_entropy(logits, labels, label_smoothing=0.1)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("ignore_index", [0, 2, -1, 255])
def test_ignore_index(device, ignore_index):
    logits, labels, *_ = make(1, 3, 4, 5, 8, 9, ignored=0.0)
    labels[:, ::2] = ignore_index
    logits, labels = on(device, logits, labels)
    expected = F.cross_entropy(
        F.interpolate(logits, size=(8, 9), mode="bilinear", align_corners=True),
        labels,
        ignore_index=ignore_index,
    )
    torch.testing.assert_close(upsample_cross_entropy(logits, labels, ignore_index), expected)


def test_label_types_agree(device):
    logits, labels = on(device, *make(1, 3, 4, 5, 8, 9)[:2])
    for a, b in zip(
        run(upsample_cross_entropy, (logits, labels)),
        run(upsample_cross_entropy, (logits, labels.to(torch.uint8))),
        strict=True,
    ):
        assert torch.equal(a, b)


@pytest.mark.parametrize("label", [3, 254, -1, -(2**40), 2**40, 2**32])
def test_label_out_of_range(device, label):
    """The CPU raises and names its position; a GPU returns NaN, since raising would wait."""
    logits, labels, _, weight, _ = make(2, 3, 4, 5, 8, 9, weighted=True)
    labels[1, 2:5, 3:] = label
    logits, labels, weight = on(device, logits, labels, weight)
    if device == "cuda":
        assert upsample_cross_entropy(logits, labels, 255, weight).isnan()
        return
    message = rf"labels: {label} at \[1, 2, 3\], expected a class in \[0, 3\) or ignore_index = 255"
    with pytest.raises(ValueError, match=message):
        upsample_cross_entropy(logits, labels, 255, weight)


def test_nan_and_infinity_reach_the_loss(device):
    logits, labels, *_ = make(1, 3, 4, 5, 8, 9, ignored=0.0)
    for value in (float("nan"), float("inf")):
        with torch.no_grad():
            logits[0, 1, 2, 2] = value
        assert not torch.isfinite(upsample_cross_entropy(*on(device, logits, labels)))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_second_derivative_raises(reduction):
    logits, labels, *_ = make(1, 3, 4, 5, 8, 9)
    with ops.backend("cpp"):
        loss = upsample_cross_entropy(logits, labels, reduction=reduction).mean()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss, logits, create_graph=True)


def test_backward_scales_and_accumulates(device):
    """Retained graphs and scaled losses work as for any PyTorch loss."""
    logits, labels = on(device, *make(1, 3, 4, 5, 8, 9)[:2])
    loss = upsample_cross_entropy(logits, labels)
    (once,) = torch.autograd.grad(loss, logits, retain_graph=True)
    (scaled,) = torch.autograd.grad(loss * -4, logits)
    torch.testing.assert_close(scaled, -4 * once)


def test_gradients_are_accurate_to_rounding():
    """The error is relative to each probability: exp and division are accurate to a few ulp."""
    require("cpp", "cpu")
    from gioada_fast import _C

    images = 4096  # of one pixel and two classes: their gradients do not mix
    logits = torch.zeros(images, 2, 1, 1)
    logits[:, 1, 0, 0] = -torch.linspace(0, 80, images)
    logits.requires_grad_()
    labels = torch.zeros(images, 1, 1, dtype=torch.uint8)
    exact = torch.softmax(logits.detach().double(), 1)[:, 1] / images
    for isa in _C.instruction_sets():
        before = _C.use_instruction_set(isa)
        try:
            with ops.backend("cpp"):
                (grad,) = torch.autograd.grad(upsample_cross_entropy(logits, labels), logits)
        finally:
            _C.use_instruction_set(before)
        assert ((grad[:, 1] - exact) / exact).abs().max() < 4e-7
