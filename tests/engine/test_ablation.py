"""The ablation on miniature data, run by its command line: two updates per row."""

import hashlib
import json
import shutil
import signal
from unittest import mock

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from gioada_fast.config import Config, DataConfig, TargetConfig, shipped_presets
from gioada_fast.data.sets import source_frames, source_set, supervised
from gioada_fast.engine.ablation import ROWS, default_rows, summarise
from gioada_fast.engine.step import Step
from gioada_fast.engine.trainer import Trainer

from ..commands import command
from ..miniature import flags, write_camvid, write_street_scenes

UPDATES = 2


def arguments(root, runs, *rows, target="camvid", **settings):
    values = {
        "name": "ablation",
        "data.target.name": target,
        "data.target.root": root / target,
        "schedule.source_only_steps": UPDATES,
        "schedule.adaptation_steps": UPDATES,
        "schedule.log_every": 1,
        **settings,
    }
    chosen = ["--rows", *rows] if rows else []
    return [*flags(root / "street_scenes", runs, **values), "--seeds", "0", *chosen]


def ablate(root, runs, *rows, **settings):
    done = command("ablate", *arguments(root, runs, *rows, **settings), cwd=root)
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout


def ablate_all(root):
    """Every row and variant; the target has depth maps, which one variant reads."""
    return ablate(root, root / "runs", *ROWS, **{"data.target.depth": "depth/*"})


def weights(runs, row, name=None):
    name = name or ("task_source_only" if row == "source_only" else "task")
    return (runs / "ablation" / "seed0" / row / f"{name}.safetensors").read_bytes()


def hashed(tensor):
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Miniature data with runs of all rows; and each update's weights and hashed images."""
    folder = tmp_path_factory.mktemp("ablation")
    write_street_scenes(folder / "street_scenes")
    write_camvid(folder / "camvid")
    (folder / "camvid" / "depth").mkdir()
    for image in (folder / "camvid" / "train").iterdir():
        metres = np.random.default_rng(2).integers(200, 5000, (96, 128)).astype(np.uint16)
        cv2.imwrite(str(folder / "camvid" / "depth" / image.name), metres)
    updates = []
    update = Step.__call__

    def spy(self, batches):
        (batch,) = batches
        updates.append(
            {
                "task": {k: v.clone() for k, v in self.adaptation.task.state_dict().items()},
                "teacher": self.adaptation.teacher is not None,
                "source": hashed(batch.source_image),
                "target": None if batch.target_image is None else hashed(batch.target_image),
            }
        )
        return update(self, batches)

    with mock.patch.object(Step, "__call__", spy):
        (folder / "log").write_text(ablate_all(folder))
    return folder, updates


def test_every_row_has_all_scores(world):
    folder, _ = world
    ablation = folder / "runs" / "ablation"
    summary = json.loads((ablation / "ablation.json").read_text())
    assert [row["name"] for row in summary["rows"]] == list(ROWS)
    assert summary["command"].startswith("python -m gioada_fast.ablate --name=ablation")
    assert summary["settings"]["schedule"]["adaptation_steps"] == UPDATES
    rows = {row["name"]: row for row in summary["rows"]}
    for name, row in rows.items():
        result = json.loads((ablation / "seed0" / name / "result.json").read_text())
        (column,) = result["columns"]
        (of_seed,) = row["seeds"]
        assert column["name"] == {
            "source_only": "source only",
            "control": "source only, longer",
            "oracle": "supervised",
        }.get(name, "adapted")
        assert of_seed["updates"] == column["updates"] == UPDATES
        assert row["miou"] == {"mean": column["miou"], "std": None}
        assert {c: x["mean"] for c, x in row["iou"].items()} == column["iou"]
        assert row["seconds"]["mean"] > 0 and of_seed["versions"]["threads"]
        assert of_seed["versions"]["device"]
        assert row["difference"]["mean"] == column["miou"] - rows["control"]["miou"]["mean"]
    assert rows["control"]["difference"]["mean"] == 0

    log = (folder / "log").read_text()
    for row in ROWS.values():
        assert all(word in log for word in row.caption.split())
    html = (ablation / "report.html").read_text()
    assert all(row.caption in html for row in ROWS.values()) and "https:" not in html
    translate = [row for row in ROWS.values() if "input_level" in row.adaptation]
    # three evaluation frames with ground truth and each row's result; three pairs of 7 pictures
    assert html.count("data:image/webp") == 3 * (2 + len(ROWS)) + 3 * 7 * len(translate)


