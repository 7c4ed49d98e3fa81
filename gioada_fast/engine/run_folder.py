"""A run's folder: paths of its files, a lock for the process that writes them, and their readers.

The folder contains:

    config.yaml              all settings
    checkpoints/last.pt      state to resume from
    checkpoints/previous.pt  the one before, for the case that last.pt is damaged
    metrics.jsonl            losses and scores over time, one record a line
    tensorboard/             the same for TensorBoard; control/ in it has the control's curves
    panels/step_000400.jpg   pictures while training, none of the control
    *.safetensors            weights: task_source_only, task_control, task, translation; task_best
                             if schedule.keep_best is set
    kept/                    weights of every evaluation if schedule.keep_evaluated is set:
                             adaptation_000400.safetensors, adaptation_000400_teacher.safetensors
    result.json              scores, one column per finished phase
    comparison.jpg           evaluation frames with ground truth and every column's segmentation
    report.html              all of this as a web page; a run writes it last
    trace.json.gz            timeline of a profiled run
"""

import fcntl
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .. import yaml_nodes
from ..atomic_files import remove_unfinished, write_atomically
from ..config import Config, rename_old_settings, save_config
from ..errors import InputError
from ..json_files import read_json
from ..report.run_report import result_rows
from . import distributed

TASK, TASK_SOURCE_ONLY, TASK_CONTROL = "task", "task_source_only", "task_control"
TASK_BEST, TRANSLATION = "task_best", "translation"
"""Names of a run's weights files."""
_AGAIN = ": remove it; resuming the run scores its weights again"


