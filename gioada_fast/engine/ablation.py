"""The ablation: each row is a training run, all from the same weights and on the same pairs.

    <runs_dir>/<name>/seed<k>/<row>/    the folder of a row's run with seed k
    <runs_dir>/<name>/ablation.json     all scores
    <runs_dir>/<name>/report.html       the same as a web page, with pictures

The row ``source_only`` is trained first. All other rows start from its weights, take the same
number of updates and see the same pairs at each update. The files in the folders decide which rows
are finished.
"""

import gc
import itertools
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.text import Text

from ..atomic_files import write_atomically
from ..config import AdaptationConfig, Config, changed_setting
from ..data.files import FrameFiles
from ..data.sets import (
    describe_target,
    evaluation_frames,
    labelled_frames,
    source_set,
    supervised,
)
from ..errors import InputError, Interrupted
from ..report.ablation_report import RowPictures, ablation_page, tables
from .run import resume, start
from .run_folder import TASK_SOURCE_ONLY, RunFolder


@dataclass(frozen=True)
class Row:
    """A row's caption, and the settings of ``AdaptationConfig`` that it changes."""

    caption: str
    adaptation: Mapping[str, Any] = field(default_factory=dict)
    """``NO_LEVELS`` and the configuration hold for what is not named."""
    variant: bool = False
    """Whether it runs only if ``--rows`` names it."""
    labelled: float = 0.0
    """Share of the target's training images whose labels it uses, unless data.target.labelled says
    which."""


SOURCE_ONLY, CONTROL, ORACLE = "source_only", "control", "oracle"

NO_LEVELS = {
    "input_level": "none",
    "output_level": "none",
    "self_training": False,
    "lambda_target_depth": 0.0,
}
"""What is off in a row that does not turn it on."""

_INPUT = {"input_level": "geometry"}
_BOTH = {**_INPUT, "output_level": "joint"}
_SELF = {**_BOTH, "self_training": True}


def _variant(caption: str, **adaptation: Any) -> Row:
    return Row(caption, adaptation, variant=True)


ROWS = {
    SOURCE_ONLY: Row("source only"),
    CONTROL: Row("source only, trained on"),
    "input_image": Row("input level without geometry", {"input_level": "image"}),
    "input": Row("input level with geometry", _INPUT),
    "input_normals": _variant("input level with surface normals", input_level="normals"),
    "input_depth": _variant(
        "input level with depth at D_img", **_INPUT, image_discriminator_input="depth"
    ),
    "output_semantics": Row("output level on semantics", {"output_level": "semantics"}),
    "output": Row("output level on semantics and depth", {"output_level": "joint"}),
    "output_product": _variant("output level on semantics times depth", output_level="product"),
    "both": Row("both levels: GIO-Ada", _BOTH),
    "self_training": Row("both levels and self-training", _SELF),
    "self_all": _variant("self-training on all pairs", **_SELF, self_train_half=False),
    "self_masked": _variant("self-training with masked consistency", **_SELF, mask_ratio=0.7),
    "self_rare": _variant(
        "self-training with rare-class sampling", **_SELF, rare_class_temperature=0.01
    ),
    "self_nearer": _variant("self-training, pasting what is nearer", **_SELF, mix_order="depth"),
    "self_same_depth": _variant(
        "self-training, pasting at like depth", **_SELF, mix_classes="depth"
    ),
    "self_target_depth": _variant(
        "self-training with depth of the target",
        **_SELF,
        lambda_target_depth=1.0,
        depth_agreement=True,
    ),
    "few_labels": Row(
        "self-training with a few labels of the target", _SELF, variant=True, labelled=0.05
    ),
    ORACLE: Row("oracle: supervised on the target"),
}
"""The rows by name, in the order of the table. The name is also the name of the row's folder."""


def run_folder(folder: Path, name: str, seed: int) -> RunFolder:
    """The folder of a row's run with one seed, inside the ablation's folder."""
    return RunFolder(folder / f"seed{seed}" / name)


