"""Guards: how far a measurement may fall before its benchmark fails.

There are two kinds of guards: for any machine, and for kinds of machines with a record.

    any machine   ours is at least as fast as the best rival of the same run, and takes no more
                  memory, with room for noise (``ANY_TIME``, ``ANY_MEMORY``)
    record        on a kind of machine (``machine.kind``) that ``results/`` has a record of, most of
                  what was measured there (``OF_RECORD``); the stricter of the two is used

The kernels are not tuned for GPUs, where some are slower than PyTorch: without a record, a GPU has
guards for memory alone.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import machine

RESULTS = Path(__file__).parent / "results"
ANY_TIME = 0.85
"""Smallest ratio of the best rival's time to ours, on any processor."""
ANY_MEMORY = 1.1
"""Largest ratio of our peak memory to the rival's, on any machine."""
OF_RECORD = 0.65
"""Share of a recorded ratio that must be reached. Runs on one machine, a shared one, differed by a
third in the ratio of the demo's step to public code."""
ANY, RECORD = "any machine", "record"


class GuardFailure(AssertionError):
    """A measured ratio is beyond its guard."""


def ratios(record: Mapping[str, Any]) -> dict[str, float]:
    """The ratios of a record that guards compare, by name: of time or of memory (``memory...``)."""
    if "ratios" in record:
        return {name: ratio["value"] for name, ratio in record["ratios"].items()}
    if "settings" in record:
        return {name: cost["ratio"] for name, cost in record["settings"].items()}
    if "ratio" in record:
        memory = record["peak_mib"]
        # 2 MiB on both sides, because small ops take less than what the allocator rounds up
        share = (memory["fused"] + 2) / (memory[record["best_rival"]] + 2)
        return {"time": record["ratio"], "memory": share}
    return {}


def recorded(record: Mapping[str, Any], device: str) -> dict[str, float]:
    """``ratios`` of the record of the same case on this kind of machine; {} without one."""
    path = RESULTS / machine.kind(device) / f"{record['op']}.json"
    if not path.exists():
        return {}
    same = (
        other
        for other in json.loads(path.read_text())["records"]
        if all(other.get(key) == record.get(key) for key in ("op", "shape", "pass"))
    )
    values = ratios(next(same, {}))
    if "ratio" in record:  # next to a rival's full-size maps, an op's few KiB are all noise
        values.pop("memory", None)
    return values


def add_guards(
    record: dict[str, Any],
    device: str,
    at_least: Mapping[str, float] | None = None,
    at_most: Mapping[str, float] | None = None,
) -> None:
    """Give a record its guards: ``guards``, by the name of the ratio.

    Args:
        record: result of a benchmark.
        device: ``cpu`` or ``cuda``.
        at_least: the ratios that should be large, with what holds on any machine.
        at_most: the same for those that should be small.
    """
    values, before = ratios(record), recorded(record, device)
    record["guards"] = guards = {}
    for bounds, larger_is_better in ((at_least or {}, True), (at_most or {}, False)):
        for name, bound in bounds.items():
            choices = {ANY: bound}
            if device == "cuda" and larger_is_better:
                choices = {}
            if name in before:
                choices[RECORD] = before[name] * (OF_RECORD if larger_is_better else 1 / OF_RECORD)
            if not choices or name not in values:
                continue
            stricter = max if larger_is_better else min
            kind = stricter(choices, key=lambda kind: choices[kind])
            guards[name] = {
                "value": values[name],
                "guard": choices[kind],
                "kind": kind,
                "at_least": larger_is_better,
            }


def failures(record: Mapping[str, Any]) -> list[str]:
    """A sentence for each guard that the record does not keep; NaN counts as not measured."""
    case = ", ".join(record[key] for key in ("op", "shape", "pass") if key in record)
    found = []
    for name, guard in record["guards"].items():
        value, bound = guard["value"], guard["guard"]
        if value < bound if guard["at_least"] else value > bound:
            kind = "on any machine" if guard["kind"] == ANY else "by the record of this machine"
            limit = "least" if guard["at_least"] else "most"
            found.append(f"{case}: {name} is {value:.2f}, must be at {limit} {bound:.2f} {kind}")
    return found


def check(record: Mapping[str, Any]) -> None:
    """Raise GuardFailure if the record is beyond a guard."""
    if found := failures(record):
        raise GuardFailure("\n".join(found))
