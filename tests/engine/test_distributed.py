"""Two processes on one machine (gloo), started by ``torchrun``."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gioada_fast.engine.checkpoint import load_checkpoint

from ..commands import command
from ..miniature import flags, write_street_scenes
from .test_step import assert_same, gradients, make_trained, unequal_batch

ROOT = Path(__file__).parents[2]
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


def torchrun(*arguments: object) -> subprocess.Popen:
    return subprocess.Popen(
        [*TORCHRUN, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen) -> str:
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    return output


@pytest.mark.parametrize("how", ["plain", "accumulate", "micro_batch"])
def test_two_processes_get_the_gradient_of_one_process_with_both_batches(tmp_path, how):
    """Even if the frames differ in the number of labelled pixels and of pixels with depth."""
    finish(torchrun("-m", "tests.engine.two_processes", tmp_path / "found.pt", how))
    found = torch.load(tmp_path / "found.pt")
    batch = unequal_batch(labelled=True)
    if how == "accumulate":
        batch = batch.map(lambda x: torch.cat([x, x.flip(-1)]))
    elif how == "micro_batch":  # only the first of a process's two frames is translated
        batch = batch.map(lambda x: torch.stack([x, x.flip(-1)], 1).flatten(0, 1))
    expected = gradients(make_trained(keep_half_untranslated=how == "micro_batch"), [batch])
    assert_same((found["losses"], found["gradients"]), expected)


STEPS = {
    "schedule.source_only_steps": 4,
    "schedule.adaptation_steps": 4,
    "schedule.control": "true",
    "schedule.batch_size": 1,
    "schedule.log_every": 1,
    "schedule.keep_best": "entropy",
    "optimiser.task": "sgd",
    "optimiser.task_lr": 0.01,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with the scenes and a run of two processes, ``runs/mini``."""
    root = tmp_path_factory.mktemp("two")
    write_street_scenes(root / "scenes")
    command_line = flags(root / "scenes", root / "runs", **STEPS)
    output = finish(torchrun("-m", "gioada_fast.train", *command_line))
    assert output.count("report: ") == 1  # only one of them writes
    return root


def records(run: Path, kind: str) -> list[dict]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if f"{kind}" in " ".join(line)]


def test_two_processes_train_like_one_that_accumulates(trained):
    """Both see the same pairs in each update, so the losses of the first updates agree."""
    settings = {**STEPS, "name": "one", "schedule.accumulate": 2}
    done = command("train", *flags(trained / "scenes", trained / "runs", **settings), cwd=trained)
    assert done.returncode == 0, done.stderr
    two, one = (records(trained / "runs" / name, "loss/") for name in ("mini", "one"))
    assert len(two) == len(one) == 12
    for ours, theirs in zip(two[:4], one[:4], strict=True):
        assert ours["loss/total"] == pytest.approx(theirs["loss/total"], rel=1e-3)
    scores = [records(trained / "runs" / name, "eval/miou")[0] for name in ("mini", "one")]
    assert scores[0]["eval/miou"] == pytest.approx(scores[1]["eval/miou"], abs=0.02)
    values = [
        records(trained / "runs" / name, "label_free/entropy")[0]["label_free/entropy"]
        for name in ("mini", "one")
    ]
    assert values[0] == pytest.approx(values[1], rel=0.01)  # of all images in both


def test_two_processes_stop_together_and_resume_to_the_same_weights(trained):
    settings = {**STEPS, "name": "stopped", "schedule.adaptation_steps": 4}
    run = trained / "runs" / "stopped"
    process = torchrun(
        "-m", "gioada_fast.train", *flags(trained / "scenes", trained / "runs", **settings)
    )
    deadline = time.monotonic() + 120
    while not (run / "metrics.jsonl").exists() or len(records(run, "loss/")) < 5:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # to every process, as a terminal does
    output = process.communicate(timeout=120)[0]
    saved = load_checkpoint(run / "checkpoints" / "last.pt")
    assert saved["phase"] != "source_only", output  # usually in the control
    assert f"stopped after update {saved['step']} ({saved['phase']})" in output, output
    finish(torchrun("-m", "gioada_fast.train", "--resume", run))
    for file in ("task.safetensors", "task_control.safetensors", "task_best.safetensors"):
        ours, theirs = (load_file(trained / "runs" / name / file) for name in ("mini", run))
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_resuming_needs_the_same_number_of_processes(trained):
    done = command("train", "--resume", trained / "runs" / "mini", cwd=trained)
    assert done.returncode == 2
    assert "2 processes, now there are 1" in done.stderr


def test_bad_input_ends_every_process(trained):
    process = torchrun(
        "-m", "gioada_fast.train", *flags(trained / "scenes", trained / "runs", **STEPS)
    )
    output = process.communicate(timeout=120)[0]
    assert process.returncode != 0 and "exists already and is not overwritten" in output


def test_if_a_process_dies_the_other_ends_within_a_minute(trained):
    settings = {**STEPS, "name": "orphan", "schedule.source_only_steps": 2000}
    run = trained / "runs" / "orphan"
    process = torchrun(
        "-m", "gioada_fast.train", *flags(trained / "scenes", trained / "runs", **settings)
    )
    deadline = time.monotonic() + 120
    while not (run / "metrics.jsonl").exists() or len(records(run, "loss/")) < 2:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.01)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    output = process.communicate(timeout=60)[0]
    assert process.returncode != 0
    assert "stops because another process of the run ended" in output, output
    assert "continue from the last checkpoint" in output
