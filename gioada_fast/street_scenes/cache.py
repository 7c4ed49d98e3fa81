"""Frames on disk: rendered once, in parallel, and never half-written."""

import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from ..atomic_files import write_atomically
from ..errors import InputError
from ..processes import run_in_processes
from .frames import VERSION, Frame, check_arguments, render

MAX_DEPTH = 655.35
"""Metres; the largest depth that 16 bits of centimetres hold."""


class FramePaths(NamedTuple):
    """Files of one frame."""

    image: Path
    """8-bit RGB PNG."""
    labels: Path
    """8-bit PNG of ``STREET_IDS``."""
    depth: Path
    """16-bit PNG, centimetres along the optical axis, 0 for none."""


def frame_paths(root: Path, look: str, size: tuple[int, int], seed: int) -> FramePaths:
    """Where the cache under ``root`` keeps a frame."""
    folder = Path(root) / "street_scenes" / f"v{VERSION}" / f"{look}_{size[1]}x{size[0]}"
    return FramePaths(*(folder / f"{seed:07d}_{part}.png" for part in FramePaths._fields))


def ensure(
    root: Path,
    look: str,
    seeds: Iterable[int],
    size: tuple[int, int] = (180, 240),
    workers: int | None = None,
) -> list[FramePaths]:
    """Renders the frames that the cache lacks and returns the paths in the order of ``seeds``.

    Args:
        root: folder of the cache.
        look: a key of ``LOOKS``.
        seeds: one frame each.
        size: (H, W) in pixels.
        workers: processes; by default one for each core this process may use.

    Raises:
        InputError: unknown look, empty size, negative seed, or ``root`` cannot be written.
    """
    seeds = [int(seed) for seed in seeds]
    check_arguments(look, size, seeds)
    paths = [frame_paths(root, look, size, seed) for seed in seeds]
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
    render_one = partial(_render_to_cache, Path(root), look, size)
    # running frames can be cut off: files appear only when they are complete
    for _ in run_in_processes(render_one, missing, f"street scenes, {look}", workers):
        pass
    return paths


def _render_to_cache(root: Path, look: str, size: tuple[int, int], seed: int) -> None:
    write(render(seed, look, size), frame_paths(root, look, size, seed))


def write(frame: Frame, paths: FramePaths) -> None:
    """Writes a frame; each file appears under its name only when it is complete."""
    centimetres = np.round(np.minimum(frame.depth, MAX_DEPTH) * 100).astype(np.uint16)
    # anything that is hit keeps a depth, however near
    centimetres[(frame.depth > 0) & (centimetres == 0)] = 1
    arrays = (cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR), frame.labels, centimetres)
    for array, path in zip(arrays, paths, strict=True):
        _write_png(array, path)


def _write_png(array: np.ndarray, path: Path) -> None:
    png = cv2.imencode(".png", array, [cv2.IMWRITE_PNG_COMPRESSION, 4])[1].tobytes()
    write_atomically(path, lambda temporary: temporary.write_bytes(png))
