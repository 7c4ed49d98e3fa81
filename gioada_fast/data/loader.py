"""Training pairs in an order that depends on the seed and the position alone.

Pair k is the same whenever, wherever and after whatever it is asked for: so a resumed run goes on
with the very pairs that an unbroken one would have seen, whatever the number of loader processes.
"""

import signal
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from ..errors import InputError
from .datasets import SourceFrames, TargetImages

_SOURCE, _TARGET, _FLIP = range(3)


class PairStream(Dataset):
    """Endless stream of (source, target) pairs; every epoch is a new permutation of each set.

    Args:
        source: synthetic frames.
        target: unlabelled images, or None for the source alone.
        seed: of the order and the flips.
        flip: mirror half of the images, source and target each for itself.
    """

    def __init__(self, source: SourceFrames, target: TargetImages | None, seed: int, flip: bool):
        self.source, self.target, self.seed, self.flip = source, target, seed, flip

    def __getitem__(self, k: int) -> dict[str, torch.Tensor] | InputError:
        """Pair k; an error is returned, for a loader process would wrap what it raises."""
        try:
            return self._pair(k)
        except InputError as error:
            return error

    def _pair(self, k: int) -> dict[str, torch.Tensor]:
        flip_source, flip_target = self._flips(k)
        frame = self.source[self._index(_SOURCE, len(self.source), k)]
        image, labels, depth = (_mirror(array, flip_source) for array in frame)
        pair = {
            "source_image": _planes(image),
            "source_labels": torch.from_numpy(labels),
            "source_depth": torch.from_numpy(depth).unsqueeze(0),
        }
        if self.target is not None:
            image = self.target[self._index(_TARGET, len(self.target), k)]
            pair["target_image"] = _planes(_mirror(image, flip_target))
        return pair

    def _index(self, stream: int, length: int, k: int) -> int:
        epoch, position = divmod(k, length)
        return int(_permutation(self.seed, stream, epoch, length)[position])

    def _flips(self, k: int) -> tuple[bool, bool]:
        if not self.flip:
            return False, False
        source, target = np.random.default_rng((self.seed, _FLIP, k)).random(2) < 0.5
        return bool(source), bool(target)


class _Shard(Sampler[int]):
    """Positions of the pairs that one of several processes takes: every process's batch in turn."""

    def __init__(self, first: int, batches: int, batch_size: int, rank: int, processes: int):
        self.batches, self.batch_size = range(first, first + batches), batch_size
        self.rank, self.processes = rank, processes

    def __iter__(self) -> Iterator[int]:
        for batch in self.batches:
            begin = (batch * self.processes + self.rank) * self.batch_size
            yield from range(begin, begin + self.batch_size)

    def __len__(self) -> int:
        return len(self.batches) * self.batch_size


def pair_batches(
    stream: PairStream,
    first: int,
    batches: int,
    batch_size: int,
    workers: int,
    pin_memory: bool,
    rank: int = 0,
    processes: int = 1,
) -> Iterator[dict[str, torch.Tensor]]:
    """A process's batches number ``first`` and on.

    Batch b of all processes together is that of one process with ``processes`` times the batch
    size: pairs k from b * processes * batch_size.

    Yields:
        ``batches`` dicts: source_image uint8 [N, 3, H, W], source_labels uint8 [N, H, W],
        source_depth float32 [N, 1, H, W], and target_image uint8 [N, 3, H, W] where there is one.

    Raises:
        InputError: a file cannot be read.
    """
    loader = DataLoader(
        stream,
        batch_size=batch_size,
        sampler=_Shard(first, batches, batch_size, rank, processes),
        collate_fn=_collate,
        num_workers=workers,
        pin_memory=pin_memory,
        # its own generator: drawing the workers' base seed must not move the global one, or a
        # resumed run would go on from another state
        generator=torch.Generator().manual_seed(0),
        worker_init_fn=_leave_signals_to_the_trainer,
    )
    for batch in loader:
        if isinstance(batch, InputError):
            raise batch
        yield batch


def _collate(pairs: list) -> dict[str, torch.Tensor] | InputError:
    errors = [pair for pair in pairs if isinstance(pair, InputError)]
    return errors[0] if errors else default_collate(pairs)


def _leave_signals_to_the_trainer(worker: int) -> None:
    # Ctrl-C reaches every process of the terminal, and a scheduler's SIGTERM every one of the job;
    # the trainer still wants its next batch
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


@lru_cache(maxsize=4)
def _permutation(seed: int, stream: int, epoch: int, length: int) -> np.ndarray:
    return np.random.default_rng((seed, stream, epoch)).permutation(length)


def _mirror(array: np.ndarray, flip: bool) -> np.ndarray:
    return np.ascontiguousarray(array[:, ::-1]) if flip else array


def _planes(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)
