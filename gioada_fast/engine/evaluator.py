"""Scores on labelled frames: IoU of each class, mean IoU, pixel accuracy and depth errors."""

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from ..data.sets import EvaluationFrames
from ..depth import decode_depth
from ..labels import LabelSpace, label_space
from ..models import TaskNet
from ..models.layers import upsample
from ..ops import upsample_argmax, upsample_confusion_matrix
from . import distributed
from .windows import Inference, predict_blocks

MAX_SCORED_DEPTH = 80.0
"""Metres. Larger depths are not scored, as is usual for driving (Eigen et al., NIPS 2014)."""


@dataclass(frozen=True)
class DepthScores:
    """Depth errors: means over frames of each frame's mean over its pixels."""

    abs_rel: float
    """Mean of |d - d*| / d*."""
    rmse: float
    """Square root of the mean of (d - d*)^2, in metres."""
    delta_1_25: float
    """Fraction of pixels where max(d / d*, d* / d) is below 1.25."""


@dataclass(frozen=True)
class Scores:
    """Scores as fractions."""

    iou: dict[str, float | None]
    """IoU by class; None for a class that occurs neither in labels nor in predictions."""
    miou: float | None
    """Mean over the classes that have an IoU; None if there is none."""
    pixel_accuracy: float | None
    miou_of: dict[str, float | None] = field(default_factory=dict)
    """Mean over the classes of a smaller label space, by that label space's name."""
    depth: DepthScores | None = None
    """None if the frames have no depth."""

    def not_finite(self) -> list[str]:
        """Names of the scores that are NaN or infinite, such as ``depth abs_rel``."""
        values = {"mIoU": self.miou, "pixel accuracy": self.pixel_accuracy}
        values |= {f"IoU of {name}": iou for name, iou in self.iou.items()}
        values |= {f"mIoU of {name}": miou for name, miou in self.miou_of.items()}
        if self.depth is not None:
            values |= {f"depth {name}": value for name, value in asdict(self.depth).items()}
        return [n for n, value in values.items() if value is not None and not math.isfinite(value)]

    @classmethod
    def from_confusion(
        cls, confusion: np.ndarray, space: LabelSpace, depth: DepthScores | None = None
    ) -> "Scores":
        """Compute scores from int64 [C, C] pixel counts with ground truth in rows."""
        hits = np.diag(confusion).astype(np.float64)
        union = confusion.sum(0) + confusion.sum(1) - hits
        iou = {
            name: float(hit / total) if total else None
            for name, hit, total in zip(space.classes, hits, union, strict=True)
        }
        others = [label_space(space.also_scored)] if space.also_scored else []
        total = confusion.sum()
        return cls(
            iou,
            _mean(iou.values()),
            float(hits.sum() / total) if total else None,
            {other.name: _mean(iou[name] for name in other.classes) for other in others},
            depth,
        )


def _mean(values: Iterable[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return float(np.mean(present)) if present else None


@torch.no_grad()
def evaluate(
    task: TaskNet,
    frames: EvaluationFrames,
    space: LabelSpace,
    device: torch.device,
    precision: str = "auto",
    depth_encoding: str = "inverse",
    on_prediction: Callable[[int, np.ndarray], None] | None = None,
    inference: Inference | None = None,
) -> Scores:
    """Score a task network. Predictions are compared with labels at the labels' own size.

    If the network predicts NaN or infinity, IoUs, their means and the pixel accuracy are NaN.

    Several processes divide the frames among them; each gets the scores on all frames.

    Args:
        task: the network.
        frames: frames with ground truth.
        space: the network's classes.
        device: the network's device.
        precision: see ``device.autocast``.
        depth_encoding: encoding of the depth that the network predicts.
        on_prediction: called with each frame's index and its scored segmentation, train ids uint8
            [H', W'].
        inference: how to apply the network; None: to whole images, as they are.
    """
    was_training = task.training
    task.eval()
    confusion = torch.zeros(space.num_classes, space.num_classes, dtype=torch.int64, device=device)
    # sums of the three errors over the frames, and the number of frames with depth
    errors = torch.zeros(4, dtype=torch.float64, device=device)
    not_finite = torch.zeros((), dtype=torch.int64, device=device)
    for index in range(distributed.rank(), len(frames), distributed.world_size()):
        frame = frames[index]
        if inference is not None:
            inference.check((frame.image.shape[0], frame.image.shape[1]), frames.name(index))
        labels = torch.from_numpy(frame.labels).unsqueeze(0).to(device)
        true = None if frame.depth is None else torch.from_numpy(frame.depth).to(device)
        predicted = np.empty(frame.labels.shape, np.uint8) if on_prediction is not None else None
        images, size = [frame.image], (labels.shape[1], labels.shape[2])
        parts = []
        for block in predict_blocks(task, images, size, device, precision, inference):
            place = block.rows, block.columns
            not_finite += (~torch.isfinite(block.logits)).sum()
            if predicted is not None:
                classes = upsample_argmax(block.logits, block.size, dtype=torch.uint8)
                predicted[place] = classes[0].cpu().numpy()
            confusion += upsample_confusion_matrix(block.logits, labels[(slice(None), *place)])
            if true is not None:
                parts.append(_depth_errors(block.depth, true[place], depth_encoding))
        if predicted is not None and on_prediction is not None:
            on_prediction(index, predicted)
        if parts:
            errors += _frame_errors(torch.stack(parts))
    task.train(was_training)
    distributed.sum_over_processes(confusion)
    *sums, scored = distributed.sum_over_processes(errors).tolist()
    depth_scores = DepthScores(*(value / scored for value in sums)) if scored else None
    scores = Scores.from_confusion(confusion.cpu().numpy(), space, depth_scores)
    if not distributed.sum_over_processes(not_finite).item():
        return scores
    return replace(
        scores,
        iou=dict.fromkeys(scores.iou, math.nan),
        miou=math.nan,
        pixel_accuracy=math.nan,
        miou_of=dict.fromkeys(scores.miou_of, math.nan),
    )


def _depth_errors(encoded: Tensor, true: Tensor, encoding: str) -> Tensor:
    """Float64 [4]: means of |d - d*| / d*, (d - d*)^2 and delta over the scored pixels of a part of
    a frame, and their number; zeros if no pixel is scored.
    """
    scored = (true > 0) & (true <= MAX_SCORED_DEPTH)
    if not scored.any():
        return true.new_zeros(4, dtype=torch.float64)
    full = upsample(encoded.float(), (true.shape[0], true.shape[1]))[0, 0]
    d = decode_depth(full, encoding).clamp(max=MAX_SCORED_DEPTH)[scored].double()
    true = true[scored].double()
    ratio = torch.maximum(d / true, true / d)
    return torch.stack(
        [
            ((d - true).abs() / true).mean(),
            (d - true).square().mean(),
            (ratio < 1.25).double().mean(),
            torch.ones_like(ratio).sum(),
        ]
    )


def _frame_errors(parts: Tensor) -> Tensor:
    """Float64 [4]: abs_rel, rmse and delta of a frame, and 1; zeros if no pixel is scored.

    Args:
        parts: float64 [K, 4], ``_depth_errors`` of the frame's parts.
    """
    counts = parts[:, 3:]
    total = counts.sum().clamp(min=1)
    abs_rel, square, delta = (parts[:, :3] * (counts / total)).sum(0)
    return torch.stack([abs_rel, square.sqrt(), delta, counts.sum().clamp(max=1)])
