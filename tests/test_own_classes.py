"""Classes of one's own, from the YAML file to the report: every command line on tiny networks.

The label space travels: after training, the YAML files are gone and the commands run elsewhere.
"""

import json
import re
import shlex
import shutil
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from gioada_fast import cli
from gioada_fast.config import Config, ModelConfig, dump_settings, save_config
from gioada_fast.data.pack_settings import pack_command
from gioada_fast.engine.checkpoint import load_checkpoint, save_weights
from gioada_fast.engine.networks import build_adaptation, load_task, load_translation
from gioada_fast.engine.run import write_report
from gioada_fast.engine.run_folder import RunFolder
from gioada_fast.errors import InputError
from gioada_fast.labels import label_space

from .commands import command
from .miniature import SIZE, SMALL_MODEL, flags, street_frame, write_camvid, write_street_scenes

CLASSES = ["floor", "person", "forklift"]
SCHEDULE = {
    "source_only_steps": 2, "adaptation_steps": 2, "batch_size": 2, "log_every": 1,
    "evaluate_every": 2, "panel_every": 2, "checkpoint_every": 2,
}  # fmt: skip
WAREHOUSE = {
    "name": "warehouse",
    "classes": {
        "floor": {"colour": [128, 64, 128], "of": ["road", "sidewalk"]},
        "person": {"of": ["person", "rider"]},
        "forklift": {"colour": "#00008e"},
    },
}
# Everything about the user's own data, in one file. 255 are the pixels without a class.
ONE_FILE = {
    "name": "own",
    "runs_dir": "runs",
    "precision": "fp32",
    "data": {
        "label_space": WAREHOUSE,
        "source": {
            "name": "folder", "root": "renders", "images": "rgb/*", "labels": "ids/*",
            "depth": "depth/*", "classes": {30: "forklift", 10: "floor", 20: "person", 255: None},
        },
        "target": {
            "name": "folder", "root": "photos", "images": "{split}/*", "labels": "{split}_ids/*",
            "classes": {"1 2 3": "floor", "#0a141e": "person", "[9, 9, 9]": "forklift"},
            "train_split": "train", "evaluation_split": "val",
        },
        "height": SIZE[0], "width": SIZE[1], "workers": 0,
    },
    "model": SMALL_MODEL,
    "schedule": SCHEDULE,
}  # fmt: skip


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), array[..., ::-1] if array.ndim == 3 else array)


def write_own_data(folder):
    """Renders with ids and depth, and photographs with coloured labels."""
    rng = np.random.default_rng(0)
    for index in range(4):
        train_ids = rng.integers(0, 3, (8, 12)).repeat(8, 0).repeat(8, 1)
        image, _, depth = street_frame(index)
        write(folder / "renders" / "rgb" / f"{index}.png", image)
        write(folder / "renders" / "ids" / f"{index}.png", (10 * train_ids + 10).astype(np.uint8))
        write(folder / "renders" / "depth" / f"{index}.png", depth)
        for split in ("train", "val"):
            colours = np.array([[1, 2, 3], [10, 20, 30], [9, 9, 9]], np.uint8)[train_ids]
            write(folder / "photos" / split / f"{split}{index}.png", street_frame(index + 9)[0])
            write(folder / "photos" / f"{split}_ids" / f"{split}{index}.png", colours)


def run(module, *arguments, cwd):
    """Run a command line without the processes that only large sets are worth."""
    workers = 0 if "pack" in arguments else 1
    with mock.patch("gioada_fast.processes.usable_cores", return_value=workers):
        done = command(module, *arguments, cwd=cwd)
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout


def weights(folder):
    return {path.name: load_file(path) for path in sorted(folder.glob("*.safetensors"))}


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, tensors in ours.items():
        assert all(torch.equal(tensors[key], theirs[name][key]) for key in tensors), name


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A finished run on data of one's own; its YAML file is gone."""
    folder = tmp_path_factory.mktemp("own")
    write_own_data(folder)
    (folder / "own.yaml").write_text(yaml.safe_dump(ONE_FILE, sort_keys=False))
    (folder / "check.json").write_text(
        run("data", "check", "--config", "own.yaml", "--json", cwd=folder)
    )
    run("train", "--config", "own.yaml", cwd=folder)
    run("data", "pack", "--config", "own.yaml", "--data.packs=packs", cwd=folder)
    run("train", "--config", "own.yaml", "--data.packs=packs", "--name=packed", cwd=folder)
    rows = ["--rows", "source_only", "both", "--seeds", "0", "--name=ablation"]
    run("ablate", "--config", "own.yaml", *rows, cwd=folder)
    (folder / "own.yaml").unlink()
    return folder


