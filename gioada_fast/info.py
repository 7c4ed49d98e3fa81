"""Info: ``python -m gioada_fast.info`` prints versions, hardware, back ends and configurations.

--check runs each op once on each live back end, and compares results and gradients with plain
PyTorch in float64. The exit status is 1 if one of them is wrong.
"""

import os
from collections.abc import Sequence

import torch
from rich.console import Console
from rich.table import Table

from . import cli, ops
from .config import shipped_configs
from .engine.device import device_name, has_fast_bf16
from .engine.run import versions
from .ops.comparison import DTYPES, Comparison, check_ops, obstacles, public_ops

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


def _checks(device: str, comparisons: Sequence[Comparison]) -> Table:
    """The comparison of every op on every back end that runs it on a device type."""
    dtypes = [str(dtype).removeprefix("torch.") for dtype in DTYPES]
    table = Table(f"check on {device}", "back end", "result", *dtypes, show_edge=False)
    for found in comparisons:
        values = (found.differences.get(dtype) for dtype in DTYPES)
        differences = ["-" if value is None else f"{value:.1e}" for value in values]
        table.add_row(found.op, found.backend, "differs" if found.wrong else "ok", *differences)
    return table


def _not_available(device: str) -> list[str]:
    """Why ops were not checked: one line for each back end and reason."""
    groups: dict[tuple[str, str], list[str]] = {}
    names = public_ops()
    for name in names:
        for back_end, reason in obstacles(name, device).items():
            groups.setdefault((back_end, reason), []).append(name)
    return [
        f"{back_end} on {device} is not available"
        f"{'' if len(group) == len(names) else ' for ' + ', '.join(group)}: {reason}"
        for (back_end, reason), group in groups.items()
    ]


def _check(console: Console) -> None:
    """Print the comparison of all back ends.

    Raises:
        SystemExit: with status 1 if one of them is wrong.
    """
    comparisons = list(check_ops())
    for device in ("cpu", "cuda"):
        checked = [found for found in comparisons if found.device == device]
        if checked:
            console.print(_checks(device, checked), "")
        for line in _not_available(device):
            console.print(line)
    wrong = [
        f"{found.op} on {found.backend} ({found.device}) {problem}"
        for found in comparisons
        for problem in found.wrong
    ]
    if wrong:
        cli.fail(
            "\n".join(wrong) + "\nDo not use what differs: GIOADA_BACKEND=reference runs all ops "
            "on plain PyTorch. Install the package again; if it still differs, report this output",
            status=1,
        )
    console.print(
        "\nEach op ran once. Numbers are the largest difference to plain PyTorch in float64, of "
        "results and gradients, relative to the largest value. ok: at most twice PyTorch's own "
        "(the row reference)."
    )


def main(arguments: Sequence[str]) -> None:
    """Print tables."""
    parser = cli.Parser(prog=PROG)
    parser.add_argument(
        "--check",
        action="store_true",
        help="also run each op once on each back end that is live, and compare with plain PyTorch",
    )
    check = parser.parse_args(list(arguments)).check
    console = Console(highlight=False, markup=False)

    machine = Table("machine", "", show_edge=False)
    for name, version in versions().items():
        machine.add_row(name, version)
    machine.add_row("processor", f"{device_name(torch.device('cpu'))}, {os.cpu_count()} cores")
    bf16 = has_fast_bf16(torch.device("cpu"))
    machine.add_row("precision auto, on cpu", "bf16" if bf16 else "fp32")
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
    if check:
        console.print("")
        _check(console)


if __name__ == "__main__":
    cli.run(main)
