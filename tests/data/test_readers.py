"""Every format, written by ``formats`` and read back value for value."""

import shutil
from itertools import product

import cv2
import numpy as np
import pytest

from gioada_fast.config import DataConfig, SourceConfig, TargetConfig
from gioada_fast.data import sets
from gioada_fast.data.files import DataSet, FrameFiles
from gioada_fast.data.readers import carla
from gioada_fast.errors import InputError
from gioada_fast.labels import IGNORE, label_space

from . import formats

# Train ids by the data set's own id or name, for 16 classes (SYNTHIA, Cityscapes) and KITTI's 10.
SYNTHIA16 = {3: 0, 4: 1, 2: 2, 21: 3, 5: 4, 7: 5, 15: 6, 9: 7, 6: 8, 1: 9, 10: 10, 17: 11, 8: 12,
             19: 13, 12: 14, 11: 15}  # fmt: skip
CITYSCAPES16 = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 23: 9, 24: 10, 25: 11,
                26: 12, 28: 13, 32: 14, 33: 15}  # fmt: skip
CITYSCAPES19 = {
    label: i
    for i, label in enumerate(
        (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
    )
}
KITTI10_OF_CITYSCAPES = {7: 0, 11: 1, 17: 2, 19: 3, 20: 4, 21: 5, 22: 6, 23: 7, 26: 8, 27: 9}
KITTI10_OF_VKITTI = {
    "Road": 0, "Building": 1, "Pole": 2, "TrafficLight": 3, "TrafficSign": 4, "Tree": 5,
    "Vegetation": 5, "Terrain": 6, "Sky": 7, "Car": 8, "Van": 8, "Truck": 9,
}  # fmt: skip
THIRTEEN_OF_SIXTEEN = [i for i in range(16) if i not in (3, 4, 5)]  # wall, fence, pole
# CARLA's tags to Cityscapes's 19 train ids
CARLA19 = {1: 2, 2: 4, 4: 11, 5: 5, 6: 0, 7: 0, 8: 1, 9: 8, 10: 13, 11: 3, 12: 7, 13: 10, 18: 6,
           22: 9}  # fmt: skip
CARLA19_SINCE_14 = {**{i: i - 1 for i in range(1, 20)}, 24: 0}
TRAIN_IDS19 = {i: i for i in range(19)}
CAMVID_OF_TRAIN_IDS = {0: 3, 1: 4, 2: 1, 3: 1, 4: 7, 5: 2, 6: 6, 7: 6, 8: 5, 9: 5, 10: 0, 11: 9,
                       12: 10, 13: 8, 14: 8, 15: 8, 17: 10, 18: 10}  # fmt: skip
VISTAS19 = {
    "v1.2": {13: 0, 24: 0, 41: 0, 2: 1, 15: 1, 17: 2, 6: 3, 3: 4, 45: 5, 47: 5, 48: 6, 50: 7,
             30: 8, 29: 9, 27: 10, 19: 11, 20: 12, 21: 12, 22: 12, 55: 13, 61: 14, 54: 15, 58: 16,
             57: 17, 52: 18},
    # lane markings 35 to 58, among which 45 and 56 are crosswalks
    "v2.0": {21: 0, 74: 0, **{i: 0 for i in range(35, 59) if i not in (45, 56)}, 4: 1, 24: 1,
             27: 2, 28: 2, 12: 3, 5: 4, 85: 5, 88: 5, **{i: 6 for i in range(90, 96)}, 99: 7,
             100: 7, 101: 7, 103: 7, 64: 8, 63: 9, 61: 10, 30: 11, 31: 11, 32: 12, 33: 12, 34: 12,
             108: 13, 114: 14, 107: 15, 111: 16, 110: 17, 105: 18},
}  # fmt: skip
IDD19_OF_LEVEL_3 = {0: 0, 2: 1, 22: 2, 14: 3, 15: 4, 20: 5, 19: 6, 18: 7, 24: 8, 3: 9, 25: 10,
                    4: 11, 5: 12, 9: 13, 10: 14, 11: 15, 6: 17, 7: 18}  # fmt: skip

# Counted with OpenCV and NumPy alone.
CITYSCAPES_SAMPLE = {
    "road": 9740, "sidewalk": 2628, "building": 12744, "fence": 44, "pole": 396,
    "traffic sign": 188, "vegetation": 664, "sky": 581, "person": 107, "car": 1802,
}  # fmt: skip
CAMVID_VAL = {
    "sky": 0.092, "building": 0.26, "pole": 0.006, "road": 0.29, "pavement": 0.087, "tree": 0.163,
    "sign": 0.009, "fence": 0.031, "car": 0.017, "pedestrian": 0.007, "bicyclist": 0.022,
}  # fmt: skip


def mapped(classes, train_ids):
    table = np.full(256, IGNORE, np.uint8)
    for native, train_id in train_ids.items():
        table[native] = train_id
    return table[classes]


def by_name(names, train_ids):
    return {i: train_ids[name] for i, name in enumerate(names) if name in train_ids}


def source_config(root, name, space, size=formats.SIZE, **settings):
    source = SourceConfig(name=name, root=str(root), height=size[0], width=size[1], **settings)
    return _data(space, size, source=source)


def _data(space, size, **sides):
    """Settings that keep the images' size, even below the minimum."""
    data = DataConfig(label_space=space)
    data.height, data.width = size
    for name, side in sides.items():
        setattr(data, name, side)
    return data


def assert_source(config, written, train_ids):
    frames = sets.source_frames(config)
    assert len(frames) == len(written)
    for frame, truth in zip((frames[i] for i in range(len(frames))), written, strict=True):
        np.testing.assert_array_equal(frame.image, truth.pixels)
        np.testing.assert_array_equal(frame.labels, mapped(truth.classes, train_ids))
        assert frame.depth.dtype == np.float32
        metres = np.zeros(truth.classes.shape) if truth.metres is None else truth.metres
        np.testing.assert_allclose(frame.depth, metres, rtol=1e-6)
        np.testing.assert_array_equal(frame.depth == 0, metres == 0)
    assert frames.has_depth == (written[0].metres is not None)


def test_vkitti_has_other_colours_in_every_world_and_variation(tmp_path):
    written = formats.write_vkitti(tmp_path)
    train_ids = by_name(formats.VKITTI_CLASSES, KITTI10_OF_VKITTI)
    assert_source(source_config(tmp_path, "vkitti", "kitti10"), written, train_ids)


def test_vkitti2(tmp_path):
    written = formats.write_vkitti2(tmp_path)
    train_ids = by_name(formats.VKITTI2_CLASSES, KITTI10_OF_VKITTI)
    config = source_config(tmp_path, "vkitti2", "kitti10")
    assert_source(config, written, train_ids)
    for path in tmp_path.rglob("colors.txt"):
        path.unlink()
    assert_source(config, written, train_ids)


def test_include_selects_variations(tmp_path):
    written = formats.write_vkitti(tmp_path)
    config = source_config(tmp_path, "vkitti", "kitti10", include="*/0002/fog/*")
    frames = sets.source_frames(config)
    expected = [w.image for w in written if "0002" in w.image.parts and "fog" in w.image.parts]
    assert [files.image for files in frames.data.frames] == expected and expected
    config.source.include = "*/0007/*"
    with pytest.raises(InputError, match=r"include is '\*/0007/\*', which none of the 8 images"):
        sets.source_frames(config)


@pytest.mark.parametrize("parsed", [None, "parsed_LABELS", "GT/parsed_LABELS"])
@pytest.mark.parametrize("depth_folder", ["Depth/Depth", "Depth"])
def test_synthia(tmp_path, parsed, depth_folder):
    settings = {} if parsed is None else {"parsed": True, "parsed_folder": parsed}
    written = formats.write_synthia(tmp_path, depth_folder=depth_folder, **settings)
    config = source_config(tmp_path, "synthia", "cityscapes16")
    assert_source(config, written, SYNTHIA16)
    config.label_space = "cityscapes13"
    thirteen = {k: THIRTEEN_OF_SIXTEEN.index(v) for k, v in SYNTHIA16.items()
                if v in THIRTEEN_OF_SIXTEEN}  # fmt: skip
    assert_source(config, written, thirteen)


NEWER_TAGS = {"ids": range(29), "road": 1, "sky": 11}


@pytest.mark.parametrize(
    ("tags", "train_ids", "name"),
    [({}, CARLA19, "carla_0_9_10"), (NEWER_TAGS, CARLA19_SINCE_14, "carla_0_9_14")],
)
def test_carla_with_the_tags_of_either_version(tmp_path, tags, train_ids, name):
    written = formats.write_carla(tmp_path, **tags)
    config = source_config(tmp_path, "carla", "cityscapes19")
    assert_source(config, written, train_ids)
    data = sets.source_frames(config).data
    assert data.name == carla.TABLES[name].name and carla.recognise(data) == name
    config.source.classes = name
    assert_source(config, written, train_ids)
    shutil.rmtree(tmp_path / "depth")
    without = [truth._replace(metres=None) for truth in written]
    assert_source(config, without, train_ids)


def test_tags_of_carla_that_draw_neither_version(tmp_path):
    written = formats.write_carla(tmp_path, road=None)
    config = source_config(tmp_path, "carla", "cityscapes19")
    with pytest.raises(
        InputError, match=r"cannot tell the version of CARLA.*data\.source\.classes"
    ):
        sets.source_frames(config)
    config.source.classes = "carla_0_9_10"
    assert_source(config, written, CARLA19)
    assert carla.recognise(sets.source_frames(config).data) is None
    for path in (tmp_path / "semantic").iterdir():
        path.write_bytes(b"")
    assert carla.recognise(sets.source_frames(config).data) is None


def test_a_table_of_carla_that_contradicts_the_pictures(tmp_path):
    formats.write_carla(tmp_path, **NEWER_TAGS)
    config = source_config(tmp_path, "carla", "cityscapes19", classes="carla_0_9_10")
    assert carla.recognise(sets.source_frames(config).data) == "carla_0_9_14"
    config.source.classes = "carla_0_9_15"
    with pytest.raises(
        InputError, match=r"classes is 'carla_0_9_15', expected one of carla_0_9_10"
    ):
        sets.source_frames(config)


def test_a_class_map_for_the_tags_of_carla(tmp_path):
    written = formats.write_carla(tmp_path, ids=(7, 13, 99))
    classes = {"7": "road", "13": "sky", "99": None}
    (tmp_path / "tags.yaml").write_text("7: road\n13: sky\n99: null\n")
    for value in (classes, str(tmp_path / "tags.yaml")):
        config = source_config(tmp_path, "carla", "cityscapes19", classes=value)
        assert_source(config, written, {7: 0, 13: 10})
    config.source.classes = {"7": "road", "13": "sky"}
    with pytest.raises(InputError, match="99"):
        sets.source_frames(config)[0]
    config.source.unknown_labels = "ignore"
    assert_source(config, written, {7: 0, 13: 10})
    own = {"floor": {"colour": [1, 2, 3]}, "forklift": {"colour": [4, 5, 6]}}
    config.label_space = {"name": "warehouse", "classes": own}
    config.source.classes = {"7": "floor", "99": "forklift", "13": None}
    assert_source(config, written, {7: 0, 99: 1})


def test_one_real_label_map_decides_between_the_versions_of_carla(tmp_path, shared):
    newer = {label: train_id + 1 for label, train_id in CITYSCAPES19.items()}
    older = {7: 7, 8: 8, 11: 1, 12: 11, 13: 2, 17: 5, 19: 18, 20: 12, 21: 9, 22: 22, 23: 13, 24: 4,
             25: 4, **dict.fromkeys(range(26, 34), 10)}  # fmt: skip
    paths = sorted((shared / "data" / "kitti" / "training" / "semantic").iterdir())[:10]
    assert paths
    for path, (name, tags) in product(
        paths, {"carla_0_9_10": older, "carla_0_9_14": newer}.items()
    ):
        ids = mapped(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), tags)
        cv2.imwrite(str(tmp_path / "tags.png"), np.dstack([0 * ids, 0 * ids, ids % IGNORE]))
        files = FrameFiles(tmp_path / "tags.png", tmp_path / "tags.png")
        assert carla.recognise(DataSet("", tmp_path, [files])) == name, path