def row_config(config: Config, name: str, seed: int, folder: Path) -> Config:
    """Make the settings of a row's run.

    Args:
        config: settings of the ablation.
        name: key of ``ROWS``.
        seed: seed of the weights and the data order.
        folder: the ablation's folder.
    """
    row = ROWS[name]
    data, model = config.data, config.model
    schedule = replace(config.schedule, control=False)  # it is a row
    if name == SOURCE_ONLY:
        schedule = replace(schedule, adaptation_steps=0)
    else:
        schedule = replace(schedule, source_only_steps=0)
        source_only = run_folder(folder, SOURCE_ONLY, seed)
        model = replace(model, init_from=str(source_only.weights(TASK_SOURCE_ONLY)))
    adaptation = replace(config.adaptation, **{**NO_LEVELS, **row.adaptation})
    idle = {key: getattr(AdaptationConfig, key) for key in adaptation.without_effect()}
    adaptation = replace(adaptation, **idle)  # they belong to other rows
    if not adaptation.reads_target_depth and data.target.name != "folder":
        # a folder's maps also serve for scoring
        data = replace(data, target=replace(data.target, depth=None))
    labelled = None
    if row.labelled:
        labelled = data.target.labelled or max(1, round(row.labelled * len(_oracle_frames(config))))
    data = replace(data, target=replace(data.target, labelled=labelled))
    if name == ORACLE:
        data = supervised(data)
    return replace(
        config,
        name=name,
        runs_dir=str(run_folder(folder, name, seed).path.parent),
        seed=seed,
        data=data,
        model=model,
        adaptation=adaptation,
        schedule=schedule,
    )


def default_rows(config: Config) -> set[str]:
    """The rows that an ablation has unless others are named.

    No variants, and no oracle if the target's training images have no labels, as in KITTI's test
    set: it would have to train on the frames that score it.
    """
    rows = {name for name, row in ROWS.items() if not row.variant}
    return rows - {ORACLE} if _unlabelled(config) else rows


def _unlabelled(config: Config) -> list[Path]:
    """Label files that the oracle needs and that do not exist."""
    return source_set(supervised(config.data)).missing()


def _oracle_frames(config: Config) -> Sequence[FrameFiles]:
    """The target's training images with their labels."""
    return source_set(supervised(config.data)).frames


def ablate(config: Config, seeds: Sequence[int], rows: Collection[str], command: str) -> Path:
    """Run the unfinished rows and show all finished ones.

    Args:
        config: settings of the ablation, including ``name``; each row sets its own levels,
            self-training and seed.
        seeds: seeds of each row's runs.
        rows: names from ``ROWS``.
        command: the command line that the user typed.

    Returns:
        The ablation's folder.

    Raises:
        InputError: the settings are not usable or differ from the saved settings of existing rows,
            or a row cannot start because ``source_only`` is not trained with its seed.
        RunStopped: a run was stopped or failed; the finished rows are kept.
    """
    assert config.name is not None
    folder = Path(config.runs_dir).expanduser() / config.name
    _check_steps(config)
    _check_kept(config, folder)
    pending = [
        (seed, name)
        for seed in dict.fromkeys(seeds)
        for name in ROWS
        if name in rows and not _is_finished(config, name, seed, folder)
    ]
    _check_pending(config, pending, folder)
    console = Console()
    for number, (seed, name) in enumerate(pending, start=1):
        console.rule(Text(f"{number}/{len(pending)}  {ROWS[name].caption}, seed {seed}"))
        try:
            _train_row(config, name, seed, folder, command)
        finally:
            if folder.is_dir():
                write_summary(config, folder, command)
    summary = write_summary(config, folder, command)
    for table in tables(summary, ROWS[CONTROL].caption):
        console.print(table)
    report = folder / "report.html"
    console.print(Text(f"report: {report}"), soft_wrap=True)
    return folder


