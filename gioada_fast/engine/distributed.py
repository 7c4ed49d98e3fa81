"""Training in several processes, one per device, if ``torchrun`` starts them; otherwise in one.

The processes do the same work on different pairs. One of them, the writer, writes the run's folder
and prints; the others wait for it where they need files that it writes.
"""

import gc
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import ProcessDied
from .device import choose_device

_PEER_DIED = re.compile(r"gloo|Connection (closed|reset)|Broken pipe", re.IGNORECASE)
"""Errors of gloo, which has no class for them."""


@contextmanager
def joined(device: str) -> Iterator[torch.device]:
    """Join the process group of ``torchrun`` inside the block; yields this process's device.

    Args:
        device: see ``choose_device``. With several processes, ``auto`` and ``cuda`` give each
            process of a machine its own GPU.
    """
    if not dist.is_torchelastic_launched():
        yield choose_device(device)
        return
    if device == "cuda" or (device == "auto" and torch.cuda.is_available()):
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    chosen = choose_device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    # gloo in addition to NCCL, so that decisions on the host need no device
    dist.init_process_group("cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield chosen
        dist.barrier()  # no process may close connections that another one still uses
    except (RuntimeError, KeyboardInterrupt) as error:
        # torchrun sends SIGTERM to the processes that are left, perhaps while the error is handled
        found = error.__context__ if isinstance(error, KeyboardInterrupt) else error
        if not (isinstance(found, dist.DistError) or _PEER_DIED.search(str(found))):
            raise
        with suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise ProcessDied(
            f"rank {rank()} stops because another process of the run ended; its own message, if it "
            "was not killed, says why; continue from the last checkpoint with --resume"
        ) from error
    finally:
        # Objects that still refer to the group would keep its threads alive until the process exits
        # and these threads abort it. Only the garbage collector frees DDP modules: they are
        # reference cycles.
        gc.collect()
        dist.destroy_process_group()


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_writer() -> bool:
    """Whether this is the one process that writes files and prints."""
    return rank() == 0


@contextmanager
def writer_first() -> Iterator[None]:
    """Run the block in the writer first, so that the others find the files that it writes."""
    if world_size() > 1 and not is_writer():
        dist.barrier()
    yield
    if world_size() > 1 and is_writer():
        dist.barrier()


def from_writer(value: str) -> str:
    """Return the writer's value in every process."""
    values = [value]
    if world_size() > 1:
        dist.broadcast_object_list(values, src=0)
    return values[0]


def sum_over_processes(tensor: Tensor) -> Tensor:
    """Sum the tensors of all processes, in place."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


class AnyProcess:
    """Whether any process has set a flag; all processes get the same answer at the same call.

    With several processes, a call returns the answer to the previous call: the flags are exchanged
    while the update runs, so that no process waits.
    """

    def __init__(self):
        self._pending: tuple[Tensor, dist.Work] | None = None

    def __call__(self, flag: bool) -> bool:
        if world_size() == 1:
            return flag
        before, flags = self._pending, torch.tensor(int(flag))
        self._pending = flags, dist.all_reduce(flags, dist.ReduceOp.MAX, async_op=True)
        if before is None:
            return False
        flags, work = before
        work.wait()
        return bool(flags)
