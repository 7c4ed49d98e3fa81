"""Starts and resumes runs: prepares data and networks, trains, and writes the results."""

import copy
import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from datetime import datetime
from itertools import chain, count, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.text import Text
from torch import Tensor

from .. import __version__
from ..atomic_files import write_atomically
from ..config import CONTROL, AdaptationConfig, Config, changed_setting, rename_old_settings
from ..data.check import crop_note, part_names, quick_warnings
from ..data.class_weights import class_weights
from ..data.files import DataSet, LabelledFrame
from ..data.sets import (
    EvaluationFrames,
    SourceFrames,
    TargetImages,
    check_label_space,
    describe_sources,
    describe_target,
    evaluation_frames,
    evenly_spaced,
    labelled_frames,
    source_frames,
    source_parts,
    supervised,
    target_images,
    training_set,
)
from ..data.transforms import crop_to_shape, resize_frame, resize_image
from ..data.unreadable import Unreadable, first_readable
from ..depth import encode_depth
from ..errors import InputError, Interrupted
from ..labels import label_space
from ..models import TaskNet
from ..report.formatting import spaced
from ..report.panels import (
    comparison_panel,
    comparison_pictures,
    save_image,
    training_panel,
    training_pictures,
)
from ..report.run_report import RunRecords, best_note, result_table, run_page
from . import distributed
from .assessment import assess, check_defined, mean_score
from .checkpoint import load_newest
from .device import device_name
from .evaluator import Scores, evaluate
from .inference import image_tensor, predict_maps, translate_images
from .memory_estimate import check_run_memory
from .metrics_log import MetricsLog
from .networks import build_adaptation, keep_trunk_config, load_task, save_task, save_translation
from .run_folder import (
    TASK,
    TASK_BEST,
    TASK_CONTROL,
    TASK_SOURCE_ONLY,
    TRANSLATION,
    RunFolder,
)
from .trainer import Phase, Trainer, phases, updates_done

PANEL_PAIRS = 3
KEEP_BEST_IMAGES = 32
"""Number of target images on which ``schedule.keep_best`` computes its score."""
_TASK_WEIGHTS = {"source_only": TASK_SOURCE_ONLY, CONTROL: TASK_CONTROL, "adaptation": TASK}
"""Names of the task network's weights at the end of each phase."""


def start(config: Config, default_name: str, command: str, profile: bool = False) -> Path:
    """Train a new run and return its folder, which must not exist yet.

    If ``torchrun`` starts several processes, each of them calls this.

    Args:
        config: all settings.
        default_name: start of the run's name if the settings have none.
        command: the command line that the user typed.
        profile: measure a few updates of the last phase instead, see ``Trainer.profile``.

    Raises:
        InputError: settings, data or folder are not usable; the new folder is removed.
    """
    with distributed.joined(config.device) as device:
        return _start(config, default_name, command, profile, device)


def _start(
    config: Config, default_name: str, command: str, profile: bool, device: torch.device
) -> Path:
    with ExitStack() as held:
        runs_dir = Path(config.runs_dir).expanduser()
        name = config.name or _free_name(runs_dir, f"{default_name}-{datetime.now():%Y%m%d-%H%M%S}")
        run = RunFolder(runs_dir / distributed.from_writer(name))
        with distributed.writer_first(), run.claimed():
            held.enter_context(run.locked())
            keep_trunk_config(config.model)
            # saved first, so that a run can be resumed if it is killed while rendering its frames
            if distributed.is_writer():
                run.save_config(config)
            session = _Session(config, run, command, device)
        if profile:
            session.profile()
        else:
            session.train()
    return run.path


def _free_name(runs_dir: Path, name: str) -> str:
    """Number the name from 2 on if other runs started in the same second."""
    numbered = (f"{name}-{number}" for number in count(2))
    return next(free for free in chain([name], numbered) if not (runs_dir / free).exists())


def resume(config: Config, run: RunFolder, command: str) -> None:
    """Continue a run from its last checkpoint, or from the beginning if it has none."""
    with distributed.joined(config.device) as device:
        _resume(config, run, command, device)


