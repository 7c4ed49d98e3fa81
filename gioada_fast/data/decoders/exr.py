"""OpenEXR; OpenCV's own reader is missing from its packages, or off."""

import contextlib
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import OpenEXR

from .raster import MAX_PIXELS, Raster, Undecodable


def decode(data: bytes, names: tuple[str, ...]) -> Raster:
    """One channel, at its place in the display window; outside of the data window it is 0.

    See ``_choose`` for the channel.
    """
    with _open(data, header_only=True) as file:
        for part in file.parts:
            _window(part.header, "dataWindow")
    with _open(data) as file:
        places = {
            f"{part.header['name']}.{name}" if len(file.parts) > 1 else name: (part, name)
            for part in file.parts
            for name in part.channels
        }
        channels = {full: part.channels[name].pixels for full, (part, name) in places.items()}
        chosen = _choose(channels, names)
        part, _ = places[chosen]
        pixels = _placed(channels[chosen], part.header)
    return Raster("EXR", pixels, 8 * pixels.itemsize)


def _open(data: bytes, header_only: bool = False) -> OpenEXR.File:
    # OpenEXR prints why it cannot read a part, and leaves the part out
    with contextlib.redirect_stdout(None):
        return OpenEXR.File(
            io.BytesIO(data), separate_channels=True, header_only=header_only, num_threads=0
        )


def _window(header: Mapping[str, Any], name: str) -> tuple[int, int, int, int]:
    """(left, top, right, bottom), all inclusive."""
    (left, top), (right, bottom) = (corner.tolist() for corner in header[name])
    if (right - left + 1) * (bottom - top + 1) > MAX_PIXELS:
        raise Undecodable(f"{name} from ({left}, {top}) to ({right}, {bottom}) is too large")
    return left, top, right, bottom


def _choose(channels: Mapping[str, np.ndarray], names: tuple[str, ...]) -> str:
    """The channel to read.

    The first of these rules that leaves one channel, or equal ones (such as R, G and B), wins: the
    channels whose name contains one of ``names``; for depth, Z of a layer that has no X (Normal.Z
    is no depth); all channels. Alpha does not count.
    """
    colours = [name for name in channels if name.rpartition(".")[2] != "A"] or [*channels]
    groups = [[name for name in colours if word in name.lower()] for word in names]
    if "depth" in names:
        z = [name for name in colours if name.rpartition(".")[2] in ("Z", "z")]
        groups.append([name for name in z if name[:-1] + "X" not in channels])
    for group in (*groups, colours):
        if group and all(
            np.array_equal(channels[name], channels[group[0]], equal_nan=True) for name in group[1:]
        ):
            return group[0]
    if not channels:
        raise Undecodable("truncated, damaged or with deep pixels")
    raise Undecodable(
        f"with the channels {', '.join(channels)}: expected one channel, equal ones, or one "
        f"whose name contains {names[0]}"
    )


def _placed(pixels: np.ndarray, header: Mapping[str, Any]) -> np.ndarray:
    left, top, right, bottom = _window(header, "dataWindow")
    x0, y0, x1, y1 = _window(header, "displayWindow")
    if pixels.shape != (bottom - top + 1, right - left + 1):
        raise Undecodable("whose channel is stored at a lower resolution than its window")
    if (left, top, right, bottom) == (x0, y0, x1, y1):
        return pixels
    placed = np.zeros((y1 - y0 + 1, x1 - x0 + 1), pixels.dtype)
    x, y = slice(max(left, x0), min(right, x1) + 1), slice(max(top, y0), min(bottom, y1) + 1)
    if x.start < x.stop and y.start < y.stop:
        placed[y.start - y0 : y.stop - y0, x.start - x0 : x.stop - x0] = pixels[
            y.start - top : y.stop - top, x.start - left : x.stop - left
        ]
    return placed
