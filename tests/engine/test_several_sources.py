"""A run on two sources of other sizes, one without depth, and a target of another shape."""

import json
import signal

import numpy as np
import pytest
import yaml

from gioada_fast.data import class_counts
from gioada_fast.engine.trainer import Trainer

from ..commands import command
from ..miniature import SMALL_MODEL, write_camvid, write_street_scenes
from .test_trainer import assert_same_run


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with the data, and settings in one YAML file."""
    folder = tmp_path_factory.mktemp("sources")
    write_street_scenes(folder / "scenes")
    write_camvid(folder / "camvid")
    settings = {
        "runs_dir": str(folder / "runs"),
        "precision": "fp32",
        "data": {
            "sources": [
                {"name": "street_scenes", "root": str(folder / "scenes"), "frames": 6},
                {"name": "camvid", "root": str(folder / "camvid"), "height": 72, "share": 2},
            ],
            "target": {"name": "camvid", "root": str(folder / "camvid")},
            "height": 64,
            "width": 96,
            "workers": 0,
        },
        "model": SMALL_MODEL,
        "adaptation": {"input_level": "image"},
        "schedule": {
            "source_only_steps": 3,
            "adaptation_steps": 3,
            "batch_size": 2,
            "log_every": 1,
            "evaluate_every": 3,
            "panel_every": 3,
            "checkpoint_every": 1000,
        },
    }
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings))
    return folder


def train(world, name, *arguments):
    return command(
        "train", "--config", world / "settings.yaml", "--name", name, *arguments, cwd=world
    )


@pytest.fixture(scope="module")
def finished(world):
    done = train(world, "finished")
    assert done.returncode == 0, done.stderr
    return world / "runs/finished"


def test_each_source_is_named_in_the_result_and_the_report(finished):
    result = json.loads((finished / "result.json").read_text())
    assert result["sources"] == [
        "street scenes, 6 frames, 33.3% of the pairs",
        "CamVid, 3 frames without depth, 66.7% of the pairs",
    ]
    assert result["label_space"] == "camvid11"
    report = (finished / "report.html").read_text()
    assert "Trained on street scenes, 6 frames, 33.3% of the pairs; CamVid" in report
    assert "sources[1].height" in report


def test_a_stopped_run_resumes_bit_by_bit(world, finished, monkeypatch):
    original = Trainer._log_losses

    def interrupted(self, *args):
        if self.step == 4:
            signal.raise_signal(signal.SIGINT)
        return original(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_log_losses", interrupted)
        assert train(world, "stopped").returncode == 130
    done = command("train", "--resume", "runs/stopped", cwd=world)
    assert done.returncode == 0, done.stderr
    assert_same_run(world / "runs/stopped", finished)


def test_packs_give_the_same_weights(world, finished):
    flags = ["--data.packs", world / "packs"]
    done = command("data", "pack", "--config", world / "settings.yaml", *flags, cwd=world)
    assert done.returncode == 0, done.stderr
    folders = sorted(path.name for path in (world / "packs").iterdir())
    assert folders == ["source_0", "source_1", "target"]
    assert np.load(world / "packs/source_1/images.npy").shape == (3, 72, 96, 3)
    done = train(world, "packed", *flags)
    assert done.returncode == 0, done.stderr
    assert_same_run(world / "runs/packed", finished)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--adaptation.input_level", "geometry"],
         "data.sources[1]: camvid has no depth, but adaptation.input_level = geometry needs it"),
        (["--adaptation.input_level", "normals"],
         "data.sources[1]: camvid has no depth, but adaptation.input_level = normals needs it"),
        (["--data.sources", '[{"name": "camvid", "root": "camvid"}]'],
         "data.sources[0]: camvid has no depth, but adaptation.output_level = joint needs it"),
        (["--data.sources", '[{"name": "camvid", "root": "camvid"}]', "--adaptation.output_level",
          "none", "--adaptation.image_discriminator_input", "depth"],
         "camvid has no depth, but adaptation.image_discriminator_input = depth needs it"),
        (["--data.sources", '[{"name": "camvid"}]'], "data.sources[0].root is not set"),
        (["--data.sources", '[{"name": "camvid", "root": "camvid", "include": "x*"}]'],
         "data.sources[0].include is 'x*', which none of the 3 images matches"),
        (["--data.label_space", "kitti10"],
         "source street_scenes can be labelled in camvid11, cityscapes16, cityscapes13, kitti10; "
         "source camvid in camvid11; target camvid"),
    ],
)  # fmt: skip
def test_what_a_source_lacks_is_told(world, flags, words):
    done = train(world, "refused", *flags)
    assert done.returncode == 2 and words in done.stderr, done.stderr
    assert not (world / "runs/refused").exists()


def test_counts_are_kept_and_give_the_same_weights(world, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(class_counts, "CACHE", str(tmp_path))
    for name in ("counted", "kept"):
        assert train(world, name).returncode == 0
        monkeypatch.setattr(class_counts, "_count_one", None)
        assert_same_run(world / "runs" / name, finished)
