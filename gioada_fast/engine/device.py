"""The device and the precision that networks run with."""

import platform
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from ..errors import InputError


def choose_device(name: str) -> torch.device:
    """The device with this name; for ``auto`` a GPU if there is one.

    Raises:
        InputError: the name is unknown, or this machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device is {name!r}: expected auto, cpu, cuda or cuda:N") from error
    if device.type not in {"cpu", "cuda"}:
        raise InputError(f"device is {name!r}: expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device is {name!r}, but this machine has {torch.cuda.device_count()} CUDA devices"
        )
    return device


def device_name(device: torch.device) -> str:
    """Product name of a GPU or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 faster than float32.

    Processors do with AMX, and with AVX-512's bf16 product unless they are Intel's: there the
    product has no higher peak than two float32 FMAs, and an update took 1.5 times as long with it
    (an Intel Xeon under a hypervisor that hides AMX).
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if torch.cpu._is_amx_tile_supported():
        return True
    return torch.cpu._is_avx512_bf16_supported() and _cpuinfo("vendor_id") != "GenuineIntel"


def _cpuinfo(field: str) -> str | None:
    """A field of the first processor in /proc/cpuinfo; None where there is none."""
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":")[1].strip() for line in file if line.startswith(field))
    except (OSError, StopIteration):
        return None


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Context for the networks' precision: ``fp32``, ``bf16``, or ``auto``: bf16 if it is fast."""
    if precision == "fp32" or (precision == "auto" and not has_fast_bf16(device)):
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def to_device(
    batches: Iterable[dict[str, Tensor]], device: torch.device
) -> Iterator[dict[str, Tensor]]:
    """Move batches to the device; on a GPU, a batch is copied while the previous one is used.

    Args:
        batches: tensors by name, for a GPU in pinned memory.
        device: the destination.
    """
    if device.type != "cuda":
        for batch in batches:
            yield {name: tensor.to(device) for name, tensor in batch.items()}
        return
    stream, ahead = torch.cuda.Stream(device), None
    for batch in batches:
        with torch.cuda.stream(stream):
            copied = {name: t.to(device, non_blocking=True) for name, t in batch.items()}
        if ahead is not None:
            yield _arrived(ahead, stream)
        ahead = copied
    if ahead is not None:
        yield _arrived(ahead, stream)


def _arrived(batch: dict[str, Tensor], stream: torch.cuda.Stream) -> dict[str, Tensor]:
    current = torch.cuda.current_stream(stream.device)
    current.wait_stream(stream)
    for tensor in batch.values():
        tensor.record_stream(current)
    return batch