def test_patterns_describe_another_layout_of_carla(tmp_path):
    patterns = {
        "images": "img/{}_img_front.jpg",
        "labels": "semseg/{}_semseg_front.png",
        "depth": "depth/{}_depth_front.png",
    }
    nested = {name: pattern.replace("{}", "c6ae-003a/{}") for name, pattern in patterns.items()}
    written = formats.write_carla(tmp_path, **nested)
    settings = {name: pattern.replace("{}", "*") for name, pattern in patterns.items()}
    config = source_config(tmp_path, "carla", "cityscapes19", classes="shift", **settings)
    assert_source(config, written, CARLA19)


@pytest.mark.parametrize(
    "layout", [{"archives": True}, {"archives": False}, {"archives": False, "own_folders": True}]
)
def test_shift_as_downloaded_and_unpacked_in_either_way(tmp_path, layout):
    written = formats.write_shift(tmp_path, **layout)
    formats.write_shift(tmp_path, split="val", seed=7)
    assert_source(source_config(tmp_path, "shift", "cityscapes19"), written, CARLA19)
    (tmp_path / "val").mkdir()
    written = formats.write_shift(tmp_path / "val", split="val", depth=False)
    config = source_config(tmp_path / "val", "shift", "cityscapes19", split="val")
    assert_source(config, written, CARLA19)


