"""Runs command lines in tests."""

import contextlib
import importlib
import io
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from gioada_fast import cli


def command(module: str, *arguments: object, cwd: Path) -> SimpleNamespace:
    """Run ``python -m gioada_fast.<module> <arguments>`` in a folder, but inside this process.

    This saves the seconds of importing torch. Tests that kill a run start a process for it, see
    ``engine/test_trainer.py``.

    Returns:
        returncode, stdout and stderr.
    """
    found = importlib.import_module(f"gioada_fast.{module}")
    if hasattr(found, "__path__"):
        found = importlib.import_module(f"gioada_fast.{module}.__main__")
    typed = [found.__file__, *map(str, arguments)]
    stdout, stderr, status = io.StringIO(), io.StringIO(), 0
    before = os.getcwd()
    os.chdir(cwd)
    try:
        with (
            contextlib.redirect_stdout(stdout),
            contextlib.redirect_stderr(stderr),
            mock.patch.object(sys, "argv", typed),
        ):
            cli.run(found.main)
    except SystemExit as stop:
        status = stop.code or 0
    finally:
        os.chdir(before)
    return SimpleNamespace(returncode=status, stdout=stdout.getvalue(), stderr=stderr.getvalue())
