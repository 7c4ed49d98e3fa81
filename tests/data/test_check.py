"""``python -m gioada_fast.data check``: right numbers for sound sets, and all bad files by name."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from gioada_fast import street_scenes
from gioada_fast.config import DataConfig, SourceConfig, TargetConfig
from gioada_fast.data.check import check_set, list_set, part_names
from gioada_fast.data.depth_maps import CENTIMETRES
from gioada_fast.data.files import DataSet, FrameFiles
from gioada_fast.data.label_maps import id_labels
from gioada_fast.labels import (
    BUILT_IN_SPACES,
    IGNORE,
    STREET_IDS,
    label_space,
)
from gioada_fast.report.data_report import as_dict, contact_sheet

from .. import miniature
from ..commands import command
from . import fatal_readers, formats, test_plausibility, test_readers, toy_street

CAMVID11, CITYSCAPES16 = label_space("camvid11"), label_space("cityscapes16")
FOLDER = {"name": "folder", "labels": "labels/*", "depth": "depth/*", "depth_per_metre": 1000.0}
FOLDER_IDS = {0: 0, 1: 9, 7: 12}  # 2 is ignored


def settings(space, **sides):
    return DataConfig(label_space=space, **sides)


def write_classes(path):
    path.write_text("0: road\n1: sky\n2: null\n7: car\n")
    return str(path)


def written_street_scenes(root):
    miniature.write_street_scenes(root)
    written = []
    for seed in range(6):
        image, ids, centimetres = miniature.street_frame(seed)
        path = street_scenes.frame_paths(root, "day", miniature.SIZE, seed).image
        written.append(formats.Written(path, image, ids, centimetres / 100))
    return written


def of_vkitti(root):
    config = settings("kitti10", source=SourceConfig(name="vkitti", root=str(root)))
    names = formats.VKITTI_CLASSES, test_readers.KITTI10_OF_VKITTI
    return config, "source", formats.write_vkitti(root), test_readers.by_name(*names)


def of_vkitti2(root):
    config = settings("kitti10", source=SourceConfig(name="vkitti2", root=str(root)))
    names = formats.VKITTI2_CLASSES, test_readers.KITTI10_OF_VKITTI
    return config, "source", formats.write_vkitti2(root), test_readers.by_name(*names)


def of_synthia(root):
    config = settings("cityscapes16", source=SourceConfig(name="synthia", root=str(root)))
    return config, "source", formats.write_synthia(root), test_readers.SYNTHIA16


def of_carla(root):
    config = settings("cityscapes19", source=SourceConfig(name="carla", root=str(root)))
    return config, "source", formats.write_carla(root), test_readers.CARLA19


def of_folder(root):
    written = formats.write_folder(root)
    classes = write_classes(root / "classes.yaml")
    target = TargetConfig(root=str(root), classes=classes, **FOLDER)
    return settings("cityscapes16", target=target), "evaluation", written, FOLDER_IDS


def of_street_scenes(root):
    written = written_street_scenes(root)
    config = DataConfig(source=SourceConfig(root=str(root), frames=6), height=64, width=96)
    train_ids = {STREET_IDS["sky"]: 0, STREET_IDS["road"]: 3, STREET_IDS["car"]: 8}
    return config, "source", written, train_ids


def of_cityscapes(root):
    config = settings("cityscapes16", target=TargetConfig(name="cityscapes", root=str(root)))
    written = formats.write_cityscapes(root)["val"]
    return config, "evaluation", written, test_readers.CITYSCAPES16


def of_kitti(root):
    config = settings("kitti10", target=TargetConfig(name="kitti", root=str(root)))
    written = formats.write_kitti(root)["training"]
    return config, "evaluation", written, test_readers.KITTI10_OF_CITYSCAPES


def of_camvid(root):
    miniature.write_camvid(root)
    written = []
    for path in sorted((root / "valannot").iterdir()):
        image = root / "val" / path.name
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        written.append(formats.Written(image, cv2.imread(str(image)), labels, None))
    config = DataConfig(target=TargetConfig(name="camvid", root=str(root)))
    return config, "evaluation", written, {index: index for index in range(11)}


@pytest.mark.parametrize(
    "write",
    [of_vkitti, of_vkitti2, of_synthia, of_carla, of_folder, of_street_scenes, of_cityscapes,
     of_kitti, of_camvid],
)  # fmt: skip
def test_numbers_of_a_sound_set(tmp_path, write):
    config, part, written, train_ids = write(tmp_path)
    report = check_set(list_set(config, part), part, label_space(config.label_space))
    assert report.errors == () and report.sound == tuple(range(len(written)))
    assert [files.image for files in report.data.frames] == [truth.image for truth in written]
    assert report.sizes == {written[0].pixels.shape[:2]: len(written)}
    maps = [test_readers.mapped(truth.classes, train_ids) for truth in written]
    counts = np.stack([np.bincount(labels.ravel(), minlength=256) for labels in maps])
    np.testing.assert_array_equal(report.labels.pixels, counts.sum(0))
    np.testing.assert_array_equal(report.labels.frames, (counts > 0).sum(0))
    assert report.labels.labelled == sum((labels != IGNORE).sum() for labels in maps)
    ignored = np.mean([labels == IGNORE for labels in maps])
    assert report.labels.ignored_share == pytest.approx(ignored)
    if written[0].metres is None:
        assert report.depth is None
        return
    metres = np.stack([truth.metres for truth in written])
    known = metres[metres > 0]
    assert report.depth.share == pytest.approx((metres > 0).mean())
    assert report.depth.nearest == pytest.approx(known.min(), rel=1e-5)
    assert report.depth.farthest == pytest.approx(known.max(), rel=1e-5)
    assert list(report.depth.percentiles) == [5, 50, 95]
    for percentage, found in report.depth.percentiles.items():
        exact = np.percentile(known, percentage, method="inverted_cdf")
        assert found == pytest.approx(exact, rel=0.0051), percentage


def test_real_camvid_images(shared):
    """The set has no labels, so none is read."""
    target = TargetConfig(name="camvid", root=str(shared / "data" / "camvid"))
    data = list_set(DataConfig(target=target), "target")
    report = check_set(DataSet(data.name, data.root, data.frames[::10]), "target", CAMVID11)
    assert len(data.frames) == 367 and len(report.sound) == 37
    assert report.sizes == {(360, 480): 37} and report.labels is None and report.depth is None


@pytest.fixture
def broken(tmp_path):
    """Settings of a folder with most kinds of broken files, and the expected errors."""
    formats.write_folder(tmp_path / "set", frames=9)
    classes = write_classes(tmp_path / "classes.yaml")
    image, labels, depth = (tmp_path / "set" / kind for kind in ("images", "labels", "depth"))
    whole = (image / "000000.png").read_bytes()
    (image / "000000.png").write_bytes(whole[: len(whole) // 2])
    cv2.imwrite(str(labels / "000001.png"), np.zeros((5, 7), np.uint8))
    cv2.imwrite(str(labels / "000002.png"), np.full(formats.SIZE, 9, np.uint8))
    cv2.imwrite(str(depth / "000003.png"), np.full(formats.SIZE, 65535, np.uint16))
    (labels / "000004.png").unlink()
    # both of one frame
    (labels / "000005.png").write_bytes(b"")
    cv2.imwrite(str(depth / "000005.png"), np.ones((9, 9), np.uint16))
    (depth / "000006.png").unlink()
    (depth / "000006.png").symlink_to(depth / "nowhere.png")
    cv2.imwrite(str(depth / "000007.png"), np.full((*formats.SIZE, 3), (1, 2, 3), np.uint8))
    source = SourceConfig(root=str(tmp_path / "set"), classes=classes, **FOLDER)
    expected = [
        (image / "000000.png", "unreadable", "not a readable image"),
        (labels / "000001.png", "size", "7x5, but its image"),
        (labels / "000002.png", "values", "unknown ids: 9"),
        (depth / "000003.png", "unreadable", "no pixel has a depth"),
        (labels / "000004.png", "missing", "no such file"),
        (labels / "000005.png", "unreadable", "not a readable image (0 bytes)"),
        (depth / "000005.png", "size", "9x9, but its image"),
        (depth / "000006.png", "missing", "no such file"),
        (depth / "000007.png", "unreadable", "depth map is uint8 with channels that differ"),
    ]
    return settings("cityscapes16", source=source), expected


def flags(config):
    """The settings of both sides as command-line flags."""
    values = {"data.label_space": config.label_space}
    for side in ("source", "target"):
        for name, value in dataclasses.asdict(getattr(config, side)).items():
            if value is not None:
                values[f"data.{side}.{name}"] = value
    return [f"--{name}={value}" for name, value in values.items()]


def test_every_bad_file_is_named_and_the_rest_is_counted(broken):
    config, expected = broken
    data = list_set(config, "source")
    report = check_set(data, "source", CITYSCAPES16)
    assert [error[:2] for error in report.errors] == [error[:2] for error in expected]
    for error, (file, _, words) in zip(report.errors, expected, strict=True):
        assert words in error.message and not error.message.startswith(str(file))
    assert report.sound == (8,) and report.sizes == {formats.SIZE: 8}
    # 0, 1 (of its own size), 3, 6, 7, 8
    assert report.labels.pixels.sum() == 5 * np.prod(formats.SIZE) + 35
    alone = check_set(data, "source", CITYSCAPES16, workers=1)
    np.testing.assert_equal(as_dict(alone, CITYSCAPES16), as_dict(report, CITYSCAPES16))


def test_the_command_line_names_bad_files(broken, tmp_path):
    config, expected = broken
    done = command("data", "check", *flags(config), "--only=source", cwd=tmp_path)
    assert done.returncode == 1
    for file, _, words in expected:
        line = next(line for line in done.stderr.splitlines() if str(file) in line.split(": "))
        assert line.startswith("source: ") and words in line
    assert "error: 9 files are missing or wrong" in done.stderr
    assert "Traceback" not in done.stderr
    rows = [[cell.strip() for cell in line.split("│")] for line in done.stdout.splitlines()]
    rows = {row[0]: row[1] for row in rows if len(row) == 2}
    assert rows["frames"] == "9" and rows["files missing"] == "2"
    assert rows["files unreadable"] == "4" and rows["label maps with unknown values"] == "1"
    assert rows["files of another size than their image"] == "2"
    assert (tmp_path / "data_check.png").is_file()


def test_only_json_lists_more_than_twenty_bad_files(tmp_path):
    formats.write_folder(tmp_path, frames=25)
    for path in (tmp_path / "images").iterdir():
        path.write_bytes(b"\x89PNG half")
    target = ["--data.target.name=folder", f"--data.target.root={tmp_path}", "--only=target"]
    done = command("data", "check", *target, cwd=tmp_path)
    assert done.returncode == 1
    named = [line for line in done.stderr.splitlines() if "not a readable image" in line]
    assert len(named) == 20 and "000019.png" in named[-1]
    assert "target: and 5 more of this kind (unreadable); --json" in done.stderr
    assert not (tmp_path / "data_check.png").exists()
    done = command("data", "check", *target, "--json", cwd=tmp_path)
    found = json.loads(done.stdout)
    assert done.returncode == 1 and not found["sound"] and found["sheet"] is None
    errors = found["sets"]["target"]["errors"]
    assert [Path(error["file"]).stem for error in errors] == [f"{i:06d}" for i in range(25)]
    assert {error["kind"] for error in errors} == {"unreadable"}


@pytest.mark.parametrize("bad", ["empty", "file", "missing", "unset"])
def test_a_set_that_cannot_be_listed_leaves_the_others_checked(tmp_path, bad):
    miniature.write_street_scenes(tmp_path)
    root = tmp_path / "camvid"
    if bad == "file":
        root.write_text("")
    elif bad == "empty":
        root.mkdir()
    arguments = [
        f"--data.source.root={tmp_path}", "--data.source.frames=6", "--data.height=64",
        "--data.width=96", "--data.target.name=camvid",
    ]  # fmt: skip
    if bad != "unset":
        arguments.append(f"--data.target.root={root}")
    done = command("data", "check", *arguments, "--json", cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    found = json.loads(done.stdout)
    assert not found["sound"] and list(found["sets"]) == ["source", "target", "evaluation"]
    assert found["sets"]["source"]["errors"] == [] and found["sets"]["source"]["sound"] == 6
    words = {
        "empty": f"{root}: no image matches", "file": f"{root}: is a file, not a folder",
        "missing": f"{root}: no such folder", "unset": "data.target.root is not set",
    }[bad]  # fmt: skip
    for part in ("target", "evaluation"):
        assert words in found["sets"][part]["error"]
        assert f"{part}: {words}" in done.stderr
    assert "error: target cannot be read, evaluation cannot be read" in done.stderr


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Street scenes as source, CamVid as target, whose training labels are garbage."""
    root = tmp_path_factory.mktemp("check")
    miniature.write_street_scenes(root)
    miniature.write_camvid(root / "camvid", count=2)
    for path in (root / "camvid" / "trainannot").iterdir():
        path.write_bytes(b"garbage")
    arguments = [
        f"--data.source.root={root}", "--data.source.frames=6", "--data.height=64",
        "--data.width=96", "--data.target.name=camvid", f"--data.target.root={root / 'camvid'}",
    ]  # fmt: skip
    return root, arguments


