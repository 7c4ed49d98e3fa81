"""Rules of plausibility: silent about sound sets, and the right rule for each kind of damage."""

import dataclasses

import cv2
import numpy as np
import pytest

from gioada_fast.config import DataConfig, SourceConfig
from gioada_fast.data.check import check_set, list_set
from gioada_fast.labels import label_space

from . import toy_street
from .toy_street import BUILDING, CAR, PAVEMENT, POLE, ROAD, SIGN, SKY, TREE

COUNT = 8
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


def _stored(frames):
    return [
        Frame(frame.image, frame.ids, np.rint(frame.metres * 100).astype(np.uint16))
        for frame in frames
    ]


@pytest.fixture(scope="module")
def street():
    return _stored(toy_street.frames(COUNT))


def write(root, frames, suffix=".png"):
    """Write a folder with images, labels and depth, and return the settings that read it."""
    for kind in ("images", "labels", "depth"):
        (root / kind).mkdir(parents=True)
    for index, frame in enumerate(frames):
        image = frame.image[..., ::-1] if frame.image.ndim == 3 else frame.image
        cv2.imwrite(str(root / "images" / f"{index:03d}{suffix}"), image)
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
    return frame.image.mean(axis=2)


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
        ids(lambda i: np.where((i == CAR) | (np.arange(96) < 2)[:, None], i, ROAD)),
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


def test_a_sound_street_has_no_warning(street, tmp_path):
    report = report_of(write(tmp_path, street))
    assert not report.errors and not report.warnings, [str(w) for w in report.warnings]
