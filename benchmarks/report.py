"""Results of the benchmarks as tables, and as JSON with the machine, versions and command.

``pytest benchmarks --record`` writes results to ``benchmarks/results/<kind of machine>/``. ``python
-m benchmarks.report [result.json ...]`` prints them, all by default; ``--markdown`` prints the
tables of ``docs/``.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from benchmarks import guards, machine

PACKAGES = ("torch", "triton", "numpy", "gioada_fast")


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
    """Machine, versions, number of threads, commit and command of a measurement."""
    from gioada_fast import ops

    return {
        "machine": machine.kind(device),
        "device": torch.cuda.get_device_name() if device == "cuda" else machine.processor(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": {p: _version(p) for p in PACKAGES},
        "backends": {b.name: b.detail for b in ops.backends().values()},
        "commit": _git("rev-parse", "HEAD"),
        "changed_files": _git("ls-files", "--modified", "--others", "--exclude-standard").split(),
        "command": "pytest " + " ".join(sys.argv[1:]),
    }


def table(records: list[dict]) -> str:
    """The tables that ``pytest benchmarks`` prints, one kind of record after the other."""
    ops, steps, settings, loaders, starts, predictions, scalings = _by_kind(records)
    parts = [ops_table(ops)] if ops else []
    parts += [*map(step_table, steps), *map(settings_table, settings)]
    parts += [*map(loader_table, loaders), *map(start_table, starts)]
    parts += [*map(predictions_table, predictions), *map(scaling_table, scalings)]
    return "\n\n".join(parts)


def markdown(records: list[dict]) -> str:
    """The same tables for the pages in ``docs/``."""
    kinds = (
        ops_markdown,
        step_markdown,
        settings_markdown,
        loader_markdown,
        start_markdown,
        predictions_markdown,
        scaling_markdown,
    )
    tables = zip(kinds, _by_kind(records), strict=True)
    return "\n\n".join(write_table(kind) for write_table, kind in tables if kind)


def _by_kind(records: list[dict]) -> list[list[dict]]:
    """Records by kind, in the order of ``kinds``: each has a key that no other kind has."""
    kinds: dict[str, list[dict]] = {
        key: []
        for key in (
            "rivals_ms",
            "contenders",
            "settings",
            "loaders",
            "first_update",
            "predictions",
            "scaling",
        )
    }
    for record in records:
        next(kind for key, kind in kinds.items() if key in record).append(record)
    return list(kinds.values())


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def ops_table(records: list[dict]) -> str:
    """One line per case: our time, each rival's as a multiple of it, peak memory.

    On a GPU also the fraction of the copy bandwidth, for ops that memory bandwidth limits.
    """
    rivals = list(dict.fromkeys(r for record in records for r in record["rivals_ms"]))
    head = ["op", "shape", "pass", "ms", *(f"{r} x" for r in rivals), "ratio", "MiB"]
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
            + [f"{record['ratio']:.1f}"]
            + [f"{memory['fused']:.1f}", f"{memory[record['best_rival']]:.1f}"]
            + ["-" if share is None else f"{share:.0%}"]
        )
    return _aligned(rows)


def step_table(record: dict) -> str:
    """One line per contender, then one per ratio that has a target."""
    peaks = ", ".join(f"{k} {v / 1e9:.0f}" for k, v in record["peak_flops"].items())
    title = (
        f"step, {record['shape']}: {record['flops'] / 1e9:.0f} GFLOP per update, fastest of "
        f"{record['rounds']} rounds; peak of the machine in GFLOP/s: {peaks}"
    )
    rows = [["contender", "ms", "median", "pairs/s", "MiB", "share of peak"]]
    failed = []
    for name, contender in record["contenders"].items():
        if "failed" in contender:
            failed.append(f"{name} does not run here: {contender['failed']}")
            continue
        row = [name, f"{contender['ms']:.4g}", f"{contender['median_ms']:.4g}"]
        row += [f"{contender['pairs_per_second']:.3g}", f"{contender['mib']:.0f}"]
        rows.append([*row, f"{contender['share_of_peak']:.0%}"])
    ratios = [["ratio", "value", "target", "of"]]
    for name, ratio in record["ratios"].items():
        smaller = name.startswith(("memory", "checkpointing"))
        target = f"{'<=' if smaller else '>='} {ratio['target']:g}"
        of = f"{ratio['of'][0]} / {ratio['of'][1]}"
        ratios.append([name, f"{ratio['value']:.2f}", target, of])
    return "\n".join([title, "", _aligned(rows), *failed, "", _aligned(ratios)])


def loader_table(record: dict) -> str:
    """Pairs per second of each way, then one line per ratio that has a target."""
    title = (
        f"loader, {record['shape']}: pairs/s on {record['cores']} cores, best of "
        f"{record['rounds']} rounds"
    )
    numbers = list(record["loaders"]["files"]["pairs_per_second"])
    rows = [["from", *(f"{n} processes" for n in numbers), "MiB per pair"]]
    for name, loader in record["loaders"].items():
        speeds = [f"{loader['pairs_per_second'][n]:.4g}" for n in numbers]
        rows.append([name, *speeds, f"{loader['mib_per_pair']:.2f}"])
    ratios = [["ratio", "value", "target"]]
    for name, ratio in record["ratios"].items():
        ratios.append(["zip / files" if name == "zip" else f"pack / {name}"])
        ratios[-1].append(f"{ratio['value']:.{2 if name == 'zip' else 1}f}")
        ratios[-1] += [f">= {ratio['target']:g}"]
    others = (
        "first epoch of a pack, which verifies checksums, 0 processes: "
        f"{record['first_epoch_pairs_per_second']:.4g}; "
        f"the step consumes {record['step_pairs_per_second']:.3g}"
    )
    return "\n".join([title, "", _aligned(rows), others, "", _aligned(ratios)])


def settings_table(record: dict) -> str:
    """Time and memory of an update with each setting of the adaptation."""
    rows = [["update", "ms", "x both levels", "MiB"]]
    for name, cost in record["settings"].items():
        rows.append([name, f"{cost['ms']:.0f}", f"{cost['ratio']:.2f}", f"{cost['mib']:.0f}"])
    title = (
        f"settings of the adaptation, {record['shape']}; with self-training at most "
        f"{record['target']:g} x both levels is the goal"
    )
    return f"{title}\n\n{_aligned(rows)}"


def start_table(record: dict) -> str:
    """Seconds and memory until the first update, with classes counted and with kept counts."""
    rows = [["class counts", "seconds", "MiB"]]
    for name, run in record["first_update"].items():
        rows.append([name, f"{run['seconds']:.1f}", f"{run['mib']:.0f}"])
    return f"until the first update, {record['shape']}\n\n{_aligned(rows)}"


def predictions_table(record: dict) -> str:
    """Seconds and memory of the prediction of one image."""
    rows = [["predict", "seconds", "MiB"]]
    for name, run in record["predictions"].items():
        rows.append([name, f"{run['seconds']:.1f}", f"{run['mib']:.0f}"])
    return f"an image of {record['shape']}\n\n{_aligned(rows)}"


def scaling_table(record: dict) -> str:
    """One line per point: measured time and memory, and what is counted."""
    return "scaling of an update\n\n" + _aligned(_scaling_rows(record))


def _scaling_rows(record: dict) -> list[list[str]]:
    rows = [["quantity", "value", "ms", "ms at the peak", "MiB", "MiB kept"]]
    for quantity, points in record["scaling"].items():
        for point in points:
            numbers = (point[key] for key in ("ms", "model_ms", "mib", "model_mib"))
            rows.append([quantity, str(point["value"]), *(f"{x:.0f}" for x in numbers)])
    return rows


def guards_table(records: list[dict]) -> str:
    """One line per guard: the measured ratio, its bound, and what the bound is from."""
    rows = [["case", "ratio", "value", "guard", "of"]]
    for record in records:
        case = ", ".join(record[key] for key in ("op", "shape", "pass") if key in record)
        for name, guard in record.get("guards", {}).items():
            bound = f"{'>=' if guard['at_least'] else '<='} {guard['guard']:.2f}"
            kind = "any machine" if guard["kind"] == guards.ANY else "the record of this machine"
            rows.append([case, name, f"{guard['value']:.2f}", bound, kind])
    return _aligned(rows)


def ops_markdown(records: list[dict]) -> str:
    """One line per op and shape: time, ratio to the best rival, peak memory added."""
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
            record = passes.get(direction)
            cells += [f"{record['ms']:.3g}", f"{record['ratio']:.1f}"] if record else ["", ""]
        last = passes.get("forward+backward") or passes["forward"]
        memory = last["peak_mib"]
        cells.append(f"{memory['fused']:.1f} ({memory[last['best_rival']]:.1f})")
        lines.append(f"| `{op}` | {shape} | {' | '.join(cells)} |")
    return "\n".join(lines)


def step_markdown(records: list[dict]) -> str:
    """One line per case and contender: time, pairs per second, peak memory added."""
    lines = [
        "| step | contender | ms | pairs/s | MiB | share of peak |",
        "|---|---|---|---|---|---|",
    ]
    for record in records:
        for name, contender in record["contenders"].items():
            cells = ["does not run here", "", "", ""]
            if "failed" not in contender:
                cells = [f"{contender['ms']:.3g}", f"{contender['pairs_per_second']:.3g}"]
                cells += [f"{contender['mib']:.0f}", f"{contender['share_of_peak']:.0%}"]
            lines.append(f"| {record['shape']} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def loader_markdown(records: list[dict]) -> str:
    """One line per case: best speeds from files, archives and packs, and the step's speed."""
    lines = [
        "| loader | files, pairs/s | zip, pairs/s | pack, pairs/s | pack / files | first epoch | "
        "the step consumes |",
        "|---|---|---|---|---|---|---|",
    ]
    for record in records:
        cells = [record["shape"]]
        for way in ("files", "zip", "pack"):
            loader = record["loaders"].get(way)
            cells.append(f"{max(loader['pairs_per_second'].values()):.3g}" if loader else "")
        cells += [f"{record['ratios']['files']['value']:.1f}"]
        cells += [f"{record[f'{name}_pairs_per_second']:.3g}" for name in ("first_epoch", "step")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def settings_markdown(records: list[dict]) -> str:
    """One line per case and setting of the adaptation."""
    lines = ["| update | with | ms | x both levels | MiB |", "|---|---|---|---|---|"]
    for record in records:
        for name, cost in record["settings"].items():
            cells = f"{cost['ms']:.0f} | {cost['ratio']:.2f} | {cost['mib']:.0f}"
            lines.append(f"| {record['shape']} | `{name}` | {cells} |")
    return "\n".join(lines)


def start_markdown(records: list[dict]) -> str:
    """One line per number of frames."""
    lines = [
        "| until the first update | counted, s | MiB | kept counts, s | MiB |",
        "|---|---|---|---|---|",
    ]
    for record in records:
        runs = record["first_update"].values()
        cells = [f"{run['seconds']:.1f} | {run['mib']:.0f}" for run in runs]
        lines.append(f"| {record['shape']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def predictions_markdown(records: list[dict]) -> str:
    """One line per size of the image."""
    modes = list(records[0]["predictions"])
    head = "".join(f" {mode}, s | MiB |" for mode in modes)
    lines = [f"| image |{head}", "|---|" + "---|---|" * len(modes)]
    for record in records:
        runs = record["predictions"].values()
        cells = [f"{run['seconds']:.1f} | {run['mib']:.0f}" for run in runs]
        lines.append(f"| {record['shape']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def scaling_markdown(records: list[dict]) -> str:
    """One line per point."""
    head, *rows = [row for record in records for row in _scaling_rows(record)]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write(records: list[dict], device: str) -> None:
    """Write the records of one run, a file for each benchmark, in the folder of this machine."""
    env = environment(device)
    folder = guards.RESULTS / env["machine"]
    folder.mkdir(parents=True, exist_ok=True)
    for op in dict.fromkeys(record["op"] for record in records):
        mine = [
            {key: value for key, value in record.items() if key != "guards"}
            for record in records
            if record["op"] == op
        ]
        result = {"environment": env, "records": mine}
        (folder / f"{op}.json").write_text(json.dumps(result, indent=1) + "\n")


def _machine(env: dict) -> str:
    return f"{env['machine']}: {env['device']}, {env['threads']} threads"


def main() -> None:
    """Print results of the benchmarks."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument(
        "results", nargs="*", type=Path, default=sorted(guards.RESULTS.glob("*/*.json"))
    )
    parser.add_argument("--markdown", action="store_true", help="the tables of docs/")
    arguments = parser.parse_args()
    results = {path: json.loads(path.read_text()) for path in arguments.results}
    if arguments.markdown:
        machines: dict[str, list[dict]] = {}
        for result in results.values():
            machines.setdefault(_machine(result["environment"]), []).extend(result["records"])
        for name, records in machines.items():
            print(f"{name}:\n\n{markdown(records)}\n")
        return
    for path, result in results.items():
        env = result["environment"]
        packages = ", ".join(f"{k} {v}" for k, v in env["packages"].items() if v)
        print(f"{path.name}: {_machine(env)}; {packages}")
        print(f"commit {env['commit'][:12]}; {env['command']}\n")
        print(table(result["records"]) + "\n")


if __name__ == "__main__":
    main()