@pytest.fixture(scope="module")
def six(tmp_path_factory):
    """A finished run from street scenes to CamVid with six classes; its label space is gone."""
    folder = tmp_path_factory.mktemp("six")
    write_street_scenes(folder / "scenes")
    write_camvid(folder / "camvid")
    (folder / "six.yaml").write_text(SIX)
    values = {f"schedule.{name}": value for name, value in SCHEDULE.items()}
    values |= {"data.target.name": "camvid", "data.target.root": folder / "camvid"}
    arguments = flags(folder / "scenes", folder / "runs", **values)
    arguments.append("--data.label_space=six.yaml")
    settings = [flag for flag in arguments if flag.startswith("--data")]
    (folder / "check.json").write_text(run("data", "check", *settings, "--json", cwd=folder))
    run("data", "pack", *settings, "--data.packs=packs", cwd=folder)
    run("train", *arguments, cwd=folder)
    run("train", *arguments, "--data.packs=packs", "--name=packed", cwd=folder)
    rows = ["--rows", "source_only", "oracle", "--seeds", "0", "--name=ablation"]
    run("ablate", *arguments, *rows, cwd=folder)
    (folder / "six.yaml").unlink()
    return folder


SIX = """\
name: six
classes:
  way:     {of: [road, sidewalk, terrain]}
  built:   {colour: [70, 70, 70], of: [building, wall, fence]}
  post:    {colour: "220 220 0", of: [pole, traffic light, traffic sign]}
  green:   {of: [vegetation]}
  above:   {of: [sky]}
  movable: {of: [person, rider, car, truck, bus, motorcycle, bicycle]}
"""
SIX_CLASSES = ["way", "built", "post", "green", "above", "movable"]


@pytest.fixture(params=["own", "six"])
def finished(request):
    """(the folder of either world, name of its run, name of its space, its classes)."""
    folder = request.getfixturevalue(request.param)
    if request.param == "own":
        return folder, "own", "warehouse", CLASSES
    return folder, "mini", "six", SIX_CLASSES


def test_the_check_counts_the_classes(finished):
    folder, _, space, classes = finished
    found = json.loads((folder / "check.json").read_text())
    assert found["label_space"] == space and found["sound"]
    for part in ("source", "evaluation"):
        assert list(found["sets"][part]["labels"]["classes"]) == classes


def test_the_space_is_in_every_file_of_the_run(finished):
    folder, name, space, classes = finished
    path = folder / "runs" / name
    saved = yaml.safe_load((path / "config.yaml").read_text())["data"]["label_space"]
    assert list(saved["classes"]) == classes and saved["name"] == space
    checkpoint = load_checkpoint(path / "checkpoints" / "last.pt")["config"]["data"]
    for content in (
        checkpoint["label_space"],
        load_task(path / "task.safetensors")[2]["label_space"],
        load_translation(path / "translation.safetensors")[1]["label_space"],
    ):
        assert label_space(content) == label_space(saved)
    result = json.loads((path / "result.json").read_text())
    assert (result["label_space"], result["classes"]) == (space, classes)
    assert [tuple(colour) for colour in result["colours"]] == [*label_space(saved).colours]
    assert all(list(column["iou"]) == classes for column in result["columns"])


def test_packs_give_the_same_weights(finished):
    folder, name, _, _ = finished
    assert_same(weights(folder / "runs" / name), weights(folder / "runs" / "packed"))


def test_a_run_is_scored_elsewhere_after_its_files_are_gone(finished, tmp_path):
    folder, name, _, classes = finished
    path = folder / "runs" / name
    scores = json.loads((path / "result.json").read_text())["columns"][1]
    moved = shutil.copytree(folder, tmp_path / "moved")
    roots = ["--root", str(moved / ("photos" if name == "own" else "camvid"))]
    saved = tmp_path / "saved"
    done = run("evaluate", path, *roots, "--json", "--save-predictions", saved, cwd=tmp_path)
    assert json.loads(done)["iou"] == pytest.approx(scores["iou"])
    for file in saved.iterdir():
        assert cv2.imread(str(file), cv2.IMREAD_UNCHANGED).max() < len(classes)
    table = run("evaluate", path, *roots, cwd=tmp_path)
    assert all(name in table for name in classes)


