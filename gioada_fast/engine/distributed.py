"""Several processes, one for each device, as ``torchrun`` starts them; one process without it.

What differs among them is the pairs they see. One, the writer, owns the run's folder and the
terminal; the others compute, and wait where they need what it writes.
"""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from .device import choose_device


@contextmanager
def joined(device: str) -> Iterator[torch.device]:
    """Be one of ``torchrun``'s processes inside; yields this process's device.

    Args:
        device: as for ``choose_device``; of several processes, ``auto`` and ``cuda`` give each of a
            machine its own GPU.
    """
    if not dist.is_torchelastic_launched():
        yield choose_device(device)
        return
    if device == "cuda" or (device == "auto" and torch.cuda.is_available()):
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    chosen = choose_device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    # gloo beside NCCL: what the host decides needs no device
    dist.init_process_group("cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield chosen
        dist.barrier()  # nobody takes connections down that another still uses
    finally:
        # what still holds the group would keep its threads to the end of the process, which they
        # abort; networks wrapped for it are cycles
        gc.collect()
        dist.destroy_process_group()


def rank() -> int:
    """Number of this process among all."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_writer() -> bool:
    """Whether this process writes files and to the terminal; one does."""
    return rank() == 0


@contextmanager
def writer_first() -> Iterator[None]:
    """Let the writer go through the block before the others: they find what it has written."""
    if world_size() > 1 and not is_writer():
        dist.barrier()
    yield
    if world_size() > 1 and is_writer():
        dist.barrier()


def from_writer(value: str) -> str:
    """The writer's value, in every process."""
    values = [value]
    if world_size() > 1:
        dist.broadcast_object_list(values, src=0)
    return values[0]


def sum_over_processes(tensor: Tensor) -> Tensor:
    """The sum of all processes' tensors, in place."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


class AnyProcess:
    """Tells all processes, at the same call, that one of them has raised a flag.

    With several processes the answer is that of the call before: the flags travel while the step
    runs, and nobody waits.
    """

    def __init__(self):
        self._under_way: tuple[Tensor, dist.Work] | None = None

    def __call__(self, flag: bool) -> bool:
        if world_size() == 1:
            return flag
        before, flags = self._under_way, torch.tensor(int(flag))
        self._under_way = flags, dist.all_reduce(flags, dist.ReduceOp.MAX, async_op=True)
        if before is None:
            return False
        flags, work = before
        work.wait()
        return bool(flags)
