"""The command lines as a user calls them."""

import json
import shutil
from datetime import datetime
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pytest
import torch
import yaml

from gioada_fast import ops

from .commands import command
from .miniature import flags, write_camvid, write_street_scenes


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Miniature data and one finished run."""
    folder = tmp_path_factory.mktemp("world")
    write_street_scenes(folder / "scenes")
    write_camvid(folder / "camvid")
    done = command("train", *flags(folder / "scenes", folder / "runs"), cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / "train.log").write_text(done.stdout)
    return folder


def refused(result, *words):
    assert result.returncode == 2, (result.returncode, result.stdout, result.stderr)
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr, result.stderr


def test_a_run_writes_all_files(world):
    run = world / "runs" / "mini"
    log = (world / "train.log").read_text()
    assert "source only" in log and "adapted" in log and "mIoU" in log
    assert str(run / "report.html") in log.replace("\n", "")
    names = {path.name for path in run.iterdir()}
    assert names >= {
        "config.yaml", "metrics.jsonl", "result.json", "report.html", "comparison.jpg", "panels",
        "checkpoints", "tensorboard", "task.safetensors", "task_source_only.safetensors",
        "translation.safetensors",
    }  # fmt: skip
    result = json.loads((run / "result.json").read_text())
    assert [(c["name"], c["updates"]) for c in result["columns"]] == [
        ("source only", 4),
        ("adapted", 8),
    ]
    assert "stand-in" in result["target"]
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records if "loss/total" in r] == [2, 4, 6, 8]
    assert [r["step"] for r in records if "eval/miou" in r] == [4, 8]
    assert set(records[-1]["eval/iou"]) == set(result["classes"])
    assert {"loss/img", "loss/out", "loss/d_img", "loss/d_out"} <= set(records[3])
    assert yaml.safe_load((run / "config.yaml").read_text())["schedule"]["batch_size"] == 2


def test_evaluate_gives_the_scores_of_the_run(world):
    run = world / "runs" / "mini"
    result = json.loads((run / "result.json").read_text())
    for weights, column in (("task", 1), ("task_source_only", 0)):
        done = command("evaluate", run, "--weights", weights, "--json", cwd=world)
        assert done.returncode == 0, done.stderr
        scores = json.loads(done.stdout)
        assert scores["miou"] == pytest.approx(result["columns"][column]["miou"], abs=1e-12)
    done = command("evaluate", run, cwd=world)
    for name in result["classes"]:
        assert name in done.stdout


def test_evaluate_on_another_data_set_and_split(world):
    write_camvid(world / "more", splits=("val", "held_out"))
    done = command(
        "evaluate", world / "runs" / "mini",
        "--target", "camvid", "--root", world / "more", "--split", "held_out", "--json",
        cwd=world,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["iou"]) == 11


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config", "no_such"], ["no_such", "street_scenes"]),
        (["--data.sauce.frames=3"], ["data.sauce"]),
        (["--schedule.batch_size=many"], ["batch_size"]),
        (["--schedule.batch_size=0"], ["schedule.batch_size is 0"]),
        (["--adaptation.gan_loss=wgan"], ["gan_loss"]),
        (["--data.source.look=midnight"], ["midnight", "day"]),
        (["--config", "street_to_camvid"], ["data.target.root", "valannot"]),
        (["--config", "street_to_camvid", "--data.target.root=/no/such"], ["/no/such"]),
        (["--device=tpu"], ["tpu"]),
        (["--seed=-1"], ["seed is -1"]),
        (["--model.pretrained=/no/weights.pth", "--model.width=null"], ["/no/weights.pth"]),
        (["--resume", "nowhere"], ["nowhere"]),
        (["--resume", "nowhere", "--seed=3"], ["leave out"]),
    ],
)
def test_bad_input_is_reported_and_leaves_no_files(world, tmp_path, arguments, words):
    base = flags(world / "scenes", tmp_path / "runs")
    if arguments[0] == "--config":
        base = [f for f in base if not f.startswith("--data.target.root")]
        arguments = [*arguments[:2], *base, *arguments[2:]]
    elif arguments[0] != "--resume":
        arguments = [*base, *arguments]
    refused(command("train", *arguments, cwd=tmp_path), *words)
    assert not list(tmp_path.glob("runs/*"))


def test_unknown_key_in_a_yaml_file_is_refused(world, tmp_path):
    (tmp_path / "mine.yaml").write_text("data: {colour: red}\n")
    refused(command("train", "--config", tmp_path / "mine.yaml", cwd=tmp_path), "colour")


def test_a_run_folder_is_never_overwritten(world):
    before = {p: p.stat().st_mtime_ns for p in (world / "runs" / "mini").rglob("*")}
    done = command("train", *flags(world / "scenes", world / "runs"), cwd=world)
    refused(done, "mini exists already", "--resume")
    assert {p: p.stat().st_mtime_ns for p in (world / "runs" / "mini").rglob("*")} == before


def test_runs_of_one_second_get_names_of_their_own(world, tmp_path):
    steps = ["--name=", "--schedule.source_only_steps=1", "--schedule.adaptation_steps=0"]
    at_noon = mock.Mock(now=lambda: datetime(2026, 1, 31, 12))
    with mock.patch("gioada_fast.engine.run.datetime", at_noon):
        for _ in range(3):
            done = command("train", *flags(world / "scenes", tmp_path), *steps, cwd=world)
            assert done.returncode == 0, done.stderr
    names = {run.name.partition("-")[2] for run in tmp_path.iterdir()}
    assert names == {"20260131-120000", "20260131-120000-2", "20260131-120000-3"}


def test_unwritable_run_folder_is_reported(world, tmp_path):
    (tmp_path / "file").write_text("")
    done = command("train", *flags(world / "scenes", tmp_path / "file"), cwd=world)
    refused(done, str(tmp_path / "file"))


def test_labels_with_too_many_classes_are_refused(world, tmp_path):
    write_camvid(tmp_path / "camvid")
    cv2.imwrite(
        str(tmp_path / "camvid" / "valannot" / "val_001.png"), np.full((96, 128), 33, np.uint8)
    )
    done = command(
        "evaluate", world / "runs" / "mini", "--target", "camvid", "--root", tmp_path / "camvid",
        cwd=world,
    )  # fmt: skip
    refused(done, "val_001.png", "33")


def test_another_data_set_needs_its_own_root(world):
    done = command("evaluate", world / "runs" / "mini", "--target", "camvid", cwd=world)
    refused(done, "data.target.root is not set")


def test_label_space_that_does_not_fit_is_refused(world):
    done = command(
        "train",
        *flags(world / "scenes", world / "runs", **{
            "name": "wrong", "data.label_space": "cityscapes16", "data.target.name": "camvid",
            "data.target.root": world / "camvid",
        }),
        cwd=world,
    )  # fmt: skip
    refused(done, "camvid11", "cityscapes16")
    assert not (world / "runs" / "wrong").exists()


def copy_of_run(world, name):
    target = world / "runs" / name
    shutil.copytree(world / "runs" / "mini", target)
    return target


def test_resuming_from_damaged_checkpoints_alone_is_refused(world):
    run = copy_of_run(world, "corrupt")
    for path in (run / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:1000])
    refused(command("train", "--resume", run, cwd=world), "last.pt", "damaged")


def test_resuming_from_another_architecture_is_refused(world):
    run = copy_of_run(world, "architecture")
    path = run / "checkpoints" / "last.pt"
    state = torch.load(path, weights_only=True)
    key = "task.trunk.features.0.weight"
    state["networks"][key] = torch.zeros(99, 3, 3, 3)
    del state["checksum"]  # as in version 0.1.0
    torch.save(state, path)
    refused(command("train", "--resume", run, cwd=world), "last.pt", "another architecture", key)


def test_camvid_is_trained_on_and_scored(world):
    done = command(
        "train",
        *flags(world / "scenes", world / "runs", **{
            "name": "camvid", "data.target.name": "camvid", "data.target.root": world / "camvid",
            "schedule.source_only_steps": 1, "schedule.adaptation_steps": 2,
        }),
        cwd=world,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "CamVid" in done.stdout
    done = command("evaluate", world / "runs" / "camvid", "--json", cwd=world)
    assert len(json.loads(done.stdout)["iou"]) == 11


def test_training_never_reads_target_labels(world, tmp_path):
    """Garbage training labels and other evaluation labels do not change the weights."""
    weights = []
    for name in ("clean", "garbage"):
        root = tmp_path / name
        shutil.copytree(world / "camvid", root)
        if name == "garbage":
            for path in (root / "trainannot").iterdir():
                path.write_bytes(b"garbage")
            first = next((root / "valannot").iterdir())
            for path in (root / "valannot").iterdir():
                path.write_bytes(first.read_bytes())
        done = command(
            "train",
            *flags(world / "scenes", tmp_path / "runs", **{
                "name": name, "data.target.name": "camvid", "data.target.root": root,
                "schedule.source_only_steps": 1, "schedule.adaptation_steps": 3,
            }),
            cwd=world,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        weights.append((tmp_path / "runs" / name / "task.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_print_config_shows_every_setting(world):
    done = command("train", "--config", "street_to_camvid", "--print_config", cwd=world)
    assert done.returncode == 0, done.stderr
    settings = yaml.safe_load(done.stdout)
    assert settings["data"]["target"]["name"] == "camvid"
    assert settings["adaptation"]["gan_loss"] == "lsgan"


def test_predict_writes_pictures_of_images_and_folders(world):
    out = world / "predictions"
    images = sorted((world / "camvid" / "val").iterdir())
    done = command(
        "predict", world / "runs" / "mini", images[0], world / "camvid" / "train",
        "--output", out, cwd=world,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for image in [images[0], *(world / "camvid" / "train").iterdir()]:
        for kind in ("ids", "colour", "overlay", "depth"):
            picture = cv2.imread(str(out / f"{image.stem}_{kind}.png"), cv2.IMREAD_UNCHANGED)
            assert picture is not None and picture.shape[:2] == (96, 128)
        ids = cv2.imread(str(out / f"{image.stem}_ids.png"), cv2.IMREAD_UNCHANGED)
        assert ids.ndim == 2 and ids.max() < 11
    (world / "twin").mkdir()
    shutil.copy(images[0], world / "twin" / images[0].name)
    refused(command("predict", world / "runs" / "mini", images[0], world / "twin", "--output", out,
                    cwd=world), images[0].stem)  # fmt: skip
    shutil.copy(images[0], world / "twin" / f"{images[0].stem}_ids.png")
    refused(command("predict", world / "runs" / "mini", world / "twin", "--output",
                    world / "twin", cwd=world), "overwritten")  # fmt: skip
    refused(command("predict", world / "runs" / "mini", world / "no.png", "--output", out,
                    cwd=world), "no.png")  # fmt: skip


def test_translate_writes_the_source_set(world):
    out = world / "translated"
    done = command("translate", world / "runs" / "mini", "--output", out, cwd=world)
    assert done.returncode == 0, done.stderr
    for kind in ("images", "labels", "depth"):
        assert len(list((out / kind).glob("*.png"))) == 6
    refused(command("translate", world / "runs" / "mini", "--output", out, cwd=world), "translated")


def info_tables(cwd):
    """Output of ``info``, and its tables by the first heading: lists of rows of cells.

    Lines between two rules are one row.
    """
    done = command("info", cwd=cwd)
    assert done.returncode == 0, done.stderr
    tables, rows = {}, []
    for line in done.stdout.splitlines():
        cells = [cell.strip() for cell in line.split("│")]
        if "┃" in line:
            rows = tables[line.split("┃")[0].strip()] = [[]]
        elif "┼" in line:
            rows.append([])
        elif len(cells) > 1:
            rows[-1].append(cells)
    return done.stdout, tables


@pytest.mark.parametrize("forced", ["", *ops.BACKENDS])
def test_info_explains_back_ends(world, monkeypatch, forced):
    """Machine, back ends, and for each op and device what runs and why the others do not."""
    monkeypatch.setenv("GIOADA_BACKEND", forced)
    monkeypatch.setenv("COLUMNS", "300")
    with ops.backend(forced or None):  # the variable is read only when the ops are imported
        printed, tables = info_tables(world)
        explained = {
            (name, device): op.explain(device)
            for name, op in ops.registered().items()
            for device in ("cpu", "cuda")
        }
    assert {"torch", "processor"} <= {line[0] for line in tables["machine"][0]}
    live = {name: (on, detail) for name, on, detail in tables["back end"][0]}
    assert set(live) == set(ops.BACKENDS)
    for name, back_end in ops.backends().items():
        assert ("cpu" in live[name][0]) == ("cpu" in back_end.devices)
        assert live[name][1] == back_end.detail
    for device in ("cpu", "cuda"):
        shown = {}
        for lines in tables[f"op on {device}"]:
            names, chosen, others = (" ".join(c).split() for c in zip(*lines, strict=True))
            for name in names:
                shown[name] = " ".join(chosen), " ".join(others)
        assert set(shown) == set(ops.registered())
        for name in ops.registered():
            chosen, reasons = explained[name, device]
            assert shown[name] == (
                chosen or "none",
                " ".join(f"{back_end}: {reason}" for back_end, reason in reasons.items()),
            )
    assert (f"GIOADA_BACKEND={forced} is forced" in printed) == bool(forced)


def test_every_command_has_help(world):
    for module in ("train", "ablate", "evaluate", "assess", "predict", "translate", "info"):
        done = command(module, "--help", cwd=world)
        assert done.returncode == 0 and "usage" in done.stdout, (module, done.stderr)


def test_readme_commands_are_the_makefile_targets():
    root = Path(__file__).parents[1]
    makefile = (root / "Makefile").read_text()
    for target in ("venv", "train", "test", "docs", "bench", "gpu", "lint", "clean"):
        assert f"\n{target}:" in makefile
    readme = (root / "README.md").read_text()
    assert "make train" in readme and "make test" in readme
