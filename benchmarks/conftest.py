"""Options, fixtures, progress and the summary of ``pytest benchmarks``."""

import functools
import time
from collections.abc import Callable

import pytest
import torch

from benchmarks import guards, harness, machine, report
from benchmarks.harness import NO_CUDA


def pytest_addoption(parser):
    group = parser.getgroup("gioada_fast")
    group.addoption("--device", default="cpu", choices=("cpu", "cuda"), help="device to measure on")
    group.addoption(
        "--quick",
        action="store_true",
        help="the first case of each benchmark, for a short time, without compiled rivals",
    )
    group.addoption(
        "--all",
        action="store_true",
        dest="all_passes",
        help="also the forward passes of ops alone, and the largest image; twice as long",
    )
    group.addoption(
        "--time-factor",
        type=float,
        default=1.0,
        help="multiplies the measurement time",
    )
    group.addoption("--start-frames", type=int, default=2000, help="frames of bench_start")
    group.addoption(
        "--record", action="store_true", help="write benchmarks/results/<kind of this machine>/"
    )


def pytest_configure(config):
    if config.getoption("--device") == "cuda" and not torch.cuda.is_available():
        raise pytest.UsageError(NO_CUDA)
    harness.quick = config.getoption("--quick")
    harness.time_factor = config.getoption("--time-factor") * (0.2 if harness.quick else 1)
    config.pluginmanager.register(Progress(config), "gioada_fast-progress")


def pytest_report_header(config):
    device = config.getoption("--device")
    kind = machine.kind(device)
    records = sorted(path.stem for path in (guards.RESULTS / kind).glob("*.json"))
    if not records:
        return f"machine: {kind}; no record of this kind: guards that hold on any machine"
    return f"machine: {kind}; guards by its records of {', '.join(records)}"


def pytest_collection_modifyitems(config, items):
    """Leave out the cases that ``--quick`` or the absence of ``--all`` leaves out."""
    kept, left_out = [], []
    for item in items:
        indices = item.callspec.indices if hasattr(item, "callspec") else {}
        # the two passes are the values of ``backward``; with it comes first
        alone = not config.getoption("all_passes") and indices.get("backward", 0) > 0
        quick = config.getoption("--quick") and any(indices.values())
        (left_out if alone or quick else kept).append(item)
    config.hook.pytest_deselected(items=left_out)
    items[:] = kept


class Progress:
    """A line after each case: how many are done, and the time so far."""

    def __init__(self, config):
        self.config, self.started, self.done = config, time.perf_counter(), 0

    def pytest_runtest_logreport(self, report):
        if report.when != "teardown":
            return
        self.done += 1
        session = self.config.pluginmanager.get_plugin("session")
        reporter = self.config.pluginmanager.get_plugin("terminalreporter")
        minutes, seconds = divmod(round(time.perf_counter() - self.started), 60)
        total = session.testscollected
        name = report.nodeid.partition("::")[2]
        reporter.ensure_newline()
        reporter.write_line(f"{self.done:3d} of {total} done, {minutes}:{seconds:02d}  {name}")


@pytest.fixture(scope="session")
def device(request) -> str:
    return request.config.getoption("--device")


@pytest.fixture
def race(benchmark, device) -> Callable[..., None]:
    """``harness.race`` with its arguments ``benchmark`` and ``device`` filled in."""
    return functools.partial(harness.race, benchmark, device)


def pytest_terminal_summary(terminalreporter, config):
    if not harness.records:
        return
    terminalreporter.write_sep("-", "ratio: time of the rival over ours")
    terminalreporter.write_line(report.table(harness.records))
    terminalreporter.write_sep("-", "guards")
    terminalreporter.write_line(report.guards_table(harness.records))


def pytest_sessionfinish(session):
    if harness.records and session.config.getoption("--record"):
        report.write(harness.records, session.config.getoption("--device"))