def test_a_run_predicts_elsewhere_after_its_files_are_gone(finished, tmp_path):
    folder, name, _, classes = finished
    space = load_task(folder / "runs" / name / "task.safetensors")[1]
    images = folder / ("photos/val" if name == "own" else "camvid/val")
    run("predict", folder / "runs" / name, images, "--output=out", cwd=tmp_path)
    for file in (tmp_path / "out").glob("*_ids.png"):
        ids = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        colours = cv2.imread(str(file).replace("_ids", "_colour"))[..., ::-1]
        assert ids.max() < len(classes)
        np.testing.assert_array_equal(colours, space.colourise(ids))


def test_a_run_resumes_elsewhere_after_its_files_are_gone(finished, tmp_path):
    """From the folder of the data, because its root is relative."""
    folder, name, _, _ = finished
    run_ = shutil.copytree(folder / "runs" / name, tmp_path / "again")
    trained = weights(run_)
    run("train", "--resume", run_, cwd=folder)  # from the last checkpoint
    for path in (*run_.glob("*.safetensors"), *(run_ / "checkpoints").iterdir()):
        path.unlink()
    run("train", "--resume", run_, cwd=folder)  # from the beginning
    assert_same(weights(run_), trained)


def test_reports_name_the_space_and_its_classes_in_their_colours(finished):
    folder, name, space, classes = finished
    result = json.loads((folder / "runs" / name / "result.json").read_text())
    summary = json.loads((folder / "runs" / "ablation" / "ablation.json").read_text())
    assert (summary["label_space"], summary["classes"]) == (space, classes)
    for page in (f"{name}/report.html", "ablation/report.html"):
        html = (folder / "runs" / page).read_text()
        assert f"Label space: {space}." in html
        for class_, (r, g, b) in zip(classes, result["colours"], strict=True):
            assert f'background: rgb({r}, {g}, {b})"></span>{class_}' in html


def test_the_report_is_written_again(own, tmp_path):
    run_ = shutil.copytree(own / "runs" / "own", tmp_path / "own")
    (run_ / "report.html").unlink()
    write_report(RunFolder(run_))
    html = (run_ / "report.html").read_text()
    assert "Label space: warehouse." in html and '<th scope="row">label_space</th>' in html


def test_translate_works_after_the_files_are_gone(own):
    run("translate", "runs/own", "--output=translated", cwd=own)
    labels = cv2.imread(str(own / "translated" / "labels" / "000000.png"), cv2.IMREAD_UNCHANGED)
    assert set(np.unique(labels)) == {0, 1, 2}


def test_a_run_of_0_1_0_which_kept_the_path_is_scored_and_resumed(six, tmp_path):
    """Its settings lack those that are new; the label space is a path, also in the weights."""
    folder = shutil.copytree(six / "runs" / "mini", tmp_path / "mini")
    (tmp_path / "six.yaml").write_text(SIX)

    def as_saved(config):
        data = {**config["data"], "label_space": "six.yaml"}
        del data["sources"]
        for side in ("source", "target"):
            new = ("unknown_labels", "exif_orientation", "share")
            data[side] = {
                name: value
                for name, value in {**data[side], "depth_per_metre": 100.0}.items()
                if name not in new and (name == "depth_per_metre" or not name.startswith("depth_"))
            }
        return {**config, "data": data}

    run_ = RunFolder(folder)
    run_.config.write_text(dump_settings(as_saved(yaml.safe_load(run_.config.read_text()))))
    checkpoint = torch.load(run_.checkpoint, weights_only=True)
    checkpoint["config"] = as_saved(checkpoint["config"])
    del checkpoint["checksum"]
    torch.save(checkpoint, run_.checkpoint)
    for name in ("task", "task_source_only"):
        task, _, metadata = load_task(run_.weights(name))
        save_weights(run_.weights(name), task, {**metadata, "label_space": "six.yaml"})
    result = json.loads(run_.result.read_text())
    del result["label_space"]
    run_.result.write_text(json.dumps(result))
    scores = result["columns"][1]
    done = run("evaluate", folder, "--json", cwd=tmp_path)
    assert json.loads(done)["iou"] == pytest.approx(scores["iou"])
    run("train", "--resume", folder, cwd=tmp_path)
    (tmp_path / "six.yaml").unlink()
    refused = command("evaluate", folder, cwd=tmp_path)
    assert refused.returncode == 2
    assert "task.safetensors: the label space of the network: no label space 'six.yaml'" in (
        refused.stderr
    )