class RunFolder:
    """A run's folder.

    Args:
        path: the folder, which need not exist yet.
    """

    def __init__(self, path: Path):
        self.path = path
        self.config = path / "config.yaml"
        self.checkpoints = path / "checkpoints"
        self.checkpoint = self.checkpoints / "last.pt"
        self.previous_checkpoint = self.checkpoints / "previous.pt"
        self.metrics = path / "metrics.jsonl"
        self.tensorboard = path / "tensorboard"
        self.panels = path / "panels"
        self.kept = path / "kept"
        self.result = path / "result.json"
        self.comparison = path / "comparison.jpg"
        self.report = path / "report.html"
        self.trace = path / "trace.json.gz"

    def __str__(self) -> str:
        return str(self.path)

    def weights(self, name: str) -> Path:
        """Weights file by name, such as ``TASK``."""
        return self.path / f"{name}.safetensors"

    def panel(self, step: int) -> Path:
        """File of the panel that is drawn at a step."""
        return self.panels / f"step_{step:06d}.jpg"

    def evaluated(self, phase: str, step: int, teacher: bool = False) -> Path:
        """File of the weights that an evaluation scored, or of the teacher's at that time."""
        return self.kept / f"{phase}_{step:06d}{'_teacher' if teacher else ''}.safetensors"

    def drawn_panels(self) -> dict[int, Path]:
        """The existing panels by step, in ascending order."""
        steps = {
            int(match[1]): path
            for path in self.panels.glob("step_*.jpg")
            if (match := re.fullmatch(r"step_(\d+)", path.stem))
        }
        return dict(sorted(steps.items()))

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Create the folder and missing parents; remove them if the block fails to set up the run.

        Raises:
            InputError: the folder exists already, or cannot be created.
        """
        if not distributed.is_writer():
            yield
            return
        try:
            missing = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
            self.path.mkdir(parents=True)
        except FileExistsError as error:
            remedy = f"resume it with --resume {self}"
            if not self.config.is_file():  # a run that was killed while it started, or no run
                remedy = f"it has no {self.config.name}, so no run can be resumed: remove it"
            raise InputError(
                f"{self} exists already and is not overwritten: {remedy}, or give another --name"
            ) from error
        except OSError as error:
            raise InputError(f"{self}: cannot be created: {error.strerror}") from error
        try:
            yield
        except BaseException:
            for child in sorted(self.path.rglob("*"), reverse=True):
                child.rmdir() if child.is_dir() else child.unlink()
            with suppress(OSError):  # another run may use a parent by now
                for folder in missing:
                    folder.rmdir()
            raise

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder against other processes, until the block or the process ends.

        Raises:
            InputError: another process trains this run, or the folder cannot be written to.
        """
        if not distributed.is_writer():
            yield
            return
        try:
            file = (self.path / ".lock").open("w")
        except OSError as error:
            raise InputError(f"{self}: cannot be written to: {error.strerror}") from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(f"{self} is in use: another process trains this run") from error
            yield

    def make_subfolders(self, keeps_evaluated: bool) -> None:
        """Create the folders for checkpoints, panels and kept weights."""
        for folder in (self.checkpoints, self.panels, *([self.kept] if keeps_evaluated else ())):
            try:
                folder.mkdir(exist_ok=True)
            except OSError as error:
                raise InputError(f"{folder}: cannot be created: {error.strerror}") from error

    def remove_unfinished(self) -> None:
        """Remove half-written files of a killed process."""
        for folder in (self.path, self.checkpoints, self.panels, self.kept):
            remove_unfinished(folder)

    def save_config(self, config: Config) -> None:
        """Write all settings."""
        write_atomically(self.config, lambda temporary: save_config(config, temporary))

    def read_settings(self) -> dict[str, Any]:
        """Read the saved settings, nested by section; old names become the present ones.

        Raises:
            InputError: the file is missing or not readable.
        """
        path = self.config
        if not path.is_file():
            raise InputError(f"{self} is not the folder of a run: it has no {path.name}")
        text = yaml_nodes.read_text(path, "configuration", yaml_nodes.MAX_CONFIGURATION)
        settings = yaml_nodes.parse(text, str(path), "configuration", aliases=True).value
        if not isinstance(settings, dict):
            raise InputError(f"{path}: has a {type(settings).__name__}, expected settings by name")
        rename_old_settings(settings)
        return settings

    def read_result(self) -> dict[str, Any] | None:
        """Read the scores of the finished phases; None before the first phase ends.

        Raises:
            InputError: the file is not readable or has no columns.
        """
        path = self.result
        if not path.is_file():
            return None
        try:
            result = read_json(path)
        except InputError as error:
            raise InputError(f"{error}{_AGAIN}") from error
        columns = result.get("columns") if isinstance(result, dict) else None
        columns = columns if isinstance(columns, list) else []
        count = len(columns)
        if count not in (1, 2, 3):
            raise InputError(f"{path}: has {count} columns of results, expected 1 to 3{_AGAIN}")
        try:
            result_rows(result)
            is_whole = all({"name", "updates"} <= column.keys() for column in columns)
        except (KeyError, TypeError, ValueError, AttributeError):
            is_whole = False
        if not is_whole or not {"target", "seconds"} <= result.keys():
            raise InputError(f"{path}: is no result of a run, or was changed{_AGAIN}")
        return result

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write the scores of the finished phases."""
        text = json.dumps(result, indent=1)
        write_atomically(self.result, lambda temporary: temporary.write_text(text))

    def read_metrics(self) -> tuple[list[dict[str, Any]], int]:
        """Read the records of ``metrics.jsonl``, and the number of unreadable lines.

        The records are sorted by phase, in the order in which the phases ran, and by step.
        If a step has several records, because the run was resumed, the last one counts. An
        incomplete last line, which the run may still be writing, does not count as unreadable. A
        missing file has no records.
        """
        if not self.metrics.is_file():
            return [], 0
        lines = self.metrics.read_text(encoding="utf-8", errors="replace").splitlines()
        records: dict[tuple[int, str, bool], dict[str, Any]] = {}
        unreadable = 0
        for number, line in enumerate(lines, start=1):
            record = parse_record(line)
            if record is None:
                unreadable += number < len(lines)
                continue
            records[record["step"], record["phase"], "eval/miou" in record] = record
        order = list(dict.fromkeys(phase for _, phase, _ in records))
        by_time = sorted(records, key=lambda key: (order.index(key[1]), key[0]))
        return [records[key] for key in by_time], unreadable


def parse_record(line: str) -> dict[str, Any] | None:
    """The record of a line of ``metrics.jsonl``; None if it is cut off or damaged."""
    try:
        record = json.loads(line)
        is_whole = isinstance(record["step"], int) and isinstance(record["phase"], str)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    values = [value for name, value in record.items() if name not in ("step", "phase")]
    numbers = [
        number
        for value in values
        for number in (value.values() if isinstance(value, dict) else (value,))
    ]
    is_whole &= all(number is None or isinstance(number, int | float) for number in numbers)
    return record if is_whole else None


def find_weights(model: Path, name: str) -> Path:
    """Find weights: a file by its own path, or the weights ``name`` in a run's folder."""
    if model.is_file():
        return model
    if not model.is_dir():
        raise InputError(f"{model}: neither the folder of a run nor a weights file")
    path = RunFolder(model).weights(name)
    if not path.is_file():
        existing = sorted(other.stem for other in model.glob("*.safetensors"))
        raise InputError(
            f"{path}: no such weights; {model} has {', '.join(existing) or 'none yet'}"
        )
    return path