def test_all_rows_start_from_the_same_weights_and_see_the_same_pairs(world):
    folder, updates = world
    runs = {name: updates[i * UPDATES : (i + 1) * UPDATES] for i, name in enumerate(ROWS)}
    assert len(updates) == len(ROWS) * UPDATES
    start = load_file(
        folder / "runs" / "ablation" / "seed0" / "source_only" / "task_source_only.safetensors"
    )
    others = [name for name in ROWS if name != "source_only"]
    for name in others:
        found = runs[name][0]["task"]
        assert all(torch.equal(found[key], start[key]) for key in start), name
        assert [u["target"] for u in runs[name]] == [u["target"] for u in runs["control"]]
        same = [u["source"] for u in runs[name]] == [u["source"] for u in runs["control"]]
        assert same == (name not in ("oracle", "self_rare"))
        assert all(u["teacher"] == ("self_training" in ROWS[name].adaptation) for u in runs[name])
    assert all(update["target"] is None for update in runs["source_only"])
    ends = [weights(folder / "runs", name) for name in ROWS]
    assert len(set(ends)) == len(ROWS)


def test_a_second_call_trains_nothing_and_prints_the_same(world):
    folder, _ = world
    before = {p: p.stat().st_mtime_ns for p in (folder / "runs").rglob("seed0/**/*") if p.is_file()}
    with mock.patch.object(Trainer, "train", side_effect=AssertionError("it trains")):
        again = ablate_all(folder)
        some = ablate(folder, folder / "runs", "both", **{"data.target.depth": "depth/*"})
    tables = (folder / "log").read_text()
    assert tables.endswith(again) and some == again
    assert before == {
        p: p.stat().st_mtime_ns for p in (folder / "runs").rglob("seed0/**/*") if p.is_file()
    }


def test_garbage_target_labels_change_only_rows_that_learn_from_them(world, tmp_path):
    folder, _ = world
    shutil.copytree(folder / "street_scenes", tmp_path / "street_scenes")
    shutil.copytree(folder / "camvid", tmp_path / "camvid")
    for path in (tmp_path / "camvid").glob("*annot/*"):  # of all splits
        ids = np.random.default_rng(1).integers(0, 12, (96, 128), np.uint8)
        cv2.imwrite(str(path), ids)
    ablate_all(tmp_path)
    for name in ROWS:
        same = weights(tmp_path / "runs", name) == weights(folder / "runs", name)
        assert same == (name not in ("oracle", "few_labels")), name


def test_an_interrupted_row_resumes_and_reaches_the_same_score(world, tmp_path, monkeypatch):
    folder, _ = world
    rows = ("source_only", "self_training")
    original = Trainer._set_learning_rates

    def interrupted(self, phase):
        if self.config.name == "self_training":
            signal.raise_signal(signal.SIGINT)
        return original(self, phase)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_set_learning_rates", interrupted)
        typed = arguments(folder, tmp_path, *rows)
        done = command("ablate", *typed, cwd=folder)
    assert done.returncode == 130 and "continue with the same command" in done.stderr, done.stderr
    run = tmp_path / "ablation" / "seed0" / "self_training"
    assert (run / "checkpoints" / "last.pt").is_file() and not (run / "result.json").exists()
    kept = json.loads((tmp_path / "ablation" / "ablation.json").read_text())
    assert [row["name"] for row in kept["rows"]] == ["source_only"]
    # a run that has a checkpoint does not need it
    (tmp_path / "ablation" / "seed0" / "source_only" / "task_source_only.safetensors").unlink()

    ablate(folder, tmp_path, *rows)
    files = [r / "ablation" / "ablation.json" for r in (folder / "runs", tmp_path)]
    first, again = (
        {row["name"]: row for row in json.loads(file.read_text())["rows"]} for file in files
    )
    assert list(again) == list(rows)
    for name in rows:
        assert (
            again[name]["miou"] == first[name]["miou"] and again[name]["iou"] == first[name]["iou"]
        )
    assert weights(tmp_path, "self_training") == weights(folder / "runs", "self_training")


