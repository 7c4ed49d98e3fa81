"""Shared by the benchmarks: clock, peaks of the machine, memory, and the race of an op.

``conftest.py`` makes ``race`` a fixture and prints ``records`` at the end.
"""

import ctypes
import functools
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from benchmarks import guards

SECONDS = 1.0  # measurement time per case; multiplied by time_factor
SECONDS_AGAIN = 3.0  # at least, of a second measurement, where the first is beyond a guard
time_factor = 1.0  # option --time-factor
quick = False  # option --quick
MEMORY_CALLS = 5  # the peak is their median, where it is small
CALLS = {"cpu": 1, "cuda": 20}  # per measurement; many on a GPU, so that launches overlap

records: list[dict] = []
"""One record for each case that has been measured."""


NO_CUDA = "--device cuda: PyTorch finds no CUDA device here; leave the option out for the CPU"


def require_fast(dtype: torch.dtype, device: str) -> None:
    """Skip the case unless the device at least converts the dtype in hardware.

    All GPUs convert float16, and so do processors with AVX2, which have F16C too. Elsewhere a case
    in float16 would time the emulation.
    """
    capability = torch.backends.cpu.get_cpu_capability()
    if dtype == torch.float16 and device == "cpu" and capability not in ("AVX2", "AVX512"):
        pytest.skip(f"no float16 in hardware ({capability})")


def clock(function: Callable, device: str, calls: int | None = None) -> float:
    """Milliseconds per call: the mean of ``calls`` calls, by default ``CALLS[device]``."""
    calls = calls or CALLS[device]
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
    """Bytes read and written per second when the GPU copies 256 MiB."""
    source = torch.empty(2**26, device="cuda")
    target = torch.empty_like(source)
    fastest = min(clock(lambda: target.copy_(source), "cuda") for _ in range(10))
    return 2 * source.nbytes / (fastest / 1e3)


