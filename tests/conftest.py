"""Shared by all tests: skips GPU tests without a GPU, and counts the cases of the ops."""

import collections
import os
from pathlib import Path

import pytest
import torch

from tests.cuda_emulation.build import build, require_compiler
from tests.cuda_emulation.emulator import Emulator

HAS_CUDA = torch.cuda.is_available()
if not HAS_CUDA:
    # Makes Triton run its kernels in an interpreter on the CPU; must be set before the import.
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(autouse=True)
def seeded():
    """Every test draws the same random numbers, whether it runs alone or after other tests."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def emulator(pytestconfig):
    """The CUDA kernels, compiled for the CPU; skips the test where that is not possible."""
    require_compiler()
    return Emulator(build(pytestconfig.cache.mkdir("cuda_emulation")))


@pytest.fixture(autouse=True)
def emulated_cuda(request):
    """In tests with the mark ``emulated``, the back end ``cuda`` runs on CPU tensors."""
    if request.node.get_closest_marker("emulated") is None:
        yield
        return
    with request.getfixturevalue("emulator").live():
        yield


SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with real frames and weights beside the repository; skips the test without it."""
    if not SHARED.is_dir():
        pytest.skip("no folder shared/ with real frames and weights beside the repository")
    return SHARED


@pytest.fixture
def count_case(record_property):
    """Call with (op, back end, dtype, align_corners, shape) for each case compared with float64."""
    return lambda *case: record_property("op_case", case)


@pytest.fixture
def summarise(record_property):
    """Call with a line that is printed after all tests."""
    return lambda line: record_property("summary", line)


def pytest_collection_modifyitems(config, items):
    named = config.getoption("markexpr") == "kills" or any("test_kills" in a for a in config.args)
    left_out = [item for item in items if item.get_closest_marker("kills") and not named]
    if left_out:
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)
    if not HAS_CUDA:
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def pytest_terminal_summary(terminalreporter):
    # Properties of the reports, because the tests may have run in other processes.
    properties = [p for r in terminalreporter.stats.get("passed", []) for p in r.user_properties]
    write = terminalreporter.write_line
    for line in sorted(value for name, value in properties if name == "summary"):
        write(line)
    op_cases = {tuple(value) for name, value in properties if name == "op_case"}
    if not op_cases:
        return
    write(f"{len(op_cases)} cases of the ops within twice eager's error, against float64:")
    of_dtype = collections.Counter((op, target, dtype) for op, target, dtype, _, _ in op_cases)
    aligned = collections.Counter(
        (op, target) for op, target, _, align_corners, _ in op_cases if align_corners is False
    )
    for op, target in sorted({case[:2] for case in op_cases}):
        counts = [
            f"{dtype.removeprefix('torch.')} {of_dtype[op, target, dtype]}"
            for dtype in sorted({case[2] for case in op_cases})
        ]
        write(f"  {op:26} {target:12} {', '.join(counts)}; half pixels {aligned[op, target]}")
