"""A run from its settings to its result: the folder, the data, the networks, the training."""

import fcntl
import json
import platform
import shlex
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from .. import __version__
from ..atomic_files import remove_unfinished, write_atomically
from ..config import Config, save_config
from ..data.class_weights import class_weights
from ..data.sets import (
    EvaluationFrames,
    check_label_space,
    describe_target,
    evaluation_frames,
    source_frames,
    supervised,
    target_images,
)
from ..data.transforms import resize_image, resize_nearest
from ..data.unreadable import Unreadable, first_readable
from ..depth import encode_depth
from ..errors import InputError, Interrupted
from ..labels import label_space
from ..models import TaskNet
from ..report.panels import colour_depth, comparison_panel, save_image, training_panel
from ..report.run_report import result_table, write_report
from . import distributed
from .checkpoint import load_checkpoint
from .device import device_name
from .evaluator import Scores, evaluate
from .inference import image_tensor, predict_maps, translate_images
from .metrics_log import MetricsLog
from .networks import build_adaptation, load_task, save_task, save_translation
from .trainer import Phase, Trainer, phases

PANEL_PAIRS = 3
_TASK_FILES = {"source_only": "task_source_only.safetensors", "adaptation": "task.safetensors"}
"""The task network at the end of a phase."""


def start(config: Config, default_name: str, command: str, profile: bool = False) -> Path:
    """Train a new run and return its folder, which must not exist yet.

    In each of several processes where ``torchrun`` starts it. With ``profile``, a few updates of
    the last phase are measured instead, see ``Trainer.profile``.

    Raises:
        InputError: settings, data or folder are not usable; nothing is left behind then.
    """
    with distributed.joined(config.device) as device:
        return _start(config, default_name, command, profile, device)


def _start(
    config: Config, default_name: str, command: str, profile: bool, device: torch.device
) -> Path:
    with ExitStack() as held:
        name = config.name or f"{default_name}-{datetime.now():%Y%m%d-%H%M%S}"
        run = Path(config.runs_dir).expanduser() / distributed.from_writer(name)
        with distributed.writer_first(), _claimed(run):
            held.enter_context(_locked(run))
            # first, so that a run that is killed while its frames are rendered can be resumed
            if distributed.is_writer():
                save_config(config, run / "config.yaml")
            session = _Session(config, run, command, device)
        if profile:
            session.profile()
        else:
            session.train()
    return run


def resume(config: Config, run: Path, command: str) -> Path:
    """Go on with a run from its last checkpoint, or from the start if it has none."""
    with distributed.joined(config.device) as device:
        return _resume(config, run, command, device)


def _resume(config: Config, run: Path, command: str, device: torch.device) -> Path:
    with ExitStack() as held:
        with distributed.writer_first():
            held.enter_context(_locked(run))
            if distributed.is_writer():
                for folder in (run, run / "checkpoints", run / "panels"):
                    remove_unfinished(folder)
            path = run / "checkpoints" / "last.pt"
            checkpoint = load_checkpoint(path, Trainer.CHECKPOINT_KEYS) if path.exists() else None
            if checkpoint is not None:
                _check_same_settings(checkpoint, config, path)
            session = _Session(config, run, command, device, checkpoint, resumes=True)
        session.train()
    return run