@functools.cache
def peak_flops(device: str, dtype: torch.dtype) -> float:
    """FLOP/s of a large matrix product or a large convolution, whichever is faster."""
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
    """Peak memory in MiB that one call adds; NaN if the system does not measure it."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with _own_pages():
        return max(_peak_rss_mib(function) - _peak_rss_error(), 0.0)  # NaN stays NaN


def typical_peak_mib(function: Callable, device: str) -> float:
    """``peak_mib`` of a function that can be called again: where it is small, a median."""
    peaks = [peak_mib(function, device)]
    if peaks[0] < 64:  # otherwise 100 KiB more or less are no matter
        peaks += [peak_mib(function, device) for _ in range(MEMORY_CALLS - 1)]
    return statistics.median(peaks)


def _peak_rss_error(mib: int = 8) -> float:
    """Current error of ``_peak_rss_mib`` in MiB, measured with a tensor of known size.

    Linux counts pages for each processor by itself and adds these counts up now and then, so the
    high-water mark is off by up to 128 KiB for each processor and kind of page. That is more than
    what some ops need beside their result.
    """
    return _peak_rss_mib(lambda: torch.ones(mib * 2**20, dtype=torch.uint8)) - mib


def _peak_rss_mib(function: Callable) -> float:
    try:
        # Return freed memory to the system and reset its high-water mark.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        return float("nan")
    before = _status("VmRSS")
    function()
    return (_status("VmHWM") - before) / 2**10


@contextmanager
def _own_pages() -> Iterator[None]:
    """Let glibc give every tensor pages of its own, which it returns when the tensor is freed.

    Otherwise holes between tensors count as memory: as much as a fifth of the step's, by chance.
    The pages are small ones: where an earlier result had huge pages, a few KiB would cost 2 MiB.
    """
    m_trim_threshold, m_mmap_threshold = -1, -3  # malloc.h
    pr_set_thp_disable, pr_get_thp_disable = 41, 42  # linux/prctl.h
    try:
        libc = ctypes.CDLL(None)
        mallopt, prctl = libc.mallopt, libc.prctl
    except (OSError, AttributeError):
        yield
        return
    zero, one = ctypes.c_ulong(0), ctypes.c_ulong(1)  # prctl reads 64 bits of each
    was_disabled = prctl(pr_get_thp_disable, zero, zero, zero, zero) == 1
    prctl(pr_set_thp_disable, one, zero, zero, zero)
    mallopt(m_mmap_threshold, 2**18)
    try:
        yield
    finally:
        # where glibc's own adjustment of the two ends
        mallopt(m_mmap_threshold, 2**25)
        mallopt(m_trim_threshold, 2**26)
        prctl(pr_set_thp_disable, one if was_disabled else zero, zero, zero, zero)


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise KeyError(field)


def _assert_agree(name: str, actual: list[Tensor], expected: list[Tensor]) -> None:
    for a, e in zip(actual, expected, strict=True):
        if not e.is_floating_point():  # counts: rounding moves a few pixels to another class
            assert (a - e).abs().sum() <= 1e-4 * e.abs().sum(), name
            continue
        eps = torch.finfo(a.dtype).eps  # a rival rounds full-size values to this dtype, ours do not
        rtol, atol = max(1e-4, 8 * eps), max(1e-5, 2 * eps) * e.abs().max().item()
        torch.testing.assert_close(a, e, rtol=rtol, atol=atol, msg=lambda m: f"{name}: {m}")


def _contender(function: Callable[..., Tensor], inputs: tuple) -> Callable[[], list[Tensor]]:
    """A function that returns the result, and the gradients of the inputs that require one."""
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


def race(
    benchmark: BenchmarkFixture,
    device: str,
    op: str,
    shape: str,
    fused: Callable[..., Tensor],
    eager: Callable[..., Tensor],
    inputs: tuple,
    channels_last: bool = False,
    bytes_moved: int | None = None,
) -> None:
    """Time an op against eager PyTorch, in alternating rounds, and keep the record.

    The rivals are ``eager``, ``eager`` on channels-last inputs, and ``eager`` under
    ``torch.compile`` (not with ``--quick``). The result is the fastest round, because slower ones
    measure other load on the machine; the record also has the medians.

    Args:
        benchmark: pytest-benchmark's fixture, which runs the rounds.
        device: ``cpu`` or ``cuda``.
        op, shape: names for the record.
        fused, eager: functions of ``inputs``; ``eager`` as public code writes it.
        inputs: tensors and other arguments. If a tensor requires a gradient, a call is forward and
            backward; otherwise forward only.
        channels_last: whether ``fused`` gets its images in channels-last, as in the trainer.
        bytes_moved: bytes that an ideal kernel reads and writes. With it, a record on a GPU has
            the fraction of the copy bandwidth that ``fused`` reaches.

    Raises:
        AssertionError: results or gradients disagree.
        GuardFailure: too slow, or too much memory, see ``guards.py``; after a second measurement.
    """
    torch.compiler.reset()
    last = tuple(_channels_last(x) for x in inputs)
    ours_run = _contender(fused, last if channels_last else inputs)
    rivals = {
        "eager": _contender(eager, inputs),
        "eager channels-last": _contender(eager, last),
    }
    if not quick:
        rivals["compile"] = _contender(torch.compile(eager, dynamic=False), inputs)
    expected = ours_run()
    for name, rival in rivals.items():  # times are only comparable if the results agree
        _assert_agree(name, rival(), expected)
    once = {name: min(clock(f, device) for _ in range(2)) for name, f in rivals.items()}
    milliseconds = CALLS[device] * (sum(once.values()) + 1e-3)
    rounds = max(2 if quick else 5, min(200, int(time_factor * SECONDS * 1e3 / milliseconds)))

    times: dict[str, list[float]] = {name: [] for name in rivals}
    ours: list[float] = []

    def time_rivals():
        for name, rival in rivals.items():
            times[name].append(clock(rival, device))
        ours_run()  # warms up caches and threads again after the rivals
        ours.extend(clock(ours_run, device) for _ in range(2))  # short, so noise disturbs it more

    direction = "forward+backward" if len(expected) > 1 else "forward"
    benchmark.group = f"{op} {direction}"
    benchmark.pedantic(
        lambda: ours.append(clock(ours_run, device)),
        setup=time_rivals,
        rounds=rounds,
        warmup_rounds=1,
    )
    memory = {
        name: typical_peak_mib(f, device) for name, f in {"fused": ours_run, **rivals}.items()
    }

    def measured() -> dict:
        fastest = {name: min(t) for name, t in times.items()}
        best = min(fastest, key=lambda name: fastest[name])
        record = {
            "op": op,
            "shape": shape,
            "pass": direction,
            "rounds": len(times[best]),
            "ms": min(ours),
            "median_ms": statistics.median(ours),
            "rivals_ms": fastest,
            "rivals_median_ms": {name: statistics.median(t) for name, t in times.items()},
            "best_rival": best,
            "ratio": fastest[best] / min(ours),
            "peak_mib": memory,
        }
        guards.add_guards(record, device, {"time": guards.ANY_TIME}, {"memory": guards.ANY_MEMORY})
        return record

    record = measured()
    if guards.failures(record):  # perhaps another process was busy during most rounds
        for _ in range(max(2 * rounds, int(SECONDS_AGAIN * 1e3 / milliseconds))):
            time_rivals()
        record = measured()
    if device == "cuda" and bytes_moved is not None:
        record["bandwidth_share"] = bytes_moved / (min(ours) / 1e3) / copy_bandwidth()
    records.append(record)
    benchmark.extra_info.update(record)
    guards.check(record)