@pytest.mark.parametrize(
    ("space", "train_ids"),
    [("cityscapes19", CITYSCAPES19), ("kitti10", KITTI10_OF_CITYSCAPES)],
)
def test_gta5(tmp_path, space, train_ids):
    written = formats.write_gta5(tmp_path)
    assert_source(source_config(tmp_path, "gta5", space), written, train_ids)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("unit", "name"), [(1e5, "100 km"), (1, "metres")])
def test_urbansyn(tmp_path, channels, unit, name):
    written = formats.write_urbansyn(tmp_path, channels=channels, unit=unit)
    config = source_config(tmp_path, "urbansyn", "cityscapes19")
    assert_source(config, written, TRAIN_IDS19)
    assert sets.source_frames(config).data.name == f"UrbanSyn (depth in {name})"


def test_archives_of_gta5_and_acdc_as_downloaded(tmp_path):
    written = formats.write_gta5(tmp_path / "gta5", frames=4)
    formats.pack_into_archives(
        tmp_path / "gta5", {"01_images": "images/0000[12]*", "02_images": "images/0000[34]*",
                            "01_labels": "labels/*"},
    )  # fmt: skip
    config = source_config(tmp_path / "gta5", "gta5", "cityscapes19")
    assert_source(config, written, CITYSCAPES19)
    written = formats.write_acdc(tmp_path / "acdc")
    formats.pack_into_archives(
        tmp_path / "acdc", {"rgb_anon_trainvaltest": "rgb_anon/**/*.png", "gt": "gt/**/*.png"}
    )
    target = TargetConfig(name="acdc", root=str(tmp_path / "acdc"))
    config = _data("cityscapes19", formats.SIZE, target=target)
    assert_target(config, both(written), CITYSCAPES19)


