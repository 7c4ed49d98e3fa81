"""Every configuration shipped with the package, on miniatures of its data sets."""

import json

import cv2
import pytest
import yaml

from gioada_fast.config import shipped_configs

from .commands import command
from .data import formats
from .miniature import SMALL_MODEL, write_camvid, write_street_scenes

WRITERS = {
    "vkitti_to_kitti": (formats.write_vkitti, formats.write_kitti),
    "vkitti2_to_kitti": (formats.write_vkitti2, formats.write_kitti),
    "synthia_to_cityscapes": (formats.write_synthia, formats.write_cityscapes),
    "gta5_to_cityscapes": (formats.write_gta5, formats.write_cityscapes),
    "street_to_camvid": (write_street_scenes, write_camvid),
    "street_scenes": (write_street_scenes, write_street_scenes),
}


def test_every_configuration_is_tested():
    assert WRITERS.keys() == shipped_configs().keys()


@pytest.fixture(params=WRITERS)
def config(request, tmp_path):
    """(name, flags for three updates), with miniatures of the data sets on disk."""
    name = request.param
    for side, write in zip(("source", "target"), WRITERS[name], strict=True):
        write(tmp_path / side)
    settings = yaml.safe_load(shipped_configs()[name].read_text())
    values = {
        "name": "mini",
        "data.source.root": tmp_path / "source",
        "data.target.root": tmp_path / "target",
        "data.height": 64,
        "data.width": 96,
        "schedule.source_only_steps": 1,
        "schedule.adaptation_steps": 2,
        "schedule.batch_size": 2,
        "schedule.log_every": 1,
        **{f"model.{key}": value for key, value in SMALL_MODEL.items()},
    }
    for side in ("source", "target"):
        if "height" in settings["data"][side]:  # images are cropped
            values |= {f"data.{side}.height": 70, f"data.{side}.width": 110}
    if "street" in name:
        values |= {"data.source.frames": 6, "data.target.frames": 5}
        values["data.target.evaluation_frames"] = 3
    return name, [f"--{key}={value}" for key, value in values.items()]


def test_three_updates_run(config, tmp_path):
    name, flags = config
    done = command("train", "--config", name, *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "mini"
    result = json.loads((run / "result.json").read_text())
    assert [column["updates"] for column in result["columns"]] == [1, 3]
    for column in result["columns"]:
        assert set(column["iou"]) == set(result["classes"]) and column["miou"] is not None
        assert set(column["miou_of"]) == ({"cityscapes13"} if "synthia" in name else set())
    assert (run / "report.html").is_file() and cv2.imread(str(run / "comparison.jpg")) is not None


# street scenes are rendered, so they need no files
NEEDED = [
    *((name, side) for name in WRITERS if "street" not in name for side in ("source", "target")),
    ("street_to_camvid", "target"),
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
    broken = [p for p in images if "overcast" not in str(p)]
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
