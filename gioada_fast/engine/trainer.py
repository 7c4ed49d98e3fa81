"""The training loop: phases and updates, with logging, scoring and checkpoints in between."""

import itertools
import math
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor, nn

from ..adaptation import Batch, TwoLevelAdaptation
from ..config import CONTROL, Config, OptimiserConfig
from ..data.loader import PairStream, pair_batches, reporting_killed_loader
from ..data.pack_reader import PackedSource, PackedTarget
from ..data.rare_classes import rare_classes
from ..data.sets import SourceFrames, TargetImages
from ..data.source_mix import SourceMix
from ..data.unreadable import Unreadable
from ..errors import Interrupted, NonFiniteLoss, ProcessDied
from ..labels import label_space
from ..models import TaskNet, Trunk
from ..report.formatting import spaced
from . import distributed
from .assessment import SCORES
from .checkpoint import load_state, save_checkpoint
from .device import to_device
from .evaluator import Scores
from .metrics_log import MetricsLog
from .profiling import UpdateProfile, profile_updates
from .run_folder import RunFolder
from .step import GraphedStep, Step


@dataclass(frozen=True)
class Phase:
    """A sequence of updates with the same levels and optimisers."""

    name: str
    """``source_only``, ``control`` or ``adaptation``."""
    first: int
    """Updates of the task network before the phase. Control and adaptation start from the same
    weights, so they count from the same number and see the same source images at each update."""
    steps: int

    @property
    def end(self) -> int:
        return self.first + self.steps


def phases(config: Config) -> list[Phase]:
    """The phases that have updates: source only, the control if there is one, adaptation."""
    schedule = config.schedule
    first, steps = schedule.source_only_steps, schedule.adaptation_steps
    has_control = schedule.control and config.learns_from_target
    plan = [
        Phase("source_only", 0, first),
        Phase(CONTROL, first, steps if has_control else 0),
        Phase("adaptation", first, steps),
    ]
    return [phase for phase in plan if phase.steps]


def updates_done(config: Config, checkpoint: Mapping[str, Any] | None) -> dict[str, int]:
    """The last update in a checkpoint of each phase that had begun, by the phase's name.

    Checkpoints of version 0.1.0 do not name their phase: no two phases had the same numbers.
    """
    done: dict[str, int] = {}
    if checkpoint is None:
        return done
    step, name = checkpoint["step"], checkpoint.get("phase")
    for phase in phases(config):
        is_last = step <= phase.end if name is None else phase.name == name
        done[phase.name] = step if is_last else phase.end
        if is_last:
            break
    return done


class TrainerObserver(Protocol):
    """Scores the networks and writes what the trainer does not write itself.

    Only the observer can read target labels. The trainer gets nothing from them but the scores that
    ``score`` returns.
    """

    def score(self, task: TaskNet) -> Scores:
        """Score a task network on the labelled target frames; runs in every process."""

    def score_without_labels(self, phase: Phase) -> float | None:
        """The score of ``schedule.keep_best``; runs in every process.

        None if it is not asked for in this phase, NaN if it is undefined.
        """

    def keep_evaluated(self, step: int, phase: Phase) -> None:
        """Write the weights that were just scored, if asked for; runs in the writer only."""

    def keep_best(self, best: Mapping[str, Any]) -> None:
        """Write the best weights so far (``Trainer.best``); runs in the writer only."""

    def draw_panel(self, step: int, phase: Phase) -> None:
        """Draw pictures of the networks' current output; runs in the writer only."""

    def finish_phase(self, phase: Phase, scores: Scores) -> None:
        """Write the weights and scores at the end of a phase; runs in the writer only."""


