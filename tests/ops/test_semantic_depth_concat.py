"""``semantic_depth_concat``: the shared op tests, any layout of gradients, missing inputs."""

import pytest
import torch
import torch.nn.functional as F

from gioada_fast import ops
from gioada_fast.ops.semantic_depth_concat import reference, sample, semantic_depth_concat
from tests.op_checks import (
    TARGETS,
    OpChecks,
    _channels_last,
    _sliced,
    _transposed,
    assert_as_good_as_eager,
    cast,
    require,
    roundoff_of,
    run,
)


def make(n, c, h, w, height=None, width=None, **options):
    """Logits, depth and size for one case; no size for a case with a scale factor."""
    return tuple(sample(n, c, h, w, height, width, **options).values())


SHAPES = {
    "small": dict(n=2, c=4, h=3, w=4, height=9, width=13),
    "odd": dict(n=1, c=5, h=4, w=3, height=7, width=18),
    "as flagship": dict(n=1, c=16, h=33, w=65, height=256, width=512),
    "11 classes": dict(n=2, c=11, h=4, w=5, height=28, width=35),
    "19 classes": dict(n=3, c=19, h=3, w=5, height=19, width=34),
    "23 classes": dict(n=1, c=23, h=3, w=3, height=11, width=20),
    "70 classes": dict(n=1, c=70, h=3, w=5, height=17, width=33),
    "1 class": dict(n=1, c=1, h=3, w=4, height=9, width=9),
    "1x1 logits": dict(n=2, c=3, h=1, w=1, height=6, width=5),
    "1x1 result": dict(n=1, c=3, h=5, w=4, height=1, width=1),
    "one row": dict(n=1, c=3, h=1, w=6, height=4, width=40),
    "one column": dict(n=1, c=3, h=6, w=1, height=40, width=3),
    "wide cells": dict(n=1, c=3, h=2, w=2, height=5, width=300),
    "many cells": dict(n=2, c=2, h=70, w=5, height=141, width=9),
    "downsampling": dict(n=1, c=6, h=20, w=30, height=7, width=9),
    "same size": dict(n=1, c=4, h=6, w=7, height=6, width=7),
    "semantics alone": dict(n=2, c=5, h=3, w=4, height=9, width=19, with_depth=False),
    "semantics alone, 16": dict(n=1, c=16, h=5, w=4, height=33, width=28, with_depth=False),
    "for logits": dict(n=1, c=5, h=3, w=4, height=9, width=19, requires="logits"),
    "for depth": dict(n=1, c=5, h=3, w=4, height=9, width=19, requires="depth"),
    "large logits": dict(n=1, c=4, h=3, w=4, height=9, width=9, scale=200.0),
}
# The last one's positions are fractions of 32 bits.
FACTORS = (1.7, 0.6, 2, 0.5, 1 / 3, (1.5, 0.75), 1.2345678)
SHAPES.update({f"factor {f}": dict(n=1, c=4, h=4, w=6) for f in FACTORS})
OPTIONS = {f"factor {f}": dict(scale_factor=f) for f in FACTORS}
INTERPRETED = ("small", "odd", "1 class", "1x1 logits", "1x1 result", "one row", "one column")
INTERPRETED += ("factor (1.5, 0.75)", "factor 1.2345678")
INTERPRETED += ("same size", "semantics alone", "for logits", "for depth", "large logits")

