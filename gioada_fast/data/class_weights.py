"""Weights of the cross-entropy from the sources' labels."""

import numpy as np

from ..config import DataConfig
from .class_counts import counts_by_frame, frequencies
from .pack_reader import PackedSource
from .sets import SourceFrames
from .source_mix import SourceMix
from .unreadable import Unreadable


def class_weights(
    source: SourceFrames | PackedSource | SourceMix,
    num_classes: int,
    unreadable: Unreadable,
    config: DataConfig | None = None,
) -> np.ndarray:
    """1 / sqrt(frequency in the sources' labels), mean 1, float32 [C]; 1 for absent classes.

    Several sources count by their shares.

    Args:
        source: the source or sources.
        num_classes: number of classes.
        unreadable: counts the files that cannot be read.
        config: settings of the sources, to keep the counts by; None counts and keeps nothing.
    """
    frequency = frequencies(counts_by_frame(source, unreadable, config), source, num_classes)
    present = frequency > 0
    weights = np.ones(num_classes)
    if present.any():
        weights[present] = 1 / np.sqrt(frequency[present])
        weights[present] /= weights[present].mean()
    return weights.astype(np.float32)
