"""``upsample_confusion_matrix``: the shared op tests, ties, many classes, NaN and infinity."""

import pytest
import torch
import torch.nn.functional as F

from gioada_fast import ops
from gioada_fast.ops.upsample_confusion_matrix import (
    MAX_CLASSES,
    reference,
    sample,
    upsample_confusion_matrix,
)
from tests.op_checks import DTYPES, TARGETS, OpChecks, cast, require
from tests.ops.test_upsample_argmax import near_ties


def make(*shape, **options):
    """Logits, labels and ignore_index for one case."""
    return tuple(sample(*shape, **options).values())


SHAPES = {
    "small": dict(n=2, c=4, h=3, w=4, height=9, width=13),
    "odd": dict(n=1, c=5, h=4, w=3, height=7, width=18),
    "flagship's scale": dict(n=1, c=16, h=17, w=33, height=256, width=512),
    "regions": dict(
        n=1, c=16, h=17, w=33, height=256, width=512, label_dtype=torch.uint8, blocks=5
    ),
    "small regions": dict(n=1, c=6, h=7, w=9, height=41, width=60, blocks=3, ignored=0.0),
    "19 classes": dict(n=2, c=19, h=2, w=5, height=9, width=34),
    "70 classes": dict(n=1, c=70, h=3, w=5, height=17, width=33),
    "300 classes": dict(n=2, c=300, h=3, w=4, height=70, width=40),
    "1 class": dict(n=1, c=1, h=3, w=4, height=9, width=9),
    "1x1 logits": dict(n=2, c=3, h=1, w=1, height=6, width=5),
    "1x1 labels": dict(n=1, c=3, h=5, w=4, height=1, width=1),
    "one row": dict(n=1, c=3, h=1, w=6, height=70, width=40),
    "one column": dict(n=1, c=3, h=6, w=1, height=40, width=3),
    "wide cells": dict(n=1, c=3, h=2, w=2, height=35, width=140),
    "downsampling": dict(n=1, c=6, h=10, w=30, height=4, width=9),
    "same size": dict(n=1, c=4, h=6, w=7, height=6, width=7),
    "uint8": dict(n=2, c=7, h=3, w=5, height=19, width=35, label_dtype=torch.uint8),
    "far from zero": dict(n=1, c=5, h=4, w=9, height=31, width=59, offset=100.0),
    "large logits": dict(n=1, c=4, h=3, w=4, height=9, width=9, scale=1e4),  # float16: < 65504
}

LARGE = ("flagship's scale", "regions", "70 classes", "300 classes")

BAD_INPUTS = {
    "logits 3-D": (lambda x, y, i: (x[0], y), ValueError, r"logits: \[4, 3, 4\]"),
    "no class": (lambda x, y, i: (x[:, :0], y), ValueError, r"logits: \[2, 0, 3, 4\]"),
    "too many classes": (
        lambda x, y, i: (x[:, :1].expand(2, MAX_CLASSES + 1, 3, 4), y),
        ValueError,
        "46341 classes, expected at most 46340",
    ),
    "logits int32": (lambda x, y, i: (x.int(), y), TypeError, "torch.int32"),
    "labels 4-D": (lambda x, y, i: (x, y[None]), ValueError, r"labels: \[1, 2, 9, 13\]"),
    "other batch": (
        lambda x, y, i: (x, y[:1]),
        ValueError,
        r"expected \[N, H, W\] or \[N, 1, H, W\] with N = 2",
    ),
    "labels int16": (lambda x, y, i: (x, y.short()), TypeError, "torch.int16"),
    "labels elsewhere": (
        lambda x, y, i: (x, y.to("meta")),
        ValueError,
        "labels: on meta, but logits on cpu",
    ),
}


class TestUpsampleConfusionMatrix(OpChecks):
    name = "upsample_confusion_matrix"
    fused = staticmethod(upsample_confusion_matrix)
    reference = staticmethod(reference)
    shapes = SHAPES
    alignments = (True, False)
    interpreted = tuple(s for s in SHAPES if s not in LARGE)
    bad_inputs = BAD_INPUTS

    def inputs(self, shape):
        return make(**shape)

    def operator_inputs(self, backend, device):
        logits, labels, ignore_index = self.small()
        return logits.to(device), labels.to(device), ignore_index, True, backend

    def assert_right(self, fused, reference, inputs, roundoff=0.0):
        """All pixels are counted as in float64, except those with nearly tied classes."""
        logits, labels, ignore_index = inputs
        tied = near_ties(logits, labels.shape[1:], **reference.keywords)
        assert tied.float().mean() < 0.05
        decided = labels.masked_fill(tied.to(labels.device), ignore_index)
        for labels_, moved in ((decided, 0), (labels, int(tied.sum()))):
            exact = reference(*cast((logits, labels_, ignore_index), torch.float64, "cpu"))
            difference = fused(logits, labels_, ignore_index).cpu() - exact
            assert not difference.sum(1).any()
            assert difference.abs().sum() <= 2 * moved

    @pytest.mark.parametrize("scale", [1e30, 2.0**124])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
    def test_no_overflow(self, device, dtype, align_corners, scale):
        """Logits of up to about 2^126 count as they are."""
        torch.manual_seed(0)
        inputs = make(1, 4, 3, 4, 9, 9, scale=scale)
        self.assert_right(*self.case(align_corners=align_corners), cast(inputs, dtype, device))


