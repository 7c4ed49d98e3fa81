"""Results of the benchmarks as JSON, with what is needed to measure them again, and as a table.

``python -m benchmarks.report [result.json ...]`` prints results; by default all that are kept in
``benchmarks/results/``. ``--markdown`` prints them as the README's table. ``pytest benchmarks
--record`` writes them there.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "triton", "numpy", "gioada_fast")


def _processor() -> str:
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text()
        name = re.search(r"model name\s*: (.*)", cpuinfo).group(1)
        model = re.search(r"^model\s*: (\d+)", cpuinfo, re.MULTILINE).group(1)
        return f"{name} (model {model})"
    except (OSError, AttributeError):
        return platform.processor()


def _git(*arguments: str) -> str:
    try:
        return subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def environment(device: str) -> dict:
    """Machine, versions, threads and commit of a measurement."""
    from gioada_fast import ops

    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else _processor(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": {p: _version(p) for p in PACKAGES},
        "backends": {b.name: b.detail for b in ops.backends().values()},
        "commit": _git("rev-parse", "HEAD"),
        "changed_files": _git("diff", "--name-only", "HEAD").split(),
        "command": "pytest " + " ".join(sys.argv[1:]),
    }


def table(records: list[dict]) -> str:
    """What ``pytest benchmarks`` prints: the races of ops, then the whole step, then the loader."""
    ops, steps, loaders = _by_kind(records)
    parts = [ops_table(ops)] if ops else []
    return "\n\n".join([*parts, *map(step_table, steps), *map(loader_table, loaders)])


def markdown(records: list[dict]) -> str:
    """The same for the README."""
    tables = (ops_markdown, step_markdown, loader_markdown)
    found = zip(tables, _by_kind(records), strict=True)
    return "\n\n".join(write_table(kind) for write_table, kind in found if kind)


def _by_kind(records: list[dict]) -> tuple[list[dict], list[dict], list[dict]]:
    kinds: dict[str, list[dict]] = {"contenders": [], "loaders": [], "rivals_ms": []}
    for record in records:
        next(found for key, found in kinds.items() if key in record).append(record)
    return kinds["rivals_ms"], kinds["contenders"], kinds["loaders"]


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def ops_table(records: list[dict]) -> str:
    """One line a case: our time, each rival's as a multiple of it, the guard, peak memory.

    On a GPU also the share of measured copy bandwidth, for ops that it bounds.
    """
    rivals = list(dict.fromkeys(r for record in records for r in record["rivals_ms"]))
    head = ["op", "shape", "pass", "ms", *(f"{r} x" for r in rivals), "ratio", "guard", "MiB"]
    head += ["best rival's MiB", "copy bandwidth"]
    rows = [head]
    for record in records:
        ours = record["ms"]
        times = [record["rivals_ms"].get(r) for r in rivals]
        memory = record["peak_mib"]
        share = record.get("bandwidth_share")
        rows.append(
            [record["op"], record["shape"], record["pass"], f"{ours:.3g}"]
            + ["-" if t is None else f"{t / ours:.1f}" for t in times]
            + [f"{record['ratio']:.1f}", f"{record['guard']:g}"]
            + [f"{memory['fused']:.1f}", f"{memory[record['best_rival']]:.1f}"]
            + ["-" if share is None else f"{share:.0%}"]
        )
    return _aligned(rows)


def step_table(record: dict) -> str:
    """One line a contender, then one for each ratio that the step is judged by."""
    peaks = ", ".join(f"{k} {v / 1e9:.0f}" for k, v in record["peak_flops"].items())
    title = (
        f"step, {record['shape']}: {record['flops'] / 1e9:.0f} GFLOP an update, fastest of "
        f"{record['rounds']} rounds; peak of the machine in GFLOP/s: {peaks}"
    )
    rows = [["contender", "ms", "median", "pairs/s", "MiB", "share of peak"]]
    failed = []
    for name, found in record["contenders"].items():
        if "failed" in found:
            failed.append(f"{name} does not run here: {found['failed']}")
            continue
        row = [name, f"{found['ms']:.4g}", f"{found['median_ms']:.4g}"]
        row += [f"{found['pairs_per_second']:.3g}", f"{found['mib']:.0f}"]
        rows.append([*row, f"{found['share_of_peak']:.0%}"])
    judged = [["ratio", "value", "target", "guard", "of"]]
    for name, ratio in record["ratios"].items():
        guard = "-" if ratio["guard"] is None else f"{ratio['guard']:g}"
        target = f"{'<=' if name in ('memory', 'checkpointing') else '>='} {ratio['target']:g}"
        of = f"{ratio['of'][0]} / {ratio['of'][1]}"
        judged.append([name, f"{ratio['value']:.2f}", target, guard, of])
    return "\n".join([title, "", _aligned(rows), *failed, "", _aligned(judged)])


def loader_table(record: dict) -> str:
    """Pairs a second of files and packs, then the ratios that the loader is judged by."""
    title = (
        f"loader, {record['shape']}: pairs/s on {record['cores']} cores, best of "
        f"{record['rounds']} rounds"
    )
    numbers = list(record["loaders"]["files"]["pairs_per_second"])
    rows = [["from", *(f"{n} processes" for n in numbers), "MiB a pair"]]
    for name, found in record["loaders"].items():
        speeds = [f"{found['pairs_per_second'][n]:.4g}" for n in numbers]
        rows.append([name, *speeds, f"{found['mib_per_pair']:.2f}"])
    judged = [["ratio", "value", "target", "guard"]]
    for name, ratio in record["ratios"].items():
        judged.append([f"pack / {name}", f"{ratio['value']:.1f}"])
        judged[-1] += [f">= {ratio['target']:g}", f"{ratio['guard']:g}"]
    others = (
        "pack in the first epoch, which compares checksums, 0 processes: "
        f"{record['first_epoch_pairs_per_second']:.4g}; "
        f"the step consumes {record['step_pairs_per_second']:.3g}"
    )
    return "\n".join([title, "", _aligned(rows), others, "", _aligned(judged)])


def ops_markdown(records: list[dict]) -> str:
    """One line an op and shape: time, ratio to the best rival, memory added at the peak."""
    lines = [
        "| op | shape | forward, ms | ratio | forward + backward, ms | ratio | MiB (best rival) |",
        "|---|---|---|---|---|---|---|",
    ]
    cases: dict[tuple[str, str], dict[str, dict]] = {}
    for record in records:
        cases.setdefault((record["op"], record["shape"]), {})[record["pass"]] = record
    for (op, shape), passes in cases.items():
        cells = []
        for direction in ("forward", "forward+backward"):
            found = passes.get(direction)
            cells += [f"{found['ms']:.3g}", f"{found['ratio']:.1f}"] if found else ["", ""]
        last = passes.get("forward+backward") or passes["forward"]
        memory = last["peak_mib"]
        cells.append(f"{memory['fused']:.1f} ({memory[last['best_rival']]:.1f})")
        lines.append(f"| `{op}` | {shape} | {' | '.join(cells)} |")
    return "\n".join(lines)


def step_markdown(records: list[dict]) -> str:
    """One line a case and contender: time, pairs a second, memory added at the peak."""
    lines = [
        "| step | contender | ms | pairs/s | MiB | share of peak |",
        "|---|---|---|---|---|---|",
    ]
    for record in records:
        for name, found in record["contenders"].items():
            cells = ["does not run here", "", "", ""]
            if "failed" not in found:
                cells = [f"{found['ms']:.3g}", f"{found['pairs_per_second']:.3g}"]
                cells += [f"{found['mib']:.0f}", f"{found['share_of_peak']:.0%}"]
            lines.append(f"| {record['shape']} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def loader_markdown(records: list[dict]) -> str:
    """One line a case: the best of files and packs, and what the step consumes."""
    lines = [
        "| loader | files, pairs/s | pack, pairs/s | ratio | first epoch | the step consumes |",
        "|---|---|---|---|---|---|",
    ]
    for record in records:
        best = (max(found["pairs_per_second"].values()) for found in record["loaders"].values())
        cells = [record["shape"], *(f"{speed:.3g}" for speed in best)]
        cells += [f"{record['ratios']['files']['value']:.1f}"]
        cells += [f"{record[f'{name}_pairs_per_second']:.3g}" for name in ("first_epoch", "step")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def write(records: list[dict], device: str, path: Path) -> None:
    """Keep the records of one run."""
    result = {"environment": environment(device), "records": records}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")


def main() -> None:
    """Print results."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("results", nargs="*", type=Path, default=sorted(RESULTS.glob("*.json")))
    parser.add_argument("--markdown", action="store_true", help="as the README has it")
    arguments = parser.parse_args()
    if arguments.markdown:
        print(
            markdown([r for p in arguments.results for r in json.loads(p.read_text())["records"]])
        )
        return
    for path in arguments.results:
        result = json.loads(path.read_text())
        found = result["environment"]
        packages = ", ".join(f"{k} {v}" for k, v in found["packages"].items() if v)
        print(f"{path.name}: {found['device']}, {found['threads']} threads; {packages}")
        print(f"commit {found['commit'][:12]}; {found['command']}\n")
        print(table(result["records"]) + "\n")


if __name__ == "__main__":
    main()
