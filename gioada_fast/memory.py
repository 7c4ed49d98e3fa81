"""Memory of this machine, to say that it does not suffice before it is asked for."""

import contextlib
import os
from pathlib import Path

from .errors import InputError

_CGROUP = Path("/sys/fs/cgroup")


def available_memory() -> int | None:
    """Bytes that this process may still get, swap included; None if the system does not say."""
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        with contextlib.suppress(ValueError, OSError):
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return None
    kibibytes = {
        name: int(value.split()[0])
        for name, _, value in (line.partition(":") for line in text.splitlines())
        if name in ("MemAvailable", "SwapFree")
    }
    if "MemAvailable" not in kibibytes:
        return None
    available = 1024 * sum(kibibytes.values())
    with contextlib.suppress(OSError, ValueError):  # "max" is no number
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
        available = min(available, max(0, limit - used))
    return available


def check_memory(needed: float, what: str, remedy: str, available: int | None = None) -> None:
    """Refuse what needs more memory than there is.

    Args:
        needed: bytes, at least.
        what: what needs them, for the message.
        remedy: what to do.
        available: bytes; None: those of this machine.

    Raises:
        InputError: there is less memory.
    """
    if available is None:
        available = available_memory()
    if available is not None and needed > available:
        raise InputError(
            f"{what} would need at least {_size(needed)} of memory, {_size(available)} are free: "
            f"{remedy}"
        )


def _size(count: float) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
