"""Builds the extension module ``gioada_fast._C`` with CMake; metadata is in pyproject.toml.

Environment:
    GIOADA_BUILD_CUDA:  ``auto`` (default: where nvcc is found), ``0`` or ``1``.
    GIOADA_CUDA_ARCHS:  architectures of the CUDA kernels, default ``80;90``.
    GIOADA_REQUIRE_NATIVE: ``1`` makes a missing compiler an error. Without it, a machine that has
        no C++ compiler gets the package without ``_C``; it then runs on plain PyTorch.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


def _tool(name: str) -> str:
    """Path of ``cmake`` or ``ninja``: the pip package of the build environment, or the system's."""
    beside_python = Path(sys.executable).with_name(name)
    found = shutil.which(name) or (str(beside_python) if beside_python.exists() else None)
    if found is None:
        raise FileNotFoundError(f"{name} not found")
    return found


class NoCompiler(Exception):
    """CMake, ninja or a working C++17 compiler is missing."""


class CMakeBuild(build_ext):
    """Runs CMake for the one extension; without a compiler, the package stays pure Python."""

    def build_extension(self, ext: Extension) -> None:
        """Configure and build in ``build/``, which git ignores, straight to the module's place."""
        # Relative to the project, and only then absolute: an editable install builds in place.
        output = Path(self.get_ext_fullpath(ext.name)).resolve()
        build_dir = ROOT / "build" / f"cmake-{sys.implementation.cache_tag}"
        try:
            self._configure(build_dir, output)
        except NoCompiler as error:
            required = os.environ.get("GIOADA_REQUIRE_NATIVE") == "1"
            if required or os.environ.get("GIOADA_BUILD_CUDA") == "1":
                raise SystemExit(f"error: gioada_fast._C cannot be built: {error}") from error
            print(
                f"\nwarning: gioada_fast._C is not built: {error}.\n"
                "The package will run on plain PyTorch, slower. "
                "Install a C++17 compiler and install again for the fast path.\n",
                file=sys.stderr,
            )
        else:
            subprocess.run([_tool("cmake"), "--build", str(build_dir)], check=True)

    def _configure(self, build_dir: Path, output: Path) -> None:
        try:
            import pybind11

            defines = {
                "CMAKE_MAKE_PROGRAM": _tool("ninja"),
                "Python_EXECUTABLE": sys.executable,
                "pybind11_DIR": pybind11.get_cmake_dir(),
                "GIOADA_OUTPUT": output,
                "GIOADA_BUILD_CUDA": os.environ.get("GIOADA_BUILD_CUDA", "auto"),
                "GIOADA_CUDA_ARCHS": os.environ.get("GIOADA_CUDA_ARCHS", "80;90"),
            }
            # Fresh: the cache of another build environment names tools that are gone.
            command = [_tool("cmake"), "--fresh", "-S", str(ROOT), "-B", str(build_dir), "-GNinja"]
            subprocess.run([*command, *(f"-D{k}={v}" for k, v in defines.items())], check=True)
        except (ImportError, OSError) as error:
            raise NoCompiler(str(error)) from error
        except subprocess.CalledProcessError as error:
            raise NoCompiler(
                "CMake found no working C++17 compiler (its words are above)"
            ) from error

    def get_outputs(self) -> list[str]:
        """Only what was built, so that a wheel without ``_C`` is a whole wheel."""
        return [path for path in super().get_outputs() if os.path.exists(path)]

    def get_output_mapping(self) -> dict[str, str]:
        """As ``get_outputs``, for editable installs."""
        return {k: v for k, v in super().get_output_mapping().items() if os.path.exists(k)}


native = Extension(
    "gioada_fast._C",
    sources=sorted(str(p.relative_to(ROOT)) for p in (ROOT / "csrc").rglob("*.c*")),
    depends=[
        "CMakeLists.txt",
        *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "csrc").rglob("*.h")),
    ],
    optional=True,
)

setup(ext_modules=[native], cmdclass={"build_ext": CMakeBuild})
