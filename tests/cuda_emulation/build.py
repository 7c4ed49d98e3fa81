"""Compiles CUDA kernels with g++ against this folder's stand-in for the CUDA runtime."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

HERE = Path(__file__).resolve().parent
CSRC = HERE.parents[1] / "csrc"
KERNELS = sorted(CSRC.glob("cuda/*.cu"))
MODULE = HERE / "module.cpp"

# _FORTIFY_SOURCE forbids jumps to another stack.
FLAGS = ["-std=c++17", "-fPIC", "-fvisibility=hidden", "-w", "-U_FORTIFY_SOURCE"]
KERNEL_FLAGS = ["-O1", "-g1", "-fsanitize=thread", "-include", "cuda_runtime.h", "-x", "c++"]


def require_compiler() -> None:
    """Skip the test, with the reason, if this machine cannot build the emulation."""
    if sys.platform != "linux":
        pytest.skip("no emulation of CUDA kernels: needs Linux")
    for tool in ("g++", "addr2line"):
        if shutil.which(tool) is None:
            pytest.skip(f"no emulation of CUDA kernels: {tool} not found")
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        pytest.skip("no emulation of CUDA kernels: Python.h not found")
    pytest.importorskip("pybind11", reason="no emulation of CUDA kernels: pybind11 not found")


def translate(text: str) -> str:
    """CUDA source as C++: rewrites ``__shared__`` and launches. Lines keep their numbers."""

    def shared(match: re.Match) -> str:
        dynamic, element, variables = match.groups()
        declared = []
        for name, dims in re.findall(r"(\w+)((?:\[[^\]]*\])*)\s*(?:,|$)", variables):
            if dynamic:
                rewritten = f'{element}* {name} = ::emulation::dynamic_shared<{element}>("{name}");'
            else:
                rewritten = f'auto& {name} = ::emulation::shared<{element}{dims}>("{name}");'
            declared.append(rewritten)
        return " ".join(declared) + "\n" * match[0].count("\n")

    def launch(match: re.Match) -> str:
        kernel, grid, arguments = (" ".join(group.split()) for group in match.groups())
        call = f'::emulation::launch("{kernel}", [=] {{ {kernel}{arguments}; }}, {grid});'
        return call + "\n" * match[0].count("\n")

    text = re.sub(r"(extern\s+)?__shared__\s+([\w:<>]+)\s+([^;]*);", shared, text)
    pattern = r"(\w+(?:<[^;{}?]*?>)?)\s*<<<([^;]*?)>>>\s*(\(.*?\));"
    return re.sub(pattern, launch, text, flags=re.DOTALL)


def build(
    cache: Path,
    kernels: Sequence[Path] = KERNELS,
    module: Path | None = MODULE,
    edit: Callable[[str, str], str] = lambda name, text: text,
) -> Path:
    """A shared library of CUDA kernels and the emulator, built unless it is in the cache.

    Args:
        cache: folder for this library; older versions are deleted.
        kernels: CUDA files; they may include the headers of ``csrc``.
        module: C++ file with Python bindings, or None.
        edit: changes the text of a file of kernels or of ``csrc``, given its name.

    Raises:
        RuntimeError: g++ fails; the message is its output.
    """
    sources = [*kernels, *CSRC.glob("*.*"), *CSRC.glob("cuda/*.h")]
    texts = {path: edit(path.name, path.read_text()) for path in sources}
    own = [HERE / "emulator.cpp", *([module] if module else [])]
    state = [texts, *(path.read_text() for path in [*own, HERE / "cuda_runtime.h"]), FLAGS]
    digest = hashlib.sha256(repr([*state, KERNEL_FLAGS]).encode()).hexdigest()[:16]
    library = cache / digest / "library.so"
    with FileLock(f"{cache}.lock"):  # tests may run in several processes
        if not library.exists():
            shutil.rmtree(cache, ignore_errors=True)
            _compile(library, texts, kernels, own)
    return library


def _compile(
    library: Path, texts: dict[Path, str], kernels: Sequence[Path], own: Sequence[Path]
) -> None:
    tree = library.parent / "csrc"
    (tree / "cuda").mkdir(parents=True)
    for path, text in texts.items():
        host = path.parent == CSRC
        (tree if host else tree / "cuda").joinpath(path.name).write_text(
            text if host else translate(text)
        )
    import pybind11

    includes = [HERE, tree, sysconfig.get_path("include"), pybind11.get_include()]
    jobs = [(path, ["-O2"] if path.stem == "emulator" else ["-O0"]) for path in own]
    jobs += [(tree / "cuda" / path.name, KERNEL_FLAGS) for path in kernels]
    jobs.sort(key=lambda job: job[0].stat().st_size, reverse=True)  # the longest first

    def compile_(job: tuple[Path, list[str]]) -> Path:
        path, flags = job
        target = library.parent / f"{path.name}.o"
        _run("g++", *FLAGS, *(f"-I{i}" for i in includes), *flags, "-c", path, "-o", target)
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_, jobs))
    unfinished = library.with_suffix(".tmp")
    _run("g++", "-shared", *objects, "-ldl", "-o", unfinished)
    unfinished.rename(library)


def _run(*command: object) -> None:
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{result.stderr[:4000]}")
