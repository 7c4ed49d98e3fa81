"""Applies a task network to images of any size: whole, or in windows that slide over them.

A level is the images at one scale; test-time augmentation has several. Each window of a level gives
small logits, which lie on a grid over the window. The logits of a pixel are the mean over a level's
windows that cover it, then over the levels:

    z[p] = mean_level mean_window bilinear(logits of the window, p)

The result comes in blocks, from top to bottom. A block has logits for its own pixels, and the small
logits of a row of windows are dropped after the last block that needs them: full-size logits of a
whole image never exist.

Source: sliding windows as in mmsegmentation's ``slide_inference``, which also averages logits and
moves the last window back to the edge of the image.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..data.transforms import covering_size, resize_image
from ..errors import InputError
from ..models import TaskNet
from ..models.layers import normalise
from .device import autocast

TTA_SCALES = (0.75, 1.0, 1.25)
"""Scales of test-time augmentation. Depth comes from scale 1 alone, because things look nearer in
an enlarged image."""
MIN_SIDE = 32
"""Pixels of a window's shorter side, at least: one point of the last stage of trunks whose output
stride is 32."""
MAX_AREA = 32
"""Largest image that the network sees whole, relative to the size that it was trained at."""
MAX_PIXELS = 2**30
"""Largest image that windows slide over, OpenCV's own limit for files."""
MAX_SCALE, MAX_BATCH = 1000, 4096
_BLOCK = (64, 256)
"""Rows and columns of a block of the result: its logits stay in the processor's cache."""