def test_urbansyn_in_no_unit_of_a_street_and_without_depth(tmp_path):
    formats.write_urbansyn(tmp_path, unit=1e-3)
    config = source_config(tmp_path, "urbansyn", "camvid11")
    with pytest.raises(
        InputError, match=r"depth_0003\.exr: the median of this .* is \d+\.\d, which"
    ):
        sets.source_frames(config)
    for path in (tmp_path / "depth").iterdir():  # check names each of them
        path.write_bytes(b"")
    assert sets.source_frames(config).data.name == "UrbanSyn (depth in 100 km)"
    shutil.rmtree(tmp_path / "depth")
    written = formats.write_urbansyn(tmp_path, depth=False)
    assert_source(config, written, CAMVID_OF_TRAIN_IDS)


@pytest.mark.parametrize("images", ["rgb", "rgb-2k"])
@pytest.mark.parametrize("depth", [True, False])
def test_synscapes(tmp_path, images, depth):
    written = formats.write_synscapes(tmp_path, images=images, depth=depth)
    assert_source(source_config(tmp_path, "synscapes", "cityscapes16"), written, CITYSCAPES16)


def assert_target(config, written, train_ids):
    images, frames = sets.target_images(config), sets.evaluation_frames(config)
    assert len(images) == len(written["train"]) and len(frames) == len(written["evaluation"])
    for index, truth in enumerate(written["train"]):
        np.testing.assert_array_equal(images[index], truth.pixels)
    for index, truth in enumerate(written["evaluation"]):
        np.testing.assert_array_equal(frames[index].image, truth.pixels)
        np.testing.assert_array_equal(frames[index].labels, mapped(truth.classes, train_ids))
        assert frames.name(index) == truth.image.stem


