"""The result of a run for people: a table for the terminal and one self-contained HTML file.

Everything is read from the run's folder:

    config.yaml       all settings
    metrics.jsonl     one training or evaluation record a line
    result.json       per-class IoU, a column for each phase that is finished
    panels/           step_000400.jpg, ...
    comparison.jpg    evaluation frames with ground truth, before and after
"""

import base64
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from rich.table import Table
from rich.text import Text

from ..atomic_files import write_atomically
from ..errors import InputError
from .panels import encode_image

NO_VALUE = "–"
"""Stands for the IoU of a class that is neither in the ground truth nor in the prediction."""

_PANELS_BETWEEN = 4
_IMAGE_BYTES = 400_000
"""Seven images of this size, a third larger as base64, leave room in a report of 5 MB."""
_CHART_POINTS = 400

# Matplotlib writes literal colours; these are replaced by what follows the reader's colour scheme.
_INK = "#000001"
_LINES = tuple(f"#00000{n}" for n in range(2, 8))
_STYLESHEET_COLOURS = {
    _INK: "currentColor",
    **{line: f"var(--line-{n})" for n, line in enumerate(_LINES, start=1)},
}


@dataclass(frozen=True)
class Row:
    """One line of the result: a class, or the mean over the classes."""

    name: str
    scores: list[float | None]
    """IoU in [0, 1], one for each column of the result; None where it is undefined."""
    colour: tuple[int, int, int] | None = None
    """RGB of the class."""

    @property
    def difference(self) -> float | None:
        """Last column minus first, or None where either is undefined or there is one column."""
        first, last = self.scores[0], self.scores[-1]
        if len(self.scores) < 2 or first is None or last is None:
            return None
        return last - first


def result_rows(result: Mapping[str, Any]) -> list[Row]:
    """The classes of a ``result.json`` in their order, and the mIoU last."""
    columns = result["columns"]
    classes = zip(result["classes"], result["colours"], strict=True)
    rows = [
        Row(name, [column["iou"][name] for column in columns], tuple(int(c) for c in colour))
        for name, colour in classes
    ]
    return [*rows, Row("mIoU", [column["miou"] for column in columns])]


def percent(share: float | None) -> str:
    """0.3141 as ``31.4``; a dash for None or NaN."""
    return NO_VALUE if share is None or math.isnan(share) else f"{100 * share:.1f}"


def points(difference: float | None) -> str:
    """A difference of shares in percentage points with its sign: 0.0314 as ``+3.1``."""
    if difference is None or math.isnan(difference):
        return NO_VALUE
    rounded = round(100 * difference, 1)
    return f"{rounded:+.1f}".replace("-", "−") if rounded else "0.0"