@dataclass(frozen=True)
class Inference:
    """How a task network is applied to images.

    By default it sees each image whole, as it is.
    """

    trained: tuple[int, int] | None = None
    """(H, W) that the network was trained at, which images are scaled to cover, without changing
    their shape. None: images are taken as they are."""
    scale: float | None = 1.0
    """Factor on ``trained``; None: images are taken as they are, too."""
    window: tuple[int, int] | None = None
    """(h, w) of the windows that slide over the scaled images; None: one for the whole image."""
    stride: tuple[int, int] | None = None
    """Distance (y, x) of neighbouring windows; None: three quarters of the window."""
    tta: bool = False
    """Test-time augmentation: the mean over ``TTA_SCALES`` and the mirrored images."""
    batch: int = 1
    """Number of windows that the network sees at once."""

    def __post_init__(self):
        if self.scale is not None and not 0 < self.scale <= MAX_SCALE:
            raise InputError(
                f"--scale is {self.scale}, must be a number above 0, at most {MAX_SCALE}"
            )
        if not 1 <= self.batch <= MAX_BATCH:
            raise InputError(f"--batch is {self.batch}, must be from 1 to {MAX_BATCH}")
        if self.stride is not None and self.window is None:
            raise InputError("--stride needs windows: set --window, too")
        if self.window is None:
            return
        if min(self.window) < MIN_SIDE:
            raise InputError(
                f"--window is {_text(self.window)}, must be at least {MIN_SIDE} on each side: the "
                "network sees too little of the image in a smaller one"
            )
        steps = self.steps
        if min(steps) < 1 or any(s > w for s, w in zip(steps, self.window, strict=True)):
            raise InputError(
                f"--stride is {_text(steps)}, must be from 1 to the window's {_text(self.window)}: "
                "larger strides leave gaps between the windows"
            )

    @property
    def steps(self) -> tuple[int, int]:
        """``stride`` or its default."""
        assert self.window is not None
        return self.stride or (self.window[0] * 3 // 4, self.window[1] * 3 // 4)

    def scaled(self, shape: tuple[int, int], factor: float = 1.0) -> tuple[int, int]:
        """(H, W) at which the network sees an image of a shape, at one scale of the pyramid."""
        height, width = shape
        if self.trained is not None and self.scale is not None:
            size = round(self.trained[0] * self.scale), round(self.trained[1] * self.scale)
            height, width = covering_size(shape, (max(1, size[0]), max(1, size[1])))
        return max(1, round(height * factor)), max(1, round(width * factor))

    def sees_whole(self, shape: tuple[int, int]) -> bool:
        """Whether one window covers an image of a shape."""
        height, width = self.scaled(shape)
        return self.window is None or (height <= self.window[0] and width <= self.window[1])

    def check(self, shape: tuple[int, int], image: str) -> None:
        """Refuse an image that the network cannot be applied to.

        Args:
            shape: (H, W) of the image.
            image: its name, for messages.

        Raises:
            InputError: the image is too narrow, too small or too large, or it needs windows.
        """
        if self.trained is None:
            return
        name, limit, scaled = f"{image}: {_text(shape)} pixels", self.trained, self.scaled(shape)
        area = MAX_AREA * math.prod(limit)
        if self.scale is not None and math.prod(covering_size(shape, limit)) > area:
            raise InputError(f"{name}: too narrow to be predicted")
        if self.window is None and math.prod(scaled) > area:
            raise InputError(
                f"{name}: the network would see {_text(scaled)} at once, and was trained at "
                f"{_text(limit)}: set --window"
            )
        if math.prod(scaled) > MAX_PIXELS:
            raise InputError(f"{name}: too large, the network would see {_text(scaled)}")
        smallest = self.scaled(shape, min(TTA_SCALES) if self.tta else 1.0)
        # at scale 1 it sees at least what it was trained at
        if (self.scale != 1 or self.tta) and min(smallest) < MIN_SIDE:
            raise InputError(
                f"{name}: the network would see {_text(smallest)}, and needs {MIN_SIDE} pixels on "
                "each side"
            )


def _text(size: tuple[int, int]) -> str:
    """A size (H, W) as messages have it: WIDTHxHEIGHT."""
    return f"{size[1]}x{size[0]}"


@dataclass(frozen=True)
class Block:
    """A rectangle of the result.

    ``logits`` and ``depth`` cover exactly its pixels, and may be smaller: they are to be resized to
    ``size`` with align_corners=True.
    """

    rows: slice
    columns: slice
    logits: Tensor
    """[N, C, h, w], on the network's device."""
    depth: Tensor
    """Encoded depth [N, 1, h', w'], likewise."""

    @property
    def size(self) -> tuple[int, int]:
        """Number of (rows, columns)."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start


@torch.no_grad()
def predict_blocks(
    task: TaskNet,
    images: Sequence[np.ndarray],
    size: tuple[int, int],
    device: torch.device,
    precision: str = "auto",
    inference: Inference | None = None,
) -> Iterator[Block]:
    """Predict images, one rectangle of the result after the other.

    The rectangles do not overlap; together they are the result. An image that the network sees
    whole is a single one, with the network's own output.

    Args:
        task: the network.
        images: RGB uint8 [H, W, 3], all of the same size.
        size: (H', W') of the result.
        device: the network's device.
        precision: see ``device.autocast``.
        inference: how to apply the network; None: to whole images.
    """
    inference = inference or Inference()
    shape = images[0].shape[0], images[0].shape[1]
    if inference.sees_whole(shape) and not inference.tta:
        scaled = _scaled(images, inference.scaled(shape))
        logits, depth = _apply(task, scaled, device, precision)
        yield Block(slice(0, size[0]), slice(0, size[1]), logits, depth)
        return
    scales = TTA_SCALES if inference.tta else (1.0,)
    levels = [
        _Level(task, images, size, scale, len(scales), device, precision, inference)
        for scale in scales
    ]
    for top in range(0, size[0], _BLOCK[0]):
        rows = slice(top, min(top + _BLOCK[0], size[0]))
        for left in range(0, size[1], _BLOCK[1]):
            columns = slice(left, min(left + _BLOCK[1], size[1]))
            total = levels[0].sample(rows, columns)
            for level in levels[1:]:
                total += level.sample(rows, columns)
            yield Block(rows, columns, total[:, :-1], total[:, -1:])


def _scaled(images: Sequence[np.ndarray], size: tuple[int, int]) -> Tensor:
    """Images uint8 [H, W, 3] resized to ``size``, as a tensor uint8 [N, 3, H', W']."""
    resized = [resize_image(image, size) for image in images]
    stacked = resized[0][None] if len(resized) == 1 else np.stack(resized)  # no copy of a large one
    if not stacked.flags.writeable:  # some decoders return such arrays, which PyTorch warns of
        stacked = stacked.copy()
    return torch.from_numpy(stacked).permute(0, 3, 1, 2)


def _apply(
    task: TaskNet, images: Tensor, device: torch.device, precision: str
) -> tuple[Tensor, Tensor]:
    """(logits, depth) of images uint8 [N, 3, H, W] in main memory."""
    with autocast(device, precision):
        return task(normalise(images.to(device)))


class _Level:
    """Images at one scale, and the outputs of their windows.

    Args:
        task, images, size, device, precision, inference: as for ``predict_blocks``.
        scale: relative to the size at which the network sees the images.
        levels: number of levels, whose mean the result is.
    """

    def __init__(
        self,
        task: TaskNet,
        images: Sequence[np.ndarray],
        size: tuple[int, int],
        scale: float,
        levels: int,
        device: torch.device,
        precision: str,
        inference: Inference,
    ):
        self._task, self._device, self._precision = task, device, precision
        self._inference = inference
        height, width = inference.scaled((images[0].shape[0], images[0].shape[1]), scale)
        self._images = _scaled(images, (height, width))
        window = inference.window or (height, width)
        stride = inference.steps if inference.window else window
        self._down = _Axis(height, window[0], stride[0], size[0])
        self._across = _Axis(width, window[1], stride[1], size[1])
        self._logits_weight, self._depth_weight = 1 / levels, float(scale == 1)
        self._rows: dict[int, Tensor] = {}

    def sample(self, rows: slice, columns: slice) -> Tensor:
        """The level's part in a block: float32 [N, C + 1, rows, columns], depth comes last.

        Rows may not go back from one call to the next.
        """
        needed = self._down.windows(rows)
        self._rows = {
            k: self._rows[k] if k in self._rows else self._outputs(self._down.starts[k])
            for k in needed
        }
        windows = self._rows[needed[0]]
        total = windows.new_zeros(
            (*windows.shape[1:3], rows.stop - rows.start, columns.stop - columns.start)
        )
        for k in needed:
            windows = self._rows[k]
            covered, (first, last), vertical = self._down.interpolation(k, rows, windows.shape[3])
            for j in self._across.windows(columns):
                across = self._across.interpolation(j, columns, windows.shape[4])
                part = windows[j][:, :, first:last, slice(*across.points)]
                part = part @ across.matrix.T.to(self._device)
                part = vertical.to(self._device) @ part
                total[:, :, covered, across.covered] += part
        return total

    def _outputs(self, top: int) -> Tensor:
        """Weighted outputs of a row of windows, float32 [windows, N, C + 1, h, w]."""
        height, width = self._down.window, self._across.window
        strip = self._images[:, :, top : top + height]
        crops = [
            image[:, :, left : left + width] for left in self._across.starts for image in strip
        ]
        batch = self._inference.batch
        outputs = []
        for start in range(0, len(crops), batch):
            windows = torch.stack(crops[start : start + batch])
            output = self._weighted(windows)
            if self._inference.tta:
                output = (output + self._weighted(windows.flip(3)).flip(3)) / 2
            outputs.append(output)
        return torch.cat(outputs).unflatten(0, (len(self._across.starts), len(self._images)))

    def _weighted(self, windows: Tensor) -> Tensor:
        logits, depth = _apply(self._task, windows, self._device, self._precision)
        return torch.cat(
            [logits.float() * self._logits_weight, depth.float() * self._depth_weight], dim=1
        )


class _Interpolation(NamedTuple):
    """The part of a window's output in a range of pixels, along one axis."""

    covered: slice
    """Pixels that the window covers, counted from the beginning of the range."""
    points: tuple[int, int]
    """First point of the output that they need, and the one after the last."""
    matrix: Tensor
    """float32 [pixels, points]: bilinear weights over the number of windows at the pixel."""


class _Axis:
    """Windows along one axis of an image, and the pixels of the result that each of them covers.

    Pixel i of the result lies at ``i * (length - 1) / (size - 1)`` of the image (align_corners). A
    window covers the places from its first to its last pixel; if windows do not overlap, also half
    the gap to the next one.

    Args:
        length: number of the image's pixels.
        window: the same of a window.
        stride: distance of neighbouring windows.
        size: number of the result's pixels.
    """

    def __init__(self, length: int, window: int, stride: int, size: int):
        self.window = min(window, length)
        count = -(-(length - self.window) // stride) + 1
        self.starts = [min(k * stride, length - self.window) for k in range(count)]
        self._places = np.linspace(0, length - 1, size)
        first = np.array(self.starts)
        last = first + self.window - 1
        margin = 0.5 if (first[1:] > last[:-1]).any() else 0
        self._begins = np.searchsorted(self._places, first - margin, "left")
        self._ends = np.searchsorted(self._places, last + margin, "right")
        changes = np.zeros(size + 1, np.int64)
        np.add.at(changes, self._begins, 1)
        np.add.at(changes, self._ends, -1)
        self._counts = changes.cumsum()[:-1]

    def windows(self, pixels: slice) -> list[int]:
        """Indices of the windows that cover some of the pixels."""
        begins = np.maximum(self._begins, pixels.start)
        return np.flatnonzero(begins < np.minimum(self._ends, pixels.stop)).tolist()

    def interpolation(self, k: int, pixels: slice, points: int) -> _Interpolation:
        """How window k, whose output has a number of points, contributes to pixels."""
        begin, end = max(pixels.start, self._begins[k]), min(pixels.stop, self._ends[k])
        place = (self._places[begin:end] - self.starts[k]) * (
            (points - 1) / max(1, self.window - 1)
        )
        place = place.clip(0, points - 1)
        first, last = math.floor(place[0]), math.ceil(place[-1]) + 1
        hat = 1 - np.abs(place[:, None] - np.arange(first, last))
        weights = hat.clip(0) / self._counts[begin:end, None]
        covered = slice(int(begin) - pixels.start, int(end) - pixels.start)
        return _Interpolation(covered, (first, last), torch.from_numpy(weights).float())
