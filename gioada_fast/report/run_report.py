"""Reports on a run: a table for the terminal and a self-contained HTML page."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from ..config import CONTROL
from .charts import charts
from .formatting import NO_VALUE, percent, points, settings_by_section, spaced
from .page import Panel, embed, picture_size, read_pictures, render, unreadable_notes
from .panels import TRAINING_LAYOUTS

_MAX_OTHER_PANELS = 4
"""Number of panels shown besides the last one of each phase."""


@dataclass(frozen=True)
class Row:
    """A row of the result's table: a class, or the mean over the classes."""

    name: str
    scores: list[float | None]
    """IoU in [0, 1] for each column of the result; None if it is undefined."""
    colour: tuple[int, int, int] | None = None
    """RGB colour of the class."""

    @property
    def difference(self) -> float | None:
        """Last column minus the one before; None if either is undefined or there is only one.

        The one before is the control if there is one, otherwise the source-only network.
        """
        *_, before, last = [None, *self.scores]
        return None if before is None or last is None else last - before


def result_rows(result: Mapping[str, Any]) -> list[Row]:
    """Rows for the classes of a ``result.json`` in their order, then one for the mIoU."""
    columns = result["columns"]
    classes = zip(result["classes"], result["colours"], strict=True)
    rows = [
        Row(name, [column["iou"][name] for column in columns], (int(r), int(g), int(b)))
        for name, (r, g, b) in classes
    ]
    return [*rows, Row("mIoU", [column["miou"] for column in columns])]


def result_table(result: Mapping[str, Any]) -> Table:
    """Table for the terminal: IoU by class in one to three columns, a difference, the mIoU last.

    Args:
        result: the content of ``result.json``.
    """
    columns = result["columns"]
    table = Table(
        caption=Text(f"IoU in % on {result['target']}. {_updates(columns)}"),
        caption_justify="left",
        show_footer=False,
    )
    table.add_column("class")
    for column in columns:
        table.add_column(Text(column["name"]), justify="right")
    if len(columns) > 1:
        table.add_column(difference_name(columns), justify="right")
    rows = result_rows(result)
    for index, row in enumerate(rows):
        mean = index == len(rows) - 1
        cells = [Text(row.name), *(Text(percent(score)) for score in row.scores)]
        if len(columns) > 1:
            style = {"+": "green", "−": "red"}.get(points(row.difference)[0], "")
            cells.append(Text(points(row.difference), style))
        table.add_row(*cells, style="bold" if mean else None, end_section=index == len(rows) - 2)
    return table


def best_note(result: Mapping[str, Any]) -> str | None:
    """Says which weights a label-free score preferred; None if the run kept none."""
    best = result.get("best")
    if best is None:
        return None
    last = result["columns"][-1]
    return (
        f"task_best has the weights of step {best['step']}, which the label-free score "
        f"{best['score']} prefers ({best['value']:.4g}): mIoU {percent(best['miou'])} on the "
        f"evaluation frames, {percent(last['miou'])} at the end."
    )


def difference_name(columns: Sequence[Mapping[str, Any]]) -> str:
    """Heading of the differences between the last two columns of a result."""
    return "difference to control" if _has_control(columns) else "difference"


def _has_control(columns: Sequence[Mapping[str, Any]]) -> bool:
    return any(column["name"] == CONTROL for column in columns[:-1])


@dataclass(frozen=True)
class RunRecords:
    """The files of a finished or unfinished run."""

    name: str
    settings: Mapping[str, Any]
    """Nested by section."""
    result: Mapping[str, Any] | None
    """The content of ``result.json``; None before the first phase ends."""
    metrics: Sequence[Mapping[str, Any]]
    """Records of ``metrics.jsonl``, see ``RunFolder.read_metrics``."""
    unreadable_lines: int
    """Number of lines of ``metrics.jsonl`` that were left out."""
    panels: Mapping[int, Path]
    """JPEG files by step."""
    comparison: Path | None
    """JPEG file; None before the run ends."""


def run_page(run: RunRecords) -> str:
    """HTML page in a single file, with embedded pictures and curves."""
    phases = _phase_ends(run.metrics)
    unreadable: list[str] = []
    size = picture_size(run.settings)

    def read(path: Path, caption: str, *layouts: Sequence[Sequence[str]]) -> list[Panel]:
        rows = read_pictures(path, size, *layouts)
        if rows is None:
            unreadable.append(path.name)
        return [] if rows is None else [embed(caption, rows)]

    panels = [
        panel
        for step, path in _choose_panels(run.panels, phases)
        for panel in read(path, _step_caption(step, phases), *TRAINING_LAYOUTS)
    ]
    comparison = []
    if run.comparison is not None:
        caption = "Target images, ground truth and segmentations"
        comparison = read(run.comparison, caption, [_comparison_columns(run.result)])
    notes = unreadable_notes(unreadable)
    if run.unreadable_lines:
        notes.append(f"Unreadable lines of metrics.jsonl, left out: {run.unreadable_lines}.")
    rows = [] if run.result is None else result_rows(run.result)
    differences = [abs(row.difference) for row in rows if row.difference is not None]
    return render(
        "run_report.html",
        name=run.name,
        verdict=_verdict(run),
        result=run.result,
        rows=rows,
        best=None if run.result is None else best_note(run.result),
        updates="" if run.result is None else _updates(run.result["columns"]),
        difference="" if run.result is None else difference_name(run.result["columns"]),
        max_difference=max(differences, default=0) or 1,
        charts=charts(run.metrics, phases),
        settings=settings_by_section(run.settings),
        notes=notes,
        panels=panels,
        comparison=comparison,
    )


