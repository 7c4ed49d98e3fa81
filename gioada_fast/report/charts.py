"""Curves of a run's metrics as inline SVG that follows the reader's colour scheme."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ..config import CONTROL
from .formatting import spaced

_MAX_POINTS = 400
"""Number of points of a curve; longer curves are averaged over neighbours."""

# Matplotlib writes literal colours, which are replaced by CSS names that follow the reader's colour
# scheme.
_INK = "#000001"
_LINES = tuple(f"#00000{n}" for n in range(2, 8))
_STYLESHEET_COLOURS = {
    _INK: "currentColor",
    **{line: f"var(--line-{n})" for n, line in enumerate(_LINES, start=1)},
}


@dataclass(frozen=True)
class _Curve:
    label: str
    steps: list[int]
    values: list[float]
    phases: list[str]
    dashed: bool = False


def charts(
    records: Sequence[Mapping[str, Any]], phases: Mapping[str, int]
) -> list[dict[str, str | Markup]]:
    """Title, description and inline SVG of a chart for every logged quantity.

    The control is a dashed curve beside adaptation, in the charts of what both of them have.

    Args:
        records: records of ``metrics.jsonl``.
        phases: last step of each phase but the control.
    """
    control = [record for record in records if record["phase"] == CONTROL]
    records = [record for record in records if record["phase"] != CONTROL]
    scored = [r for r in records if r["phase"] == "source_only" and "eval/miou" in r]
    branch = scored[-1:]  # the weights that the control starts from
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
        **{
            f"Label-free score: {key.partition('/')[2]}": {key: key}
            for key in keys
            if key.startswith("label_free/")
        },
        **{named.get(key, spaced(key)): {key: key} for key in losses},
        **pairs,
        "Learning rate": {key: spaced(key[3:]) for key in keys if key.startswith("lr/")},
        "Pairs per second": {"pairs_per_second": "pairs per second"},
    }
    drawn: list[dict[str, str | Markup]] = []
    for title, labels in plan.items():
        evaluation = title.endswith("%")
        scale = 100 if evaluation else 1
        curves = [_curve(records, key, label, scale) for key, label in labels.items()]
        for key, label in labels.items() if control else ():
            if evaluation or key in ("loss/seg", "loss/depth"):
                own = [*branch, *control] if evaluation else control
                curve = _curve(own, key, f"{label}, control", scale)
                curves.append(replace(curve, dashed=True))
        curves = [curve for curve in curves if curve.steps]
        if not curves:
            continue
        # one line through all phases, because a phase starts from weights that were just scored
        svg = _svg(curves, phases, prefix=f"chart{len(drawn)}", unbroken=evaluation)
        ends = "; ".join(
            f"{curve.label} from {curve.values[0]:.3g} at step {curve.steps[0]} "
            f"to {curve.values[-1]:.3g} at step {curve.steps[-1]}"
            for curve in curves
        )
        drawn.append({"title": title, "description": f"{title} over steps: {ends}.", "svg": svg})
    return drawn


def _curve(records: Iterable[Mapping[str, Any]], key: str, label: str, scale: float) -> _Curve:
    have = [record for record in records if record.get(key) is not None]
    return _Curve(
        label,
        [record["step"] for record in have],
        [scale * float(record[key]) for record in have],
        [spaced(record["phase"]) for record in have],
    )


def _thin(steps: list[int], values: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Average equal numbers of neighbours, so that at most ``_MAX_POINTS`` points are left."""
    size = math.ceil(len(steps) / _MAX_POINTS)
    starts = np.arange(0, len(steps), size)
    counts = np.diff([*starts, len(steps)])
    return np.add.reduceat(steps, starts) / counts, np.add.reduceat(values, starts) / counts


def _svg(
    curves: Sequence[_Curve], phases: Mapping[str, int], prefix: str, unbroken: bool
) -> Markup:
    """A chart over steps as an HTML element, with a line at each change of phase."""

    def draw(axes: Any) -> None:
        for index, curve in enumerate(curves):
            _draw(axes, curve, _LINES[index % len(_LINES)], unbroken)
        last = max(step for curve in curves for step in curve.steps)
        axes.set_xlim(0, max([last, *phases.values()]) * 1.01 or 1)
        axes.margins(y=0.08)
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        _mark_phases(axes, phases)
        if len(curves) > 1:
            axes.legend(frameon=False, fontsize=8, handlelength=1.4)

    return _drawn(draw, prefix)


def _drawn(draw: Callable[[Any], None], prefix: str) -> Markup:
    """A chart as an HTML element; ``draw`` gets its axes, ``prefix`` is unique on the page."""
    settings: Any = {  # matplotlib's stubs spell out every key
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
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}".replace("-", "−")))
        draw(axes)
        text = StringIO()
        # matplotlib fills in missing entries, and its metadata block contains URLs
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    return _inline(text.getvalue(), prefix)


def points_chart(
    series: Mapping[str, Sequence[tuple[float, float]]],
    x_label: str,
    y_label: str,
    prefix: str,
    joined: bool,
) -> Markup:
    """A chart of points (x, y) by the name of their series, as an HTML element.

    Args:
        series: at least one point in all; colours repeat after six series.
        x_label: caption of the horizontal axis.
        y_label: caption of the vertical axis.
        prefix: unique on the page.
        joined: whether a line joins the points of a series.
    """

    def draw(axes: Any) -> None:
        for index, (name, points) in enumerate(series.items()):
            axes.plot(
                *zip(*points, strict=True),
                color=_LINES[index % len(_LINES)],
                marker="o",
                markersize=3,
                linewidth=1.4 if joined else 0,
                label=name,
            )
        axes.margins(0.05)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        if 1 < len(series) <= len(_LINES):
            axes.legend(frameon=False, fontsize=8, handlelength=1.4)

    return _drawn(draw, prefix)


def _draw(axes: Any, curve: _Curve, colour: str, unbroken: bool) -> None:
    label: str | None = curve.label
    for phase in [None] if unbroken else dict.fromkeys(curve.phases):
        inside = [i for i, own in enumerate(curve.phases) if phase in (None, own)]
        steps, values = _thin([curve.steps[i] for i in inside], [curve.values[i] for i in inside])
        marker = "o" if len(steps) <= 12 else None
        style = {"linestyle": "--" if curve.dashed else "-", "marker": marker, "markersize": 3}
        axes.plot(steps, values, color=colour, linewidth=1.4, label=label, **style)
        label = None


def _mark_phases(axes: Any, phases: Mapping[str, int]) -> None:
    """Draw a line between phases, and the phases' names above the axes."""
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
    """Adapt a stand-alone SVG file of matplotlib for an HTML page with several of them."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'(url\(|href=")#', rf"\g<1>#{prefix}-", svg)
    for literal, colour in _STYLESHEET_COLOURS.items():
        svg = svg.replace(literal, colour)
    return Markup(svg)
