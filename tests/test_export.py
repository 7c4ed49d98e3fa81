"""``export`` writes networks that other programs run without this package."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from gioada_fast.engine.run_folder import RunFolder

from .commands import command
from .miniature import flags, write_street_scenes


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with street scenes and a finished run of a few updates."""
    folder = tmp_path_factory.mktemp("trained")
    write_street_scenes(folder / "scenes")
    settings = {
        "schedule.source_only_steps": 1,
        "schedule.adaptation_steps": 1,
        "schedule.control": "true",
    }
    done = command("train", *flags(folder / "scenes", folder / "runs", **settings), cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def export(folder, *arguments):
    return command("export", *arguments, cwd=folder)


def test_x(trained):
    done = export(trained, "runs/mini", "--format=onnx", "--output=a.onnx")
    print(done.stdout, done.stderr)
    done = export(trained, "runs/mini", "--format=pt2", "--output=a.pt2", "--predict=logits", "--input=float")
    print(done.stdout, done.stderr)
    done = export(trained, "runs/mini", "--format=onnx", "--output=t.onnx", "--weights=translation")
    print(done.stdout, done.stderr)
    done = export(trained, "runs/mini", "--format=pt2", "--output=t.pt2", "--weights=translation", "--input=float")
    print(done.stdout, done.stderr)
    done = export(trained, "runs/mini", "--format=folder", "--output=hub")
    print(done.stdout, done.stderr)
    print((trained/"hub/README.md").read_text())
    assert 0
