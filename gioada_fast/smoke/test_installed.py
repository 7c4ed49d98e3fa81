"""The installed files are complete and work together, and every op agrees with plain PyTorch."""

import importlib.metadata
import json
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gioada_fast import info, ops, train
from gioada_fast.config import find_config, shipped_configs, shipped_presets
from gioada_fast.labels import BUILT_IN_SPACES, label_space
from gioada_fast.predict.__main__ import main as predict

SIZE = (33, 49)


def upsampled(x: Tensor) -> Tensor:
    return F.interpolate(x, SIZE, mode="bilinear", align_corners=True)


def random_inputs() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    def integers(high: int, *shape: int) -> Tensor:
        return torch.randint(0, high, shape, generator=generator)

    return {
        "logits": normal(2, 5, 5, 7).requires_grad_(),
        "depth": normal(2, 1, 5, 7).requires_grad_(),
        "labels": integers(5, 2, *SIZE),
        "metres": normal(2, 1, *SIZE).exp(),
        "image": integers(256, 2, 3, *SIZE).byte(),
    }


# name of an op: (what the op gives, the same in plain PyTorch), of random_inputs()
OPS: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "upsample_cross_entropy": (
        lambda logits, labels, **_: ops.upsample_cross_entropy(logits, labels),
        lambda logits, labels, **_: F.cross_entropy(upsampled(logits), labels),
    ),
    "upsample_depth_loss": (
        lambda depth, metres, **_: ops.upsample_depth_loss(depth, metres),
        lambda depth, metres, **_: F.l1_loss(upsampled(depth), metres),
    ),
    "semantic_depth_concat": (
        lambda logits, depth, **_: ops.semantic_depth_concat(logits, depth, SIZE),
        lambda logits, depth, **_: torch.cat(
            [upsampled(logits).softmax(1), upsampled(depth)], dim=1
        ),
    ),
    "translation_input": (
        lambda image, metres, labels, **_: ops.translation_input(image, metres, labels, 5),
        lambda image, metres, labels, **_: torch.cat(
            [image / 127.5 - 1, metres, F.one_hot(labels, 5).permute(0, 3, 1, 2)], dim=1
        ),
    ),
    "instance_norm_act": (
        lambda logits, **_: ops.instance_norm_act(logits, "relu", pad=1),
        lambda logits, **_: F.pad(F.instance_norm(logits).relu(), (1, 1, 1, 1), mode="reflect"),
    ),
    "gan_loss": (
        lambda depth, **_: ops.gan_loss(depth, True)[0],
        lambda depth, **_: F.mse_loss(depth, torch.ones_like(depth)),
    ),
    "upsample_argmax": (
        lambda logits, **_: ops.upsample_argmax(logits, SIZE),
        lambda logits, **_: upsampled(logits).argmax(1),
    ),
    "upsample_confusion_matrix": (
        lambda logits, labels, **_: ops.upsample_confusion_matrix(logits, labels),
        lambda logits, labels, **_: torch.bincount(
            (labels * 5 + upsampled(logits).argmax(1)).flatten(), minlength=25
        ).view(5, 5),
    ),
}


@pytest.mark.parametrize("name", OPS)
def test_op_gives_what_pytorch_gives(name):
    """Results and gradients, with the back end that is chosen automatically."""
    results = []
    for function in OPS[name]:
        inputs = random_inputs()
        result = function(**inputs)
        if result.requires_grad:
            (result * torch.linspace(0.5, 1.5, result.numel()).view_as(result)).sum().backward()
        grads = [x.grad for x in inputs.values() if x.grad is not None]
        results.append([result.detach(), *grads])
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-5)


def test_every_op_is_tested():
    assert OPS.keys() == {name.removesuffix("_backward") for name in ops.registered()}


def test_installed_kernels_load():
    """Kernels that are installed run. A package without them works, too, on plain PyTorch."""
    files = importlib.metadata.files("gioada_fast") or []
    if any(path.name.startswith("_C.") for path in files):
        assert ops.backends()["cpp"].live, ops.backends()["cpp"].detail


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_one_openmp_runtime():
    """The kernels share torch's: the threads of a second one would compete with its threads."""
    ops.backends()
    names = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
    prefixes = ("libgomp", "libiomp", "libomp")
    runtimes = {name for name in names if Path(name).name.startswith(prefixes)}
    assert len(runtimes) <= 1, runtimes


def test_data_of_the_package():
    """Configurations, presets, label spaces and the parts of reports are installed."""
    assert "street_scenes" in shipped_configs() and "small" in shipped_presets()
    assert find_config("street_scenes").is_file()
    assert all(len(label_space(name).classes) > 1 for name in BUILT_IN_SPACES)


def test_info(capsys):
    info.main([])
    assert "upsample_cross_entropy" in capsys.readouterr().out


def write_folders(root: Path) -> None:
    """Six source images with labels and depth, and four target images: a box on a ground."""
    rng = np.random.default_rng(0)
    for name in ("source/rgb", "source/ids", "source/depth", "target"):
        (root / name).mkdir(parents=True)
    for index in range(6):
        ids = np.zeros((64, 96), np.uint8)
        ids[32:] = 1
        x = int(rng.integers(0, 64))
        ids[24:48, x : x + 24] = 2
        colours = np.array([[230, 180, 150], [90, 90, 90], [40, 40, 170]], np.uint8)
        image = (colours[ids] + rng.normal(0, 8, (64, 96, 3))).clip(0, 255).astype(np.uint8)
        depth = np.linspace(60_000, 500, 64).astype(np.uint16)[:, None].repeat(96, 1)
        cv2.imwrite(str(root / f"source/rgb/{index}.png"), image)
        cv2.imwrite(str(root / f"source/ids/{index}.png"), ids)
        cv2.imwrite(str(root / f"source/depth/{index}.png"), depth)
        cv2.imwrite(str(root / f"target/{index}.png"), (image * 0.6).astype(np.uint8))


SETTINGS = """
runs_dir: {root}/runs
name: smoke
precision: fp32
data:
  label_space: {{name: boxes, classes: {{far: , ground: , box: }}}}
  source:
    name: folder
    root: {root}/source
    images: rgb/*
    labels: ids/*
    depth: depth/*
    depth_per_metre: 1000
    classes: {{0: far, 1: ground, 2: box}}
  target: {{name: folder, root: {root}/target, images: "*"}}
  height: 64
  width: 96
  workers: 0
model:
  width: 0.125
  translation_width: 0.125
  translation_blocks: 1
  discriminator_width: 0.125
schedule: {{source_only_steps: 2, adaptation_steps: 2, batch_size: 2, checkpoint_every: 2}}
"""


def test_a_run(tmp_path, monkeypatch):
    """A training run on pictures that the test writes, its report, and predictions with it."""
    monkeypatch.chdir(tmp_path)
    write_folders(tmp_path)
    Path("boxes.yaml").write_text(SETTINGS.format(root=tmp_path))
    train.main(["--config", "boxes.yaml"])
    run = tmp_path / "runs/smoke"
    updates = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert updates and (run / "task.safetensors").is_file()
    assert "<html" in (run / "report.html").read_text(encoding="utf-8")
    predict([str(run), str(tmp_path / "target"), "--output", "predictions"])
    assert len(list(Path("predictions").rglob("*.png"))) >= 6