def test_initial_weights_are_compared_by_their_classes(six, tmp_path):
    """Neither the spelling nor the colours of a label space matter to weights."""
    start = six / "runs" / "mini" / "task.safetensors"
    config = Config(model=ModelConfig(init_from=str(start), **SMALL_MODEL))
    other = label_space(yaml.safe_load(SIX)).content()
    other["name"], other["classes"]["way"]["colour"] = "seven", [1, 2, 3]
    config.data.label_space = other
    task = build_adaptation(config).task
    for key, value in load_task(start)[0].state_dict().items():
        assert torch.equal(task.state_dict()[key], value)
    other["classes"] = dict(reversed(other["classes"].items()))
    words = r"with data.label_space = six \(way, built,.*, here it is seven \(movable, above,"
    with pytest.raises(InputError, match=words):
        build_adaptation(config)


def settings(*arguments):
    """The settings that a command line would run with."""
    parser = cli.config_parser("test")
    return cli.instantiate(parser, parser.parse_args(list(map(str, arguments))))


def own_folder(tmp_path, monkeypatch, data):
    """A configuration with its own files beside it, in a folder below the working directory."""
    folder = tmp_path / "mine"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    (folder / "warehouse.yaml").write_text(yaml.safe_dump(WAREHOUSE, sort_keys=False))
    (folder / "classes.yaml").write_text("7: floor\n300: forklift\n-1: null\n")
    (folder / "own.yaml").write_text(dump_settings({"data": data}))
    return folder


FOLDER = {"name": "folder", "root": "renders", "labels": "ids/*"}
CLASS_MAP = {7: "floor", 300: "forklift", -1: None}


def test_files_in_a_configuration_are_replaced_by_their_content(tmp_path, monkeypatch):
    data = {
        "label_space": "warehouse.yaml",
        "source": {**FOLDER, "classes": "classes.yaml"},
        "target": {**FOLDER, "classes": "classes.yaml"},
    }
    folder = own_folder(tmp_path, monkeypatch, data)
    config = settings("--config", "mine/own.yaml")
    assert config.data.label_space == label_space(WAREHOUSE).content()
    assert config.data.source.classes == config.data.target.classes == CLASS_MAP
    monkeypatch.chdir(folder)
    flags_ = [f"--data.{name}.classes=classes.yaml" for name in ("source", "target")]
    names = [f"--data.{name}.name=folder" for name in ("source", "target")]
    assert settings(*names, *flags_, "--data.label_space=warehouse.yaml").data.label_space == (
        config.data.label_space
    )
    # several sources
    data = {**data, "sources": [{**data["source"], "share": 2.0}, {"name": "street_scenes"}]}
    (folder / "own.yaml").write_text(yaml.safe_dump({"data": data}))
    monkeypatch.chdir(tmp_path)
    first, second = settings("--config=mine/own.yaml").data.sources
    assert (first.classes, first.share, second.classes) == (CLASS_MAP, 2.0, None)


def test_a_file_in_the_working_directory_comes_first(tmp_path, monkeypatch):
    own_folder(tmp_path, monkeypatch, {"label_space": "warehouse.yaml"})
    other = {"name": "other", "classes": {"b": {}, "a": {"of": ["road"]}}}
    (tmp_path / "warehouse.yaml").write_text(yaml.safe_dump(other, sort_keys=False))
    assert settings("--config=mine/own.yaml").data.label_space["name"] == "other"


def test_names_stay_names_and_missing_files_are_read_later(tmp_path, monkeypatch):
    data = {
        "label_space": "camvid11",
        "source": {"name": "carla", "classes": "shift"},
        "target": {**FOLDER, "classes": "nowhere.yaml"},
    }
    folder = own_folder(tmp_path, monkeypatch, data)
    (folder / "shift").write_text("0: sky\n")
    config = settings("--config=mine/own.yaml").data
    assert (config.label_space, config.source.classes) == ("camvid11", "shift")
    assert config.target.classes == "nowhere.yaml"


