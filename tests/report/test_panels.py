import re
from itertools import pairwise

import cv2
import numpy as np
import pytest

from gioada_fast.errors import InputError
from gioada_fast.report.panels import (
    SOURCE_COLUMNS,
    TARGET_COLUMNS,
    TRAINING_LAYOUTS,
    colour_depth,
    comparison_panel,
    cut_grid,
    overlay,
    save_image,
    training_panel,
)

HEIGHT, WIDTH = 24, 90


def picture(value):
    return np.full((HEIGHT, WIDTH, 3), value, np.uint8)


def row(*left_out, start=10):
    keys = [*SOURCE_COLUMNS, *TARGET_COLUMNS]
    values = {key: start + 10 * number for number, key in enumerate(keys)}
    return {key: picture(value) for key, value in values.items() if key not in left_out}


def columns_at(panel, y):
    """(grey value, first x, last x) of each picture in a line of the panel."""
    line = panel[y, :, 0].astype(int)
    edges = [0, *(np.flatnonzero(np.diff(line)) + 1), len(line)]
    runs = [(line[a], a, b - 1) for a, b in pairwise(edges)]
    return [run for run in runs if run[0] != 255]


def test_near_is_brighter_than_far_and_invalid_is_black():
    depth = np.linspace(0, 1, 100, dtype=np.float32)[None].repeat(2, 0)
    valid = np.ones_like(depth, bool)
    valid[1] = False
    colours = colour_depth(depth, valid)
    assert colours.shape == (2, 100, 3) and colours.dtype == np.uint8
    luminance = colours[0] @ [0.299, 0.587, 0.114]
    assert luminance[-1] > 200 and luminance[0] < 60
    assert (np.diff(luminance) > -2).all()
    assert (colours[1] == 0).all()
    assert colours[0].any(axis=1).all(), "a valid far pixel must not look like an invalid one"


def test_depth_is_in_rgb_order():
    red, green, blue = colour_depth(np.ones((1, 1), np.float32))[0, 0]
    assert red > 200 and green > 200 and blue < 80, "plasma ends in yellow"


def test_depth_beyond_the_range_is_clamped_and_nan_is_black():
    colours = colour_depth(np.array([[-3, 0, 1, 7, np.nan]], np.float32))
    assert (colours[0, 0] == colours[0, 1]).all()
    assert (colours[0, 2] == colours[0, 3]).all()
    assert (colours[0, 4] == 0).all()


@pytest.mark.parametrize(("alpha", "expected"), [(0, 100), (0.25, 125), (1, 200)])
def test_overlay_mixes(alpha, expected):
    mixed = overlay(picture(100), picture(200), alpha)
    assert mixed.dtype == np.uint8 and (mixed == expected).all()


def test_overlay_of_different_sizes_names_both():
    with pytest.raises(ValueError, match=r"\[24, 90, 3\].*\[2, 2, 3\]"):
        overlay(picture(0), np.zeros((2, 2, 3), np.uint8))


def test_panel_has_every_picture_completely_and_in_order():
    panel = training_panel([row(), row(start=110)])
    height = panel.shape[0]
    for y, start in ((height - HEIGHT - 10, 10), (height - 10, 110)):
        found = columns_at(panel, y)
        assert [value for value, *_ in found] == [start + 10 * n for n in range(7)]
        assert all(last - first + 1 == WIDTH for _, first, last in found)
        gutters = [b[1] - a[2] - 1 for a, b in pairwise(found)]
        assert gutters[3] > 2 * gutters[0], "source and target are set apart"
        assert len({*gutters[:3], *gutters[4:]}) == 1


def test_every_column_has_a_caption_above_it():
    panel = training_panel([row()])
    captions = panel[: panel.shape[0] - HEIGHT - 3]
    for _, first, last in columns_at(panel, panel.shape[0] - 10):
        assert captions[:, first : last + 1].min() < 100
    assert (captions[0] == 255).all() and (captions[-1] == 255).all(), "no caption is cut off"


