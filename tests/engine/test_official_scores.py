"""Our scores equal those that ``cityscapesscripts`` computes from the files that we write."""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from gioada_fast.config import Config, DataConfig, ModelConfig, TargetConfig
from gioada_fast.data.sets import evaluation_frames
from gioada_fast.engine.evaluator import evaluate
from gioada_fast.engine.networks import build_adaptation, save_task
from gioada_fast.labels import label_space
from gioada_fast.report.panels import save_image

from ..commands import command
from ..data import formats
from ..miniature import SMALL_MODEL

official = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")


class RandomLogits(torch.nn.Module):
    """Predicts noise at a lower resolution than the image."""

    def __init__(self, classes: int):
        super().__init__()
        self.classes, self.generator = classes, torch.Generator().manual_seed(0)

    def forward(self, image):
        n, _, h, w = image.shape
        logits = torch.randn(n, self.classes, h // 4, w // 4, generator=self.generator)
        return logits, torch.rand(n, 1, h // 4, w // 4, generator=self.generator)


def official_scores(folder: Path, root: Path, scored: tuple[str, ...], monkeypatch) -> dict:
    """Scores of the official tool for a folder of predictions; it ignores the other classes."""
    truth = sorted(map(str, root.glob("gtFine/val/*/*_gtFine_labelIds.png")))
    args = official.args
    args.evalInstLevelScore = args.evalPixelAccuracy = args.JSONOutput = args.colorized = False
    args.quiet, args.bold, args.nocol = True, "", ""
    args.predictionPath, args.predictionWalk = str(folder), None
    args.exportFile = str(folder / "official.json")
    labels = {
        number: label if label.name in scored else label._replace(ignoreInEval=True)
        for number, label in official.id2label.items()
    }
    monkeypatch.setattr(official, "id2label", labels)
    predictions = [official.getPrediction(args, path) for path in truth]
    return official.evaluateImgLists(predictions, truth, args)


def assert_agree(scores: dict, found: dict, classes: tuple[str, ...]) -> None:
    for name in classes:
        theirs, ours = found["classScores"][name], scores["iou"][name]
        assert np.isnan(theirs) if ours is None else abs(theirs - ours) < 1e-9, name
    assert abs(found["averageScoreClasses"] - scores["miou"]) < 1e-9


@pytest.fixture(params=["random", "sample"])
def cityscapes(request, tmp_path) -> Path:
    """A folder in the official layout: miniatures with all ids, or the real frame."""
    if request.param == "sample":
        return request.getfixturevalue("shared") / "data" / "cityscapes_sample"
    formats.write_cityscapes(tmp_path / "cityscapes", frames=2)
    return tmp_path / "cityscapes"


@pytest.mark.parametrize("name", ["cityscapes19", "cityscapes16", "kitti10"])
def test_random_predictions_get_the_official_scores(cityscapes, name, tmp_path, monkeypatch):
    space = label_space(name)
    data = DataConfig(
        target=TargetConfig(name="cityscapes", root=str(cityscapes)),
        label_space=name, height=64, width=128,
    )  # fmt: skip
    frames = evaluation_frames(data)
    folder = tmp_path / "predictions"
    folder.mkdir()

    def save(index, labels):
        assert labels.shape == frames[index].labels.shape
        save_image(folder / f"{frames.name(index)}.png", space.official_ids(labels))

    task = RandomLogits(space.num_classes)
    scores = evaluate(task, frames, space, torch.device("cpu"), "fp32", on_prediction=save)
    found = official_scores(folder, cityscapes, space.classes, monkeypatch)
    assert_agree(dataclasses.asdict(scores), found, space.classes)
    assert 0 < scores.miou < 0.2
    # the kernel, which never builds the full-size map, gets the same counts
    task.generator.manual_seed(0)
    again = evaluate(task, frames, space, torch.device("cpu"), "fp32")
    assert again.miou == pytest.approx(scores.miou, abs=1e-3)
    if name == "cityscapes16":
        thirteen = label_space("cityscapes13").classes
        ious = [scores.iou[c] for c in thirteen if scores.iou[c] is not None]
        assert scores.miou_of == {"cityscapes13": pytest.approx(np.mean(ious), abs=1e-12)}


def test_saved_predictions_get_the_official_scores(cityscapes, tmp_path, monkeypatch):
    config = Config(
        data=DataConfig(label_space="cityscapes19", height=64, width=128),
        model=ModelConfig(**SMALL_MODEL),
    )
    task = build_adaptation(config).task
    # so that every class is predicted: an untrained network's logits hardly differ
    for parameter in task.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    save_task(tmp_path / "task.safetensors", task, config)
    done = command(
        "evaluate", tmp_path / "task.safetensors", "--target", "cityscapes", "--root", cityscapes,
        "--save-predictions", tmp_path / "predictions", "--json", "--precision", "fp32",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    space = label_space("cityscapes19")
    for truth in cityscapes.glob("gtFine/val/*/*_labelIds.png"):
        stem = truth.name.replace("_gtFine_labelIds.png", "_leftImg8bit.png")
        prediction = cv2.imread(str(tmp_path / "predictions" / stem), cv2.IMREAD_UNCHANGED)
        assert prediction.dtype == np.uint8
        assert prediction.shape == cv2.imread(str(truth), cv2.IMREAD_UNCHANGED).shape
        assert set(np.unique(prediction)) <= set(space.ids)
    found = official_scores(tmp_path / "predictions", cityscapes, space.classes, monkeypatch)
    assert_agree(json.loads(done.stdout), found, space.classes)
    again = command(
        "evaluate", tmp_path / "task.safetensors", "--target", "cityscapes", "--root", cityscapes,
        "--save-predictions", tmp_path / "predictions", cwd=tmp_path,
    )  # fmt: skip
    assert again.returncode == 2 and "exists already" in again.stderr
