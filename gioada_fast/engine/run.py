"""A run from its settings to its result: the folder, the data, the networks, the training."""

import json
import platform
import shlex
import sys
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from .. import __version__
from ..config import Config, save_config
from ..data.datasets import (
    EvaluationFrames,
    SourceFrames,
    TargetImages,
    class_weights,
    describe_target,
    evaluation_frames,
    label_space,
    resize_nearest,
    source_frames,
    target_images,
)
from ..depth import encode_depth
from ..errors import InputError
from ..models import TaskNet
from .checkpoint import load_checkpoint, write_atomically
from .device import choose_device
from .evaluator import Scores, evaluate
from .inference import image_tensor, predict_maps, translate_images
from .logging import MetricsLog
from .networks import build_adaptation, load_task, save_task, save_translation
from .panels import colour_depth, comparison_panel, save_image, training_panel
from .report import result_table, write_report
from .trainer import Phase, Trainer

COLUMN_NAMES = {"source_only": "source only", "adaptation": "adapted"}
PANEL_PAIRS = 3


def start(config: Config, default_name: str, command: str) -> Path:
    """Train a new run and return its folder, which must not exist yet.

    Raises:
        InputError: settings, data or folder are not usable; nothing is left behind then.
    """
    name = config.name or f"{default_name}-{datetime.now():%Y%m%d-%H%M%S}"
    run = Path(config.runs_dir).expanduser() / name
    with _claimed(run):
        session = _Session(config, run, command, checkpoint=None)
        save_config(config, run / "config.yaml")
    session.train()
    return run


def resume(config: Config, run: Path, command: str) -> Path:
    """Go on with a run from its last checkpoint, or from the start if it has none."""
    path = run / "checkpoints" / "last.pt"
    checkpoint = load_checkpoint(path) if path.exists() else None
    _Session(config, run, command, checkpoint).train()
    return run


class _Session:
    """One process's work on a run."""

    def __init__(self, config: Config, run: Path, command: str, checkpoint: dict[str, Any] | None):
        self.config, self.run, self.command = config, run, command
        self.device = choose_device(config.device)
        if self.device.type == "cuda":
            torch.use_deterministic_algorithms(True, warn_only=True)
        self.space = label_space(config.data)
        self.evaluation: EvaluationFrames = evaluation_frames(config.data)
        self.target: TargetImages = target_images(config.data)
        self.source: SourceFrames = source_frames(config.data)
        self.adaptation = build_adaptation(
            config, self._class_weights(), pretrained=checkpoint is None
        ).to(self.device)
        self.console = Console()
        for folder in ("checkpoints", "panels"):
            (run / folder).mkdir(exist_ok=True)
        self.log = MetricsLog(run, None if checkpoint is None else checkpoint["step"])
        self.trainer = Trainer(
            config,
            run,
            self.adaptation,
            self.source,
            self.target,
            score=self._score,
            on_panel=self._write_panel,
            on_phase_end=self._finish_phase,
            log=self.log,
            checkpoint=checkpoint,
        )

    def train(self) -> None:
        try:
            self.trainer.train()
        finally:
            self.log.close()
        self._write_comparison()
        report = write_report(self.run)
        self.console.print(result_table(json.loads((self.run / "result.json").read_text())))
        self.console.print(f"report: {report}", soft_wrap=True, highlight=False)

    def _class_weights(self) -> Tensor | None:
        if self.config.data.class_weights == "none":
            return None
        return torch.from_numpy(class_weights(self.source, self.space.num_classes))

    def _score(self, task: TaskNet) -> Scores:
        return evaluate(task, self.evaluation, self.space, self.device, self.config.precision)

    def _finish_phase(self, phase: Phase, scores: Scores) -> None:
        name = "task_source_only" if phase.name == "source_only" else "task"
        save_task(self.run / f"{name}.safetensors", self.adaptation.task, self.config)
        if phase.name == "adaptation" and self.adaptation.translation is not None:
            path = self.run / "translation.safetensors"
            save_translation(path, self.adaptation.translation, self.config)
        column = {"name": COLUMN_NAMES[phase.name], "updates": phase.end, **asdict(scores)}
        path = self.run / "result.json"
        columns = json.loads(path.read_text())["columns"] if path.exists() else []
        # a run that is resumed right at the end of a phase scores it again
        columns = [other for other in columns if other["name"] != column["name"]] + [column]
        result = {
            "target": describe_target(self.config.data),
            "classes": list(self.space.classes),
            "colours": [list(colour) for colour in self.space.colours],
            "columns": columns,
            "seconds": self.trainer.seconds,
            "command": self.command,
            "versions": versions(),
        }
        text = json.dumps(result, indent=1)
        write_atomically(path, lambda temporary: temporary.write_text(text))

    def _write_panel(self, step: int, phase: str) -> None:
        frames = [self.source[i] for i in range(min(PANEL_PAIRS, len(self.source)))]
        images = np.stack([frame.image for frame in frames])
        targets = np.stack([self.target[i % len(self.target)] for i in range(len(frames))])
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
            rows.append(row)
        panel = training_panel(rows)
        save_image(self.run / "panels" / f"step_{step:06d}.jpg", panel)
        self.log.picture(step, "panel", panel)

    def _write_comparison(self) -> None:
        """Target frames with their labels and the prediction of each column of the result."""
        chosen = np.linspace(0, len(self.evaluation) - 1, min(4, len(self.evaluation))).astype(int)
        frames = [self.evaluation[int(i)] for i in chosen]
        images = image_tensor(np.stack([frame.image for frame in frames]))
        predictions = {}
        for name, file in (("source_only", "task_source_only"), ("adapted", "task")):
            path = self.run / f"{file}.safetensors"
            if path.exists():
                task = load_task(path)[0].to(self.device)
                predictions[name], _ = predict_maps(task, images, self.config.precision)
        rows = []
        for i, frame in enumerate(frames):
            labels = resize_nearest(frame.labels, frame.image.shape[:2])
            row = {"target": frame.image, "label": self.space.colourise(labels)}
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
    }


def command_line() -> str:
    """The command that was typed, as far as Python knows it."""
    module = Path(sys.argv[0]).stem
    return shlex.join(["python", "-m", f"gioada_fast.{module}", *sys.argv[1:]])


@contextmanager
def _claimed(run: Path):
    """Make the run's folder; take it away again if the run cannot be set up."""
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
