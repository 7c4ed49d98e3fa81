"""Info: ``python -m gioada_fast.info`` prints versions, hardware, back ends and configurations."""

import os
from collections.abc import Sequence

import torch
from rich.console import Console
from rich.table import Table

from . import cli, ops
from .config import shipped_configs
from .engine.device import device_name, has_fast_bf16
from .engine.run import versions

PROG = "python -m gioada_fast.info"


def _choices(device: str) -> Table:
    """Which back end runs each op on a device type; ops with the same explanation share a row."""
    groups: dict[tuple[str | None, tuple[tuple[str, str], ...]], list[str]] = {}
    for name, op in ops.registered().items():
        chosen, reasons = op.explain(device)
        groups.setdefault((chosen, tuple(reasons.items())), []).append(name)
    table = Table(f"op on {device}", "runs on", "and not on", show_edge=False, show_lines=True)
    for (chosen, why_not), names in groups.items():
        others = "\n".join(f"{back_end}: {reason}" for back_end, reason in why_not)
        table.add_row("\n".join(names), chosen or "none", others)
    return table


def main(arguments: Sequence[str]) -> None:
    """Print tables."""
    parser = cli.Parser(prog=PROG)
    parser.parse_args(list(arguments))
    console = Console(highlight=False, markup=False)

    machine = Table("machine", "", show_edge=False)
    for name, version in versions().items():
        machine.add_row(name, version)
    machine.add_row("processor", f"{device_name(torch.device('cpu'))}, {os.cpu_count()} cores")
    machine.add_row("bf16 in hardware", "yes" if has_fast_bf16(torch.device("cpu")) else "no")
    for index in range(torch.cuda.device_count()):
        machine.add_row(f"cuda:{index}", torch.cuda.get_device_name(index))
    console.print(machine, "")

    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    backends = ops.backends()
    back_ends = Table("back end", "live on", "", show_edge=False)
    for back_end in backends.values():
        live_on = ", ".join(d for d in back_end.devices if d in devices)
        back_ends.add_row(back_end.name, live_on or "-", back_end.detail)
    console.print(back_ends, "")

    for device in ("cpu", "cuda"):
        console.print(_choices(device), "")
    forced = os.environ.get("GIOADA_BACKEND")
    if forced:
        console.print(
            f"GIOADA_BACKEND={forced} is forced for all ops: they fail where it cannot run."
        )
    else:
        console.print(
            "GIOADA_BACKEND, or gioada_fast.ops.backend, forces one back end for all ops."
        )
    console.print("float64 runs on reference.\n")
    console.print(f"configurations: {', '.join(shipped_configs())}")


if __name__ == "__main__":
    cli.run(main)
