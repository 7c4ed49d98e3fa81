"""Weights of the cross-entropy from the source's labels."""

import numpy as np

from ..errors import InputError
from .pack_reader import PackedSource
from .sets import SourceFrames
from .unreadable import Unreadable


def class_weights(
    frames: SourceFrames | PackedSource, num_classes: int, unreadable: Unreadable
) -> np.ndarray:
    """1 / sqrt(frequency in the source's labels), mean 1, float32 [C]; 1 for absent classes."""
    counts = np.zeros(256, np.int64)
    for index in range(len(frames)):
        try:
            counts += np.bincount(frames.labels(index).ravel(), minlength=256)
        except InputError as error:
            unreadable.add(str(error))
    counts = counts[:num_classes]
    present = counts > 0
    weights = np.ones(num_classes)
    weights[present] = 1 / np.sqrt(counts[present] / counts.sum())
    weights[present] /= weights[present].mean()
    return weights.astype(np.float32)
