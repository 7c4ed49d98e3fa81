"""Virtual environments and commands of the release scripts."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "release"
"""Everything that is not the result; git ignores it."""
CONSTRAINTS = ROOT / "constraints.txt"


class ReleaseError(Exception):
    """A release cannot be built or does not pass its checks: what, where, and what to do."""


def main(script: Callable[[], int]) -> None:
    """Run a script; an error is one message and exit status 2."""
    try:
        sys.exit(script())
    except ReleaseError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def run(command: Sequence[object], **options: object) -> str:
    """Standard output of a command.

    Raises:
        ReleaseError: it failed; the message has the end of its output.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
        )
    except OSError as error:
        raise ReleaseError(f"{words[0]} cannot be run: {error}") from error
    if done.returncode:
        end = "\n".join(done.stdout.splitlines()[-30:])
        raise ReleaseError(f"{' '.join(words)}\nfailed with exit status {done.returncode}:\n{end}")
    return done.stdout


class Environment:
    """A new virtual environment in a folder; an environment that is there is removed."""

    def __init__(self, folder: Path, python: str = sys.executable):
        shutil.rmtree(folder, ignore_errors=True)
        run([python, "-m", "venv", folder])
        self.folder = folder
        self.bin = folder / "bin"
        self.python = self.bin / "python"

    def install(self, *arguments: object) -> None:
        """``pip install`` with these arguments."""
        run([self.python, "-m", "pip", "install", "--quiet", *arguments], cwd=self.folder)

    def run_isolated(self, arguments: Sequence[object], cwd: Path) -> str:
        """Run its Python as on a machine without compiler, CUDA and checkout.

        PATH has the environment's own programs alone, and no variable of this process that names
        a compiler, CUDA, Python modules or a setting of the package is passed on.
        """
        dropped = ("GIOADA_", "PYTHON", "CUDA", "NVCC", "LD_", "VIRTUAL_ENV")
        variables = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
        for name in ("CC", "CXX"):
            variables.pop(name, None)
        variables |= {"PATH": str(self.bin), "CUDA_VISIBLE_DEVICES": ""}
        cwd.mkdir(parents=True, exist_ok=True)
        return run([self.python, *arguments], cwd=cwd, env=variables)

    def versions(self) -> dict[str, str]:
        """Installed packages and their versions."""
        lines = run([self.python, "-m", "pip", "list", "--format=freeze"]).splitlines()
        return dict(line.split("==", 1) for line in lines if "==" in line)


def tracked_files() -> list[str]:
    """The files of the repository, relative to its root, as git knows them.

    Raises:
        ReleaseError: this is no checkout.
    """
    if not (ROOT / ".git").exists():
        raise ReleaseError(f"{ROOT}: no git checkout: a release has the files that git tracks")
    return run(["git", "-C", ROOT, "ls-files", "-z"]).strip("\0").split("\0")