def result_table(result: Mapping[str, Any]) -> Table:
    """The result for the terminal: class, one or two columns of IoU, their difference; mIoU last.

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
    if len(columns) == 2:
        table.add_column("difference", justify="right")
    rows = result_rows(result)
    for index, row in enumerate(rows):
        mean = index == len(rows) - 1
        cells = [Text(row.name), *(Text(percent(score)) for score in row.scores)]
        if len(columns) == 2:
            style = {"+": "green", "−": "red"}.get(points(row.difference)[0], "")
            cells.append(Text(points(row.difference), style))
        table.add_row(*cells, style="bold" if mean else None, end_section=index == len(rows) - 2)
    return table


def write_report(run: Path) -> Path:
    """Write ``run/report.html`` from what lies in the run's folder; finished or not.

    The file needs nothing beside it: images and curves are inside, there are no scripts.

    Args:
        run: folder of the run.

    Returns:
        Path of the report.

    Raises:
        InputError: the folder has no readable ``config.yaml``, a ``result.json`` that is no JSON,
            or cannot be written.
    """
    config = read_settings(run / "config.yaml")
    result = _read_result(run / "result.json")
    records, unreadable = read_metrics(run / "metrics.jsonl")
    phases = _phase_ends(records)
    panels: list[dict[str, str | int]] = []
    broken: list[str] = []
    for step, path in _choose_panels(run / "panels", phases):
        phase = _phase_of(step, phases)
        caption = f"Step {step}" + (f", {phase}" if phase else "")
        embed_into(panels, broken, path, caption)
    comparison: list[dict[str, str | int]] = []
    if (run / "comparison.jpg").exists():
        embed_into(
            comparison,
            broken,
            run / "comparison.jpg",
            "The target, its ground truth and its segmentations",
        )

    notes = [f"{name} could not be read and is left out." for name in broken]
    if unreadable:
        notes.append(f"Unreadable lines of metrics.jsonl that are left out: {unreadable}.")
    rows = [] if result is None else result_rows(result)
    largest = max((abs(row.difference) for row in rows if row.difference is not None), default=0)
    html = render(
        "report.html",
        name=run.resolve().name,
        verdict=_verdict(result, records, phases, config),
        result=result,
        rows=rows,
        updates="" if result is None else _updates(result["columns"]),
        largest=largest or 1,
        comparison=comparison,
        charts=_charts(records, phases),
        panels=panels,
        settings=settings_by_section(config),
        notes=notes,
    )
    path = run / "report.html"
    write_atomically(path, lambda temporary: temporary.write_text(html, encoding="utf-8"))
    return path


def render(template: str, **values: Any) -> str:
    """HTML from a template of this folder; what goes in is escaped."""
    environment = Environment(
        loader=PackageLoader("gioada_fast", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, points=points, duration=_duration)
    return environment.get_template(template).render(**values)


def read_metrics(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Records of a ``metrics.jsonl`` by step, and how many lines are unreadable.

    A resumed run logs the steps after its checkpoint again: the later record counts. The last line
    may be cut off, as the run may be writing it; it is not counted. No file is no records.
    """
    if not path.is_file():
        return [], 0
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    records: dict[tuple[int, str, bool], dict[str, Any]] = {}
    unreadable = 0
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            key = (int(record["step"]), str(record["phase"]), "eval/miou" in record)
        except (ValueError, TypeError, KeyError):
            unreadable += number < len(lines)
            continue
        records[key] = record
    return sorted(records.values(), key=lambda record: record["step"]), unreadable


def read_settings(path: Path) -> dict[str, Any]:
    """The settings in a run's ``config.yaml``."""
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{path.parent} is not the folder of a run: {path.name}: {error.strerror}"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as YAML: {error}") from error
    if not isinstance(config, dict):
        raise InputError(f"{path}: holds {type(config).__name__}, expected settings by name")
    return config


