"""Resuming, stopping and failing runs; runs that are killed have their own process."""

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from gioada_fast.adaptation import TwoLevelAdaptation
from gioada_fast.config import AdaptationConfig, Config, ModelConfig
from gioada_fast.engine.checkpoint import load_checkpoint
from gioada_fast.engine.run_folder import RunFolder
from gioada_fast.engine.step import Step
from gioada_fast.engine.trainer import LossWindow, Phase, Trainer, build_optimisers
from gioada_fast.errors import NonFiniteLoss

from ..commands import command
from ..miniature import SMALL_MODEL, flags, write_street_scenes
from ..test_adaptation import CLASSES, make_batch

STEPS = {"schedule.source_only_steps": 12, "schedule.adaptation_steps": 12}


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "gioada_fast.train", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(*arguments):
    done = command("train", *arguments, cwd=".")
    assert done.returncode == 0, done.stderr
    return done.stdout


def wait_for_step(run, step, process):
    """Wait until the run has logged ``step``; fails with the run's output if it ends before."""
    log, deadline = run / "metrics.jsonl", time.monotonic() + 120
    while time.monotonic() < deadline:
        if log.exists() and any(
            json.loads(line)["step"] >= step for line in log.read_text().splitlines(True)
            if line.endswith("\n")
        ):  # fmt: skip
            return
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    raise AssertionError(f"no step {step} after two minutes")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """Data, and a run that was never interrupted."""
    folder = tmp_path_factory.mktemp("unbroken")
    write_street_scenes(folder / "scenes")
    finish(*flags(folder / "scenes", folder / "runs", **STEPS, **{"data.workers": 1}))
    return folder


def assert_same_run(run, other):
    for name in ("task", "task_source_only", "translation"):
        ours, theirs = (load_file(r / f"{name}.safetensors") for r in (run, other))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name
    ours, theirs = (load_checkpoint(r / "checkpoints" / "last.pt") for r in (run, other))
    for part in ("networks", "optimisers", "rng", "step"):
        assert_equal(ours[part], theirs[part], part)
    scores = [json.loads((r / "result.json").read_text())["columns"] for r in (run, other)]
    assert scores[0] == scores[1]


def assert_equal(a, b, where):
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_equal(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{where}[{index}]")
    else:
        assert a == b, where


@pytest.mark.parametrize("step", [2, 18])
def test_a_killed_and_resumed_run_equals_the_unbroken_run_bit_by_bit(unbroken, tmp_path, step):
    process = start(*flags(unbroken / "scenes", tmp_path, **STEPS))
    run = tmp_path / "mini"
    wait_for_step(run, step, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (run / "report.html").exists()
    finish("--resume", run)
    assert_same_run(run, unbroken / "runs" / "mini")
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps) and steps.count(12) == 2 and steps[-1] == 24


def test_self_training_resumes_bit_by_bit(unbroken, tmp_path, monkeypatch):
    """The teacher is in the checkpoint; random numbers and sampling depend on the pair only."""
    settings = {
        "adaptation.self_training": "true",
        "adaptation.mask_ratio": 0.7,
        "adaptation.mask_patch": 16,
        "adaptation.mix_classes": "depth",
        "adaptation.mix_order": "depth",
        "adaptation.rare_class_temperature": 0.01,
        "adaptation.lambda_target_depth": 1,
        "adaptation.depth_agreement": "true",
        "data.target.depth": "own",
        "adaptation.input_level": "normals",
        "adaptation.image_discriminator_input": "depth",
        "adaptation.output_level": "product",
        "schedule.micro_batch": 1,
        "model.task_checkpointing": "true",
        "schedule.checkpoint_every": 1000,
    }
    original = Trainer._log_losses

    def interrupted(self, *args):
        if self.step == 6:
            signal.raise_signal(signal.SIGINT)
        return original(self, *args)

    finish(*flags(unbroken / "scenes", tmp_path, **settings))
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_log_losses", interrupted)
        arguments = flags(unbroken / "scenes", tmp_path, **settings, name="stopped")
        assert command("train", *arguments, cwd=tmp_path).returncode == 130
    finish("--resume", tmp_path / "stopped")
    assert_same_run(tmp_path / "stopped", tmp_path / "mini")
    networks = load_checkpoint(tmp_path / "mini" / "checkpoints" / "last.pt")["networks"]
    key = "trunk.features.0.weight"
    assert not torch.equal(networks[f"teacher.{key}"], networks[f"task.{key}"])


def test_ctrl_c_saves_and_says_how_to_resume(unbroken, tmp_path):
    settings = {**STEPS, "data.workers": 1, "schedule.checkpoint_every": 1000}
    process = start(*flags(unbroken / "scenes", tmp_path, **settings))
    run = tmp_path / "mini"
    wait_for_step(run, 14, process)
    # to the whole group, as a terminal does, including the loader's processes
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert f"--resume {run}" in output.replace("\n", "")
    assert load_checkpoint(run / "checkpoints" / "last.pt")["step"] >= 14
    finish("--resume", run)
    assert_same_run(run, unbroken / "runs" / "mini")


@pytest.mark.parametrize("when", ["evaluation", "end of the phase", "panel"])
def test_a_run_resumes_after_a_signal_at_any_time(unbroken, tmp_path, monkeypatch, when):
    """The signal comes after an update; the run stops after the next one and saves."""
    names = {
        "evaluation": "_evaluate",
        "end of the phase": "_check_weights",
        "panel": "_log_losses",
    }
    original = getattr(Trainer, names[when])

    def interrupted(self, *args):
        if self.step == 12:
            signal.raise_signal(signal.SIGINT)
        return original(self, *args)

    settings = {**STEPS, "schedule.checkpoint_every": 1000}
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, names[when], interrupted)
        done = command("train", *flags(unbroken / "scenes", tmp_path, **settings), cwd=tmp_path)
    assert done.returncode == 130 and "checkpoint written" in done.stderr, done.stderr
    run = tmp_path / "mini"
    assert load_checkpoint(run / "checkpoints" / "last.pt")["step"] in (12, 13)
    finish("--resume", run)
    assert_same_run(run, unbroken / "runs" / "mini")


