"""Time and memory from the command to the first update, on a source of many small frames.

The first run lists the files and counts the pixels of each class; the second run finds the counts
in the cache. ``--start-frames`` sets the number of frames.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks import harness
from benchmarks.harness import records

SIZE = (96, 128)
CLASSES = ("sky", "building", "road", "car")


def _write_frames(root: Path, count: int) -> None:
    """A folder of street-like frames with labels and 16-bit depth."""
    for kind in ("images", "labels", "depth"):
        (root / kind).mkdir(parents=True)
    h, w = SIZE
    rows = np.arange(h)
    metres = np.where(rows > h // 2, 30 * h / np.maximum(1, rows - h // 2), 60000).clip(0, 60000)
    for index in range(count):
        rng = np.random.default_rng(index)
        labels = np.zeros(SIZE, np.uint8)
        labels[rng.integers(20, 45) :] = 1
        labels[h // 2 :] = 2
        x = rng.integers(0, w - 30)
        labels[50:70, x : x + 30] = 3
        image = np.array([[150, 180, 230], [120, 90, 80], [90, 90, 90], [170, 40, 40]], np.float32)
        image = image[labels] + rng.normal(0, 6, (*SIZE, 1))
        name = f"{index:06d}.png"
        for kind, array in (
            ("images", image.clip(0, 255).astype(np.uint8)),
            ("labels", labels),
            ("depth", np.repeat(metres[:, None], w, 1).astype(np.uint16)),
        ):
            cv2.imwrite(str(root / kind / name), array)


def _first_update(root: Path, name: str) -> dict[str, float]:
    """Seconds, and MiB of the training process, until the first update is logged."""
    settings = {
        "name": name,
        "runs_dir": root / "runs",
        "data.source.name": "folder",
        "data.source.root": root,
        "data.source.labels": "labels/*",
        "data.source.depth": "depth/*",
        "data.source.classes": root / "classes.yaml",
        "data.target.name": "folder",
        "data.target.root": root,
        "data.target.images": "images/00000*",
        "data.height": SIZE[0],
        "data.width": SIZE[1],
        "model.width": 0.125,
        "schedule.source_only_steps": 1,
        "schedule.adaptation_steps": 0,
        "schedule.log_every": 1,
    }
    flags = [f"--{key}={value}" for key, value in settings.items()]
    metrics = root / "runs" / name / "metrics.jsonl"
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "gioada_fast.train", *flags],
        env={**os.environ, "HOME": str(root)},
        stdout=subprocess.DEVNULL,
    )
    while not (metrics.exists() and metrics.stat().st_size):
        assert process.poll() is None, "the run ended before its first update"
        time.sleep(0.02)
    seconds = time.perf_counter() - start
    status = Path(f"/proc/{process.pid}/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    assert process.wait() == 0
    return {"seconds": seconds, "mib": int(peak.split()[1]) / 1024}


def bench_start(device, tmp_path, pytestconfig):
    if device != "cpu":
        pytest.skip("listing and counting run on the CPU")
    count = pytestconfig.getoption("--start-frames") // (10 if harness.quick else 1)
    _write_frames(tmp_path, count)
    lines = [f"{index}: {name}\n" for index, name in enumerate(CLASSES)]
    (tmp_path / "classes.yaml").write_text("".join(lines))
    # the first run also fills the page cache and compiles Python's files
    _first_update(tmp_path, "warm")
    kept = [file for file in (tmp_path / ".cache").rglob("class_counts/*") if file.is_file()]
    assert kept
    for file in kept:
        file.unlink()
    counted, kept = _first_update(tmp_path, "counted"), _first_update(tmp_path, "kept")
    records.append(
        {
            "op": "start",
            "shape": f"{count} frames of {SIZE[1]}x{SIZE[0]}",
            "cores": len(os.sched_getaffinity(0)),
            "first_update": {"counted": counted, "kept": kept},
        }
    )
    assert kept["seconds"] < counted["seconds"] + 2