def test_json_of_sound_sets(world, tmp_path):
    _, arguments = world
    done = command(
        "data", "check", *arguments, "--json", "--sheet", tmp_path / "s.jpg", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["sound"] and found["label_space"] == "camvid11"
    assert found["sheet"] == str(tmp_path / "s.jpg") and (tmp_path / "s.jpg").is_file()
    source, target, evaluation = found["sets"].values()
    assert (source["data_set"], target["data_set"]) == ("street scenes", "CamVid")
    assert [part["frames"] for part in (source, target, evaluation)] == [6, 2, 2]
    assert source["sizes"] == [{"width": 96, "height": 64, "images": 6}]
    classes = source["labels"]["classes"]
    assert list(classes) == list(CAMVID11.classes)
    frames = [miniature.street_frame(seed)[1] for seed in range(6)]
    cars = sum(int((ids == STREET_IDS["car"]).sum()) for ids in frames)
    share = cars / sum(ids.size for ids in frames)
    assert classes["car"] == {"pixels": cars, "share": pytest.approx(share), "frames": 6}
    assert classes["tree"] == {"pixels": 0, "share": 0, "frames": 0}
    assert set(source["depth"]["percentiles"]) == {"5", "50", "95"}
    assert target["labels"] is target["depth"] is evaluation["depth"] is None
    assert 0 < evaluation["labels"]["ignored_share"] < 0.2


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory):
    """Flags of a folder as source, whose label maps are mirrored."""
    root = tmp_path_factory.mktemp("mirrored")
    frames = [f.over(ids=f.ids[:, ::-1]) for f in test_plausibility.toys(count=5)]
    source = test_plausibility.write(root / "set", frames)
    (root / "set" / ".hidden.png").write_bytes(b"")
    return flags(DataConfig(source=source))


