"""What benchmarks share: the device, and races of an op against its rivals."""

import ctypes
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks import report

SECONDS = 12.0  # of measurement for each case

records: list[dict] = []


def pytest_addoption(parser):
    group = parser.getgroup("gioada_fast")
    group.addoption("--device", default="cpu", choices=("cpu", "cuda"), help="measure on it")
    group.addoption("--record", action="store_true", help="keep the result in benchmarks/results/")


@pytest.fixture(scope="session")
def device(request) -> str:
    chosen = request.config.getoption("--device")
    if chosen == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return chosen


def _clock(function: Callable, device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) * 1e3


def _peak_mib(function: Callable, device: str) -> float:
    """Memory that one call adds at its highest point."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    try:
        # Give freed memory back to the system, and let its high-water mark start from here.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        return float("nan")
    before = _status("VmRSS")
    function()
    return (_status("VmHWM") - before) / 2**10


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise KeyError(field)


def _assert_agree(name: str, found: list[Tensor], expected: list[Tensor]) -> None:
    for f, e in zip(found, expected, strict=True):
        torch.testing.assert_close(
            f, e, rtol=1e-4, atol=1e-5 * e.abs().max().item(), msg=lambda m: f"{name}: {m}"
        )


@pytest.fixture
def race(benchmark, device):
    """Times ``fused`` against rivals that return the same tensors, round by round in turn.

    Call with the names of op, shape and pass, the function under test, its rivals by name, and
    the guard: the test fails where the best rival's time is less than so many times ours. Of all
    rounds the fastest counts: others measure what else the machine was doing. Medians are kept too.
    """

    def run(
        op: str,
        shape: str,
        direction: str,
        fused: Callable[[], list[Tensor]],
        rivals: dict[str, Callable[[], list[Tensor]]],
        guard: float,
    ) -> None:
        expected = fused()
        for name, rival in rivals.items():  # a time counts once the results agree
            _assert_agree(name, rival(), expected)
        once = {name: min(_clock(f, device) for _ in range(2)) for name, f in rivals.items()}
        rounds = max(5, min(200, int(SECONDS * 1e3 / (sum(once.values()) + 1e-3))))

        times = {name: [] for name in rivals}
        ours = []

        def time_rivals():
            for name, rival in rivals.items():
                times[name].append(_clock(rival, device))
            fused()  # the rivals leave caches and threads in another state than training would
            ours.extend(_clock(fused, device) for _ in range(2))  # short, so more easily disturbed

        benchmark.group = f"{op} {direction}"
        benchmark.pedantic(
            lambda: ours.append(_clock(fused, device)),
            setup=time_rivals,
            rounds=rounds,
            warmup_rounds=1,
        )
        fastest = {name: min(t) for name, t in times.items()}
        best = min(fastest, key=fastest.get)
        record = {
            "op": op,
            "shape": shape,
            "pass": direction,
            "rounds": rounds,
            "ms": min(ours),
            "median_ms": statistics.median(ours),
            "rivals_ms": fastest,
            "rivals_median_ms": {name: statistics.median(t) for name, t in times.items()},
            "best_rival": best,
            "ratio": fastest[best] / min(ours),
            "guard": guard,
            "peak_mib": {
                name: _peak_mib(f, device) for name, f in {"fused": fused, **rivals}.items()
            },
        }
        records.append(record)
        benchmark.extra_info.update(record)
        assert record["ratio"] >= guard, (
            f"{op}, {shape}, {direction}: {record['ratio']:.2f} times as fast as {best}, "
            f"guard is {guard}"
        )

    return run


def pytest_terminal_summary(terminalreporter, config):
    if records:
        terminalreporter.write_sep("-", "ratio: time of the best rival over ours")
        terminalreporter.write_line(report.table(records))


def pytest_sessionfinish(session):
    if records and session.config.getoption("--record"):
        device = session.config.getoption("--device")
        for op in dict.fromkeys(r["op"] for r in records):
            mine = [r for r in records if r["op"] == op]
            report.write(mine, device, report.RESULTS / f"{op}_{device}.json")