def test_ctrl_c_in_the_last_evaluation_of_a_row_starts_no_further_row(world, tmp_path, monkeypatch):
    folder, _ = world
    original = Trainer._evaluate

    def interrupted(self, phase):
        signal.raise_signal(signal.SIGINT)
        return original(self, phase)

    monkeypatch.setattr(Trainer, "_evaluate", interrupted)
    done = command("ablate", *arguments(folder, tmp_path, "source_only", "control"), cwd=folder)
    assert done.returncode == 130, done.stdout
    assert [path.name for path in (tmp_path / "ablation" / "seed0").iterdir()] == ["source_only"]


def test_the_oracle_of_street_scenes_trains_on_the_target_look(world, tmp_path):
    folder, _ = world
    settings = {"target": "street_scenes", "data.source.frames": 4}
    ablate(folder, tmp_path, "source_only", "oracle", **settings)
    result = json.loads((tmp_path / "ablation" / "seed0" / "oracle" / "result.json").read_text())
    assert result["columns"][0]["name"] == "supervised"
    config = Config()
    config.data.target.root, config.data.height, config.data.width = str(folder), 64, 96
    config.data.target.frames = 5
    data = supervised(config.data)
    assert data.source.look == config.data.target.look and data.target == config.data.target


def test_the_oracle_has_labels_but_no_depth(world):
    folder, _ = world
    config = Config()
    config.data.target.name, config.data.target.root = "camvid", str(folder / "camvid")
    data = supervised(config.data)
    assert [f.image.parent.name for f in source_set(data).frames] == ["train"] * 3
    frames = source_frames(data)
    assert not frames.has_depth and not frames[0].depth.any()
    assert frames[0].labels.shape == (180, 240)


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--rows", "control", "--name=new"], ["add source_only to --rows"]),
        (["--rows", "everything"], ["everything", "source_only", "oracle"]),
        (["--preset", "large"], ["large", "paper", "pretrained", "small"]),
        (["--adaptation.lambda_img=5"], ["adaptation.lambda_img = 3.0, now it is 5.0", "--name"]),
        (["--schedule.adaptation_steps=0", "--name=new"], ["adaptation_steps is 0"]),
    ],
)
def test_bad_input_is_reported_before_anything_runs(world, extra, words):
    folder, _ = world
    done = command("ablate", *arguments(folder, folder / "runs"), *extra, cwd=folder)
    assert done.returncode == 2, (done.stdout, done.stderr)
    message = " ".join(done.stderr.split())
    assert all(word in message for word in words), done.stderr
    assert not (folder / "runs" / "new").exists()


def test_an_oracle_without_labels_is_reported_before_anything_runs(world, tmp_path):
    folder, _ = world
    shutil.copytree(folder / "street_scenes", tmp_path / "street_scenes")
    shutil.copytree(folder / "camvid", tmp_path / "camvid")
    shutil.rmtree(tmp_path / "camvid" / "trainannot")
    rows = "source_only", "oracle"
    done = command("ablate", *arguments(tmp_path, tmp_path / "runs", *rows), cwd=tmp_path)
    assert done.returncode == 2 and "leave oracle out of --rows" in done.stderr
    assert not (tmp_path / "runs").exists()
    # and without names of rows it is left out
    target = TargetConfig(name="camvid", root=str(tmp_path / "camvid"))
    config = Config(data=DataConfig(target=target))
    assert default_rows(config) == {n for n, row in ROWS.items() if not row.variant} - {"oracle"}
    target.root = str(folder / "camvid")
    assert "oracle" in default_rows(config)


