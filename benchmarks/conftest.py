"""What benchmarks share: the device, and races of an op against its rivals."""

import ctypes
import functools
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import report

SECONDS = 6.0  # of measurement for each case

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


def clock(function: Callable, device: str, calls: int | None = None) -> float:
    """Milliseconds of one call; on a GPU the mean of many, so that launches overlap."""
    calls = calls or (20 if device == "cuda" else 1)
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        function()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) * 1e3 / calls


@functools.cache
def copy_bandwidth() -> float:
    """Bytes a second, read and written, of the GPU's own copy of 256 MiB."""
    source = torch.empty(2**26, device="cuda")
    target = torch.empty_like(source)
    fastest = min(clock(lambda: target.copy_(source), "cuda") for _ in range(10))
    return 2 * source.nbytes / (fastest / 1e3)


@functools.cache
def peak_flops(device: str, dtype: torch.dtype) -> float:
    """Operations a second of the better of a large matrix product and a large convolution."""
    size = 8192 if device == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    images = torch.randn(8, 256, size // 32, size // 32, device=device, dtype=dtype)
    weight = torch.randn(256, 256, 3, 3, device=device, dtype=dtype)
    images, weight = (x.contiguous(memory_format=torch.channels_last) for x in (images, weight))
    with torch.inference_mode():
        speeds = []
        for function, flops in (
            (lambda: a @ b, 2 * size**3),
            (lambda: F.conv2d(images, weight, padding=1), 2 * images.numel() * weight[0].numel()),
        ):
            fastest = min(clock(function, device) for _ in range(20))
            speeds.append(flops / (fastest / 1e3))
    return max(speeds)


def peak_mib(function: Callable, device: str) -> float:
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
        if not e.is_floating_point():  # counts: rounding moves a few from one place to another
            assert (f - e).abs().sum() <= 1e-4 * e.abs().sum(), name
            continue
        torch.testing.assert_close(
            f, e, rtol=1e-4, atol=1e-5 * e.abs().max().item(), msg=lambda m: f"{name}: {m}"
        )


def _contender(function: Callable[..., Tensor], inputs: tuple) -> Callable[[], list[Tensor]]:
    """A call that returns the result and, where inputs require one, their gradients."""
    leaves = [x for x in inputs if isinstance(x, Tensor) and x.requires_grad]
    result = function(*inputs)
    weights = torch.linspace(0.5, 1.5, result.numel(), device=result.device).view(result.shape)
    grad = torch.empty_like(result).copy_(weights) if leaves else None

    def run() -> list[Tensor]:
        result = function(*inputs)
        return [result, *torch.autograd.grad(result, leaves, grad)] if leaves else [result]

    return run


def _channels_last(x):
    if not isinstance(x, Tensor) or x.dim() != 4 or not x.is_floating_point():
        return x
    return x.detach().to(memory_format=torch.channels_last).requires_grad_(x.requires_grad)


@pytest.fixture
def race(benchmark, device):
    """Times an op against the same in eager PyTorch, round by round in turn.

    Call with
        op, shape: names for the record.
        fused, eager: functions of ``inputs``; ``eager`` as public code writes it.
        inputs: tensors and others. Where a tensor requires a gradient, a call is forward and
            backward; where none does, forward alone.
        guard: the test fails where the best rival's time is less than so many times ours.
        channels_last: whether ``fused`` gets its images in channels-last, as in the trainer.
        bytes_moved: by a perfect kernel; on a GPU the share of copy bandwidth is kept.

    The rivals are eager, eager on channels-last inputs, and ``torch.compile``. Of all rounds the
    fastest counts: others measure what else the machine was doing. Medians are kept too.
    """

    def run(
        op: str,
        shape: str,
        fused: Callable[..., Tensor],
        eager: Callable[..., Tensor],
        inputs: tuple,
        guard: float,
        channels_last: bool = False,
        bytes_moved: int | None = None,
    ) -> None:
        torch.compiler.reset()
        last = tuple(_channels_last(x) for x in inputs)
        ours_run = _contender(fused, last if channels_last else inputs)
        rivals = {
            "eager": _contender(eager, inputs),
            "eager channels-last": _contender(eager, last),
            "compile": _contender(torch.compile(eager, dynamic=False), inputs),
        }
        expected = ours_run()
        for name, rival in rivals.items():  # a time counts once the results agree
            _assert_agree(name, rival(), expected)
        once = {name: min(clock(f, device) for _ in range(2)) for name, f in rivals.items()}
        rounds = max(5, min(200, int(SECONDS * 1e3 / (sum(once.values()) + 1e-3))))

        times = {name: [] for name in rivals}
        ours = []

        def time_rivals():
            for name, rival in rivals.items():
                times[name].append(clock(rival, device))
            ours_run()  # the rivals leave caches and threads in another state than training would
            ours.extend(clock(ours_run, device) for _ in range(2))  # short: more easily disturbed

        direction = "forward+backward" if len(expected) > 1 else "forward"
        benchmark.group = f"{op} {direction}"
        benchmark.pedantic(
            lambda: ours.append(clock(ours_run, device)),
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
                name: peak_mib(f, device) for name, f in {"fused": ours_run, **rivals}.items()
            },
        }
        if device == "cuda" and bytes_moved is not None:
            record["bandwidth_share"] = bytes_moved / (min(ours) / 1e3) / copy_bandwidth()
        records.append(record)
        benchmark.extra_info.update(record)
        assert record["ratio"] >= guard, (
            f"{op}, {shape}, {direction}: {record['ratio']:.2f} times as fast as {best}, "
            f"guard is {guard}"
        )

    return run


def pytest_terminal_summary(terminalreporter, config):
    if records:
        terminalreporter.write_sep("-", "ratio: time of the rival over ours")
        terminalreporter.write_line(report.table(records))


def pytest_sessionfinish(session):
    if records and session.config.getoption("--record"):
        device = session.config.getoption("--device")
        for op in dict.fromkeys(r["op"] for r in records):
            mine = [r for r in records if r["op"] == op]
            report.write(mine, device, report.RESULTS / f"{op}_{device}.json")