BAD_INPUTS = {
    "logits 3-D": (lambda x, d, s: (x[0], d, s), ValueError, r"logits: \[4, 3, 4\]"),
    "no class": (lambda x, d, s: (x[:, :0], d, s), ValueError, r"logits: \[2, 0, 3, 4\]"),
    "logits int32": (lambda x, d, s: (x.int(), d, s), TypeError, "torch.int32"),
    "depth 3-D": (lambda x, d, s: (x, d[:, 0], s), ValueError, r"depth: \[2, 3, 4\]"),
    "depth of two channels": (
        lambda x, d, s: (x, d.expand(2, 2, 3, 4), s),
        ValueError,
        r"depth: \[2, 2, 3, 4\], expected \[N, 1, h, w\]",
    ),
    "other batch": (
        lambda x, d, s: (x, d[:1], s),
        ValueError,
        r"depth: \[1, 1, 3, 4\], expected batch and size of logits \[2, 4, 3, 4\]",
    ),
    "other height": (lambda x, d, s: (x, d[:, :, :2], s), ValueError, r"depth: \[2, 1, 2, 4\]"),
    "other width": (lambda x, d, s: (x, d[..., :3], s), ValueError, r"depth: \[2, 1, 3, 3\]"),
    "other dtype": (
        lambda x, d, s: (x, d.bfloat16(), s),
        TypeError,
        "depth: torch.bfloat16, but logits torch.float32",
    ),
    "depth elsewhere": (
        lambda x, d, s: (x, d.to("meta"), s),
        ValueError,
        "depth: on meta, but logits on cpu",
    ),
    "no height": (lambda x, d, s: (x, d, (0, 13)), ValueError, r"size: \(0, 13\), expected"),
    "negative width": (lambda x, d, s: (x, d, (9, -1)), ValueError, r"size: \(9, -1\), expected"),
    "size of three": (lambda x, d, s: (x, d, (2, 9, 13)), ValueError, r"size: \(2, 9, 13\)"),
    "fractional size": (lambda x, d, s: (x, d, (9.5, 13)), TypeError, r"size: \(9.5, 13\)"),
    "no size": (
        lambda x, d, s: (x, d),
        ValueError,
        "size: None, scale_factor: None, expected one of the two, found neither",
    ),
}

BAD_FACTORS = {
    "size as well": (2.0, (9, 13), ValueError, r"size: \(9, 13\), scale_factor: 2.0, .*both"),
    "zero": (0, None, ValueError, "scale_factor: 0, expected .* above 0 and finite"),
    "negative": ((2.0, -1.0), None, ValueError, r"scale_factor: \(2.0, -1.0\), expected"),
    "not finite": (float("inf"), None, ValueError, "scale_factor: inf"),
    "not a number": (float("nan"), None, ValueError, "scale_factor: nan"),
    "three": ((1.0, 2.0, 2.0), None, ValueError, r"scale_factor: \(1.0, 2.0, 2.0\)"),
    "text": ("2", None, TypeError, "scale_factor: 2, expected a number"),
    "no pixel left": (0.3, None, ValueError, r"scale_factor: 0.3 makes 0 x 1 pixels of logits"),
}


class TestSemanticDepthConcat(OpChecks):
    name = "semantic_depth_concat"
    fused = staticmethod(semantic_depth_concat)
    reference = staticmethod(reference)
    shapes = SHAPES
    options = OPTIONS
    alignments = (True, False)
    interpreted = INTERPRETED
    bad_inputs = BAD_INPUTS

    def inputs(self, shape):
        return make(**shape)

    def operator_inputs(self, backend, device):
        logits, depth, size = cast(self.small(), torch.float32, device)
        return logits, depth, *size, True, None, backend


