"""A cache of rendered frames on disk. Frames are rendered in parallel and written atomically."""

import os
from collections.abc import Iterable
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from ..atomic_files import write_atomically
from ..errors import InputError
from ..processes import run_in_processes
from .frames import VERSION, Frame, check_arguments, render
from .looks import LOOK_CAMERA, LOOKS, CameraRanges

MAX_DEPTH = 655.35
"""Metres: the largest depth that fits into 16 bits of centimetres."""


class FramePaths(NamedTuple):
    """The files of one frame."""

    image: Path
    """8-bit RGB PNG."""
    labels: Path
    """8-bit PNG of ``STREET_IDS``."""
    depth: Path
    """16-bit PNG, centimetres along the optical axis, 0 for sky."""


def frame_paths(
    root: Path,
    look: str,
    size: tuple[int, int],
    seed: int,
    camera: CameraRanges = LOOK_CAMERA,
) -> FramePaths:
    """Paths of a frame in the cache under ``root``; ``size`` is (H, W).

    The name of the folder has the ranges of ``camera`` that are not the look's.
    """
    name = f"{look}_{size[1]}x{size[0]}"
    for part, limits in camera.replaced(LOOKS[look]).items():
        name += f"_{part}_" + "_to_".join(repr(limit).removesuffix(".0") for limit in limits)
    folder = Path(root) / "street_scenes" / f"v{VERSION}" / name
    return FramePaths(*(folder / f"{seed:07d}_{part}.png" for part in FramePaths._fields))


def ensure(
    root: Path,
    look: str,
    seeds: Iterable[int],
    size: tuple[int, int] = (180, 240),
    workers: int | None = None,
    camera: CameraRanges = LOOK_CAMERA,
) -> list[FramePaths]:
    """Renders the frames that are missing from the cache.

    Args:
        root: folder of the cache.
        look: a key of ``LOOKS``.
        seeds: the seed of each frame.
        size: (H, W) in pixels.
        workers: number of processes, 0 to render in this one; by default one for each core that
            this process may use.
        camera: ranges of the camera, by default the look's.

    Returns:
        The paths of each frame, in the order of ``seeds``.

    Raises:
        InputError: ``look`` is unknown, ``size`` is empty, a seed is negative, a range of
            ``camera`` is out of bounds, embreex is not installed, or ``root`` cannot be written to.
    """
    seeds = [int(seed) for seed in seeds]
    check_arguments(look, size, seeds, camera)
    paths = [frame_paths(root, look, size, seed, camera) for seed in seeds]
    missing = sorted(
        {
            seed
            for seed, files in zip(seeds, paths, strict=True)
            if not all(file.is_file() for file in files)
        }
    )
    if not missing:
        return paths
    folder = paths[0].image.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"cannot write street scenes under {root}: {error.strerror}; choose another folder"
        ) from error
    render_one = partial(_render_to_cache, Path(root), look, size, camera)
    try:
        for _ in run_in_processes(render_one, missing, f"street scenes, {look}", workers):
            pass
    except BrokenProcessPool as error:
        raise InputError(
            "a process that renders street scenes was killed, perhaps out of memory; the frames "
            "that are finished are kept, and the same command renders the others"
        ) from error
    return paths


def _render_to_cache(
    root: Path, look: str, size: tuple[int, int], camera: CameraRanges, seed: int
) -> None:
    write_frame(render(seed, look, size, camera), frame_paths(root, look, size, seed, camera))


def write_frame(frame: Frame, paths: FramePaths) -> None:
    """Writes the files of a frame. A killed process leaves no incomplete file under these names.

    Raises:
        InputError: a file cannot be written.
    """
    centimetres = np.round(np.minimum(frame.depth, MAX_DEPTH) * 100).astype(np.uint16)
    # 0 means sky: a surface nearer than half a centimetre gets one centimetre
    centimetres[(frame.depth > 0) & (centimetres == 0)] = 1
    arrays = (cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR), frame.labels, centimetres)
    for array, path in zip(arrays, paths, strict=True):
        _write_png(array, path)


def _write_png(array: np.ndarray, path: Path) -> None:
    png = cv2.imencode(".png", array, [cv2.IMWRITE_PNG_COMPRESSION, 4])[1].tobytes()
    write_atomically(path, lambda temporary: temporary.write_bytes(png))
