"""Reads every file of a data set: lists errors by file, and counts sizes, labels and depths."""

import math
import os
from collections import Counter
from collections.abc import Mapping
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..config import DataConfig
from ..errors import InputError
from ..labels import IGNORE
from ..processes import run_in_processes, usable_cores
from .depth_maps import DepthReader
from .files import DataSet, FrameFiles
from .label_maps import LabelReader
from .rasters import read_image
from .sets import source_set, target_set
from .transforms import check_same_size
from .tree import is_file

PARTS = ("source", "target", "evaluation")
"""The sets of a run."""
PERCENTILES = (5, 50, 95)

# Histogram of the logarithm of depth, from a millimetre to a kilometre.
_DEPTH_UNIT, _DEPTH_STEP, _DEPTH_BINS = 1e-3, 0.01, 1400


class FileError(NamedTuple):
    """An error in one file."""

    file: Path
    kind: str
    """``missing``, ``unreadable`` (damaged or of another format) or ``size`` (differs from the
    image's)."""
    message: str
    """Without the file's name."""


class LabelCounts(NamedTuple):
    """Counts over the readable label maps, by train id."""

    pixels: np.ndarray
    """int64 [256]; ignored pixels are counted at ``IGNORE``."""
    frames: np.ndarray
    """int64 [256]: number of maps with a pixel of the train id."""

    @property
    def labelled(self) -> int:
        """Number of pixels that have a class."""
        return int(self.pixels.sum() - self.pixels[IGNORE])

    @property
    def ignored_share(self) -> float:
        """Share of pixels without a class, 0 to 1."""
        return float(self.pixels[IGNORE] / max(1, self.pixels.sum()))


class DepthCounts(NamedTuple):
    """Statistics of the readable depth maps, in metres."""

    nearest: float
    farthest: float
    percentiles: Mapping[int, float]
    """Depth at each of ``PERCENTILES``, over pixels with a depth, accurate to half a percent."""
    share: float
    """Share of pixels with a depth, 0 to 1."""


@dataclass(frozen=True)
class SetReport:
    """Result of reading a data set."""

    data: DataSet
    sound: tuple[int, ...]
    """Indices of the frames without an error."""
    sizes: Mapping[tuple[int, int], int]
    """Images of each size (H, W), the most frequent first."""
    labels: LabelCounts | None
    """None if the data set has no labels or none of its maps is readable."""
    depth: DepthCounts | None
    """None if the data set has no depth or none of its maps is readable."""
    errors: tuple[FileError, ...]
    """In the order of the frames; within a frame: image, labels, depth."""


def list_set(config: DataConfig, part: str) -> DataSet:
    """The files that a run reads for one of ``PARTS``.

    For ``target``, only images. A target without labels has no evaluation frames.

    Raises:
        InputError: a setting is missing or wrong, or a folder has no images.
    """
    if part == "source":
        return source_set(config)
    data = target_set(config, part)
    frames = data.frames
    if part == "target":
        return DataSet(data.name, data.root, [FrameFiles(files.image) for files in frames])
    return DataSet(data.name, data.root, []) if data.read_labels is None else data


def check_set(data: DataSet, description: str, workers: int | None = None) -> SetReport:
    """Read every file of a data set in parallel. Errors of files are collected, not raised.

    Args:
        data: frames and their readers.
        description: shown before the progress bar.
        workers: number of processes, which does not change the report; None takes one for each
            usable core.

    Raises:
        RuntimeError: the processes die, whichever frame they read first.
    """
    read = partial(_read_frame, read_labels=data.read_labels, depth=data.depth)
    sums = _Sums()
    # If a process dies, one of the first remaining frames killed it. A single process then reads
    # these frames in order: if it dies too, the first remaining frame is the culprit.
    attempts = ((len(data.frames), workers), (4 * (workers or usable_cores()), 1), (1, 1))
    while left := sums.left(data):
        for count, processes in attempts:
            try:
                for index, frame in run_in_processes(read, left[:count], description, processes):
                    sums.add(index, frame)
                break
            except BrokenProcessPool:
                left = sums.left(data)
        else:
            sums.add_fatal(*left[0])
    return SetReport(
        data,
        tuple(index for index in range(len(data.frames)) if not sums.errors[index]),
        dict(sorted(sums.sizes.items(), key=lambda size: (-size[1], size[0]))),
        sums.labels(),
        sums.depth(),
        tuple(error for _, errors in sorted(sums.errors.items()) for error in errors),
    )


