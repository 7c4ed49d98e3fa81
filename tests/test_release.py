"""The number of the version, the variables of the environment, and the scripts of a release."""

import re
import sys
from pathlib import Path
from unittest import mock

import pytest
import yaml

import gioada_fast
from release import environments, matrix, wheel

ROOT = Path(__file__).resolve().parents[1]


def test_versions_agree():
    """Package, citation and change log have one number and one date."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    log = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    heading = re.search(r"(?m)^## (.*)$", log)[1]
    assert re.fullmatch(r"\d+\.\d+\.\d+", gioada_fast.__version__)
    assert str(citation["version"]) == gioada_fast.__version__
    assert heading == f"{gioada_fast.__version__}, {citation['date-released']}"


def variables() -> set[str]:
    """``GIOADA_*`` that Python names in quotes, C++ reads, or CMake has as options."""
    found = set()
    python = [ROOT / "setup.py"]
    for folder in ("gioada_fast", "release", "tests", "benchmarks", "examples"):
        python += (ROOT / folder).rglob("*.py")
    for path in python:
        found |= set(re.findall(r"[\"'](GIOADA_[A-Z_]+)", path.read_text(encoding="utf-8")))
    for path in (ROOT / "csrc").rglob("*.*"):
        found |= set(re.findall(r'getenv\("(GIOADA_[A-Z_]+)', path.read_text(encoding="utf-8")))
    cmake = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    return found | set(re.findall(r"set\((GIOADA_[A-Z_]+) .* CACHE", cmake))


def test_every_variable_is_documented():
    page = (ROOT / "docs/install.md").read_text(encoding="utf-8")
    assert set(re.findall(r"GIOADA_[A-Z_]+", page)) == variables()


def test_wheels_share_the_openmp_runtime_of_torch():
    """Continuous integration repairs wheels as ``make wheel`` does."""
    assert f"auditwheel repair --exclude {wheel.OPENMP} " in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        (wheel, ["--output", __file__], "--output: .*test_release.py is not a folder"),
        (wheel, ["--cuda"], "--cuda: no nvcc on PATH"),
        (matrix, ["--python", "three"], "--python: 'three' is no version such as 3.12"),
        (matrix, ["--torch", "new"], "--torch: 'new' is no version such as 2.11"),
        (matrix, ["--numpy", "1.26; x"], "--numpy: '1.26; x' is no version"),
        (matrix, ["--python", "3.99"], "none of 3.99 on PATH: nothing was tested"),
    ],
)
def test_bad_arguments(script, arguments, message, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(matrix, "WORK", tmp_path)
    monkeypatch.setattr(sys, "argv", ["release", *arguments])
    with pytest.raises(environments.ReleaseError, match=message):
        script.script()


def test_errors_are_one_message(capsys):
    """A command that fails is named, with the end of its output."""
    command = [sys.executable, "-c", "print('why'); raise SystemExit(3)"]
    with pytest.raises(SystemExit) as stop:
        environments.main(lambda: environments.run(command))
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.startswith("error: ") and error.endswith("failed with exit status 3:\nwhy\n")


def test_archives_must_be_complete():
    with pytest.raises(environments.ReleaseError, match=r"lacks b \(1 in all\); also has c \(1"):
        wheel.report_difference(Path("x.whl"), {"a", "c"}, {"a", "b"}, "MANIFEST.in")


def test_no_checkout_no_release(tmp_path):
    with (
        mock.patch.object(environments, "ROOT", tmp_path),
        pytest.raises(environments.ReleaseError, match="no git checkout"),
    ):
        environments.tracked_files()