def _read_result(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not readable as JSON: {error}") from error
    count = len(result["columns"]) if isinstance(result, dict) and "columns" in result else 0
    if count not in (1, 2):
        raise InputError(f"{path}: has {count} columns of results, expected 1 or 2")
    return result


def _phase_ends(records: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Last step of each phase that has a record, in the order in which the phases ran."""
    ends: dict[str, int] = {}
    for record in records:
        ends[_spoken(record["phase"])] = record["step"]
    return dict(sorted(ends.items(), key=lambda item: item[1]))


def _phase_of(step: int, phases: Mapping[str, int]) -> str | None:
    """The phase that ``step`` belongs to; the last one for steps without a record yet."""
    return next(
        (phase for phase, end in phases.items() if step <= end), next(reversed(phases), None)
    )


def _score(share: float | None) -> str:
    return f"{percent(share)}\N{NO-BREAK SPACE}%"


def _spoken(key: Any) -> str:
    return str(key).replace("_", " ")


def _updates(columns: Sequence[Mapping[str, Any]]) -> str:
    each = ", ".join(f"{column['name']} {column['updates']}" for column in columns)
    caution = "; the columns differ in the length of training, too"
    differ = len({column["updates"] for column in columns}) > 1
    return f"Updates of the task network: {each}{caution if differ else ''}."


def _verdict(
    result: Mapping[str, Any] | None,
    records: Sequence[Mapping[str, Any]],
    phases: Mapping[str, int],
    config: Mapping[str, Any],
) -> str:
    """The outcome in one or two sentences."""
    schedule = config.get("schedule") or {}
    steps = [schedule.get(key, 0) for key in ("source_only_steps", "adaptation_steps")]
    if result is not None and len(result["columns"]) >= np.count_nonzero(steps):
        first, last = result["columns"][0], result["columns"][-1]
        if NO_VALUE in (percent(first["miou"]), percent(last["miou"])):
            return "The mIoU is undefined: no class was scored."
        if len(result["columns"]) == 1:
            return (
                f"{last['name'].capitalize()} reaches {_score(last['miou'])} mIoU. "
                "The run has one phase, so there is nothing to compare it with."
            )
        change = points(result_rows(result)[-1].difference)
        scores = f"from {percent(first['miou'])} to {_score(last['miou'])}"
        subject = "Adaptation" if last["name"] == "adapted" else "Longer training"
        if change == "0.0":
            return f"{subject} left the mIoU where it was, {scores}."
        verb = "gained" if change[0] == "+" else "lost"
        return f"{subject} {verb} {change[1:]} points of mIoU, {scores}."

    step = records[-1]["step"] if records else 0
    where = f", {_phase_of(step, phases)}" if phases else ""
    verdict = f"The run is not finished: step {step} of {sum(steps)}{where}."
    scored = [record for record in records if "eval/miou" in record]
    if scored:
        score, when = _score(scored[-1]["eval/miou"]), scored[-1]["step"]
        verdict += f" At its last evaluation, step {when}, the mIoU was {score}."
    return verdict


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def settings_by_section(config: Mapping[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """Settings with dotted names by their section; those of no section come first, as ``run``."""

    def flatten(prefix: str, value: Any) -> list[tuple[str, str]]:
        if not isinstance(value, dict):
            return [(prefix, "unset" if value is None else str(value))]
        return [line for key, inner in value.items() for line in flatten(f"{prefix}.{key}", inner)]

    top = [line for key, v in config.items() if not isinstance(v, dict) for line in flatten(key, v)]
    sections = {
        str(key): [line for inner, v in value.items() for line in flatten(str(inner), v)]
        for key, value in config.items()
        if isinstance(value, dict)
    }
    return {"run": top, **sections} if top else sections


def _choose_panels(folder: Path, phases: Mapping[str, int]) -> list[tuple[int, Path]]:
    """The last panel of each phase and a few spaced between, by step."""
    panels = {
        int(match[1]): path
        for path in folder.glob("step_*.jpg")
        if (match := re.fullmatch(r"step_(\d+)", path.stem))
    }
    last = {_phase_of(step, phases): step for step in sorted(panels)}
    others = sorted(set(panels) - set(last.values()))
    spaced = np.linspace(0, len(others) - 1, min(len(others), _PANELS_BETWEEN))
    chosen = {others[round(index)] for index in spaced}.union(last.values())
    return [(step, panels[step]) for step in sorted(chosen)]


def embed_into(
    images: list[dict[str, str | int]], broken: list[str], path: Path, caption: str
) -> None:
    """Add a JPEG file to ``images`` as a data URI, or its name to ``broken``."""
    data = path.read_bytes()
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if data else None
    if picture is None:
        broken.append(path.name)
        return
    while len(data) > _IMAGE_BYTES:
        picture = cv2.resize(picture, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA)
        data = encode_image(picture)
    uri = f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
    height, width = picture.shape[:2]
    images.append({"uri": uri, "caption": caption, "width": width, "height": height})


@dataclass(frozen=True)
class _Curve:
    label: str
    steps: list[int]
    values: list[float]
    phases: list[str]


def _charts(
    records: Sequence[Mapping[str, Any]], phases: Mapping[str, int]
) -> list[dict[str, str | Markup]]:
    """Title, description and inline SVG of every quantity that the run has logged."""
    keys = list(dict.fromkeys(key for record in records for key in record))
    pairs = {
        "Adversarial losses, input level": {
            "loss/img": "generators",
            "loss/d_img": "discriminator",
        },
        "Adversarial losses, output level": {
            "loss/out": "generators",
            "loss/d_out": "discriminator",
        },
    }
    paired = {key for pair in pairs.values() for key in pair}
    named = {
        "loss/total": "Total loss of the generators",
        "loss/seg": "Segmentation loss",
        "loss/depth": "Depth loss",
        "loss/self": "Self-training loss",
    }
    losses = [key for key in keys if key.startswith("loss/") and key not in paired]
    plan: dict[str, dict[str, str]] = {
        "mIoU on the target, %": {"eval/miou": "mIoU"},
        "Pixel accuracy on the target, %": {"eval/pixel_accuracy": "pixel accuracy"},
        **{named.get(key, _spoken(key)): {key: key} for key in losses},
        **pairs,
        "Learning rate": {key: _spoken(key[3:]) for key in keys if key.startswith("lr/")},
        "Pairs per second": {"pairs_per_second": "pairs per second"},
    }
    charts = []
    for title, labels in plan.items():
        evaluation = title.endswith("%")
        scale = 100 if evaluation else 1
        curves = [_curve(records, key, label, scale) for key, label in labels.items()]
        curves = [curve for curve in curves if curve.steps]
        if not curves:
            continue
        # an evaluation scores the weights that the next phase starts from: one line through all
        svg = _svg(curves, phases, prefix=f"chart{len(charts)}", unbroken=evaluation)
        ends = "; ".join(
            f"{curve.label} from {curve.values[0]:.3g} at step {curve.steps[0]} "
            f"to {curve.values[-1]:.3g} at step {curve.steps[-1]}"
            for curve in curves
        )
        charts.append({"title": title, "description": f"{title} over steps: {ends}.", "svg": svg})
    return charts


def _curve(records: Iterable[Mapping[str, Any]], key: str, label: str, scale: float) -> _Curve:
    have = [record for record in records if record.get(key) is not None]
    return _Curve(
        label,
        [record["step"] for record in have],
        [scale * float(record[key]) for record in have],
        [_spoken(record["phase"]) for record in have],
    )


def _thin(steps: list[int], values: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Means over equal numbers of neighbours, so that no more than ``_CHART_POINTS`` are left."""
    size = math.ceil(len(steps) / _CHART_POINTS)
    starts = np.arange(0, len(steps), size)
    counts = np.diff([*starts, len(steps)])
    return np.add.reduceat(steps, starts) / counts, np.add.reduceat(values, starts) / counts


def _svg(
    curves: Sequence[_Curve], phases: Mapping[str, int], prefix: str, unbroken: bool
) -> Markup:
    """A chart over steps, with a mark at each change of phase, as an element for HTML."""
    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": prefix,
        "font.size": 9,
        "text.parse_math": False,
        "text.color": _INK,
        "axes.edgecolor": _INK,
        "axes.labelcolor": _INK,
        "xtick.color": _INK,
        "ytick.color": _INK,
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(4.4, 2.5), layout="constrained")
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color=_INK, alpha=0.15, linewidth=0.6)
        for index, curve in enumerate(curves):
            _draw(axes, curve, _LINES[index % len(_LINES)], unbroken)
        last = max(step for curve in curves for step in curve.steps)
        axes.set_xlim(0, max(last, *phases.values()) * 1.01 or 1)
        axes.margins(y=0.08)
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}".replace("-", "−")))
        _mark_phases(axes, phases)
        if len(curves) > 1:
            axes.legend(frameon=False, fontsize=8, handlelength=1.4)
        text = StringIO()
        # a missing entry would be filled in, and the block of metadata names addresses
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    return _inline(text.getvalue(), prefix)