@pytest.fixture(params=[*TARGETS, pytest.param(("reference", "cpu"), id="reference")])
def device(request):
    """A device, once for each back end that runs on it."""
    backend, device = require(*request.param)
    with ops.backend(backend):
        yield device


@pytest.fixture(params=TARGETS)
def kernel_device(request):
    """As ``device``, without the reference."""
    backend, device = require(*request.param)
    with ops.backend(backend):
        yield device


def counted(full, labels, ignore_index=255):
    """Confusion matrix by a loop over pixels, from logits of the labels' size."""
    c = full.shape[1]
    counts = torch.zeros(c, c, dtype=torch.int64)
    for label, prediction in zip(
        labels.flatten().tolist(), full.argmax(1).flatten().tolist(), strict=True
    ):
        if label != ignore_index and 0 <= label < c:
            counts[label, prediction] += 1
    return counts


def exact_case(c, dtype=torch.float32):
    """Logits are small integers, weights multiples of 1/8: exact in float32, with many ties."""
    if c > 100 and ops._registry._forced == "triton" and not torch.cuda.is_available():
        pytest.skip("too many classes for Triton's interpreter")
    logits = torch.randint(-2, 3, (2, c, 3, 6)).to(dtype)
    labels = torch.randint(0, c, (2, 17, 41))
    labels[torch.rand(labels.shape) < 0.1] = 255
    return logits, labels


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("c", [2, 5, 40, 300])
def test_first_of_equal_classes_wins(device, c, dtype):
    """With exact arithmetic, each tie goes to the class that argmax picks."""
    logits, labels = exact_case(c, dtype)
    full = F.interpolate(logits.float(), size=(17, 41), mode="bilinear", align_corners=True)
    first, second = full.topk(2, dim=1).values.unbind(1)
    assert (first == second).float().mean() > 0.01  # with few ties, this would test little
    found = upsample_confusion_matrix(logits.to(device), labels.to(device))
    assert found.dtype == torch.int64
    assert torch.equal(found.cpu(), counted(full, labels))


def test_class_0_wins_if_all_are_equal(device):
    logits = torch.full((1, 40, 2, 5), -1.7, device=device)
    labels = torch.randint(0, 40, (1, 15, 60), device=device)
    found = upsample_confusion_matrix(logits, labels)
    assert torch.equal(found[:, 0], torch.bincount(labels.flatten(), minlength=40))
    assert found.sum() == labels.numel()


@pytest.mark.parametrize("size", [(8, 35), (5, 1), (1, 40)])
def test_equal_sizes_give_the_exact_argmax(device, size):
    """At input points nothing is rounded, even in the last row and column."""
    logits = torch.randn(2, 3, *size)
    logits = (logits * 10.0 ** torch.randint(-6, 6, logits.shape)).round(decimals=6)
    labels = torch.randint(0, 3, (2, *size))
    found = upsample_confusion_matrix(logits.to(device), labels.to(device))
    assert torch.equal(found.cpu(), counted(logits, labels))


def test_all_ignored(device):
    logits, labels, _ = make(1, 3, 4, 5, 8, 40, ignored=2.0)
    assert not upsample_confusion_matrix(logits.to(device), labels.to(device)).any()


@pytest.mark.parametrize("shape", [(0, 8, 9), (2, 0, 9), (2, 8, 0)])
def test_no_pixels(device, shape):
    logits = torch.randn(shape[0], 3, 4, 5, device=device)
    labels = torch.zeros(shape, dtype=torch.uint8, device=device)
    found = upsample_confusion_matrix(logits, labels)
    assert torch.equal(found.cpu(), torch.zeros(3, 3, dtype=torch.int64))


@pytest.mark.parametrize("c", [3, 300])
@pytest.mark.parametrize("label", [3, 254, -1, -(2**40), 2**40, 2**32])
def test_label_out_of_range(device, label, c):
    """The CPU raises and names its position; a GPU does not count it, since raising would wait."""
    label = {3: c, 254: 10 * c}.get(label, label)
    logits, labels = exact_case(c)
    labels[labels == 255] = 0
    labels[0, 2:10, 5:] = label
    if device == "cuda":
        full = F.interpolate(logits, size=(17, 41), mode="bilinear", align_corners=True)
        found = upsample_confusion_matrix(logits.to(device), labels.to(device))
        assert torch.equal(found.cpu(), counted(full, labels))
        return
    message = rf"labels: {label} at \[0, 2, 5\], expected a class in \[0, {c}\)"
    with pytest.raises(ValueError, match=message):
        upsample_confusion_matrix(logits.to(device), labels.to(device))


