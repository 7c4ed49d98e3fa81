"""Rare-class sampling: pairs whose source frame shows a class that is drawn first.

DAFormer (Hoyer et al., CVPR 2022, arXiv 2111.14887), section 3.3.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..config import DataConfig
from .class_counts import counts_by_frame, frequencies
from .pack_reader import PackedSource
from .sets import SourceFrames
from .source_mix import SourceMix
from .unreadable import Unreadable

_MIN_SHARE = 0.003
"""Share of a crop's pixels from which a frame shows a class. DAFormer asks for 3000 pixels of
1914x1052 in a frame, 0.15 %, and for 1500 of 512x512 in a crop of it, 0.6 %."""


class ClassDraw(NamedTuple):
    """A class that a pair's source frame must show."""

    train_id: int
    min_pixels: int
    """Pixels of the class from which a frame or a crop shows it."""
    frames: np.ndarray
    """int64 [n]: the frames that show the class, the drawn one first, then its replacements if it
    cannot be read."""

    def is_in(self, labels: np.ndarray) -> bool:
        """Whether labels uint8 [H, W] show the class."""
        return bool(np.count_nonzero(labels == self.train_id) >= self.min_pixels)


class RareClasses:
    """Draws classes with probability softmax((1 - frequency) / temperature), then frames.

    A class that few pixels of any frame show keeps at least half of the frames that have it.

    Args:
        counts: pixels by train id in each frame of each source, int [N, 256].
        frequency: share of each class in the labelled pixels of all sources, float [C].
        temperature: the lower, the more frames of rare classes.
        size: (H, W) of the crops.
    """

    def __init__(
        self,
        counts: Sequence[np.ndarray],
        frequency: np.ndarray,
        temperature: float,
        size: tuple[int, int],
    ):
        enough = max(1, round(_MIN_SHARE * size[0] * size[1]))
        self._sources = [_Source(c, frequency, temperature, enough) for c in counts]

    def draw(self, source: int, rng: np.random.Generator) -> ClassDraw | None:
        """Draw a class among those that a source has, and one of its frames.

        Args:
            source: number of the source.
            rng: of the pair.

        Returns:
            The class and its frames; None if the source has no labelled pixel.
        """
        return self._sources[source].draw(rng)


class _Source:
    def __init__(self, counts: np.ndarray, frequency: np.ndarray, temperature: float, enough: int):
        counts = counts[:, : len(frequency)]
        self._classes = np.flatnonzero(counts.any(0))
        self._min_pixels = [
            min(enough, int(np.median(pixels[pixels > 0]))) for pixels in counts[:, self._classes].T
        ]
        self._frames = [
            np.flatnonzero(counts[:, c] >= least)
            for c, least in zip(self._classes, self._min_pixels, strict=True)
        ]
        # the largest exponent is 0, so that no temperature overflows
        rarity = frequency[self._classes].min(initial=1) - frequency[self._classes]
        weights = np.exp(rarity / temperature)
        self._below = np.cumsum(weights) / weights.sum()

    def draw(self, rng: np.random.Generator) -> ClassDraw | None:
        of_class, of_frame = rng.random(2)
        if not len(self._classes):
            return None
        number = min(np.searchsorted(self._below, of_class, "right"), len(self._classes) - 1)
        frames = self._frames[number]
        first = int(of_frame * len(frames))
        return ClassDraw(
            int(self._classes[number]), self._min_pixels[number], np.roll(frames, -first)
        )


def rare_classes(
    source: SourceFrames | PackedSource | SourceMix,
    num_classes: int,
    temperature: float,
    unreadable: Unreadable,
    config: DataConfig,
) -> RareClasses:
    """The draws for a source or several; each source keeps its share of the pairs.

    Rarity is that of all sources together, by their shares.

    Args:
        source: the source or sources.
        num_classes: number of classes.
        temperature: see ``RareClasses``.
        unreadable: counts the label maps that cannot be read.
        config: settings of the sources, to keep the counts by, and the size of the crops.
    """
    counts = counts_by_frame(source, unreadable, config)
    frequency = frequencies(counts, source, num_classes)
    return RareClasses(counts, frequency, temperature, (config.height, config.width))
