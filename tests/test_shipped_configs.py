"""Every configuration shipped with the package, on miniatures of its data sets."""

import json
from dataclasses import asdict

import cv2
import pytest
import yaml

from gioada_fast import cli, street_scenes
from gioada_fast.config import CAMERA_BOUNDS, Config, shipped_configs
from gioada_fast.data.sets import source_set

from .commands import command
from .data import formats
from .miniature import LOOK, SIZE, SMALL_MODEL, write_camvid, write_street_scenes
from .models.trunk_folders import write_backbone


def settings_of(name):
    return yaml.safe_load(shipped_configs()[name].read_text())


def write_streets_of_kitti(root):
    source = settings_of("street_to_kitti")["data"]["source"]
    camera = street_scenes.CameraRanges.read({name: source[name] for name in CAMERA_BOUNDS})
    write_street_scenes(root, camera=camera)


WRITERS = {
    "vkitti_to_kitti": (formats.write_vkitti, formats.write_kitti),
    "vkitti2_to_kitti": (formats.write_vkitti2, formats.write_kitti),
    "synthia_to_cityscapes": (formats.write_synthia, formats.write_cityscapes),
    "synthia_to_cityscapes_mit_b5": (formats.write_synthia, formats.write_cityscapes),
    "synthia_to_cityscapes_dinov2": (formats.write_synthia, formats.write_cityscapes),
    "gta5_to_cityscapes": (formats.write_gta5, formats.write_cityscapes),
    "street_to_camvid": (write_street_scenes, write_camvid),
    "street_to_kitti": (write_streets_of_kitti, formats.write_kitti),
    "street_scenes": (write_street_scenes, write_street_scenes),
}


BACKBONES = {"nvidia/mit-b5": "segformer", "facebook/dinov2-base": "dinov2"}
"""Tiny backbones instead of those on the hub."""


def test_every_configuration_is_tested():
    assert WRITERS.keys() == shipped_configs().keys()


@pytest.fixture(params=WRITERS)
def config(request, tmp_path):
    """(name, flags for three updates), with miniatures of the data sets on disk."""
    name = request.param
    for side, write in zip(("source", "target"), WRITERS[name], strict=True):
        write(tmp_path / side)
    settings = settings_of(name)
    values = {
        "name": "mini",
        "data.source.root": tmp_path / "source",
        "data.target.root": tmp_path / "target",
        "data.height": SIZE[0],
        "data.width": SIZE[1],
        "schedule.source_only_steps": 1,
        "schedule.adaptation_steps": 2,
        "schedule.batch_size": 2,
        "schedule.log_every": 1,
        **{f"model.{key}": value for key, value in SMALL_MODEL.items()},
    }
    if settings.get("model", {}).get("backbone") == "hf":
        pytest.importorskip("transformers")
        backbone = BACKBONES[settings["model"]["pretrained"]]
        del values["model.width"]
        values["model.pretrained"] = write_backbone(tmp_path, backbone)
        values["model.head_channels"] = 16
    for side in ("source", "target"):
        if "height" in settings["data"][side]:  # images are cropped
            values |= {f"data.{side}.height": 70, f"data.{side}.width": 110}
    if "street" in name:
        values |= {"data.source.frames": 6, "data.target.frames": 5}
        values["data.target.evaluation_frames"] = 3
        # so that the frames in the cache are found
        values |= {"data.source.height": SIZE[0], "data.source.width": SIZE[1]}
    return name, [f"--{key}={value}" for key, value in values.items()]


