"""Windows and augmentation against the whole image, brute force, and the memory that they need."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks.harness import peak_mib
from gioada_fast.engine import windows
from gioada_fast.engine.inference import predict_maps, predict_pieces
from gioada_fast.engine.windows import TTA_SCALES, Inference, predict_blocks
from gioada_fast.errors import InputError
from gioada_fast.models import TaskNet
from gioada_fast.models.layers import normalise

CPU = torch.device("cpu")


class Pointwise(torch.nn.Module):
    """Each logit depends on a square of pixels alone, so that windows do not change it."""

    def __init__(self, stride: int, classes: int = 5):
        super().__init__()
        self.layer = torch.nn.Conv2d(3, classes + 1, 1)
        self.stride = stride

    def forward(self, image):
        out = F.avg_pool2d(self.layer(image), self.stride, ceil_mode=True)
        return out[:, :-1], out[:, -1:]


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)


@torch.no_grad()
def assembled(task, images, size, inference) -> torch.Tensor:
    """Logits and depth at full size, [N, C + 1, H, W]; fails if a pixel has none, or two."""
    whole = None
    for block in predict_blocks(task, images, size, CPU, "fp32", inference):
        maps = torch.cat(
            [upsampled(block.logits, block.size), upsampled(block.depth, block.size)], 1
        )
        if whole is None:
            whole = torch.full((*maps.shape[:2], *size), torch.nan)
        assert whole[:, :, block.rows, block.columns].isnan().all()
        whole[:, :, block.rows, block.columns] = maps
    assert whole is not None and not whole.isnan().any()
    return whole


def upsampled(maps, size):
    return F.interpolate(maps, size, mode="bilinear", align_corners=True)


@torch.no_grad()
def brute_force(task, images, window, stride) -> torch.Tensor:
    """Every window's output upsampled to its pixels; sums divided by counts, all at full size."""
    x = normalise(torch.from_numpy(images).permute(0, 3, 1, 2))
    (h, w), (wh, ww) = x.shape[2:], (min(a, b) for a, b in zip(window, x.shape[2:], strict=True))
    tops = sorted({min(y, h - wh) for y in range(0, h, stride[0])})
    lefts = sorted({min(left, w - ww) for left in range(0, w, stride[1])})
    total, count = None, torch.zeros(h, w)
    for top in tops:
        for left in lefts:
            maps = torch.cat(task(x[:, :, top : top + wh, left : left + ww]), 1)
            if total is None:
                total = torch.zeros(len(x), maps.shape[1], h, w)
            total[:, :, top : top + wh, left : left + ww] += upsampled(maps, (wh, ww))
            count[top : top + wh, left : left + ww] += 1
    return total / count


@pytest.mark.parametrize(
    ("shape", "window", "stride", "network_stride"),
    [
        ((1, 100, 150), (64, 64), None, 1),
        ((2, 130, 70), (40, 50), (33, 50), 8),  # no overlap along one axis
        ((1, 90, 301), (64, 96), (48, 64), 8),
        ((3, 40, 90), (64, 33), (7, 11), 4),  # as high as the image
        ((1, 133, 157), (50, 90), (50, 90), 8),
        ((1, 65, 100), (64, 64), (64, 64), 8),  # the last window moves back by 63 pixels
    ],
)
def test_overlaps_are_averaged_as_logits(shape, window, stride, network_stride):
    task, images = Pointwise(network_stride), noise(*shape)
    inference = Inference(window=window, stride=stride, batch=3)
    ours = assembled(task, images, shape[1:], inference)
    torch.testing.assert_close(
        ours, brute_force(task, images, window, inference.steps), rtol=0, atol=2e-6
    )


@pytest.mark.parametrize("size", [(100, 150), (201, 333), (50, 61), (1, 1), (100, 1)])
def test_results_of_any_size(size):
    """Windows with overlap give the whole image's result where the network is pointwise."""
    task, images = Pointwise(1), noise(1, 100, 150)
    whole = assembled(task, images, size, None)
    ours = assembled(task, images, size, Inference(window=(64, 50), stride=(40, 49)))
    torch.testing.assert_close(ours, whole, rtol=0, atol=1e-4)