class Trainer:
    """Trains the networks of a run, phase by phase.

    Args:
        config: all settings.
        run: the run's folder.
        adaptation: the networks, on their device.
        source: labelled synthetic frames of one or several sources.
        target: unlabelled target images.
        observer: scores the networks, and is called when a panel is due and when a phase ends.
        unreadable: collects files that cannot be read.
        log: receives losses and scores; None in processes that do not write.
        checkpoint: state to resume from, as ``load_checkpoint`` returns it.
        labelled: target images whose labels adaptation uses, or None.
    """

    def __init__(
        self,
        config: Config,
        run: RunFolder,
        adaptation: TwoLevelAdaptation,
        source: SourceFrames | PackedSource | SourceMix,
        target: TargetImages | PackedTarget,
        observer: TrainerObserver,
        unreadable: Unreadable,
        log: MetricsLog | None,
        checkpoint: dict[str, Any] | None = None,
        labelled: SourceFrames | None = None,
    ):
        self.labelled = labelled
        self.config, self.run, self.adaptation = config, run, adaptation
        self.source, self.target, self.unreadable = source, target, unreadable
        self.observer, self.log = observer, log
        self.device = next(adaptation.parameters()).device
        self._classes = label_space(config.data.label_space).num_classes
        self._rare_classes = None
        temperature = config.adaptation.rare_class_temperature
        if config.adaptation.self_training and temperature is not None:
            self._rare_classes = rare_classes(
                source, self._classes, temperature, unreadable, config.data
            )
        self.step = 0
        self._started = time.time()
        self.optimisers: dict[str, torch.optim.Optimizer] = {}
        self._restored: dict[str, Any] | None = checkpoint
        self._done = updates_done(config, checkpoint)
        self._branch: dict[str, Any] | None = None
        self.best: dict[str, Any] | None = None
        self._window = LossWindow()
        self._stop = False
        self._any_stops = distributed.AnyProcess()
        self._writes = distributed.is_writer()
        if checkpoint is not None:
            self._started -= checkpoint["seconds"]
            self._branch = checkpoint.get("branch")
            self.best = checkpoint.get("best")
            load_state(adaptation, checkpoint["networks"], run.checkpoint, "saved")

    CHECKPOINT_KEYS = frozenset(
        {"config", "processes", "step", "seconds", "networks", "optimisers", "rng", "cuda_rng"}
    )

    @property
    def _on_cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def stopping(self) -> bool:
        """Whether Ctrl-C or SIGTERM arrived during training."""
        return self._stop

    @property
    def seconds(self) -> float:
        """Time spent on the run, including the time before it was resumed."""
        return time.time() - self._started

    def train(self) -> None:
        """Run the remaining updates of every phase."""
        if self.best is not None and self._writes:
            # a killed run may have written better weights after its last checkpoint
            self.observer.keep_best(self.best)
        with self._stopping_on_signal(), self._progress() as self._bar:
            for phase in phases(self.config):
                self.step = self._done.get(phase.name, phase.first)
                if self.step < phase.end:
                    try:
                        with reporting_killed_loader():
                            self._train_phase(phase)
                    except ProcessDied as error:
                        raise ProcessDied(f"{error}; {self._last_checkpoint()}") from error

    def profile(self, trace: Path, warmup: int = 3, updates: int = 5) -> UpdateProfile:
        """Measure where the time of an update goes, on the first updates of the last phase.

        Args:
            trace: file for the timeline; see ``profile_updates``.
            warmup: number of updates before the measurement.
            updates: number of measured updates.
        """
        phase = phases(self.config)[-1]
        self.step = phase.first
        self._build_step(phase)
        self._set_learning_rates(phase)
        loaded = list(itertools.islice(self._batches(phase), warmup + updates))
        batches = itertools.cycle(loaded)  # because the phase may be shorter
        for _ in range(warmup):
            self._update(next(batches))
        networks = {
            "G_img": self.adaptation.translation,
            "D_img": self.adaptation.image_discriminator,
            "G_task": self.adaptation.task,
            "teacher": self.adaptation.teacher,
            "D_out": self.adaptation.output_discriminator,
        }
        return profile_updates(
            lambda: self._update(next(batches)),
            {name: network for name, network in networks.items() if network is not None},
            updates,
            trace if self._writes else None,
            self._on_cuda,
        )

    def _build_step(self, phase: Phase) -> None:
        self.optimisers = build_optimisers(self.config, self.adaptation, phase)
        step = Step(
            self.adaptation,
            self.optimisers,
            self.config.precision,
            self.config.compile,
            adapts=phase.name == "adaptation",
            clip_norm=self.config.optimiser.clip_norm,
            micro_batch=self.config.schedule.micro_batch,
        )
        self._update = GraphedStep(step) if self.config.cuda_graphs else step
        if self.step == phase.first:  # otherwise the teacher comes from the checkpoint
            self.adaptation.start_teacher()

    def _train_phase(self, phase: Phase) -> None:
        schedule = self.config.schedule
        state, self._restored = self._restored, None
        if state is not None:
            self._set_random_state(state)
        if self.step == phase.first:
            self._branch_off(phase)
        self._build_step(phase)
        # a checkpoint from the end of the previous phase has the previous phase's optimisers
        if state is not None and self.step > phase.first:
            self._load_optimisers(state["optimisers"])
        bar = self._bar.add_task(
            phase.name, total=phase.steps, completed=self.step - phase.first, status=""
        )
        for batches in self._batches(phase):
            self._set_learning_rates(phase)
            self._window.add(self._update(batches))
            self.step += 1
            self._bar.advance(bar)
            done = self.step == phase.end
            stops = self._any_stops(self._stop)  # a later signal counts for the next update
            saves = done or stops or self.step % schedule.checkpoint_every == 0
            if saves or self.step % schedule.log_every == 0:
                self._log_losses(phase)
            if done or self.step % schedule.evaluate_every == 0:
                scores = self._evaluate(phase)
            draws = phase.name != CONTROL and (done or self.step % schedule.panel_every == 0)
            if draws and self._writes:
                with self._window.paused():
                    self.observer.draw_panel(self.step, phase)
            if saves:
                self._check_weights()
            if done and self._writes:
                self.observer.finish_phase(phase, scores)
            if saves and self._writes:
                self._save(phase)
            if stops and not (done and phase == phases(self.config)[-1]):
                raise Interrupted(
                    f"stopped after update {self.step} ({spaced(phase.name)}), checkpoint written; "
                    f"continue with: python -m gioada_fast.train --resume {self.run}"
                )

    def _branch_off(self, phase: Phase) -> None:
        """Let control and adaptation start from the same state.

        The weights are kept in memory and in checkpoints, not read from the file of weights, which
        a user may delete. The control trains no other network.
        """
        task = self.adaptation.task
        if phase.name == CONTROL:
            weights = {key: value.cpu().clone() for key, value in task.state_dict().items()}
            self._branch = {"task": weights, **self._random_state()}
        elif self._branch is not None:
            task.load_state_dict(self._branch["task"])
            self._set_random_state(self._branch)
            self._branch = None

    @property
    def _pairs_per_update(self) -> int:
        schedule = self.config.schedule
        return schedule.batch_size * schedule.accumulate * distributed.world_size()

    def _batches(self, phase: Phase) -> Iterator[list[Batch]]:
        """For each update of the phase, the batches whose gradients it accumulates."""
        adapts, schedule = phase.name == "adaptation", self.config.schedule
        data = self.config.data
        stream = PairStream(
            self.source,
            self.target if adapts else None,
            self.config.seed,
            data.flip,
            (data.height, data.width),
            data.max_unreadable,
            class_mix_noise=self._classes if adapts and self.config.adaptation.self_training else 0,
            rare_classes=self._rare_classes if adapts else None,
            mask_noise=self._mask_grid() if adapts else None,
            labelled=self.labelled if adapts else None,
        )
        loaded = pair_batches(
            stream,
            first=self.step * schedule.accumulate,
            batches=(phase.end - self.step) * schedule.accumulate,
            batch_size=schedule.batch_size,
            workers=data.workers,
            pin_memory=self._on_cuda,
            unreadable=self.unreadable,
            rank=distributed.rank(),
            processes=distributed.world_size(),
        )
        batches = map(_as_batch, to_device(loaded, self.device))
        while update := list(itertools.islice(batches, schedule.accumulate)):
            yield update

    def _mask_grid(self) -> tuple[int, int] | None:
        """Rows and columns of the patches that masked consistency may hide, None without it."""
        settings, data = self.config.adaptation, self.config.data
        if not settings.self_training or settings.mask_ratio == 0:
            return None
        return -(-data.height // settings.mask_patch), -(-data.width // settings.mask_patch)

    def _set_learning_rates(self, phase: Phase) -> None:
        settings, done = self.config.optimiser, self.step - phase.first
        factor = (1 - done / phase.steps) ** settings.poly_power
        factor *= min(1.0, (done + 1) / max(1, settings.warmup_steps))
        for optimiser in self.optimisers.values():
            for group in optimiser.param_groups:
                lr = group["initial_lr"] * factor
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(lr)
                else:
                    group["lr"] = lr

    def _log_losses(self, phase: Phase) -> None:
        try:
            means, seconds, steps = self._window.fetch(self.step)
        except NonFiniteLoss as error:
            raise NonFiniteLoss(f"{error}; {self._last_checkpoint()}") from None
        rate = steps * self._pairs_per_update / seconds
        values: dict[str, Any] = {f"loss/{name}": value for name, value in means.items()}
        for name, optimiser in self.optimisers.items():
            values[f"lr/{name}"] = float(optimiser.param_groups[-1]["lr"])
        if self.log is not None:
            self.log.write(self.step, phase.name, {**values, "pairs_per_second": rate})
        status = f"{rate:.1f} pairs/s  loss {means['total']:.3f}"
        self._bar.update(self._bar.task_ids[-1], status=status)

    def _evaluate(self, phase: Phase) -> Scores:
        with self._window.paused():
            scores = self.observer.score(self.adaptation.task)
            label_free = self.observer.score_without_labels(phase)
            self._keep_weights(phase, scores, label_free)
        if self.log is None:
            return scores
        values = {f"eval/{name}": value for name, value in asdict(scores).items()}
        if label_free is not None and not math.isnan(label_free):
            values[f"label_free/{self.config.schedule.keep_best}"] = label_free
        self.log.write(self.step, phase.name, values)
        if scores.miou is not None and scores.pixel_accuracy is not None:
            self._bar.console.print(
                f"step {self.step:5d}  {phase.name:12s}  mIoU {100 * scores.miou:5.2f}  "
                f"pixel accuracy {100 * scores.pixel_accuracy:5.2f}"
            )
        return scores

    def _keep_weights(self, phase: Phase, scores: Scores, label_free: float | None) -> None:
        """Keep the weights that were just scored, as far as ``schedule`` asks for it.

        The best ones are kept in memory and in checkpoints, too, so that a resumed run has those of
        its checkpoint.
        """
        name = self.config.schedule.keep_best
        if self._writes:
            self.observer.keep_evaluated(self.step, phase)
        if name == "none" or label_free is None:
            return
        before = None if self.best is None else self.best["value"]
        if not SCORES[name].prefers(label_free, before):
            return
        task = self.adaptation.task
        self.best = {
            "score": name,
            "value": label_free,
            "phase": phase.name,
            "step": self.step,
            "miou": scores.miou,
            "task": {key: value.cpu().clone() for key, value in task.state_dict().items()},
        }
        if self._writes:
            self.observer.keep_best(self.best)

    def _check_weights(self) -> None:
        """Refuse to save weights that are not finite.

        Finite losses do not suffice: they were computed before the last update.
        """
        for name, tensor in self.adaptation.state_dict().items():
            if not torch.isfinite(tensor).all():
                raise NonFiniteLoss(
                    f"weight {name!r} is not finite after update {self.step}: lower the learning "
                    f"rate; {self._last_checkpoint()}"
                )

    def _last_checkpoint(self) -> str:
        if self.run.checkpoint.exists():
            return f"the last checkpoint, {self.run.checkpoint}, is from an earlier update"
        return "there is no checkpoint yet"

    def _save(self, phase: Phase) -> None:
        save_checkpoint(
            self.run.checkpoint,
            {
                "config": asdict(self.config),
                "processes": distributed.world_size(),
                "phase": phase.name,
                "step": self.step,
                "seconds": self.seconds,
                "networks": self.adaptation.state_dict(),
                "optimisers": {name: o.state_dict() for name, o in self.optimisers.items()},
                "branch": self._branch,
                "best": self.best,
                **self._random_state(),
            },
            previous=self.run.previous_checkpoint,
        )

    def _random_state(self) -> dict[str, Tensor | None]:
        return {
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if self._on_cuda else None,
        }

    def _set_random_state(self, state: Mapping[str, Any]) -> None:
        torch.set_rng_state(state["rng"])
        if self._on_cuda and state["cuda_rng"] is not None:
            torch.cuda.set_rng_state(state["cuda_rng"], self.device)

    def _load_optimisers(self, states: Mapping[str, Any]) -> None:
        for name, optimiser in self.optimisers.items():
            rates = [group["lr"] for group in optimiser.param_groups]
            optimiser.load_state_dict(states[name])
            # keep the rate tensors, which a CUDA graph reads; every update sets their values
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate

    def _progress(self) -> Progress:
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[status]}"),
            disable=not self._writes,
        )

    @contextmanager
    def _stopping_on_signal(self) -> Iterator[None]:
        """Let Ctrl-C and SIGTERM end the loop after the current update.

        A second signal ends a single process immediately. Several processes end the loop together,
        one update later.
        """

        def stop(signum, frame):
            self._stop = True
            # torchrun forwards a signal that its processes have already received from the terminal
            if distributed.world_size() == 1:
                signal.signal(signum, signal.default_int_handler)

        numbers = (signal.SIGINT, signal.SIGTERM)
        previous = {number: signal.signal(number, stop) for number in numbers}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def _as_batch(tensors: dict[str, Tensor]) -> Batch:
    fields: dict[str, Any] = {"target_image": None, **tensors}
    return Batch(**fields)


