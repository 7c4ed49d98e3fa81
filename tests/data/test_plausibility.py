"""Rules of plausibility: silent about sound sets, and the right rule for each kind of damage."""

import dataclasses
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from gioada_fast.config import DataConfig, SourceConfig, TargetConfig
from gioada_fast.data.check import check_set, compare_sets, list_set, quick_warnings
from gioada_fast.data.label_maps import id_labels
from gioada_fast.data.plausibility import RULES
from gioada_fast.data.readers.cityscapes import CITYSCAPES
from gioada_fast.labels import BUILT_IN_SPACES, IGNORE, label_space

from . import toy_street
from .toy_street import BUILDING, CAR, PAVEMENT, POLE, ROAD, SIGN, SKY, TREE

COUNT = 6
CAMVID11 = label_space("camvid11")
CLASS_MAP = {**{number: name for name, number in toy_street.IDS.items()}, 11: None, 255: None}


@dataclasses.dataclass
class Frame:
    """A frame as its files contain it."""

    image: np.ndarray
    ids: np.ndarray
    centimetres: np.ndarray

    @property
    def metres(self):
        return self.centimetres / 100

    def over(self, **arrays):
        return dataclasses.replace(self, **arrays)


def toys(first=0, count=COUNT, video=False):
    """Frames of the toy street, with depth in centimetres."""
    return [
        Frame(frame.image, frame.ids, np.rint(frame.metres * 100).astype(np.uint16))
        for frame in toy_street.frames(count, first, video)
    ]


@pytest.fixture(scope="module")
def street():
    return toys()


def write(root, frames):
    """Write a folder with images, labels and depth, and return the settings that read it."""
    for kind in ("images", "labels", "depth"):
        (root / kind).mkdir(parents=True)
    for index, frame in enumerate(frames):
        image = frame.image[..., ::-1] if frame.image.ndim == 3 else frame.image
        cv2.imwrite(str(root / "images" / f"{index:03d}.png"), image)
        cv2.imwrite(str(root / "labels" / f"{index:03d}.png"), frame.ids)
        cv2.imwrite(str(root / "depth" / f"{index:03d}.png"), frame.centimetres)
    classes = root / "classes.yaml"
    lines = [f"{number}: {name or 'null'}" for number, name in CLASS_MAP.items()]
    classes.write_text("\n".join(lines) + "\n")
    return SourceConfig(
        name="folder", root=str(root), labels="labels/*", depth="depth/*", classes=str(classes)
    )


def report_of(source, space="camvid11"):
    config = DataConfig(source=source, label_space=space)
    return check_set(list_set(config, "source"), "source", label_space(space), workers=0)


def rules_of(warnings):
    return {warning.rule for warning in warnings}


def depth(change):
    """Damage that maps metres to metres."""

    def damage(frame, _frames, _index):
        metres = change(frame.metres, frame)
        return frame.over(centimetres=np.rint(metres * 100).clip(0, 65535).astype(np.uint16))

    return damage


def image(change):
    def damage(frame, _frames, _index):
        return frame.over(image=np.asarray(change(frame)).clip(0, 255).astype(np.uint8))

    return damage


def ids(change):
    def damage(frame, _frames, _index):
        return frame.over(ids=np.ascontiguousarray(change(frame.ids)).astype(np.uint8))

    return damage


def grey(frame):
    return cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY)


def swapped(*pairs):
    table = np.arange(256)
    for one, other in pairs:
        table[[one, other]] = table[[other, one]]
    return lambda labels: table[labels]


def all_flipped(frame, _frames, _index):
    return Frame(*(np.ascontiguousarray(array[::-1]) for array in dataclasses.astuple(frame)))


def noise(metres, _frame):
    return np.random.default_rng(metres.size).uniform(1, 80, metres.shape)


def eighth(metres, _frame):
    return np.ceil(metres / 0.625) * 0.625


