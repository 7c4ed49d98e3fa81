"""``translation_input``: the shared op tests, exact values, and labels without a class."""

import pytest
import torch
import torch.nn.functional as F

from gioada_fast import ops
from gioada_fast.ops.translation_input import reference, sample, translation_input
from tests.op_checks import DTYPES, TARGETS, OpChecks, require


def make(*shape, **options):
    """Image, depth, labels, number of classes and dtype for one case."""
    return tuple(sample(*shape, **options).values())


SHAPES = {
    "small": dict(n=2, classes=4, height=5, width=7),
    "odd": dict(n=1, classes=5, height=13, width=18, label_dtype=torch.int64),
    "flagship": dict(n=1, classes=16, height=512, width=1024),
    "demo": dict(n=4, classes=11, height=180, width=240),
    "19 classes": dict(n=3, classes=19, height=19, width=34, label_dtype=torch.int64),
    "70 classes": dict(n=1, classes=70, height=17, width=33),
    "3000 classes": dict(n=1, classes=3000, height=2, width=3, label_dtype=torch.int64),
    "1 class": dict(n=2, classes=1, height=9, width=9),
    "1 pixel": dict(n=1, classes=3, height=1, width=1),
    "one row": dict(n=2, classes=3, height=1, width=40),
    "one column": dict(n=2, classes=3, height=40, width=1),
    "no frame": dict(n=0, classes=3, height=4, width=5),
    "int32 labels": dict(n=2, classes=5, height=6, width=11, label_dtype=torch.int32),
    "labels of one channel": dict(n=2, classes=5, height=6, width=11, label_shape=(2, 1, 6, 11)),
    "to float16": dict(n=2, classes=6, height=8, width=9, dtype=torch.float16),
    "to bfloat16": dict(n=2, classes=6, height=8, width=9, dtype=torch.bfloat16),
    "to float64": dict(n=1, classes=6, height=8, width=9, dtype=torch.float64),
}

BAD_INPUTS = {
    "image float": (
        lambda i, d, y, c, t: (i.float(), d, y, c, t),
        TypeError,
        "image: torch.float32, expected uint8",
    ),
    "image int32": (
        lambda i, d, y, c, t: (i.int(), d, y, c, t),
        TypeError,
        "image: torch.int32, expected uint8",
    ),
    "image float16": (
        lambda i, d, y, c, t: (i.half(), d, y, c, t),
        TypeError,
        "image: torch.float16, expected uint8",
    ),
    "image 3-D": (
        lambda i, d, y, c, t: (i[0], d, y, c, t),
        ValueError,
        r"image: \[3, 5, 7\], expected \[N, 3, h, w\]",
    ),
    "image of one channel": (
        lambda i, d, y, c, t: (i[:, :1], d, y, c, t),
        ValueError,
        r"image: \[2, 1, 5, 7\], expected \[N, 3, h, w\]",
    ),
    "depth 3-D": (
        lambda i, d, y, c, t: (i, d[:, 0], y, c, t),
        ValueError,
        r"depth: \[2, 5, 7\], expected \[N, 1, h, w\]",
    ),
    "depth of other size": (
        lambda i, d, y, c, t: (i, d[:, :, 1:], y, c, t),
        ValueError,
        r"depth: N, H, W are \[2, 4, 7\], but \[2, 5, 7\] in image",
    ),
    "depth of other batch": (
        lambda i, d, y, c, t: (i, d[:1], y, c, t),
        ValueError,
        r"depth: N, H, W are \[1, 5, 7\]",
    ),
    "depth int32": (
        lambda i, d, y, c, t: (i, d.int(), y, c, t),
        TypeError,
        "depth: torch.int32, expected float32, bfloat16, float16 or float64",
    ),
    "depth elsewhere": (
        lambda i, d, y, c, t: (i, d.to("meta"), y, c, t),
        ValueError,
        "depth: on meta, but image on cpu",
    ),
    "depth with gradient": (
        lambda i, d, y, c, t: (i, d.requires_grad_(), y, c, t),
        ValueError,
        "requires a gradient",
    ),
    "labels of other size": (
        lambda i, d, y, c, t: (i, d, y[:, :, 1:], c, t),
        ValueError,
        r"labels: N, H, W are \[2, 5, 6\]",
    ),
    "labels of other batch": (
        lambda i, d, y, c, t: (i, d, y[:1], c, t),
        ValueError,
        r"labels: \[1, 5, 7\], expected \[N, H, W\] or \[N, 1, H, W\] with N = 2",
    ),
    "labels of two channels": (
        lambda i, d, y, c, t: (i, d, y[:, None].expand(-1, 2, -1, -1), c, t),
        ValueError,
        r"labels: \[2, 2, 5, 7\], expected \[N, H, W\] or \[N, 1, H, W\] with N = 2",
    ),
    "labels of one channel and other size": (
        lambda i, d, y, c, t: (i, d, y[:, None, 1:], c, t),
        ValueError,
        r"labels: N, H, W are \[2, 4, 7\], but \[2, 5, 7\] in image",
    ),
    "labels elsewhere": (
        lambda i, d, y, c, t: (i, d, y.to("meta"), c, t),
        ValueError,
        "labels: on meta, but image on cpu",
    ),
    "labels int16": (
        lambda i, d, y, c, t: (i, d, y.short(), c, t),
        TypeError,
        "labels: torch.int16, expected int64, int32 or uint8",
    ),
    "labels bool": (
        lambda i, d, y, c, t: (i, d, y.bool(), c, t),
        TypeError,
        "labels: torch.bool, expected int64, int32 or uint8",
    ),
    "labels float": (
        lambda i, d, y, c, t: (i, d, y.float(), c, t),
        TypeError,
        "labels: torch.float32, expected int64, int32 or uint8",
    ),
    "no class": (lambda i, d, y, c, t: (i, d, y, 0, t), ValueError, "num_classes is 0"),
    "half a class": (
        lambda i, d, y, c, t: (i, d, y, 0.5, t),
        TypeError,
        "num_classes is 0.5, expected an integer",
    ),
    "dtype by name": (
        lambda i, d, y, c, t: (i, d, y, c, "float16"),
        TypeError,
        "dtype is float16, expected float32, bfloat16, float16 or float64",
    ),
    "dtype int32": (
        lambda i, d, y, c, t: (i, d, y, c, torch.int32),
        TypeError,
        "dtype is torch.int32",
    ),
}


