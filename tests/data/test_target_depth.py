"""Depth maps of the target's training images: which file is whose, values, packs, the firewall."""

import sys
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from gioada_fast import street_scenes
from gioada_fast.config import TARGET_SEED, Config, DataConfig, SourceConfig, TargetConfig
from gioada_fast.data import sets
from gioada_fast.data.check import check_set, list_set
from gioada_fast.data.loader import PairStream
from gioada_fast.data.pack_writer import pack
from gioada_fast.errors import InputError
from gioada_fast.labels import label_space

from ..commands import command
from ..miniature import LOOK, SIZE, flags, write_street_scenes
from . import formats, toy_street
from .raster_files import GREY, npy, png, tiff

STREETS = "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit"


def values(index: int, size=SIZE) -> np.ndarray:
    """Relative depth that differs at every pixel, uint16 [H, W]."""
    return (np.arange(size[0] * size[1], dtype=np.uint16) + 1000 * index + 1).reshape(size)


def write_maps(root: Path, names, size=SIZE) -> None:
    for index, name in enumerate(names):
        path = root / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(values(index, size), 16, GREY))


def cityscapes(folder: Path, cities=("aachen", "bochum"), **target) -> DataConfig:
    formats.write_cityscapes(folder / "set", cities=cities, size=SIZE)
    return config(name="cityscapes", root=str(folder / "set"), **target)


def config(height=SIZE[0], width=SIZE[1], **target) -> DataConfig:
    target = {"depth_kind": "relative", **target}
    return DataConfig(target=TargetConfig(**target), height=height, width=width)


# paths of the maps of Cityscapes' images, relative to the root, and the pattern that finds them
PLACES = {
    "the image's name": ("pseudo/{name}", "pseudo/*.png"),
    "its folder": ("pseudo/{city}/{name}", "pseudo/*.png"),
    "all its folders": ("pseudo/leftImg8bit/train/{city}/{name}", "pseudo/*"),
    "a suffix": ("pseudo/{city}/{name}_depth", "pseudo/*_depth.png"),
    "beside the image": ("leftImg8bit/train/{city}/{name}_depth", "*_depth.png"),
    "beside the set": ("../pseudo/{name}", "../pseudo/*"),
}


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("place", PLACES)
def test_maps_are_found_by_the_path_of_the_image(tmp_path, place, absolute):
    path, pattern = PLACES[place]
    root = tmp_path / "set"
    pattern = str(root / pattern) if absolute else pattern
    data = cityscapes(tmp_path, depth=pattern)
    images = [Path(image) for image in sets.target_images(data).paths]
    names = [path.format(name=image.stem, city=image.parent.name) for image in images]
    write_maps(root, names)
    write_maps(root / "pseudo", ["other"])  # belongs to no image
    target = sets.target_images(data, depth=True)
    assert target.has_depth and [image.stem for image in target.paths] == [i.stem for i in images]
    for index in range(2):
        image, depth = target.with_depth(index)
        np.testing.assert_array_equal(image, target[index])
        assert depth.dtype == np.float32
        np.testing.assert_array_equal(depth, values(index))


def test_a_folder_pairs_depth_as_it_pairs_labels(tmp_path):
    formats.write_folder(tmp_path, images="rgb/{}_rgb.png", depth="z/{}_z.png", size=SIZE)
    target = {"name": "folder", "root": str(tmp_path), "images": "rgb/*_rgb", "depth": "z/*_z"}
    stored = cv2.imread(str(tmp_path / "z/000001_z.png"), -1)
    for kind, expected in (
        ("relative", stored), ("metres", np.where(stored == 65535, 0, stored) / 1000)
    ):  # fmt: skip
        per_metre = 1000 if kind == "metres" else None
        data = config(**target, depth_kind=kind, depth_per_metre=per_metre)
        _, depth = sets.target_images(data, depth=True).with_depth(1)
        np.testing.assert_allclose(depth, expected, rtol=1e-6)
        # relative depth is no measure of the prediction
        data.target.labels, data.target.classes = "labels/*", dict.fromkeys(range(256), "road")
        assert (sets.evaluation_frames(data)[1].depth is None) == (kind == "relative")


