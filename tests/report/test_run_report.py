import base64
import copy
import hashlib
import json
import re
from html.parser import HTMLParser
from io import StringIO

import cv2
import numpy as np
import pytest
from rich.console import Console

from gioada_fast.config import Config, ScheduleConfig, save_config
from gioada_fast.engine.run import write_report
from gioada_fast.engine.run_folder import RunFolder
from gioada_fast.errors import InputError
from gioada_fast.report.formatting import NO_VALUE, points
from gioada_fast.report.panels import save_image
from gioada_fast.report.run_report import result_table

SCHEDULE = ScheduleConfig(source_only_steps=500, adaptation_steps=400)

BEFORE = {"sky": 0.9, "road": 0.8123, "pole": 0.07, "car": 0.5, "rider": None}
AFTER = {"sky": 0.93, "road": 0.7811, "pole": 0.07, "car": None, "rider": None}
RESULT = {
    "target": "street scenes under clouds, a stand-in",
    "classes": list(BEFORE),
    "colours": [[128, 128, 128], [128, 64, 128], [192, 192, 128], [64, 0, 128], [0, 128, 192]],
    "columns": [
        {
            "name": "source only",
            "updates": 500,
            "iou": BEFORE,
            "miou": 0.57057,
            "pixel_accuracy": 0.712,
        },
        {"name": "adapted", "updates": 900, "iou": AFTER, "miou": 0.5937, "pixel_accuracy": 0.768},
    ],
    "seconds": 571.3,
    "command": "python -m gioada_fast.train --config street_scenes",
    "versions": {"torch": "2.11.0"},
}
CELLS = {
    "sky": ["90.0", "93.0", "+3.0"],
    "road": ["81.2", "78.1", "−3.1"],
    "pole": ["7.0", "7.0", "0.0"],
    "car": ["50.0", NO_VALUE, NO_VALUE],
    "rider": [NO_VALUE, NO_VALUE, NO_VALUE],
    "mIoU": ["57.1", "59.4", "+2.3"],
}


