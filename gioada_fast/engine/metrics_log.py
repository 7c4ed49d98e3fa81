"""Logs a run's metrics over time: ``metrics.jsonl`` for programs, TensorBoard for people."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from ..atomic_files import write_atomically
from ..config import CONTROL
from ..errors import InputError
from .run_folder import RunFolder, parse_record


class MetricsLog:
    """Appends records to a run's ``metrics.jsonl`` and copies them to TensorBoard.

    TensorBoard shows the control as a run of its own, whose curves it draws over the others: its
    steps have the same numbers as those of adaptation.

    Args:
        run: the run's folder.
        done: None for a new run. For a resumed one, the last step of each phase in its checkpoint,
            see ``trainer.updates_done``. Later records are dropped, because the run repeats their
            steps.
    """

    def __init__(self, run: RunFolder, done: Mapping[str, int] | None = None):
        path = run.metrics
        if done is not None and path.exists():
            records = "".join(_up_to(done, path.read_text("utf-8", "replace")))
            write_atomically(path, lambda temporary: temporary.write_text(records))
        self._run, self._done = run, done
        self._boards: dict[bool, SummaryWriter] = {}
        with self._reporting():
            self._file = path.open("a", buffering=1, encoding="utf-8")

    def write(self, step: int, phase: str, values: dict[str, Any]) -> None:
        """Write a record; nested values (IoU by class) become ``name/class`` in TensorBoard."""
        with self._reporting():
            self._file.write(json.dumps({"step": step, "phase": phase, **values}) + "\n")
            board = self._board(phase == CONTROL)
            for name, value in values.items():
                scalars = value.items() if isinstance(value, dict) else ((None, value),)
                for key, scalar in scalars:
                    if scalar is not None:
                        board.add_scalar(name if key is None else f"{name}/{key}", scalar, step)

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """Write a picture, RGB uint8 [H, W, 3], to TensorBoard alone."""
        with self._reporting():
            self._board(of_control=False).add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Close all files. What cannot be written any more was reported by an earlier call."""
        for close in (self._file.close, *(board.close for board in self._boards.values())):
            with suppress(OSError):
                close()

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(
                f"{self._run}: the metrics cannot be written: {error.strerror or error}: make room "
                "and resume the run"
            ) from error

    def _board(self, of_control: bool) -> SummaryWriter:
        if of_control not in self._boards:
            folder = self._run.tensorboard / CONTROL if of_control else self._run.tensorboard
            purge = None
            if self._done is not None:
                own = (step for name, step in self._done.items() if (name == CONTROL) is of_control)
                purge = max(own, default=0) + 1
            self._boards[of_control] = SummaryWriter(str(folder), purge_step=purge)
        return self._boards[of_control]


def _up_to(done: Mapping[str, int], records: str) -> Iterator[str]:
    """Lines of complete records up to ``done``; a killed process can leave half a line."""
    for line in records.splitlines(keepends=True):
        record = parse_record(line) if line.endswith("\n") else None
        if record is not None and record["step"] <= done.get(record["phase"], -1):
            yield line
