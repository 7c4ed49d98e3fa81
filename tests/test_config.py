"""The settings offer exactly the choices that the code implements."""

import typing
from dataclasses import asdict

import pytest
import yaml

from gioada_fast.config import (
    AdaptationConfig,
    Config,
    ModelConfig,
    OptimiserConfig,
    SourceConfig,
    changed_setting,
    find_config,
    shipped_configs,
)
from gioada_fast.depth import ENCODINGS
from gioada_fast.errors import InputError
from gioada_fast.labels import label_space
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


@pytest.mark.parametrize(
    ("value", "stored"),
    [(None, None), (80, [80.0, 80.0]), ([80], [80.0, 80.0]), ([70, 80.5], [70.0, 80.5])],
)
def test_a_camera_setting_is_one_number_or_a_range(value, stored):
    assert SourceConfig(field_of_view=value).field_of_view == stored


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"field_of_view": [80, 70]}, "is [80, 70], expected one number or the lowest and the"),
        ({"field_of_view": []}, "is [], expected one number"),
        ({"camera_pitch": [-1, 0, 1]}, "is [-1, 0, 1], expected one number"),
        ({"camera_height": float("nan")}, "is nan, must be 0.3 to 4 metres"),
        ({"camera_height": [1.5, float("nan")]}, "must be 0.3 to 4 metres"),
        ({"camera_height": 165}, "is 165, must be 0.3 to 4 metres"),
        ({"field_of_view": 180}, "is 180, must be 5 to 150 degrees"),
        ({"camera_pitch": [-90, 0]}, "is [-90, 0], must be -30 to 30 degrees"),
    ],
)
def test_a_camera_that_sees_no_street_is_refused(settings, words):
    with pytest.raises(InputError) as error:
        SourceConfig(**settings)
    (name,) = settings
    assert f"data.source.{name} " in str(error.value) and words in str(error.value)


NEW = (
    *("unknown_labels", "exif_orientation", "depth_kind", "depth_focal_baseline", "depth_along"),
    "depth_fov",
)
SPACE = {"name": "t", "classes": {"b": {"colour": [1, 2, 3]}, "a": {"of": ["road"]}}}


def saved_by_0_1_0(**data):
    """Settings without those that are new, and with the old default of depth_per_metre."""
    settings = asdict(Config())
    for side in ("source", "target"):
        for name in (*NEW, "share"):
            settings["data"][side].pop(name, None)
        settings["data"][side]["depth_per_metre"] = 100.0
    del settings["data"]["sources"]
    settings["data"] |= data
    return settings


def test_settings_that_a_run_of_0_1_0_lacks_are_their_defaults():
    assert changed_setting(saved_by_0_1_0(), asdict(Config())) is None
    now = asdict(Config())
    now["data"]["source"]["depth_kind"] = "carla"
    assert changed_setting(saved_by_0_1_0(), now) == ("data.source.depth_kind", "metres", "carla")
    now = asdict(Config())
    now["data"]["source"]["depth_per_metre"] = 1000.0
    assert changed_setting(saved_by_0_1_0(), now) == ("data.source.depth_per_metre", 100.0, 1000.0)
    now["data"]["source"]["depth_per_metre"] = 100.0
    assert changed_setting(saved_by_0_1_0(), now) is None
    # settings with depth_kind were saved since: unset and 100 differ for floating point
    assert changed_setting(asdict(Config()), now) == ("data.source.depth_per_metre", None, 100.0)


def test_a_label_space_or_class_map_is_the_same_in_a_file_and_in_the_settings(tmp_path):
    """Version 0.1.0 saved the paths of files."""
    file, classes = tmp_path / "t.yaml", tmp_path / "classes.yaml"
    file.write_text(yaml.safe_dump(SPACE, sort_keys=False))
    classes.write_text("7: b\n'8': null\n")
    saved = saved_by_0_1_0(label_space=str(file))
    saved["data"]["source"]["classes"] = str(classes)
    now = asdict(Config())
    now["data"]["label_space"] = label_space(SPACE).content()
    now["data"]["source"]["classes"] = {7: "b", 8: None}
    assert changed_setting(saved, now) is None and changed_setting(now, now) is None
    now["data"]["source"]["classes"] = {7: "b", 8: "a"}
    assert changed_setting(saved, now)[0] == "data.source.classes"
    # the order of the classes is the order of the train ids
    entries = dict(reversed(now["data"]["label_space"]["classes"].items()))
    now["data"]["label_space"] = {"name": "t", "classes": entries}
    assert changed_setting(saved, now)[0] == "data.label_space"
    file.unlink()
    assert changed_setting(saved, now)[0] == "data.label_space"


def test_several_sources_are_compared_one_by_one():
    saved, now = asdict(Config()), asdict(Config())
    saved["data"]["sources"] = [{"name": "folder", "root": "a"}, {"name": "carla"}]
    now["data"]["sources"] = [
        asdict(SourceConfig(name="folder", root="b")), asdict(SourceConfig(name="carla"))
    ]  # fmt: skip
    assert changed_setting(saved, now) is None
    now["data"]["sources"][1]["share"] = 2.0
    assert changed_setting(saved, now) == ("data.sources[1].share", 1.0, 2.0)
    now["data"]["sources"].pop()
    assert changed_setting(saved, now)[0].startswith("data.sources[1].")
    now["data"]["sources"] = None
    assert changed_setting(saved, now)[0].startswith("data.sources[0].")


def test_settings_without_effect_are_named():
    settings = AdaptationConfig(mask_ratio=0.7, mix_order="depth", input_level="none")
    assert settings.without_effect() == {
        "mask_ratio": "self_training",
        "mix_order": "self_training",
    }
    assert not AdaptationConfig(self_training=True, mask_ratio=0.7).without_effect()
    settings = AdaptationConfig(input_level="none", image_discriminator_input="depth")
    assert settings.without_effect() == {"image_discriminator_input": "input_level"}