@pytest.mark.parametrize("ignore_index", [0, 2, -1, 255, 2**40])
def test_ignore_index(device, ignore_index):
    logits, labels = exact_case(3)
    labels[labels == 255] = 0
    labels[:, ::2] = ignore_index
    full = F.interpolate(logits, size=(17, 41), mode="bilinear", align_corners=True)
    found = upsample_confusion_matrix(logits.to(device), labels.to(device), ignore_index)
    assert torch.equal(found.cpu(), counted(full, labels, ignore_index))


def test_label_types_agree(device):
    logits, labels, _ = make(2, 5, 4, 5, 9, 11)
    logits, labels = logits.to(device), labels.to(device)
    expected = upsample_confusion_matrix(logits, labels)
    for dtype in (torch.uint8, torch.int32):
        assert torch.equal(upsample_confusion_matrix(logits, labels.to(dtype)), expected)
        assert torch.equal(upsample_confusion_matrix(logits, labels[:, None].to(dtype)), expected)


@pytest.mark.parametrize("c", [4, 300])
def test_nan_is_the_largest(device, c):
    """The first NaN wins in each pixel that it affects, and in no other."""
    logits, labels = exact_case(c)
    logits[0, 1, 1, 2] = logits[0, 3, 1, 3] = logits[1, 2, 0, 0] = logits[1, 0, 2, 5] = float("nan")
    # On the last row and column, kernels read neighbours of weight 0, PyTorch does not: ignored.
    labels[:, ::8] = labels[:, :, ::8] = 255
    full = F.interpolate(logits, size=(17, 41), mode="bilinear", align_corners=True)
    assert full.isnan().any()
    found = upsample_confusion_matrix(logits.to(device), labels.to(device))
    assert torch.equal(found.cpu(), counted(full, labels))


def test_all_nan_predicts_class_0(device):
    """Class 0 by default, as in ``torch.argmax``."""
    labels = torch.zeros(1, 30, 40, dtype=torch.uint8, device=device)
    for value in (float("nan"), float("-inf"), float("inf")):
        logits = torch.full((1, 3, 4, 5), value, device=device)
        found = upsample_confusion_matrix(logits, labels)
        assert found[0, 0] == found.sum() == labels.numel()


def test_masked_class_never_wins(device):
    logits, labels = exact_case(5)
    logits[:, 0] = logits[:, 3] = float("-inf")
    full = F.interpolate(logits[:, [1, 2, 4]], size=(17, 41), mode="bilinear", align_corners=True)
    expected = full.new_full((2, 5, 17, 41), -1e9)
    expected[:, [1, 2, 4]] = full
    found = upsample_confusion_matrix(logits.to(device), labels.to(device))
    assert torch.equal(found.cpu(), counted(expected, labels))


def test_infinity_wins_where_its_weight_is_positive(device):
    logits, labels = exact_case(4)
    logits[0, 2, 1, 1] = float("inf")
    clamped = logits.nan_to_num(posinf=1e6)
    full = F.interpolate(clamped, size=(17, 41), mode="bilinear", align_corners=True)
    found = upsample_confusion_matrix(logits.to(device), labels.to(device))
    assert torch.equal(found.cpu(), counted(full, labels))


def test_kernels_agree_on_nan_and_infinity():
    """They agree on every pixel, even on input points, where the weight of a NaN is 0."""
    require("cpp", "cpu")
    require("triton", "cpu")
    logits, labels = exact_case(6)
    logits[torch.rand(logits.shape) < 0.02] = float("nan")
    logits[torch.rand(logits.shape) < 0.02] = float("inf")
    logits[torch.rand(logits.shape) < 0.1] = float("-inf")
    with ops.backend("cpp"):
        expected = upsample_confusion_matrix(logits, labels)
    with ops.backend("triton"):
        assert torch.equal(upsample_confusion_matrix(logits, labels), expected)


def test_has_no_gradient(kernel_device):
    logits, labels, _ = make(1, 3, 4, 5, 8, 9)
    logits = logits.to(kernel_device).requires_grad_()
    assert not upsample_confusion_matrix(logits, labels.to(kernel_device)).requires_grad


def test_a_thousand_classes():
    """With more than 256 classes, all threads add to one matrix."""
    require("cpp", "cpu")
    logits, labels, _ = make(1, 1000, 5, 6, 40, 50)
    expected = reference(logits.double(), labels.long())
    with ops.backend("cpp"):
        assert torch.equal(upsample_confusion_matrix(logits, labels.long()), expected)