class _Depth(NamedTuple):
    """Statistics of the depth of one or several maps."""

    bins: np.ndarray
    """int64 [_DEPTH_BINS] histogram of the logarithm of depth."""
    nearest: float
    farthest: float
    pixels: int
    """All pixels, also those without a depth."""


class _Frame(NamedTuple):
    """Statistics of one frame; None for files that do not exist or cannot be read."""

    size: tuple[int, int] | None = None
    labels: np.ndarray | None = None
    """int64 [256] number of pixels by train id."""
    depth: _Depth | None = None
    errors: tuple[FileError, ...] = ()


class _Sums:
    """Sums over frames, which may come in any order."""

    def __init__(self):
        self.errors: dict[int, tuple[FileError, ...]] = {}
        self.sizes: Counter[tuple[int, int]] = Counter()
        self._fatal = 0
        self._labels = LabelCounts(np.zeros(256, np.int64), np.zeros(256, np.int64))
        self._depth = _Depth(np.zeros(_DEPTH_BINS, np.int64), math.inf, 0.0, 0)

    def left(self, data: DataSet) -> list[tuple[int, FrameFiles]]:
        return [task for task in enumerate(data.frames) if task[0] not in self.errors]

    def add_fatal(self, index: int, files: FrameFiles) -> None:
        self._fatal += 1
        if self._fatal == len(self.errors) + 1 == 3:
            raise RuntimeError("processes die, whichever frame they read first")
        message = "the process that read this frame died: out of memory, or a decoder crashed"
        self.add(index, _Frame(errors=(FileError(files.image, "unreadable", message),)))

    def add(self, index: int, frame: _Frame) -> None:
        self.errors[index] = frame.errors
        if frame.size is not None:
            self.sizes[frame.size] += 1
        if frame.labels is not None:
            self._labels.pixels[:] += frame.labels
            self._labels.frames[:] += frame.labels > 0
        if frame.depth is not None:
            self._depth = _Depth(
                self._depth.bins + frame.depth.bins,
                min(self._depth.nearest, frame.depth.nearest),
                max(self._depth.farthest, frame.depth.farthest),
                self._depth.pixels + frame.depth.pixels,
            )

    def labels(self) -> LabelCounts | None:
        return self._labels if self._labels.frames.any() else None

    def depth(self) -> DepthCounts | None:
        bins, nearest, farthest, pixels = self._depth
        if not pixels:
            return None
        below = np.cumsum(bins)
        percentiles = {}
        for percentage in PERCENTILES:
            place = np.searchsorted(below, percentage / 100 * below[-1])
            metres = _DEPTH_UNIT * math.exp(place * _DEPTH_STEP)
            percentiles[percentage] = min(max(metres, nearest), farthest)
        return DepthCounts(nearest, farthest, percentiles, float(below[-1] / pixels))


def _read_frame(
    task: tuple[int, FrameFiles], read_labels: LabelReader | None, depth: DepthReader | None
) -> tuple[int, _Frame]:
    _silence_decoders()
    index, files = task
    arrays: list[np.ndarray | None] = []
    errors = []
    read_depth = None if depth is None else depth.read
    for path, read in zip(files, (read_image, read_labels, read_depth), strict=True):
        array = None
        if path is not None and read is not None:
            try:
                array = read(path)
                if path != files.image and arrays[0] is not None:
                    check_same_size(arrays[0], array, files.image, path)
            except Exception as error:  # a decoder may raise any; report it with the file's name
                errors.append(_file_error(path, array is not None, error))
        arrays.append(array)
    image, labels, metres = arrays
    return index, _Frame(
        None if image is None else image.shape[:2],
        None if labels is None else np.bincount(labels.ravel(), minlength=256),
        None if metres is None else _count_depth(metres),
        tuple(errors),
    )


@lru_cache(maxsize=1)
def _silence_decoders() -> None:
    """Redirect standard error to /dev/null: decoders write there without naming the file."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _file_error(path: Path, was_read: bool, error: Exception) -> FileError:
    message = " ".join(str(error).split()).removeprefix(f"{path}: ")
    if not isinstance(error, InputError):
        message = f"{type(error).__name__}: {message}"
    elif not is_file(path):
        return FileError(path, "missing", message)
    return FileError(path, "size" if was_read else "unreadable", message)


def _count_depth(metres: np.ndarray) -> _Depth | None:
    known = metres[metres > 0]
    if not known.size:
        return None
    bins = np.rint(np.log(known / _DEPTH_UNIT) / _DEPTH_STEP).clip(0, _DEPTH_BINS - 1)
    counts = np.bincount(bins.astype(np.int64), minlength=_DEPTH_BINS)
    return _Depth(counts, float(known.min()), float(known.max()), metres.size)
