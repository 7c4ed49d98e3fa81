"""A new trunk needs one class and its name in ``TRUNKS``: adds a toy trunk."""

import json

import pytest
import torch
from torch import nn

from benchmarks.yardstick import Yardstick
from gioada_fast.config import ModelConfig
from gioada_fast.engine.networks import load_task
from gioada_fast.engine.pretrained import pretrained_file
from gioada_fast.engine.step import Step
from gioada_fast.errors import InputError
from gioada_fast.models import TRUNKS, Trunk
from gioada_fast.models.layers import GroupNormReLU, channels

from ..commands import command
from ..miniature import flags, write_street_scenes
from ..test_yardstick import RTOL, assert_losses_agree, make


class ToyTrunk(Trunk):
    """Three convolutions of stride 2 and a residual convolution."""

    NORMS = ("group",)

    def __init__(self, width: float = 1.0, norm: str = "group"):
        super().__init__(width, norm)
        self.out_channels = channels(128, width)
        layers: list[nn.Module] = []
        for c_in in (3, self.out_channels, self.out_channels):
            conv = nn.Conv2d(c_in, self.out_channels, 3, stride=2, padding=1)
            layers += [conv, GroupNormReLU()]
        self.stem = nn.Sequential(*layers)
        self.residual = nn.Conv2d(self.out_channels, self.out_channels, 3, padding=1)
        self.norm = GroupNormReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return x + self.norm(self.residual(x))


@pytest.fixture(autouse=True)
def toy_trunk(monkeypatch):
    monkeypatch.setitem(TRUNKS, "toy", ToyTrunk)


def test_a_new_trunk_trains_three_updates_and_its_weights_can_be_loaded(tmp_path):
    write_street_scenes(tmp_path / "scenes")
    settings = {
        "model.backbone": "toy",
        "schedule.source_only_steps": 0,
        "schedule.adaptation_steps": 3,
        "schedule.log_every": 1,
    }
    arguments = flags(tmp_path / "scenes", tmp_path / "runs", **settings)
    done = command("train", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "mini"
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records if "loss/seg" in r] == [1, 2, 3]
    task, _, metadata = load_task(run / "task.safetensors")
    assert isinstance(task.trunk, ToyTrunk) and metadata["backbone"] == "toy"


def test_the_yardstick_can_rebuild_a_new_trunk():
    config, adaptation, batch = make(model={"backbone": "toy"})
    yardstick = Yardstick(adaptation, config)
    ours = Step(adaptation, {}, "fp32").gradients([batch])
    assert_losses_agree(ours, yardstick.gradients(yardstick.load(batch)))
    yardstick.assert_gradients_of(adaptation, RTOL)
    assert not any(isinstance(m, GroupNormReLU) for m in yardstick.networks["task"].modules())


def test_a_new_trunk_without_imagenet_weights_says_so():
    with pytest.raises(InputError, match=r"model\.pretrained is imagenet, but toy"):
        pretrained_file("imagenet", "toy")


def test_an_unknown_trunk_is_refused_before_data_are_read(tmp_path):
    arguments = flags(tmp_path / "scenes", tmp_path / "runs", **{"model.backbone": "vgg"})
    done = command("train", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert (
        "model.backbone is 'vgg', expected one of vgg16, resnet101, hf, timm:NAME, toy"
        in done.stderr
    )
    assert not (tmp_path / "runs").exists()


def test_the_help_text_names_the_trunks_of_the_package(tmp_path):
    text = " ".join(command("train", "--help", cwd=tmp_path).stdout.split())
    _, _, text = text.rpartition("--model.backbone")
    for name in TRUNKS.keys() - {"toy"}:
        assert name in text[:200]
    assert ModelConfig().backbone in TRUNKS