class Page(HTMLParser):
    """Content of a page: text, table rows by their header, images, attributes."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self, html):
        super().__init__()
        self.attributes, self.images, self.tags, self.open = [], [], set(), []
        self.scripts = 0
        self.rows, self.header, self.cells, self.text = {}, None, [], ""
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.scripts += tag == "script"
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag == "img" and "dialog" not in self.open:
            self.images.append(dict(attrs))
        if tag == "tr":
            self.header, self.cells = None, []
        if tag == "th" and ("scope", "row") in attrs:
            self.header = ""
        if tag == "td":
            self.cells.append("")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "tr" and self.header:
            self.rows[self.header] = self.cells

    def handle_data(self, data):
        if {"style", "script"} & {*self.open}:
            return
        self.text += data
        if self.open and self.open[-1] == "th" and self.header is not None:
            self.header += data.strip()
        elif self.open and self.open[-1] == "td":
            self.cells[-1] += data.strip()

    def scores(self):
        return {name: self.rows[name][:3] for name in CELLS}


def training(step, phase, **values):
    return {
        "step": step,
        "phase": phase,
        "loss/seg": 2 - step / 1000,
        "loss/total": 2.0,
        "lr/task": 1e-3,
        "pairs_per_second": 9.0,
        **values,
    }


def evaluation(step, phase, miou):
    return {"step": step, "phase": phase, "eval/miou": miou, "eval/pixel_accuracy": 0.7}


def records():
    yield from (training(step, "source_only") for step in range(20, 501, 20))
    yield evaluation(500, "source_only", 0.57)
    adversarial = {"loss/img": 0.4, "loss/d_img": 0.3, "loss/out": 0.2, "loss/d_out": 0.1}
    yield from (training(step, "adaptation", **adversarial) for step in range(520, 901, 20))
    yield evaluation(900, "adaptation", 0.594)


def write_metrics(run, lines, end="\n"):
    (run / "metrics.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + end)


def write_result(run, result=RESULT):
    (run / "result.json").write_text(json.dumps(result))


def build(run):
    return Page(write_report(RunFolder(run)).read_text(encoding="utf-8"))


def image(height=40, width=120):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


@pytest.fixture
def run(tmp_path):
    run = tmp_path / "night-7"
    (run / "panels").mkdir(parents=True)
    save_config(Config(schedule=SCHEDULE), run / "config.yaml")
    write_metrics(run, records())
    write_result(run)
    for step in range(100, 901, 100):
        save_image(run / "panels" / f"step_{step:06d}.jpg", image())
    save_image(run / "comparison.jpg", image())
    return run


def test_page_needs_nothing_from_outside(run):
    path = write_report(RunFolder(run))
    assert path == run / "report.html"
    page = Page(path.read_text(encoding="utf-8"))
    html = path.read_text(encoding="utf-8")
    assert page.tags.isdisjoint({"link", "iframe", "object", "base"})
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'\"" in html, "no other script may run"
    links = [value for _, name, value in page.attributes if name in ("src", "href", "xlink:href")]
    assert links and all(value.startswith(("data:image/webp;base64,", "#")) for value in links)
    assert not re.search(r"https?:|@import|url\((?!#)", html)
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]


def test_references_inside_the_page_are_unique_and_found(run):
    page = build(run)
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    used = {v[1:] for _, name, v in page.attributes if name == "href"}
    used |= {i for _, _, v in page.attributes for i in re.findall(r"url\(#([^)]+)\)", v or "")}
    assert used <= set(ids)


def test_table_shows_the_result(run):
    page = build(run)
    assert page.scores() == CELLS
    assert list(page.rows)[: len(CELLS)] == list(CELLS), "classes in order, mIoU last"
    assert "source only 500, adapted 900" in page.text
    assert "source only 71.2, adapted 76.8" in page.text
    assert "stand-in" in page.text
    assert "9 min 31 s" in page.text
    swatches = [v for tag, _, v in page.attributes if tag == "span" and v.startswith("background")]
    assert swatches[1] == "background: rgb(128, 64, 128)" and len(swatches) == 5


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        (0.57057, 0.5937, "Adaptation gained 2.3 points of mIoU, from 57.1 to 59.4\xa0%."),
        (0.5937, 0.57057, "Adaptation lost 2.3 points of mIoU, from 59.4 to 57.1\xa0%."),
        (0.5, 0.4998, "Adaptation did not change the mIoU, from 50.0 to 50.0\xa0%."),
        (0.5, None, "The mIoU is undefined: no class was scored."),
    ],
)
def test_verdict_states_the_result(run, before, after, verdict):
    result = copy.deepcopy(RESULT)
    result["columns"][0]["miou"], result["columns"][1]["miou"] = before, after
    write_result(run, result)
    assert verdict in build(run).text


CONTROL = {
    "name": "control",
    "updates": 900,
    "iou": {**AFTER, "sky": 0.94, "road": 0.7765, "car": 0.5},
    "miou": 0.5863,
    "pixel_accuracy": 0.75,
}
WITH_CONTROL = {
    **RESULT,
    "columns": [RESULT["columns"][0], CONTROL, RESULT["columns"][1]],
}
CELLS_WITH_CONTROL = {
    "sky": ["90.0", "94.0", "93.0", "−1.0"],
    "road": ["81.2", "77.6", "78.1", "+0.5"],
    "pole": ["7.0", "7.0", "7.0", "0.0"],
    "car": ["50.0", "50.0", NO_VALUE, NO_VALUE],
    "rider": [NO_VALUE, NO_VALUE, NO_VALUE, NO_VALUE],
    "mIoU": ["57.1", "58.6", "59.4", "+0.7"],
}


def control_records():
    yield from (training(step, "control") for step in range(520, 901, 20))
    yield evaluation(900, "control", 0.5863)


def test_a_control_is_a_third_column_that_the_gain_refers_to(run):
    write_result(run, WITH_CONTROL)
    before, after = (
        [r for r in records() if (r["phase"] == "adaptation") == late] for late in (False, True)
    )
    write_metrics(run, [*before, *control_records(), *after])
    page = build(run)
    assert {name: page.rows[name][:4] for name in CELLS} == CELLS_WITH_CONTROL
    assert (
        "Adaptation gained 0.7 points of mIoU over a control that trained as long on the source: "
        "59.4\xa0% against 58.6\xa0%."
    ) in page.text
    assert "difference to control in points" in page.text and "also differ" not in page.text
    described = " ".join(v for _, name, v in page.attributes if name == "aria-label")
    assert "mIoU from 57 at step 500 to 59.4 at step 900" in described
    assert "mIoU, control from 57 at step 500 to 58.6 at step 900" in described
    # panels between 500 and 900 show the adapted network
    assert "Step 900, adaptation" in page.text and ", control:" not in page.text
    assert cells_of(shown(WITH_CONTROL)) == [[n, *cells] for n, cells in CELLS_WITH_CONTROL.items()]


@pytest.mark.parametrize(
    ("miou", "verdict"),
    [
        (0.61, "Adaptation lost 1.6 points of mIoU against a control that trained as long"),
        (0.5937, "Adaptation gained no mIoU over a control that trained as long"),
        (None, "The mIoU is undefined: no class was scored."),
    ],
)
def test_verdict_against_a_control(run, miou, verdict):
    result = copy.deepcopy(WITH_CONTROL)
    result["columns"][1]["miou"] = miou
    write_result(run, result)
    assert verdict in build(run).text


@pytest.mark.parametrize("columns", [WITH_CONTROL["columns"][:2], WITH_CONTROL["columns"][1:2]])
def test_a_run_whose_control_has_ended_is_unfinished(run, columns):
    write_result(run, {**RESULT, "columns": columns})
    lines = [*control_records()]
    if len(columns) == 2:
        lines = [r for r in records() if r["phase"] == "source_only"] + lines
    write_metrics(run, lines)
    page = build(run)
    assert "not finished: step 900 of 900, control." in page.text
    assert "gained" not in page.text and "difference to control" not in page.text


def test_run_of_one_phase_has_no_difference(run):
    save_config(Config(schedule=ScheduleConfig(adaptation_steps=0)), run / "config.yaml")
    write_result(run, {**RESULT, "columns": RESULT["columns"][:1]})
    page = build(run)
    assert {name: page.rows[name] for name in CELLS} == {n: c[:1] for n, c in CELLS.items()}
    assert "Source only reaches 57.1\xa0% mIoU" in page.text
    assert "difference" not in page.text and "gained" not in page.text


@pytest.mark.parametrize(
    ("difference", "text"),
    [(0.0314, "+3.1"), (-0.0314, "−3.1"), (-0.0004, "0.0"), (0.0, "0.0"), (None, NO_VALUE)],
)
def test_points_have_their_sign(difference, text):
    assert points(difference) == text


def test_pictures_are_embedded_with_alternative_texts(run):
    page = build(run)
    assert len(page.images) == 7
    for picture in page.images:
        assert len(picture["alt"]) > 20
        data = base64.b64decode(picture["src"].split(",", 1)[1])
        shape = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape
        assert shape[:2] == (int(picture["height"]), int(picture["width"])) == (40, 120)
    # the last one of each phase, and four others
    steps = [int(step) for step in re.findall(r"Step (\d+), (?:source only|adaptation)", page.text)]
    assert {500, 900} <= set(steps) and len(steps) == 6 and steps == sorted(steps)
    assert "Step 500, source only" in page.text and "Step 900, adaptation" in page.text


def test_curves_are_described_and_mark_the_phases(run):
    page = build(run)
    described = [value for _, name, value in page.attributes if name == "aria-label"]
    assert any(
        "mIoU from 57 at step 500 to 59.4 at step 900" in description for description in described
    )
    titles = ("Segmentation loss", "Learning rate", "Pairs per second", "input level", "mIoU on")
    assert all(title in page.text for title in titles)
    assert "Depth loss" not in page.text, "nothing was logged under loss/depth"
    assert page.text.count("adaptation") > len(titles)


def test_settings_and_versions_are_listed(run):
    page = build(run)
    assert page.rows["adaptation_steps"] == ["400"]
    assert page.rows["source.look"] == ["day"]
    assert page.rows["pretrained"] == ["unset"]
    assert page.rows["torch"] == ["2.11.0"]


def test_markup_in_names_stays_text(run):
    evil = '<script>alert("x")</script>'
    result = copy.deepcopy(RESULT)
    result["classes"][0] = evil
    for column in result["columns"]:
        column["iou"][evil] = column["iou"].pop("sky")
    result.update(target=evil, command=evil, versions={"torch": evil})
    write_result(run, result)
    write_metrics(run, [training(20, evil, **{"lr/$x^{<script>": 1.0, "loss/<b>$": 1.0})])
    renamed = run.rename(run.with_name("<img src=x onerror=alert(1)> & co"))
    page = build(renamed)
    assert page.scripts == 1 and len(page.images) == 6
    assert "<img src=x onerror=alert(1)> & co" in page.text
    assert page.rows[evil][:3] == CELLS["sky"]
    assert page.rows["torch"] == [evil]
    assert "$x^{<script>" in page.text
    assert "<b>$" in page.text


def test_unfinished_run_is_called_unfinished(run):
    (run / "result.json").unlink()
    (run / "comparison.jpg").unlink()
    write_metrics(run, [record for record in records() if record["step"] <= 560])
    page = build(run)
    assert "not finished: step 560 of 900, adaptation" in page.text
    assert "last evaluation, step 500, the mIoU was 57.0\xa0%" in page.text
    assert "mIoU" not in page.rows


def test_run_between_its_phases_is_unfinished_and_shows_its_scores(run):
    write_result(run, {**RESULT, "columns": RESULT["columns"][:1]})
    write_metrics(run, [record for record in records() if record["step"] <= 560])
    page = build(run)
    assert "not finished: step 560 of 900" in page.text
    assert page.rows["mIoU"] == ["57.1"]


def test_run_without_records(tmp_path):
    save_config(Config(schedule=SCHEDULE), tmp_path / "config.yaml")
    page = build(tmp_path)
    assert "not finished: step 0 of 900." in page.text
    assert page.images == [] and "Curves" not in page.text


def test_broken_last_line_is_ignored_and_others_are_reported(run):
    complete = write_report(RunFolder(run)).read_text(encoding="utf-8")
    write_metrics(run, records(), end='\n{"step": 920, "phase": "adap')
    assert write_report(RunFolder(run)).read_text(encoding="utf-8") == complete
    lines = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join([lines[0][:-9], "17", *lines[1:]]))
    assert "Unreadable lines of metrics.jsonl, left out: 2." in build(run).text


def test_steps_logged_again_by_a_resumed_run_count_once(run):
    first = [training(step, "source_only", **{"loss/seg": 9.0}) for step in (20, 40, 60)]
    again = [training(step, "source_only", **{"loss/seg": 1.0}) for step in (40, 60, 80)]
    write_metrics(run, [*first, evaluation(60, "source_only", 0.1), *again])
    found, unreadable = RunFolder(run).read_metrics()
    losses = [(r["step"], r["loss/seg"]) for r in found if "loss/seg" in r]
    assert losses == [(20, 9.0), (40, 1.0), (60, 1.0), (80, 1.0)]
    assert len(found) == 5 and unreadable == 0


def test_broken_picture_is_left_out_and_reported(run):
    (run / "panels" / "step_000900.jpg").write_bytes(b"\xff\xd8 half a file")
    page = build(run)
    assert "step_000900.jpg could not be read" in page.text
    assert len(page.images) == 6


def test_long_run_with_large_pictures_stays_below_5_mb(run):
    for step in range(100, 901, 100):
        save_image(run / "panels" / f"step_{step:06d}.jpg", image(1200, 1700))
    save_image(run / "comparison.jpg", image(1200, 1700))
    noise = np.random.default_rng(0)
    lines = (
        training(
            20 * n, "source_only", **{"loss/seg": noise.random(), "loss/depth": noise.random()}
        )
        for n in range(1, 12_000)
    )
    write_metrics(run, lines)
    assert (run / "panels" / "step_000900.jpg").stat().st_size > 1_000_000
    assert write_report(RunFolder(run)).stat().st_size < 5_000_000


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.yaml", None, "not the folder of a run"),
        ("config.yaml", "a: [", r"config\.yaml, line 1: .*not readable as YAML"),
        ("config.yaml", "- a", r"config\.yaml: has a list"),
        ("result.json", "{", r"result\.json: not readable as JSON"),
        ("result.json", '{"columns": []}', r"result\.json: has 0 columns"),
    ],
)
def test_bad_folder_is_refused_and_named(run, name, content, message):
    (run / name).unlink()
    if content is not None:
        (run / name).write_text(content)
    with pytest.raises(InputError, match=message):
        write_report(RunFolder(run))
    assert not (run / "report.html").exists()


def shown(result):
    console = Console(width=100, record=True, file=StringIO())
    console.print(result_table(result))
    return console.export_text()


def cells_of(text):
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines()]
    return [row for row in rows if row]


def test_table_for_the_terminal_shows_the_result():
    text = shown(RESULT)
    assert cells_of(text) == [[name, *cells] for name, cells in CELLS.items()]
    caption = " ".join(text[text.rindex("┘") + 1 :].split())
    assert "a stand-in" in caption and "source only 500, adapted 900" in caption


def test_table_for_the_terminal_with_one_column():
    text = shown({**RESULT, "columns": RESULT["columns"][1:]})
    assert "difference" not in text and "source only" not in text
    assert re.search(r"mIoU\s+│\s+59\.4 │", text)


def test_terminal_markup_in_names_is_printed_as_text():
    result = copy.deepcopy(RESULT)
    result["classes"][0] = "[red]sky[/nope]"
    for column in result["columns"]:
        column["iou"]["[red]sky[/nope]"] = column["iou"].pop("sky")
    assert "[red]sky[/nope]" in shown(result)
