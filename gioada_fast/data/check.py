"""Reads every file of a data set: lists errors by file, counts sizes, labels and depths, and judges
whether they are plausible.
"""

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import combinations
from multiprocessing import parent_process
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..config import DataConfig
from ..errors import InputError
from ..labels import IGNORE, LabelSpace
from ..processes import run_in_processes, usable_cores
from . import plausibility
from .depth_maps import DepthReader
from .files import DataSet, FrameFiles
from .label_maps import LabelReader, UnknownLabels, Value, known_ids
from .plausibility import FrameFacts, PlausibilityWarning, Roles, SetFacts, StoredLabels
from .rasters import ImageFacts, image_facts, read_image, read_labels, read_with_facts
from .sets import source_set, target_set, training_set, trains_with_depth
from .transforms import check_same_size, kept_share
from .tree import hidden_under, is_file

PARTS = ("source", "target", "evaluation")
"""The sets of a run."""
PERCENTILES = (5, 50, 95)

_SAMPLE = 8
"""Number of frames whose labels are compared with other readings and with neighbours."""
MAX_SHOWN = 20
"""Number of files shown for each kind of error; --json shows all."""
_QUICK_FRAMES, _QUICK_PIXELS = 16, 12_000_000
"""Maximum numbers of frames and of pixels that ``quick_warnings`` reads."""

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


class UnknownValue(NamedTuple):
    """Count of a value that a set's label maps have and the set does not define."""

    value: Value
    """Id or colour (R, G, B)."""
    pixels: int
    files: int


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
    unknown: tuple[UnknownValue, ...]
    """The most frequent first."""
    hidden: int
    """Number of hidden files under the data set's folder, which are skipped."""
    facts: SetFacts
    """What the rules of plausibility judge."""
    warnings: tuple[PlausibilityWarning, ...]
    """What is not plausible in the set."""


def part_names(config: DataConfig) -> tuple[str, ...]:
    """The sets of a run: ``PARTS``, with ``source 1``, ``source 2`` ... if there are several."""
    if config.sources is None:
        return PARTS
    return (*(f"source {k + 1}" for k in range(len(config.sources))), *PARTS[1:])


def list_set(config: DataConfig, part: str) -> DataSet:
    """The files that a run reads for one of ``part_names``.

    For ``target``, images and the depth maps of ``target.depth``, never labels. A target without
    labels has no evaluation frames.

    Raises:
        InputError: a setting is missing or wrong, or a folder has no images.
    """
    kind, _, number = part.partition(" ")
    if kind == "source":
        settings = list(config.named_sources())
        return source_set(config, settings[int(number) - 1 if number else 0])
    if part == "target":
        return training_set(config, trains_with_depth(config))
    data = target_set(config, part)
    return replace(data, frames=[]) if data.read_labels is None else data


def check_set(
    data: DataSet,
    part: str,
    space: LabelSpace,
    workers: int | None = None,
    strict_labels: LabelReader | None = None,
) -> SetReport:
    """Read every file of a data set in parallel. Errors of files are collected, not raised.

    Args:
        data: frames and their readers.
        part: one of ``part_names``, shown before the progress bar.
        space: classes of the label maps' train ids.
        workers: number of processes, which does not change the report; None takes one for each
            usable core.
        strict_labels: if ``data`` ignores values that it does not define, the reader that refuses
            them: such values are counted, but are no errors.

    Raises:
        RuntimeError: the processes die, whichever frame they read first.
    """
    read = partial(
        _read_silently,
        read_labels=data.read_labels,
        depth=data.depth,
        roles=plausibility.roles(space),
        upright=data.upright,
        strict_labels=strict_labels,
    )
    sums = _Sums()
    # If a process dies, one of the first remaining frames killed it. A single process then reads
    # these frames in order: if it dies too, the first remaining frame is the culprit.
    attempts = ((len(data.frames), workers), (4 * (workers or usable_cores()), 1), (1, 1))
    while left := sums.left(data):
        for count, processes in attempts:
            try:
                for index, frame in run_in_processes(read, left[:count], part, processes):
                    sums.add(index, frame)
                break
            except BrokenProcessPool:
                left = sums.left(data)
        else:
            sums.add_fatal(*left[0])
    facts = sums.facts(data, part, space)
    return SetReport(
        data,
        tuple(index for index in range(len(data.frames)) if not sums.errors[index]),
        dict(sorted(sums.sizes.items(), key=lambda size: (-size[1], size[0]))),
        sums.labels(),
        sums.depth(),
        tuple(error for _, errors in sorted(sums.errors.items()) for error in errors),
        sums.unknown_values(),
        hidden_under(data.root) if data.frames else 0,
        facts,
        tuple(plausibility.judge(facts)),
    )