class _Session:
    """One process's work on a run."""

    def __init__(
        self,
        config: Config,
        run: Path,
        command: str,
        device: torch.device,
        checkpoint: dict[str, Any] | None = None,
        resumes: bool = False,
    ):
        self.config, self.run, self.command, self.device = config, run, command, device
        if self.device.type == "cuda":
            torch.use_deterministic_algorithms(True, warn_only=True)
            torch.utils.deterministic.fill_uninitialized_memory = False
        if config.cuda_graphs and (device.type != "cuda" or distributed.world_size() > 1):
            raise InputError(
                f"cuda_graphs needs one process on a GPU, found {distributed.world_size()} on "
                f"{device.type}: leave it out"
            )
        check_label_space(config.data)
        self.space = label_space(config.data.label_space)
        self.console = Console()
        self.unreadable = Unreadable(config.data.max_unreadable, self._warn)
        # before the data, which may take minutes to render: a wrong weights file is told at once
        self.adaptation = build_adaptation(config, from_files=checkpoint is None)
        self.evaluation: EvaluationFrames = evaluation_frames(config.data)
        self.target = target_images(config.data)
        self.source = source_frames(config.data)
        self._check_depth()
        self.adaptation.class_weights = self._class_weights()
        self.adaptation.to(self.device)
        self.log: MetricsLog | None = None
        if distributed.is_writer():
            for folder in ("checkpoints", "panels"):
                _make_folder(run / folder)
            resume_step = (0 if checkpoint is None else checkpoint["step"]) if resumes else None
            self.log = MetricsLog(run, resume_step)
        self.trainer = Trainer(
            config,
            run,
            self.adaptation,
            self.source,
            self.target,
            score=self._score,
            on_panel=self._write_panel,
            on_phase_end=self._finish_phase,
            unreadable=self.unreadable,
            log=self.log,
            checkpoint=checkpoint,
        )

    def train(self) -> None:
        try:
            self.trainer.train()
        finally:
            if self.log is not None:
                self.log.close()
        if not distributed.is_writer():
            return
        self._write_comparison()
        report = write_report(self.run)
        self.console.print(result_table(json.loads((self.run / "result.json").read_text())))
        self.console.print(f"report: {report}", soft_wrap=True, highlight=False)
        if self.trainer.stopping:  # since the last update: who asked does not want more than this
            raise Interrupted(f"asked to stop after the last update; {self.run} is finished")

    def profile(self) -> None:
        trace = self.run / "trace.json.gz"
        found = self.trainer.profile(trace)
        if not distributed.is_writer():
            return
        self.log.close()
        for table in found.tables():
            self.console.print(table)
        self.console.print(f"trace: {trace}", soft_wrap=True, highlight=False)

    def _column_name(self, phase: Phase) -> str:
        if phase.name == "source_only":
            return "source only"
        settings, data = self.config.adaptation, self.config.data
        levels = settings.input_level, settings.output_level
        if levels != ("none", "none") or settings.self_training:
            return "adapted"
        return "supervised" if data.source == supervised(data).source else "source only, longer"

    def _check_depth(self) -> None:
        levels = self.config.adaptation
        needs = {
            "adaptation.input_level": levels.input_level == "geometry",
            "adaptation.output_level": levels.output_level == "joint",
        }
        for setting, needed in needs.items():
            if needed and not self.source.has_depth:
                raise InputError(
                    f"data.source.{self.config.data.source.name} has no depth, which {setting} "
                    "needs: set data.source.depth where there are maps, or another level"
                )

    def _class_weights(self) -> Tensor | None:
        if self.config.data.class_weights == "none":
            return None
        weights = class_weights(self.source, self.space.num_classes, self.unreadable)
        return torch.from_numpy(weights)

    def _warn(self, message: str) -> None:
        self.console.print("[yellow]warning:[/]", end=" ")
        self.console.print(message, markup=False, highlight=False, soft_wrap=True)

    def _score(self, task: TaskNet) -> Scores:
        return evaluate(
            task,
            self.evaluation,
            self.space,
            self.device,
            self.config.precision,
            self.config.adaptation.depth_encoding,
        )

    def _finish_phase(self, phase: Phase, scores: Scores) -> None:
        save_task(self.run / _TASK_FILES[phase.name], self.adaptation.task, self.config)
        if phase.name == "adaptation" and self.adaptation.translation is not None:
            path = self.run / "translation.safetensors"
            save_translation(path, self.adaptation.translation, self.config)
        column = {"name": self._column_name(phase), "updates": phase.end, **asdict(scores)}
        path = self.run / "result.json"
        before = json.loads(path.read_text()) if path.exists() else {}
        columns = before.get("columns", [])
        # a run that is resumed right at the end of a phase scores it again
        columns = [other for other in columns if other["name"] != column["name"]] + [column]
        result = {
            "target": describe_target(self.config.data),
            "classes": list(self.space.classes),
            "colours": [list(colour) for colour in self.space.colours],
            "columns": columns,
            "seconds": self.trainer.seconds,
            # the command that makes the run, not the one that resumes it
            "command": before.get("command", self.command),
            "versions": {**versions(), "device": device_name(self.device)},
        }
        text = json.dumps(result, indent=1)
        write_atomically(path, lambda temporary: temporary.write_text(text))

    def _write_panel(self, step: int, phase: str) -> None:
        frames = first_readable(self.source, PANEL_PAIRS)
        targets = first_readable(self.target, PANEL_PAIRS)
        frames, targets = (each[: min(len(frames), len(targets))] for each in (frames, targets))
        images, targets = np.stack([frame.image for frame in frames]), np.stack(targets)
        depth = torch.from_numpy(np.stack([frame.depth for frame in frames])).unsqueeze(1)
        depth, valid = encode_depth(depth, self.config.adaptation.depth_encoding)
        labels = torch.from_numpy(np.stack([frame.labels for frame in frames]))
        translation, precision = self.adaptation.translation, self.config.precision
        translated = None
        if phase == "adaptation" and translation is not None:
            translated = translate_images(
                translation, image_tensor(images), depth, labels, precision
            )
        predicted, predicted_depth = predict_maps(
            self.adaptation.task, image_tensor(targets), precision
        )
        rows = []
        for i, frame in enumerate(frames):
            row = {
                "source": frame.image,
                "label": self.space.colourise(frame.labels),
                "source_depth": colour_depth(depth[i, 0].numpy(), valid[i, 0].numpy()),
                "target": targets[i],
                "segmentation": self.space.colourise(predicted[i]),
                "depth": colour_depth(predicted_depth[i]),
            }
            if translated is not None:
                row["translated"] = translated[i]
            # source and target may be resized to different sizes; a panel has one
            size = self.config.data.target_size
            rows.append({name: resize_image(picture, size) for name, picture in row.items()})
        panel = training_panel(rows)
        save_image(self.run / "panels" / f"step_{step:06d}.jpg", panel)
        self.log.picture(step, "panel", panel)

    def _write_comparison(self) -> None:
        """Target frames, their labels where they have any, and each column's prediction."""
        chosen = np.linspace(0, len(self.evaluation) - 1, min(4, len(self.evaluation))).astype(int)
        frames = [self.evaluation[int(i)] for i in chosen]
        pictures = [frame.image for frame in frames] or first_readable(self.target, 4)
        images = image_tensor(np.stack(pictures))
        predictions = {}
        for phase in phases(self.config):
            name = self._column_name(phase).replace(",", "").replace(" ", "_")
            task = load_task(self.run / _TASK_FILES[phase.name])[0].to(self.device)
            predictions[name], _ = predict_maps(task, images, self.config.precision)
        rows = []
        for i, picture in enumerate(pictures):
            row = {"target": picture}
            if frames:
                labels = resize_nearest(frames[i].labels, picture.shape[:2])
                row["label"] = self.space.colourise(labels)
            for name, predicted in predictions.items():
                row[name] = self.space.colourise(predicted[i])
            rows.append(row)
        save_image(self.run / "comparison.jpg", comparison_panel(rows))


