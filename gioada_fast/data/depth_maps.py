"""Readers of depth maps: from the files' values to metres."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

import numpy as np

from ..errors import InputError
from ..labels import FAR
from .rasters import read_values

Kind = Literal["metres", "disparity", "inverse", "carla", "relative"]


@dataclass(frozen=True)
class DepthReader:
    """How the depth maps of a data set are read."""

    read: Callable[[Path], np.ndarray]
    """Reads a file: metres float32 [H, W], 0 where there is no depth or more than ``FAR``; relative
    maps as stored, 0 where they are unknown."""
    per_metre: float | None
    """Counts per metre if all maps have whole numbers of up to 16 bits, which packs then store;
    otherwise None."""
    relative: bool = False
    """Whether values are larger where it is nearer, in unknown scale and shift."""

    def about_metres(self, values: np.ndarray) -> np.ndarray:
        """Metres to look at and to judge: of relative values, from 2 to 100 in each map."""
        known = values != 0
        if not self.relative or not known.any():
            return values
        lowest, highest = values[known].min(), values[known].max()
        nearness = (values - lowest) / max(highest - lowest, np.finfo(np.float32).tiny)
        return np.where(known, 2 / (0.02 + 0.98 * nearness), 0).astype(np.float32)


def depth_counts(per_metre: float) -> DepthReader:
    """Reader of 16-bit depth maps; 0 and 65535 mean no depth, and all channels must be equal."""
    return DepthReader(partial(_read_counts, per_metre=per_metre), per_metre)


def depth_reader(
    kind: Kind = "metres",
    per_metre: float | None = None,
    focal_baseline: float | None = None,
    along: Literal["axis", "ray"] = "axis",
    fov: float | None = None,
) -> DepthReader:
    """Reader of depth maps as the settings ``depth_*`` of ``config.FramesConfig`` describe them.

    Values that are 0, negative, not finite or the largest whole number, and depth beyond ``FAR``,
    read as 0; of relative maps, values that are not finite.

    Args:
        kind: what the values are.
        per_metre: value of one metre, pixel (disparity) or 1 / metre (inverse). None: 100 for whole
            numbers, 1 for floating point.
        focal_baseline: focal length in pixels times baseline in metres, for disparity.
        along: whether depth is measured along the camera's axis or along each pixel's ray.
        fov: horizontal field of view in degrees, for rays.
    """
    if (kind == "disparity" and focal_baseline is None) or (along == "ray" and fov is None):
        raise ValueError("disparity needs focal_baseline, and rays need fov")
    if kind == "relative":
        return DepthReader(_read_relative, None, relative=True)
    read = partial(
        _read_depth,
        kind=kind,
        per_metre=per_metre,
        focal_baseline=focal_baseline if kind == "disparity" and focal_baseline else 1.0,
        fov=fov if along == "ray" else None,
    )
    return DepthReader(read, None)


def metres(counts: np.ndarray, per_metre: float) -> np.ndarray:
    """Metres float32 of uint16 counts; 0 means no depth."""
    return np.divide(counts, np.float32(per_metre), dtype=np.float32)


def counts(metres: np.ndarray, per_metre: float) -> np.ndarray:
    """Inverse of ``metres``: uint16 counts."""
    return np.rint(metres * np.float64(np.float32(per_metre))).astype(np.uint16)


def _read_counts(path: Path, per_metre: float) -> np.ndarray:
    stored = read_values(path)
    if stored.dtype != np.uint16:
        raise InputError(
            f"{path}: depth map is {stored.dtype} {list(stored.shape)}, expected uint16 with one "
            "channel, or equal ones"
        )
    stored = _without_last(_one_channel(stored, path))
    return _with_depth(metres(stored, per_metre), path)


def _read_depth(
    path: Path,
    kind: Kind,
    per_metre: float | None,
    focal_baseline: float,
    fov: float | None,
) -> np.ndarray:
    stored = read_values(path)
    if kind == "carla":
        depth = _metres_of_carla(stored, path)
    else:
        values = _one_channel(stored, path)
        whole = values.dtype.kind != "f"
        if per_metre is None and whole and (kind != "metres" or values.dtype == np.uint8):
            raise InputError(
                f"{path}: depth map has whole numbers ({values.dtype}): set depth_per_metre to the "
                f"number that stands for one {_UNITS[kind]}"
            )
        scale = per_metre or (100 if whole else 1)
        if whole:
            values = _without_last(values)
        depth = _metres_of(values, kind, scale, focal_baseline)
    if fov is not None:
        depth = depth * _axis_share(depth.shape[0], depth.shape[1], fov)
    return _with_depth(depth, path)


def _read_relative(path: Path) -> np.ndarray:
    values = _one_channel(read_values(path), path)
    with np.errstate(over="ignore", invalid="ignore"):
        values = values.astype(np.float32)
    values = np.where(np.isfinite(values), values, np.float32(0))
    if not values.any():
        raise InputError(f"{path}: no pixel has a depth: is it a depth map of another format?")
    return values


_UNITS = {"metres": "metre", "disparity": "pixel of disparity", "inverse": "1 / metre"}


def _metres_of(
    values: np.ndarray, kind: Kind, per_metre: float, focal_baseline: float
) -> np.ndarray:
    if kind == "metres" and values.dtype.kind == "u" and values.itemsize <= 2:
        return metres(values, per_metre)
    with np.errstate(over="ignore", invalid="ignore"):
        values = values.astype(np.float64)
        valid = np.isfinite(values) & (values > 0)
        values = np.where(valid, values, 1)
        # 1 / metre is the disparity of a focal length times baseline of 1
        depth = values / per_metre if kind == "metres" else focal_baseline * per_metre / values
    return np.where(valid, depth, 0)


def _metres_of_carla(stored: np.ndarray, path: Path) -> np.ndarray:
    if stored.dtype != np.uint8 or stored.ndim != 3:
        raise InputError(
            f"{path}: depth map is {stored.dtype} {list(stored.shape)}, expected uint8 with the "
            "depth's 24 bits in R, G and B"
        )
    r, g, b = (stored[:, :, channel].astype(np.float64) for channel in range(3))
    return (r + 256 * g + 65536 * b) * (1000 / (2**24 - 1))


def _one_channel(stored: np.ndarray, path: Path) -> np.ndarray:
    if stored.ndim == 2:
        return stored
    first = stored[:, :, :1]
    if np.array_equal(stored, np.broadcast_to(first, stored.shape), equal_nan=True):
        return np.ascontiguousarray(first[:, :, 0])
    raise InputError(
        f"{path}: depth map is {stored.dtype} with channels that differ, expected one channel, or "
        "equal ones. A picture in colours contains no metres; the 24 bits of CARLA need "
        "depth_kind: carla"
    )


def _without_last(values: np.ndarray) -> np.ndarray:
    """Whole numbers, with 0 instead of the largest one of their type."""
    return np.where(values == np.iinfo(values.dtype).max, values.dtype.type(0), values)


@lru_cache(maxsize=4)
def _axis_share(height: int, width: int, fov: float) -> np.ndarray:
    """Depth along the axis divided by depth along the ray, float64 [H, W], at pixel centres.

    1 / sqrt(1 + (x / f)^2 + (y / f)^2), x and y from the centre of the image, f in pixels.
    """
    focal = width / 2 / math.tan(math.radians(fov) / 2)
    y = (np.arange(height) + 0.5 - height / 2)[:, None] / focal
    x = (np.arange(width) + 0.5 - width / 2) / focal
    return 1 / np.sqrt(1 + x**2 + y**2)


def _with_depth(depth: np.ndarray, path: Path) -> np.ndarray:
    """Depth without what lies beyond ``FAR``, float32."""
    depth = np.where(depth > FAR, 0, depth).astype(np.float32, copy=False)
    if not depth.any():
        raise InputError(f"{path}: no pixel has a depth: is it a depth map of another format?")
    return depth


CENTIMETRES = depth_counts(100)

CARLA_DEPTH = depth_reader("carla")
"""24 bits, R + 256 G + 65536 B, from 0 to 1000 metres."""