def crop_note(data: DataSet) -> str | None:
    """Says how much of the first image the crops for training keep, if they cut some of it off.

    None if it leaves out at most 2 %, or if the image cannot be read.
    """
    if data.size is None or not data.frames:
        return None
    try:
        facts = image_facts(data.frames[0].image)
    except InputError:
        return None  # check and training report it
    share = kept_share((facts.height, facts.width), data.size)
    if share >= 0.98:
        return None
    height, width = data.size
    return (
        f"images of {facts.width}x{facts.height} are cropped to the shape of {width}x{height} and "
        f"keep {share:.0%} of their pixels; height and width of another shape keep more"
    )


def quick_warnings(data: DataSet, part: str, space: LabelSpace) -> list[PlausibilityWarning]:
    """Judge a few evenly spaced frames of a set in this process, before training.

    Reads 16 frames, or fewer if they are larger than 0.75 megapixels. Files that cannot be read are
    left out. Labels of the part ``target`` are not read.

    Args:
        data: frames and their readers.
        part: one of ``part_names``.
        space: classes of the label maps' train ids.
    """
    if part == "target":
        data = replace(data, read_labels=None)
    sums, count = _Sums(), _QUICK_FRAMES
    for turn in range(count):
        chosen = _spread(range(len(data.frames)), count)
        if turn >= len(chosen):
            break
        if chosen[turn] not in sums.errors:
            task = chosen[turn], data.frames[chosen[turn]]
            roles = plausibility.roles(space)
            sums.add(*_read_frame(task, data.read_labels, data.depth, roles, data.upright))
        if turn == 0 and sums.sizes:
            height, width = next(iter(sums.sizes))
            count = max(2, min(count, _QUICK_PIXELS // (height * width)))
    return plausibility.judge(sums.facts(data, part, space))


def compare_sets(reports: Mapping[str, SetReport]) -> dict[str, list[PlausibilityWarning]]:
    """Images that two sets share, as warnings of the later set.

    Args:
        reports: reports by the names of ``part_names``.
    """
    warnings: dict[str, list[PlausibilityWarning]] = {name: [] for name in reports}
    for (name, report), (later, other) in combinations(reports.items(), 2):
        shared = plausibility.shared_images(later, other.facts, name, report.facts)
        if shared is not None:
            warnings[later].append(shared)
    return warnings


def all_warnings(reports: Mapping[str, SetReport]) -> dict[str, list[PlausibilityWarning]]:
    """The warnings of each set, also from ``compare_sets``.

    A class that only some of several sources draw is not missing.

    Args:
        reports: reports by the names of ``part_names``.
    """
    shared = compare_sets(reports)
    warnings: dict[str, list[PlausibilityWarning]] = {}
    sources = [report.facts for report in reports.values() if report.facts.is_source]
    for name, report in reports.items():
        found, facts = list(report.warnings), report.facts
        if facts.is_source and len(sources) > 1:
            others = [other for other in sources if other is not facts]
            found = plausibility.drawn_by_others(found, facts, others)
        warnings[name] = [*found, *shared[name]]
    return warnings


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
    unknown: Mapping[Value, int] | None = None
    """Pixels of the label map by a value that the data set does not define."""
    facts: FrameFacts | None = None


class _Sums:
    """Sums over frames, which may come in any order."""

    def __init__(self):
        self.errors: dict[int, tuple[FileError, ...]] = {}
        self.sizes: Counter[tuple[int, int]] = Counter()
        self._fatal = 0
        self._labels = LabelCounts(np.zeros(256, np.int64), np.zeros(256, np.int64))
        self._depth = _Depth(np.zeros(_DEPTH_BINS, np.int64), math.inf, 0.0, 0)
        self._unknown: dict[Value, list[int]] = {}
        self._facts: dict[int, FrameFacts] = {}
        self._undefined: list[int] = []

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
        for value, pixels in (frame.unknown or {}).items():
            counts = self._unknown.setdefault(value, [0, 0])
            counts[0] += pixels
            counts[1] += 1
        if any(error.kind == "values" for error in frame.errors):
            self._undefined.append(index)
        if frame.facts is not None:
            self._facts[index] = frame.facts

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

    def unknown_values(self) -> tuple[UnknownValue, ...]:
        """The most frequent first."""
        values = [UnknownValue(value, *counts) for value, counts in self._unknown.items()]
        return tuple(sorted(values, key=lambda v: (-v.pixels, str(v.value))))

    def facts(self, data: DataSet, part: str, space: LabelSpace) -> SetFacts:
        """What the rules judge; reads some label maps again, as they are stored."""
        sound = sorted(index for index, errors in self.errors.items() if not errors)
        labelled = data.read_labels is not None
        return SetFacts(
            data,
            part,
            space,
            dict(sorted(self._facts.items())),
            self._labels.pixels,
            whole=len(self.errors) == len(data.frames),
            stored=_stored_labels(data, sorted([*sound, *self._undefined])),
            unread_labels=len(self._undefined),
            unknown=sum(pixels for pixels, _ in self._unknown.values()),
            neighbours=_neighbours(data, sound) if labelled else None,
        )


def _spread(indices: Sequence[int], count: int) -> list[int]:
    """At most ``count`` evenly spaced elements, the first and last among them."""
    places = np.linspace(0, len(indices) - 1, min(count, len(indices))).round().astype(int)
    return [indices[place] for place in places]


def _stored_labels(data: DataSet, indices: Sequence[int]) -> StoredLabels | None:
    """Ids of a few label maps as stored; None if they are colours or have more than 8 bits."""
    train_ids = None if data.read_labels is None else known_ids(data.read_labels)
    if train_ids is None:
        return None
    places = np.zeros((256, plausibility.BANDS), np.int64)
    for index in _spread(indices, _SAMPLE):
        path = data.frames[index].labels
        assert path is not None
        try:
            ids = read_labels(path)
        except InputError:  # changed since it was read
            continue
        ids = ids if ids.ndim == 2 else ids[:, :, 0]
        if ids.min() < 0 or ids.max() > 255:
            return None
        places += plausibility.places(ids.astype(np.uint8))
    return StoredLabels(places, train_ids)


def _neighbours(data: DataSet, sound: Sequence[int]) -> np.ndarray:
    """Alignment of a few images with the labels of their own frame, the one before and the one
    after: float [n, 3].
    """
    usable = set(sound)
    chosen = [i for i in sound if i - 1 in usable and i + 1 in usable]
    rows = []
    for index in _spread(chosen, _SAMPLE):
        try:
            rows.append(_alignments(data, (index, index - 1, index + 1)))
        except InputError:  # changed since it was read
            continue
    return np.array(rows, float).reshape(-1, 3)


def _alignments(data: DataSet, indices: Sequence[int]) -> list[float]:
    """Alignment of the first frame's image with the labels of each."""
    image = read_image(data.frames[indices[0]].image, data.upright)
    scores = []
    for index in indices:
        path = data.frames[index].labels
        assert path is not None and data.read_labels is not None
        scores.append(plausibility.label_alignment(image, data.read_labels(path)))
    return scores


def _read_silently(task: tuple[int, FrameFiles], **settings: Any) -> tuple[int, _Frame]:
    if parent_process() is not None:  # not in this process, whose standard error others use
        _silence_decoders()
    return _read_frame(task, **settings)


def _read_frame(
    task: tuple[int, FrameFiles],
    read_labels: LabelReader | None,
    depth: DepthReader | None,
    roles: Roles,
    upright: bool = False,
    strict_labels: LabelReader | None = None,
) -> tuple[int, _Frame]:
    index, files = task
    arrays: list[np.ndarray | None] = []
    errors = []
    unknown: dict[Value, int] = {}
    facts: list[ImageFacts] = []

    def image_of(path: Path) -> np.ndarray:
        image, image_facts = read_with_facts(path, upright)
        facts.append(image_facts)
        return image

    def labels_of(path: Path) -> np.ndarray:
        assert read_labels is not None
        try:
            return (strict_labels or read_labels)(path)
        except UnknownLabels as error:
            unknown.update(error.counts)
            if strict_labels is None:
                raise
            return read_labels(path)

    readers = (
        image_of,
        None if read_labels is None else labels_of,
        None if depth is None else depth.read,
    )
    same_size: list[np.ndarray | None] = []
    for path, read in zip(files, readers, strict=True):
        array, fits = None, False
        if path is not None and read is not None:
            try:
                array = read(path)
                if path != files.image and arrays[0] is not None:
                    check_same_size(arrays[0], array, files.image, path)
                fits = True
            except Exception as error:  # a decoder may raise any; report it with the file's name
                errors.append(_file_error(path, array is not None, error))
                if array is not None and facts and not upright:
                    errors[-1] = _with_hint(errors[-1], arrays[0], array, facts[0].orientation)
        arrays.append(array)
        same_size.append(array if fits else None)
    image, labels, metres = arrays
    to_judge = same_size[2]
    if depth is not None and depth.relative:
        metres, to_judge = None, None if to_judge is None else depth.about_metres(to_judge)
    return index, _Frame(
        None if image is None else image.shape[:2],
        None if labels is None else np.bincount(labels.ravel(), minlength=256),
        None if metres is None else _count_depth(metres),
        tuple(errors),
        unknown,
        plausibility.measure(
            same_size[0], same_size[1], to_judge, roles, facts[0] if facts else None
        ),
    )


@lru_cache(maxsize=1)
def _silence_decoders() -> None:
    """Redirect standard error to /dev/null: decoders write there without naming the file."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _file_error(path: Path, was_read: bool, error: Exception) -> FileError:
    message = " ".join(str(error).split()).removeprefix(f"{path}: ")
    if isinstance(error, UnknownLabels):
        return FileError(path, "values", message)
    if not isinstance(error, InputError):
        message = f"{type(error).__name__}: {message}"
    elif not is_file(path):
        return FileError(path, "missing", message)
    return FileError(path, "size" if was_read else "unreadable", message)


def _with_hint(
    error: FileError, image: np.ndarray | None, other: np.ndarray, orientation: int
) -> FileError:
    """Names the setting if a map has the size of its image after the turn that EXIF asks for."""
    if image is None or orientation < 5 or image.shape[1::-1] != other.shape[:2]:
        return error
    hint = f"; its EXIF orientation is {orientation}: set exif_orientation to apply"
    return error._replace(message=error.message + hint)


def _count_depth(metres: np.ndarray) -> _Depth | None:
    known = metres[metres > 0]
    if not known.size:
        return None
    bins = np.rint(np.log(known / _DEPTH_UNIT) / _DEPTH_STEP).clip(0, _DEPTH_BINS - 1)
    counts = np.bincount(bins.astype(np.int64), minlength=_DEPTH_BINS)
    return _Depth(counts, float(known.min()), float(known.max()), metres.size)