def test_changed_settings_and_a_second_process_are_refused(unbroken, tmp_path):
    run = tmp_path / "mini"
    shutil.copytree(unbroken / "runs" / "mini", run)
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("lambda_out: 0.03", "lambda_out: 0.5"))
    done = command("train", "--resume", run, cwd=tmp_path)
    assert done.returncode == 2 and "adaptation.lambda_out = 0.03" in done.stderr
    with RunFolder(run).locked():
        done = command("train", "--resume", run, cwd=tmp_path)
    assert done.returncode == 2 and "another process" in done.stderr


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_named(unbroken, tmp_path, workers):
    shutil.copytree(unbroken / "scenes", tmp_path / "scenes")
    for path in (tmp_path / "scenes").rglob("*_depth.png"):
        path.write_bytes(b"broken")
    settings = {**STEPS, "data.workers": workers}
    done = command("train", *flags(tmp_path / "scenes", tmp_path, **settings), cwd=tmp_path)
    assert done.returncode == 2 and "_depth.png: not a readable image" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.gpu
def test_a_run_on_the_gpu_resumes_and_never_waits_in_an_update(unbroken, tmp_path):
    settings = {**STEPS, "device": "cuda", "precision": "bf16", "data.workers": 1}
    finish(*flags(unbroken / "scenes", tmp_path, **settings))
    process = start(*flags(unbroken / "scenes", tmp_path, **settings, name="killed"))
    wait_for_step(tmp_path / "killed", 14, process)
    process.kill()
    process.communicate()
    finish("--resume", tmp_path / "killed")
    assert_same_run(tmp_path / "killed", tmp_path / "mini")
    adaptation = TwoLevelAdaptation(CLASSES, AdaptationConfig(), ModelConfig(**SMALL_MODEL)).cuda()
    batch = make_batch().map(torch.Tensor.cuda)
    update = Step(adaptation, build_optimisers(Config(), adaptation, Phase("adaptation", 0, 2)))
    update([batch])
    torch.cuda.set_sync_debug_mode("error")
    try:
        update([batch])
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_resuming_a_finished_run_changes_no_weight(unbroken):
    run = unbroken / "runs" / "mini"
    before = (run / "task.safetensors").read_bytes()
    assert "adapted" in finish("--resume", run)
    assert (run / "task.safetensors").read_bytes() == before


