"""Readers of label maps: from the files' ids or colours to train ids."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from ..errors import InputError
from ..labels import IGNORE
from .rasters import read_labels

LabelReader = Callable[..., np.ndarray]
"""Train ids uint8 [H, W] of a label map, IGNORE included. Takes the file's path and, for the
setting unknown_labels, the keyword argument ``unknown``: "error" or "ignore"."""

Colours = Mapping[tuple[int, int, int], int]
"""Train id of each colour (R, G, B) of a label map, IGNORE included."""

Value = int | tuple[int, int, int]
"""An id, or a colour (R, G, B)."""

Unknown = Literal["error", "ignore"]
"""What to do with ids and colours without a train id: raise UnknownLabels, or return IGNORE."""

_MAX_SHOWN = 8
_MAX_SPAN = 2**22
"""Ids are mapped by a table if they span at most this range."""


class UnknownLabels(InputError):
    """A label map has ids or colours that belong to no class."""

    def __init__(self, message: str, counts: Mapping[Value, int] | None = None, known: str = ""):
        super().__init__(message)
        self.counts = dict(counts or {})
        """Number of pixels by unknown id or colour (R, G, B)."""
        self.known = known
        """Describes the known ids or colours."""

    @classmethod
    def of_set(cls, errors: Sequence["UnknownLabels"]) -> "UnknownLabels":
        """One error for several label maps: pixels and files of each unknown value, one file."""
        pixels: Counter[Value] = Counter()
        files: Counter[Value] = Counter()
        for error in errors:
            pixels.update(error.counts)
            files.update(error.counts.keys())
        shown = ", ".join(
            f"{value} ({count} pixels in {files[value]} files)"
            for value, count in pixels.most_common(_MAX_SHOWN)
        )
        more = f" and {len(pixels) - _MAX_SHOWN} more" if len(pixels) > _MAX_SHOWN else ""
        return cls(
            f"{len(errors)} label maps have unknown values: {shown}{more}; {errors[0].known}. The "
            f"first is {errors[0]}",
            pixels,
            errors[0].known,
        )


def id_labels(
    train_ids: Mapping[int, int], in_red: bool = False, unknown: Unknown = "error"
) -> LabelReader:
    """Reader of label maps that contain ids: any integers, in one channel or as palette indices.

    Args:
        train_ids: train id, or IGNORE, of each id.
        in_red: in files with colours, ids are in the first channel (R), and the others
            may contain anything. Otherwise R, G and B must be equal.
        unknown: what to do with other ids.
    """
    table = np.full(256, IGNORE, np.uint8)
    known = np.zeros(256, bool)
    for number, train_id in train_ids.items():
        if 0 <= number < 256:
            table[number], known[number] = train_id, True
    bytes_ = _Bytes(table, (~known).astype(np.uint8))
    return partial(
        _read_ids, train_ids=dict(train_ids), by_byte=bytes_, in_red=in_red, unknown=unknown
    )


def known_ids(reader: LabelReader) -> Mapping[int, int] | None:
    """Train id, or IGNORE, of each id that a reader of ``id_labels`` knows; None for colours."""
    if isinstance(reader, partial) and reader.func is _read_ids:
        return reader.keywords["train_ids"]
    return None


def colour_labels(train_ids: Callable[[Path], Colours], unknown: Unknown = "error") -> LabelReader:
    """Reader of label maps that contain colours; their train ids may differ from file to file."""
    return partial(_read_colours, train_ids=train_ids, unknown=unknown)


@dataclass(frozen=True)
class _Bytes:
    """Tables for ids of 8 bits."""

    train_ids: np.ndarray
    """uint8 [256]."""
    unknown: np.ndarray
    """uint8 [256]: 1 for ids that belong to no class."""


def _read_ids(
    path: Path, train_ids: Mapping[int, int], by_byte: _Bytes, in_red: bool, unknown: Unknown
) -> np.ndarray:
    stored = read_labels(path)
    ids = stored if stored.ndim == 2 else _one_channel(stored, path, in_red)
    if ids.dtype == np.uint8:
        labels = cv2.LUT(ids, by_byte.train_ids)
        if unknown == "ignore" or not cv2.countNonZero(cv2.LUT(ids, by_byte.unknown)):
            return labels
        missing = by_byte.unknown[ids] != 0
    else:
        labels, missing = _map_wide(ids, train_ids)
        if unknown == "ignore" or not missing.any():
            return labels
    values, pixels = np.unique(ids[missing], return_counts=True)
    counts: dict[Value, int] = dict(zip(values.tolist(), pixels.tolist(), strict=True))
    where = " in the channel R (if colours stand for classes, list colours instead)"
    known = f"known are {_ranges(train_ids)}"
    raise UnknownLabels(
        f"{path}: unknown ids{where if stored.ndim == 3 else ''}: {_shown(counts)}; "
        f"{known}: is it labelled with other classes? The setting "
        "unknown_labels: ignore leaves these pixels out",
        counts,
        known,
    )


def _one_channel(stored: np.ndarray, path: Path, in_red: bool) -> np.ndarray:
    red = cv2.extractChannel(stored, 0)
    if not in_red and not (stored[:, :, 1:] == red[:, :, None]).all():
        raise InputError(
            f"{path}: label map has colours ({stored.dtype} {list(stored.shape)}), expected ids in "
            "one channel or in equal ones"
        )
    return red


def _map_wide(ids: np.ndarray, train_ids: Mapping[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(train ids, whether the id is unknown) of integers of more than 8 bits."""
    low, high = int(ids.min()), int(ids.max())
    if high - low < _MAX_SPAN:
        wide = ids if ids.dtype.kind == "u" else ids.astype(np.int64)
        places = wide - wide.dtype.type(low)
        table, missing = np.full(high - low + 1, IGNORE, np.uint8), np.ones(high - low + 1, bool)
        for number, train_id in train_ids.items():
            if low <= number <= high:
                table[number - low], missing[number - low] = train_id, False
    else:
        values, places = np.unique(ids, return_inverse=True)
        table = np.array([train_ids.get(int(v), IGNORE) for v in values], np.uint8)
        missing = np.array([int(v) not in train_ids for v in values])
    return table[places].reshape(ids.shape), missing[places].reshape(ids.shape)


