"""Training pairs in an order that depends only on the seed.

Pair k depends only on (seed, k): a resumed run sees the same pairs, for any number of workers.
"""

import itertools
import re
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import TypeVar

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from ..errors import InputError, ProcessDied
from .files import LabelledFrame
from .pack_reader import PackedSource, PackedTarget
from .rare_classes import ClassDraw, RareClasses
from .sets import SourceFrames, TargetImages
from .source_mix import SourceMix
from .unreadable import Unreadable

Frame = TypeVar("Frame")

_SOURCE, _TARGET, _FLIP, _CROP, _CLASSES, _OTHER_SOURCES = range(6)
_RARE_CLASSES = 1 << 20  # above the streams of any number of sources
_MASK, _LABELLED, _LABELLED_FLIP = range(_RARE_CLASSES + 1, _RARE_CLASSES + 4)
_CROPS = 10
"""Maximum number of crops that are drawn to find one that shows a rare class (DAFormer: 10)."""


class PairStream(Dataset):
    """Endless stream of (source, target) pairs; every epoch is a new permutation of each set.

    A frame that cannot be read is replaced by the next readable one of its epoch.

    Args:
        source: synthetic frames; pairs take turns among several sources, each with its own epochs.
        target: unlabelled images, perhaps with depth maps, or None for the source alone.
        seed: decides the order, the flips and the crops.
        flip: mirror half of the images, source and target independently.
        size: (H, W) of the crops; frames of that size are used whole.
        unreadable: maximum number of consecutive frames that cannot be read.
        class_mix_noise: random numbers per pair, one for each class, for self-training; 0 without
            it.
        rare_classes: draws the class that a pair's source frame shows, and the frame; None takes
            every frame once per epoch.
        mask_noise: (rows, columns) of random numbers per pair, one for each patch that masked
            consistency may hide; None without it.
        labelled: target images with labels, one for each pair, in epochs of their own; or None.
    """

    def __init__(
        self,
        source: SourceFrames | PackedSource | SourceMix,
        target: TargetImages | PackedTarget | None,
        seed: int,
        flip: bool,
        size: tuple[int, int],
        unreadable: int = 0,
        class_mix_noise: int = 0,
        rare_classes: RareClasses | None = None,
        mask_noise: tuple[int, int] | None = None,
        labelled: SourceFrames | None = None,
    ):
        self.source, self.target, self.seed, self.flip = source, target, seed, flip
        self.size, self.unreadable, self.class_mix_noise = size, unreadable, class_mix_noise
        self.rare_classes, self.mask_noise, self.labelled = rare_classes, mask_noise, labelled

    def __getitem__(self, k: int) -> tuple[dict[str, np.ndarray], list[str]]:
        """Pair k, and the error messages of files that could not be read and were replaced.

        The pair is empty if too many files cannot be read.
        """
        errors: list[str] = []
        frame, shown = self._read_source(k, errors)
        target = self._read_target(k, errors)
        labelled = self._read_labelled(k, errors)
        if (
            frame is None
            or (target is None and self.target is not None)
            or (labelled is None and self.labelled is not None)
        ):
            return {}, errors
        flip_source, flip_target = self._flips(k)
        image_s, labels, depth = self._augment(frame, _SOURCE, k, flip_source, shown)
        pair = {"source_image": image_s, "source_labels": labels, "source_depth": depth[None]}
        if target is not None:
            pair["target_image"], *maps = self._augment(target, _TARGET, k, flip_target)
            if maps:
                pair["target_depth"] = maps[0][None]
        if labelled is not None:
            flip = (
                self.flip and np.random.default_rng((self.seed, _LABELLED_FLIP, k)).random() < 0.5
            )
            image, labels = self._augment(labelled[:2], _LABELLED, k, bool(flip))
            pair |= {"labelled_image": image, "labelled_labels": labels}
        if self.class_mix_noise:
            rng = np.random.default_rng((self.seed, _CLASSES, k))
            pair["class_mix_noise"] = rng.random(self.class_mix_noise, np.float32)
        if self.mask_noise is not None:
            rng = np.random.default_rng((self.seed, _MASK, k))
            pair["mask_noise"] = rng.random(self.mask_noise, np.float32)
        return pair, errors

    def _read_source(
        self, k: int, errors: list[str]
    ) -> tuple[LabelledFrame | None, ClassDraw | None]:
        """The source frame of pair k, and the class that it was drawn for."""
        number, position, frames = 0, k, self.source
        if isinstance(self.source, SourceMix):
            number, position = self.source.turn(k)
            frames = self.source.part(number)
        if self.rare_classes is not None:
            rng = np.random.default_rng((self.seed, _RARE_CLASSES, k))
            shown = self.rare_classes.draw(number, rng)
            if shown is not None:
                frame = self._first_readable(frames.__getitem__, shown.frames, errors)
                if frame is not None:
                    return frame, shown
        stream = _OTHER_SOURCES + number - 1 if number else _SOURCE
        turns = self._turns(stream, position, len(frames))
        return self._first_readable(frames.__getitem__, turns, errors), None

    def _read_target(self, k: int, errors: list[str]) -> tuple[np.ndarray, ...] | None:
        """The target image of pair k, and its depth if the target has depth."""
        if self.target is None:
            return None
        turns = self._turns(_TARGET, k, len(self.target))
        if self.target.has_depth:
            return self._first_readable(self.target.with_depth, turns, errors)
        image = self._first_readable(self.target.__getitem__, turns, errors)
        return None if image is None else (image,)

    def _read_labelled(self, k: int, errors: list[str]) -> LabelledFrame | None:
        """The labelled target image of pair k."""
        if self.labelled is None:
            return None
        turns = self._turns(_LABELLED, k, len(self.labelled))
        return self._first_readable(self.labelled.__getitem__, turns, errors)

    def _turns(self, stream: int, k: int, length: int) -> Iterator[int]:
        """The frame whose turn it is at pair k, then those that may replace it."""
        epoch, position = divmod(k, length)
        order = _permutation(self.seed, stream, epoch, length)
        return (int(order[(position + attempt) % length]) for attempt in range(length))

    def _first_readable(
        self, read: Callable[[int], Frame], indices: Iterable[int], errors: list[str]
    ) -> Frame | None:
        for index in itertools.islice(indices, self.unreadable + 1):
            try:
                return read(int(index))
            except InputError as error:  # a loader process would wrap the exception
                errors.append(str(error))
        return None

    def _flips(self, k: int) -> tuple[bool, bool]:
        if not self.flip:
            return False, False
        source, target = np.random.default_rng((self.seed, _FLIP, k)).random(2) < 0.5
        return bool(source), bool(target)

    def _augment(
        self,
        arrays: Sequence[np.ndarray],
        stream: int,
        k: int,
        flip: bool,
        shown: ClassDraw | None = None,
    ) -> list[np.ndarray]:
        """The same crop of each array, mirrored or not; of a frame, one that shows a class."""
        h, w = self.size
        (height, width), top, left = arrays[0].shape[:2], 0, 0
        if (height, width) != (h, w):
            rng = np.random.default_rng((self.seed, _CROP, stream, k))
            for _ in range(_CROPS):
                top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
                if shown is None or shown.is_in(arrays[1][top : top + h, left : left + w]):
                    break
        crops = [array[top : top + h, left : left + w] for array in arrays]
        # 20 times faster than NumPy's copy of a mirrored view
        return [cv2.flip(crop, 1) for crop in crops] if flip else crops


