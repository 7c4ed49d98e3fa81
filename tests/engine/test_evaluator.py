"""Scores of a network whose mistakes are known."""

import numpy as np
import pytest
import torch

from gioada_fast.data.sets import EvaluationFrame
from gioada_fast.depth import NEAR
from gioada_fast.engine.evaluator import Scores, evaluate
from gioada_fast.engine.windows import Inference
from gioada_fast.labels import LabelSpace, label_space

SPACE = label_space("camvid11")


class Fixed(torch.nn.Module):
    """Predicts the same small map for every image."""

    def __init__(self, classes: np.ndarray):
        super().__init__()
        one_hot = torch.nn.functional.one_hot(torch.from_numpy(classes), SPACE.num_classes)
        self.depth = torch.ones(1, 1, *classes.shape)
        self.logits = one_hot.permute(2, 0, 1)[None].float()

    def forward(self, image):
        assert not self.training
        return self.logits, self.depth


def frame(labels: np.ndarray) -> EvaluationFrame:
    return EvaluationFrame(np.zeros((8, 8, 3), np.uint8), labels, None)


def test_scores_from_counts():
    counts = np.array([[6, 2, 0], [1, 3, 0], [0, 0, 0]])
    space = LabelSpace("three", ("road", "sky", "car"), ((0, 0, 0),) * 3, (7, 23, 26))
    scores = Scores.from_confusion(counts, space)
    assert scores.iou == {"road": 6 / 9, "sky": 3 / 6, "car": None}
    assert scores.miou == pytest.approx((6 / 9 + 3 / 6) / 2)
    assert scores.pixel_accuracy == pytest.approx(9 / 12)


def test_evaluate_sums_over_frames_of_any_size():
    """The prediction is class 0 on the left and 1 on the right; ignored pixels do not count."""
    first = np.zeros((10, 20), np.uint8)
    first[:, 10:] = 1
    second = np.full((4, 6), 2, np.uint8)
    second[0] = 255
    task = Fixed(np.array([[0, 1]])).train()
    scores = evaluate(task, [frame(first), frame(second)], SPACE, torch.device("cpu"), "fp32")
    assert task.training
    names = list(SPACE.classes)
    assert scores.pixel_accuracy == pytest.approx(200 / 218)
    assert scores.iou[names[0]] == pytest.approx(100 / 109)
    assert scores.iou[names[1]] == pytest.approx(100 / 109)
    assert scores.iou[names[2]] == 0 and scores.iou[names[3]] is None
    assert scores.miou == pytest.approx((100 / 109 * 2 + 0) / 3)


def test_depth_errors_count_valid_pixels_up_to_80_metres():
    """10 m is predicted everywhere; true depths of 8 and 20 m count, none and 100 m do not."""
    task = Fixed(np.array([[0, 1]]))
    task.depth = torch.full((1, 1, 4, 4), NEAR / 10)
    truth = np.array([[8, 20], [0, 100]], np.float32)
    labels = np.zeros((2, 2), np.uint8)
    frames = [EvaluationFrame(np.zeros((8, 8, 3), np.uint8), labels, truth), frame(labels)]
    scores = evaluate(task, frames, SPACE, torch.device("cpu"), "fp32", "inverse")
    assert scores.depth.abs_rel == pytest.approx((2 / 8 + 10 / 20) / 2, rel=1e-5)
    assert scores.depth.rmse == pytest.approx(np.sqrt((2**2 + 10**2) / 2), rel=1e-5)
    assert scores.depth.delta_1_25 == 0
    frames[0].depth[0] = 9, 11
    assert evaluate(task, frames, SPACE, torch.device("cpu"), "fp32").depth.delta_1_25 == 1
    assert evaluate(task, frames[1:], SPACE, torch.device("cpu"), "fp32").depth is None


def test_without_labels_there_are_no_scores():
    scores = evaluate(Fixed(np.array([[0, 1]])), [], SPACE, torch.device("cpu"), "fp32")
    assert scores.miou is None and scores.pixel_accuracy is None
    assert set(scores.iou.values()) == {None}


def test_depth_errors_in_blocks_are_those_of_the_frame():
    class Mean(torch.nn.Module):
        def forward(self, image):
            grey = image.mean(1, keepdim=True)
            return grey.repeat(1, SPACE.num_classes, 1, 1), 0.1 + 0.05 * grey

    rng = np.random.default_rng(0)
    image, labels = rng.integers(0, 256, (150, 300, 3), np.uint8), np.zeros((150, 300), np.uint8)
    truth = rng.uniform(0, 100, (150, 300)).astype(np.float32)
    truth[:70, :260] = 0  # blocks without depth

    class Frames(list):
        name = staticmethod(str)

    frames = Frames([EvaluationFrame(image, labels, truth)])
    whole, blocks = (
        evaluate(Mean(), frames, SPACE, torch.device("cpu"), "fp32", inference=inference).depth
        for inference in (None, Inference(window=(64, 64)))
    )
    for name in ("abs_rel", "rmse", "delta_1_25"):
        assert getattr(blocks, name) == pytest.approx(getattr(whole, name), rel=1e-6)
