"""Builds from the source archive: with the extension, or without it if there is no compiler."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from release.environments import tracked_files
from release.wheel import check_sdist

ROOT = Path(__file__).resolve().parents[1]

# Uses the package that was just built, not a checkout that is installed as editable.
USE = """
import sys
sys.meta_path = [f for f in sys.meta_path if "__editable__" not in getattr(f, "__module__", "")]
import torch, gioada_fast
from gioada_fast import ops
assert gioada_fast.__file__.startswith(sys.argv[1]), gioada_fast.__file__
labels = torch.zeros(1, 9, 9, dtype=torch.int64)
loss = ops.upsample_cross_entropy(torch.zeros(1, 4, 3, 3), labels)
print(ops.backends()["cpp"].live, round(loss.item(), 3))
"""


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """The source archive, unpacked."""
    pytest.importorskip("pybind11")
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout to compare with")
    folder = tmp_path_factory.mktemp("sdist")
    for name in tracked_files():
        (folder / "checkout" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / "checkout" / name)
    code = f"from setuptools import build_meta; build_meta.build_sdist({str(folder)!r})"
    command = [sys.executable, "-c", code]
    subprocess.run(command, cwd=folder / "checkout", check=True, capture_output=True)
    (archive,) = folder.glob("*.tar.gz")
    check_sdist(archive)
    shutil.unpack_archive(archive, folder)
    return folder / archive.name.removesuffix(".tar.gz")


def build_and_use(tmp_path: Path, sdist: Path, **environment: str) -> tuple[list[str], str, str]:
    """Files of the wheel, output of the build, and output of ``USE`` with that wheel."""
    source = shutil.copytree(sdist, tmp_path / "source")
    # The build must not need torch: puts a torch that cannot be imported first on the path.
    broken = tmp_path / "broken" / "torch"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('the build imports torch')\n")

    options = ["--no-build-isolation", "--no-deps", "-v", "--wheel-dir", str(tmp_path)]
    build = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, str(source)],
        env={**os.environ, "PYTHONPATH": str(broken.parent), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert build.returncode == 0, build.stdout + build.stderr
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
        files = archive.namelist()
    use = subprocess.run(
        [sys.executable, "-c", USE, str(installed)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed), "GIOADA_BACKEND": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert use.returncode == 0, use.stderr
    return files, build.stdout + build.stderr, use.stdout + use.stderr


def test_without_compiler(tmp_path, sdist):
    """The wheel has every file of the package, which runs on plain PyTorch with one warning."""
    environment = {"CXX": "/nonexistent/c++", "GIOADA_BUILD_CUDA": "auto"}
    files, build, use = build_and_use(tmp_path, sdist, **environment)
    package = {name for name in tracked_files() if name.startswith("gioada_fast/")}
    assert {name for name in files if ".dist-info/" not in name} == package
    assert "warning: gioada_fast._C is not built" in build
    assert use.count("runs on plain PyTorch") == 1
    assert "False 1.386" in use


@pytest.mark.skipif(not (shutil.which("c++") or os.environ.get("CXX")), reason="no C++ compiler")
def test_with_compiler(tmp_path, sdist):
    """The wheel contains the extension, built without torch, and uses it without warnings."""
    files, _, use = build_and_use(tmp_path, sdist, GIOADA_BUILD_CUDA="0", GIOADA_REQUIRE_NATIVE="1")
    assert sum("gioada_fast/_C." in name for name in files) == 1
    assert not any(name.startswith(("tests", "benchmarks", "csrc")) for name in files)
    assert use.strip() == "True 1.386"
