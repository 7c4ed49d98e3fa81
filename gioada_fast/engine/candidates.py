"""Networks to compare: the weights of runs and ablations, single files, and checkpoints."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..config import CONTROL
from ..errors import InputError
from ..labels import LabelSpace
from ..models import TaskNet
from .checkpoint import load_checkpoint
from .networks import load_checkpointed_task, load_task
from .run_folder import TASK, TASK_CONTROL, TASK_SOURCE_ONLY, RunFolder

_TEACHER = "_teacher"


class Networks(NamedTuple):
    """A loaded candidate."""

    task: TaskNet
    """In evaluation mode, on the CPU."""
    teacher: TaskNet | None
    space: LabelSpace
    metadata: dict[str, Any]
    """See ``load_task``."""


@dataclass(frozen=True)
class Candidate:
    """A task network on disk."""

    run: str
    """Name of its run, or of its folder."""
    path: Path
    """A weights file or a checkpoint."""
    phase: str | None = None
    """Phase of the run that it comes from; None if the file alone is known."""
    step: int | None = None
    """Updates of the task network."""
    teacher: Path | None = None
    """The teacher's weights, or the checkpoint that has them."""
    folder: Path | None = None
    """The run's folder, which has its settings; None for a file outside any run."""

    def load(self) -> Networks:
        """Load the network, and its teacher if it has one."""
        if self.path.suffix == ".pt":
            return Networks(*load_checkpointed_task(self.path))
        task, space, metadata = load_task(self.path)
        teacher = None
        if self.teacher is not None and self.teacher.suffix == ".pt":
            _, teacher, _, saved = load_checkpointed_task(self.teacher)
            if saved["step"] != self.step:  # the run was killed between the two files
                teacher = None
        elif self.teacher is not None:
            teacher, _, _ = load_task(self.teacher)
        return Networks(task, teacher, space, metadata)


def find_candidates(paths: Sequence[Path]) -> list[Candidate]:
    """The networks of the given runs, ablations, weights files and checkpoints.

    A run gives the weights of all its evaluations if it kept them (``schedule.keep_evaluated``),
    otherwise those at the end of its phases, or those of its checkpoint if it is not finished.

    Raises:
        InputError: a path is none of these, or has no weights yet.
    """
    found: dict[Path, Candidate] = {}
    for path in paths:
        for candidate in _candidates(path):
            found.setdefault(candidate.path.resolve(), candidate)
    return list(found.values())


def _candidates(path: Path) -> list[Candidate]:
    if path.is_file():
        return [_of_file(path)]
    runs = sorted(file.parent for file in path.glob("seed*/*/config.yaml"))
    if not runs and RunFolder(path).config.is_file():
        own = list(_of_run(RunFolder(path), path.resolve().name))
    elif runs:
        own = [
            candidate
            for run in runs
            for candidate in _of_run(RunFolder(run), f"{run.parent.name}/{run.name}")
        ]
    else:
        raise InputError(
            f"{path}: neither the folder of a run or an ablation, nor weights or a checkpoint"
        )
    if not own:
        raise InputError(f"{path}: has no weights and no checkpoint yet")
    return own


def _of_run(run: RunFolder, name: str) -> Iterator[Candidate]:
    kept = [_of_kept(file, name, run.path) for file in sorted(run.kept.glob("*.safetensors"))]
    evaluated = [candidate for candidate in kept if candidate is not None]
    if evaluated:
        phases = ("source_only", CONTROL, "adaptation")
        yield from sorted(evaluated, key=lambda c: (phases.index(str(c.phase)), c.step))
        return
    schedule = run.read_settings().get("schedule") or {}
    first, more = schedule.get("source_only_steps", 0), schedule.get("adaptation_steps", 0)
    ends = {
        TASK_SOURCE_ONLY: ("source_only", first),
        TASK_CONTROL: (CONTROL, first + more),
        TASK: ("adaptation", first + more),
    }
    saved = (run.checkpoint, run.previous_checkpoint)  # a killed run may have the latter alone
    checkpoint = next((path for path in saved if path.is_file()), None)
    for weights, (phase, step) in ends.items():
        if (path := run.weights(weights)).is_file():
            teacher = checkpoint if weights == TASK else None
            yield Candidate(name, path, phase, step, teacher, run.path)
    is_finished = run.weights(TASK if more else TASK_SOURCE_ONLY).is_file()
    if checkpoint is not None and not is_finished:
        yield _of_checkpoint(checkpoint, name, run.path)


def _of_kept(file: Path, run: str, folder: Path) -> Candidate | None:
    """A file that ``RunFolder.evaluated`` names; None for a teacher's or another file."""
    phase, _, step = file.stem.rpartition("_")
    if phase not in ("source_only", CONTROL, "adaptation") or not step.isdecimal():
        return None
    teacher = file.with_name(f"{file.stem}{_TEACHER}{file.suffix}")
    return Candidate(run, file, phase, int(step), teacher if teacher.is_file() else None, folder)


def _of_checkpoint(path: Path, run: str, folder: Path | None) -> Candidate:
    checkpoint = load_checkpoint(path, {"config", "networks", "step"})
    return Candidate(run, path, checkpoint.get("phase"), checkpoint["step"], folder=folder)


def _of_file(path: Path) -> Candidate:
    parents = path.resolve().parents[:2]
    folder = next((parent for parent in parents if (parent / "config.yaml").is_file()), None)
    name = (folder or path.resolve().parent).name
    if path.suffix == ".pt":
        return _of_checkpoint(path, name, folder)
    if folder is not None:
        kept = _of_kept(path, name, folder)
        if kept is not None:
            return kept
        same = [c for c in _of_run(RunFolder(folder), name) if c.path.resolve() == path.resolve()]
        if same:
            return same[0]
    return Candidate(name, path, folder=folder)