@pytest.mark.parametrize(
    ("space", "train_ids"),
    [("cityscapes19", CITYSCAPES19), ("cityscapes16", CITYSCAPES16),
     ("kitti10", KITTI10_OF_CITYSCAPES)],
)  # fmt: skip
def test_cityscapes(tmp_path, space, train_ids):
    written = formats.write_cityscapes(tmp_path)
    config = _data(space, (64, 128), target=TargetConfig(name="cityscapes", root=str(tmp_path)))
    assert_target(config, {"train": written["train"], "evaluation": written["val"]}, train_ids)
    config.target.train_split, config.target.evaluation_split = "val", "train"
    assert_target(config, {"train": written["val"], "evaluation": written["train"]}, train_ids)


def test_kitti_scores_on_training_and_trains_on_testing(tmp_path):
    written = formats.write_kitti(tmp_path)
    config = _data("kitti10", formats.SIZE, target=TargetConfig(name="kitti", root=str(tmp_path)))
    parts = {"train": written["testing"], "evaluation": written["training"]}
    assert_target(config, parts, KITTI10_OF_CITYSCAPES)


def both(written, train="train", evaluation="val"):
    return {"train": written[train], "evaluation": written[evaluation]}


TARGETS = {
    "bdd100k": (formats.write_bdd100k, {}, TRAIN_IDS19),
    "bdd100k older": (formats.write_bdd100k, {"older": True}, TRAIN_IDS19),
    "acdc": (formats.write_acdc, {}, CITYSCAPES19),
    "acdc train ids": (formats.write_acdc, {"kind": "labelTrainIds"}, TRAIN_IDS19),
    "mapillary": (formats.write_mapillary, {}, VISTAS19["v1.2"]),
    "mapillary v1.2": (formats.write_mapillary, {"folder": "v1.2/labels"}, VISTAS19["v1.2"]),
    "mapillary v2.0": (
        formats.write_mapillary, {"version": "v2.0", "folder": "v2.0/labels"}, VISTAS19["v2.0"]
    ),
    "idd": (formats.write_idd, {}, TRAIN_IDS19),
    "idd level 3": (
        formats.write_idd, {"kind": "labellevel3Ids", "suffix": ".jpg"}, IDD19_OF_LEVEL_3
    ),
}  # fmt: skip
SPLITS = {"mapillary": ("training", "validation")}


@pytest.mark.parametrize("key", TARGETS)
def test_a_target_and_the_same_as_a_source(tmp_path, key):
    name = key.split()[0]
    write, layout, train_ids = TARGETS[key]
    train, evaluation = SPLITS.get(name, ("train", "val"))
    written = write(tmp_path, **layout)
    config = _data("cityscapes19", formats.SIZE, target=TargetConfig(name=name, root=str(tmp_path)))
    assert_target(config, both(written, train, evaluation), train_ids)
    source = source_config(tmp_path, name, "cityscapes19", split=evaluation)
    assert_source(source, written[evaluation], train_ids)
    with pytest.raises(InputError, match=r"no label images|files that belong to images are missi"):
        sets.source_frames(source_config(tmp_path, name, "cityscapes19"))


def test_one_condition_of_acdc(tmp_path):
    written = formats.write_acdc(tmp_path)
    night = {
        split: [truth for truth in frames if "night" in truth.image.parts]
        for split, frames in written.items()
    }
    target = TargetConfig(
        name="acdc", root=str(tmp_path), train_split="night/train", evaluation_split="night/val"
    )
    config = _data("cityscapes19", formats.SIZE, target=target)
    assert_target(config, both(night), CITYSCAPES19)
    config.target.train_split = "*/train*"
    assert len(sets.target_images(config)) == len(written["train"])
    config.target.train_split = "night/trian"
    with pytest.raises(InputError, match=r"rgb_anon/night/trian.*night/train one"):
        sets.target_images(config)


def test_idd_with_polygons_alone_says_what_draws_the_labels(tmp_path):
    written = formats.write_idd(tmp_path, kind=None)
    target = TargetConfig(name="idd", root=str(tmp_path))
    config = _data("cityscapes19", formats.SIZE, target=target)
    assert len(sets.target_images(config)) == len(written["train"])
    with pytest.raises(
        InputError, match=rf"createLabels\.py --datadir {tmp_path} --id-type csTrainId"
    ):
        sets.evaluation_frames(config)