def test_three_updates_run(config, tmp_path):
    name, flags = config
    done = command("train", "--config", name, *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "mini"
    result = json.loads((run / "result.json").read_text())
    has_control = settings_of(name)["schedule"].get("control", False)
    assert [column["updates"] for column in result["columns"]] == [1, 3] + [3] * has_control
    for column in result["columns"]:
        assert set(column["iou"]) == set(result["classes"]) and column["miou"] is not None
        assert set(column["miou_of"]) == ({"cityscapes13"} if "synthia" in name else set())
    assert (run / "report.html").is_file() and cv2.imread(str(run / "comparison.jpg")) is not None


# street scenes are rendered, so they need no files
NEEDED = [
    *(
        (name, side)
        for name in WRITERS
        # two configurations have the data of synthia_to_cityscapes
        if "street" not in name and not name.startswith("synthia_to_cityscapes_")
        for side in ("source", "target")
    ),
    *((name, "target") for name in ("street_to_camvid", "street_to_kitti")),
]


@pytest.mark.parametrize(("config", "side"), NEEDED, indirect=["config"])
def test_a_missing_root_is_reported_with_what_is_expected(config, side, tmp_path):
    name, flags = config
    flags = [flag for flag in flags if not flag.startswith(f"--data.{side}.root")]
    for extra, words in (
        ([], f"data.{side}.root is not set"),
        ([f"--data.{side}.root=nowhere"], "nowhere: no such folder"),
    ):
        done = command("train", "--config", name, *flags, *extra, cwd=tmp_path)
        assert done.returncode == 2 and words in done.stderr
        assert "download" in done.stderr and "png" in done.stderr.lower()
        assert not list(tmp_path.glob("runs/*"))


@pytest.mark.parametrize("config", ["street_scenes", "vkitti2_to_kitti"], indirect=True)
def test_a_run_continues_without_an_unreadable_file(config, tmp_path):
    """It warns about each file up to the limit; the next one ends the run and is named."""
    name, flags = config
    kind = {"street_scenes": "_image.png", "vkitti2_to_kitti": "rgb"}[name]
    images = sorted(
        p for p in (tmp_path / "source").rglob("*.*g") if kind in str(p.relative_to(tmp_path))
    )
    broken = [p for p in images if LOOK not in str(p)]
    broken[0].write_bytes(broken[0].read_bytes()[:200])
    steps = ["--schedule.source_only_steps=8", "--schedule.adaptation_steps=0"]
    done = command("train", "--config", name, *flags, *steps, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    # the noise of the miniatures is not plausible, which is warned of, too
    warnings = [line for line in done.stdout.splitlines() if "left out" in line]
    assert len(warnings) == 1 and broken[0].name in warnings[0], done.stdout
    steps += ["--name=strict", "--data.max_unreadable=0"]
    done = command("train", "--config", name, *flags, *steps, cwd=tmp_path)
    assert done.returncode == 2 and broken[0].name in done.stderr
    assert "Traceback" not in done.stderr and "max_unreadable is 0" in done.stderr


def parsed(config, preset=None, *flags):
    """Settings of a configuration with a preset, as ``gioada_fast.ablate`` reads them."""
    parser = cli.config_parser("test")
    parser.add_argument("--preset", action=cli.PresetFile)
    presets = [] if preset is None else ["--preset", preset]
    namespace = parser.parse_args(["--config", config, *presets, *flags])
    namespace.pop("preset", None)
    return cli.instantiate(parser, namespace)


def by_name(settings, prefix=""):
    """Settings by dotted name."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from by_name(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


CAMVID = {"data.source.frames": 600, "data.target.name": "camvid"}
KITTI = {
    "data.source.frames": 600,
    **{f"data.{side}.{key}": value for side in ("source", "target")
       for key, value in (("height", 116), ("width", 384))},
    "data.source.field_of_view": [80.0, 83.0],
    "data.source.camera_height": [1.6, 1.7],
    "data.source.camera_pitch": [-1.7, 0.3],
    "data.target.name": "kitti",
    "data.label_space": "kitti10",
    "data.height": 112,
    "data.width": 224,
}  # fmt: skip
SMALL = {
    "model.width": 0.25,
    "model.norm": "group",
    **{f"schedule.{event}_every": 600 for event in ("evaluate", "panel", "checkpoint")},
}
PAPER = {
    "data.height": 360,
    "data.width": 480,
    "data.workers": 4,
    "model.pretrained": "imagenet",
    "model.translation_width": 1.0,
    "model.discriminator_width": 1.0,
    "adaptation.lambda_out": 0.001,
    "adaptation.gan_loss": "bce",
    "optimiser.task": "sgd",
    "optimiser.task_lr": 2.5e-3,
    "optimiser.adaptation_lr": 2.5e-3,
    "optimiser.trunk_lr_factor": 0.1,
    "optimiser.output_discriminator_lr": 1e-4,
    "optimiser.warmup_steps": 0,
    "schedule.log_every": 100,
    "schedule.evaluate_every": 2000,
    "schedule.panel_every": 2000,
    "schedule.checkpoint_every": 1000,
}


def updates(source_only, adaptation):
    return {"schedule.source_only_steps": source_only, "schedule.adaptation_steps": adaptation}


@pytest.mark.parametrize(
    ("config", "preset", "expected"),
    [
        # of version 0.1.0, in which its tables were measured
        ("street_to_camvid", None, CAMVID | updates(3000, 1200)),
        ("street_to_camvid", "small", CAMVID | SMALL | updates(3000, 1200)),
        ("street_to_camvid", "paper", CAMVID | PAPER | updates(6000, 6000)),
        ("street_to_kitti", None, KITTI | updates(2000, 800)),
        ("street_to_kitti", "small", KITTI | SMALL | updates(2000, 800)),
    ],
)
def test_a_preset_keeps_what_is_the_configurations(config, preset, expected):
    """Everything else is at the defaults."""
    defaults = dict(by_name(asdict(Config())))
    found = dict(by_name(asdict(parsed(config, preset))))
    assert {name: v for name, v in found.items() if v != defaults[name]} == expected


@pytest.mark.parametrize("config", ["street_to_camvid", "street_to_kitti"])
def test_pretrained_has_the_sizes_of_the_configuration(config):
    alone, preset = parsed(config), parsed(config, "pretrained")
    assert preset.data == alone.data and preset.model.pretrained == "imagenet"
    assert preset.trunk_lr_factor * preset.adaptation_lr == pytest.approx(6e-5)


def test_paper_takes_the_sizes_of_kitti_from_flags():
    sizes = {"data.height": 320, "data.width": 640}
    for side in ("source", "target"):
        sizes |= {f"data.{side}.height": 375, f"data.{side}.width": 1242}
    flags = [f"--{name}={value}" for name, value in sizes.items()]
    assert parsed("street_to_kitti", "paper", *flags).data.target_size == (375, 1242)


def test_the_source_of_kitti_is_seen_by_its_camera(tmp_path):
    write_streets_of_kitti(tmp_path)
    size = {"height": SIZE[0], "width": SIZE[1], "frames": 6, "root": tmp_path}
    flags = [f"--data.source.{name}={value}" for name, value in size.items()]
    crops = ["--data.height=64", "--data.width=96"]
    files = source_set(parsed("street_to_kitti", None, *flags, *crops).data).frames
    assert {file.image.parent.name for file in files} == {
        "day_96x64_field_of_view_80_to_83_camera_height_1.6_to_1.7_camera_pitch_-1.7_to_0.3"
    }
