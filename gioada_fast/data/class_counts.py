"""Pixels of each class in the sources' frames.

Counting reads every label map once. The counts are kept in the cache, under a hash of everything
that they were counted from: settings, and path, size and time of change of each file.
"""

import hashlib
import json
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from ..atomic_files import write_atomically
from ..config import CACHE, DataConfig
from ..errors import InputError
from ..processes import usable_cores
from .label_maps import UnknownLabels
from .pack_reader import PackedSource
from .pack_settings import source_settings
from .sets import SourceFrames, source_parts
from .source_mix import SourceMix
from .tree import stamp
from .unreadable import Unreadable

_CHUNK = 64
_SLOW = 2e-3
"""Seconds to read a label map from which threads pay."""
_MAX_KEPT = 100


def counts_by_frame(
    source: SourceFrames | PackedSource | SourceMix,
    unreadable: Unreadable,
    config: DataConfig | None = None,
) -> list[np.ndarray]:
    """Pixels by train id in each frame, int32 [N, 256], for each of the sources.

    Frames whose labels cannot be read count as empty.

    Args:
        source: the source or sources.
        unreadable: counts the files that cannot be read.
        config: settings of the sources, to keep the counts by; None counts and keeps nothing.
    """
    return [
        _count(frames, unreadable)[0]
        if config is None
        else _kept_counts(frames, source_settings(config, setting), unreadable)
        for setting, frames in source_parts(source).items()
    ]


def frequencies(
    counts: Sequence[np.ndarray],
    source: SourceFrames | PackedSource | SourceMix,
    num_classes: int,
) -> np.ndarray:
    """Share of each class in the labelled pixels, float64 [C]; several sources by their shares.

    Args:
        counts: the source's counts from ``counts_by_frame``.
        source: the source or sources.
        num_classes: number of classes.
    """
    shares = source.shares if isinstance(source, SourceMix) else np.ones(1)
    frequency = np.zeros(num_classes)
    for share, of_frames in zip(shares, counts, strict=True):
        pixels = of_frames.sum(0, dtype=np.int64)[:num_classes]
        frequency += share * (pixels / max(1, pixels.sum()))
    return frequency


def _kept_counts(
    frames: SourceFrames | PackedSource, settings: dict[str, Any], unreadable: Unreadable
) -> np.ndarray:
    """Pixels by train id, int32 [N, 256], from the cache if they were counted before."""
    file = Path(CACHE).expanduser() / "class_counts" / f"{_counted_from(frames, settings)}.npz"
    try:
        with np.load(file) as kept:
            counts = np.zeros((len(frames), 256), np.int32)
            counts[:, kept["train_ids"]] = kept["pixels"]
            return counts
    except (OSError, ValueError, EOFError, KeyError, IndexError, BadZipFile):
        pass
    counts, complete = _count(frames, unreadable)
    if complete:
        _keep(file, counts)
    return counts


def _counted_from(frames: SourceFrames | PackedSource, settings: dict[str, Any]) -> str:
    content = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    if isinstance(frames, PackedSource):
        content.update(str(frames.manifest.checksums).encode())
    else:
        for files in frames.data.frames:
            assert files.labels is not None
            content.update(repr((str(files.labels), stamp(files.labels))).encode())
    return content.hexdigest()


def _keep(file: Path, counts: np.ndarray) -> None:
    """Write counts to the cache, and remove the oldest of too many; errors do no harm."""
    train_ids = np.flatnonzero(counts.any(0)).astype(np.uint8)

    def write(temporary: Path) -> None:
        with temporary.open("wb") as opened:  # given a path, np.savez would add a suffix
            np.savez(opened, train_ids=train_ids, pixels=counts[:, train_ids])

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, write)
        kept = sorted(file.parent.glob("*.*"), key=lambda other: other.stat().st_mtime)
        for other in kept[:-_MAX_KEPT]:
            other.unlink(missing_ok=True)
    except (OSError, InputError):
        pass


def _count(frames: SourceFrames | PackedSource, unreadable: Unreadable) -> tuple[np.ndarray, bool]:
    """Pixels by train id, int32 [N, 256], and whether every label map was read."""
    counts, errors = np.zeros((len(frames), 256), np.int32), []
    for index, result in enumerate(_read_all(frames)):
        if isinstance(result, InputError):
            errors.append(result)
        else:
            counts[index] = result
    unknown = [error for error in errors if isinstance(error, UnknownLabels)]
    if unknown and (len(errors) > unreadable.limit or len(errors) == len(frames)):
        raise UnknownLabels.of_set(unknown)
    for error in errors:
        unreadable.add(str(error))
    return counts, not errors


def _read_all(frames: SourceFrames | PackedSource) -> Iterator[np.ndarray | InputError]:
    """Pixels by train id of each label map, or its error, in the order of the frames.

    Large maps are read by several threads. Small ones are not: most of their time goes into Python,
    which runs one thread at a time.
    """
    count_one, start = partial(_count_one, frames), time.perf_counter()
    first = min(len(frames), _CHUNK)
    yield from map(count_one, range(first))
    if time.perf_counter() - start < _SLOW * first:
        yield from map(count_one, range(first, len(frames)))
        return
    # decoders silence warnings, each thread for itself: what is left of that ends here
    with warnings.catch_warnings(), ThreadPoolExecutor(usable_cores()) as pool:
        for begin in range(first, len(frames), _CHUNK):
            yield from pool.map(count_one, range(begin, min(begin + _CHUNK, len(frames))))


def _count_one(frames: SourceFrames | PackedSource, index: int) -> np.ndarray | InputError:
    try:
        return np.bincount(frames.labels(index).ravel(), minlength=256)
    except InputError as error:
        return error
