"""``evaluate`` applies the network as ``predict`` does: whole, in windows, augmented."""

import json

import cv2
import numpy as np
import pytest
import torch

from gioada_fast.config import Config
from gioada_fast.engine.networks import save_task
from gioada_fast.labels import label_space
from gioada_fast.models import TaskNet
from tests.commands import command
from tests.miniature import SIZE, write_camvid


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Weights of an untrained network, and a CamVid folder."""
    folder = tmp_path_factory.mktemp("data")
    config = Config()
    config.data.height, config.data.width, config.model.width = *SIZE, 0.125
    torch.manual_seed(0)
    task = TaskNet(11, "vgg16", 0.125, config.model.trunk_norm)
    save_task(folder / "task.safetensors", task, config)
    write_camvid(folder / "camvid", ("val",), count=2)
    return folder


def run(data, *flags):
    arguments = (data / "task.safetensors", "--target=camvid", "--root", data / "camvid", *flags)
    return command("evaluate", *arguments, "--device=cpu", cwd=data)


def scores(data, *flags):
    done = run(data, *flags, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_window_that_covers_the_frames_changes_no_bit(data):
    assert scores(data, "--window=200", "--stride=7") == scores(data)
    assert scores(data, "--scale=1") == scores(data)


def test_scores_are_those_of_the_saved_predictions(data, tmp_path):
    flags = ("--scale=own", "--window=64", "--stride=33", "--batch=3", "--tta")
    for name, options in {"whole": (), "windows": flags}.items():
        found = scores(data, *options, f"--save-predictions={tmp_path / name}")
        hits = total = 0
        for path in sorted((tmp_path / name).iterdir()):
            ids = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            labels = cv2.imread(str(data / "camvid" / "valannot" / path.name), cv2.IMREAD_UNCHANGED)
            hits += (ids == official(labels))[labels < 11].sum()
            total += (labels < 11).sum()
        assert found["pixel_accuracy"] == hits / total
    assert not np.array_equal(*(image(tmp_path / name) for name in ("whole", "windows")))


def official(labels: np.ndarray) -> np.ndarray:
    return label_space("camvid11").official_ids(labels)


def image(folder):
    return cv2.imread(str(min(folder.iterdir())), cv2.IMREAD_UNCHANGED)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--window=8",), "--window is 8x8, must be at least 32"),
        (("--window=64", "--stride=96x64"), "--stride is 96x64"),
        (("--scale=0.2",), "val_000: 128x96 pixels: the network would see"),
        (("--scale=50",), "val_000: 128x96 pixels: the network would see"),
    ],
)
def test_what_is_refused(data, flags, words):
    done = run(data, *flags)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr
