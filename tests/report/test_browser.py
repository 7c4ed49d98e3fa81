"""The reports in a real browser: at three widths, in light and dark, with mouse and keyboard."""

import json

import numpy as np
import pytest

from gioada_fast.config import Config, DataConfig, save_config
from gioada_fast.data.check import all_warnings, check_set, list_set
from gioada_fast.engine.run import write_report
from gioada_fast.engine.run_folder import RunFolder
from gioada_fast.labels import label_space
from gioada_fast.report.ablation_report import RowPictures, ablation_page
from gioada_fast.report.assessment_report import (
    UncertainFrame,
    assessment_page,
    uncertainty_pictures,
)
from gioada_fast.report.data_report import data_page
from gioada_fast.report.panels import comparison_panel, save_image, training_panel
from tests.browser import Browser, find_chromium
from tests.data import test_plausibility
from tests.report import test_ablation_report, test_run_report

LONG = "a_name_without_any_space_that_is_longer_than_the_screen_of_a_telephone"
SIZE = (64, 96)
PAGES = ("run", "ablation", "assessment", "data")
WIDTHS = {"phone": 390, "laptop": 1440}

random = np.random.default_rng(0)


def picture():
    return random.integers(0, 256, (*SIZE, 3), np.uint8)


def pictures(*keys):
    return [{key: picture() for key in keys} for _ in range(2)]


def write_run(folder):
    """A run with a control and a long name of a class."""
    (folder / "panels").mkdir(parents=True)
    data = DataConfig(height=SIZE[0], width=SIZE[1])
    save_config(Config(data=data, schedule=test_run_report.SCHEDULE), folder / "config.yaml")
    result = json.loads(json.dumps(test_run_report.WITH_CONTROL))
    result["classes"][0] = LONG
    for column in result["columns"]:
        column["iou"][LONG] = column["iou"].pop("sky")
    test_run_report.write_result(folder, result)
    records = [*test_run_report.records(), *test_run_report.control_records()]
    test_run_report.write_metrics(folder, records)
    target = ("target", "segmentation", "depth")
    panel = training_panel(pictures("source", "label", "source_depth", *target))
    save_image(folder / "panels" / "step_000500.jpg", panel)
    panel = training_panel(pictures("source", "translated", "label", "source_depth", *target))
    save_image(folder / "panels" / "step_000900.jpg", panel)
    save_image(folder / "panels" / "step_000600.jpg", np.zeros((50, 900, 3), np.uint8))
    panel = comparison_panel(pictures("target", "label", "source_only", "control", "adapted"))
    save_image(folder / "comparison.jpg", panel)
    return write_report(RunFolder(folder)).read_text(encoding="utf-8")


def write_ablation(folder):
    """Many rows, each with a spread."""
    summary = json.loads(json.dumps(test_ablation_report.SUMMARY))
    summary["settings"]["data"] = {"height": SIZE[0], "width": SIZE[1]}
    summary["classes"] = ["road", LONG]
    summary["colours"] *= 2
    row = summary["rows"][1]
    row["iou"][LONG] = row["iou"]["road"] = row["difference"] = {"mean": 0.0345, "std": 0.012}
    rows = [{**row, "name": f"row_{n}", "caption": f"row {n} of many"} for n in range(12)]
    summary["rows"] = rows
    panel = comparison_panel(pictures("target", "label", "adapted"))
    save_image(folder / "comparison.jpg", panel)
    files = {row["name"]: RowPictures(folder / "comparison.jpg", None) for row in rows}
    return ablation_page(summary, "row 0 of many", 9, files)


def write_assessment(_):
    space = label_space("camvid11")
    frames = [
        UncertainFrame(picture(), np.zeros(SIZE, np.uint8), *random.random((2, *SIZE)))
        for _ in range(2)
    ]
    names = ("entropy", "confidence", "teacher")
    networks = [
        {"file": "a", "run": LONG, "phase": "adaptation", "step": step, "miou": 0.01 * step,
         "scores": dict.fromkeys(names, 0.1 * step)}
        for step in (1, 2, 3)
    ]  # fmt: skip
    found = {"spearman": 0.5, "pearson": None, "spearman_within": -0.5, "preferred_miou": 0.3}
    summary = {
        "target": "CamVid",
        "images": 5,
        "scores": {key: {"caption": "mean", "higher_is_better": True} for key in names},
        "networks": networks,
        "correlations": {key: {**found, "networks": 3} for key in names},
        "command": "python -m gioada_fast.assess " + LONG,
    }
    return assessment_page(summary, [("last", uncertainty_pictures(frames, space))])


