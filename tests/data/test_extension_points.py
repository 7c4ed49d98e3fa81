"""A new data set needs one Python file, a new label space one YAML file: adds a toy of each."""

import importlib
import json
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest

from gioada_fast import cli
from gioada_fast.data import registry
from gioada_fast.errors import InputError

from .. import miniature
from ..commands import command

TOY = '''
"""Frames of two colours: <root>/<split>/1.png, with labels beside them as 1_ids.png."""

from gioada_fast.data.depth_maps import CENTIMETRES
from gioada_fast.data.files import DataSet, FrameFiles, find_images
from gioada_fast.data.label_maps import id_labels
from gioada_fast.data.registry import Reader, Request, Splits
from gioada_fast.labels import Labelling

TOY = Labelling("toy", {"Ground": "road", "Air": "sky", "Dust": None}, spaces=("camvid11",))


def data_set(request: Request) -> DataSet:
    reader, root = request.reader, request.root()
    images = find_images(root, f"{request.split}/?", reader.layout)
    frames = [
        FrameFiles(i, i.with_name(f"{i.stem}_ids.png"), i.with_name(f"{i.stem}_depth.png"))
        for i in images
    ]
    return DataSet(reader.title, root, frames, id_labels(TOY.train_ids(request.space)), CENTIMETRES)


READER = Reader(
    name="toy",
    title="Toy World",
    files="`<split>/1.png`, `<split>/1_ids.png`, `<split>/1_depth.png`",
    layout="draw it with three crayons",
    data_set=data_set,
    labelling=TOY,
    splits=Splits(train="lessons", evaluation="exam"),
    pack_settings={"source": ("look",)},
)
'''
GROUND = """
name: ground
classes:
  ground: {colour: [90, 60, 30], of: [road, sidewalk, terrain]}
  above:  {colour: [90, 180, 240], of: [sky, building, vegetation]}
"""
STEPS = {
    "schedule.source_only_steps": 2, "schedule.adaptation_steps": 1, "schedule.evaluate_every": 2,
}  # fmt: skip


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The toy data set, registered, and a folder of its frames."""
    monkeypatch.setattr(registry, "_REGISTERED", {})
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "toy_world.py").write_text(TOY)
    registry.register(importlib.import_module("toy_world").READER)
    rng = np.random.default_rng(0)
    for split in ("lessons", "exam"):
        folder = tmp_path / "toy" / split
        folder.mkdir(parents=True)
        for index in range(4):
            ids = rng.integers(0, 3, miniature.SIZE, np.uint8)
            image = np.array([[30, 60, 90], [240, 180, 90], [0, 0, 0]], np.uint8)[ids]
            cv2.imwrite(str(folder / f"{index}.png"), image)
            cv2.imwrite(str(folder / f"{index}_ids.png"), ids)
            cv2.imwrite(str(folder / f"{index}_depth.png"), (ids + 1).astype(np.uint16) * 100)
    return tmp_path


def flags(folder: Path, **settings):
    return miniature.flags(folder / "toy", folder / "runs", **STEPS, **settings)


def test_a_data_set_in_one_file(toy):
    both = {"data.source.name": "toy", "data.target.name": "toy"}
    done = command("train", *flags(toy, **both), cwd=toy)
    assert done.returncode == 0, done.stderr
    assert "Toy World, real frames (exam)" in done.stdout
    result = json.loads((toy / "runs" / "mini" / "result.json").read_text())
    assert [column["updates"] for column in result["columns"]] == [2, 3]
    iou = result["columns"][1]["iou"]
    assert iou["road"] is not None and iou["sky"] is not None
    done = command("evaluate", toy / "runs" / "mini", "--json", cwd=toy)
    assert done.returncode == 0 and json.loads(done.stdout)["frames"] == 4, done.stderr
    done = command("data", "check", *flags(toy, **both), "--json", cwd=toy)
    found = json.loads(done.stdout)["sets"]
    assert done.returncode == 0 and found["source"]["data_set"] == "Toy World", done.stderr


def test_packs_of_a_data_set_in_one_file(toy):
    settings = {"data.source.name": "toy", "data.target.name": "toy", "data.packs": "packs"}
    refused = command("train", *flags(toy, **settings), cwd=toy)
    assert refused.returncode == 2 and "packs/target: no such pack" in refused.stderr
    done = command("data", *shlex.split(refused.stderr.splitlines()[-1])[3:], cwd=toy)
    assert done.returncode == 0, done.stderr
    done = command("train", *flags(toy, **settings), cwd=toy)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((toy / "packs" / "source" / "manifest.json").read_text())
    assert manifest["settings"]["train id"] == {"Ground": 3, "Air": 0, "Dust": 255}
    assert manifest["settings"]["data.source.split"] == "lessons"
    for setting, words in (
        ({"data.source.look": "dusk"}, "data.source.look = 'day', the settings say 'dusk'"),
        ({"data.target.train_split": "exam"}, "data.target.train_split = 'lessons', the settings"),
    ):
        refused = command("train", *flags(toy, **settings, **setting, name="other"), cwd=toy)
        assert refused.returncode == 2 and words in refused.stderr
        assert not (toy / "runs" / "other").exists()


def test_choices_and_messages_know_a_data_set_in_one_file(toy):
    for arguments in (["--help"], ["--data.source.name=tox"], ["--data.target.name=tox"]):
        done = command("train", *arguments, cwd=toy)
        assert "toy" in (done.stderr or done.stdout) and "Traceback" not in done.stderr
    assert "toy" in command("evaluate", "--help", cwd=toy).stdout
    both = {"data.source.name": "toy", "data.source.root": toy / "nowhere"}
    refused = command("train", *flags(toy, **both), cwd=toy)
    assert refused.returncode == 2 and "draw it with three crayons" in refused.stderr
    refused = command(
        "train", *flags(toy, **{"data.source.name": "toy", "data.label_space": "kitti10"}), cwd=toy
    )
    assert refused.returncode == 2 and "source toy can be labelled in camvid11;" in refused.stderr
    assert "| `toy` | Toy World | source or target | `<split>/1.png`" in registry.docs_table()
    with pytest.raises(ValueError, match="there is a data set 'toy' already"):
        registry.register(registry.find("toy", "source"))


def test_docs_name_every_data_set():
    """If this fails, copy the output of ``print(registry.docs_table())`` to docs/data.md."""
    docs = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    assert registry.docs_table() in docs


@pytest.mark.parametrize(
    ("side", "name"), [("source", "no_such"), ("target", "no_such"), ("target", "synthia")]
)
def test_an_unknown_data_set_is_refused_before_anything_is_written(tmp_path, side, name):
    choices = registry.names(side)
    with pytest.raises(
        InputError, match=f"data.{side}.name is '{name}', expected one of {choices[0]}"
    ):
        registry.find(name, side)
    (tmp_path / "mine.yaml").write_text(f"data: {{{side}: {{name: {name}}}}}\n")
    for arguments in ([f"--data.{side}.name={name}"], ["--config=mine.yaml"]):
        done = command("train", *arguments, cwd=tmp_path)
        assert done.returncode == 2 and "Traceback" not in done.stderr
        assert f"data.{side}.name" in done.stderr
        for known in (name, *choices):
            assert f"'{known}'" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_a_label_space_in_one_file(tmp_path):
    miniature.write_street_scenes(tmp_path / "toy")
    (tmp_path / "ground.yaml").write_text(GROUND)
    own = flags(tmp_path, **{"data.label_space": "ground.yaml"})
    done = command("train", *own, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "mini"
    result = json.loads((run / "result.json").read_text())
    assert result["classes"] == ["ground", "above"]
    assert result["colours"] == [[90, 60, 30], [90, 180, 240]]
    scores = result["columns"][1]
    assert set(scores["iou"]) == {"ground", "above"} and scores["miou"] is not None
    assert "ground" in (run / "report.html").read_text()
    done = command("evaluate", run, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["miou"] == pytest.approx(scores["miou"], abs=1e-12)
    done = command("data", "check", *own, "--json", cwd=tmp_path)
    assert done.returncode == 0 and json.loads(done.stdout)["label_space"] == "ground"


def test_a_run_with_a_label_space_in_one_file_resumes(tmp_path):
    miniature.write_street_scenes(tmp_path / "toy")
    (tmp_path / "ground.yaml").write_text(GROUND)
    own = {"data.label_space": "ground.yaml", "data.packs": "packs"}
    done = command("data", "pack", *pack_flags(tmp_path, **own), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = command("train", *flags(tmp_path, **own), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "mini"
    weights = (run / "task.safetensors").read_bytes()
    for path in (*run.glob("*.safetensors"), run / "checkpoints" / "last.pt"):
        path.unlink()
    done = command("train", "--resume", run, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (run / "task.safetensors").read_bytes() == weights
    # a pack knows the train ids
    changed = GROUND.replace("terrain]", "terrain, car]")
    (tmp_path / "ground.yaml").write_text(changed)
    refused = command("train", *flags(tmp_path, **own, name="other"), cwd=tmp_path)
    assert refused.returncode == 2 and "train id of car = 255, the settings say 0" in refused.stderr


def pack_flags(folder: Path, **settings):
    return [flag for flag in flags(folder, **settings) if flag.startswith("--data.")]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such.yaml", "no label space 'no_such.yaml': neither a YAML file nor one of camvid11"),
        ("forklift.yaml", "street_scenes has no labels for forklift of label space warehouse"),
        ("broken.yaml", "broken.yaml, line 1: label space is not readable as YAML"),
    ],
)
def test_a_wrong_label_space_leaves_nothing(tmp_path, name, words):
    miniature.write_street_scenes(tmp_path / "toy")
    (tmp_path / "forklift.yaml").write_text(
        "name: warehouse\nclasses: {forklift: {colour: [1, 1, 1], of: [train]}, "
        "floor: {colour: [2, 2, 2], of: [road]}}\n"
    )
    (tmp_path / "broken.yaml").write_text("name: [")
    refused = command("train", *flags(tmp_path, **{"data.label_space": name}), cwd=tmp_path)
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
    assert words in refused.stderr
    assert not (tmp_path / "runs" / "mini").exists()


def test_help_lists_the_built_in_label_spaces(tmp_path):
    for module in ("train", "ablate"):
        assert "{camvid11,cityscapes13" in command(module, "--help", cwd=tmp_path).stdout
    assert cli.config_parser("x").get_defaults().data.label_space == "camvid11"
