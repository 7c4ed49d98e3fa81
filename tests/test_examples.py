"""Every program and notebook of ``examples/`` runs, with few steps, and shows what it claims."""

import contextlib
import importlib.util
import io
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from gioada_fast.engine.networks import load_task
from gioada_fast.integrations.transformers import _FusedModel

from .commands import command

EXAMPLES = Path(__file__).parents[1] / "examples"
PROGRAMS = sorted(EXAMPLES.glob("*.py"))


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """Commands that an example starts run here, which saves the imports of a new process."""

    def run(words, text=False, capture_output=False):
        assert words[:2] == [sys.executable, "-m"]
        done = command(words[2].removeprefix("gioada_fast."), *words[3:], cwd=Path())
        if not capture_output:
            print(done.stdout)
            print(done.stderr, file=sys.stderr)
        return subprocess.CompletedProcess(words, done.returncode, done.stdout, done.stderr)

    monkeypatch.setattr(subprocess, "run", run)
    # The charts of a report take seconds, and say nothing after a few updates.
    monkeypatch.setattr("gioada_fast.report.run_report.charts", lambda *_: [])


@pytest.fixture
def example(tmp_path, monkeypatch):
    """Call with the name of an example and its arguments: exit status, output, and its names."""

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        monkeypatch.chdir(tmp_path)
        out, status, scope = io.StringIO(), 0, {}
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            try:
                scope = runpy.run_path(str(EXAMPLES / name), run_name="__main__")
            except SystemExit as stop:
                status = stop.code
        return status, out.getvalue(), scope

    return run


def losses(text: str) -> list[float]:
    """First and last loss that a program prints."""
    return [float(loss) for loss in re.findall(r"step \d+: loss ([\d.]+)", text)]


def test_own_folder(example, tmp_path):
    # The default, pt2, takes seconds to trace; tests/test_export.py has it.
    start = "own_folder.py", "--output", "demo", "--format", "folder", "--steps", 1
    status, text, _ = example(*start)
    assert status == 0, text
    demo = tmp_path / "demo"
    assert text.count("pixel accuracy") == 2 and "data/labelled: 24" in text  # control, adapted
    photos = sorted(demo.glob("data/photos/rgb/*.png"))
    predictions = sorted(demo.glob("predictions/*_ids.png"))
    assert len(photos) == len(predictions) == 24
    assert np.isin(cv2.imread(str(predictions[0]), cv2.IMREAD_UNCHANGED), [0, 1, 2]).all()
    _, space, _ = load_task(demo / "network/model.safetensors")
    assert space.classes == ("sky", "ground", "box")

    status, text, _ = example(*start)
    assert status == 2 and "is not overwritten" in text  # the run


def test_own_folder_of_the_user(example, tmp_path):
    status, text, _ = example("own_folder.py", "--output", "mine", "--data", "nowhere")
    assert status == 2 and "nowhere/renders" in text and "Traceback" not in text


def test_own_classes(example, tmp_path):
    status, text, _ = example("own_classes.py", "--output", "bench", "--steps", 1)
    assert status == 0, text
    bench = tmp_path / "bench"
    assert "the weights know their classes: table, screw, washer" in text
    _, space, _ = load_task(bench / "run/task.safetensors")
    assert space.classes == ("table", "screw", "washer")
    drawn = cv2.imread(str(bench / "drawn/ids/000.png"), cv2.IMREAD_UNCHANGED)
    assert drawn.dtype == np.uint16 and set(np.unique(drawn)) <= {0, 300, 301, 999}
    saved = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in (bench / "ids").iterdir()]
    assert len(saved) == 24 and np.isin(saved, [1, 10, 20]).all()


def test_training_loop(example):
    status, text, _ = example("training_loop.py", "--steps", 20)
    assert status == 0, text
    first, last = losses(text)
    assert last < 0.8 * first
    found = dict(re.findall(r"(\w+)_loss: ([\d.]+), [\d.]+ ms", text))
    assert float(found["fused"]) == pytest.approx(float(found["plain"]), rel=1e-5)
    assert re.search(r"IoU wall \d+ %, floor \d+ %, ball (\d+|nan) %", text)


def test_transformers_model(example):
    pytest.importorskip("transformers")
    status, text, scope = example("transformers_model.py", "--steps", 12)
    assert status == 0, text
    first, last = losses(text)
    assert last < first
    assert re.search(r"mIoU [\d.]+ %\na step takes [\d.]+ s fused, [\d.]+ s without", text)
    model, batch = scope["model"].eval(), scope["batch"]
    assert not isinstance(model, _FusedModel)
    with torch.no_grad():
        plain, fused = model(**batch).loss, scope["fuse_loss"](model)(**batch).loss
    torch.testing.assert_close(fused, plain)


@pytest.mark.parametrize("program", [path.name for path in PROGRAMS])
@pytest.mark.parametrize("steps", ["0", "many"])
def test_bad_steps(example, program, steps):
    if "transformers" in program:
        pytest.importorskip("transformers")
    output = ("--output", "out") if "own" in program else ()
    status, text, _ = example(program, "--steps", steps, *output)
    assert status == 2 and "error: " in text and "Traceback" not in text


@pytest.mark.parametrize("program", ["own_folder.py", "own_classes.py"])
def test_output_is_a_file(example, tmp_path, program):
    (tmp_path / "taken").touch()
    status, text, _ = example(program, "--output", "taken")
    assert status == 2 and "taken is a file, expected a folder" in text


def test_notebook(tmp_path, monkeypatch):
    """In Jupyter's own kernel if nbclient is installed; otherwise its cells run here, in order."""
    pytest.importorskip(
        "embreex", reason="the built-in renderer: pip install 'gioada_fast[scenes]'"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    cells = json.loads((EXAMPLES / "quick_start.ipynb").read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] for cell in code)
    assert code[0]["metadata"]["tags"] == ["parameters"]
    small = ["FRAMES, STEPS = 4, 1\nHEIGHT, WIDTH = 64, 96\nFOLDER = 'quick_start'"]
    sources = small + ["".join(cell["source"]) for cell in code[1:]]
    printed = in_jupyter(sources) if has_jupyter() else in_python(sources)
    scores = re.findall(r"(?m)^(source only|control|adapted) +[\d.]+ %$", printed)
    assert scores == ["source only", "control", "adapted"]
    assert len(list(tmp_path.glob("quick_start/predictions/*_overlay.png"))) == 2


def has_jupyter() -> bool:
    return all(importlib.util.find_spec(name) for name in ("nbclient", "nbformat", "ipykernel"))


def in_jupyter(sources: list[str]) -> str:
    import nbclient
    import nbformat

    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    notebook = nbclient.NotebookClient(nbformat.v4.new_notebook(cells=cells), timeout=300).execute()
    outputs = [output for cell in notebook.cells for output in cell.outputs]
    return "".join(output.get("text", "") for output in outputs)


def in_python(sources: list[str]) -> str:
    printed = io.StringIO()
    scope: dict = {}
    with contextlib.redirect_stdout(printed):
        for source in sources:
            exec(compile(source, "quick_start.ipynb", "exec"), scope)
    return printed.getvalue()


def test_examples_are_short_and_listed():
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for path in EXAMPLES.iterdir():
        if path.suffix in (".py", ".ipynb", ".yaml"):
            assert f"`{path.name}`" in readme, path
        if path.suffix == ".py":
            assert len(path.read_text(encoding="utf-8").splitlines()) <= 85, path
            assert f"python examples/{path.name}" in readme, path
