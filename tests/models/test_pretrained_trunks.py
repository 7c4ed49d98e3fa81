"""Backbones of transformers and timm as trunks: training, resuming, weights and bad input."""

import importlib
import json
import shutil
import signal
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from gioada_fast.config import Config, ModelConfig
from gioada_fast.engine import hub
from gioada_fast.engine import run as run_module
from gioada_fast.engine.checkpoint import load_checkpoint
from gioada_fast.engine.networks import build_adaptation, load_task
from gioada_fast.engine.trainer import Trainer
from gioada_fast.errors import InputError
from gioada_fast.models import TaskNet

from ..commands import command
from ..miniature import flags, write_street_scenes
from .trunk_folders import BACKBONES, fake_timm, write_backbone, write_preprocessor

pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

NO_CHECKPOINTING = {"convnext", "convnextv2", "resnet"}
"""Architectures whose layers transformers cannot compute again in the backward pass."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder with each backbone, and one with street scenes."""
    root = tmp_path_factory.mktemp("backbones")
    for name in BACKBONES:
        write_backbone(root, name)
    write_street_scenes(root / "scenes", source=2, target=2, evaluation=1)
    return root


def settings(folder, name, **others):
    return {
        "model.backbone": "hf",
        "model.pretrained": folder / name,
        "model.width": "null",
        "model.head_channels": 16,
        "data.source.frames": 2,
        "data.target.frames": 2,
        "data.target.evaluation_frames": 1,
        "adaptation.self_training": "true",
        "schedule.source_only_steps": 0,
        "schedule.adaptation_steps": 3,
        "schedule.log_every": 1,
        "schedule.checkpoint_every": 10,
        **others,
    }


def network(folder, name, load=True, **options):
    config = hub.read_trunk_config(str(folder / name))
    options = {"head_channels": 16, **options}
    torch.manual_seed(0)
    net = TaskNet(5, "hf", 1.0, "none", config, **options)
    if load:
        hub.load_weights(net.trunk, str(folder / name))
    return net.to(memory_format=torch.channels_last)


@pytest.fixture
def no_report(monkeypatch):
    """Runs write no panels, comparison and report, which take most of the time of a tiny run."""
    monkeypatch.setattr(run_module, "write_report", lambda run: run.report)
    for method in ("_write_comparison", "draw_panel"):
        monkeypatch.setattr(run_module._Session, method, lambda *args: None)


def interrupted_at(step):
    original = Trainer._log_losses

    def interrupted(self, *args):
        if self.step == step:
            signal.raise_signal(signal.SIGINT)
        return original(self, *args)

    return interrupted


def run(module, *arguments, cwd, status=0):
    done = command(module, *arguments, cwd=cwd)
    assert done.returncode == status, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", BACKBONES)
def test_a_run_resumes_bit_by_bit_and_needs_its_folder_no_more(
    folders, no_report, tmp_path, monkeypatch, name
):
    folder = shutil.copytree(folders / name, tmp_path / "hub" / name)
    head = "daformer" if name in ("segformer", "dinov2") else "segformer"
    chosen = settings(tmp_path / "hub", name, **{"model.head": head})
    run("train", *flags(folders / "scenes", tmp_path, **chosen), cwd=tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_log_losses", interrupted_at(2))
        stopped = flags(folders / "scenes", tmp_path, **chosen, name="stopped")
        run("train", *stopped, cwd=tmp_path, status=130)
    shutil.rmtree(folder)
    run("train", "--resume", tmp_path / "stopped", cwd=tmp_path)
    for file in ("task.safetensors", "translation.safetensors"):
        ours, theirs = (load_file(tmp_path / made / file) for made in ("mini", "stopped"))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    state = load_checkpoint(tmp_path / "mini/checkpoints/last.pt")
    assert torch.equal(
        state["rng"], load_checkpoint(tmp_path / "stopped/checkpoints/last.pt")["rng"]
    )
    trained = state["networks"]
    trunk = [key for key in trained if key.startswith("teacher.trunk.")]
    assert any(not torch.equal(trained[key], trained[f"task{key[7:]}"]) for key in trunk)

    score = json.loads(run("evaluate", tmp_path / "mini", "--json", cwd=tmp_path))["miou"]
    assert score == json.loads((tmp_path / "mini/result.json").read_text())["columns"][-1]["miou"]
    image = next((folders / "scenes").rglob("*.png"))
    weights = tmp_path / "mini/task.safetensors"
    run("predict", weights, image, "--output", tmp_path / "out", cwd=tmp_path)
    assert len(list((tmp_path / "out").iterdir())) == 4


@pytest.mark.parametrize("name", BACKBONES)
def test_the_task_network_compiles_in_one_graph(folders, name):
    torch.compiler.reset()
    net = network(folders, name, checkpointing=name not in NO_CHECKPOINTING)
    image = torch.rand(1, 3, 64, 64) * 2 - 1
    compiled = torch.compile(net, fullgraph=True, backend="eager", dynamic=False)
    logits, depth = compiled(image)  # in training mode, with gradients
    (logits.mean() + depth.mean()).backward()
    assert all(weight.grad is not None for weight in net.parameters() if weight.requires_grad)
    with torch.no_grad():
        net.eval()
        assert torch.equal(compiled(image)[0], net(image)[0])


SCALES = {"dinov2": [(14, 16)] * 4, "dinov3": [(16, 16)] * 4, "swin": [(4, 8), (8, 16), (16, 32), (32, 64)]}  # fmt: skip


@pytest.mark.parametrize("name", BACKBONES)
def test_features_have_the_strides_and_channels_that_are_named(folders, name):
    trunk = network(folders, name).trunk
    expected = SCALES.get(name, [(4, 8), (8, 16), (16, 24), (32, 32)])
    assert list(trunk.scales) == expected
    side = 2 * trunk.size_multiple
    maps = trunk.pyramid(torch.rand(2, 3, side, side + trunk.size_multiple))
    for x, (stride, channels) in zip(maps, expected, strict=True):
        assert x.shape == (2, channels, side // stride, side * 3 // 2 // stride)


@pytest.mark.parametrize(("name", "size"), [("dinov2", (50, 71)), ("convnext", (45, 100))])
def test_any_size_is_padded_and_the_output_cut(folders, name, size):
    net = network(folders, name).eval()
    image = torch.rand(1, 3, *size) * 2 - 1
    logits, depth = net(image)
    stride = 3.5 if name == "dinov2" else 4
    assert logits.shape[2:] == depth.shape[2:] == tuple(-(-side // stride) for side in size)
    multiple = net.trunk.size_multiple
    padding = [(0, -side % multiple) for side in reversed(size)]
    grey = net.neutral.expand(1, 3, *(side + end for side, (_, end) in zip(size, padding[::-1])))
    padded = grey.clone()
    padded[..., : size[0], : size[1]] = image
    whole, _ = net(padded)
    assert torch.allclose(whole[..., : logits.shape[2], : logits.shape[3]], logits, atol=1e-6)