@pytest.mark.parametrize("needed", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("target", TARGETS)
def test_opcheck_of_backward(target, needed):
    backend, device = require(*target)
    grad, logits = torch.randn(2, 5, 9, 13, device=device), torch.randn(2, 4, 3, 4, device=device)
    operator = torch.ops.gioada_fast.semantic_depth_concat_backward.default
    torch.library.opcheck(operator, (grad, logits, True, None, *needed, backend))


@pytest.fixture(params=[*TARGETS, pytest.param(("reference", "cpu"), id="reference")])
def device(request):
    """A device, once for each back end that runs on it."""
    backend, device = require(*request.param)
    with ops.backend(backend):
        yield device


class _Relayout(torch.autograd.Function):
    """Identity whose gradient goes back in another memory layout."""

    @staticmethod
    def forward(ctx, x, layout):
        ctx.layout = layout
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return ctx.layout(grad), None


LAYOUTS = {
    "channels-last": _channels_last,
    "transposed": _transposed,
    "sliced": _sliced,
    "channels-last, every other": lambda x: _sliced(_channels_last(x)),
    "a channel more": lambda x: torch.cat([x, x], 1).contiguous(memory_format=torch.channels_last)[
        :, : x.shape[1]
    ],
}


# All shapes with channels-last gradients, as from a convolution; other layouts with some shapes.
GRADIENTS = [(s, "channels-last") for s in SHAPES if s not in OPTIONS] + [
    (shape, layout)
    for shape in ("small", "11 classes", "70 classes", "semantics alone", "for depth")
    for layout in LAYOUTS
    if layout != "channels-last"
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("shape_id", "layout"), GRADIENTS)
@pytest.mark.parametrize("target", TARGETS)
def test_gradient_of_any_layout(target, shape_id, layout, dtype):
    """``OpChecks`` passes contiguous gradients; a convolution passes channels-last ones."""
    backend, device = require(*target)
    if target == ("triton", "cpu") and shape_id not in INTERPRETED:
        pytest.skip("too large for Triton's interpreter")
    torch.manual_seed(0)
    inputs = cast(make(**SHAPES[shape_id]), dtype, device)

    def fused(*inputs):
        return _Relayout.apply(semantic_depth_concat(*inputs), LAYOUTS[layout])

    with ops.backend(backend):
        assert_as_good_as_eager(fused, reference, inputs, roundoff_of(target, dtype))


def test_expanded_gradient(device):
    """The gradient of a sum over pixels is an expanded tensor with strides of 0."""
    logits, depth, size = cast(make(2, 4, 3, 4, 9, 13), torch.float32, device)
    weights = torch.linspace(-1, 2, 5, device=device)

    def sums(function, *inputs):
        return (function(*inputs).sum(dim=(2, 3)) * weights).sum()

    found = torch.autograd.grad(sums(semantic_depth_concat, logits, depth, size), (logits, depth))
    expected = torch.autograd.grad(sums(reference, logits, depth, size), (logits, depth))
    for f, e in zip(found, expected, strict=True):
        assert e.abs().max() > 0.1
        torch.testing.assert_close(f, e, rtol=1e-4, atol=1e-5)


def test_equals_pytorch_functions(device):
    """Equals PyTorch's upsampling, softmax and concatenation; depth may be missing."""
    logits, depth, size = cast(make(2, 4, 3, 4, 9, 13), torch.float32, device)
    full = F.interpolate(logits, size=size, mode="bilinear", align_corners=True)
    full_depth = F.interpolate(depth, size=size, mode="bilinear", align_corners=True)
    found = semantic_depth_concat(logits, depth, size)
    torch.testing.assert_close(found[:, :4], full.softmax(1))
    torch.testing.assert_close(found[:, 4:], full_depth)
    assert torch.equal(semantic_depth_concat(logits, None, size), found[:, :4])


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("factor", FACTORS)
def test_scale_factor_equals_interpolate(device, factor, align_corners):
    """Sizes, values and gradients of ``F.interpolate``, which gets the same factor."""
    inputs = cast(make(1, 4, 4, 6)[:2], torch.float32, device)

    def eager(logits, depth):
        def resize(x):
            return F.interpolate(
                x, scale_factor=factor, mode="bilinear", align_corners=align_corners
            )

        return torch.cat([resize(logits).softmax(1), resize(depth)], 1)

    def fused(logits, depth):
        return semantic_depth_concat(
            logits, depth, scale_factor=factor, align_corners=align_corners
        )

    for found, expected in zip(run(fused, inputs), run(eager, inputs), strict=True):
        # PyTorch rounds positions to float32: 5e-4 at pixel 9000
        torch.testing.assert_close(
            found, expected, rtol=1e-4, atol=1e-4 if factor != 1.0002 else 2e-3
        )


@pytest.mark.parametrize("bad_id", BAD_FACTORS)
def test_bad_scale_factor(bad_id):
    factor, size, exception, message = BAD_FACTORS[bad_id]
    logits, depth, _ = make(1, 3, 3, 4)
    with pytest.raises(exception, match=message):
        semantic_depth_concat(logits, depth, size, scale_factor=factor)


@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
def test_compile_with_scale_factor(compiler):
    require("cpp", "cpu")
    torch.compiler.reset()

    def step(logits, depth):
        return semantic_depth_concat(logits, depth, scale_factor=1.7, align_corners=False)

    dynamic = compiler == "aot_eager"
    compiled = torch.compile(step, fullgraph=True, dynamic=dynamic, backend=compiler)
    for shape in ((2, 4, 3, 4), (1, 5, 4, 3)) if dynamic else ((2, 4, 3, 4),):
        inputs = make(*shape)[:2]
        with ops.backend("cpp"):
            for found, expected in zip(run(compiled, inputs), run(step, inputs), strict=True):
                torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_gradient_of_one_input_only(device):
    """The gradient of one input is the same, whether or not the other requires a gradient."""
    logits, depth, size = cast(make(2, 4, 3, 4, 9, 13), torch.float32, device)
    _, of_logits, of_depth = run(semantic_depth_concat, (logits, depth, size))
    _, found = run(semantic_depth_concat, (logits, depth.detach(), size))
    assert torch.equal(found, of_logits) and found.abs().max() > 0
    _, found = run(semantic_depth_concat, (logits.detach(), depth, size))
    assert torch.equal(found, of_depth) and found.abs().max() > 0


def test_empty_batch(device):
    logits, depth, size = make(0, 3, 4, 5, 8, 9)
    for inputs in ((logits, depth, size), (logits, None, size)):
        inputs = cast(inputs, torch.float32, device)
        out, *grads = run(semantic_depth_concat, inputs)
        assert out.shape == (0, 3 + (inputs[1] is not None), 8, 9)
        leaves = [x for x in inputs[:2] if x is not None]
        assert [g.shape for g in grads] == [x.shape for x in leaves]


def test_large_logits_do_not_overflow(device):
    logits, depth, size = cast(make(1, 4, 3, 4, 9, 9, scale=1e4), torch.float32, device)
    out, *grads = run(semantic_depth_concat, (logits, depth, size))
    assert all(torch.isfinite(x).all() for x in (out, *grads))
    torch.testing.assert_close(out[:, :4].sum(1), torch.ones(1, 9, 9, device=device))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinity_reach_all_classes(device, value):
    """A logit that is not finite makes all classes of the pixels around it NaN."""
    logits, depth, size = make(1, 3, 5, 5, 13, 13)
    with torch.no_grad():
        logits[0, 1, 2, 2] = value
    out, grad, _ = run(semantic_depth_concat, cast((logits, depth, size), torch.float32, device))
    assert out[0, :3, 4:9, 4:9].isnan().all()
    assert out[0, 3].isfinite().all()
    assert out[0, :, :3].isfinite().all() and out[0, :, 9:].isfinite().all()
    assert grad[0, :, 2, 2].isnan().all() and grad[0, :, 0].isfinite().all()


def test_second_derivative_raises():
    logits, depth, size = make(1, 3, 4, 5, 8, 9)
    with ops.backend("cpp"):
        out = semantic_depth_concat(logits, depth, size)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(out.square().sum(), logits, create_graph=True)


def test_backward_twice(device):
    """Retained graphs behave as for any PyTorch function."""
    logits, depth, size = cast(make(1, 3, 4, 5, 8, 9), torch.float32, device)
    loss = semantic_depth_concat(logits, depth, size).square().sum()
    once = torch.autograd.grad(loss, (logits, depth), retain_graph=True)
    again = torch.autograd.grad(loss, (logits, depth))
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


def test_saves_no_full_size_tensor():
    logits, depth, size = make(1, 3, 4, 5, 80, 90)
    kept = []
    with (
        ops.backend("cpp"),
        torch.autograd.graph.saved_tensors_hooks(
            lambda t: kept.append(t.numel()) or t, lambda t: t
        ),
    ):
        semantic_depth_concat(logits, depth, size)
    assert kept == [logits.numel()]


def test_probabilities_are_accurate_to_rounding():
    """The error is relative to each probability: exp and division are accurate to a few ulp."""
    require("cpp", "cpu")
    from gioada_fast import _C

    images = 4096  # of one pixel and two classes
    logits = torch.zeros(images, 2, 1, 1)
    logits[:, 1, 0, 0] = -torch.linspace(0, 80, images)
    exact = torch.softmax(logits.double(), 1)
    for isa in _C.instruction_sets():
        before = _C.use_instruction_set(isa)
        try:
            with ops.backend("cpp"):
                found = semantic_depth_concat(logits, None, (1, 1))
        finally:
            _C.use_instruction_set(before)
        assert ((found - exact) / exact).abs().max() < 4e-7