def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    return {
        "gioada_fast": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "threads": str(torch.get_num_threads()),
        "processes": str(distributed.world_size()),
    }


def command_line() -> str:
    """The command that was typed, as far as Python knows it."""
    module = Path(sys.argv[0]).stem
    return shlex.join(["python", "-m", f"gioada_fast.{module}", *sys.argv[1:]])


_MAY_CHANGE = (
    "name",
    "runs_dir",
    "device",
    "data.workers",
    "data.packs",
    "data.max_unreadable",
    "data.source.root",
    "data.target.root",
    "model.start",
)
"""Settings that a run may be resumed with other values of."""


def changed_setting(saved: dict[str, Any], now: dict[str, Any]) -> tuple[str, Any, Any] | None:
    """(name, saved, now) of the first setting that a run must keep and that differs, or None.

    Args:
        saved: settings as ``dataclasses.asdict`` gives them.
        now: the same.
    """
    saved, now = _flat(saved), _flat(now)
    for name in sorted(saved.keys() | now.keys()):
        if name not in _MAY_CHANGE and saved.get(name) != now.get(name):
            return name, saved.get(name), now.get(name)
    return None


def _check_same_settings(checkpoint: dict[str, Any], config: Config, path: Path) -> None:
    """Refuse to go on with settings other than those of the checkpoint."""
    if checkpoint["processes"] != distributed.world_size():
        raise InputError(
            f"{path} was written by a run of {checkpoint['processes']} processes, now there are "
            f"{distributed.world_size()}: each update would have other pairs; start as many as then"
        )
    changed = changed_setting(checkpoint["config"], asdict(config))
    if changed is not None:
        name, saved, now = changed
        raise InputError(
            f"{path} was written with {name} = {saved}, config.yaml says {now}: a run keeps its "
            "settings; start a new one to change them"
        )


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made: {error.strerror}") from error


@contextmanager
def _locked(run: Path) -> Iterator[None]:
    """Keep other runs out of the run's folder; the lock goes when the writer's process does."""
    if not distributed.is_writer():
        yield
        return
    try:
        file = (run / ".lock").open("w")
    except OSError as error:
        raise InputError(f"{run}: cannot be written to: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"{run} is in use: another process trains it") from error
        yield


@contextmanager
def _claimed(run: Path) -> Iterator[None]:
    """Make the run's folder; take it away again if the run cannot be set up."""
    if not distributed.is_writer():
        yield
        return
    try:
        run.mkdir(parents=True)
    except FileExistsError as error:
        raise InputError(
            f"{run} exists already and is not overwritten: resume it with --resume {run}, "
            "or give another --name"
        ) from error
    except OSError as error:
        raise InputError(f"{run}: cannot be made: {error.strerror}") from error
    try:
        yield
    except BaseException:
        for child in sorted(run.rglob("*"), reverse=True):
            child.rmdir() if child.is_dir() else child.unlink()
        run.rmdir()
        raise
