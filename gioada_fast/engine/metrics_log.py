"""Logs a run's metrics over time: ``metrics.jsonl`` for programs, TensorBoard for people."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from ..atomic_files import write_atomically
from .run_folder import RunFolder


class MetricsLog:
    """Appends records to a run's ``metrics.jsonl`` and copies them to TensorBoard.

    Args:
        run: the run's folder.
        resume_step: None for a new run. For a resumed one, the step of its checkpoint, or 0 if it
            has none. Later records are dropped, because the run repeats their steps.
    """

    def __init__(self, run: RunFolder, resume_step: int | None = None):
        path = run.metrics
        if resume_step is not None and path.exists():
            records = "".join(_up_to(resume_step, path.read_text()))
            write_atomically(path, lambda temporary: temporary.write_text(records))
        self._file = path.open("a", buffering=1)
        purge = None if resume_step is None else resume_step + 1
        self._board = SummaryWriter(str(run.tensorboard), purge_step=purge)

    def write(self, step: int, phase: str, values: dict[str, Any]) -> None:
        """Write a record; nested values (IoU by class) become ``name/class`` in TensorBoard."""
        self._file.write(json.dumps({"step": step, "phase": phase, **values}) + "\n")
        for name, value in values.items():
            scalars = value.items() if isinstance(value, dict) else ((None, value),)
            for key, scalar in scalars:
                if scalar is not None:
                    self._board.add_scalar(name if key is None else f"{name}/{key}", scalar, step)

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """Write a picture, RGB uint8 [H, W, 3], to TensorBoard alone."""
        self._board.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        self._file.close()
        self._board.close()


def _up_to(step: int, records: str) -> Iterator[str]:
    """Lines of complete records up to ``step``; a killed process can leave half a line."""
    for line in records.splitlines(keepends=True):
        try:
            if json.loads(line)["step"] <= step and line.endswith("\n"):
                yield line
        except (ValueError, KeyError):
            continue