def test_printed_and_saved_settings_give_the_same_classes(tmp_path, monkeypatch):
    """Names that YAML reads as something else, keys that are numbers, the order of the classes."""
    space = {
        "name": "no",
        "classes": {"yes": {}, "1": {"of": ["road"]}, "1e3": {}, "null": {}, "a: b": {}, "Ä": {}},
    }
    classes = {0: "yes", 1: "1", 2: "1e3", 3: "null", 4: "a: b", -5: None, 60000: "Ä"}
    data = {"label_space": space, "source": {**FOLDER, "classes": classes}}
    own_folder(tmp_path, monkeypatch, data)
    config = settings("--config=mine/own.yaml")
    assert config.data.source.classes == classes
    assert list(config.data.label_space["classes"]) == list(space["classes"])
    save_config(config, tmp_path / "saved.yaml")
    done = run("data", "pack", "--config=mine/own.yaml", "--print_config", cwd=tmp_path)
    (tmp_path / "printed.yaml").write_text(done)
    old = {"model": {"start": None}, "data": data}  # settings of old names are rewritten
    (tmp_path / "old.yaml").write_text(dump_settings(old))
    for name in ("saved", "printed", "old"):
        again = settings(f"--config={name}.yaml").data
        assert again.source.classes == classes, name
        assert list(again.label_space["classes"]) == list(space["classes"]), name
        assert again.label_space == config.data.label_space, name
    # the command that an error shows for missing packs
    packing = settings(*shlex.split(pack_command(config.data))[4:]).data
    assert (packing.label_space, packing.source) == (config.data.label_space, config.data.source)
    as_flag = f"--data.label_space={json.dumps(space)}"
    assert settings(as_flag).data.label_space == config.data.label_space


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("label_space: 5", "data.label_space is 5, expected a text or a mapping\n"),
        ("label_space: no", "data.label_space is False, expected a text or a mapping\n"),
        ("label_space: [a, b]", "data.label_space is ['a', 'b'], expected a text or a mapping\n"),
        ("source: {classes: [1]}", "data.source.classes is [1], expected a text or a mapping or"),
        ("source: {classes: {[1, 2]: a}}", "own.yaml, line 2: name is [1, 2], expected a text"),
        ("source: {classes: {1: a, 1: b}}", "own.yaml, line 2: 1 is given twice"),
        ("label_space: {name: a, classes: {b: , b: }}", "own.yaml, line 2: b is given twice"),
        (
            "label_space: {name: a, classes: {b: , on: }}",
            "own.yaml, line 2: YAML reads the name on",
        ),
        ("label_space: {name: a}", "data.label_space: a label space has no 'classes'"),
        ("label_space: {classes: {b: {color: 1}}, name: a}", "label space has 2 to 254 classes"),
        (
            "label_space: {name: a, classes: {b: , c: {color: 1}}}",
            "data.label_space: class 'c' has 'color', expected colour, of, id; did you mean colour",
        ),
        ("label_space: nowhere.yaml", "no label space 'nowhere.yaml': neither a YAML file nor one"),
        ("label_space: {name: kitti10, classes: {a: , b: }}", "data.label_space: name is kitti10"),
        ("flip: true\n  flip: false", "own.yaml, line 3: flip is given twice"),
        ("source: {name: folder, classes: {1: tree, 2: van}}", "data.source.classes: 2: 'van' is"),
        ("sources: [{classes: [1]}]", "data.sources: classes is [1], expected a text or a mapping"),
        ("sources: 5", "data.sources is 5, expected a list or null"),
        ("source: {height: tall}", "data.source.height is tall, expected a whole number or null"),
        ("label_space: {", "own.yaml, line 2: configuration is not readable as YAML"),
    ],
)
def test_wrong_classes_in_the_settings_are_one_message(tmp_path, text, words):
    (tmp_path / "own.yaml").write_text(f"data:\n  {text}\n")
    done = command("train", "--config=own.yaml", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and words in done.stderr
    assert len(done.stderr.splitlines()) <= 2 and [p.name for p in tmp_path.iterdir()] == [
        "own.yaml"
    ]


def test_the_example_in_the_docs_is_a_configuration(tmp_path):
    docs = (Path(__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
    example, sources = re.findall(r"```yaml\n(.*?)```", docs, re.DOTALL)
    (tmp_path / "warehouse.yaml").write_text(example)
    (tmp_path / "sources.yaml").write_text(sources)
    names = [source.name for source in settings("--config", tmp_path / "sources.yaml").data.sources]
    assert names == ["synthia", "gta5"]
    data = settings("--config", tmp_path / "warehouse.yaml").data
    assert list(data.label_space["classes"]) == CLASSES
    assert data.source.classes == {0: None, 1: "floor", 2: "person", 3: "forklift"}
