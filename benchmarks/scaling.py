"""How time and memory of an update grow with image size, batch, classes and processes.

``python -m benchmarks.scaling`` measures, writes ``results/<kind of machine>/scaling.json`` and
draws ``docs/scaling.svg``; ``--plot`` only draws, ``--quick`` measures tiny images.

One quantity changes at a time, from the demo's networks, images and batch. Beside each point stands
what is counted and not fitted:

    time      FLOPs of the update / peak FLOP/s of the machine, both measured here
    memory    bytes of the gradients, and of all tensors that the generators' forward pass keeps
              for the backward pass

Processes have one thread and one batch each, so that their time would stay the same if they did not
share the machine.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import matplotlib
import torch
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks import guards, machine, report
from benchmarks.bench_step import CASES, DTYPES, STILL, Case, batch_of, count_flops, networks
from benchmarks.bench_step import precisions as precisions_of
from benchmarks.harness import NO_CUDA, clock, peak_flops, peak_mib
from gioada_fast.adaptation import TwoLevelAdaptation, frozen
from gioada_fast.config import AdaptationConfig, Config
from gioada_fast.engine import distributed
from gioada_fast.engine.device import autocast
from gioada_fast.engine.step import Step
from gioada_fast.engine.trainer import Phase, build_optimisers

FIGURE = Path(__file__).parents[1] / "docs" / "scaling.svg"
ROUNDS = 5
Sweeps = dict[str, Sequence[tuple[int, Case]]]
"""The cases of each quantity that changes, with its values."""


def sweeps(quick: bool = False) -> Sweeps:
    """The cases to measure in one process; the size's value is the number of pixels."""
    base = CASES["demo 4x180x240"]
    sizes = [(90, 120), (180, 240), (270, 360), (360, 480)]
    batches, classes = (1, 2, 4, 8), (2, 11, 19, 50, 150)
    if quick:
        base = replace(base, batch_size=2, size=(64, 64))
        sizes, batches, classes = [(64, 64), (64, 96)], (1, 2), (2, 11)
    return {
        "pixels of an image": [(h * w, replace(base, size=(h, w))) for h, w in sizes],
        "pairs in a batch": [(n, replace(base, batch_size=n)) for n in batches],
        "classes": [(n, replace(base, num_classes=n)) for n in classes],
    }


def point(case: Case, device: str, rounds: int = ROUNDS) -> dict[str, float]:
    """Measured and counted time and memory of an update.

    Returns:
        ``ms`` (fastest of the rounds) and ``mib`` (peak that the update adds), measured; ``flops``,
        ``peak_flops`` per second, ``model_ms`` and ``model_mib``, counted.
    """
    precision = precisions_of(device)[-1]
    levels = AdaptationConfig(keep_half_untranslated=False)
    config = Config(model=case.model, adaptation=levels, optimiser=STILL)
    adaptation, batch = networks(case, config, device), batch_of(case, device)
    optimisers = build_optimisers(config, adaptation, Phase("adaptation", 0, 1000))
    step = Step(adaptation, optimisers, precision)

    def update() -> None:
        step([batch])

    def free() -> None:
        for optimiser in optimisers.values():
            optimiser.zero_grad(set_to_none=True)

    free()
    flops = count_flops(lambda: step.gradients([batch]))
    update()  # creates the optimisers' state
    ms = min(clock(update, device, 1) for _ in range(rounds))
    free()
    mib = peak_mib(update, device)
    peak = peak_flops(device, DTYPES[precision])
    return {
        "ms": ms,
        "mib": mib,
        "flops": flops,
        "peak_flops": peak,
        "model_ms": flops / peak * 1e3,
        "model_mib": _kept_bytes(adaptation, batch, precision) / 2**20,
    }


def _kept_bytes(adaptation: TwoLevelAdaptation, batch, precision: str) -> int:
    """Bytes of the gradients, and of what the generators' forward pass keeps beside the weights."""
    weights = [p for p in adaptation.parameters() if p.requires_grad]
    own = {p.untyped_storage().data_ptr() for p in weights}
    kept: dict[int, Tensor] = {}

    def keep(x: Tensor) -> Tensor:
        kept.setdefault(x.untyped_storage().data_ptr(), x)  # alive, so that no address is reused
        return x

    device = next(adaptation.parameters()).device
    discriminators = adaptation.image_discriminator, adaptation.output_discriminator
    with (
        frozen(*discriminators),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x),
        autocast(device, precision) if precision == "bf16" else nullcontext(),
    ):
        adaptation.generators_loss(batch)
    saved = sum(x.untyped_storage().nbytes() for at, x in kept.items() if at not in own)
    return saved + sum(p.nbytes for p in weights)