def test_own_depth_is_that_of_the_data_set(tmp_path):
    write_street_scenes(tmp_path)
    data = config(root=str(tmp_path), frames=5, depth="own", depth_kind="metres")
    target = sets.target_images(data, depth=True)
    centimetres = cv2.imread(str(target.depth_paths[3]), -1)
    np.testing.assert_allclose(target.with_depth(3)[1], centimetres / 100, rtol=1e-6)
    assert not sets.target_images(data).has_depth


STORED = {
    "8 bits": (".png", png(values(0) % 256, 8, GREY), values(0) % 256),
    "16 bits": (
        ".png",
        png(65536 - values(0).astype(int), 16, GREY),
        65536 - values(0).astype(int),
    ),
    "float": (".npy", npy(values(0) / np.float64(7) - 20), values(0) / 7 - 20),
    "nan and inf": (
        ".tif",
        tiff(np.where(values(0) < 9, (np.nan, np.inf, -np.inf) * 32, values(0)).astype("f4")),
        np.where(values(0) < 9, 0, values(0)),
    ),
    "64-bit whole numbers": (".npy", npy(values(0).astype(np.int64) * 10), values(0) * 10.0),
}


@pytest.mark.parametrize("stored", STORED)
def test_relative_depth_is_read_as_stored(tmp_path, stored):
    suffix, content, expected = STORED[stored]
    data = cityscapes(tmp_path, cities=("aachen",), depth=f"pseudo/*{suffix}")
    (tmp_path / "set/pseudo").mkdir()
    (tmp_path / f"set/pseudo/aachen_000000_000019_leftImg8bit{suffix}").write_bytes(content)
    _, depth = sets.target_images(data, depth=True).with_depth(0)
    np.testing.assert_allclose(depth, expected, rtol=1e-6)
    report = check_set(list_set(data, "target"), "target", label_space("camvid11"), workers=0)
    assert report.errors == () and report.depth is None


NAMES = ("aachen_000000_000019_leftImg8bit", "bochum_000000_000019_leftImg8bit")
WRONG = [
    ("missing", {}, lambda p: (p / f"{NAMES[1]}.png").unlink(),
     ("1 files that belong to images are missing", f"{NAMES[1]}.png", "pseudo contains 1 .png")),
    ("all missing", {"depth": "psuedo/*.png"}, lambda p: None,
     ("2 files that belong to images are missing", "there is no folder")),
    ("another size", {}, lambda p: write_maps(p, NAMES, (40, 50)), ("50x40", "is 96x64")),
    ("no value", {}, lambda p: [(p / f"{n}.png").write_bytes(png(np.zeros(SIZE, int), 16, GREY))
                                for n in NAMES], ("no pixel has a depth",)),
    ("unset", {"depth": None}, lambda p: None, ("data.target.depth is not set",)),
    ("no own", {"depth": "own", "depth_kind": "metres"}, lambda p: None,
     ("data.target.depth is own, but Cityscapes has no depth maps",)),
    ("pattern", {"depth": "pseudo"}, lambda p: None, ("pattern 'pseudo'", "one '*'")),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "change", "words"), [row[1:] for row in WRONG],
                         ids=[row[0] for row in WRONG])  # fmt: skip
def test_wrong_maps_are_refused_with_their_names(tmp_path, settings, change, words):
    data = cityscapes(tmp_path, **{"depth": "pseudo/*.png", **settings})
    write_maps(tmp_path / "set/pseudo", NAMES)
    change(tmp_path / "set/pseudo")
    with pytest.raises(InputError) as error:
        target = sets.target_images(data, depth=True)
        for index in range(len(target)):
            target.with_depth(index)
    assert all(word in str(error.value) for word in words), error.value
    assert len(sets.target_images(data)) == 2  # without depth they do no harm
    if data.target.depth in ("pseudo/*.png", "psuedo/*.png"):
        report = check_set(list_set(data, "target"), "target", label_space("camvid11"), workers=0)
        assert report.errors


