"""``upsample_cross_entropy``: the shared op tests, labels and weights, NaN and infinity."""

import pytest
import torch
import torch.nn.functional as F

from gioada_fast import ops
from gioada_fast.ops.upsample_cross_entropy import reference, upsample_cross_entropy
from tests.op_checks import TARGETS, OpChecks, require, run


def make(
    n, c, h, w, height, width, ignored=0.1, label_dtype=torch.int64, weighted=False, scale=3.0
):
    """Logits, labels, ignore_index and weight for one case."""
    logits = (scale * torch.randn(n, c, h, w)).requires_grad_()
    labels = torch.randint(0, c, (n, height, width))
    labels[torch.rand(labels.shape) < ignored] = 255
    weight = torch.rand(c) if weighted else None
    return logits, labels.to(label_dtype), 255, weight


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
}

BAD_INPUTS = {
    "logits 3-D": (lambda x, y, i, w: (x[0], y), ValueError, r"logits: \[4, 3, 4\]"),
    "no class": (lambda x, y, i, w: (x[:, :0], y), ValueError, r"logits: \[2, 0, 3, 4\]"),
    "logits int32": (lambda x, y, i, w: (x.int(), y), TypeError, "torch.int32"),
    "labels 4-D": (lambda x, y, i, w: (x, y[None]), ValueError, r"labels: \[1, 2, 9, 13\]"),
    "other batch": (
        lambda x, y, i, w: (x, y[:1]),
        ValueError,
        r"expected \[N, H, W\] or \[N, 1, H, W\] with N = 2",
    ),
    "labels int16": (lambda x, y, i, w: (x, y.short()), TypeError, "torch.int16"),
    "labels elsewhere": (
        lambda x, y, i, w: (x, y.to("meta")),
        ValueError,
        "labels: on meta, but logits on cpu",
    ),
    "short weight": (
        lambda x, y, i, w: (x, y, i, torch.ones(3)),
        ValueError,
        r"weight: \[3\], expected \[C\] with C = 4",
    ),
    "integer weight": (
        lambda x, y, i, w: (x, y, i, torch.ones(4, dtype=torch.int64)),
        TypeError,
        "torch.int64",
    ),
    "weight with gradient": (
        lambda x, y, i, w: (x, y, i, torch.ones(4, requires_grad=True)),
        ValueError,
        "requires a gradient",
    ),
}


class TestUpsampleCrossEntropy(OpChecks):
    name = "upsample_cross_entropy"
    fused = staticmethod(upsample_cross_entropy)
    reference = staticmethod(reference)
    shapes = SHAPES
    alignments = (True, False)
    interpreted = tuple(i for i in SHAPES if i not in ("flagship", "downsampling"))
    bad_inputs = BAD_INPUTS

    def inputs(self, shape):
        return make(**shape)

    def operator_inputs(self, backend, device):
        logits, labels, ignore_index, _ = self.small()
        logits = logits.detach().to(device).requires_grad_()
        return (
            logits,
            labels.to(device),
            torch.ones(4, device=device),
            ignore_index,
            True,
            True,
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


def test_equals_pytorch_functions(device):
    """Equals upsampling and PyTorch's loss, with and without class weights."""
    logits, labels, _, weight = make(2, 4, 3, 4, 9, 13, weighted=True)
    logits, labels, weight = on(device, logits, labels, weight)
    full = F.interpolate(logits, size=(9, 13), mode="bilinear", align_corners=True)
    for w in (None, weight):
        expected = F.cross_entropy(full, labels, w, ignore_index=255)
        torch.testing.assert_close(upsample_cross_entropy(logits, labels, 255, w), expected)


def test_all_ignored(device):
    logits, labels = on(device, *make(1, 3, 4, 5, 8, 9, ignored=2.0)[:2])
    loss, grad = run(upsample_cross_entropy, (logits, labels))
    assert loss == 0 and not grad.any()


@pytest.mark.parametrize("shape", [(0, 8, 9), (2, 0, 9)])
def test_no_pixels(device, shape):
    logits = torch.randn(shape[0], 3, 4, 5, device=device, requires_grad=True)
    labels = torch.zeros(shape, dtype=torch.uint8, device=device)
    loss, grad = run(upsample_cross_entropy, (logits, labels))
    assert loss == 0 and loss.dtype == torch.float32
    assert grad.shape == logits.shape and not grad.any()


@pytest.mark.parametrize("ignore_index", [0, 2, -1, 255])
def test_ignore_index(device, ignore_index):
    logits, labels, _, _ = make(1, 3, 4, 5, 8, 9, ignored=0.0)
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
    logits, labels, _, weight = make(2, 3, 4, 5, 8, 9, weighted=True)
    labels[1, 2:5, 3:] = label
    logits, labels, weight = on(device, logits, labels, weight)
    if device == "cuda":
        assert upsample_cross_entropy(logits, labels, 255, weight).isnan()
        return
    message = rf"labels: {label} at \[1, 2, 3\], expected a class in \[0, 3\) or ignore_index = 255"
    with pytest.raises(ValueError, match=message):
        upsample_cross_entropy(logits, labels, 255, weight)


def test_nan_and_infinity_reach_the_loss(device):
    logits, labels, _, _ = make(1, 3, 4, 5, 8, 9, ignored=0.0)
    for value in (float("nan"), float("inf")):
        with torch.no_grad():
            logits[0, 1, 2, 2] = value
        assert not torch.isfinite(upsample_cross_entropy(*on(device, logits, labels)))


def test_second_derivative_raises():
    logits, labels, _, _ = make(1, 3, 4, 5, 8, 9)
    with ops.backend("cpp"):
        loss = upsample_cross_entropy(logits, labels)
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
