"""Runs the tests of the ops with kernels that are built under sanitizers: ``make sanitize``.

Builds the extension module in ``build/sanitize-*``, with ASan and UBSan, then with TSan, preloads
their runtime libraries and runs tests of ``tests/ops`` with it, or what the arguments for pytest
name. Exits with 1 if a sanitizer reports anything or a test fails.

The interpreter and PyTorch are not instrumented, so leaks are not reported, and TSan sees the
kernels' own threads alone.
"""

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SANITIZERS = {
    "address,undefined": (
        ("asan", "ubsan"),
        "(cpp or instruction_set) and not compile and not opcheck and not samples",
    ),
    "thread": (("tsan",), "cpp and deterministic"),
}
"""Values of ``-fsanitize``, the runtime libraries of each, and the tests to run: those that call
the C++ kernels. Races need several threads, which the tests of determinism set."""
OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    "TSAN_OPTIONS": "ignore_noninstrumented_modules=1:halt_on_error=1:report_signal_unsafe=0",
}
MODULE = "GIOADA_SANITIZED_MODULE"
"""Environment variable with the path of the module that ``pytest_configure`` puts in place."""


def build(sanitizer: str) -> Path:
    """Build the extension module with a sanitizer; returns its path."""
    import pybind11

    folder = ROOT / "build" / f"sanitize-{sanitizer.replace(',', '-')}"
    module = folder / "_C.so"
    defines = {
        "Python_EXECUTABLE": sys.executable,
        "pybind11_DIR": pybind11.get_cmake_dir(),
        "GIOADA_BUILD_CUDA": "0",
        "GIOADA_SANITIZE": sanitizer,
        "GIOADA_OUTPUT": module,
    }
    configure = ["cmake", "-S", ROOT, "-B", folder, *(f"-D{k}={v}" for k, v in defines.items())]
    for command in (configure, ["cmake", "--build", folder, "--parallel"]):
        subprocess.run([*map(str, command)], check=True, stdout=subprocess.DEVNULL)
    return module


def run(sanitizer: str, arguments: list[str]) -> int:
    """Run pytest with the module of a sanitizer; returns its exit status."""
    module, compiler = build(sanitizer), os.environ.get("CXX", "c++")
    names, selection = SANITIZERS[sanitizer]
    libraries = [
        subprocess.check_output([compiler, f"-print-file-name=lib{name}.so"], text=True).strip()
        for name in names
    ]
    arguments = arguments or ["tests/ops", "-q", "-x", "-k", selection]
    environment = {
        **os.environ,
        **OPTIONS,
        MODULE: str(module),
        "LD_PRELOAD": " ".join(libraries),
        "OMP_NUM_THREADS": "2",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "pytest", "-p", "tests.sanitize", *arguments]
    if sanitizer == "thread" and shutil.which("setarch"):
        # TSan's fixed map of memory does not allow addresses that are far randomised
        command = ["setarch", platform.machine(), "-R", *command]
    print(f"sanitizer {sanitizer}: {module}", flush=True)
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def pytest_configure() -> None:
    """As a plugin of pytest: let the package import the module that was built here."""
    import torch  # noqa: F401  the module shares its OpenMP runtime, as in ops/_native.py

    spec = importlib.util.spec_from_file_location("gioada_fast._C", os.environ[MODULE])
    assert spec is not None and spec.loader is not None
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


if __name__ == "__main__":
    statuses = {sanitizer: run(sanitizer, sys.argv[1:]) for sanitizer in SANITIZERS}
    print(", ".join(f"{name}: {'failed' if s else 'clean'}" for name, s in statuses.items()))
    sys.exit(any(statuses.values()))
