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


def main(arguments: Sequence[str]) -> None:
    """Print tables."""
    parser = cli.Parser(prog=PROG)
    parser.parse_args(list(arguments))
    console = Console()

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

    kernels = Table("op", "on cpu", "on cuda", "not live", show_edge=False)
    for name, op in ops.registered().items():
        live = {d: ", ".join(op.backends_on(d)) for d in devices}
        not_live = ", ".join(b for b in ops.BACKENDS if b in op.kernels and not backends[b].live)
        kernels.add_row(name, live["cpu"], live.get("cuda", "-"), not_live or "-")
    console.print(kernels)
    forced = os.environ.get("GIOADA_BACKEND")
    chosen = f"GIOADA_BACKEND={forced} is used for all" if forced else "the first of each is used"
    console.print(f"{chosen}; see gioada_fast.ops.backend\n", highlight=False)
    console.print(f"configurations: {', '.join(shipped_configs())}", highlight=False)


if __name__ == "__main__":
    cli.run(main)
