"""Kinds of machines: records of one are comparable with measurements on another of the same kind.

A GPU's kind is its name; a processor's is its vendor, its instruction sets and the number of
threads that PyTorch uses. The clock and the model of the processor are not part of it: benchmarks
compare ratios within a run.
"""

import platform
import re
from pathlib import Path

import torch

# The instruction sets that change which kernels run, by their flags in /proc/cpuinfo (x86, Arm) and
# their names here. avx512f and sve leave out the weaker set that they include.
_FLAGS = {
    "avx512f": "avx512",
    "avx2": "avx2",
    "sve": "sve",
    "asimd": "neon",
    "avx512_bf16": "bf16",
    "bf16": "bf16",
    "amx_bf16": "amx",
}
_INCLUDED = {"avx512": "avx2", "sve": "neon"}
_VENDORS = {"AuthenticAMD": "amd", "GenuineIntel": "intel", "0x41": "arm"}


def kind(device: str, cpuinfo: str | None = None) -> str:
    """Kind of this machine, such as amd-avx512-bf16-2-threads or nvidia-h100-80gb-hbm3.

    Args:
        device: ``cpu`` or ``cuda``.
        cpuinfo: content of /proc/cpuinfo; None reads the file.
    """
    if device == "cuda":
        return _slug(torch.cuda.get_device_name())
    text = _cpuinfo() if cpuinfo is None else cpuinfo
    vendor = _field(text, "vendor_id|CPU implementer") or platform.machine() or "unknown"
    flags = (_field(text, "flags|Features") or "").split()
    sets = dict.fromkeys(name for flag, name in _FLAGS.items() if flag in flags)
    for better, included in _INCLUDED.items():
        if better in sets:
            sets.pop(included, None)
    parts = [_VENDORS.get(vendor, vendor), *sets, str(torch.get_num_threads()), "threads"]
    return _slug("-".join(parts))


def processor() -> str:
    """Name and model of the processor."""
    text = _cpuinfo()
    name, model = _field(text, "model name"), _field(text, "model")
    return f"{name} (model {model})" if name and model else platform.processor()


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def _field(cpuinfo: str, name: str) -> str | None:
    found = re.search(rf"^(?:{name})\s*: (.*)", cpuinfo, re.MULTILINE)
    return found[1].strip() if found else None


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