def test_initial_weights_of_another_model_are_refused(world):
    folder, _ = world
    start = folder / "runs" / "ablation" / "seed0" / "source_only" / "task_source_only.safetensors"
    for setting, words in (
        ({"model.width": 0.25}, "model.width = 0.125, here it is 0.25"),
        ({"model.norm": "none"}, "model.norm = group, here it is none"),
        ({"data.label_space": "cityscapes16"}, "data.label_space = camvid11"),
        ({"model.init_from": folder / "no.safetensors"}, "no.safetensors: no such file"),
    ):
        values = {"name": "other", "model.init_from": start, **setting}
        done = command("train", *flags(folder / "street_scenes", folder, **values), cwd=folder)
        assert done.returncode == 2 and words in done.stderr, done.stderr
        assert not (folder / "other").exists()


def test_levels_that_need_depth_are_refused_without_depth(world):
    folder, _ = world
    values = {"data.source.name": "camvid", "data.source.root": folder / "camvid", "name": "flat"}
    done = command("train", *flags(folder / "street_scenes", folder, **values), cwd=folder)
    assert done.returncode == 2 and "camvid has no depth" in done.stderr, done.stderr


def test_statistics_over_seeds(tmp_path):
    """Mean, sample standard deviation, differences within a seed, fraction of the gap."""
    scores = {  # mIoU of each seed, by row
        "source_only": (0.20, 0.30),
        "control": (0.30, 0.40),
        "both": (0.40, 0.42),
        "oracle": (0.50, 0.80),
    }
    for name, of_seeds in scores.items():
        for seed, miou in enumerate(of_seeds):
            run = tmp_path / f"seed{seed}" / name
            run.mkdir(parents=True)
            (run / "report.html").write_text("")
            column = {
                "name": "x", "updates": 500 if name == "source_only" else 220, "miou": miou,
                "iou": {"road": miou, "car": None if seed else 0.1}, "pixel_accuracy": 0.5,
            }  # fmt: skip
            result = {
                "columns": [column], "classes": ["road", "car"], "colours": [[0, 0, 0]] * 2,
                "seconds": 60.0, "versions": {}, "command": "", "target": "x",
            }  # fmt: skip
            (run / "result.json").write_text(json.dumps(result))
    summary = summarise(Config(name="a"), tmp_path, "typed")
    both = next(row for row in summary["rows"] if row["name"] == "both")
    assert both["miou"]["mean"] == pytest.approx(0.41)
    assert both["miou"]["std"] == pytest.approx(np.std([0.40, 0.42], ddof=1))
    assert both["difference"]["mean"] == pytest.approx(0.06)
    assert both["difference"]["std"] == pytest.approx(np.std([0.10, 0.02], ddof=1))
    assert both["gap_closed"] == pytest.approx(0.12 / 0.6)
    assert [one["gap_closed"] for one in both["seeds"]] == pytest.approx([0.5, 0.05])
    assert both["iou"]["car"] == {"mean": 0.1, "std": None}
    assert [row["name"] for row in summary["rows"]] == list(scores)


@pytest.mark.parametrize("preset", shipped_presets())
def test_presets_override_the_configuration_and_flags_override_them(world, preset):
    folder, _ = world
    done = command(
        "ablate", "--config", "street_to_camvid", "--preset", preset,
        "--schedule.batch_size=3", "--print_config", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "name: camvid" in done.stdout and "batch_size: 3" in done.stdout
    assert ("width: 480" if preset == "paper" else "width: 240") in done.stdout
