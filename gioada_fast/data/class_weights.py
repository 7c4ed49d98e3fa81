"""Weights of the cross-entropy from the sources' labels.

Counting reads every label map once. The counts are kept in the cache, under a hash of everything
that they were counted from: settings, and path, size and time of change of each file.
"""

import hashlib
import json
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

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


def class_weights(
    source: SourceFrames | PackedSource | SourceMix,
    num_classes: int,
    unreadable: Unreadable,
    config: DataConfig | None = None,
) -> np.ndarray:
    """1 / sqrt(frequency in the sources' labels), mean 1, float32 [C]; 1 for absent classes.

    Several sources count by their shares.

    Args:
        source: the source or sources.
        num_classes: number of classes.
        unreadable: counts the files that cannot be read.
        config: settings of the sources, to keep the counts by; None counts and keeps nothing.
    """
    parts = source_parts(source)
    shares = source.shares if isinstance(source, SourceMix) else np.ones(1)
    frequency = np.zeros(num_classes)
    for share, (setting, frames) in zip(shares, parts.items(), strict=True):
        if config is None:
            counts, _ = _count(frames, unreadable)
        else:
            counts = _kept_counts(frames, source_settings(config, setting), unreadable)
        counts = counts[:num_classes]
        frequency += share * (counts / max(1, counts.sum()))
    present = frequency > 0
    weights = np.ones(num_classes)
    if present.any():
        weights[present] = 1 / np.sqrt(frequency[present])
        weights[present] /= weights[present].mean()
    return weights.astype(np.float32)


def _kept_counts(
    frames: SourceFrames | PackedSource, settings: dict[str, Any], unreadable: Unreadable
) -> np.ndarray:
    """Pixels by train id, int64 [256], from the cache if they were counted before."""
    file = Path(CACHE).expanduser() / "class_counts" / f"{_counted_from(frames, settings)}.json"
    try:
        counts = np.array(json.loads(file.read_text(encoding="utf-8")), np.int64)
        if counts.shape == (256,):
            return counts
    except (OSError, ValueError):
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
    text = json.dumps(counts.tolist())
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, lambda temporary: temporary.write_text(text))
        kept = sorted(file.parent.glob("*.json"), key=lambda other: other.stat().st_mtime)
        for other in kept[:-_MAX_KEPT]:
            other.unlink(missing_ok=True)
    except (OSError, InputError):
        pass


def _count(frames: SourceFrames | PackedSource, unreadable: Unreadable) -> tuple[np.ndarray, bool]:
    """Pixels by train id, int64 [256], and whether every label map was read."""
    total, errors = np.zeros(256, np.int64), []
    for result in _read_all(frames):
        if isinstance(result, InputError):
            errors.append(result)
        else:
            total += result
    unknown = [error for error in errors if isinstance(error, UnknownLabels)]
    if unknown and (len(errors) > unreadable.limit or len(errors) == len(frames)):
        raise UnknownLabels.of_set(unknown)
    for error in errors:
        unreadable.add(str(error))
    return total, not errors


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