def write_data(folder):
    """A set with an unreadable file and a warning, beside one that cannot be listed."""
    frames = [frame.over(ids=frame.ids[:, ::-1]) for frame in test_plausibility.toys(count=5)]
    config = DataConfig(source=test_plausibility.write(folder / LONG, frames))
    next((folder / LONG).rglob("*0.png")).write_bytes(b"broken")
    space = label_space(config.label_space)
    reports = {"source": check_set(list_set(config, "source"), "source", space, workers=1)}
    missing = {"evaluation": f"/data/{LONG}: no such folder"}
    return data_page(reports, all_warnings(reports), missing, space)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    chromium = find_chromium()
    if chromium is None:
        pytest.skip("no Chromium or Chrome on PATH")
    with Browser(chromium, tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The HTML file of each page."""
    files = {}
    for name in PAGES:
        folder = tmp_path_factory.mktemp("reports") / name
        folder.mkdir()
        files[name] = folder / f"{name}.html"
        files[name].write_text(globals()[f"write_{name}"](folder), encoding="utf-8")
    return files


OVERFLOW = """(() => {
  const { scrollWidth, clientWidth } = document.documentElement;
  const wide = [...document.body.querySelectorAll("*")]
    .filter((element) => element.getBoundingClientRect().right > clientWidth + 1)
    .filter((element) => !element.closest(".scroll, svg, .whole"));
  return [...(scrollWidth > clientWidth ? [scrollWidth] : []), ...wide.map((e) => e.outerHTML)];
})()"""
BROKEN = "[...document.querySelectorAll('main img')].filter((image) => !image.naturalWidth).length"


@pytest.mark.parametrize("name", PAGES)
def test_nothing_overflows_or_fails(browser, pages, name, tmp_path):
    for kind, width in WIDTHS.items():
        for scheme in ("light", "dark"):
            browser.show(width, scheme)
            browser.open(pages[name])
            browser.screenshot(tmp_path / f"{name}_{kind}_{scheme}.png")
            assert browser.run(OVERFLOW) == [] and browser.problems() == []
    assert browser.run("document.querySelectorAll('main img').length") > 2
    assert browser.run(BROKEN) == 0
    browser.show(718, "dark", "print")  # an A4 page without its margins
    assert browser.run(OVERFLOW) == []
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    browser.screenshot(tmp_path / f"{name}_print.png")
    sizes = [file.stat().st_size for file in tmp_path.iterdir()]
    assert len(sizes) == 5 and min(sizes) > 10_000
    browser.show(1440, "dark")
    browser.pdf(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


def column(number):
    rows = "[...document.querySelector('table').tBodies[0].rows]"
    return f"{rows}.map((row) => row.cells[{number}].innerText)"


def test_tables_sort_by_number_and_by_name_and_back(browser, pages):
    browser.show(1440)
    browser.open(pages["run"])
    given = browser.run(column(4))
    click = "document.querySelectorAll('thead button')[{}].click()"
    assert sorted(given) == sorted(["−1.0", "+0.5", "0.0", "–", "–"])
    for expected in (["+0.5", "0.0", "−1.0", "–", "–"], ["−1.0", "0.0", "+0.5", "–", "–"], given):
        browser.run(click.format(4))
        assert browser.run(column(4)) == expected
    names = browser.run(column(0))
    for expected in (sorted(names), sorted(names, reverse=True), names):
        browser.run(click.format(0))
        assert browser.run(column(0)) == expected
    assert browser.run("document.querySelector('tfoot').innerText").startswith("mIoU")


def test_pictures_are_compared_by_keyboard_and_by_mouse(browser, pages):
    browser.show(1440)
    browser.open(pages["run"])
    state = (
        "[viewer.open, ...['left', 'right'].map(s => find(`select.${s}`).value),"
        " divider.value, find('#viewer-caption').innerText.split(', ').at(-1)]"
    )
    sources = "['left', 'right'].map(s => find(`img.${s}`).alt.split(',')[0])"
    browser.run("document.querySelector('.panel button').focus()")
    browser.press("Enter")
    assert browser.run(state) == [True, "control", "adapted", "50", "row 1 of 2"]
    browser.press("ArrowLeft")
    assert browser.run(state)[3] == "49"
    assert browser.run("getComputedStyle(find('img.right')).clipPath") == "inset(0px 0px 0px 49%)"
    browser.run("sides[0][1].value = 'source only'; sides[0][1].onchange(); find('.on').click()")
    assert browser.run(state)[4] == "row 2 of 2"
    assert browser.run(sources) == ["source only", "adapted"]
    assert browser.run(OVERFLOW) == []
    box = browser.run("(({left, top, width}) => [left, top, width])(stage.getBoundingClientRect())")
    x, y = box[0] + 0.75 * box[2], box[1] + 20
    for kind in ("mousePressed", "mouseReleased"):
        browser.call(
            "Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1,
            buttons=int(kind == "mousePressed"),
        )  # fmt: skip
    assert browser.run(state)[3] == "75"
    browser.press("Escape")
    assert not browser.run("viewer.open")
    # a click on a picture compares it with the one to its left
    browser.run("document.querySelectorAll('.panel')[2].querySelectorAll('img')[0].click()")
    assert browser.run("document.querySelectorAll('.panel').length") == 4
    browser.press("Escape")
    assert browser.problems() == []


@pytest.mark.parametrize("name", PAGES)
def test_without_scripts_a_page_shows_the_same(browser, pages, name):
    browser.show(1440)
    shown = (
        "[document.querySelectorAll('main :is(img, td)').length, document.body.scrollHeight > 500]"
    )
    browser.open(pages[name])
    with_scripts = browser.run(shown)
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(pages[name])
        assert browser.run(shown) == with_scripts and browser.run(BROKEN) == 0
        assert browser.run("document.querySelectorAll('main button').length") == 0
        assert browser.run("document.querySelector('dialog').clientHeight") == 0
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
