"""Several sources in one training run, each with a share of the pairs."""

import bisect
import itertools
from collections.abc import Mapping, Sequence
from typing import Generic, Protocol, TypeVar

import numpy as np

from .files import LabelledFrame

_TURNS = 1000
"""Length of the repeated pattern of turns: shares are rounded to a thousandth."""


class Source(Protocol):
    """Labelled frames of one source."""

    @property
    def has_depth(self) -> bool:
        """Whether the data set has depth maps."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> LabelledFrame: ...

    def labels(self, index: int) -> np.ndarray:
        """Labels alone, uint8 [H, W] train ids."""


Frames = TypeVar("Frames", bound=Source)


class SourceMix(Generic[Frames]):
    """Frames of several sources, one after the other; pairs take turns among them.

    Args:
        parts: the sources by the prefix of their settings.
        shares: relative number of pairs of each source.
    """

    def __init__(self, parts: Mapping[str, Frames], shares: Sequence[float]):
        self.parts = dict(parts)
        self.shares = np.asarray(shares, np.float64) / sum(shares)
        self._frames = list(self.parts.values())
        self._ends = list(itertools.accumulate(len(frames) for frames in self._frames))
        self._turns, self._turns_before = _turns(self.shares)

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> LabelledFrame:
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = bisect.bisect_right(self._ends, index)
        return self._frames[part][index - self._ends[part] + len(self._frames[part])]

    def turn(self, k: int) -> tuple[int, int]:
        """Number of the source that pair k takes a frame from, and of the source's pairs before."""
        periods, place = divmod(k, len(self._turns))
        part = int(self._turns[place])
        per_period = int(self._turns_before[-1, part])
        return part, periods * per_period + int(self._turns_before[place, part])

    @property
    def has_depth(self) -> bool:
        """Whether all of the sources have depth maps."""
        return all(frames.has_depth for frames in self._frames)

    def part(self, number: int) -> Frames:
        """A source by its number."""
        return self._frames[number]


def _turns(shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The source of each turn, and how many turns each source had before: [T], [T + 1, sources].

    Each turn goes to the source that is furthest behind its share.
    """
    turns = np.zeros(_TURNS, np.int64)
    before = np.zeros((_TURNS + 1, len(shares)), np.int64)
    for turn in range(_TURNS):
        turns[turn] = np.argmax(shares * (turn + 1) - before[turn])
        before[turn + 1] = before[turn]
        before[turn + 1, turns[turn]] += 1
    return turns, before
