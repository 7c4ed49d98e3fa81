"""Tests wheels with several versions of Python, torch and NumPy: ``make matrix``.

For each Python on PATH, a wheel is built and installed with each torch and each NumPy in an
environment of its own, which is removed afterwards. Versions that cannot be installed, or only
together with CUDA packages of several gigabytes, get a row that says so. Exits with 1 if tests fail
anywhere.
"""

import argparse
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .environments import ROOT, WORK, Environment, ReleaseError, main, run, tracked_files

PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
NUMPYS = ("1.26.*", ">=2")
TESTS = (
    *("tests/ops", "tests/models/test_networks.py", "tests/data/test_rasters.py"),
    *("tests/data/test_transforms.py", "tests/data/test_readers.py", "tests/data/test_loader.py"),
)
SELECTION = (
    *("-m", "not emulated and not slow"),
    *("-k", "not triton and not compile and not every_instruction_set"),
)
"""A few minutes: the ops with C++ kernels, files of data, and networks."""


class Row(NamedTuple):
    """A line of the table."""

    python: str
    torch: str
    numpy: str
    result: str

    @property
    def failed(self) -> bool:
        """Whether tests ran and did not pass."""
        return self.result.startswith("FAILED")


def pythons(asked: list[str]) -> Iterator[tuple[str, str]]:
    """(version, program) of each Python that is asked for and runs."""
    for name in asked:
        program = shutil.which(f"python{name}")
        try:
            found = run([program or f"python{name}", "-c", "import sys; print(sys.version)"])
        except ReleaseError:
            print(f"python{name}: not on PATH, left out", flush=True)
            continue
        yield found.split()[0], str(program)


def default_torches() -> list[str]:
    """The lowest torch of pyproject.toml, the one of constraints.txt, and the newest."""
    lowest = re.search(r'"torch>=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    tested = re.search(r"^torch==([\d.]+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    if lowest is None or tested is None:
        raise ReleaseError(f"{ROOT}: pyproject.toml or constraints.txt has no version of torch")
    return [f"=={lowest[1]}.*", f"=={tested[1]}", ""]


def resolve(environment: Environment, requirements: list[str]) -> dict[str, str]:
    """Packages and versions that pip would install.

    Raises:
        ReleaseError: there is no such combination; the message ends with pip's reason.
    """
    report = environment.folder / "report.json"
    environment.install("--dry-run", "--report", report, *requirements)
    items = json.loads(report.read_text())["install"]
    return {item["metadata"]["name"].lower(): item["metadata"]["version"] for item in items}


def build_wheel(python: str) -> Path:
    """The wheel of one Python, without CUDA kernels."""
    version = run([python, "-c", "import sys; print(sys.implementation.cache_tag)"]).strip()
    folder, source = WORK / f"matrix-{version}", WORK / "matrix-source"
    for path in (folder, source):
        shutil.rmtree(path, ignore_errors=True)
    for name in tracked_files():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    variables = {**os.environ, "GIOADA_REQUIRE_NATIVE": "1", "GIOADA_BUILD_CUDA": "0"}
    build = Environment(WORK / "matrix-build", python)
    command = [build.python, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", folder, source]
    run(command, env=variables)
    (wheel,) = folder.glob("*.whl")
    return wheel


def test(python: str, version: str, wheel: Path, torch: str, numpy: str, cuda: bool) -> Row:
    """Install and test one combination."""
    environment = Environment(WORK / "matrix-environment", python)
    environment.install("--upgrade", "pip")  # old versions report no --dry-run
    versions = Row(version, torch.removeprefix("==") or "newest", numpy, "")
    extra = ["pytest", "expecttest"]
    required = [f"torch{torch}", f"numpy{'' if numpy[0] in '<>=' else '=='}{numpy}"]
    try:
        found = resolve(environment, [*required, *extra, str(wheel)])
    except ReleaseError as error:
        reason = str(error).strip().splitlines()[-1].removeprefix("ERROR: ")
        return versions._replace(result=f"not installable: {reason}")
    versions = Row(version, found["torch"], found["numpy"], "")
    if not cuda and any(name.startswith(("nvidia-", "cuda-")) for name in found):
        return versions._replace(result="not tried: needs CUDA packages")
    environment.install(*required, *extra, wheel)
    return versions._replace(result=run_tests(environment))


def run_tests(environment: Environment) -> str:
    """Smoke tests and ``TESTS`` against the installed wheel, away from the checkout."""
    away = WORK / "matrix-tests"
    shutil.rmtree(away, ignore_errors=True)
    shutil.copytree(ROOT / "tests", away / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "csrc", away / "csrc")
    shutil.copy(ROOT / "pyproject.toml", away)
    results = []
    pytest = [environment.python, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    smoke = ["--pyargs", "gioada_fast.smoke"]
    for arguments in (smoke, [*TESTS, *SELECTION]):
        variables = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        try:
            output = run([*pytest, *arguments], cwd=away, env=variables)
        except ReleaseError as error:
            lines = str(error).strip().splitlines()
            print(error, flush=True)
            return f"FAILED: {lines[-1].strip('= ')}"
        results.append(output.strip().splitlines()[-1].strip("= "))
    return "; ".join(results)


def script() -> int:
    """Test all combinations, print the table and write it to build/release/matrix.md."""
    parser = argparse.ArgumentParser(prog="python -m release.matrix", description=__doc__)
    parser.add_argument("--python", nargs="+", default=PYTHONS, metavar="VERSION")
    parser.add_argument(
        "--torch", nargs="+", metavar="VERSION", help="such as 2.11.*; newest: without a bound"
    )
    parser.add_argument("--numpy", nargs="+", default=NUMPYS, metavar="VERSION")
    parser.add_argument(
        "--cuda-packages", action="store_true", help="also install torch that needs them"
    )
    options = parser.parse_args()
    for name in options.python:
        if not re.fullmatch(r"3\.\d+", name):
            raise ReleaseError(f"--python: {name!r} is no version such as 3.12")
    for flag in ("torch", "numpy"):
        for name in getattr(options, flag) or ():
            if name != "newest" and not re.fullmatch(r"[<>=!~]*\d[\w.*+]*", name):
                raise ReleaseError(f"--{flag}: {name!r} is no version such as 2.11.*")
    torches = default_torches()
    if options.torch:
        torches = ["" if name == "newest" else f"=={name}" for name in options.torch]
    WORK.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for version, python in pythons(options.python):
        wheel = build_wheel(python)
        for torch in torches:
            for numpy in options.numpy:
                start = time.monotonic()
                row = test(python, version, wheel, torch, numpy, options.cuda_packages)
                if row[:3] not in [other[:3] for other in rows]:
                    rows.append(row)
                print(f"{' | '.join(row)} ({time.monotonic() - start:.0f} s)", flush=True)
    shutil.rmtree(WORK / "matrix-environment", ignore_errors=True)
    if not rows:
        raise ReleaseError(f"none of {', '.join(options.python)} on PATH: nothing was tested")
    lines = ["| Python | torch | NumPy | result |", "|---|---|---|---|"]
    table = "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
    (WORK / "matrix.md").write_text(table + "\n", encoding="utf-8")
    print(f"\n{table}\n{WORK / 'matrix.md'}")
    return int(any(row.failed for row in rows))


if __name__ == "__main__":
    main(script)