def _draw(axes: Any, curve: _Curve, colour: str, unbroken: bool) -> None:
    label = curve.label
    for phase in [None] if unbroken else dict.fromkeys(curve.phases):
        inside = [i for i, own in enumerate(curve.phases) if phase in (None, own)]
        steps, values = _thin([curve.steps[i] for i in inside], [curve.values[i] for i in inside])
        marker = "o" if len(steps) <= 12 else None
        axes.plot(
            steps, values, color=colour, linewidth=1.4, marker=marker, markersize=3, label=label
        )
        label = None


def _mark_phases(axes: Any, phases: Mapping[str, int]) -> None:
    """A line where a phase ends and the next begins, and the phases' names above the axes."""
    start, right = 0, axes.get_xlim()[1]
    for number, (phase, end) in enumerate(phases.items(), start=1):
        if number < len(phases):
            axes.axvline(end, color=_INK, alpha=0.5, linewidth=0.8, linestyle="--")
        centre = (start + end) / 2
        align = "right" if centre > 0.9 * right else "center"
        axes.text(
            end if align == "right" else centre,
            1.02,
            phase,
            transform=axes.get_xaxis_transform(),
            ha=align,
            va="bottom",
            fontsize=8,
            alpha=0.75,
        )
        start = end


def _inline(svg: str, prefix: str) -> Markup:
    """Fit a stand-alone SVG of matplotlib's for an HTML page that holds several of them."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'(url\(|href=")#', rf"\g<1>#{prefix}-", svg)
    for literal, colour in _STYLESHEET_COLOURS.items():
        svg = svg.replace(literal, colour)
    return Markup(svg)
