"""Work on many frames in several processes, with a progress bar."""

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
    """What ``function`` returns for each task, in the order in which they are done.

    The processes end when the iteration does, by an exception, Ctrl-C included, or by being closed,
    wherever they are: what they write has to bear that. They end as well when this process is
    killed.

    Args:
        function: it, its tasks and its results have to be fit for pickle.
        tasks: one frame each.
        description: before the progress bar.
        workers: processes, 0 for this one; by default one for each core this process may use.

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
    """Cores that this process may run on."""
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
            with _interrupts_ignored():  # the first task starts the processes, which inherit that
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


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Ctrl-C means nothing to this process, and to those that it starts, for ever: it decides."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where they were started by another thread
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Ends this process when its parent is killed: the pool's queue alone would wait for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)