def test_a_folder_as_source_and_as_target(tmp_path):
    written = formats.write_folder(tmp_path, scale=1 / 256)
    (tmp_path / "classes.yaml").write_text("0: road\n1: sky\n2: null\n7: car\n")
    settings = {
        "name": "folder", "root": str(tmp_path), "labels": "labels/*", "depth": "depth/*.png",
        "classes": str(tmp_path / "classes.yaml"), "depth_per_metre": 256.0,
        "height": formats.SIZE[0], "width": formats.SIZE[1],
    }  # fmt: skip
    config = _data("cityscapes16", formats.SIZE, source=SourceConfig(**settings),
                   target=TargetConfig(**settings))  # fmt: skip
    train_ids = {0: 0, 1: 9, 7: 12}
    assert_source(config, written, train_ids)
    assert_target(config, {"train": written, "evaluation": written}, train_ids)
    depth = sets.evaluation_frames(config)[0].depth
    np.testing.assert_allclose(depth, written[0].metres, rtol=1e-6)


def test_a_folder_of_images_alone_is_a_target_without_scores(tmp_path):
    written = formats.write_folder(tmp_path, images="deep/er/{}.jpg")
    target = TargetConfig(name="folder", root=str(tmp_path), images="deep/*")
    config = _data("camvid11", formats.SIZE, target=target)
    images = sets.target_images(config)
    np.testing.assert_array_equal(images[0], written[0].pixels)
    assert len(images) == 3 and len(sets.evaluation_frames(config)) == 0


def test_splits_and_colours_of_a_folder(tmp_path):
    for split, colour in (("a", (128, 64, 128)), ("b", (0, 0, 142))):
        for kind, value in (("images", 90), ("labels", colour[::-1])):
            path = tmp_path / split / kind / "1.png"
            path.parent.mkdir(parents=True)
            cv2.imwrite(str(path), np.full((64, 64, 3), value, np.uint8))
    (tmp_path / "c.yaml").write_text('"128 64 128": road\n"0 0 142": car\n')
    target = TargetConfig(
        name="folder", root=str(tmp_path), images="{split}/images/*", labels="{split}/labels/*",
        classes=str(tmp_path / "c.yaml"), train_split="a", evaluation_split="b",
    )  # fmt: skip
    config = _data("cityscapes19", (64, 64), target=target)
    assert sets.target_images(config).paths == [tmp_path / "a" / "images" / "1.png"]
    assert (sets.evaluation_frames(config)[0].labels == 13).all()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0: street", r"0: 'street' is not a class of cityscapes16 \(road"),
        ("1.5: road", "line 1: '1.5' is neither an id"),
        ("0: road\n'1 2 3': sky", "mixes ids and colours"),
        ("[1, 2]", "no entries"),
        ("{0: road", "not readable as YAML"),
    ],
)
def test_an_invalid_class_map_is_refused(tmp_path, text, words):
    formats.write_folder(tmp_path)
    (tmp_path / "c.yaml").write_text(text)
    target = TargetConfig(
        name="folder", root=str(tmp_path), labels="labels/*", classes=str(tmp_path / "c.yaml")
    )
    with pytest.raises(InputError, match=words):
        sets.evaluation_frames(_data("cityscapes16", formats.SIZE, target=target))


def test_the_real_cityscapes_frame(shared):
    root = shared / "data" / "cityscapes_sample"
    target = TargetConfig(name="cityscapes", root=str(root), train_split="val")
    config = _data("cityscapes19", (128, 256), target=target)
    frames = sets.evaluation_frames(config)
    assert len(frames) == 1 and frames.name(0) == "frankfurt_000000_000294_leftImg8bit"
    (path,) = root.rglob("*_gtFine_labelTrainIds.png")
    official = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    # the sample's two maps were shrunk each for itself, and differ at edges
    assert (frames[0].labels == official).mean() > 0.997
    counts = np.bincount(frames[0].labels.ravel(), minlength=256)
    classes = label_space("cityscapes19").classes
    found = {name: int(count) for name, count in zip(classes, counts[:19], strict=True) if count}
    assert found == CITYSCAPES_SAMPLE and counts[IGNORE] == 32768 - sum(found.values())


def test_all_real_camvid_frames(shared):
    config = _data(
        "camvid11", (360, 480), target=TargetConfig(name="camvid", root=str(shared / "data/camvid"))
    )
    frames = sets.evaluation_frames(config)
    counts = sum(np.bincount(frames[i].labels.ravel(), minlength=256) for i in range(len(frames)))
    shares = dict(zip(label_space("camvid11").classes, counts / counts.sum(), strict=False))
    assert {name: round(float(share), 3) for name, share in shares.items()} == CAMVID_VAL


