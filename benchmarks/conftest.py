"""Options, fixtures and the summary of ``pytest benchmarks``."""

import functools
from collections.abc import Callable

import pytest
import torch

from benchmarks import harness, report


def pytest_addoption(parser):
    group = parser.getgroup("gioada_fast")
    group.addoption("--device", default="cpu", choices=("cpu", "cuda"), help="device to measure on")
    group.addoption(
        "--time-factor",
        type=float,
        default=1.0,
        help="multiplies the measurement time",
    )
    group.addoption("--start-frames", type=int, default=2000, help="frames of bench_start")
    group.addoption("--record", action="store_true", help="write benchmarks/results/")


def pytest_configure(config):
    harness.time_factor = config.getoption("--time-factor")


@pytest.fixture(scope="session")
def device(request) -> str:
    chosen = request.config.getoption("--device")
    if chosen == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return chosen


@pytest.fixture
def race(benchmark, device) -> Callable[..., None]:
    """``harness.race`` with its arguments ``benchmark`` and ``device`` filled in."""
    return functools.partial(harness.race, benchmark, device)


def pytest_terminal_summary(terminalreporter, config):
    if harness.records:
        terminalreporter.write_sep("-", "ratio: time of the rival over ours")
        terminalreporter.write_line(report.table(harness.records))


def pytest_sessionfinish(session):
    if harness.records and session.config.getoption("--record"):
        device = session.config.getoption("--device")
        for op in dict.fromkeys(r["op"] for r in harness.records):
            mine = [r for r in harness.records if r["op"] == op]
            report.write(mine, device, report.RESULTS / f"{op}_{device}.json")