def _read_colours(path: Path, train_ids: Callable[[Path], Colours], unknown: Unknown) -> np.ndarray:
    image = read_labels(path, colours=True)
    if image.dtype != np.uint8 or image.ndim != 3:
        raise InputError(
            f"{path}: label map is {image.dtype} {list(image.shape)}, expected uint8 with colours: "
            "if it contains ids, the class map must list ids, such as '7: road'"
        )
    colours = train_ids(path)
    # Only the entries that are used take memory, because zeros are not written.
    places = np.zeros(2**24, np.uint16)
    for place, (r, g, b) in enumerate(colours, start=1):
        places[r << 16 | g << 8 | b] = place
    table = np.array([IGNORE, *colours.values()], np.uint8)
    codes = _codes(image)
    place = places[codes]
    missing = place == 0
    if unknown == "error" and missing.any():
        values, pixels = np.unique(codes[missing], return_counts=True)
        counts: dict[Value, int] = {
            (int(v) >> 16, int(v) >> 8 & 255, int(v) & 255): int(n)
            for v, n in zip(values, pixels, strict=True)
        }
        known = f"{len(colours)} colours are known"
        raise UnknownLabels(
            f"{path}: unknown colours: {_shown(counts)}; {known}: is it labelled "
            "with other classes? The setting unknown_labels: ignore leaves these pixels out",
            counts,
            known,
        )
    return table[place]


def _codes(image: np.ndarray) -> np.ndarray:
    """R << 16 | G << 8 | B, uint32 [H, W]."""
    with_alpha = cv2.cvtColor(image, cv2.COLOR_RGB2BGRA)
    return with_alpha.view("<u4")[:, :, 0] & np.uint32(0xFFFFFF)


def _shown(counts: Mapping[Value, int]) -> str:
    """The values with most pixels."""
    most = sorted(counts, key=lambda value: -counts[value])[:_MAX_SHOWN]
    text = ", ".join(f"{value} ({counts[value]} pixels)" for value in most)
    return text if len(counts) <= _MAX_SHOWN else f"{text} and {len(counts) - _MAX_SHOWN} more"


def _ranges(numbers: Iterable[int]) -> str:
    """Such as "0 to 18, 255"."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ", ".join(f"{a}" if a == b else f"{a} to {b}" for a, b in ranges)
