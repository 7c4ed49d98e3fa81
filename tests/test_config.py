"""The settings offer exactly the choices that the code implements."""

import typing

import pytest

from gioada_fast.config import (
    AdaptationConfig,
    Config,
    ModelConfig,
    OptimiserConfig,
    find_config,
    shipped_configs,
)
from gioada_fast.depth import ENCODINGS
from gioada_fast.errors import InputError
from gioada_fast.ops.gan_loss import GAN_LOSSES
from gioada_fast.ops.upsample_depth_loss import KINDS as DEPTH_LOSSES


@pytest.mark.parametrize(
    ("owner", "name", "known"),
    [
        (AdaptationConfig, "gan_loss", GAN_LOSSES),
        # silog is for positive depth: encoded depth is 0 far away.
        (AdaptationConfig, "depth_loss", [kind for kind in DEPTH_LOSSES if kind != "silog"]),
        (AdaptationConfig, "depth_encoding", ENCODINGS),
    ],
)
def test_choices_agree(owner, name, known):
    assert set(typing.get_args(typing.get_type_hints(owner)[name])) == set(known)


def test_configurations_are_found_by_name_and_by_path(tmp_path):
    assert {"street_scenes", "street_to_camvid"} <= shipped_configs().keys()
    assert find_config("street_scenes") == shipped_configs()["street_scenes"]
    (tmp_path / "mine.yaml").write_text("seed: 1\n")
    assert find_config(str(tmp_path / "mine.yaml")) == tmp_path / "mine.yaml"
    with pytest.raises(InputError, match=r"no configuration 'mine'.*street_scenes"):
        find_config("mine")


def test_pretrained_weights_change_the_defaults():
    assert (ModelConfig().trunk_width, ModelConfig().trunk_norm) == (0.25, "group")
    pretrained = Config(model=ModelConfig(pretrained="vgg.pth"))
    assert (pretrained.model.trunk_width, pretrained.model.trunk_norm) == (1.0, "none")
    assert Config().trunk_lr_factor == 1.0 and pretrained.trunk_lr_factor == 0.1
    assert Config(optimiser=OptimiserConfig(task_lr=0.2)).adaptation_lr == 0.2
    assert Config(optimiser=OptimiserConfig(adaptation_lr=0.1)).adaptation_lr == 0.1
    with pytest.raises(InputError, match="width 1 only"):
        ModelConfig(pretrained="vgg.pth", width=0.5)
    with pytest.raises(InputError, match="batch norm"):
        ModelConfig(pretrained="r.pth", backbone="resnet101", norm="group")