def test_the_same_seed_gives_the_same_run_and_another_seed_does_not(unbroken, tmp_path):
    finish(*flags(unbroken / "scenes", tmp_path, **STEPS))
    assert_same_run(tmp_path / "mini", unbroken / "runs" / "mini")
    finish(*flags(unbroken / "scenes", tmp_path, **STEPS, name="other", seed=1))
    ours, theirs = (load_file(tmp_path / n / "task.safetensors") for n in ("mini", "other"))
    assert any(not torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize(
    "settings",
    [
        {"schedule.source_only_steps": 0, "adaptation.input_level": "image"},
        {"schedule.adaptation_steps": 0},
        {"adaptation.input_level": "none", "adaptation.output_level": "semantics"},
        {"adaptation.output_level": "none", "adaptation.depth_loss": "berhu"},
        {"adaptation.input_level": "none", "adaptation.output_level": "none"},
        {"adaptation.gan_loss": "hinge", "precision": "bf16", "optimiser.task": "sgd"},
        {"data.label_space": "cityscapes16", "model.backbone": "resnet101"},
        {"adaptation.self_training": "true", "schedule.accumulate": 2},
    ],
)
def test_these_settings_train(unbroken, tmp_path, settings):
    few = {"schedule.source_only_steps": 1, "schedule.adaptation_steps": 2}
    output = finish(*flags(unbroken / "scenes", tmp_path, **{**few, **settings}))
    assert "mIoU" in output and "report.html" in output
    log = (tmp_path / "mini" / "metrics.jsonl").read_text()
    assert "NaN" not in log


def test_a_run_that_diverges_names_loss_and_update(unbroken, tmp_path):
    settings = {**STEPS, "optimiser.adaptation_lr": 1e30, "schedule.log_every": 5}
    done = command("train", *flags(unbroken / "scenes", tmp_path, **settings), cwd=tmp_path)
    assert done.returncode == 1, done.stdout
    assert "' is" in done.stderr and "update" in done.stderr
    checkpoint = load_checkpoint(tmp_path / "mini" / "checkpoints" / "last.pt")
    assert checkpoint["step"] == 12 and "last.pt" in done.stderr
    assert all(torch.isfinite(value).all() for value in checkpoint["networks"].values())


def test_non_finite_weights_are_not_saved(unbroken, tmp_path):
    settings = {
        "optimiser.task_lr": 1e39,
        "optimiser.warmup_steps": 0,
        "schedule.checkpoint_every": 1,
    }
    done = command("train", *flags(unbroken / "scenes", tmp_path, **settings), cwd=tmp_path)
    assert done.returncode == 1 and "after update 1" in done.stderr, done.stderr
    assert "there is no checkpoint yet" in done.stderr
    assert not list((tmp_path / "mini" / "checkpoints").iterdir())


def test_the_first_non_finite_loss_is_named_with_its_update():
    window = LossWindow()
    for value in (1.0, 2.0, float("nan"), float("inf")):
        window.add({"seg": torch.tensor(3.0), "out": torch.tensor(value)})
    with pytest.raises(NonFiniteLoss, match="loss 'out' is nan at update 99"):
        window.fetch(100)


def test_losses_are_averaged_between_log_points():
    window = LossWindow()
    for value in (1.0, 2.0, 6.0):
        window.add({"seg": torch.tensor(value)})
    means, seconds, steps = window.fetch(3)
    assert means == {"seg": 3.0} and steps == 3 and seconds >= 0
    window.add({"seg": torch.tensor(5.0), "out": torch.tensor(1.0)})
    assert window.fetch(4)[0] == {"seg": 5.0, "out": 1.0}


def test_nothing_waits_for_the_device_between_log_points(monkeypatch):
    """Calling ``item`` or ``cpu`` on a tensor would synchronise host and GPU."""
    adaptation = TwoLevelAdaptation(CLASSES, AdaptationConfig(), ModelConfig(**SMALL_MODEL))
    window = LossWindow()

    def refuse(self, *args, **kwargs):
        raise AssertionError("the host waits for the device inside an update")

    # this check reads labels, but only on the CPU
    checks = importlib.import_module("gioada_fast.ops.upsample_cross_entropy")
    monkeypatch.setattr(checks, "check_label_values", lambda *_: None)
    for name in ("item", "cpu", "tolist", "__float__", "__bool__", "__int__"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    window.add(Step(adaptation, {}).gradients([make_batch()]))


def test_cuda_graphs_are_refused_on_the_cpu(unbroken, tmp_path):
    done = command(
        "train",
        *flags(unbroken / "scenes", tmp_path, device="cpu", cuda_graphs="true"),
        cwd=tmp_path,
    )
    assert done.returncode == 2 and "cuda_graphs needs one process on a GPU" in done.stderr
    assert not (tmp_path / "mini").exists()