def test_a_source_and_a_target_without_a_common_label_space(tmp_path):
    formats.write_synthia(tmp_path)
    config = source_config(tmp_path, "synthia", "cityscapes16")
    config.target = TargetConfig(name="camvid", root=str(tmp_path))
    with pytest.raises(
        InputError,
        match=r"synthia can be labelled in cityscapes16, cityscapes13; target camvid in camvid11.*"
        "none in common",
    ):
        sets.check_label_space(config)
    config.target = TargetConfig(name="cityscapes", root=str(tmp_path))
    sets.check_label_space(config)
    config.label_space = "cityscapes19"
    with pytest.raises(InputError, match="set it to cityscapes16 or cityscapes13"):
        sets.check_label_space(config)
    with pytest.raises(InputError, match="synthia can be labelled in cityscapes16"):
        sets.source_frames(config)


@pytest.mark.parametrize(
    "name",
    ["vkitti", "vkitti2", "synthia", "carla", "folder", "gta5", "urbansyn", "synscapes", "shift"],
)
def test_a_missing_source_says_what_to_download_and_where_it_goes(tmp_path, name):
    space = "kitti10" if name.startswith("vkitti") else "cityscapes16"
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for root, words in (
        (None, "data.source.root is not set"),
        (tmp_path / "no", "no: no such folder"),
        (tmp_path / "file", "file: is a file, not a folder"),
        (tmp_path / "empty", "empty: no "),
    ):
        config = source_config(tmp_path, name, space, labels="labels/*", depth="depth/*")
        config.source.root = None if root is None else str(root)
        with pytest.raises(InputError, match=words) as error:
            sets.source_frames(config)
        assert ("download" in str(error.value)) == (name not in ("carla", "folder"))
        assert ".png" in str(error.value)


@pytest.mark.parametrize(
    "name",
    ["kitti", "cityscapes", "camvid", "folder", "bdd100k", "acdc", "mapillary", "idd"],
)
def test_a_missing_target_says_what_to_download(tmp_path, name):
    space = {"kitti": "kitti10", "camvid": "camvid11"}.get(name, "cityscapes16")
    for root in (None, str(tmp_path / "no"), str(tmp_path)):
        config = _data(space, formats.SIZE, target=TargetConfig(name=name, root=root))
        with pytest.raises(InputError) as error:
            sets.target_images(config)
        assert "data.target.root" in str(error.value) or str(tmp_path) in str(error.value)
        assert name == "folder" or "download" in str(error.value)


def test_a_missing_label_map_is_named(tmp_path):
    written = formats.write_synthia(tmp_path)
    (tmp_path / "GT" / "LABELS" / written[1].image.name).unlink()
    with pytest.raises(InputError, match=rf"1 files .*LABELS/{written[1].image.name}"):
        sets.source_frames(source_config(tmp_path, "synthia", "cityscapes16"))


def test_an_unknown_colour_and_an_unknown_id_are_named(tmp_path):
    vkitti = formats.write_vkitti2(tmp_path / "v")
    (path,) = [p for p in (tmp_path / "v").rglob("classgt_00000.png") if "Camera_0" in p.parts]
    cv2.imwrite(str(path), np.full((*formats.SIZE, 3), (3, 2, 1), np.uint8))
    frames = sets.source_frames(source_config(tmp_path / "v", "vkitti2", "kitti10"))
    assert len(vkitti) == len(frames)
    with pytest.raises(
        InputError, match=r"classgt_00000\.png: unknown colours: \(1, 2, 3\) \(2240"
    ):
        frames[0]
    formats.write_synthia(tmp_path / "s")
    path = sorted((tmp_path / "s" / "GT" / "LABELS").iterdir())[0]
    cv2.imwrite(str(path), np.full((*formats.SIZE, 3), 300, np.uint16))
    frames = sets.source_frames(source_config(tmp_path / "s", "synthia", "cityscapes16"))
    with pytest.raises(InputError, match=rf"{path.name}: unknown ids.*: 300 \(2240 pixels\)"):
        frames[0]


def test_a_depth_map_without_any_depth_is_named(tmp_path):
    formats.write_synthia(tmp_path)
    path = sorted((tmp_path / "Depth" / "Depth").iterdir())[0]
    cv2.imwrite(str(path), np.full((*formats.SIZE, 3), 65535, np.uint16))
    frames = sets.source_frames(source_config(tmp_path, "synthia", "cityscapes16"))
    with pytest.raises(InputError, match=rf"{path.name}: no pixel has a depth"):
        frames[0]