def _comparison_columns(result: Mapping[str, Any] | None) -> list[str]:
    """Captions of the comparison's columns; it shows no ground truth if nothing was scored."""
    columns = [] if result is None else result["columns"]
    labelled = any(column["miou"] is not None for column in columns)
    truth = ["ground truth"] if labelled else []
    return ["target", *truth, *(column["name"] for column in columns)]


def _step_caption(step: int, phases: Mapping[str, int]) -> str:
    phase = _phase_of(step, phases)
    return f"Step {step}, {phase}" if phase else f"Step {step}"


def _phase_ends(records: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Last recorded step of each phase but the control, in the order in which the phases ran.

    The control's steps have the same numbers as those of adaptation.
    """
    ends: dict[str, int] = {}
    for record in records:
        if record["phase"] != CONTROL:
            ends[spaced(record["phase"])] = record["step"]
    return dict(sorted(ends.items(), key=lambda item: item[1]))


def _phase_of(step: int, phases: Mapping[str, int]) -> str | None:
    """The phase of a step; the last phase if the step has no record yet."""
    last = list(phases)[-1] if phases else None
    return next((phase for phase, end in phases.items() if step <= end), last)


def _score(share: float | None) -> str:
    return f"{percent(share)}\N{NO-BREAK SPACE}%"


def _updates(columns: Sequence[Mapping[str, Any]]) -> str:
    each = ", ".join(f"{column['name']} {column['updates']}" for column in columns)
    caution = "; note that the columns also differ in the length of training"
    differ = len({column["updates"] for column in columns[-2:]}) > 1
    return f"Updates of the task network: {each}{caution if differ else ''}."


def _verdict(run: RunRecords) -> str:
    """The result, or how far the run is, in one or two sentences."""
    metrics, columns = run.metrics, [] if run.result is None else run.result["columns"]
    schedule = run.settings.get("schedule") or {}
    steps = sum(schedule.get(key, 0) for key in ("source_only_steps", "adaptation_steps"))
    if columns and columns[-1]["name"] != CONTROL and columns[-1]["updates"] >= steps:
        return _outcome(columns)
    step = metrics[-1]["step"] if metrics else 0
    where = f", {spaced(metrics[-1]['phase'])}" if metrics else ""
    verdict = f"The run is not finished: step {step} of {steps}{where}."
    scored = [record for record in metrics if "eval/miou" in record]
    if scored:
        score, when = _score(scored[-1]["eval/miou"]), scored[-1]["step"]
        verdict += f" At the last evaluation, step {when}, the mIoU was {score}."
    return verdict


def _outcome(columns: Sequence[Mapping[str, Any]]) -> str:
    """What the last column of a finished run gained over the one before."""
    miou = Row("mIoU", [column["miou"] for column in columns])
    before, last = [None, *map(percent, miou.scores)][-2:]
    if NO_VALUE in (before, last):
        return "The mIoU is undefined: no class was scored."
    name = columns[-1]["name"]
    if before is None:
        return (
            f"{name.capitalize()} reaches {last}\N{NO-BREAK SPACE}% mIoU. "
            "The run has a single phase, so there is nothing to compare with."
        )
    change = points(miou.difference)
    verb = {"+": "gained", "−": "lost"}.get(change[0])
    scores = f"from {before} to {last}\N{NO-BREAK SPACE}%"
    if _has_control(columns):
        control = "a control that trained as long on the source"
        scores = f"{last}\N{NO-BREAK SPACE}% against {before}\N{NO-BREAK SPACE}%"
        if verb is None:
            return f"Adaptation gained no mIoU over {control}: {scores}."
        than = "over" if verb == "gained" else "against"
        return f"Adaptation {verb} {change[1:]} points of mIoU {than} {control}: {scores}."
    subject = "Adaptation" if name == "adapted" else "Longer training"
    if verb is None:
        return f"{subject} did not change the mIoU, {scores}."
    return f"{subject} {verb} {change[1:]} points of mIoU, {scores}."


def _choose_panels(panels: Mapping[int, Path], phases: Mapping[str, int]) -> list[tuple[int, Path]]:
    """The last panel of each phase and a few evenly spaced others, by step."""
    last = {_phase_of(step, phases): step for step in sorted(panels)}
    others = sorted(set(panels) - set(last.values()))
    spaced_evenly = np.linspace(0, len(others) - 1, min(len(others), _MAX_OTHER_PANELS))
    chosen = {others[round(index)] for index in spaced_evenly}.union(last.values())
    return [(step, panels[step]) for step in sorted(chosen)]
