"""Reports on label-free scores: tables for the terminal and a self-contained HTML page.

A summary is the content of ``assessment.json``.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from rich.table import Table
from rich.text import Text

from ..labels import LabelSpace
from .charts import points_chart
from .formatting import NO_VALUE, percent, spaced
from .page import embed, render
from .panels import colour_depth, colour_share


class UncertainFrame(NamedTuple):
    """An image that a network is not sure of, and what the network predicts for it."""

    image: np.ndarray
    """RGB uint8 [H, W, 3]."""
    labels: np.ndarray
    """uint8 [H, W] train ids."""
    entropy: np.ndarray
    """[H, W] in [0, 1]."""
    depth: np.ndarray
    """[H, W], encoded."""


def uncertainty_pictures(
    frames: Sequence[UncertainFrame], space: LabelSpace
) -> list[dict[str, np.ndarray]]:
    """One row per image: image, segmentation, entropy and depth; RGB uint8 [H, W, 3]."""
    return [
        {
            "target": frame.image,
            "segmentation": space.colourise(frame.labels),
            "entropy": colour_share(frame.entropy),
            "predicted depth": colour_depth(frame.depth),
        }
        for frame in frames
    ]


def tables(summary: Mapping[str, Any]) -> list[Table]:
    """A table of all scores, and one of the correlations if there are any."""
    scores, networks = summary["scores"], summary["networks"]
    table = Table(
        caption=Text(f"{_images(summary)}. ↑: high is better, ↓: low is better; bold: best."),
        caption_justify="left",
        box=None,
        padding=(0, 1, 0, 0),
    )
    table.add_column("network", overflow="fold")
    for name, score in scores.items():
        # headings are folded, numbers are not
        table.add_column(f"{name} {_arrow(score)}", justify="right", overflow="fold", width=5)
    if summary["correlations"]:
        table.add_column("mIoU %", justify="right")
    preferred = _preferred(summary)
    for index, network in enumerate(networks):
        cells = [
            Text(_number(network["scores"][name]), "bold" if preferred[name] == index else "")
            for name in scores
        ]
        if summary["correlations"]:
            cells.append(Text(percent(network["miou"])))
        table.add_row(Text(network_name(network, ",\n")), *cells)
    return [table, *([_correlation_table(summary)] if summary["correlations"] else [])]


def _correlation_table(summary: Mapping[str, Any]) -> Table:
    best = max((n["miou"] for n in summary["networks"] if n["miou"] is not None), default=None)
    table = Table(
        caption=Text(
            "Correlation with the mIoU; 1: the score orders the networks as the mIoU does. within: "
            f"mean over the runs with three or more networks. The best mIoU is {percent(best)}."
        ),
        caption_justify="left",
    )
    table.add_column("score")
    for heading in ("Spearman", "Pearson", "Spearman within", "mIoU of its choice %", "networks"):
        table.add_column(heading, justify="right")
    for name, found in summary["correlations"].items():
        table.add_row(name, *_cells(found))
    return table


def _cells(found: Mapping[str, Any]) -> list[str]:
    numbers = (found["spearman"], found["pearson"], found["spearman_within"])
    return [
        *(NO_VALUE if value is None else f"{value:+.2f}".replace("-", "−") for value in numbers),
        percent(found["preferred_miou"]),
        str(found["networks"]),
    ]


def assessment_page(
    summary: Mapping[str, Any],
    panels: Sequence[tuple[str, Sequence[Mapping[str, np.ndarray]]]],
) -> str:
    """HTML page in a single file.

    Args:
        summary: all scores.
        panels: caption and ``uncertainty_pictures`` of some networks.
    """
    return render(
        "assessment_report.html",
        summary=summary,
        about=_images(summary),
        arrows={name: _arrow(score) for name, score in summary["scores"].items()},
        names=[network_name(network) for network in summary["networks"]],
        preferred=_preferred(summary),
        number=_number,
        cells=_cells,
        charts=_charts(summary),
        panels=[embed(caption, rows) for caption, rows in panels],
    )


def network_name(network: Mapping[str, Any], separator: str = ", ") -> str:
    """Run, phase and step of a network, or its file."""
    if network["step"] is None:
        return str(network["file"])
    return f"{network['run']}{separator}{spaced(network['phase'])} {network['step']}"


def _images(summary: Mapping[str, Any]) -> str:
    count = summary["images"]
    return f"Mean over {count} image{'' if count == 1 else 's'} of {summary['target']}"


def _arrow(score: Mapping[str, Any]) -> str:
    return "↑" if score["higher_is_better"] else "↓"


def _number(value: float | None) -> str:
    return NO_VALUE if value is None else f"{value:.3f}"


def _preferred(summary: Mapping[str, Any]) -> dict[str, int | None]:
    """Index of the network that each score prefers; None if all lack it, or one is alone."""
    found: dict[str, int | None] = {}
    for name, score in summary["scores"].items():
        values = [
            (value if score["higher_is_better"] else -value, -index)
            for index, network in enumerate(summary["networks"])
            if (value := network["scores"][name]) is not None
        ]
        found[name] = -max(values)[1] if len(values) > 1 else None
    return found


def _charts(summary: Mapping[str, Any]) -> list[dict[str, str | Markup]]:
    """A chart per score: against the mIoU if it is known, otherwise over the steps of each run."""
    drawn: list[dict[str, str | Markup]] = []
    correlations = summary["correlations"]
    for name, score in summary["scores"].items():
        series: dict[str, list[tuple[float, float]]] = {}
        for network in summary["networks"]:
            value = network["scores"][name]
            x, y = (value, network["miou"]) if correlations else (network["step"], value)
            if x is not None and y is not None:
                series.setdefault(network["run"], []).append((x, 100 * y if correlations else y))
        count = sum(map(len, series.values()))
        if count < 2:
            continue
        title = f"{score['caption'].capitalize()}\N{NO-BREAK SPACE}{_arrow(score)}"
        x_label, y_label = (name, "mIoU, %") if correlations else ("step", name)
        svg = points_chart(series, x_label, y_label, f"score{len(drawn)}", joined=not correlations)
        description = f"{title}: {y_label} over {x_label}, {count} networks of {len(series)} runs."
        drawn.append({"title": title, "description": description, "svg": svg})
    return drawn