DAMAGES = {
    # images
    "black": (image(lambda f: f.image * 0.04), {"images-near-black"}),
    "all black": (image(lambda f: f.image * 0), {"images-one-colour"}),
    "white": (image(lambda f: 250 + f.image * 0.02), {"images-near-white"}),
    "one colour": (image(lambda f: np.full_like(f.image, 90)), {"images-one-colour"}),
    "label map as image": (image(lambda f: np.dstack([f.ids * 20] * 3)), {"images-are-labels"}),
    "coloured label map as image": (
        image(lambda f: CAMVID11.colourise(f.ids)),
        {"images-are-labels"},
    ),
    # labels
    "ids greater by one": (ids(lambda i: i + 1), {"labels-numbering"}),
    "ids less by one": (ids(lambda i: i.astype(int) - 1), {"labels-numbering"}),
    "mirrored labels": (ids(lambda i: i[:, ::-1]), {"labels-flipped"}),
    "labels upside down": (ids(lambda i: i[::-1]), {"labels-flipped"}),
    "turned labels": (ids(lambda i: i[::-1, ::-1]), {"labels-flipped"}),
    "labels moved sideways": (ids(lambda i: np.roll(i, 30, 1)), {"labels-of-another-frame"}),
    "labels of other frames": (
        lambda frame, frames, index: frame.over(ids=frames[index - 3].ids),
        {"labels-of-another-frame"},
    ),
    "sky and road exchanged": (ids(swapped((SKY, ROAD))), {"labels-place"}),
    "wrong order of classes": (
        ids(swapped((SKY, PAVEMENT), (ROAD, SIGN), (BUILDING, CAR), (POLE, TREE))),
        {"labels-place"},
    ),
    "void": (ids(lambda i: np.full_like(i, 11)), {"labels-ignored"}),
    "nearly all void": (ids(lambda i: np.where(i == CAR, i, 11)), {"labels-ignored"}),
    "one class": (ids(lambda i: np.full_like(i, ROAD)), {"labels-one-value"}),
    "hardly anything but road": (
        ids(lambda i: np.where((i == CAR) | (np.indices(i.shape)[0] < 2), i, ROAD)),
        {"labels-one-class"},
    ),
    "no pedestrians": (ids(lambda i: np.where(i == 9, 11, i)), {"labels-never-drawn"}),
    # depth
    "millimetres as centimetres": (depth(lambda d, _: d * 10), {"depth-units"}),
    "decimetres as centimetres": (depth(lambda d, _: d / 10), {"depth-units"}),
    "metres as centimetres": (depth(lambda d, _: d / 100), {"depth-units", "depth-quantised"}),
    "normalised": (depth(lambda d, _: np.where(d > 0, 0.5 + d / 240, 0)), {"depth-units"}),
    "small range": (depth(lambda d, _: np.where(d > 0, 10 + d / 40, 0)), {"depth-range"}),
    "inverse": (
        depth(lambda d, _: np.where(d > 0, 10 / np.maximum(d, 0.01), 0)),
        {"depth-does-not-fall"},
    ),
    "disparity": (
        depth(lambda d, _: np.where(d > 0, 200 / np.maximum(d, 1), 0)),
        {"depth-does-not-fall"},
    ),
    "far minus depth": (
        depth(lambda d, _: np.where(d > 0, 100 - d.clip(0, 99), 0)),
        {"depth-does-not-fall"},
    ),
    "depth upside down": (depth(lambda d, _: d[::-1]), {"depth-flipped"}),
    "mirrored depth": (depth(lambda d, _: d[:, ::-1]), {"depth-flipped"}),
    "depth of other frames": (
        lambda frame, frames, index: frame.over(centimetres=frames[index - 3].centimetres),
        {"depth-of-another-frame"},
    ),
    "one depth": (depth(lambda d, _: np.full_like(d, 12)), {"depth-one-value"}),
    "8 bits": (depth(eighth), {"depth-quantised"}),
    "grey image as depth": (depth(lambda _, f: grey(f) / 4), {"depth-is-image"}),
    "negative as depth": (depth(lambda _, f: 70 - grey(f) / 4), {"depth-is-image"}),
    "label map as depth": (depth(lambda _, f: f.ids * 2.55 + 2.55), {"depth-is-labels"}),
    "near sky": (depth(lambda d, _: np.where(d > 0, d, 0.5)), {"depth-sky-near"}),
    "holes": (
        depth(lambda d, _: np.where(np.arange(d.shape[1]) % 4 == 1, d, 0)),
        {"depth-missing"},
    ),
    "noise as depth": (depth(noise), {"depth-does-not-fall"}),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_gets_the_right_warning(street, tmp_path, name):
    damage, expected = DAMAGES[name]
    frames = [damage(frame, street, index) for index, frame in enumerate(street)]
    report = report_of(write(tmp_path, frames))
    assert report.errors == ()
    assert rules_of(report.warnings) == expected, [str(warning) for warning in report.warnings]


@pytest.mark.parametrize("space", [name for name in BUILT_IN_SPACES if name != "cityscapes19"])
def test_a_sound_street_has_no_warning(street, tmp_path, space):
    """Also in other label spaces, except for classes that this street lacks."""
    source = write(tmp_path, street)
    if space != "camvid11":
        source.classes = other_map(tmp_path, space)
    report = report_of(source, space)
    assert not report.errors
    assert rules_of(report.warnings) <= ({"labels-never-drawn"} if space != "camvid11" else set())


def other_map(root, space):
    """Class map of the toy street for another label space."""
    common = {"pavement": "sidewalk", "tree": "vegetation", "sign": "traffic sign",
              "pedestrian": "person", "bicyclist": "rider"}  # fmt: skip
    classes = label_space(space).classes
    lines = ["11: null"]
    for name, number in toy_street.IDS.items():
        name = common.get(name, name)
        lines.append(f"{number}: {name if name in classes else 'null'}")
    path = root / f"{space}.yaml"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_other_worlds_are_not_judged_by_the_places_of_a_street(tmp_path):
    """A warehouse and a view from above, in label spaces of their own."""
    rng = np.random.default_rng(0)
    space = tmp_path / "warehouse.yaml"
    space.write_text(
        "name: warehouse\nclasses:\n  floor: {colour: [128, 64, 128], of: [road, sidewalk]}\n"
        "  shelf: {colour: [0, 60, 100], of: [wall]}\n  forklift: {colour: [0, 0, 142]}\n"
    )
    frames = []
    for _ in range(COUNT):
        ids = np.ones((60, 80), np.uint8)
        ids[rng.integers(25, 40) :] = 0
        x, y = rng.integers(0, 60), rng.integers(20, 40)
        ids[y : y + 15, x : x + 15] = 2
        above = np.kron(rng.integers(0, 3, (6, 8)), np.ones((10, 10))).astype(np.uint8)
        for labels, metres in ((ids, 6 - 0.08 * np.indices(ids.shape)[0]), (above, 30 + above)):
            picture = (60 * labels[..., None] + rng.normal(40, 20, (60, 80, 3))).clip(0, 255)
            noise = 0.03 * metres * rng.normal(0, 1, ids.shape)
            stored = np.rint((metres + noise) * 100).astype(np.uint16)
            frames.append(Frame(picture.astype(np.uint8), labels, stored))
    for part in (frames[::2], frames[1::2]):
        root = tmp_path / f"{id(part)}"
        source = write(root, part)
        (root / "classes.yaml").write_text("0: floor\n1: shelf\n2: forklift\n")
        report = report_of(source, str(space))
        assert not report.errors and not report.warnings, [str(w) for w in report.warnings]


def test_labels_of_the_next_frame_of_a_video(tmp_path):
    video = toys(count=COUNT + 1, video=True)
    report = report_of(write(tmp_path / "sound", video[:-1]))
    assert not report.warnings
    late = [frame.over(ids=after.ids) for frame, after in pairwise(video)]
    report = report_of(write(tmp_path / "late", late))
    assert rules_of(report.warnings) == {"labels-of-neighbour"}
    assert "the labels of the frame before" in report.warnings[0].message


def test_a_few_mirrored_labels_of_many(street, tmp_path):
    mirrored = street[2].over(ids=street[2].ids[:, ::-1])
    (warning,) = report_of(write(tmp_path, [*street[:2], mirrored, *street[3:]])).warnings
    assert warning.rule == "labels-flipped" and warning.frames == (2,)


def test_a_world_upside_down(street, tmp_path):
    frames = [all_flipped(frame, street, index) for index, frame in enumerate(street)]
    report = report_of(write(tmp_path, frames))
    assert rules_of(report.warnings) == {"labels-numbering", "depth-does-not-fall"}
    assert "turned upside down" in report.warnings[0].message


def test_unknown_values_are_counted_over_the_set(street, tmp_path):
    table = np.arange(256)
    table[CAR] = 77
    frames = [frame.over(ids=table[frame.ids].astype(np.uint8)) for frame in street]
    source = write(tmp_path, frames)
    cars = sum(int((frame.ids == CAR).sum()) for frame in street)
    report = report_of(source)
    assert [error.kind for error in report.errors] == ["values"] * COUNT
    assert report.unknown == ((77, cars, COUNT),)
    # ignored values are counted, too, but are no errors
    strict = list_set(DataConfig(source=source), "source")
    train_ids = {number: number for number in range(11)} | {11: IGNORE}
    data = dataclasses.replace(strict, read_labels=id_labels(train_ids, unknown="ignore"))
    report = check_set(data, "source", CAMVID11, workers=0, strict_labels=strict.read_labels)
    assert not report.errors and report.unknown == ((77, cars, COUNT),)
    assert rules_of(report.warnings) == {"labels-unknown", "labels-never-drawn"}
    share = cars / sum(frame.ids.size for frame in street)
    assert f"{share:.2%} of the pixels" in report.warnings[0].message


@pytest.mark.parametrize(
    ("orientation", "bits", "rules"),
    [(6, 8, {"images-orientation"}), (1, 16, {"images-bits"}), (1, 8, set())],
)
def test_how_images_are_stored(street, tmp_path, orientation, bits, rules):
    from PIL import Image

    source = write(tmp_path, street)
    for path in (tmp_path / "images").iterdir():
        image = Image.open(path)
        if bits == 8:
            exif = image.getexif()
            exif[0x0112] = orientation
            image.save(path, exif=exif)
        else:
            cv2.imwrite(str(path), cv2.imread(str(path)).astype(np.uint16))
    report = report_of(source)
    assert not report.errors and rules_of(report.warnings) == rules
    assert {f.image.orientation for f in report.facts.frames.values()} == {orientation}


def test_images_of_several_depths(street, tmp_path):
    source = write(tmp_path, street)
    for index, path in enumerate(sorted((tmp_path / "images").iterdir())):
        scale = 257 if index % 2 else 16  # 16 and 12 bits
        cv2.imwrite(str(path), cv2.imread(str(path)).astype(np.uint16) * scale)
    (warning,) = report_of(source).warnings
    assert warning.rule == "images-bits" and "12 and 16 bits" in warning.message


def test_copies_within_and_between_sets(street, tmp_path):
    """By their pixels: the files differ."""
    training = write(tmp_path / "training", street[:3])
    scored = write(tmp_path / "scored", [*street[3:], street[1], street[5]])
    copy = tmp_path / "scored" / "images" / "003.png"
    cv2.imwrite(str(copy), cv2.imread(str(copy)), [cv2.IMWRITE_PNG_COMPRESSION, 0])
    reports = {
        name: check_set(list_set(DataConfig(source=source), "source"), name, CAMVID11, workers=0)
        for name, source in (("target", training), ("evaluation", scored))
    }
    assert not reports["target"].warnings
    (repeated,) = reports["evaluation"].warnings
    assert repeated.rule == "images-repeated" and repeated.message.startswith("1 of 5 images")
    warnings = compare_sets(reports)
    assert warnings["target"] == [] and rules_of(warnings["evaluation"]) == {"images-shared"}
    message = warnings["evaluation"][0].message
    assert message.startswith("1 of 5 images of evaluation have the same pixels as an image of tar")
    assert "scored/images/003.png" in message and "training/images/001.png" in message


def test_the_result_does_not_depend_on_the_number_of_processes(street, tmp_path):
    damage, _ = DAMAGES["ids greater by one"]
    source = write(tmp_path, [damage(frame, street, 0) for frame in street])
    data = list_set(DataConfig(source=source), "source")
    alone = check_set(data, "source", CAMVID11, workers=0)
    parallel = check_set(data, "source", CAMVID11, workers=2)
    assert alone.warnings == parallel.warnings != ()


def test_quick_warnings_read_a_few_frames_and_no_labels_of_the_target(street, tmp_path):
    source = write(tmp_path, [frame.over(ids=frame.ids[:, ::-1]) for frame in street] * 4)
    data = list_set(DataConfig(source=source), "source")
    assert rules_of(quick_warnings(data, "source", CAMVID11)) == {"labels-flipped"}

    def refuse(path):
        raise AssertionError(f"{path} was read")

    guarded = dataclasses.replace(data, read_labels=refuse)
    assert quick_warnings(guarded, "target", CAMVID11) == []
    for path in sorted((tmp_path / "images").iterdir())[1:]:
        path.write_bytes(b"damaged")
    assert [w.frames for w in quick_warnings(data, "source", CAMVID11)] == [(0,)]


def real_sets(shared, space):
    """Each set in the folder of real frames that has labels for the space."""
    for name, folder in (("camvid", "camvid"), ("kitti", "kitti"),
                         ("cityscapes", "cityscapes_sample")):  # fmt: skip
        if name == "camvid" and space != "camvid11":
            continue
        target = TargetConfig(name=name, root=str(shared / "data" / folder))
        yield DataConfig(target=target, label_space=space)


@pytest.mark.parametrize("space", BUILT_IN_SPACES)
def test_real_frames_have_no_warning(shared, space):
    for config in real_sets(shared, space):
        reports = {}
        for part in ("target", "evaluation"):
            if part == "target" and config.target.name == "cityscapes":
                continue  # the sample has no training images
            data = list_set(config, part)
            few = dataclasses.replace(data, frames=data.frames[:: len(data.frames) // 10 or 1])
            report = check_set(few, part, label_space(space), workers=0)
            assert not report.errors and not report.warnings, [str(w) for w in report.warnings]
            assert quick_warnings(data, part, label_space(space)) == []
            reports[part] = report
        assert not any(compare_sets(reports).values())


def _to_train_ids(labels):
    table = np.full(256, 255, np.uint8)
    for number, train_id in CITYSCAPES.train_ids(label_space("cityscapes19")).items():
        if number >= 0:
            table[number] = train_id
    return table[labels]


REAL_DAMAGES = {
    "train ids": (_to_train_ids, {"labels-numbering"}, "Cityscapes' train ids"),
    "greater by one": (lambda i: np.minimum(i + 1, 33), {"labels-numbering"}, "less by one"),
    "less by one": (lambda i: np.maximum(i, 1) - 1, {"labels-numbering"}, "greater by one"),
    "mirrored": (lambda i: i[:, ::-1], {"labels-flipped"}, "mirrored left to right"),
    "upside down": (lambda i: i[::-1], {"labels-flipped"}, "upside down"),
}


@pytest.mark.parametrize("name", REAL_DAMAGES)
@pytest.mark.parametrize("space", ["kitti10", "cityscapes19"])
def test_damaged_kitti_frames(shared, tmp_path, space, name):
    damage, rules, words = REAL_DAMAGES[name]
    kitti = shared / "data" / "kitti" / "training"
    for kind in ("image_2", "semantic"):
        (tmp_path / "training" / kind).mkdir(parents=True)
    for index in range(0, 24, 4):
        file = f"{index:06d}_10.png"
        (tmp_path / "training" / "image_2" / file).symlink_to(kitti / "image_2" / file)
        labels = cv2.imread(str(kitti / "semantic" / file), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(tmp_path / "training" / "semantic" / file), damage(labels))
    target = TargetConfig(name="kitti", root=str(tmp_path))
    data = list_set(DataConfig(target=target, label_space=space), "evaluation")
    report = check_set(data, "evaluation", label_space(space), workers=0)
    warnings = [w for w in report.warnings if w.rule != "labels-ignored"]
    assert rules_of(warnings) == rules, [str(warning) for warning in report.warnings]
    assert words in warnings[0].message


def test_the_docs_name_every_rule():
    docs = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    assert [rule.name for rule in RULES if f"`{rule.name}`" not in docs] == []


def test_causes_come_before_what_they_explain():
    names = [rule.name for rule in RULES]
    for index, rule in enumerate(RULES):
        assert set(rule.explained_by) <= set(names[:index]), rule.name
