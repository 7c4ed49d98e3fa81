"""Processes many frames in parallel worker processes, with a progress bar."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from typing import TypeVar

import cv2
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Task = TypeVar("Task")
Result = TypeVar("Result")


def run_in_processes(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    description: str,
    workers: int | None = None,
) -> Generator[Result, None, None]:
    """Yield the result of ``function`` for each task, in the order of completion.

    The processes are terminated when the iteration ends early, by an exception (also Ctrl-C) or by
    closing the generator, and when this process is killed. So ``function`` must write files in a
    way that survives a kill.

    Args:
        function: must be picklable, as must tasks and results.
        tasks: one frame each.
        description: shown before the progress bar.
        workers: number of processes; 0 runs in this one, None takes one for each usable core.

    Raises:
        BrokenProcessPool: a process was killed.
    """
    workers = min(usable_cores() if workers is None else workers, len(tasks))
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        bar = progress.add_task(description, total=len(tasks), rate="")
        results: Iterable[Result] = (
            _in_processes(function, tasks, workers) if workers else map(function, tasks)
        )
        for result in results:
            progress.advance(bar)
            speed = progress.tasks[bar].speed
            progress.update(bar, rate=f"{speed:.1f} frames/s" if speed else "")
            yield result


def usable_cores() -> int:
    """Number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _in_processes(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int
) -> Iterator[Result]:
    # spawn: a fork of a process that already runs threads (torch, BLAS) may hang
    context = multiprocessing.get_context("spawn")
    with _single_threaded_children():
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
        try:
            with _interrupts_ignored():  # the first task spawns the workers, which inherit SIG_IGN
                first = pool.submit(function, tasks[0])
            others = [pool.submit(function, task) for task in tasks[1:]]
            for future in as_completed([first, *others]):
                yield future.result()
        except BaseException:
            processes = list((getattr(pool, "_processes", None) or {}).values())
            pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()
            raise
        pool.shutdown()


@contextmanager
def _single_threaded_children() -> Iterator[None]:
    """Processes that are started inside use one thread for OpenMP and BLAS."""
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


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Ignores SIGINT while spawning: workers inherit SIG_IGN, only the parent handles Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # not inherited if another thread spawned it
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Exits when the parent is killed, instead of waiting forever for the pool's queue."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)