def _resume(config: Config, run: RunFolder, command: str, device: torch.device) -> None:
    with ExitStack() as held:
        with distributed.writer_first():
            held.enter_context(run.locked())
            if distributed.is_writer():
                run.remove_unfinished()
            run.read_result()  # a damaged one is reported before training
            checkpoint = _load_checkpoint(run)
            if checkpoint is not None:
                rename_old_settings(checkpoint["config"])
                _check_same_settings(checkpoint, config, run.checkpoint)
            session = _Session(config, run, command, device, checkpoint, resumes=True)
        session.train()


def _load_checkpoint(run: RunFolder) -> dict[str, Any] | None:
    """The state of the last checkpoint, or of the one before if the last one is damaged.

    The latter then takes its place, so that the next checkpoint does not push it out.
    """
    found = load_newest((run.checkpoint, run.previous_checkpoint), Trainer.CHECKPOINT_KEYS)
    if found is None:
        return None
    path, checkpoint, problems = found
    if path != run.checkpoint and distributed.is_writer():
        for problem in problems or [f"{run.checkpoint} is missing"]:
            _warn(f"{problem}: the run goes on from {path}, update {checkpoint['step']}")
        try:
            os.replace(path, run.checkpoint)
        except OSError as error:
            raise InputError(f"{run.checkpoint}: cannot be written: {error.strerror}") from error
    return checkpoint


def _warn(message: str) -> None:
    console = Console(emoji=False)
    console.print("[yellow]warning:[/]", end=" ")
    console.print(message, markup=False, highlight=False, soft_wrap=True)


