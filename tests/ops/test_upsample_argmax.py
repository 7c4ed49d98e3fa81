"""``upsample_argmax``: the shared op tests, agreement with the confusion matrix, ties, NaN."""

import pytest
import torch
import torch.nn.functional as F

from gioada_fast import ops
from gioada_fast.ops.upsample_argmax import reference, sample, upsample_argmax
from tests.op_checks import DTYPES, TARGETS, OpChecks, cast, require

# n, c, h, w; size; factor of the logits.
SHAPES = {
    "small": ((2, 4, 3, 4), (9, 13), 3.0),
    "odd": ((1, 5, 4, 3), (7, 18), 3.0),
    "flagship's scale": ((1, 16, 17, 33), (256, 512), 3.0),
    "uint8": ((2, 19, 2, 5), (9, 34), 3.0),
    "int32": ((2, 7, 3, 5), (19, 35), 3.0),
    "256 classes in uint8": ((1, 256, 3, 4), (9, 20), 3.0),
    "300 classes": ((2, 300, 3, 4), (70, 40), 3.0),
    "1 class": ((1, 1, 3, 4), (9, 9), 3.0),
    "1x1 logits": ((2, 3, 1, 1), (6, 5), 3.0),
    "1x1 result": ((1, 3, 5, 4), (1, 1), 3.0),
    "one row": ((1, 3, 1, 6), (70, 40), 3.0),
    "one column": ((1, 3, 6, 1), (40, 3), 3.0),
    "downsampling": ((1, 6, 10, 30), (4, 9), 3.0),
    "same size": ((1, 4, 6, 7), (6, 7), 3.0),
    "large logits": ((1, 4, 3, 4), (9, 9), 1e4),  # float16: < 65504
}

LARGE = ("flagship's scale", "256 classes in uint8", "300 classes")

BAD_INPUTS = {
    "logits 3-D": (lambda x, s: (x[0], s), ValueError, r"logits: \[4, 3, 4\]"),
    "no class": (lambda x, s: (x[:, :0], s), ValueError, r"logits: \[2, 0, 3, 4\]"),
    "no column": (lambda x, s: (x[..., :0], s), ValueError, r"logits: \[2, 4, 3, 0\]"),
    "logits int32": (lambda x, s: (x.int(), s), TypeError, "torch.int32"),
    "no height": (lambda x, s: (x, (0, 13)), ValueError, r"size: \(0, 13\), expected"),
    "negative width": (lambda x, s: (x, (9, -1)), ValueError, r"size: \(9, -1\), expected"),
    "size of three": (lambda x, s: (x, (2, 9, 13)), ValueError, r"size: \(2, 9, 13\)"),
    "size of one number": (lambda x, s: (x, 9), TypeError, "size: 9, expected integers"),
    "fractional size": (lambda x, s: (x, (9.5, 13)), TypeError, r"size: \(9.5, 13\)"),
}


def near_ties(logits, size, align_corners=True):
    """Mask [N, *size] of pixels whose two largest logits differ by less than float32 rounding.

    For each of the two classes, weights and two interpolations have a rounding error of at most 6
    half-ulps of the interpolated absolute values. All logits must be finite.
    """
    assert logits.isfinite().all()
    if logits.shape[1] == 1:
        return torch.zeros((logits.shape[0], *size), dtype=torch.bool)
    resize = dict(size=size, mode="bilinear", align_corners=align_corners)
    exact = logits.double().cpu()
    first, second = F.interpolate(exact, **resize).topk(2, dim=1).values.unbind(1)
    size = F.interpolate(exact.abs(), **resize).amax(1)
    return first - second <= 6 * torch.finfo(torch.float32).eps * size