class TestTranslationInput(OpChecks):
    name = "translation_input"
    fused = staticmethod(translation_input)
    reference = staticmethod(reference)
    shapes = SHAPES
    # The interpreter rounds to bfloat16 towards zero; a GPU does not.
    interpreted = tuple(i for i in SHAPES if i not in ("flagship", "demo", "to bfloat16"))
    bad_inputs = BAD_INPUTS

    def inputs(self, shape):
        return make(**shape)

    def operator_inputs(self, backend, device):
        image, depth, labels, classes, dtype = self.small()
        return image.to(device), depth.to(device), labels.to(device), classes, dtype, backend


BACKENDS = [*TARGETS, pytest.param(("reference", "cpu"), id="reference")]


@pytest.fixture(params=BACKENDS)
def device(request):
    """A device, once for each back end that runs on it."""
    backend, device = require(*request.param, "translation_input")
    with ops.backend(backend):
        yield device


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("target", BACKENDS)
def test_values_are_exact(target, dtype):
    """Every byte value is rounded once and every channel is in its place."""
    if target == ("triton", "cpu") and dtype == torch.bfloat16:
        pytest.skip("Triton's interpreter rounds to bfloat16 towards zero")
    backend, device = require(*target, "translation_input")
    image = torch.arange(256, dtype=torch.uint8).repeat(3).view(1, 3, 16, 16).to(device)
    image[:, 1] = image[:, 1].flip(-1)
    depth = torch.rand(1, 1, 16, 16, device=device)
    labels = torch.randint(0, 6, (1, 16, 16), device=device)
    with ops.backend(backend):
        out = translation_input(image, depth, labels, 5, dtype)
    assert out.shape == (1, 9, 16, 16) and out.dtype == dtype
    assert torch.equal(out[:, :3], (image.cpu().float() / 127.5 - 1).to(device, dtype))
    assert torch.equal(out[:, 3:4], depth.to(dtype))
    expected = F.one_hot(labels, 6)[..., :5].permute(0, 3, 1, 2)  # a label of 5 is no class
    assert torch.equal(out[:, 4:], expected.to(dtype))


@pytest.mark.parametrize("label", [3, 255, -1, -(2**40), 2**40, 2**32])
def test_label_without_class_sets_no_channel(device, label):
    image, depth, labels, _, _ = make(1, 3, 4, 5, label_dtype=torch.int64)
    labels[0, 1:3, 2:] = label
    out = translation_input(image.to(device), depth.to(device), labels.to(device), 3)
    assert not out[0, 4:, 1:3, 2:].any()
    assert torch.equal(out[:, 3:4].cpu(), depth)


def test_depth_is_copied_unchanged(device):
    image, depth, labels, _, _ = make(1, 3, 4, 5)
    depth[0, 0, 1, 1:4] = torch.tensor([float("nan"), float("inf"), -7.0])
    out = translation_input(image.to(device), depth.to(device), labels.to(device), 3)
    torch.testing.assert_close(out[:, 3:4].cpu(), depth, rtol=0, atol=0, equal_nan=True)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_depth_beyond_float16_becomes_infinite(device):
    """As PyTorch rounds it."""
    image, depth, labels, _, _ = make(1, 3, 4, 5)
    depth[0, 0, 1, 1:4] = torch.tensor([1e6, -1e6, 1e-6])
    arguments = (x.to(device) for x in (image, depth, labels))
    out = translation_input(*arguments, 3, torch.float16)
    assert torch.equal(out[:, 3:4].cpu(), depth.half())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_depth_may_have_another_dtype(device, dtype):
    """The result has the requested dtype for any dtype of depth."""
    image, depth, labels, _, _ = make(1, 3, 4, 5)
    depth = depth.to(dtype)
    out = translation_input(image.to(device), depth.to(device), labels.to(device), 3)
    assert out.dtype == torch.float32
    assert torch.equal(out[:, 3:4].cpu(), depth.float())