class _Shard(Sampler[int]):
    """Numbers k of one process's pairs; the processes take batches in turn."""

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
    unreadable: Unreadable,
    rank: int = 0,
    processes: int = 1,
) -> Iterator[dict[str, torch.Tensor]]:
    """Yield the batches of one process, starting with number ``first``.

    Batch b of all processes together has the pairs that a single process would get with
    ``processes`` times the batch size: pairs k from b * processes * batch_size.

    Yields:
        ``batches`` dicts: source_image uint8 [N, 3, H, W], source_labels uint8 [N, H, W],
        source_depth float32 [N, 1, H, W], and if the stream has them target_image uint8
        [N, 3, H, W], target_depth float32 [N, 1, H, W] (metres, or relative as stored; 0 where
        unknown), labelled_image and labelled_labels like the source's, class_mix_noise float32
        [N, C] and mask_noise float32 [N, rows, columns]; images are channels-last.

    Raises:
        InputError: more files cannot be read than ``unreadable`` allows.
    """
    loader = DataLoader(
        stream,
        batch_size=batch_size,
        sampler=_Shard(first, batches, batch_size, rank, processes),
        collate_fn=_collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=pin_memory,
        # the loader draws a base seed for its workers. Drawn from the global generator, it would
        # put a resumed run into another random state
        generator=torch.Generator().manual_seed(0),
        worker_init_fn=_leave_signals_to_the_trainer,
    )
    for batch, errors in loader:
        for message in errors:
            unreadable.add(message)
        if not batch:
            raise InputError(f"{errors[-1]}: no readable frame is left")
        yield batch


_KILLED = re.compile(
    r"DataLoader worker .*(is killed by signal|exited unexpectedly)|shared memory|shm", re.DOTALL
)
"""PyTorch's messages when a loader process dies, or when its shared memory is full."""


@contextmanager
def reporting_killed_loader() -> Iterator[None]:
    """Turn PyTorch's error of a loader process that was killed into one message.

    A signal raises it anywhere in the main thread.

    Raises:
        ProcessDied: a process that loads images was killed.
    """
    try:
        yield
    except (RuntimeError, OSError) as error:
        if not _KILLED.search(str(error)):
            raise
        raise ProcessDied(
            "a process that loads images was killed, perhaps because memory or shared memory "
            "(/dev/shm) ran out: lower data.workers or schedule.batch_size"
        ) from error


def _collate(pairs: list) -> tuple[dict[str, torch.Tensor], list[str]]:
    errors = [message for _, messages in pairs for message in messages]
    if not all(pair for pair, _ in pairs):
        return {}, errors
    batch = {key: _stack([pair[key] for pair, _ in pairs]) for key in pairs[0][0]}
    for key in ("source_image", "target_image", "labelled_image"):
        if key in batch:
            batch[key] = batch[key].permute(0, 3, 1, 2)
    return batch, errors


def _stack(arrays: list[np.ndarray]) -> torch.Tensor:
    """Arrays of equal shape as [N, ...], in shared memory if this is a loader process."""
    shape = (len(arrays), *arrays[0].shape)
    stacked = torch.empty(shape, dtype=torch.from_numpy(np.empty(0, arrays[0].dtype)).dtype)
    if get_worker_info() is not None:
        stacked.share_memory_()
    np.stack(arrays, out=stacked.numpy())
    return stacked


def _leave_signals_to_the_trainer(worker: int) -> None:
    # Ctrl-C reaches all processes of the terminal, a scheduler's SIGTERM all of the job, but the
    # trainer still needs its next batch
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


@lru_cache(maxsize=4)
def _permutation(seed: int, stream: int, epoch: int, length: int) -> np.ndarray:
    return np.random.default_rng((seed, stream, epoch)).permutation(length)