@pytest.mark.parametrize("window", [(64, 96), (500, 500)])
def test_one_window_that_covers_the_image_is_the_whole_image(window):
    task, images = TaskNet(5, "vgg16", 0.125, "group").eval(), noise(2, 64, 96)
    (piece,) = predict_pieces(task, images, (70, 101), "fp32", Inference(window=window))
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2)
    labels, depth = predict_maps(task, tensor, "fp32", (70, 101))
    assert np.array_equal(piece.labels, labels) and np.array_equal(piece.depth, depth)


@torch.no_grad()
def test_augmentation_averages_mirrored_images_and_scales():
    task, images, size = Pointwise(4), noise(1, 64, 80), (64, 80)
    expected = torch.zeros(1, 6, *size)
    for scale in TTA_SCALES:
        height, width = round(64 * scale), round(80 * scale)
        x = torch.from_numpy(windows.resize_image(images[0], (height, width)))
        x = normalise(x.permute(2, 0, 1)[None])
        mirrored = (maps.flip(3) for maps in task(x.flip(3)))
        for logits, depth in (task(x), mirrored):
            expected[:, :-1] += upsampled(logits, size) / 2 / len(TTA_SCALES)
            expected[:, -1:] += upsampled(depth, size) / 2 * (scale == 1)
    ours = assembled(task, images, size, Inference(tta=True))
    torch.testing.assert_close(ours, expected, rtol=0, atol=2e-6)
    in_windows = assembled(task, images, size, Inference(tta=True, window=(64, 64), batch=2))
    assert (ours - in_windows).abs().mean() < 0.05 * ours.std()


def test_the_network_sees_each_window_once_in_batches():
    seen = []

    class Counting(Pointwise):
        def forward(self, image):
            seen.append(tuple(image.shape))
            return super().forward(image)

    inference = Inference(window=(64, 64), stride=(36, 48), batch=3)
    assembled(Counting(8), noise(2, 100, 200), (100, 200), inference)
    # 2 rows of 4 windows, of 2 images
    assert seen == [(3, 3, 64, 64), (3, 3, 64, 64), (2, 3, 64, 64)] * 2


def test_memory_does_not_grow_with_the_image():
    """Full-size logits would need 19 float32 per pixel: 137 MiB more for the larger image."""
    task, inference = Pointwise(8, classes=19), Inference(window=(256, 256))

    def added(height: int) -> float:
        image = np.zeros((height, 600, 3), np.uint8)
        blocks = predict_blocks(task, [image], (height, 600), CPU, "fp32", inference)
        return peak_mib(lambda: [block.size for block in blocks], "cpu")

    added(500)
    small, large = added(500), added(3650)
    if not np.isnan(small):
        assert large < small + 20


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"batch": 0}, "--batch is 0"),
        ({"scale": 0}, "--scale is 0"),
        ({"scale": float("nan")}, "--scale is nan"),
        ({"stride": (64, 64)}, "--stride needs windows"),
        ({"window": (64, 31)}, "--window is 31x64, must be at least 32"),
        ({"window": (64, 64), "stride": (64, 65)}, "--stride is 65x64, must be from 1 to the"),
        ({"window": (64, 64), "stride": (0, 64)}, "--stride is 64x0"),
    ],
)
def test_settings_that_are_refused(settings, words):
    with pytest.raises(InputError, match=words):
        Inference(**settings)


@pytest.mark.parametrize(
    ("settings", "shape", "words"),
    [
        ({}, (1, 500), "i.png: 500x1 pixels: too narrow"),
        ({"scale": None}, (1000, 1000), "would see 1000x1000 at once, and was .* set --window"),
        ({"scale": 8}, (64, 96), "would see 768x512 at once, .* 96x64: set --window"),
        ({"scale": 1e3, "window": (64, 64)}, (64, 96), "too large, the network would see 96000x"),
        ({"scale": None}, (31, 400), "would see 400x31, and needs 32"),
        ({"scale": 0.1}, (64, 96), "would see 10x6, and needs 32"),
        ({"scale": 0.6, "tta": True}, (64, 96), "would see 44x28, and needs 32"),
    ],
)
def test_images_that_are_refused(settings, shape, words):
    with pytest.raises(InputError, match=words):
        Inference((64, 96), **settings).check(shape, "i.png")


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({}, (3, 5)),
        ({"scale": None, "window": (64, 64)}, (20000, 30000)),
        ({"scale": 8, "window": (64, 64)}, (64, 96)),
        ({"scale": 0.5}, (64, 96)),
    ],
)
def test_images_that_are_taken(settings, shape):
    Inference((64, 96), **settings).check(shape, "i.png")
