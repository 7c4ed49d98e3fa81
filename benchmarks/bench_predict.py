"""Peak memory and time of ``predict`` against the size of the image, with a tiny network.

Every case is a process of its own; memory is what predicting adds to a process that has imported
the package. The time includes reading the image and writing four pictures.
"""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from benchmarks import harness
from benchmarks.harness import records
from gioada_fast.config import Config
from gioada_fast.engine.networks import save_task
from gioada_fast.models import TaskNet

SIZES = ((1000, 750), (2000, 1500), (4000, 3000))
"""Width and height."""
LARGEST = 8000, 6000
"""Takes minutes: with ``--all``."""
MODES = {"whole": (), "windows": ("--scale=own", "--window=1024", "--stride=768")}
MAX_BYTES_PER_PIXEL = 20
"""The image itself has 3, its predictions 4 more, and the picture that is written up to 9."""

_CHILD = """
import sys, time
from resource import RUSAGE_SELF, getrusage
from gioada_fast.predict.__main__ import main
peak = lambda: getrusage(RUSAGE_SELF).ru_maxrss / 1024
before, start = peak(), time.perf_counter()
main(sys.argv[1:])
print(time.perf_counter() - start, peak() - before)
"""


def _predict(model: Path, image: Path, flags: tuple[str, ...]) -> dict[str, float]:
    """Seconds, and MiB that predicting an image adds to a process."""
    arguments = [model, image, f"--output={image.parent / 'out'}", "--device=cpu", *flags]
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, mib = map(float, done.stdout.splitlines()[-1].split())
    return {"seconds": seconds, "mib": mib}


def bench_predict(device, tmp_path, pytestconfig):
    if device != "cpu":
        pytest.skip("measures the memory of the host")
    config = Config()
    config.data.height, config.data.width, config.model.width = 180, 240, 0.125
    torch.manual_seed(0)
    save_task(tmp_path / "task.safetensors", TaskNet(11, "vgg16", 0.125, "group"), config)
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    added = []
    sizes = SIZES[:2] if harness.quick else SIZES
    if pytestconfig.getoption("all_passes"):
        sizes = (*SIZES, LARGEST)
    for size in sizes:
        image = tmp_path / f"{size[0]}.jpg"
        cv2.imwrite(str(image), cv2.resize(noise, size, interpolation=cv2.INTER_CUBIC))
        runs = {
            name: _predict(tmp_path / "task.safetensors", image, flags)
            for name, flags in MODES.items()
        }
        records.append({"op": "predict", "shape": f"{size[0]}x{size[1]}", "predictions": runs})
        added.append({name: run["mib"] for name, run in runs.items()})
    pixels = (sizes[-1][0] * sizes[-1][1] - sizes[-2][0] * sizes[-2][1]) / 2**20
    for name in MODES:
        assert added[-1][name] - added[-2][name] < MAX_BYTES_PER_PIXEL * pixels, name