def test_warnings_are_printed_with_a_picture_and_are_no_errors(mirrored, tmp_path):
    page = ("--report", "check.html")
    done = command("data", "check", *mirrored, "--only=source", *page, cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    assert "labels-flipped" in (tmp_path / "check.html").read_text() and "check.html" in done.stdout
    warning = next(line for line in done.stdout.splitlines() if "warning:" in line)
    assert warning.startswith(
        "warning: source: labels-flipped: labels of 5 of 5 frames fit their images better"
    )
    assert "pictures: data_check_warnings.png" in done.stdout
    rows = [[cell.strip() for cell in line.split("│")] for line in done.stdout.splitlines()]
    assert ["hidden files skipped", "1"] in rows
    sheet = cv2.imread(str(tmp_path / "data_check_warnings.png"))
    height = round(256 * toy_street.SIZE[0] / toy_street.SIZE[1])
    assert sheet.shape == (24 + height + 3, 3 + 3 * 259, 3)
    # with --strict they are errors
    done = command("data", "check", *mirrored, "--only=source", "--strict", cwd=tmp_path)
    assert done.returncode == 1 and "error: 1 warnings with --strict" in done.stderr


def test_json_has_the_warnings(mirrored, tmp_path):
    done = command("data", "check", *mirrored, "--only=source", "--json", cwd=tmp_path)
    assert done.returncode == 0
    found = json.loads(done.stdout)
    (warning,) = found["sets"]["source"]["warnings"]
    assert found["sound"] and found["warnings_sheet"] == "data_check_warnings.png"
    assert warning["rule"] == "labels-flipped" and len(warning["files"]) == 3
    assert found["sets"]["source"]["images"] == [
        {"bits": 8, "bits_used": 8, "orientation": 1, "images": 5}
    ]
    done = command("data", "check", *mirrored, "--only=source", "--json", "--strict", cwd=tmp_path)
    assert done.returncode == 1 and not json.loads(done.stdout)["sound"]


def test_each_of_several_sources_is_a_set(tmp_path):
    roots = [tmp_path / "one", tmp_path / "two"]
    frames = test_plausibility.toys(count=1)
    sources = [test_plausibility.write(root, frames) for root in roots]
    config = DataConfig(sources=sources)
    assert part_names(config) == ("source 1", "source 2", "target", "evaluation")
    assert [list_set(config, f"source {k}").root for k in (1, 2)] == roots


def test_tables_and_sheet_of_sound_sets(world, tmp_path):
    _, arguments = world
    done = command("data", "check", *arguments, cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    for words in (*CAMVID11.classes, "96x64 (6)", "128x96 (2)", "pictures: data_check.png"):
        assert words in done.stdout
    sheet = cv2.imread(str(tmp_path / "data_check.png"))[..., ::-1]
    # six pictures of 256x192 in three groups, of at most four frames
    assert sheet.shape == (24 + 4 * (192 + 3), 6 * (256 + 3) + 3 + 2 * 12, 3)


def test_sheet_shows_labels_in_their_colours_and_depth(tmp_path):
    config, part, written, _ = of_street_scenes(tmp_path)
    sheet = contact_sheet(
        {"source": check_set(list_set(config, part), part, label_space(config.label_space))},
        CAMVID11,
    )
    height, width = round(256 * 64 / 96), 256
    assert sheet.shape == (24 + 4 * (height + 3), 3 + 3 * (width + 3), 3)
    # frames are evenly spaced: the first and the last are on it
    for row, index in ((0, 0), (3, 5)):
        top, left = 24 + row * (height + 3), 3 + width + 3
        labels = sheet[top : top + height, left : left + width]
        depth = sheet[top : top + height, left + width + 3 : left + 2 * width + 3]
        assert (sheet[top : top + height, 3 : 3 + width].std(axis=(0, 1)) > 1).all()
        expected = np.zeros((*miniature.SIZE, 3), np.uint8)
        for name in ("sky", "road", "car"):
            colour = CAMVID11.colours[CAMVID11.classes.index(name)]
            expected[written[index].classes == STREET_IDS[name]] = colour
        rows = ((np.arange(height) + 0.5) * 64 / height).astype(int)
        columns = ((np.arange(width) + 0.5) * 96 / width).astype(int)
        np.testing.assert_array_equal(labels, expected[rows][:, columns])
        known = written[index].metres[rows][:, columns] > 0
        assert (depth[~known] == 0).all() and depth[known].any(axis=-1).all()
        # near is bright
        assert depth[-1].sum() > depth[known.any(axis=1)][1].sum()


def test_pictures_of_another_shape_have_margins(tmp_path):
    frames = []
    for name, size in (("a", (100, 200)), ("b", (100, 200)), ("c", (200, 100))):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((*size, 3), 90, np.uint8))
        frames.append(FrameFiles(tmp_path / f"{name}.png"))
    report = check_set(DataSet("mixed", tmp_path, frames), "mixed", CAMVID11)
    assert list(report.sizes.items()) == [((100, 200), 2), ((200, 100), 1)]
    sheet = contact_sheet({"mixed": report}, CAMVID11)
    assert sheet.shape == (24 + 3 * 131, 256 + 6, 3)
    tall = sheet[24 + 2 * 131 : 24 + 2 * 131 + 128, 3 : 3 + 256]
    assert (tall[:, :96] == 255).all() and (tall[:, 96:160] == 90).all()


def test_a_target_without_labels_scores_nothing_and_is_sound(tmp_path):
    formats.write_folder(tmp_path)
    config = DataConfig(target=TargetConfig(name="folder", root=str(tmp_path)))
    report = check_set(list_set(config, "evaluation"), "evaluation", CAMVID11)
    assert report.data.frames == [] and report.errors == () and report.labels is None
    assert contact_sheet({"evaluation": report}, CAMVID11) is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data.source.name=vkitti2"], ["kitti10", "camvid11"]),
        (["--data.height=3"], ["data.height is 3"]),
        (["--only=test"], ["only"]),
        (["--sheet=sheet.gif"], ["sheet.gif", ".png"]),
        (["--sheet=no/sheet.png"], ["no/sheet.png", "folder"]),
        (["--report=check.pdf"], ["check.pdf", ".html"]),
        (["--config=no_such"], ["no_such"]),
    ],
)
def test_wrong_settings(tmp_path, arguments, words):
    done = command("data", "check", *arguments, cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_ends_a_process_is_named(tmp_path):
    written = formats.write_folder(tmp_path, frames=30)
    files = [FrameFiles(w.image, tmp_path / "labels" / w.image.name) for w in written]
    report = check_set(
        DataSet("fatal", tmp_path, files, fatal_readers.end_the_process),
        "fatal",
        CAMVID11,
        workers=2,
    )
    first, second, third = report.errors
    assert first.file == files[1].image and "the process that read this frame" in first.message
    assert second.file == files[2].labels
    assert second.message == "KeyError: 'no reader raises this'"
    assert third.file == files[4].image
    assert report.sound == (0, 3, *range(5, 30))
    assert report.labels.pixels.sum() == 27 * np.prod(formats.SIZE)


def test_processes_that_always_die_raise(tmp_path):
    """For example in a script that starts processes on import."""
    written = formats.write_folder(tmp_path, frames=2)
    fatal = FrameFiles(written[1].image, tmp_path / "labels" / "000001.png")
    data = DataSet("fatal", tmp_path, [fatal] * 9, fatal_readers.end_the_process)
    with pytest.raises(RuntimeError, match="whichever frame they read first"):
        check_set(data, "fatal", CAMVID11, workers=1)


def test_ctrl_c_ends_the_check_and_its_processes(tmp_path):
    written = formats.write_folder(tmp_path)
    program = f"""
import signal
from pathlib import Path
from gioada_fast.data.check import check_set
from gioada_fast.data.files import DataSet, FrameFiles
from gioada_fast.labels import label_space
from tests.data.fatal_readers import wait_a_minute
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
images = {[str(w.image) for w in written]}
files = [FrameFiles(Path(i), Path(i)) for i in images]
print("begin", flush=True)
check_set(DataSet("slow", Path(), files, wait_a_minute), "slow", label_space("camvid11"))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[2], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    assert process.stdout.readline() == "begin\n"
    while not list(tmp_path.rglob("*.begun")):
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    # returns when the last of its processes has closed the output
    process.communicate(timeout=50)  # less than a minute, after which the readers return
    assert process.returncode != 0


def test_readers_and_label_spaces_reach_other_processes(tmp_path):
    cv2.imwrite(str(tmp_path / "i.png"), np.zeros((4, 4, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "l.png"), np.zeros((4, 4), np.uint8))
    cv2.imwrite(str(tmp_path / "d.png"), np.full((4, 4), 150, np.uint16))
    files = [FrameFiles(*(tmp_path / f"{name}.png" for name in "ild"))]
    data = DataSet("tiny", tmp_path, files, id_labels({0: 3}), CENTIMETRES)
    report = check_set(data, "tiny", CAMVID11)
    assert report.labels.pixels[3] == 16
    assert report.depth.nearest == report.depth.farthest == 1.5
    assert set(report.depth.percentiles.values()) == {1.5}
    assert all(hash(label_space(name)) is not None for name in BUILT_IN_SPACES)