def _train_row(config: Config, name: str, seed: int, folder: Path, command: str) -> None:
    settings = row_config(config, name, seed, folder)
    run = run_folder(folder, name, seed)
    try:
        if run.path.exists():
            resume(settings, run, command)
        else:
            start(settings, name, command)
    except Interrupted as stopped:
        message = f"stopped, {run} is kept; continue with the same command: {command}"
        raise Interrupted(message) from stopped
    finally:
        # the next row cannot use this row's networks or the code compiled for them
        gc.collect()
        torch.cuda.empty_cache()
        if config.compile:
            torch.compiler.reset()


def _check_steps(config: Config) -> None:
    if torch.distributed.is_torchelastic_launched():
        raise InputError("the ablation runs in a single process: start it without torchrun")
    for name in ("source_only_steps", "adaptation_steps"):
        if not getattr(config.schedule, name):
            raise InputError(f"schedule.{name} is 0: the ablation needs updates in both phases")


def _check_kept(config: Config, folder: Path) -> None:
    """Refuse settings that differ from the saved settings of existing rows."""
    for seed, name in itertools.product(_seeds(folder), ROWS):
        run = run_folder(folder, name, seed)
        if not run.config.is_file():
            continue
        settings = asdict(row_config(config, name, seed, folder))
        changed = changed_setting(run.read_settings(), settings)
        if changed is not None:
            setting, kept, now = changed
            raise InputError(
                f"{run.config} has {setting} = {kept}, now it is {now}: all rows of an ablation "
                "need the same settings; to change them, give another --name"
            )


def _check_pending(config: Config, pending: Sequence[tuple[int, str]], folder: Path) -> None:
    """Report problems of later runs before the first one starts."""
    starts = {seed for seed, name in pending if name == SOURCE_ONLY}
    for seed, name in pending:
        if seed not in starts and not _is_finished(config, SOURCE_ONLY, seed, folder):
            raise InputError(
                f"{name} starts from the weights of {SOURCE_ONLY}, which has not been trained with "
                f"seed {seed}: add {SOURCE_ONLY} to --rows"
            )
    if pending and not len(evaluation_frames(config.data)):
        raise InputError(f"{describe_target(config.data)}: there are no labels to score on")
    for seed, name in pending:
        labelled_frames(row_config(config, name, seed, folder).data)
    if any(name == ORACLE for _, name in pending):
        missing = _unlabelled(config)
        if missing:
            raise InputError(
                f"the oracle trains on labels of the target's training images, but {len(missing)} "
                f"files are missing, first {missing[0]}: leave {ORACLE} out of --rows"
            )


def _result(config: Config, name: str, seed: int, folder: Path) -> dict[str, Any] | None:
    """Read the result of a row; None if it is not finished."""
    run = run_folder(folder, name, seed)
    if not run.report.is_file():  # a run writes its report last
        return None
    result = run.read_result()
    if result is None:
        return None
    schedule = row_config(config, name, seed, folder).schedule
    steps = schedule.source_only_steps + schedule.adaptation_steps
    return result if result["columns"][-1]["updates"] == steps else None


def _is_finished(config: Config, name: str, seed: int, folder: Path) -> bool:
    return _result(config, name, seed, folder) is not None


def write_summary(config: Config, folder: Path, command: str) -> dict[str, Any]:
    """Write ``ablation.json`` and ``report.html`` from the finished rows; returns the former."""
    summary = summarise(config, folder, command)
    text = json.dumps(summary, indent=1)
    path = folder / "ablation.json"
    write_atomically(path, lambda temporary: temporary.write_text(text))
    html = ablation_page(summary, ROWS[CONTROL].caption, len(ROWS), _pictures(summary, folder))
    path = folder / "report.html"
    write_atomically(path, lambda temporary: temporary.write_text(html, encoding="utf-8"))
    return summary