class TestUpsampleArgmax(OpChecks):
    name = "upsample_argmax"
    fused = staticmethod(upsample_argmax)
    reference = staticmethod(reference)
    shapes = SHAPES
    options = {  # noqa: RUF012
        "uint8": {"dtype": torch.uint8},
        "256 classes in uint8": {"dtype": torch.uint8},
        "int32": {"dtype": torch.int32},
    }
    alignments = (True, False)
    interpreted = tuple(s for s in SHAPES if s not in LARGE)
    bad_inputs = BAD_INPUTS

    def inputs(self, shape):
        return tuple(sample(*shape).values())

    def operator_inputs(self, backend, device):
        logits, size = self.small()
        return logits.to(device), *size, True, torch.uint8, backend

    def assert_right(self, fused, reference, inputs, roundoff=0.0):
        """As in float64, except in pixels with nearly tied classes."""
        logits, size = inputs
        found = fused(logits, size).cpu()
        exact = reference(*cast(inputs, torch.float64, "cpu"))
        assert found.dtype == exact.dtype and found.shape == exact.shape
        tied = near_ties(logits, size, reference.keywords["align_corners"])
        assert tied.float().mean() < 0.05
        assert torch.equal(found[~tied], exact[~tied])
        assert (found.long() >= 0).all() and (found.long() < logits.shape[1]).all()


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


@pytest.mark.parametrize("dtype", [torch.int16, torch.float32, torch.bool, int], ids=str)
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(TypeError, match=r"expected torch\.int64, torch\.int32 or torch\.uint8"):
        upsample_argmax(torch.randn(1, 3, 4, 5), (8, 9), dtype=dtype)


def test_too_many_classes_for_uint8():
    with pytest.raises(ValueError, match="holds 256 classes, but logits have 257"):
        upsample_argmax(torch.randn(1, 257, 4, 5), (8, 9), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("dtype", "align_corners"), [(torch.int64, True), (torch.int32, False), (torch.uint8, False)]
)
def test_counted_predictions_are_the_confusion_matrix(device, dtype, align_corners):
    """Both ops predict the same classes, even where two are tied within rounding."""
    logits = torch.randint(-2, 3, (2, 6, 5, 7)) / 3  # not exact in float32: ties by rounding
    logits[torch.rand(logits.shape) < 0.01] = float("nan")
    logits[torch.rand(logits.shape) < 0.05] = float("-inf")
    logits = logits.to(device)
    labels = torch.randint(0, 6, (2, 24, 33), device=device)
    found = upsample_argmax(logits, (24, 33), align_corners=align_corners, dtype=dtype)
    assert found.dtype == dtype
    counts = torch.bincount((labels * 6 + found.long()).flatten(), minlength=36).view(6, 6)
    expected = ops.upsample_confusion_matrix(logits, labels, align_corners=align_corners)
    assert torch.equal(counts, expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("align_corners", [True, False])
def test_first_of_equal_classes_wins(device, dtype, align_corners):
    """Logits are small integers, weights multiples of 1/16: exact, with many ties."""
    logits = torch.randint(-2, 3, (2, 5, 3, 6)).to(dtype)
    size = (17, 41) if align_corners else (24, 48)
    resize = dict(size=size, mode="bilinear", align_corners=align_corners)
    full = F.interpolate(logits.float(), **resize)
    first, second = full.topk(2, dim=1).values.unbind(1)
    assert (first == second).float().mean() > 0.05  # with few ties, this would test little
    found = upsample_argmax(logits.to(device), size, align_corners=align_corners)
    assert torch.equal(found.cpu(), full.argmax(1))


def test_masked_and_nan_classes(device):
    logits = torch.zeros(1, 3, 4, 5, device=device)
    logits[:, 0] = float("-inf")
    assert (upsample_argmax(logits, (9, 20)) == 1).all()
    logits[:, 2] = float("nan")
    assert (upsample_argmax(logits, (9, 20)) == 2).all()
    assert (upsample_argmax(torch.full_like(logits, float("-inf")), (9, 20)) == 0).all()


def test_empty_batch(device):
    found = upsample_argmax(torch.randn(0, 3, 4, 5, device=device), (8, 9), dtype=torch.uint8)
    assert found.shape == (0, 8, 9) and found.dtype == torch.uint8


def test_has_no_gradient(kernel_device):
    logits = torch.randn(1, 3, 4, 5, device=kernel_device).requires_grad_()
    assert not upsample_argmax(logits, (8, 9)).requires_grad


def test_size_may_be_a_shape(device):
    logits = torch.randn(2, 3, 4, 5, device=device)
    expected = upsample_argmax(logits, (8, 9))
    for size in (torch.Size((8, 9)), [8, 9]):
        assert torch.equal(upsample_argmax(logits, size), expected)