def test_maps_that_two_images_would_share_are_refused(tmp_path):
    data = cityscapes(tmp_path, depth="pseudo/*")
    image = tmp_path / f"set/{STREETS}.png"
    image.with_name("1.png").write_bytes(image.read_bytes())
    (tmp_path / "set/leftImg8bit/train/bochum/1.png").write_bytes(image.read_bytes())
    for path in (tmp_path / "set/leftImg8bit").rglob("1.png"):
        path.rename(path.with_name("1_leftImg8bit.png"))
    write_maps(tmp_path / "set/pseudo", ["1_leftImg8bit", *NAMES])
    with pytest.raises(InputError, match=r"would share a map of data\.target\.depth = pseudo/"):
        sets.target_images(data, depth=True)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"depth_kind": "relative", "depth_per_metre": 10}, "relative, which has no unit"),
        ({"depth_kind": "relative", "depth": "own"}, "leave out data.target.depth_kind"),
    ],
)
def test_settings_that_contradict_each_other(settings, words):
    with pytest.raises(InputError, match=words):
        TargetConfig(**settings)
    with pytest.raises(InputError, match="a source needs metres"):
        SourceConfig(depth_kind="relative")


def test_an_oracle_does_not_learn_relative_depth(tmp_path):
    data = cityscapes(tmp_path, depth="pseudo/*")
    assert sets.supervised(data).source.depth is None


def test_labels_are_no_depth(tmp_path):
    formats.write_folder(tmp_path, size=SIZE)
    data = config(name="folder", root=str(tmp_path), labels="labels/*", depth="labels/*",
                  classes=dict.fromkeys(range(256), "road"))  # fmt: skip
    with pytest.raises(InputError, match="which has labels of the target"):
        sets.target_images(data, depth=True)


class Source:
    has_depth = True

    def __init__(self, frames):
        self.frames = frames

    def __len__(self):
        return len(self.frames)

    def __getitem__(self, index):
        return self.frames[index]


def pairs(data, target, size, unreadable=0):
    frame = (np.zeros((*size, 3), np.uint8), np.zeros(size, np.uint8), np.zeros(size, np.float32))
    stream = PairStream(Source([frame]), target, 0, True, size, unreadable)
    return [stream[k] for k in range(12)]


def test_maps_get_the_crops_and_flips_of_their_images_from_files_and_packs(tmp_path):
    data = cityscapes(tmp_path, depth="pseudo/*.png", height=80, width=128)
    data.height, data.width = 64, 70
    write_maps(tmp_path / "set/pseudo", NAMES, SIZE)
    for index, name in enumerate(NAMES):  # an image that shows its map
        maps = values(index)
        image = np.stack([maps >> 8, maps & 255, 0 * maps], -1).astype(np.uint8)
        cv2.imwrite(
            str(tmp_path / f"set/leftImg8bit/train/{name[:6]}/{name}.png"), image[..., ::-1]
        )
    data.target.height, data.target.width = SIZE
    found = pairs(data, sets.target_images(data, depth=True), (64, 70))
    flipped = 0
    for pair, errors in found:
        image, (depth,) = pair["target_image"].astype(int), pair["target_depth"]
        assert not errors and depth.dtype == np.float32 and depth.shape == (64, 70)
        np.testing.assert_array_equal(depth, 256 * image[..., 0] + image[..., 1])
        flipped += int(depth[0, 0] > depth[0, 1])
    assert 0 < flipped < 12
    without = pairs(data, sets.target_images(data), (64, 70))
    for (pair, _), (other, _) in zip(found, without, strict=True):
        assert "target_depth" not in other
        assert all(np.array_equal(pair[name], other[name]) for name in other)
    data.packs = str(tmp_path / "packs")
    data.source = SourceConfig(name="cityscapes", root=data.target.root)
    pack(data, lambda _: None, workers=0)
    assert np.load(tmp_path / "packs/target/depth.npy").dtype == np.float32
    for (pair, _), (other, _) in zip(
        found, pairs(data, sets.target_images(data, depth=True), (64, 70)), strict=True
    ):
        assert all(np.array_equal(pair[name], other[name]) for name in pair)
    assert "target_depth" not in pairs(data, sets.target_images(data), (64, 70))[0][0]
    data.target.depth = "other/*.png"
    with pytest.raises(InputError, match=r"data\.target\.depth = 'pseudo/\*\.png', the settings"):
        sets.target_images(data, depth=True)
    assert len(sets.target_images(data)) == 2


