"""Shared by the whole suite: what runs without a GPU, and the count of op cases."""

import os
from pathlib import Path

import pytest
import torch

HAS_CUDA = torch.cuda.is_available()
if not HAS_CUDA:
    # Must be set before triton is imported: its kernels then run in the interpreter, on CPU.
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(autouse=True)
def seeded():
    """Every test draws the same numbers, alone or after others."""
    torch.manual_seed(0)


op_cases: set[tuple[str, str, str, str]] = set()


SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real frames and weights that lies beside the repository where there is one."""
    if not SHARED.is_dir():
        pytest.skip("no folder shared/ with real frames and weights beside the repository")
    return SHARED


@pytest.fixture
def count_case():
    """Call with (op, back end, dtype, shape) for every case compared with the oracle."""
    return lambda *case: op_cases.add(case)


def pytest_collection_modifyitems(items):
    if not HAS_CUDA:
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def pytest_terminal_summary(terminalreporter):
    if op_cases:
        names = {case[0] for case in op_cases}
        terminalreporter.write_line(
            f"{len(op_cases)} cases (op, back end, dtype, shape) of {len(names)} ops "
            "within twice eager's error, against float64"
        )