def _in_processes(count: int, case: Case) -> dict[str, float]:
    """``point`` in each of several processes with one thread; the slowest one's time."""
    settings = json.dumps([case.num_classes, case.batch_size, case.size])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={count}", "-m", "benchmarks.scaling", "--child", settings]
    done = subprocess.run(
        command,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"ms"')]
    return json.loads(lines[-1])


def _child(settings: str) -> None:
    """Measure in this process of ``_in_processes``; the first one prints."""
    num_classes, batch_size, size = json.loads(settings)
    case = replace(
        CASES["demo 4x180x240"], num_classes=num_classes, batch_size=batch_size, size=tuple(size)
    )
    with distributed.joined("cpu"):
        found = point(case, "cpu")
        slowest = torch.zeros(distributed.world_size())
        slowest[distributed.rank()] = found["ms"]
        found["ms"] = float(distributed.sum_over_processes(slowest).max())
        if distributed.is_writer():
            print(json.dumps(found), flush=True)


def measure(cases: Sweeps, processes: Iterable[int], device: str) -> dict:
    """The record of a run: for each quantity its values and what ``point`` found at each."""
    found: dict[str, list[dict]] = {}
    for quantity, values in cases.items():
        found[quantity] = []
        for value, case in values:
            found[quantity].append({"value": value, **point(case, device)})
            _say(quantity, found[quantity][-1])
    base = cases["pairs in a batch"][-1][1] if "pairs in a batch" in cases else None
    for count in processes:
        assert base is not None
        row = {"value": count, **_in_processes(count, replace(base, batch_size=2))}
        found.setdefault("processes", []).append(row)
        _say("processes", row)
    return {"op": "scaling", "shape": "demo", "scaling": found}


def _say(quantity: str, row: dict) -> None:
    print(
        f"{quantity} {row['value']}: {row['ms']:.0f} ms ({row['model_ms']:.0f} at the peak), "
        f"{row['mib']:.0f} MiB ({row['model_mib']:.0f} kept)",
        flush=True,
    )


def plot(record: dict, title: str, path: Path) -> None:
    """Draw measured points and counted lines; a column for each quantity."""
    quantities = record["scaling"]
    rows = (("time of an update, ms", "ms"), ("memory, MiB", "mib"))
    settings = {"svg.fonttype": "none", "svg.hashsalt": "scaling", "font.size": 8}
    with matplotlib.rc_context(settings):  # type: ignore[arg-type]
        figure = Figure(figsize=(2.3 * len(quantities), 4), layout="constrained")
        figure.suptitle(title, fontsize=9)
        axes = figure.subplots(2, len(quantities), squeeze=False, sharex="col")
        for column, (quantity, points) in enumerate(quantities.items()):
            x = [p["value"] for p in points]
            for row, (label, key) in enumerate(rows):
                ax = axes[row][column]
                ax.plot(x, [p[key] for p in points], "o", markersize=4, label="measured")
                ax.plot(x, [p[f"model_{key}"] for p in points], "-", lw=1, label="counted")
                ax.set_ylim(bottom=0)
                ax.spines[["top", "right"]].set_visible(False)
                if quantity == "processes":
                    ax.set_xticks(x)
                if column == 0:
                    ax.set_ylabel(label)
            axes[1][column].set_xlabel(quantity)
        axes[0][0].legend(frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(path, format="svg", metadata=nothing)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure how an update scales, and draw it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--plot", action="store_true", help="only draw the last record")
    parser.add_argument("--quick", action="store_true", help="tiny images, to try the command")
    parser.add_argument("--figure", type=Path, default=FIGURE, help="default: docs/scaling.svg")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        _child(options.child)
        return
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error(NO_CUDA)
    file = guards.RESULTS / machine.kind(options.device) / "scaling.json"
    if options.plot:
        if not file.exists():
            parser.error(f"{file} does not exist: run the command without --plot first")
        result = json.loads(file.read_text())
    else:
        processes = (1, 2) if options.device == "cpu" else ()
        record = measure(sweeps(options.quick), processes, options.device)
        env = report.environment(options.device)
        result = {"environment": env, "records": [record]}
        if not options.quick:
            report.write([record], options.device)
    env = result["environment"]
    title = f"{env['device']}, {env['threads']} threads, torch {env['packages']['torch']}"
    plot(result["records"][0], title, options.figure)
    print(options.figure)


if __name__ == "__main__":
    main()
