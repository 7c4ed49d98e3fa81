"""Reports on an ablation: tables for the terminal and a self-contained HTML page.

A summary is the content of ``ablation.json``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from .formatting import NO_VALUE, percent, points, settings_by_section
from .page import embed, render, unreadable_notes


@dataclass(frozen=True)
class RowPictures:
    """Pictures of one run of a row; None if there is no file."""

    comparison: Path | None
    panel: Path | None


def tables(summary: Mapping[str, Any], control: str) -> list[Table]:
    """A table of each row's mIoU, and a table of IoU by class with one numbered column per row.

    Args:
        summary: all scores.
        control: caption of the row that the others are compared with.
    """
    rows = summary["rows"]
    seeds = ", ".join(map(str, summary["seeds"]))
    rows_table = Table(
        caption=Text(
            f"mIoU in % on {summary['target']}; seeds {seeds}, ± standard deviation over them. "
            f"Difference to '{control}' in points; gap: this difference as a fraction of the "
            "oracle's difference."
        ),
        caption_justify="left",
    )
    rows_table.add_column("")
    rows_table.add_column("row")
    for heading in ("mIoU", "difference", "gap", "minutes"):
        rows_table.add_column(heading, justify="right")
    classes = Table(caption=Text("IoU in %, by row."), caption_justify="left")
    classes.add_column("class")
    for number, row in enumerate(rows, start=1):
        rows_table.add_row(
            str(number),
            Text(row["caption"]),
            with_spread(row["miou"]),
            with_spread(row["difference"], points),
            _gap(row),
            _minutes(row),
        )
        classes.add_column(str(number), justify="right")
    for name in summary["classes"]:
        classes.add_row(Text(name), *(with_spread(row["iou"][name]) for row in rows))
    return [rows_table, classes]


def ablation_page(
    summary: Mapping[str, Any],
    control: str,
    row_count: int,
    pictures: Mapping[str, RowPictures],
) -> str:
    """HTML page in a single file, with embedded pictures and no scripts.

    Args:
        summary: all scores.
        control: caption of the row that the others are compared with.
        row_count: number of rows in a complete ablation.
        pictures: pictures of each row's first seed, by row name. Panels are shown for rows that
            translate the source.
    """
    captions = {
        row["name"]: f"{row['caption'].capitalize()}, seed {row['seeds'][0]['seed']}"
        for row in summary["rows"]
    }
    translated = {row["name"] for row in summary["rows"] if row["input_level"] != "none"}
    comparisons = [
        (row.comparison, captions[name]) for name, row in pictures.items() if row.comparison
    ]
    panels = [
        (row.panel, captions[name])
        for name, row in pictures.items()
        if row.panel and name in translated
    ]
    unreadable: list[str] = []
    return render(
        "ablation_report.html",
        summary=summary,
        control=control,
        spread=with_spread,
        points=points,
        gap=_gap,
        minutes=_minutes,
        verdict=_verdict(summary, row_count),
        comparisons=embed(comparisons, unreadable),
        translations=embed(panels, unreadable),
        notes=unreadable_notes(unreadable),
        settings=settings_by_section(summary["settings"]),
    )


def with_spread(
    statistics: Mapping[str, float | None], number: Callable[[float | None], str] = percent
) -> str:
    """Mean ± standard deviation; ``number`` formats the mean: ``percent`` or ``points``."""
    mean, std = number(statistics["mean"]), statistics["std"]
    return mean if std is None else f"{mean} ±{percent(std)}"


def _gap(row: Mapping[str, Any]) -> str:
    fraction = row["gap_closed"]
    return NO_VALUE if fraction is None else f"{100 * fraction:.0f} %".replace("-", "−")


def _minutes(row: Mapping[str, Any]) -> str:
    return f"{row['seconds']['mean'] / 60:.1f}"


def _verdict(summary: Mapping[str, Any], row_count: int) -> str:
    rows = summary["rows"]
    scored = [row for row in rows if _adapts(row) and row["difference"]["mean"] is not None]
    if not scored:
        return (
            f"{len(rows)} of {row_count} rows are finished, none to compare with the control yet."
        )
    best = max(scored, key=lambda row: row["difference"]["mean"])
    change = with_spread(best["difference"], points)
    return f"The largest difference to the control: {change} points, {best['caption']}."


def _adapts(row: Mapping[str, Any]) -> bool:
    return row["self_training"] or (row["input_level"], row["output_level"]) != ("none", "none")
