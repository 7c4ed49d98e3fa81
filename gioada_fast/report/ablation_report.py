"""Reports on an ablation: tables for the terminal and a self-contained HTML page.

A summary is the content of ``ablation.json``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from .formatting import NO_VALUE, percent, points, settings_by_section, spaced
from .page import Panel, embed, picture_size, read_pictures, render, unreadable_notes
from .panels import TRAINING_LAYOUTS


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
    """HTML page in a single file, with embedded pictures.

    Args:
        summary: all scores.
        control: caption of the row that the others are compared with.
        row_count: number of rows in a complete ablation.
        pictures: pictures of each row's first seed, by row name. Panels are shown for rows that
            translate the source.
    """
    unreadable: list[str] = []
    comparisons, translations = _panels(summary, pictures, unreadable)
    return render(
        "ablation_report.html",
        summary=summary,
        control=control,
        spread=with_spread,
        points=points,
        gap=_gap,
        minutes=_minutes,
        verdict=_verdict(summary, row_count),
        comparisons=comparisons,
        translations=translations,
        notes=unreadable_notes(unreadable),
        settings=settings_by_section(summary["settings"]),
    )


def _panels(
    summary: Mapping[str, Any], pictures: Mapping[str, RowPictures], unreadable: list[str]
) -> tuple[list[Panel], list[Panel]]:
    """Evaluation frames with the segmentations of all rows side by side, and translations.

    Args:
        summary: all scores.
        pictures: as in ``ablation_page``.
        unreadable: names of files that cannot be read are appended to it.
    """
    seeds = {row["name"]: row["seeds"][0]["seed"] for row in summary["rows"]}
    captions = {
        row["name"]: f"{row['caption'][:1].upper()}{row['caption'][1:]}, seed {seeds[row['name']]}"
        for row in summary["rows"]
    }
    translated = {row["name"] for row in summary["rows"] if row["input_level"] != "none"}
    size = picture_size(summary["settings"])
    frames: list[dict[str, np.ndarray]] = []
    comparisons, translations = [], []
    for name, files in pictures.items():
        column = spaced(name)
        if files.comparison:
            found = read_pictures(files.comparison, size, [["target", "ground truth", column]])
            if found is None:
                unreadable.append(files.comparison.name)
            elif column in found[0] and len(found) == len(frames or found):
                frames = [a | b for a, b in zip(frames or found, found, strict=True)]
            else:
                comparisons.append(embed(captions[name], found))
        if files.panel and name in translated:
            found = read_pictures(files.panel, size, *TRAINING_LAYOUTS)
            if found is None:
                unreadable.append(files.panel.name)
            else:
                translations.append(embed(captions[name], found))
    if frames:
        shown = ", ".join(str(seed) for seed in sorted(set(seeds.values())))
        comparisons.insert(0, embed(f"Segmentation by each row, seed {shown}", frames))
    return comparisons, translations


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
