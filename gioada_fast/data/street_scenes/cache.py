"""Frames on disk: rendered once, in parallel, and never half-written."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from gioada_fast.data.street_scenes.frames import VERSION, Frame, check, render
from gioada_fast.errors import InputError

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
    check(look, size, seeds)
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
    if workers is None:
        workers = (
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        )
    workers = max(1, min(workers or 1, len(missing)))
    _render_all(Path(root), look, missing, size, workers)
    return paths


def _render_all(root: Path, look: str, seeds: list[int], size, workers: int) -> None:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        task = progress.add_task(f"street scenes, {look}", total=len(seeds), rate="")

        def advance() -> None:
            progress.advance(task)
            speed = progress.tasks[task].speed
            progress.update(task, rate=f"{speed:.1f} frames/s" if speed else "")

        # spawn: a fork of a process that already runs threads (torch, BLAS) may hang
        context = multiprocessing.get_context("spawn")
        with _single_threaded_children():
            pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
            _run(pool, root, look, seeds, size, advance)


def _run(pool: ProcessPoolExecutor, root: Path, look: str, seeds, size, advance) -> None:
    try:
        pending = [pool.submit(_render_to_cache, root, look, seed, size) for seed in seeds]
        for future in as_completed(pending):
            future.result()
            advance()
    except BaseException:
        # Ctrl-C included: files appear only when complete, so running frames can be cut off
        processes = list((getattr(pool, "_processes", None) or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        raise
    pool.shutdown()


@contextmanager
def _single_threaded_children() -> Iterator[None]:
    """One thread for OpenMP and BLAS in processes that start meanwhile."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _start_worker() -> None:
    # the parent decides what Ctrl-C means
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Ends this process when its parent is killed: the pool's queue alone would wait for ever."""
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _render_to_cache(root: Path, look: str, seed: int, size: tuple[int, int]) -> None:
    write(render(seed, look, size), frame_paths(root, look, size, seed))


def write(frame: Frame, paths: FramePaths) -> None:
    """Writes a frame; each file appears under its name only when it is complete."""
    centimetres = np.round(np.minimum(frame.depth, MAX_DEPTH) * 100).astype(np.uint16)
    # anything that is hit keeps a depth, however near
    centimetres[(frame.depth > 0) & (centimetres == 0)] = 1
    arrays = FramePaths(cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR), frame.labels, centimetres)
    for array, path in zip(arrays, paths, strict=True):
        data = cv2.imencode(".png", array, [cv2.IMWRITE_PNG_COMPRESSION, 4])[1]
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            temporary.write_bytes(data.tobytes())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
