"""Runs that are killed at random moments and resumed: ``pytest tests/engine/test_kills.py``.

Minutes; the default suite leaves it out.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from gioada_fast.engine.checkpoint import load_checkpoint

from ..miniature import flags, write_street_scenes
from .test_trainer import assert_same_run, finish

KILLS = 30
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
SETTINGS = {
    "schedule.source_only_steps": 40,
    "schedule.adaptation_steps": 40,
    "schedule.control": "true",
    "schedule.batch_size": 1,
    "schedule.log_every": 1,
    "schedule.keep_best": "entropy",
    "adaptation.self_training": "true",
    "data.workers": 1,
}


@pytest.mark.kills
def test_runs_that_are_killed_at_random_moments_end_equal_to_the_bit(tmp_path):
    seed = int(os.environ.get("GIOADA_KILLS_SEED", time.time()))
    rng, kills, finished = random.Random(seed), [], 0
    write_street_scenes(tmp_path / "scenes")
    start = time.monotonic()
    finish(*flags(tmp_path / "scenes", tmp_path, **SETTINGS, name="unbroken"))
    longest = 2 * (time.monotonic() - start) + 10  # with the imports of a new process
    run = tmp_path / "killed"
    while len(kills) < KILLS:
        arguments = ["--resume", str(run)]
        if not (run / "config.yaml").exists():
            shutil.rmtree(run, ignore_errors=True)  # killed before it had settings
            arguments = flags(tmp_path / "scenes", tmp_path, **SETTINGS, name=run.name)
        process = subprocess.Popen(
            [sys.executable, "-m", "gioada_fast.train", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        kind, moment = rng.choice(SIGNALS), rng.uniform(0, longest)
        context = f"seed {seed}, kill {len(kills)}: {kind.name} after {moment:.2f} s"
        try:
            output = process.communicate(timeout=moment)[0]
        except subprocess.TimeoutExpired:
            process.send_signal(kind)
            output = process.communicate(timeout=120)[0]
            kills.append(context)
        else:
            assert process.returncode == 0, f"{context}: {output}"
        if process.returncode == 0:
            assert_same_run(run, tmp_path / "unbroken")
            shutil.rmtree(run)
            finished += 1
        elif kind != signal.SIGKILL and "Traceback" in output:
            # Python's own, while it still imports; the run itself reports signals in one line
            assert "gioada_fast/engine" not in output, f"{context}: {output}"
    if (run / "config.yaml").exists():
        finish("--resume", run)
        assert_same_run(run, tmp_path / "unbroken")
        finished += 1
    assert finished, f"seed {seed}: no run was finished between {KILLS} kills"
    assert load_checkpoint(tmp_path / "unbroken" / "checkpoints" / "last.pt")["step"] == 80
    print(f"{KILLS} kills, {finished} runs equal to the bit; seed {seed}")