def test_translated_is_left_out_while_training_on_the_source_only():
    panel = training_panel([row("translated")])
    assert [value for value, *_ in columns_at(panel, panel.shape[0] - 10)] == [
        10,
        *range(30, 80, 10),
    ]


def test_panel_of_target_columns_only_has_no_gap_on_the_left():
    panel = training_panel([row(*SOURCE_COLUMNS)])
    found = columns_at(panel, panel.shape[0] - 10)
    assert len(found) == 3
    assert found[0][1] == panel.shape[1] - 1 - found[-1][2]


def test_comparison_has_four_columns():
    keys = ("target", "label", "source_only", "adapted")
    panel = comparison_panel([{key: picture(20 * n) for n, key in enumerate(keys, start=1)}])
    assert [value for value, *_ in columns_at(panel, panel.shape[0] - 10)] == [20, 40, 60, 80]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "at least one row"),
        ([row(), row("translated")], "same keys"),
        ([{"soruce": picture(0)}], "soruce"),
        ([{**row(), "depth": np.zeros((3, 3, 3), np.uint8)}], r"depth is uint8 \[3, 3, 3\]"),
        ([{**row(), "label": picture(0)[..., 0]}], r"label is uint8 \[24, 90\]"),
        ([{**row(), "target": picture(0) / 255}], "target is float64"),
    ],
)
def test_bad_rows_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        training_panel(rows)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.JPEG"])
def test_image_is_written_in_the_format_of_its_suffix(tmp_path, name):
    image = picture(0)
    image[..., 0] = 250
    save_image(tmp_path / name, image)
    data = (tmp_path / name).read_bytes()
    assert data.startswith(b"\x89PNG" if name.endswith("png") else b"\xff\xd8")
    read = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(read.astype(int) - image).max() <= (0 if name.endswith("png") else 4)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_single_channel_image_is_written_exactly(tmp_path, dtype):
    ids = np.arange(12, dtype=dtype).reshape(3, 4) * (np.iinfo(dtype).max // 12)
    save_image(tmp_path / "ids.png", ids)
    read = cv2.imread(str(tmp_path / "ids.png"), cv2.IMREAD_UNCHANGED)
    assert read.dtype == dtype and (read == ids).all()


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("a.jpg", np.zeros((2, 2), np.uint16)),
        ("a.png", np.zeros((2, 2, 3), np.uint16)),
        ("a.png", np.zeros((2, 2), np.float32)),
        ("a.png", np.zeros((3, 2, 2), np.uint8)),
    ],
)
def test_image_that_does_not_fit_the_format_is_refused(tmp_path, name, image):
    with pytest.raises(ValueError, match=re.escape(f"{image.dtype} {list(image.shape)}")):
        save_image(tmp_path / name, image)
    assert not list(tmp_path.iterdir())


def test_path_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(InputError, match=r"missing/a\.png"):
        save_image(tmp_path / "missing" / "a.png", picture(0))
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InputError, match=r"folder\.png"):
        save_image(tmp_path / "folder.png", picture(0))
    with pytest.raises(InputError, match=r"a\.gif.*expected \.jpg"):
        save_image(tmp_path / "a.gif", picture(0))
    assert [path.name for path in tmp_path.iterdir()] == ["folder.png"]


@pytest.mark.parametrize("left_out", [(), ("translated",)])
def test_a_panel_is_cut_into_the_pictures_that_it_was_drawn_from(left_out):
    rows = [row(*left_out), row(*left_out, start=110)]
    panel, columns = training_panel(rows), SOURCE_COLUMNS | TARGET_COLUMNS
    found = [cut_grid(panel, (HEIGHT, WIDTH), *layout) for layout in TRAINING_LAYOUTS]
    assert found[not left_out] is None
    for cut, drawn in zip(found[bool(left_out)], rows, strict=True):
        assert list(cut) == [columns[key] for key in columns if key in drawn]
        assert all((cut[columns[key]] == value).all() for key, value in drawn.items())
    assert cut_grid(panel, (HEIGHT + 1, WIDTH), *TRAINING_LAYOUTS[bool(left_out)]) is None