def test_a_pack_without_depth_serves_runs_that_read_none(tmp_path):
    formats.write_folder(tmp_path / "set", size=SIZE)
    data = config(name="folder", root=str(tmp_path / "set"), depth="scored/*")
    data.source = SourceConfig(name="cityscapes", root=str(tmp_path / "source"))
    formats.write_cityscapes(tmp_path / "source", size=SIZE)
    data.packs = str(tmp_path / "packs")
    pack(data, lambda _: None, workers=0)  # the maps of no training image exist
    assert len(sets.target_images(data)) == 3
    assert list_set(data, "target").depth is None
    with pytest.raises(InputError, match=r"data\.target\.depth = None, the settings say 'scored"):
        sets.target_images(data, depth=True)


def test_a_map_that_cannot_be_read_is_replaced_together_with_its_image(tmp_path):
    data = cityscapes(tmp_path, depth="pseudo/*.png")
    write_maps(tmp_path / "set/pseudo", NAMES)
    (tmp_path / f"set/pseudo/{NAMES[0]}.png").write_bytes(b"not a map")
    found = pairs(data, sets.target_images(data, depth=True), SIZE, unreadable=1)
    assert any(NAMES[0] in message for _, errors in found for message in errors)
    assert all(pair["target_depth"].min() == values(1).min() for pair, _ in found)


@pytest.mark.parametrize(("nearer", "rules"), [(True, set()), (False, {"depth-does-not-fall"})])
def test_check_warns_of_relative_depth_that_is_larger_where_it_is_farther(tmp_path, nearer, rules):
    data = cityscapes(tmp_path, depth="pseudo/*.npy")
    (tmp_path / "set/pseudo").mkdir()
    for name, frame in zip(NAMES, toy_street.frames(2), strict=True):
        known = np.maximum(frame.metres, 1)
        maps = np.where(frame.metres > 0, 5 + 100 / known if nearer else known, 0)
        (tmp_path / f"set/pseudo/{name}.npy").write_bytes(npy(maps.astype(np.float32)))
        image = tmp_path / f"set/leftImg8bit/train/{name[:6]}/{name}.png"
        cv2.imwrite(str(image), frame.image[..., ::-1])
    report = check_set(list_set(data, "target"), "target", label_space("camvid11"), workers=0)
    found = {w.rule for w in report.warnings if w.rule.startswith("depth")}
    assert found == rules, report.warnings


_OPENED: list[str] | None = None


def _watch(event: str, arguments: tuple) -> None:
    if _OPENED is not None and event == "open":
        _OPENED.append(str(arguments[0]))


@contextmanager
def opened_files():
    """The files that Python opens in a block."""
    global _OPENED
    if not getattr(_watch, "added", False):
        sys.addaudithook(_watch)  # cannot be removed
        _watch.added = True
    _OPENED = []
    try:
        yield _OPENED
    finally:
        _OPENED = None


def test_training_opens_the_targets_images_and_depth_and_never_its_labels(tmp_path):
    write_street_scenes(tmp_path / "scenes")
    settings = flags(tmp_path / "scenes", tmp_path, **{
        "adaptation.lambda_target_depth": 1, "data.target.depth": "own",
        "adaptation.input_level": "none", "adaptation.output_level": "none",
        "schedule.source_only_steps": 0, "schedule.adaptation_steps": 3,
    })  # fmt: skip
    with opened_files() as opened:
        done = command("train", *settings, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    frames = [street_scenes.frame_paths(tmp_path / "scenes", LOOK, SIZE, TARGET_SEED + k)
              for k in range(5)]  # fmt: skip
    for kind, expected in (("image", True), ("depth", True), ("labels", False)):
        paths = {str(getattr(frame, kind)) for frame in frames}
        assert bool(paths & set(opened)) is expected, kind


def test_depth_that_training_needs_must_be_named(tmp_path):
    write_street_scenes(tmp_path / "scenes")
    settings = flags(tmp_path / "scenes", tmp_path, **{"adaptation.lambda_target_depth": 1})
    done = command("train", *settings, cwd=tmp_path)
    assert done.returncode == 2 and "set data.target.depth to their pattern" in done.stderr
    assert Config().adaptation.reads_target_depth is False