def _pictures(summary: Mapping[str, Any], folder: Path) -> dict[str, RowPictures]:
    """Pictures of each row's first seed, by row name."""
    pictures = {}
    for row in summary["rows"]:
        run = run_folder(folder, row["name"], row["seeds"][0]["seed"])
        comparison = run.comparison if run.comparison.is_file() else None
        panel = next(reversed(run.drawn_panels().values()), None)
        pictures[row["name"]] = RowPictures(comparison, panel)
    return pictures


def _seeds(folder: Path) -> list[int]:
    """The seeds that have runs in an ablation's folder."""
    numbers = [path.name.removeprefix("seed") for path in folder.glob("seed*")]
    return sorted(int(number) for number in numbers if number.isdecimal())


def summarise(config: Config, folder: Path, command: str) -> dict[str, Any]:
    """Collect the scores of all finished rows and seeds in the folder, as fractions.

    ``difference`` is the mIoU of a row minus the mIoU of the control with the same seed.
    ``gap_closed`` is this difference divided by the oracle's difference to the control. Each uses
    only seeds for which all rows that it needs are finished. ``std`` is the sample standard
    deviation, None for a single seed.
    """
    seeds = _seeds(folder)
    results = {
        name: {seed: result for seed in seeds if (result := _result(config, name, seed, folder))}
        for name in ROWS
    }
    scores = {
        name: {seed: result["columns"][-1]["miou"] for seed, result in per_seed.items()}
        for name, per_seed in results.items()
    }
    rows = [_summarise_row(name, results[name], scores) for name in ROWS if results[name]]
    example = next(iter(next(filter(None, results.values()), {}).values()), {})
    return {
        "name": config.name,
        "target": describe_target(config.data),
        "label_space": example.get("label_space"),
        "classes": example.get("classes", []),
        "colours": example.get("colours", []),
        "seeds": seeds,
        "rows": rows,
        "command": command,
        "settings": asdict(config),
    }


def _summarise_row(
    name: str,
    results: Mapping[int, Mapping[str, Any]],
    scores: Mapping[str, Mapping[int, float | None]],
) -> dict[str, Any]:
    own, control, oracle = (scores[key] for key in (name, CONTROL, ORACLE))
    differences = {seed: _subtract(own[seed], control.get(seed)) for seed in results}
    possible = {seed: _subtract(oracle.get(seed), control.get(seed)) for seed in results}
    per_seed = []
    for seed, result in results.items():
        column = result["columns"][-1]
        per_seed.append(
            {
                "seed": seed,
                **{key: column[key] for key in ("updates", "miou", "iou", "pixel_accuracy")},
                "difference": differences[seed],
                "gap_closed": _fraction(differences[seed], possible[seed]),
                "seconds": result["seconds"],
                "versions": result["versions"],
                "command": result["command"],
            }
        )
    gaps = [
        (closed, whole)
        for seed in results
        if (closed := differences[seed]) is not None and (whole := possible[seed]) is not None
    ]
    classes = per_seed[0]["iou"]
    return {
        "name": name,
        "caption": ROWS[name].caption,
        **{**NO_LEVELS, **ROWS[name].adaptation},
        "miou": _statistics(own[seed] for seed in results),
        "iou": {c: _statistics(one["iou"][c] for one in per_seed) for c in classes},
        "difference": _statistics(differences.values()),
        "gap_closed": _fraction(sum(closed for closed, _ in gaps), sum(whole for _, whole in gaps)),
        "seconds": _statistics(one["seconds"] for one in per_seed),
        "seeds": per_seed,
    }


def _subtract(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _fraction(part: float | None, whole: float | None) -> float | None:
    """``part / whole``; None without a positive whole."""
    return part / whole if part is not None and whole is not None and whole > 0 else None


def _statistics(values: Iterable[float | None]) -> dict[str, float | None]:
    present = [value for value in values if value is not None]
    return {
        "mean": float(np.mean(present)) if present else None,
        "std": float(np.std(present, ddof=1)) if len(present) > 1 else None,
    }