class _Session:
    """One process's work on a run; also the trainer's observer, see ``TrainerObserver``."""

    def __init__(
        self,
        config: Config,
        run: RunFolder,
        command: str,
        device: torch.device,
        checkpoint: dict[str, Any] | None = None,
        resumes: bool = False,
    ):
        self.config, self.run, self.command, self.device = config, run, command, device
        if self.device.type == "cuda":
            torch.use_deterministic_algorithms(True, warn_only=True)
            # PyTorch sets this attribute in a way that type checkers do not see
            torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        if config.cuda_graphs and (device.type != "cuda" or distributed.world_size() > 1):
            raise InputError(
                "cuda_graphs needs one process on a GPU, this run has "
                f"{distributed.world_size()} on {device.type}: leave it out"
            )
        check_label_space(config.data)
        self.space = label_space(config.data.label_space)
        self.console = Console(emoji=False)
        self.unreadable = Unreadable(config.data.max_unreadable, _warn)
        check_run_memory(config, self.space.num_classes, device)
        # before the data, which may take minutes to render, so that a wrong weights file is
        # reported immediately
        self.adaptation = build_adaptation(config, from_files=checkpoint is None)
        if config.compile and not self.adaptation.task.trunk.compiles:
            raise InputError(
                "compile is true, but torch.compile gives wrong gradients for this trunk (Swin's "
                "windows): leave compile out"
            )
        self.evaluation: EvaluationFrames = evaluation_frames(config.data)
        self.target = target_images(config.data, self._reads_target_depth())
        self.labelled = labelled_frames(config.data)
        self._check_labelled()
        self.source = source_frames(config.data)
        self._judged_images = self._images_to_judge()
        self._check_depth()
        self._check_control()
        self._name_settings_without_effect()
        self._judge()
        self.adaptation.class_weights = self._class_weights()
        self.adaptation.to(self.device)
        self.log: MetricsLog | None = None
        if distributed.is_writer():
            run.make_subfolders(config.schedule.keep_evaluated)
            self.log = MetricsLog(run, updates_done(config, checkpoint) if resumes else None)
        self.trainer = Trainer(
            config,
            run,
            self.adaptation,
            self.source,
            self.target,
            self,
            self.unreadable,
            self.log,
            checkpoint,
            self.labelled,
        )

    def train(self) -> None:
        try:
            self.trainer.train()
        finally:
            if self.log is not None:
                self.log.close()
        self._score_lost_phases()
        if not distributed.is_writer():
            return
        self._write_comparison()
        report = write_report(self.run)
        result = self.run.read_result()
        assert result is not None  # every phase has ended
        self.console.print(result_table(result))
        if (note := best_note(result)) is not None:
            self.console.print(note, markup=False, highlight=False, soft_wrap=True)
        self.console.print(Text(f"report: {report}"), soft_wrap=True)
        if self.trainer.stopping:  # a signal after the last update: start nothing after this run
            raise Interrupted(f"interrupted after the last update; {self.run} is finished")

    def profile(self) -> None:
        trace = self.run.trace
        profile = self.trainer.profile(trace)
        if self.log is None:
            return
        self.log.close()
        for table in profile.tables():
            self.console.print(table)
        self.console.print(Text(f"trace: {trace}"), soft_wrap=True)

    def _column_name(self, phase: Phase) -> str:
        if phase.name != "adaptation":
            return spaced(phase.name)
        if self.config.learns_from_target:
            return "adapted"
        data = self.config.data
        oracle = data.sources is None and data.source == supervised(data).source
        return "supervised" if oracle else "source only, longer"

    def _reads_target_depth(self) -> bool:
        reads = self.config.adaptation.reads_target_depth
        if reads and self.config.data.target.depth is None:
            raise InputError(
                "adaptation.lambda_target_depth or adaptation.depth_agreement needs depth maps of "
                "the target's images: set data.target.depth to their pattern, such as "
                "pseudo_depth/*.png"
            )
        return reads

    def _check_labelled(self) -> None:
        """Read the labels of ``data.target.labelled``, which training needs only after the
        source-only phase.
        """
        if self.labelled is not None and distributed.is_writer():
            for index in range(len(self.labelled)):
                self.labelled.labels(index)

    def _check_depth(self) -> None:
        levels = self.config.adaptation
        sources = self.config.data.named_sources()
        without = [
            f"{setting}: {sources[setting].name}"
            for setting, frames in source_parts(self.source).items()
            if not frames.has_depth
        ]
        learns_depth = len(without) < len(sources)
        needs = {
            # the translation network sees the depth of every frame, the task network learns depth
            # from those frames that have it
            "adaptation.input_level": levels.input_level in ("geometry", "normals")
            and bool(without),
            "adaptation.image_discriminator_input": levels.image_discriminator_input == "depth"
            and levels.input_level != "none"
            and not learns_depth,
            "adaptation.output_level": levels.output_level in ("joint", "product")
            and not learns_depth,
            "adaptation.mix_classes": levels.self_training
            and levels.mix_classes == "depth"
            and not learns_depth,
            "adaptation.mix_order": levels.self_training
            and levels.mix_order == "depth"
            and not learns_depth,
            # the teacher's depth is compared with the target's
            "adaptation.depth_agreement": levels.self_training
            and levels.depth_agreement
            and not learns_depth
            and levels.lambda_target_depth == 0,
            "schedule.keep_best": self.config.schedule.keep_best == "depth"
            and not learns_depth
            and levels.lambda_target_depth == 0,
        }
        for setting, lacks in needs.items():
            if lacks:
                section, _, name = setting.partition(".")
                value = getattr(getattr(self.config, section), name)
                raise InputError(
                    f"{', '.join(without)} has no depth, but {setting} = {value} needs it: set "
                    "the source's depth if there are depth maps, or change this setting"
                )

    def _check_control(self) -> None:
        """Say so if there is no adaptation to compare a control with."""
        plan = [phase.name for phase in phases(self.config)]
        if not self.config.schedule.control or CONTROL in plan or not distributed.is_writer():
            return
        reason = "schedule.adaptation_steps is 0"
        if "adaptation" in plan:
            reason = "no level and no self-training is on, so the run is a control itself"
        message = f"schedule.control: no control is trained, because {reason}"
        self.console.print(message, markup=False, highlight=False, soft_wrap=True)

    def _name_settings_without_effect(self) -> None:
        """Warn of settings that the user changed and that do nothing in this run."""
        if not distributed.is_writer():
            return
        settings = self.config.adaptation
        for name, other in settings.without_effect().items():
            _warn(
                f"adaptation.{name} is {getattr(settings, name)}, which has no effect: "
                f"adaptation.{other} is {str(getattr(settings, other)).lower()}"
            )
        if self.labelled is None and settings.lambda_labelled != AdaptationConfig.lambda_labelled:
            _warn(
                f"adaptation.lambda_labelled is {settings.lambda_labelled}, which has no effect: "
                "data.target.labelled is unset"
            )
        depth = self.config.data.target.depth
        # the folder's maps also serve for scoring
        if depth and not settings.reads_target_depth and self.config.data.target.name != "folder":
            _warn(
                f"data.target.depth is {depth}, which training does not read: set "
                "adaptation.lambda_target_depth, or adaptation.depth_agreement with self_training"
            )

    def _judge(self) -> None:
        """Warn of what a few frames of each set show: what data check judges on all of them."""
        if not distributed.is_writer():
            return
        parts = part_names(self.config.data)
        for (setting, frames), part in zip(source_parts(self.source).items(), parts, strict=False):
            if isinstance(frames, SourceFrames):
                self._warn_of(setting, frames.data, part)
        if isinstance(self.target, TargetImages):
            data = training_set(self.config.data, self.target.has_depth)
            self._warn_of("data.target", data, "target")
        self._warn_of("data.target, evaluation", self.evaluation.data, "evaluation")

    def _warn_of(self, name: str, data: DataSet, part: str) -> None:
        if part != "evaluation":
            note = crop_note(data)
            if note is not None:
                self.console.print(f"{name}: {note}", markup=False, highlight=False)
        for warning in quick_warnings(data, part, self.space):
            _warn(f"{name}: {warning}")

    def _class_weights(self) -> Tensor | None:
        if self.config.data.class_weights == "none":
            return None
        weights = class_weights(
            self.source, self.space.num_classes, self.unreadable, self.config.data
        )
        return torch.from_numpy(weights)

    def score(self, task: TaskNet) -> Scores:
        return evaluate(
            task,
            self.evaluation,
            self.space,
            self.device,
            self.config.precision,
            self.config.adaptation.depth_encoding,
        )

    def _images_to_judge(self) -> list[np.ndarray]:
        """Target images at even intervals for ``schedule.keep_best``; those that can be read."""
        name = self.config.schedule.keep_best
        if name == "none":
            return []
        # before adaptation, the teacher does not follow the student
        adapts = phases(self.config)[-1].name == "adaptation"
        has_teacher = adapts and self.adaptation.teacher is not None
        check_defined(name, self.space, has_teacher, "schedule.keep_best")
        images = []
        for index in evenly_spaced(len(self.target), KEEP_BEST_IMAGES):
            try:
                images.append(self.target[index])
            except InputError as error:
                self.unreadable.add(str(error))
        return images

    def score_without_labels(self, phase: Phase) -> float | None:
        name = self.config.schedule.keep_best
        if name == "none" or phase != phases(self.config)[-1]:
            return None
        values = assess(
            self.adaptation.task,
            self._judged_images,
            self.space,
            self.config.precision,
            self.adaptation.teacher,
            [name],
        )
        return mean_score(values[name])

    def keep_evaluated(self, step: int, phase: Phase) -> None:
        if not self.config.schedule.keep_evaluated:
            return
        save_task(self.run.evaluated(phase.name, step), self.adaptation.task, self.config)
        if phase.name == "adaptation" and self.adaptation.teacher is not None:
            path = self.run.evaluated(phase.name, step, teacher=True)
            save_task(path, self.adaptation.teacher, self.config)

    def keep_best(self, best: Mapping[str, Any]) -> None:
        task = copy.deepcopy(self.adaptation.task)
        task.load_state_dict(best["task"])
        save_task(self.run.weights(TASK_BEST), task, self.config)

    def finish_phase(self, phase: Phase, scores: Scores) -> None:
        path = self.run.weights(_TASK_WEIGHTS[phase.name])
        save_task(path, self.adaptation.task, self.config)
        if phase.name == "adaptation" and self.adaptation.translation is not None:
            path = self.run.weights(TRANSLATION)
            save_translation(path, self.adaptation.translation, self.config)
        self._add_column(phase, scores)

    def _score_lost_phases(self) -> None:
        """Score the phases of a resumed run that its result lacks, because the file was removed."""
        lost = self._lost_phases() if distributed.is_writer() else []
        plan = phases(self.config)
        for name in json.loads(distributed.from_writer(json.dumps(lost))):
            phase = next(phase for phase in plan if phase.name == name)
            is_last = phase == plan[-1]  # whose networks the checkpoint has
            task = self.adaptation.task
            if not is_last:
                task = load_task(self.run.weights(_TASK_WEIGHTS[name]))[0].to(self.device)
            scores = self.score(task)
            if distributed.is_writer():
                (self.finish_phase if is_last else self._add_column)(phase, scores)

    def _lost_phases(self) -> list[str]:
        """Names of the phases without scores whose weights are still there."""
        result = self.run.read_result() or {"columns": []}
        present = {column["name"] for column in result["columns"]}
        lost, plan = [], phases(self.config)
        for phase in plan:
            if self._column_name(phase) in present:
                continue
            weights = self.run.weights(_TASK_WEIGHTS[phase.name])
            if phase == plan[-1] or weights.exists():
                _warn(f"{self.run.result} has no scores of {spaced(phase.name)}: scored again")
                lost.append(phase.name)
            else:
                _warn(f"{self.run.result} has no scores of {spaced(phase.name)}, nor is {weights}")
        return lost

    def _add_column(self, phase: Phase, scores: Scores) -> None:
        """Write the scores at the end of a phase to the result."""
        column = {"name": self._column_name(phase), "updates": phase.end, **asdict(scores)}
        before = self.run.read_result() or {}
        columns = before.get("columns", [])
        # a run that is resumed exactly at the end of a phase scores it again
        columns = [other for other in columns if other["name"] != column["name"]] + [column]
        order = [self._column_name(phase) for phase in phases(self.config)]
        columns.sort(
            key=lambda column: order.index(column["name"]) if column["name"] in order else -1
        )
        best = {k: v for k, v in (self.trainer.best or {}).items() if k != "task"}
        result = {
            "target": describe_target(self.config.data),
            "sources": describe_sources(self.config.data, self.source, self.labelled),
            "label_space": self.space.name,
            "classes": list(self.space.classes),
            "colours": [list(colour) for colour in self.space.colours],
            "columns": columns,
            **({"best": best} if best else {}),
            "seconds": self.trainer.seconds,
            # the command that started the run, not the one that resumed it
            "command": before.get("command", self.command),
            "versions": {**versions(), "device": device_name(self.device)},
        }
        self.run.write_result(result)

    def draw_panel(self, step: int, phase: Phase) -> None:
        assert self.log is not None  # in the writer
        frames = self._panel_frames()
        images = first_readable(self.target, PANEL_PAIRS)
        count = min(len(frames), len(images))
        frames, images = frames[:count], images[:count]
        sources, targets = np.stack([frame.image for frame in frames]), np.stack(images)
        metres = torch.from_numpy(np.stack([frame.depth for frame in frames])).unsqueeze(1)
        encoding = self.config.adaptation.depth_encoding
        depth, valid = encode_depth(metres, encoding)
        labels = torch.from_numpy(np.stack([frame.labels for frame in frames]))
        translation, precision = self.adaptation.translation, self.config.precision
        translated = None
        if phase.name == "adaptation" and translation is not None:
            translated = translate_images(
                translation, image_tensor(sources), metres, labels, encoding, precision
            )
        segmentation, target_depth = predict_maps(
            self.adaptation.task, image_tensor(targets), precision
        )
        panel = training_panel(
            training_pictures(
                frames,
                depth[:, 0].numpy(),
                valid[:, 0].numpy(),
                targets,
                segmentation,
                target_depth,
                translated,
                self.space,
                self.config.data.target_size,
            )
        )
        save_image(self.run.panel(step), panel)
        self.log.picture(step, "panel", panel)

    def _panel_frames(self) -> list[LabelledFrame]:
        """Source frames for a panel, from each source in turn, all at the first frame's size."""
        parts = source_parts(self.source).values()
        count = -(-PANEL_PAIRS // len(parts))
        of_parts = [first_readable(frames, count) for frames in parts]
        frames = [frame for row in zip_longest(*of_parts) for frame in row if frame is not None]
        frames = frames[:PANEL_PAIRS]
        size = frames[0].labels.shape if frames else (0, 0)
        return [resize_frame(frame, size) for frame in frames]

    def _write_comparison(self) -> None:
        """Draw target frames, their labels if there are any, and the prediction of every column."""
        chosen = np.linspace(0, len(self.evaluation) - 1, min(4, len(self.evaluation))).astype(int)
        frames, size = [self.evaluation[int(i)] for i in chosen], self.config.data.target_size
        # images may differ in shape, pictures may not
        images = [crop_to_shape(frame.image, size) for frame in frames]
        images = [resize_image(image, size) for image in images] or first_readable(self.target, 4)
        labels = [crop_to_shape(frame.labels, size) for frame in frames] or None
        batch = image_tensor(np.stack(images))
        segmentations = {}
        for phase in phases(self.config):
            weights = self.run.weights(_TASK_WEIGHTS[phase.name])
            if not weights.exists():
                _warn(f"{weights} is missing: {self.run.comparison.name} is drawn without it")
                continue
            task, _, _ = load_task(weights)
            segmentations[self._column_name(phase)], _ = predict_maps(
                task.to(self.device), batch, self.config.precision
            )
        pictures = comparison_pictures(images, labels, segmentations, self.space)
        save_image(self.run.comparison, comparison_panel(pictures))


def write_report(run: RunFolder) -> Path:
    """Write ``report.html`` from the files in the folder of a finished or unfinished run.

    Returns:
        Path of the report.

    Raises:
        InputError: settings or result are not readable, or the folder cannot be written to.
    """
    metrics, unreadable_lines = run.read_metrics()
    records = RunRecords(
        name=run.path.resolve().name,
        settings=run.read_settings(),
        result=run.read_result(),
        metrics=metrics,
        unreadable_lines=unreadable_lines,
        panels=run.drawn_panels(),
        comparison=run.comparison if run.comparison.exists() else None,
    )
    html = run_page(records)
    write_atomically(run.report, lambda temporary: temporary.write_text(html, encoding="utf-8"))
    return run.report


def versions() -> dict[str, str]:
    """Versions, and numbers of threads and processes: results depend on all of them."""
    return {
        "gioada_fast": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "threads": str(torch.get_num_threads()),
        "processes": str(distributed.world_size()),
    }


def command_line() -> str:
    """The command line that the user typed, as far as ``sys.argv`` has it."""
    module = Path(sys.argv[0]).stem
    return shlex.join(["python", "-m", f"gioada_fast.{module}", *sys.argv[1:]])


def _check_same_settings(checkpoint: dict[str, Any], config: Config, path: Path) -> None:
    """Refuse to resume with settings that differ from the checkpoint's."""
    if checkpoint["processes"] != distributed.world_size():
        raise InputError(
            f"{path} was written by {checkpoint['processes']} processes, now there are "
            f"{distributed.world_size()}: the updates would see other pairs; start the same number"
        )
    changed = changed_setting(checkpoint["config"], asdict(config))
    if changed is not None:
        name, saved, now = changed
        raise InputError(
            f"{path} was written with {name} = {saved}, config.yaml has {now}: a run keeps its "
            "settings; start a new one to change them"
        )
