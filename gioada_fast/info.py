"""Show what runs here: ``python -m gioada_fast.info``: versions, processor, back ends, data."""

import os
import platform
from collections.abc import Sequence

import torch
from rich.console import Console
from rich.table import Table

from . import cli, ops
from .config import shipped_configs
from .engine.device import has_fast_bf16
from .engine.run import versions

PROG = "python -m gioada_fast.info"


def main(arguments: Sequence[str]) -> None:
    """Print tables."""
    parser = cli.Parser(prog=PROG)
    parser.parse_args(list(arguments))
    console = Console()

    machine = Table("machine", "", show_edge=False)
    for name, version in versions().items():
        machine.add_row(name, version)
    machine.add_row("processor", f"{_processor()}, {os.cpu_count()} cores")
    machine.add_row("bf16 in hardware", "yes" if has_fast_bf16(torch.device("cpu")) else "no")
    for index in range(torch.cuda.device_count()):
        machine.add_row(f"cuda:{index}", torch.cuda.get_device_name(index))
    console.print(machine, "")

    back_ends = Table("back end", "live on", "", show_edge=False)
    for back_end in ops.backends().values():
        back_ends.add_row(back_end.name, ", ".join(back_end.devices) or "-", back_end.detail)
    console.print(back_ends, "")

    chosen = Table("op", "on cpu", "on cuda", show_edge=False)
    for name, op in ops.registered().items():
        cuda = op.backends_on("cuda")[0] if torch.cuda.is_available() else "-"
        chosen.add_row(name, op.backends_on("cpu")[0], cuda)
    console.print(chosen, "")
    console.print(f"configurations: {', '.join(shipped_configs())}", highlight=False)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":")[1].strip() for line in file if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    cli.run(main)
