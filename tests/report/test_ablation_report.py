from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from gioada_fast.report.ablation_report import RowPictures, ablation_page, tables, with_spread
from gioada_fast.report.formatting import NO_VALUE, points
from gioada_fast.report.panels import save_image

CONTROL = "source only, trained on"


def statistics(mean, std=None):
    return {"mean": mean, "std": std}


def row(name, caption, miou, difference, input_level="none", gap=None):
    return {
        "name": name,
        "caption": caption,
        "input_level": input_level,
        "output_level": "none",
        "self_training": False,
        "miou": statistics(miou, 0.01),
        "iou": {"road": statistics(miou)},
        "difference": statistics(difference),
        "gap_closed": gap,
        "seconds": statistics(90.0),
        "seeds": [{"seed": 3, "versions": {"torch": "2.11.0"}}],
    }


SUMMARY = {
    "name": "night",
    "target": "CamVid",
    "classes": ["road"],
    "colours": [[128, 64, 128]],
    "seeds": [3],
    "rows": [
        row("control", CONTROL, 0.4, 0.0),
        row("input", "input level with geometry", 0.43, 0.03, "geometry", gap=0.25),
    ],
    "command": "python -m gioada_fast.ablate",
    "settings": {"seed": 3},
}


def page(summary, pictures=None):
    return ablation_page(summary, CONTROL, 9, pictures or {})


def test_mean_and_deviation():
    assert with_spread(statistics(0.314)) == "31.4"
    assert with_spread(statistics(0.314, 0.02)) == "31.4 ±2.0"
    assert with_spread(statistics(-0.05, 0.02), points) == "−5.0 ±2.0"
    assert with_spread(statistics(None)) == NO_VALUE


def test_tables_show_every_row_and_class():
    console = Console(width=120, record=True, file=StringIO())
    for table in tables(SUMMARY, CONTROL):
        console.print(table)
    text = " ".join(console.export_text().split())
    for words in ("43.0 ±1.0", "+3.0", "25 %", "1.5", "road", f"Difference to '{CONTROL}'"):
        assert words in text, words


def test_verdict_names_the_largest_difference_of_a_row_that_adapts():
    best = "The largest difference to the control: +3.0 points, input level with geometry."
    assert best in page(SUMMARY)
    alone = {**SUMMARY, "rows": SUMMARY["rows"][:1]}
    assert "1 of 9 rows are finished, none to compare with the control yet." in page(alone)


@pytest.mark.parametrize("level", ["none", "geometry"])
def test_panels_are_shown_where_the_source_is_translated(tmp_path, level):
    for name in ("comparison.jpg", "panel.jpg"):
        save_image(tmp_path / name, np.zeros((8, 8, 3), np.uint8))
    pictures = {"input": RowPictures(tmp_path / "comparison.jpg", tmp_path / "panel.jpg")}
    rows = [{**each, "input_level": level} for each in SUMMARY["rows"]]
    html = page({**SUMMARY, "rows": rows}, pictures)
    assert html.count("data:image/webp") == (2 if level == "geometry" else 1)
    (tmp_path / "comparison.jpg").write_bytes(b"broken")
    assert "comparison.jpg could not be read and is left out." in page(SUMMARY, pictures)