class LossWindow:
    """Losses since the last log point; they stay on the device and are fetched in one transfer."""

    def __init__(self):
        self._names: tuple[str, ...] = ()
        self._rows: list[Tensor] = []
        self._since = time.perf_counter()

    def add(self, losses: dict[str, Tensor]) -> None:
        if not self._rows:
            self._names = tuple(losses)
        self._rows.append(torch.stack([losses[name].float() for name in self._names]))

    def fetch(self, step: int) -> tuple[dict[str, float], float, int]:
        """Fetch the means since the last call; waits for the device.

        Losses are averaged over all processes as well, so that all processes raise together.

        Args:
            step: number of updates so far.

        Returns:
            (mean of each loss, seconds, updates) since the last call.

        Raises:
            NonFiniteLoss: a loss is infinite or NaN; the message names the first one and its
                update.
        """
        rows = distributed.sum_over_processes(torch.stack(self._rows)).cpu()
        rows /= distributed.world_size()
        bad = (~torch.isfinite(rows)).nonzero()
        if len(bad):
            row, column = bad[0].tolist()
            raise NonFiniteLoss(
                f"loss {self._names[column]!r} is {float(rows[row, column])} at update "
                f"{step - len(rows) + row + 1}: lower its learning rate or its weight"
            )
        now = time.perf_counter()
        means = dict(zip(self._names, rows.mean(0).tolist(), strict=True))
        seconds, steps = now - self._since, len(rows)
        self._rows, self._since = [], now
        return means, seconds, steps

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count the time spent inside the block."""
        start = time.perf_counter()
        yield
        self._since += time.perf_counter() - start


def build_optimisers(
    config: Config, adaptation: TwoLevelAdaptation, phase: Phase
) -> dict[str, torch.optim.Optimizer]:
    """Make one optimiser for each network that the phase trains."""
    settings, task, graphs = config.optimiser, adaptation.task, config.cuda_graphs
    adapts = phase.name == "adaptation"
    lr = settings.task_lr if phase.name == "source_only" else config.adaptation_lr
    groups = [
        _group(weights, rate, graphs, decay)
        for some, rate in [
            *_trunk_rates(task.trunk, lr * config.trunk_lr_factor, settings.layer_decay),
            (task.head_parameters(), lr),
        ]
        for weights, decay in _by_decay(some, settings)
    ]
    task_optimiser: torch.optim.Optimizer
    if settings.task == "adamw":
        task_optimiser = torch.optim.AdamW(groups, fused=True, capturable=graphs)
    else:
        task_optimiser = torch.optim.SGD(groups, lr=lr, momentum=0.9, fused=True)
    optimisers: dict[str, torch.optim.Optimizer] = {"task": task_optimiser}

    def add_adam(name: str, network: nn.Module | None, lr: float, betas: tuple[float, float]):
        if adapts and network is not None:
            group = _group(network.parameters(), lr, graphs)
            optimisers[name] = torch.optim.Adam([group], betas=betas, fused=True, capturable=graphs)

    gan = (0.5, 0.999)
    add_adam("translation", adaptation.translation, settings.translation_lr, gan)
    add_adam(
        "image_discriminator",
        adaptation.image_discriminator,
        settings.image_discriminator_lr,
        gan,
    )
    add_adam(
        "output_discriminator",
        adaptation.output_discriminator,
        settings.output_discriminator_lr,
        (0.9, 0.99),
    )
    return optimisers


def _trunk_rates(
    trunk: Trunk, lr: float, layer_decay: float | None
) -> list[tuple[list[nn.Parameter], float]]:
    """The trunk's weights with their learning rates, those near the image first.

    Weights between two blocks belong to the earlier one.
    """
    trained = [weight for weight in trunk.parameters() if weight.requires_grad]
    if layer_decay is None:
        return [(trained, lr)]
    blocks = trunk.blocks()
    block_of = {
        id(weight): number
        for number, block in enumerate(blocks, start=1)
        for module in block
        for weight in module.parameters()
    }
    by_block: dict[int, list[nn.Parameter]] = {}
    block = 0
    for weight in trained:  # in the order of the modules
        block = block_of.get(id(weight), block)
        by_block.setdefault(block, []).append(weight)
    return [
        (weights, lr * layer_decay ** (len(blocks) - block))
        for block, weights in sorted(by_block.items())
    ]


def _by_decay(
    weights: list[nn.Parameter], settings: OptimiserConfig
) -> list[tuple[list[nn.Parameter], float]]:
    """The weights with their weight decay."""
    if settings.decay_norms:
        return [(weights, settings.weight_decay)]
    parts = [
        ([weight for weight in weights if weight.ndim < 2], 0.0),
        ([weight for weight in weights if weight.ndim >= 2], settings.weight_decay),
    ]
    return [part for part in parts if part[0]]


def _group(
    parameters: Iterable[nn.Parameter], lr: float, as_tensor: bool, weight_decay: float = 0.0
) -> dict[str, Any]:
    parameters = list(parameters)
    rate = torch.tensor(lr, device=parameters[0].device) if as_tensor else lr
    return {"params": parameters, "lr": rate, "initial_lr": lr, "weight_decay": weight_decay}
