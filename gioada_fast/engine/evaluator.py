"""Scores on labelled frames: IoU of each class, mean IoU, pixel accuracy."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from ..data.datasets import EvaluationFrames
from ..data.labels import LabelSpace
from ..models import TaskNet
from ..models.layers import normalise
from ..ops import upsample_confusion_matrix
from . import distributed
from .device import autocast


@dataclass(frozen=True)
class Scores:
    """Scores from a confusion matrix, as fractions."""

    iou: dict[str, float | None]
    """By class; None for a class that neither the labels nor the predictions have."""
    miou: float
    """Mean over the classes that have an IoU."""
    pixel_accuracy: float

    @classmethod
    def from_confusion(cls, confusion: np.ndarray, classes: Iterable[str]) -> "Scores":
        """Scores of int64 [C, C] counts, rows ground truth."""
        hits = np.diag(confusion).astype(np.float64)
        union = confusion.sum(0) + confusion.sum(1) - hits
        iou = {
            name: float(hit / total) if total else None
            for name, hit, total in zip(classes, hits, union, strict=True)
        }
        present = [value for value in iou.values() if value is not None]
        total = confusion.sum()
        return cls(
            iou,
            float(np.mean(present)) if present else 0.0,
            float(hits.sum() / total) if total else 0.0,
        )


@torch.no_grad()
def evaluate(
    task: TaskNet,
    frames: EvaluationFrames,
    space: LabelSpace,
    device: torch.device,
    precision: str = "auto",
) -> Scores:
    """Score a task network: predicted at the frames' size, compared at the labels' own size.

    Several processes share the frames, and get the scores on all of them.
    """
    was_training = task.training
    task.eval()
    confusion = torch.zeros(space.num_classes, space.num_classes, dtype=torch.int64, device=device)
    for index in range(distributed.rank(), len(frames), distributed.world_size()):
        frame = frames[index]
        image = torch.from_numpy(frame.image).permute(2, 0, 1).unsqueeze(0).to(device)
        with autocast(device, precision):
            logits, _ = task(normalise(image))
        labels = torch.from_numpy(frame.labels).unsqueeze(0).to(device)
        confusion += upsample_confusion_matrix(logits, labels)
    task.train(was_training)
    distributed.sum_over_processes(confusion)
    return Scores.from_confusion(confusion.cpu().numpy(), space.classes)
