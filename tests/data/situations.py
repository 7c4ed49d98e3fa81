"""Users' own data: each situation, what version 0.1.0 did with it, and what happens now.

``SITUATIONS`` is the table. Each row writes its input, and checks what happens. ``docs_page`` makes
docs/situations.md from it.
"""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

from gioada_fast.config import Config, DataConfig, SourceConfig, TargetConfig, changed_setting
from gioada_fast.data import class_counts, sets
from gioada_fast.data.check import check_set, compare_sets, crop_note, list_set
from gioada_fast.data.class_weights import class_weights
from gioada_fast.data.transforms import resize_frame
from gioada_fast.data.unreadable import Unreadable
from gioada_fast.engine.networks import save_task
from gioada_fast.errors import InputError
from gioada_fast.labels import IGNORE, label_space
from gioada_fast.models import TaskNet
from tests.commands import command
from tests.video_files import truncate, write_video

from . import test_plausibility as plausibility
from . import toy_street
from .raster_files import (
    GREY,
    GREY_ALPHA,
    PALETTE,
    RGB,
    RGBA,
    bmp,
    exif,
    exr,
    npy,
    npz,
    pil,
    png,
    tiff,
    tiff_of_bits,
)

Settings = dict[str, Any]
"""Settings of the section ``data``, nested."""


class Situation(NamedTuple):
    """A row of the table."""

    name: str
    input: str
    """What the test writes, for the table."""
    write: Callable[[Path], Settings]
    """Writes the input into an empty folder."""
    before: str
    """What version 0.1.0 did: it was run on the same input."""
    now: str
    check: Callable[[Path, Settings], None]
    """Asserts what happens now; arguments: the folder, and the result of ``write``."""


# Frames


class Frame(NamedTuple):
    image: np.ndarray
    """uint8 [H, W, 3] RGB."""
    ids: np.ndarray
    """uint8 [H, W], the train ids of camvid11."""
    metres: np.ndarray
    """float32 [H, W] whole centimetres, 0 for the sky."""

    @property
    def centimetres(self) -> np.ndarray:
        return np.rint(self.metres * 100).astype(np.uint16)


SIZE = (64, 96)
CAMVID11 = label_space("camvid11")
COLOURS = np.array(CAMVID11.colours, np.uint8)
IDS_MAP = {**dict(enumerate(CAMVID11.classes)), 255: None}
COLOURS_MAP = {
    "{} {} {}".format(*rgb): name for rgb, name in zip(COLOURS, CAMVID11.classes, strict=True)
}
FRAMES = [
    Frame(
        *(np.ascontiguousarray(array[16:80, 32:128]) for array in (frame.image, frame.ids)),
        np.rint(frame.metres[16:80, 32:128] * 100).astype(np.float32) / np.float32(100),
    )
    for frame in toy_street.frames(2)
]

File = tuple[str, Callable[[Frame], bytes]]
"""Suffix and content of a frame's file."""

GREY_IDS: File = (".png", lambda f: png(f.ids, 8, GREY))
CENTIMETRES: File = (".png", lambda f: png(f.centimetres, 16, GREY))
RGB_IMAGE: File = (".png", lambda f: png(f.image, 8, RGB))


def folder_set(root: Path, image: File = RGB_IMAGE, labels: File | None = GREY_IDS,
               depth: File | None = None, classes: Mapping | None = IDS_MAP,
               frames=FRAMES, **settings) -> Settings:  # fmt: skip
    """Write a data set of the user's own and return the settings of the source that read it."""
    found: Settings = {"name": "folder", "root": str(root)}
    for kind, file in (("images", image), ("labels", labels), ("depth", depth)):
        if file is None:
            continue
        suffix, content = file
        (root / kind).mkdir(parents=True, exist_ok=True)
        for name, frame in zip("ab", frames, strict=True):
            (root / kind / f"{name}{suffix}").write_bytes(content(frame))
        if kind != "images":
            found[kind] = f"{kind}/*{suffix}"
    if classes is not None:
        path = root.with_name(f"{root.name}_classes.yaml")
        path.write_text(yaml.safe_dump(dict(classes), sort_keys=False))
        found["classes"] = str(path)
    return {**found, **settings}


def own(space: str | dict = "camvid11", after: Callable[[Path], object] | None = None, **options):
    """A source of one's own, which is also the target; ``after`` changes its folder."""

    def write(folder: Path) -> Settings:
        source = folder_set(folder / "set", **options)
        if after is not None:
            after(folder / "set")
        target = {key: source[key] for key in ("name", "root", "images") if key in source}
        height, width = SIZE
        found = {"source": source, "target": target, "label_space": space}
        return {**found, "height": height, "width": width}

    return write


# Checks


def config_of(settings: Settings) -> DataConfig:
    values = dict(settings)
    values["source"] = SourceConfig(**settings.get("source", {}))
    values["target"] = TargetConfig(**settings.get("target", {}))
    if "sources" in settings:
        values["sources"] = [SourceConfig(**source) for source in settings["sources"]]
    return DataConfig(**values)


def frames_of(config: DataConfig, part: str):
    """What a run reads for ``source``, ``target`` or ``evaluation``."""
    sets.check_label_space(config)
    return {
        "source": sets.source_frames,
        "target": sets.target_images,
        "evaluation": sets.evaluation_frames,
    }[part](config)


def report_of(config: DataConfig, part: str):
    """What ``data check`` finds."""
    sets.check_label_space(config)
    data = list_set(config, part)
    return check_set(data, part, label_space(config.label_space), workers=0)


def reads(
    image=lambda f: f.image, labels=lambda f: f.ids, depth=None, part="source", frames=FRAMES
):
    """The set is read; functions give the values expected of a frame."""

    def check(_folder: Path, settings: Settings) -> None:
        config = config_of(settings)
        found = frames_of(config, part)
        assert len(found) == len(frames)
        for index, frame in enumerate(frames):
            read = found[index]
            read = (read,) if part == "target" else read
            np.testing.assert_array_equal(read[0], image(frame))
            if part != "target":
                np.testing.assert_array_equal(read[1], labels(frame))
            if depth is not None:
                np.testing.assert_allclose(read[2], depth(frame), rtol=1e-6)
        assert report_of(config, part).errors == ()

    return check


def refuses(*words: str, part: str = "source"):
    """Both ``data check`` and training refuse it, with these words."""

    def check(_folder: Path, settings: Settings) -> None:
        with pytest.raises(InputError) as error:
            found = frames_of(config_of(settings), part)
            for index in range(len(found)):
                found[index]
        messages = [str(error.value)]
        try:
            report = report_of(config_of(settings), part)
        except InputError as error:
            messages.append(str(error))
        else:
            messages.append("\n".join(f"{e.file}: {e.message}" for e in report.errors))
        for message in messages:
            for word in words:
                assert word in message, message

    return check


def warns(*rules: str, part: str = "source", words: tuple[str, ...] = ()):
    """``data check`` warns by these rules and finds no error."""

    def check(_folder: Path, settings: Settings) -> None:
        report = report_of(config_of(settings), part)
        assert report.errors == ()
        assert {warning.rule for warning in report.warnings} == set(rules), report.warnings
        for word in words:
            assert any(word in str(warning) for warning in report.warnings), report.warnings

    return check


def both(*checks):
    def check(folder: Path, settings: Settings) -> None:
        for one in checks:
            one(folder, settings)

    return check


# Label spaces

WAREHOUSE = {
    "name": "warehouse",
    "classes": {
        "floor": {"colour": [128, 64, 128], "of": ["road", "sidewalk"]},
        "person": {"colour": [220, 20, 60], "of": ["person", "rider"]},
        "forklift": {"colour": [0, 0, 142]},
    },
}
OWN_MAP = {**{number: "floor" for number in range(11)}, 0: None, 8: "forklift", 9: "rider"}


def own_train_ids(frame: Frame) -> np.ndarray:
    table = np.zeros(11, np.uint8)
    table[[0, 8, 9]] = IGNORE, 2, 1
    return table[frame.ids]


def space(content: Any, **options):
    """A source in a label space that a YAML file describes: its text, or the value."""

    def write(folder: Path) -> Settings:
        settings = own(classes=options.pop("classes", OWN_MAP), **options)(folder)
        text = yaml.safe_dump(content, sort_keys=False)
        text = content if isinstance(content, str | bytes) else text
        path = folder / "space.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return {**settings, "label_space": str(path)}

    return write


def classes_file(text: str):
    """A source whose class map has this text, in the label space warehouse."""

    def write(folder: Path) -> Settings:
        settings = space(WAREHOUSE)(folder)
        Path(settings["source"]["classes"]).write_text(text)
        return settings

    return write


def entries(*lines: str) -> str:
    return "name: own\nclasses:\n" + "".join(f"  {line}\n" for line in lines)


def many(count: int) -> Settings:
    return {"name": "many", "classes": {f"c{i}": {"colour": [i, 1, 0]} for i in range(count)}}


SPACES = [
    Situation("own-space", "a YAML file with three classes, colours and `of`", space(WAREHOUSE),
        "error: a class map could not say `rider`",
        "read; pixels of `person` and `rider` are one class", reads(labels=own_train_ids)),
    Situation("own-space-inline", "the same lines in the configuration instead of a file",
        own(space=WAREHOUSE, classes=OWN_MAP), "error: expected a file",
        "the same as with the file", reads(labels=own_train_ids)),
    Situation("own-space-no-colours", "classes without colours",
        space(
            {"name": "w", "classes": {"floor": None, "person": {"of": ["rider"]}, "forklift": {}}}
        ),
        "error: colours were required", "read; every class gets its own colour",
        both(reads(labels=own_train_ids), lambda _, s: _different_colours(s))),
    Situation("two-classes", "the smallest label space",
        space(
            {"name": "two", "classes": {c: {"colour": [len(c)] * 3} for c in ("floor", "rest")}},
            classes={i: "rest" if i else "floor" for i in range(11)},
        ),
        "read", "read", reads(labels=lambda f: f.ids > 0)),
    Situation("254-classes", "the largest label space",
        space(many(254), classes={i: f"c{253 - i}" for i in range(11)}), "read",
        "read; 254 different colours",
        both(reads(labels=lambda f: 253 - f.ids), lambda _, s: _different_colours(s))),
    Situation("255-classes", "one class too many", space(many(255)), "the same error",
        "error with the number of classes", refuses("2 to 254 classes, found 255")),
    Situation("one-class", "a single class", space(many(1)), "the same error",
        "error with file and line", refuses("space.yaml, line 3", "found 1")),
    Situation("class-twice", "two classes of the same name",
        space(entries("a: {}", "b: {}", "a: {}")), "the same error",
        "error with file, line and name", refuses("line 5", "'a' twice")),
    Situation("class-other-case", "`Road` and `road`",
        space(entries("road: {colour: [1, 2, 3]}", "Road: {colour: [3, 2, 1]}")),
        "two classes, in silence", "error with file, line and both names",
        refuses("line 4", "the same name")),
    Situation("of-unknown", "`of: [raod]`",
        space(entries("a: {colour: [1, 2, 3], of: [raod]}", "b: {colour: [3, 2, 1]}")),
        "error without the one that was meant", "error with file, line and the name that was meant",
        refuses("line 3: class 'a'", "'raod'", "did you mean road")),
    Situation("of-twice", "`road` in two classes",
        space(
            entries(
                *(
                    f"{n}: {{colour: [{c}], of: [road]}}"
                    for n, c in (("a", "1, 2, 3"), ("b", "3, 2, 1"))
                )
            )
        ),
        "the same error", "error with file, line and both classes",
        refuses("line 4: class 'b'", "part of 'a'")),
    Situation("of-no-list", "`of: road`",
        space(entries("a: {colour: [1, 2, 3], of: road}", "b: {colour: [3, 2, 1]}")),
        "the same error", "error with an example", refuses("line 3", "expected a list such as")),
    Situation("bad-colour", "`colour: [300, 0, 0]`",
        space(entries("a: {colour: [300, 0, 0]}", "b: {}")), "error with file and line",
        "error with file, line and value", refuses("line 3", "[300, 0, 0]")),
    Situation("unknown-key", "`color:` instead of `colour:`",
        space(entries("a: {color: [3, 0, 0]}", "b: {}")), "error without the right key",
        "error with the right key", refuses("line 3", "did you mean colour")),
    Situation("class-yes", "a class called `yes`, which YAML reads as true",
        space(entries("yes: {colour: [1, 2, 3]}", "b: {colour: [3, 2, 1]}")), "accepted",
        "error that asks for quotes", refuses("line 3", 'write "yes" in quotes')),
    Situation("classes-as-list", "a list of names", space("name: own\nclasses: [a, b]\n"),
        "the same error", "error with file and line",
        refuses("line 2", "expected 'name: value' lines")),
    Situation("classes-by-id", "`0: road` instead of `road:`", space(entries("0: a", "1: b")),
        "error: class '0': expected 'name: value' lines", "error with the right line",
        refuses("line 3", "expected 'a: {}'")),
    Situation("yaml-error", "an unclosed bracket", space("name: own\nclasses: {a: [\n"),
        "error of the parser over four lines", "error with file and line",
        refuses("space.yaml, line 2", "not readable as YAML")),
    Situation("yaml-tabs", "indentation with tabs", space("name: own\nclasses:\n\ta: {}\n"),
        "error of the parser over four lines", "error with file and line",
        refuses("space.yaml, line 3", "not readable as YAML")),
    Situation("yaml-latin-1", "a file in Latin-1", space("name: Größe\n".encode("latin-1")),
        "error of the codec", "error that asks for UTF-8",
        refuses("space.yaml", "save it as UTF-8")),
    Situation("empty-space", "an empty file", space(""), "error: expected 'name: value' lines",
        "error with what is missing", refuses("space.yaml", "has no 'name'")),
    Situation("no-space-file", "a file that does not exist", own(space="no_such_space.yaml"),
        "the same error", "error with the built-in spaces",
        refuses("no label space 'no_such_space.yaml'", "cityscapes19")),
    Situation("built-in-name", "a space of one's own called `camvid11`",
        space({**WAREHOUSE, "name": "camvid11"}), "the same error", "error",
        refuses("camvid11", "built-in label space")),
    Situation("map-unknown-class", "a class map with a class that the space lacks",
        classes_file("0: floor\n1: forklfit\n"), "error without the line",
        "error with file, line and the class that was meant",
        refuses("line 2", "'forklfit'", "did you mean forklift")),
    Situation("map-reversed", "`floor: 0` instead of `0: floor`", classes_file("floor: 0\n"),
        "error: 0 is not a class", "error with the right order",
        refuses("line 1", "write 'id: class'")),
    Situation("map-comment", "`#804080: floor` without quotes, a comment to YAML",
        classes_file("0: floor\n#804080: floor\n"), "the line was left out in silence",
        "error that asks for quotes", refuses("line 2", "in quotes")),
    Situation("map-mixed", "ids and colours in one class map",
        classes_file('0: floor\n"1 2 3": floor\n'), "error without the line",
        "error with file and line", refuses("line 2", "mixes ids and colours")),
    Situation("map-twice", "an id twice in a class map", classes_file("7: floor\n7: person\n"),
        "the last one counted, in silence", "error with file and line",
        refuses("line 2: 7", "twice")),
    Situation("map-inline", "a class map in the configuration instead of a file",
        lambda folder: _with_source(own()(folder), classes=IDS_MAP), "error: expected a file",
        "read", reads()),
    Situation("map-missing", "no class map",
        lambda folder: _with_source(own()(folder), classes=None), "the same error",
        "error with an example", refuses("data.source.classes is not set", "7: sky")),
    Situation("built-in-source-lacks-class",
        "street scenes as source of a space with a class `of: [train]`",
        lambda folder: {
            **space(
                entries(
                    *(
                        f"{n}: {{colour: [{c}], of: [{o}]}}"
                        for n, c, o in (("a", "1, 2, 3", "train"), ("b", "3, 2, 1", "road"))
                    )
                )
            )(folder),
            "source": {"name": "street_scenes"},
        },
        "the same error", "error with the class that the source lacks",
        refuses("street_scenes has no labels for a")),
]  # fmt: skip


def _different_colours(settings: Settings) -> None:
    found = label_space(settings["label_space"])
    assert len({(0, 0, 0), *found.colours}) == found.num_classes + 1


def _with_source(settings: Settings, **changes) -> Settings:
    return {**settings, "source": {**settings["source"], **changes}}


# Label files


def pal(samples, bits: int) -> bytes:
    return png(samples, bits, PALETTE, PLTE=COLOURS[: 2**bits].tobytes())


def noisy(f: Frame, dtype=np.uint8, channels: int = 3) -> np.ndarray:
    """Ids in R, and other values in the other channels."""
    rng = np.random.default_rng(0)
    array = rng.integers(0, 250, (*SIZE, channels)).astype(dtype)
    array[..., 0] = f.ids
    return array


def with_value(f: Frame, value: int, dtype=np.uint8) -> np.ndarray:
    """Cars have another value."""
    return np.where(f.ids == toy_street.CAR, dtype(value), f.ids.astype(dtype))


def quarter(f: Frame) -> np.ndarray:
    return f.ids & 3


def half(f: Frame) -> np.ndarray:
    return f.ids & 1


def coloured(f: Frame) -> np.ndarray:
    return COLOURS[f.ids]


def opaque(array: np.ndarray, alpha: int = 255) -> np.ndarray:
    return np.dstack([array, np.full(SIZE, alpha, array.dtype)])


def labelled(name, what, before, file: File, now="read", check=None, **options) -> Situation:
    check = check or reads(labels=options.pop("expected", lambda f: f.ids))
    return Situation(name, what, own(labels=file, **options), before, now, check)


CARS = sum(int((f.ids == toy_street.CAR).sum()) for f in FRAMES)
FAR_MAP = {**IDS_MAP, 1000: "car", -1: None}
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
HTML = b"<!DOCTYPE html>\n<html><body>Please log in</body></html>\n"

LABELS = [
    labelled("labels-grey-8", "8-bit grey PNG", "read", GREY_IDS),
    labelled("labels-grey-16", "16-bit grey PNG with ids above 255", "error: 1000 is not an id",
        (".png", lambda f: png(with_value(f, 1000, np.uint16), 16, GREY)), classes=FAR_MAP),
    labelled("labels-grey-4", "4-bit grey PNG", "error: values up to 170, 17 times the ids",
        (".png", lambda f: png(f.ids, 4, GREY))),
    labelled("labels-grey-2", "2-bit grey PNG", "error: values up to 170, 85 times the ids",
        (".png", lambda f: png(quarter(f), 2, GREY)), expected=quarter),
    labelled("labels-grey-1", "1-bit PNG", "id 1 became 255, here ignored, in silence",
        (".png", lambda f: png(half(f), 1, GREY)), expected=half),
    labelled("labels-grey-alpha", "grey PNG with alpha", "error: expected uint8 with one channel",
        (".png", lambda f: png(np.dstack([f.ids, f.ids * 9]), 8, GREY_ALPHA)),
        "read; alpha is dropped"),
    labelled("labels-palette-8", "palette PNG, whose colours say nothing to the class map",
        "read as colours; error: expected uint8 with one channel",
        (".png", lambda f: pal(f.ids, 8)), "read; the index is the id"),
    labelled("labels-palette-4", "palette PNG of 4 bits",
        "read as colours; error: expected uint8 with one channel",
        (".png", lambda f: pal(f.ids, 4)), "read; the index is the id"),
    labelled("labels-palette-2", "palette PNG of 2 bits",
        "read as colours; error: expected uint8 with one channel",
        (".png", lambda f: pal(quarter(f), 2)), "read; the index is the id", expected=quarter),
    labelled("labels-palette-1", "palette PNG of 1 bit",
        "read as colours; error: expected uint8 with one channel",
        (".png", lambda f: pal(half(f), 1)), "read; the index is the id", expected=half),
    labelled("labels-red-of-rgb", "ids in R of an RGB PNG, other values in G and B",
        "error: expected uint8 with one channel", (".png", lambda f: png(noisy(f), 8, RGB)),
        "read; R is the id"),
    labelled("labels-red-of-rgba", "ids in R of an RGBA PNG",
        "error: expected uint8 with one channel",
        (".png", lambda f: png(noisy(f, channels=4), 8, RGBA)), "read; R is the id"),
    labelled("labels-red-of-rgb-16", "ids in R of a 16-bit RGB PNG",
        "error: expected uint8 with one channel",
        (".png", lambda f: png(noisy(f, np.uint16), 16, RGB)), "read; R is the id"),
    labelled("labels-tiff", "TIFF", "read", (".tif", lambda f: tiff(f.ids))),
    labelled("labels-tiff-lzw", "TIFF with LZW", "read",
        (".tif", lambda f: pil(f.ids, "TIFF", compression="tiff_lzw"))),
    labelled("labels-tiff-deflate", "TIFF with Deflate and a predictor", "read",
        (".tiff", lambda f: tiff(f.ids, compression="zlib", predictor=True))),
    labelled("labels-tiff-palette", "TIFF with a palette",
        "read as colours; error: expected uint8 with one channel",
        (".tif", lambda f: tiff_of_bits(f.ids, 8, 3, np.resize(COLOURS, (256, 3)))),
        "read; the index is the id"),
    labelled("labels-tiff-4", "TIFF of 4 bits", "error: not a readable image",
        (".tif", lambda f: tiff_of_bits(f.ids, 4))),
    labelled("labels-tiff-int16", "TIFF of signed 16 bits, -1 for void", "error: 1000 is not an id",
        (".tif", lambda f: tiff(with_value(f, -1, np.int16))), classes=FAR_MAP,
        expected=lambda f: with_value(f, IGNORE)),
    labelled("labels-bmp", "BMP with a palette",
        "read as colours; error: expected uint8 with one channel",
        (".bmp", lambda f: bmp(f.ids, 8, COLOURS)), "read; the index is the id"),
    labelled("labels-webp-lossless", "WebP without loss, equal channels",
        "error: expected uint8 with one channel",
        (".webp", lambda f: pil(np.dstack([f.ids] * 3), "WEBP", lossless=True))),
    labelled("labels-exr", "EXR", "error: not a readable image",
        (".exr", lambda f: exr({"Y": f.ids.astype(np.float32)}))),
    labelled("labels-npy", "`.npy` of bytes", "error: not a readable image",
        (".npy", lambda f: npy(f.ids))),
    labelled("labels-npy-int64", "`.npy` of int64 [1, H, W]", "error: not a readable image",
        (".npy", lambda f: npy(f.ids[None].astype(np.int64)))),
    labelled("labels-npy-big-endian", "`.npy`, big-endian and column-major",
        "error: not a readable image",
        (".npy", lambda f: npy(np.asfortranarray(f.ids.astype(">i4"))))),
    labelled("labels-npy-bool", "`.npy` of true and false", "error: not a readable image",
        (".npy", lambda f: npy(half(f) > 0)), expected=half),
    labelled("labels-npy-float", "`.npy` of whole floating-point numbers",
        "error: not a readable image", (".npy", lambda f: npy(f.ids.astype(np.float32)))),
    labelled("labels-npz", "`.npz` with an array `labels` among others",
        "error: not a readable image", (".npz", lambda f: npz(scores=f.metres, labels=f.ids))),
    labelled("labels-npy-fractions", "`.npy` with fractions", "error: not a readable image",
        (".npy", lambda f: npy(f.ids + np.float32(0.5))), "error with the value",
        refuses("a.npy", ".5", "expected whole numbers")),
    labelled("labels-npy-nan", "`.npy` with NaN", "error: not a readable image",
        (".npy", lambda f: npy(np.where(f.ids == 8, np.nan, f.ids))), "error with the value",
        refuses("a.npy", "nan", "expected whole numbers")),
    labelled("labels-npy-one-hot", "`.npy` of scores [H, W, C]", "error: not a readable image",
        (".npy", lambda f: npy(np.eye(11)[f.ids])), "error with the shape",
        refuses("a.npy", "[64, 96, 11]")),
    labelled("labels-npy-objects", "`.npy` of Python objects", "error: not a readable image",
        (".npy", lambda f: npy(f.ids.astype(object), allow_pickle=True)),
        "error that asks for numbers", refuses("a.npy", "save it as numbers")),
    labelled("labels-npz-several", "`.npz` with two arrays of other names",
        "error: not a readable image", (".npz", lambda f: npz(a=f.ids, b=f.ids)),
        "error with the names", refuses("a.npz", "a, b", "labels")),
    labelled("labels-colours", "colours and a class map of colours", "read",
        (".png", lambda f: png(coloured(f), 8, RGB)), classes=COLOURS_MAP),
    labelled("labels-colours-alpha", "colours with alpha", "read",
        (".png", lambda f: png(opaque(coloured(f)), 8, RGBA)), "read; alpha is dropped",
        classes=COLOURS_MAP),
    labelled("labels-palette-colours", "palette PNG and a class map of colours", "read",
        (".png", lambda f: pal(f.ids, 8)), "read; the palette's colour counts",
        classes=COLOURS_MAP),
    labelled("labels-colours-unknown", "a colour that the class map lacks", "error without a count",
        (
            ".png",
            lambda f: png(np.where((f.ids == 8)[..., None], np.uint8(3), coloured(f)), 8, RGB),
        ),
        "error with the colour and its pixels", refuses("a.png", "(3, 3, 3)", "pixels"),
        classes=COLOURS_MAP),
    labelled("labels-colours-by-ids", "colours and a class map of ids",
        "error: expected uint8 with one channel", (".png", lambda f: png(coloured(f), 8, RGB)),
        "error with the values", refuses("a.png", "128 (")),
    labelled("labels-ids-by-colours", "ids and a class map of colours",
        "error: expected uint8 with colours", GREY_IDS, "error that asks for ids in the class map",
        refuses("a.png", "the class map must list ids"), classes=COLOURS_MAP),
    labelled("labels-jpeg", "JPEG", "read as ids; error only because some lay outside the map",
        (".jpg", lambda f: pil(f.ids, "JPEG")), "error with the reason", refuses("a.jpg", "lossy")),
    labelled("labels-jpeg-as-png", "JPEG called `.png`",
        "read as ids; error only because some lay outside the map",
        (".png", lambda f: pil(f.ids, "JPEG")), "error with the reason",
        refuses("a.png", "JPEG", "lossy")),
    labelled("labels-webp-lossy", "WebP with loss", "error: expected uint8 with one channel",
        (".webp", lambda f: pil(np.dstack([f.ids] * 3), "WEBP")), "error with the reason",
        refuses("a.webp", "lossy")),
    labelled("labels-tiff-jpeg", "JPEG in TIFF",
        "read as ids; error only because some lay outside the map",
        (".tif", lambda f: pil(f.ids, "TIFF", compression="jpeg")), "error with the reason",
        refuses("a.tif", "lossy")),
    labelled("labels-value-unknown", "a value that the class map lacks",
        "error: values up to 77, known 0 to 255",
        (".png", lambda f: png(with_value(f, 77), 8, GREY)),
        "error with file, value, pixels in the set, and the ids of the class map",
        both(
            refuses("77 (", "0 to 10, 255", "unknown_labels"), lambda _, s: _counts_of(s, 77, CARS)
        )),
    labelled("labels-value-ignored", "the same with `unknown_labels: ignore`",
        "no such setting; error", (".png", lambda f: png(with_value(f, 77), 8, GREY)),
        "read; these pixels are ignored", expected=lambda f: with_value(f, IGNORE),
        unknown_labels="ignore"),
    labelled("labels-colour-ignored", "an unknown colour with `unknown_labels: ignore`",
        "no such setting; error",
        (
            ".png",
            lambda f: png(np.where((f.ids == 8)[..., None], np.uint8(3), coloured(f)), 8, RGB),
        ),
        "read; these pixels are ignored", expected=lambda f: with_value(f, IGNORE),
        classes=COLOURS_MAP, unknown_labels="ignore"),
    labelled("labels-other-size", "half the size of the image", "the same error",
        (".png", lambda f: png(f.ids[::2, ::2], 8, GREY)), "error with both sizes",
        refuses("a.png", "48x32", "96x64")),
    labelled("labels-truncated", "a truncated PNG", "error: not a readable image",
        (".png", lambda f: png(f.ids, 8, GREY)[:-60]), "error with the reason",
        refuses("a.png", "truncated")),
    labelled("labels-empty", "an empty file", "error: not a readable image",
        (".png", lambda f: b""), "error with the reason", refuses("a.png", "empty")),
    labelled("labels-html", "a web page called `.png`", "error: not a readable image",
        (".png", lambda f: HTML), "error with the reason", refuses("a.png", "web page")),
    labelled("labels-lfs", "a Git LFS pointer", "error: not a readable image",
        (".png", lambda f: LFS), "error with the reason", refuses("a.png", "git lfs pull")),
    labelled("labels-matlab", "MATLAB files, `labels: labels/*.mat`", "error: not a readable image",
        (".mat", lambda f: b"MATLAB 5.0 MAT-file\1" + bytes(99)), "error with the file",
        refuses("labels/a.mat: not a readable image")),
    labelled("label-map-missing", "no label map for one image", "the same error", GREY_IDS,
        "error with the file", refuses("labels/b.png"),
        after=lambda root: (root / "labels/b.png").unlink()),
]  # fmt: skip


def _counts_of(settings: Settings, value: int, pixels: int) -> None:
    report = report_of(config_of(settings), "source")
    assert [(v.value, v.pixels, v.files) for v in report.unknown] == [(value, pixels, 2)]
    assert "labels-numbering" not in {warning.rule for warning in report.warnings}


# Depth files


def depth_map(name, what, before, file: File, now="read", check=None, expected=None, **options):
    check = check or reads(depth=expected or (lambda f: f.metres))
    return Situation(name, what, own(depth=file, **options), before, now, check)


def disparity(f: Frame) -> np.ndarray:
    """Disparity times 256 for a focal length times baseline of 60."""
    inverse = np.divide(60 * 256, f.metres, where=f.metres > 0, out=np.zeros(SIZE))
    return np.rint(inverse).astype(np.uint16)


def of_disparity(f: Frame) -> np.ndarray:
    found = disparity(f)
    return np.divide(60 * 256, found, where=found > 0, out=np.zeros(SIZE))


def carla(f: Frame) -> np.ndarray:
    """24 bits in R, G and B; the sky is 1000 m away."""
    value = np.rint(np.where(f.metres > 0, f.metres, 1000) / 1000 * (2**24 - 1)).astype(np.uint32)
    return np.dstack([value & 255, value >> 8 & 255, value >> 16]).astype(np.uint8)


def of_carla(f: Frame) -> np.ndarray:
    r, g, b = (carla(f)[..., channel].astype(np.int64) for channel in range(3))
    value = (r + 256 * g + 65536 * b) / (2**24 - 1) * 1000
    return np.where(value > 900, 0, value)


def along_ray(f: Frame) -> np.ndarray:
    """Distance from the camera, 90 degrees wide."""
    y, x = np.indices(SIZE) + 0.5
    h, w = SIZE
    return f.metres * np.sqrt(1 + ((x - w / 2) ** 2 + (y - h / 2) ** 2) / (w / 2) ** 2)


def with_nonsense(f: Frame) -> np.ndarray:
    """Metres with nan, infinity and negative numbers in place of the sky."""
    bad = np.resize(np.array([np.nan, np.inf, -np.inf, -1, 1e6], np.float32), SIZE)
    return np.where(f.metres > 0, f.metres, bad)


def _no_depth(f: Frame) -> np.ndarray:
    return np.zeros(SIZE)


DEPTHS = [
    depth_map("depth-centimetres", "16-bit PNG in centimetres", "read", CENTIMETRES),
    depth_map("depth-millimetres", "16-bit PNG in millimetres", "read",
        (".png", lambda f: png((f.metres.clip(0, 60) * 1000).round(), 16, GREY)),
        depth_per_metre=1000, expected=lambda f: f.metres.clip(0, 60)),
    depth_map("depth-256", "16-bit PNG, 1/256 m as in KITTI", "read",
        (".png", lambda f: png((f.metres * 256).round(), 16, GREY)), depth_per_metre=256,
        expected=lambda f: (f.metres * 256).round() / 256),
    depth_map("depth-rgb-16", "16-bit RGB PNG with equal channels", "read",
        (".png", lambda f: png(np.dstack([f.centimetres] * 3), 16, RGB))),
    depth_map("depth-8-scale", "8-bit PNG with a scale", "error: expected uint16",
        (".png", lambda f: png((f.metres * 1.5).round(), 8, GREY)), depth_per_metre=1.5,
        expected=lambda f: (f.metres * 1.5).round() / 1.5),
    depth_map("depth-8", "8-bit PNG without a scale", "error: expected uint16",
        (".png", lambda f: png((f.metres * 1.5).round(), 8, GREY)), "error that asks for the scale",
        refuses("a.png", "uint8", "depth_per_metre")),
    depth_map("depth-tiff-float", "TIFF in metres, floating point", "error: expected uint16",
        (".tif", lambda f: tiff(f.metres))),
    depth_map("depth-tiff-lzw", "the same with LZW", "error: expected uint16",
        (".tiff", lambda f: pil(f.metres, "TIFF", compression="tiff_lzw"))),
    depth_map("depth-tiff-uint32", "TIFF of 32-bit millimetres", "error: expected uint16",
        (".tif", lambda f: tiff((f.metres * 1000).round().astype(np.uint32))),
        depth_per_metre=1000),
    depth_map("depth-tiff-scale", "TIFF in kilometres, floating point", "error: expected uint16",
        (".tif", lambda f: tiff(f.metres / 1000)), depth_per_metre=0.001),
    depth_map("depth-exr", "EXR, channel Z", "error: not a readable image",
        (".exr", lambda f: exr({"Z": f.metres}))),
    depth_map("depth-exr-half", "EXR of 16 bits with three equal channels",
        "error: not a readable image",
        (".exr", lambda f: exr({c: f.metres.astype(np.float16) for c in "RGB"})),
        expected=lambda f: f.metres.astype(np.float16)),
    depth_map("depth-exr-blender", "EXR with colours and a channel for depth",
        "error: not a readable image",
        (
            ".exr",
            lambda f: exr(
                {
                    "ViewLayer.Depth.Z": f.metres,
                    "ViewLayer.Combined.R": f.metres * 2,
                    "ViewLayer.Combined.G": f.metres * 3,
                }
            ),
        )),
    depth_map("depth-npy", "`.npy` of float64", "error: not a readable image",
        (".npy", lambda f: npy(f.metres.astype(float)))),
    depth_map("depth-npy-centimetres", "`.npy` of 16-bit centimetres",
        "error: not a readable image", (".npy", lambda f: npy(f.centimetres))),
    depth_map("depth-npz", "`.npz` with an array `depth` among others",
        "error: not a readable image", (".npz", lambda f: npz(depth=f.metres, mask=f.metres > 0))),
    depth_map("depth-disparity", "16-bit disparity times 256, with focal length times baseline",
        "no such setting; taken as metres in silence",
        (".png", lambda f: png(disparity(f), 16, GREY)), depth_kind="disparity",
        depth_per_metre=256, depth_focal_baseline=60, expected=of_disparity),
    depth_map("depth-disparity-float", "disparity in pixels, floating point",
        "no such setting; error: expected uint16",
        (".tif", lambda f: tiff(disparity(f) / np.float32(256))), depth_kind="disparity",
        depth_focal_baseline=60, expected=of_disparity),
    depth_map("depth-disparity-alone", "disparity without focal length times baseline",
        "no such setting; taken as metres in silence",
        (".png", lambda f: png(disparity(f), 16, GREY)), "error that asks for it",
        refuses("depth_focal_baseline"), depth_kind="disparity"),
    depth_map("depth-inverse", "1 / metres, floating point",
        "no such setting; not a readable image", (".npy", lambda f: npy(disparity(f) / (60 * 256))),
        depth_kind="inverse", expected=of_disparity),
    depth_map("depth-carla", "CARLA's 24 bits in RGB", "no such setting; error: expected uint16",
        (".png", lambda f: png(carla(f), 8, RGB)), depth_kind="carla", expected=of_carla),
    depth_map("depth-carla-alpha", "CARLA's 24 bits in RGBA",
        "no such setting; error: expected uint16",
        (".png", lambda f: png(opaque(carla(f)), 8, RGBA)), depth_kind="carla", expected=of_carla),
    depth_map("depth-carla-as-metres", "CARLA's 24 bits without saying so",
        "error: expected uint16", (".png", lambda f: png(carla(f), 8, RGB)),
        "error with the setting", refuses("a.png", "depth_kind: carla")),
    depth_map("depth-scale-nan", "`depth_per_metre: .nan`", "every depth became NaN, in silence",
        CENTIMETRES, "error with setting and value", refuses("data.source.depth_per_metre is nan"),
        depth_per_metre=float("nan")),
    depth_map("depth-ray", "distance along the ray, with the field of view",
        "no such setting; not a readable image", (".npy", lambda f: npy(along_ray(f))),
        depth_along="ray", depth_fov=90),
    depth_map("depth-ray-alone", "distance along the ray without the field of view",
        "no such setting; not a readable image", (".npy", lambda f: npy(along_ray(f))),
        "error that asks for it", refuses("depth_fov"), depth_along="ray"),
    depth_map("depth-nonsense", "NaN, infinity and negative numbers in the sky",
        "error: not a readable image", (".npy", lambda f: npy(with_nonsense(f))),
        "read; these pixels have no depth"),
    depth_map("depth-65535", "65535 as depth of the sky", "read",
        (".png", lambda f: png(np.where(f.metres > 0, f.centimetres, 65535), 16, GREY)),
        "read; these pixels have no depth"),
    depth_map("depth-zero", "0 everywhere", "the same error",
        (".png", lambda f: png(f.centimetres * 0, 16, GREY)), "error",
        refuses("a.png", "no pixel has a depth")),
    depth_map("depth-all-nan", "NaN everywhere", "error: not a readable image",
        (".npy", lambda f: npy(f.metres * np.nan)), "error",
        refuses("a.npy", "no pixel has a depth")),
    depth_map("depth-jpeg", "JPEG", "error: expected uint16",
        (".jpg", lambda f: pil((f.metres).astype(np.uint8), "JPEG")), "error with the reason",
        refuses("a.jpg", "JPEG", "lossy")),
    depth_map("depth-coloured", "a picture of depth in colours", "error: expected uint16",
        (".png", lambda f: png(coloured(f), 8, RGB)), "error with the reason",
        refuses("a.png", "in colours contains no metres")),
    depth_map("depth-two-channels", "`.npy` [H, W, 2]", "error: not a readable image",
        (".npy", lambda f: npy(np.dstack([f.metres] * 2))), "error with the shape",
        refuses("a.npy", "[64, 96, 2]")),
    depth_map("depth-pfm", "PFM", "error: expected uint16",
        (".pfm", lambda f: b"Pf\n96 64\n-1\n" + f.metres.tobytes()),
        "error with the formats that are read", refuses("a.pfm", "PFM")),
    depth_map("depth-exr-truncated", "a truncated EXR", "error: not a readable image",
        (".exr", lambda f: exr({"Z": f.metres})[:-500]), "error with the reason",
        refuses("a.exr", "EXR, truncated")),
    depth_map("depth-other-size", "half the size of the image", "error: not a readable image",
        (".npy", lambda f: npy(f.metres[::2, ::2])), "error with both sizes",
        refuses("a.npy", "48x32", "96x64")),
    depth_map("depth-map-missing", "no depth map for one image", "the same error", CENTIMETRES,
        "error with the file", refuses("depth/b.png"),
        after=lambda root: (root / "depth/b.png").unlink()),
    Situation("no-depth", "no depth at all, which the settings do not need", own(), "read",
        "read; depth is 0, and nothing is trained on it", reads(depth=_no_depth)),
]  # fmt: skip


# Images


def picture(
    name, what, before, file: File, now="read", check=None, expected=None, **options
) -> Situation:
    check = check or reads(image=expected or (lambda f: f.image))
    return Situation(name, what, own(image=file, **options), before, now, check)


def grey(f: Frame) -> np.ndarray:
    return f.image[..., 1]


def of_grey(f: Frame) -> np.ndarray:
    return np.dstack([grey(f)] * 3)


def of_bits(bits: int):
    """Image as a camera of ``bits`` bits stores it, and as it is read."""

    def stored(f: Frame) -> np.ndarray:
        return np.rint(f.image / 255 * (2**bits - 1)).astype(np.uint16)

    def bright(f: Frame) -> bytes:
        pixels = stored(f)
        pixels[0, 0] = 2**bits - 1
        return png(pixels, 16, RGB)

    def expected(f: Frame) -> np.ndarray:
        pixels = f.image.copy()
        pixels[0, 0] = 255
        return pixels

    return (".png", bright), expected


def indexed(f: Frame) -> Image.Image:
    return Image.fromarray(f.image).quantize(200)


def jpeg_pixels(f: Frame, **options) -> np.ndarray:
    data = np.frombuffer(pil(f.image, "JPEG", quality=95, **options), np.uint8)
    return cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)[..., ::-1]


EXIF_90 = b"Exif\0\0" + exif(6)


def turned(f: Frame) -> bytes:
    """A JPEG that a camera held upright wrote: stored wide, to be shown tall."""
    return pil(f.image, "JPEG", quality=95, exif=EXIF_90)


def _cmyk(f: Frame) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(pil(f.image, "TIFF", "CMYK"))).convert("RGB"))


def with_size(data: bytes, side: int) -> bytes:
    """A PNG whose header claims another size."""
    header = b"IHDR" + struct.pack(">II", side, side) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


IMAGES = [
    picture("image-jpeg", "JPEG", "read", (".jpg", lambda f: pil(f.image, "JPEG", quality=95)),
        expected=jpeg_pixels),
    picture("image-jpeg-progressive", "progressive JPEG", "read",
        (".jpeg", lambda f: pil(f.image, "JPEG", quality=95, progressive=True)),
        expected=lambda f: jpeg_pixels(f, progressive=True)),
    picture("image-png-interlaced", "interlaced PNG called `.PNG`", "read",
        (".PNG", lambda f: pil(f.image, "PNG", interlace=1))),
    picture("image-webp", "WebP", "error: no image matches `images/*`",
        (".webp", lambda f: pil(f.image, "WEBP", lossless=True))),
    picture("image-bmp", "BMP", "error: no image matches `images/*`",
        (".bmp", lambda f: pil(f.image, "BMP"))),
    picture("image-tiff", "TIFF", "error: no image matches `images/*`",
        (".tif", lambda f: tiff(f.image, photometric="rgb"))),
    picture("image-tiff-lzw", "TIFF with LZW, called `.TIFF`", "error: no image matches `images/*`",
        (".TIFF", lambda f: pil(f.image, "TIFF", compression="tiff_lzw"))),
    picture("image-tiff-planes", "TIFF with separate planes", "error: no image matches `images/*`",
        (
            ".tif",
            lambda f: tiff(f.image.transpose(2, 0, 1), photometric="rgb", planarconfig="separate"),
        )),
    picture("image-grey", "grey PNG", "read", (".png", lambda f: png(grey(f), 8, GREY)),
        expected=of_grey),
    picture("image-grey-alpha", "grey PNG with alpha", "read",
        (".png", lambda f: png(np.dstack([grey(f), f.ids]), 8, GREY_ALPHA)),
        "read; alpha is dropped", expected=of_grey),
    picture("image-grey-1", "black and white, 1 bit", "read",
        (".png", lambda f: png(grey(f) > 99, 1, GREY)),
        expected=lambda f: np.dstack([(grey(f) > 99) * 255] * 3)),
    picture("image-rgba", "RGBA PNG with transparent pixels", "read",
        (".png", lambda f: png(np.dstack([f.image, f.ids * 20]), 8, RGBA)),
        "read; alpha is dropped"),
    picture("image-palette", "palette PNG", "read", (".png", lambda f: pil(indexed(f), "PNG")),
        expected=lambda f: np.asarray(indexed(f).convert("RGB"))),
    picture("image-palette-transparent", "palette PNG with a transparent colour", "read",
        (".png", lambda f: pil(indexed(f), "PNG", transparency=3)), "read; alpha is dropped",
        expected=lambda f: np.asarray(indexed(f).convert("RGB"))),
    *(
        picture(
            f"image-{bits}-bits",
            f"{bits} bits in a 16-bit PNG",
            before,
            of_bits(bits)[0],
            "read; scaled by the bits that the values use",
            expected=of_bits(bits)[1],
        )
        for bits, before in (
            (10, "64 times too dark, in silence"),
            (12, "16 times too dark, in silence"),
            (14, "4 times too dark, in silence"),
            (16, "read"),
        )
    ),
    picture("image-8-in-16", "values of 8 bits in a 16-bit PNG", "read as black, in silence",
        (".png", lambda f: png(f.image.astype(np.uint16), 16, RGB)),
        "read as 8 bits; warning `images-bits`",
        both(reads(), lambda folder, s: _has_rule(s, "images-bits"))),
    picture("image-float", "TIFF of floating point, 0 to 1", "error: no image matches `images/*`",
        (".tif", lambda f: tiff(f.image / np.float32(255), photometric="rgb"))),
    picture("image-tiff-cmyk", "CMYK TIFF", "error: no image matches `images/*`",
        (".tif", lambda f: pil(f.image, "TIFF", "CMYK")), expected=_cmyk),
    picture("image-exif", "EXIF orientation of 90 degrees, label map as stored",
        "image turned; error with both sizes", (".jpg", turned),
        "read as stored; warning `images-orientation` with the files",
        both(reads(image=jpeg_pixels), lambda folder, s: _has_rule(s, "images-orientation"))),
    picture("image-exif-apply", "EXIF orientation of 90 degrees, label map as shown, `apply`",
        "always turned; squeezed into the training size", (".jpg", turned), "the image is turned",
        reads(image=lambda f: _shown(f)[0], labels=lambda f: _shown(f)[1]),
        labels=(".png", lambda f: png(np.rot90(f.ids, -1), 8, GREY)), exif_orientation="apply"),
    picture("image-exif-mismatch", "EXIF orientation of 90 degrees, label map as shown",
        "always turned: read", (".jpg", turned), "error with both sizes", refuses("64x96", "96x64"),
        labels=(".png", lambda f: png(np.rot90(f.ids, -1), 8, GREY))),
    picture("image-jpeg-as-png", "JPEG called `.png`", "read",
        (".png", lambda f: pil(f.image, "JPEG", quality=95)), "read by its content",
        expected=jpeg_pixels),
    picture("image-text", "a text file called `.png`", "error: not a readable image",
        (".png", lambda f: b"not an image\n"), "error with the text",
        refuses("a.png", "text: 'not an image'")),
    picture("image-lfs", "a Git LFS pointer", "error: not a readable image",
        (".png", lambda f: LFS), "error with the reason", refuses("a.png", "git lfs pull")),
    picture("image-empty", "an empty file", "error: not a readable image", (".jpg", lambda f: b""),
        "error with the reason", refuses("a.jpg", "empty")),
    picture("image-truncated-png", "a truncated PNG", "error: not a readable image",
        (".png", lambda f: png(f.image, 8, RGB)[:-2000]), "error with the reason",
        refuses("a.png", "truncated")),
    picture("image-huge", "a PNG whose header says 60000x60000",
        "training: traceback; `check`: OpenCV's text",
        (".png", lambda f: with_size(png(f.image, 8, RGB), 60000)), "error with the size",
        refuses("a.png", "60000x60000 pixels, too large")),
    picture("image-truncated-jpeg", "a truncated JPEG", "error: not a readable image",
        (".jpg", lambda f: pil(f.image, "JPEG")[:-900]), "error with the reason",
        refuses("a.jpg", "truncated")),
    picture("image-heic", "a HEIC image called `.jpg`", "error: not a readable image",
        (".jpg", lambda f: b"\0\0\0\x18ftypheic" + bytes(99)), "error with the reason",
        refuses("a.jpg", "AVIF or HEIC")),
    picture("image-exr", "an EXR called `.png`", "error: not a readable image",
        (".png", lambda f: exr({"Z": f.metres})), "error with the formats that are read",
        refuses("a.png", "EXR", "expected one of PNG")),
]  # fmt: skip


def _shown(f: Frame) -> tuple[np.ndarray, np.ndarray]:
    """The image turned, cropped and resized as in training, and its label map."""
    arrays = (np.ascontiguousarray(np.rot90(a, -1)) for a in (jpeg_pixels(f), f.ids, f.metres))
    frame = resize_frame(sets.LabelledFrame(*arrays), SIZE)
    return frame.image, frame.labels


def _has_rule(settings: Settings, rule: str) -> None:
    report = report_of(config_of(settings), "source")
    (warning,) = [w for w in report.warnings if w.rule == rule]
    assert len(report.facts.frames) == 2 and warning.message


# Folders and archives


def folders(name, what, before, after, now="read", check=None, settings=None) -> Situation:
    write = own(after=after, **(settings or {}))
    return Situation(name, what, write, before, now, check or reads())


def moved(root: Path, name: str) -> Path:
    """Move the set elsewhere."""
    other = root.with_name(name)
    root.rename(other)
    return other


def linked(root: Path) -> None:
    elsewhere = moved(root, "elsewhere")
    root.mkdir()
    for kind in ("images", "labels"):
        (root / kind).symlink_to(elsewhere / kind)


def linked_subfolder(root: Path) -> None:
    (root.with_name("more")).mkdir()
    for kind in ("images", "labels"):
        (root / kind / "a.png").rename(root.with_name("more") / f"{kind}.png")
        (root.with_name(kind)).mkdir()
        (root.with_name("more") / f"{kind}.png").rename(root.with_name(kind) / "a.png")
        (root / kind / "A").symlink_to(root.with_name(kind))


def cycle(root: Path) -> None:
    for kind in ("images", "labels"):
        (root / kind / "again").symlink_to(root)


def hidden(root: Path) -> None:
    for name in ("images/._a.png", "images/.DS_Store", "images/.thumbs/a.png", "labels/._a.png",
                 "__MACOSX/images/a.png", "images/Thumbs.db"):  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"\0\x05\x16\x07")


def zipped(*kinds: str, top: str = "", name: str = "set.zip", keep: bool = False):
    """Pack folders of the set into an archive in its place."""

    def after(root: Path) -> None:
        archive = root / name
        with zipfile.ZipFile(archive, "w") as z:
            for path in sorted(root.rglob("*.png")):
                inner = path.relative_to(root).as_posix()
                if not kinds or inner.startswith(kinds):
                    z.write(path, top + inner)
                    path.unlink()
        for folder in [path for path in root.iterdir() if path.is_dir()]:
            if not any(folder.iterdir()):
                folder.rmdir()

    return after


def in_turn(*changes):
    def after(root: Path) -> None:
        for change in changes:
            change(root)

    return after


def damaged(root: Path) -> None:
    content = (root / "set.zip").read_bytes()
    (root / "set.zip").write_bytes(content[: len(content) // 2])


def encrypted(root: Path) -> None:
    content = bytearray((root / "set.zip").read_bytes())
    start = content.find(b"PK\1\2")
    while start >= 0:
        content[start + 8] |= 1
        start = content.find(b"PK\1\2", start + 4)
    (root / "set.zip").write_bytes(content)


def _two_label_maps(root: Path) -> None:
    (root / "labels/a.npy").write_bytes(npy(FRAMES[0].ids))


def rooted(name: str, **options):
    """A set whose root is another path beside its folder."""

    def write(folder: Path) -> Settings:
        settings = own(**options)(folder)
        root = str(folder / name)
        return {**settings, "source": {**settings["source"], "root": root},
                "target": {**settings["target"], "root": root}}  # fmt: skip

    return write


def _hidden(settings: Settings, count: int) -> None:
    assert report_of(config_of(settings), "source").hidden == count


FOLDERS = [
    folders("linked-folders", "`images` and `labels` are links to folders", "read", linked),
    folders("linked-subfolder", "a subfolder that is a link", "left out in silence",
        linked_subfolder, "read through the link"),
    folders("link-cycle", "a link to a folder that contains it", "read", cycle,
        "read; the link is followed once"),
    folders("broken-link", "an image that is a link to nowhere", "error: no such file",
        lambda root: [
            (root / "images/c.png").symlink_to("gone.png"),
            (root / "labels/c.png").symlink_to("b.png"),
        ],
        "error with the link", refuses("images/c.png")),
    folders("hidden-files", "AppleDouble, `.DS_Store`, `Thumbs.db`, a hidden folder, `__MACOSX`",
        "taken for images: error", hidden, "read; 6 hidden files are counted",
        both(reads(), lambda _, s: _hidden(s, 6))),
    folders("two-of-one-name", "`a.png` and `a.jpg`", "two frames with one label map, in silence",
        lambda root: (root / "images/a.jpg").write_bytes(pil(FRAMES[0].image, "JPEG")),
        "error with both files", refuses("a.jpg and a.png have the same name")),
    Situation("two-labels-of-one-name", "label maps `a.png` and `a.npy`, pattern `labels/*`",
        lambda folder: _with_source(own(after=_two_label_maps)(folder), labels="labels/*"),
        "`.png` was taken in silence", "error with both files",
        refuses("a.npy and a.png have the same name")),
    folders("subfolders", "images and labels in subfolders", "read",
        lambda root: [
            (root / kind / "x y").mkdir()
            or (root / kind / "b.png").rename(root / kind / "x y" / "ü b.png")
            for kind in ("images", "labels")
        ],
        "read with their subfolders"),
    folders("zip-in-root", "the set as `set.zip` in the root", "error: no image matches `images/*`",
        zipped()),
    folders("zip-top-folder", "`set.zip` with a top folder `set/`, in the root",
        "error: no image matches `images/*`", zipped(top="set/"),
        "error with the folder that unpacking gives",
        refuses("is the data set's folder", "set/set?")),
    Situation("zip-as-root-top-folder", "an archive with a top folder as root",
        rooted("set/set.zip", after=zipped(top="set/")), "error: is a file, not a folder", "read",
        reads()),
    folders("zip-by-kind", "`images.zip` and `labels.zip`", "error: no image matches `images/*`",
        in_turn(zipped("images", name="images.zip"), zipped("labels", name="labels.zip"))),
    folders("zip-of-labels", "images unpacked, labels in an archive",
        "error: label maps are missing", zipped("labels", name="labels.zip")),
    Situation("zip-as-root", "the archive itself as root", rooted("set/set.zip", after=zipped()),
        "error: is a file, not a folder", "read", reads()),
    folders("zip-damaged", "a truncated archive", "error: no image matches `images/*`",
        in_turn(zipped(), damaged), "error with the archive",
        refuses("set.zip", "not a readable zip archive")),
    folders("zip-encrypted", "an archive with a password", "error: no image matches `images/*`",
        in_turn(zipped(), encrypted), "error with the archive", refuses("set.zip", "encrypted")),
    folders("zip-in-zip", "an archive in an archive", "error: no image matches `images/*`",
        in_turn(zipped(), lambda root: _zip_again(root / "set.zip")),
        "error that asks to unpack the outer one", refuses("unpack the outer one")),
    Situation("tar-as-root", "a `.tar.gz` as root",
        rooted(
            "set.tar.gz", after=lambda root: root.with_name("set.tar.gz").write_bytes(b"\x1f\x8b")
        ),
        "error: is a file, not a folder", "error that asks to unpack it",
        refuses("set.tar.gz", "must be unpacked")),
    Situation("root-missing", "a root that does not exist", rooted("sets"), "the same error",
        "error with path and setting", refuses("sets: no such folder", "data.source.root")),
    Situation("root-too-deep", "`images` as root", rooted("set/images"),
        "error: no image matches `images/*`", "error with the right folder",
        refuses("is the data set's folder", "set?")),
    Situation("root-too-deep-labels", "`labels` as root", rooted("set/labels"),
        "error: no image matches `images/*`", "error with the right folder",
        refuses("is the data set's folder", "set?")),
    Situation("root-too-high", "the folder above as root", rooted("."),
        "error: no image matches `images/*`", "error with the right folder",
        refuses("is the data set's folder", "set?")),
    folders("no-images", "a folder with text files alone", "error: no image matches `images/*`",
        lambda root: [
            (root / "images" / f"{n}.png").rename(root / "images" / f"{n}.txt") for n in "ab"
        ],
        "error with what is there", refuses("2 .txt")),
    folders("pattern-without-star", "`images: images`", "the same error", lambda root: None,
        "error with an example", refuses("pattern 'images'", "expected"),
        settings={"images": "images"}),
]  # fmt: skip


def _zip_again(archive: Path) -> None:
    inner = archive.read_bytes()
    with zipfile.ZipFile(archive, "w") as z:
        z.writestr("inner.zip", inner)


# Several sources


def mixed(*changes: Settings, **options):
    """Two sources; each may have changed settings."""

    def write(folder: Path) -> Settings:
        settings = own()(folder)
        del settings["source"]
        first = folder_set(folder / "one", depth=CENTIMETRES)
        second = folder_set(folder / "two")
        given = [*changes, {}, {}][:2]
        settings["sources"] = [
            {**source, **change} for source, change in zip((first, second), given, strict=True)
        ]
        return {**settings, **options}

    return write


def shares_are(*shares: float):
    def check(_folder: Path, settings: Settings) -> None:
        config = config_of(settings)
        source = frames_of(config, "source")
        turns = [source.turn(k)[0] for k in range(1000)]
        assert [turns.count(part) for part in (0, 1)] == [share * 1000 for share in shares]
        assert len(sets.describe_sources(config, source)) == 2

    return check


def _refuses_in(word: str, *words: str):
    def check(_folder: Path, settings: Settings) -> None:
        with pytest.raises(InputError) as error:
            frames_of(config_of(settings), "source")
        for each in (word, *words):
            assert each in str(error.value), error.value

    return check


def _sizes(_folder: Path, settings: Settings) -> None:
    source = frames_of(config_of(settings), "source")
    parts = sets.source_parts(source)
    assert [part[0].image.shape[:2] for part in parts.values()] == [(96, 144), (64, 96)]


SOURCES = [
    Situation("sources-shares", "two sources, shares 3 and 1", mixed({"share": 3}, {"share": 1}),
        "no such setting", "three of four pairs are of the first", shares_are(0.75, 0.25)),
    Situation("sources-depth", "one source with depth and one without", mixed(), "no such setting",
        "read; depth counts where there is any", lambda _, s: _has_depth(s, [True, False])),
    Situation("sources-sizes", "two sources, resized to other sizes",
        mixed({"height": 96, "width": 144}), "no such setting",
        "read; each is cropped from its own size", _sizes),
    Situation("sources-wrong-root", "the second source's root does not exist",
        mixed({}, {"root": "/no/such/set"}), "no such setting", "error with the source's number",
        _refuses_in("data.sources[1].root", "/no/such/set")),
    Situation("sources-no-map", "the second source has no class map", mixed({}, {"classes": None}),
        "no such setting", "error with the source's number",
        _refuses_in("data.sources[1].classes")),
    Situation("sources-empty", "an empty list", lambda folder: {**mixed()(folder), "sources": []},
        "no such setting", "error", _refuses_in("data.sources is empty")),
    Situation("sources-share-zero", "a share of 0", mixed({"share": 0}), "no such setting", "error",
        _refuses_in("share is 0")),
    Situation("sources-label-space", "a second source without labels for the label space",
        mixed({}, {"name": "vkitti"}), "no such setting", "error with both and their label spaces",
        _refuses_in("source vkitti in kitti10", "label_space is camvid11")),
]  # fmt: skip


def _has_depth(settings: Settings, expected: list[bool]) -> None:
    parts = sets.source_parts(frames_of(config_of(settings), "source"))
    assert [part.has_depth for part in parts.values()] == expected


# Shapes


def target_of(shape: tuple[int, int], orientation: int = 1, **settings):
    """A target whose images have another shape than training: columns of different colours."""

    def write(folder: Path) -> Settings:
        found = own()(folder)
        height, width = shape
        image = np.zeros((height, width, 3), np.uint8)
        image[..., 0] = np.arange(width) * 255 // (width - 1)
        image[..., 1] = np.arange(height)[:, None] * 255 // (height - 1)
        labels = np.resize(np.arange(11, dtype=np.uint8), shape)
        options = {} if orientation == 1 else {"exif": exif(orientation)}
        frames = [Frame(image, labels, labels.astype(np.float32))] * 2
        found["target"] = folder_set(
            folder / "target", (".png", lambda f: pil(f.image, "PNG", **options)), frames=frames,
            **settings,
        )  # fmt: skip
        return found

    return write


def _cropped(_folder: Path, settings: Settings) -> None:
    """Columns from 37.5 % to 62.5 %, or rows, of the whole are left, and nothing is squeezed."""
    config = config_of(settings)
    image = frames_of(config, "target")[0]
    assert image.shape == (*SIZE, 3)
    assert abs(int(image[0, 0, 0]) - 255 * 0.375) < 4 and abs(int(image[0, -1, 0]) - 159) < 4
    assert image[:, :, 1].min() < 3 and image[:, :, 1].max() > 252
    note = crop_note(list_set(config, "target"))
    assert note is not None and "keep 25% of their pixels" in note


def _whole(_folder: Path, settings: Settings) -> None:
    image, labels, _ = frames_of(config_of(settings), "evaluation")[0]
    assert image.shape == (64, 384, 3) and labels.shape == (128, 768)


def _upright(_folder: Path, settings: Settings) -> None:
    image = frames_of(config_of(settings), "target")[0]
    # red grows downwards, because the image was turned by 90 degrees
    assert int(image[-1, 48, 0]) > int(image[0, 48, 0]) + 50 and image.shape == (*SIZE, 3)


SHAPES = [
    Situation("target-wide", "target images four times as wide as the training's shape",
        target_of((128, 768)), "squeezed into the training size, in silence",
        "resized on the shorter side and cropped; `data check` says how much is left", _cropped),
    Situation("evaluation-wide", "the same images, scored", target_of((128, 768)),
        "squeezed into the training size, in silence",
        "predicted whole at their own shape, scored at the label map's size", _whole),
    Situation("target-exif", "target images with an EXIF orientation of 90 degrees, `apply`",
        target_of((96, 144), 6, exif_orientation="apply"),
        "always turned; squeezed into the training size", "turned, then cropped", _upright),
    Situation("target-small", "target images smaller than the training size", target_of((32, 48)),
        "enlarged", "enlarged",
        lambda _, s: _shape_is(frames_of(config_of(s), "target")[0].shape, (*SIZE, 3))),
    Situation("target-one-pixel-row", "target images of 2 pixels height", target_of((2, 600)),
        "squeezed and enlarged, in silence", "cropped and enlarged",
        lambda _, s: _shape_is(frames_of(config_of(s), "target")[0].shape, (*SIZE, 3))),
]  # fmt: skip


def _shape_is(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert shape == expected


# Plausibility


@cache
def _street():
    return plausibility.toys()


def street(damage, video: bool = False):
    """Six frames of the toy street with the same damage in each."""

    def write(folder: Path) -> Settings:
        frames = plausibility.toys(video=True) if video else _street()
        changed = [damage(frame, frames, index) for index, frame in enumerate(frames)]
        source = plausibility.write(folder / "set", changed)
        names = ("name", "root", "labels", "depth", "classes", "unknown_labels")
        values = {name: getattr(source, name) for name in names}
        return {"source": values, "target": {"name": "folder", "root": values["root"]}}

    return write


def implausible(rule: str, what: str, damage: str | Callable, *others: str) -> Situation:
    damage = plausibility.DAMAGES[damage][0] if isinstance(damage, str) else damage
    return Situation(
        rule, what, street(damage), "accepted in silence", f"warning `{rule}`", warns(rule, *others)
    )


def _bits(frame, frames, index):
    return frame.over(image=frame.image.astype(np.uint16))


def void_in_the_second(f: Frame) -> bytes:
    second = f is FRAMES[1]
    return png(np.where(f.ids < 11 * second, 255, f.ids), 8, GREY)


PLAUSIBILITY = [
    Situation("sound-street", "a sound street", street(lambda frame, frames, index: frame),
        "no warning", "no warning", warns()),
    implausible("images-one-colour", "black images", "all black"),
    implausible("images-near-black", "nearly black images", "black"),
    implausible("images-near-white", "nearly white images", "white"),
    implausible("images-are-labels", "label maps in place of the images",
        "coloured label map as image"),
    Situation("images-repeated", "an image with its label and depth map that is in the set twice",
        street(lambda frame, frames, index: frames[0] if index < 2 else frame),
        "accepted in silence", "warning `images-repeated`", warns("images-repeated")),
    implausible("labels-flipped", "mirrored label maps", "mirrored labels"),
    implausible("labels-one-value", "one class everywhere", "one class"),
    implausible("labels-numbering", "ids greater by one", "ids greater by one"),
    implausible("labels-of-another-frame", "label maps of other images", "labels of other frames"),
    Situation("labels-of-neighbour", "label maps of the frame before, in a video",
        street(
            lambda frame, frames, index: frame.over(ids=frames[max(index - 1, 0)].ids), video=True
        ),
        "accepted in silence", "warning `labels-of-neighbour`", warns("labels-of-neighbour")),
    implausible("labels-ignored", "void everywhere", "void"),
    Situation("labels-ignored-in-one", "void in one of two label maps, without depth",
        own(labels=(".png", void_in_the_second)), "accepted in silence",
        "warning `labels-ignored` with the file",
        lambda _, s: _has_rule(s, "labels-ignored")),
    implausible("labels-one-class", "one class over 95 %", "hardly anything but road"),
    implausible("labels-place", "sky and road exchanged", "sky and road exchanged"),
    implausible("labels-never-drawn", "a class that no label map has", "no pedestrians"),
    implausible("depth-one-value", "the same depth everywhere", "one depth"),
    implausible("depth-is-image", "grey images as depth maps", "grey image as depth"),
    implausible("depth-is-labels", "label maps as depth maps", "label map as depth"),
    implausible("depth-flipped", "depth maps upside down", "depth upside down"),
    implausible("depth-does-not-fall", "inverse depth as depth", "inverse"),
    implausible("depth-sky-near", "a sky nearer than the road", "near sky"),
    implausible("depth-units", "millimetres as centimetres", "millimetres as centimetres"),
    implausible("depth-range", "a range that no street has", "small range"),
    implausible("depth-of-another-frame", "depth maps of other images", "depth of other frames"),
    implausible("depth-quantised", "depth of 8 bits", "8 bits"),
    implausible("depth-missing", "holes in the depth maps", "holes"),
    Situation("images-shared", "an image that is trained on and scored on, saved twice",
        lambda folder: _shared_images(folder), "accepted in silence", "warning `images-shared`",
        lambda _, s: _shares_images(s)),
    Situation("train-ids-as-ids", "Cityscapes' train ids where its ids are expected",
        lambda folder: _train_ids(folder), "accepted in silence",
        "warning `labels-numbering` that says so", lambda _, s: _numbering(s)),
]  # fmt: skip


def _shared_images(folder: Path) -> Settings:
    settings = own()(folder)
    target = folder_set(folder / "target", images="{split}/*", labels=None, classes=None)
    root = folder / "target"
    (root / "images").rename(root / "train")
    (root / "val").mkdir()
    (root / "val" / "other.png").write_bytes(pil(FRAMES[0].image, "PNG", compress_level=0))
    labels = {"labels": "{split}_ids/*", "classes": settings["source"]["classes"]}
    (root / "val_ids").mkdir()
    (root / "val_ids" / "other.png").write_bytes(png(FRAMES[0].ids, 8, GREY))
    splits = {"train_split": "train", "evaluation_split": "val"}
    return {**settings, "target": {**target, **labels, **splits}}


def _shares_images(settings: Settings) -> None:
    config = config_of(settings)
    reports = {part: report_of(config, part) for part in ("target", "evaluation")}
    (warning,) = compare_sets(reports)["evaluation"]
    assert warning.rule == "images-shared" and "other.png" in warning.message


def _train_ids(folder: Path) -> Settings:
    """A Cityscapes target with train ids."""
    table = [10, 2, 5, 0, 1, 8, 7, 4, 13, 11, 18, 255]
    for index, frame in enumerate(_street()):
        files = {"leftImg8bit": ("leftImg8bit", frame.image)}
        files["gtFine"] = ("gtFine_labelIds", np.array(table)[frame.ids])
        for kind, (suffix, array) in files.items():
            path = folder / "city" / kind / "val" / "x" / f"x_{index}_0_{suffix}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(pil(array.astype(np.uint8), "PNG"))
    return {**own()(folder), "target": {"name": "cityscapes", "root": str(folder / "city")},
            "label_space": "cityscapes16"}  # fmt: skip


def _numbering(settings: Settings) -> None:
    config = config_of(settings)
    data = list_set(config, "evaluation")
    report = check_set(data, "evaluation", label_space("cityscapes16"), workers=0)
    (warning,) = [w for w in report.warnings if w.rule == "labels-numbering"]
    assert "train ids" in warning.message


# predict


@cache
def _weights() -> tuple[TaskNet, Config]:
    config = Config()
    config.data.height, config.data.width = SIZE
    config.model.width = 0.125
    return TaskNet(11, "vgg16", 0.125, config.model.trunk_norm), config


def predicted(**files: bytes):
    """A folder of images; keys are paths with ``__`` for ``/``."""

    def write(folder: Path) -> Settings:
        for name, content in files.items():
            path = folder / "in" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return {}

    return write


def filmed(change: Callable[[Path], object] = lambda path: None):
    """A folder with a video."""

    def write(folder: Path) -> Settings:
        change(write_video(folder / "in" / "a.avi"))
        return {}

    return write


def predicts(
    *words: str,
    status: int = 0,
    pictures: tuple[str, ...] = (),
    flags: tuple[str, ...] = (),
    videos: tuple[str, ...] = (),
):
    def check(folder: Path, _settings: Settings) -> None:
        save_task(folder / "task.safetensors", *_weights())
        arguments = ("task.safetensors", "in", "--output", "out", "--device=cpu", *flags)
        done = command("predict", *arguments, cwd=folder)
        assert done.returncode == status, done.stderr
        assert "Traceback" not in done.stderr
        assert {path.name for path in folder.glob("out/*.mp4")} == set(videos)
        for word in words:
            assert word in done.stdout + done.stderr, (done.stdout, done.stderr)
        found = {p.relative_to(folder / "out").as_posix() for p in folder.glob("out/**/*_ids.png")}
        assert found == {f"{name}_ids.png" for name in pictures}

    return check


def small(kind: str = "PNG", pixels=None, **options) -> bytes:
    return pil(FRAMES[0].image if pixels is None else pixels, kind, **options)


PREDICT = [
    Situation("predict-subfolders", "images in subfolders",
        predicted(**{"a.png": small(), "x/y/b.jpg": small("JPEG")}),
        "images in subfolders left out in silence", "all predicted, in the same subfolders",
        predicts("took 2 images", pictures=("a", "x/y/b"))),
    Situation("predict-formats", "TIFF, WebP, BMP, 16 bits, grey, upper-case suffix",
        predicted(
            **{
                "a.tif": small("TIFF"),
                "b.WEBP": small("WEBP"),
                "c.bmp": small("BMP"),
                "d.PNG": png(FRAMES[0].image * np.uint16(257), 16, RGB),
                "e.png": png(grey(FRAMES[0]), 8, GREY),
            }
        ),
        "TIFF, WebP and BMP left out in silence", "all predicted",
        predicts("took 5 images", pictures=tuple("abcde"))),
    Situation("predict-left", "a text, a hidden file and a damaged image among images",
        predicted(**{"a.png": small(), "notes.txt": b"", "._a.png": b"", "b.png": b"x" * 9}),
        "stopped at the hidden file, exit status 2",
        "the others are predicted; the end says what was left and why, exit status 1",
        predicts(
            "took 1 image", "1 hidden", "1 .txt", "1 unreadable", "b.png", status=1, pictures=("a",)
        )),
    Situation("predict-zip", "an archive of images", lambda folder: _zip_input(folder),
        "error: no PNG or JPEG image", "predicted without unpacking",
        predicts("took 1 image", pictures=("d/a",))),
    Situation("predict-exif", "a photograph that a phone turned by EXIF",
        predicted(**{"a.jpg": small("JPEG", exif=EXIF_90)}),
        "predicted as it looks, without a word",
        "predicted as it looks; the end says how many were turned",
        both(
            predicts("1 turned as their EXIF data says", pictures=("a",)),
            lambda folder, _: _picture_size(folder / "out/a_overlay.png", (64, 96)),
        )),
    Situation("predict-shape", "an image of another shape",
        predicted(**{"a.png": small(pixels=FRAMES[0].image[:32])}),
        "squeezed into the training size, in silence", "predicted at its own shape",
        both(
            predicts("took 1 image", pictures=("a",)),
            lambda folder, _: _picture_size(folder / "out/a_ids.png", (96, 32)),
        )),
    Situation("predict-video", "a video", filmed(),
        "left out in silence", "predicted as a video",
        predicts("12 frames", videos=("a_overlay.mp4",))),
    Situation("predict-truncated-video", "a video that is truncated",
        filmed(lambda path: truncate(path, 0.7)), "left out in silence",
        "predicted as far as it can be read; the end says how many frames are missing, "
        "exit status 1",
        predicts("of the 12 frames", "truncated", status=1, videos=("a_overlay.mp4",))),
    *(
        Situation(f"predict-{name}", what, predicted(**{"a.png": small()}),
            "no such flags", "error with the value and the limit",
            predicts(*words, status=2, flags=flags))
        for name, what, flags, words in (
            ("small-window", "a window under 32 pixels", ("--window=16",), ("16x16", "32")),
            ("wide-stride", "a stride beyond the window", ("--window=64", "--stride=65"),
             ("65x65", "64x64")),
            ("negative-stride", "a stride of 0 or less", ("--window=64", "--stride=-1"),
             ("--stride", "-1")),
        )
    ),
    Situation("predict-same-name", "`a.png` and `a.jpg`",
        predicted(**{"a.png": small(), "a.jpg": small("JPEG")}), "error without the files",
        "error with both files, before anything is written",
        predicts("a.jpg and in/a.png would both be written", status=2)),
    Situation("predict-nothing", "a folder without images", predicted(**{"a.txt": b""}),
        "error without what is there", "error with what is there",
        predicts("no image or video in it", "1 .txt", status=2)),
]  # fmt: skip


def _zip_input(folder: Path) -> Settings:
    (folder / "in").mkdir()
    with zipfile.ZipFile(folder / "in" / "x.zip", "w") as z:
        z.writestr("d/a.png", small())
    return {}


def _picture_size(path: Path, size: tuple[int, int]) -> None:
    with Image.open(path) as picture:
        assert picture.size == size


# Commands and later runs


def trains(folder: Path, settings: Settings, *flags: str):
    """Train for one step."""
    model = {"width": 0.125, "translation_width": 0.125, "translation_blocks": 1}
    schedule = {"source_only_steps": 1, "adaptation_steps": 0, "batch_size": 1}
    config = {
        "name": "run", "runs_dir": "runs", "precision": "fp32", "data": {**settings, "workers": 0},
        "model": model, "schedule": schedule,
    }  # fmt: skip
    (folder / "run.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    with mock.patch.object(class_counts, "CACHE", str(folder / "cache")):
        return command("train", "--config", "run.yaml", *flags, cwd=folder)


NO_LEVELS = ("--adaptation.input_level=none", "--adaptation.output_level=none")


def train_refuses(*words: str, flags: tuple[str, ...] = NO_LEVELS):
    """Training ends with exit status 2 before its first step."""

    def check(folder: Path, settings: Settings) -> None:
        done = trains(folder, settings, *flags)
        assert done.returncode == 2, (done.stdout, done.stderr)
        for word in words:
            assert word in done.stderr, done.stderr
        assert not list(folder.glob("runs/run/*.safetensors"))

    return check


def check_ends(status: int, *words: str, flags: tuple[str, ...] = ()):
    """``data check --only source`` ends with this exit status and these words."""

    def check(folder: Path, settings: Settings) -> None:
        (folder / "check.yaml").write_text(yaml.safe_dump({"data": settings}, sort_keys=False))
        with mock.patch("gioada_fast.processes.usable_cores", return_value=0):
            done = command("data", "check", "--config", "check.yaml", "--only", "source", *flags,
                           cwd=folder)  # fmt: skip
        assert done.returncode == status, (done.stdout, done.stderr)
        for word in words:
            assert word in done.stdout + done.stderr, (done.stdout, done.stderr)

    return check


def _same_space(change: Callable[[Settings], Settings], same: bool):
    """Whether a run with a label space may be resumed with a changed one."""

    def check(folder: Path, settings: Settings) -> None:
        saved = asdict(Config(data=config_of(settings)))
        saved["data"]["label_space"] = label_space(settings["label_space"]).setting
        now = asdict(Config(data=config_of(change(settings))))
        assert (changed_setting(saved, now) is None) == same

    return check


def _moved_space(settings: Settings) -> Settings:
    path = Path(settings["label_space"])
    path = path.rename(path.with_name("elsewhere.yaml"))
    return {**settings, "label_space": str(path)}


def _reordered_space(settings: Settings) -> Settings:
    classes = dict(reversed(WAREHOUSE["classes"].items()))
    return {**settings, "label_space": {**WAREHOUSE, "classes": classes}}


def _weights_of(folder: Path, settings: Settings) -> np.ndarray:
    config = config_of(settings)
    source = sets.source_frames(config)
    with mock.patch.object(class_counts, "CACHE", str(folder / "cache")):
        return class_weights(source, 11, Unreadable(0, print), config)


def _counts_are_kept(folder: Path, settings: Settings) -> None:
    first = _weights_of(folder, settings)
    with mock.patch.object(class_counts, "_count_one", None):  # a second count would fail
        np.testing.assert_array_equal(_weights_of(folder, settings), first)
    label_map = folder / "set/labels/a.png"
    label_map.write_bytes(png(np.zeros(SIZE, np.uint8), 8, GREY))
    assert (_weights_of(folder, settings) != first).any()


CAR_IS_77: File = (".png", lambda f: png(with_value(f, 77), 8, GREY))

RUNS = [
    Situation("check-error", "`data check` of a value that the class map lacks",
        own(labels=CAR_IS_77), "exit status 1, without pixels",
        "exit status 1, the value with its pixels and files",
        check_ends(1, f"77 ({CARS} pixels in 2 files)")),
    Situation("check-warning", "`data check` of mirrored label maps",
        street(plausibility.DAMAGES["mirrored labels"][0]), "exit status 0, without a word",
        "exit status 0, warning and picture",
        both(
            check_ends(0, "warning: source: labels-flipped", "data_check_warnings.png"),
            lambda folder, _: _is_file(folder / "data_check_warnings.png"),
        )),
    Situation("check-strict", "the same with `--strict`",
        street(plausibility.DAMAGES["mirrored labels"][0]), "no such setting", "exit status 1",
        check_ends(1, "1 warnings with --strict", flags=("--strict",))),
    Situation("check-empty-section", "a configuration whose `source:` has no lines",
        lambda folder: {**own()(folder), "source": None}, "traceback", "exit status 2, the section",
        check_ends(2, "data.source is empty")),
    Situation("check-empty-value", "a configuration that is cut off after `height:`",
        lambda folder: {**own()(folder), "height": None}, "traceback",
        "exit status 2, file, line and setting",
        check_ends(2, "check.yaml, line ", "data.height is empty")),
    Situation("check-split", "`split: val` of the user's folder, no pattern with `{split}`",
        lambda folder: _with_source(own()(folder), split="val"), "taken in silence",
        "exit status 1, the setting", check_ends(1, "data.source.split is 'val'")),
    Situation("check-wrong-choice", "`depth_kind: Metres`",
        lambda folder: _with_source(own()(folder), depth_kind="Metres"), "no such setting",
        "exit status 2, the values that it may have",
        check_ends(2, "data.source.depth_kind is Metres", "metres, disparity, inverse, carla")),
    Situation("sources-unknown-key", "`rot:` instead of `root:` in the second source",
        mixed({}, {"rot": "set"}), "no such setting",
        "error with the source's number and the settings",
        check_ends(2, "data.sources[1] has 'rot'", "root")),
    Situation("sources-unknown-name", "`name: gtav` in the second source",
        mixed({}, {"name": "gtav"}), "no such setting",
        "error with the source's number and the data sets",
        check_ends(2, "data.sources[1].name is 'gtav'", "gta5")),
    Situation("train-unknown", "training with a value that the class map lacks",
        own(labels=CAR_IS_77), "exit status 2",
        "exit status 2 before the first step, the value with its pixels and files",
        train_refuses(f"2 label maps have unknown values: 77 ({CARS} pixels in 2 files)")),
    Situation("train-warning", "training with mirrored label maps",
        street(plausibility.DAMAGES["mirrored labels"][0]), "trained in silence",
        "warning before the first step", lambda folder, s: _trains_with_warning(folder, s)),
    Situation("train-no-depth", "training without depth, whose settings need depth", own(),
        "the same error", "exit status 2, the setting that needs depth",
        train_refuses("data.source: folder has no depth", "adaptation.input_level", flags=())),
    Situation("resume-moved-space", "a run whose label space file was moved", space(WAREHOUSE),
        "error: no label space, unless the file lies where it was",
        "resumed: the run keeps the content", _same_space(_moved_space, True)),
    Situation("resume-other-space", "a run whose classes were given another order",
        space(WAREHOUSE), "resumed with the classes mixed up, in silence", "error",
        _same_space(_reordered_space, False)),
    Situation("class-counts", "a second run from the same label maps, and one after a change",
        own(), "counted at every start", "counts are kept, and counted again after the change",
        _counts_are_kept),
]  # fmt: skip


def _is_file(path: Path) -> None:
    assert path.is_file()


def _trains_with_warning(folder: Path, settings: Settings) -> None:
    done = trains(folder, {**settings, "height": 64, "width": 96}, *NO_LEVELS)
    assert done.returncode == 0, done.stderr
    assert "labels-flipped" in done.stdout + done.stderr


NO_SUCH = "no such setting: the target's depth was read for scores alone"


def target_depth(name: str, text: str, file: File, now: str, check, before: str = NO_SUCH,
                 pattern: str = "depth/*", **settings):  # fmt: skip
    """A target with depth maps to train with."""

    def write(folder: Path) -> Settings:
        found = own(depth=file)(folder)
        found["target"] |= {"depth": pattern, "depth_kind": "relative", **settings}
        return found

    return Situation(name, text, write, before, now, check)


def reads_depth(expected):
    """Training reads these values of the target, and ``data check`` finds no error."""

    def check(_folder: Path, settings: Settings) -> None:
        found = sets.target_images(config_of(settings), depth=True)
        for index, frame in enumerate(FRAMES):
            image, depth = found.with_depth(index)
            np.testing.assert_array_equal(image, frame.image)
            np.testing.assert_allclose(depth, expected(frame), rtol=1e-6)
        assert report_of(config_of(settings), "target").errors == ()

    return check


def refuses_depth(*words: str):
    """Both ``data check`` and training with depth refuse it; training without depth reads it."""

    def check(_folder: Path, settings: Settings) -> None:
        with pytest.raises(InputError) as error:
            sets.target_images(config_of(settings), depth=True).with_depth(0)
        messages = [str(error.value)]
        try:
            report = report_of(config_of(settings), "target")
        except InputError as error:
            messages.append(str(error))
        else:
            messages.append("\n".join(f"{e.file}: {e.message}" for e in report.errors))
        assert all(word in message for word in words for message in messages), messages
        assert len(sets.target_images(config_of(settings))) == len(FRAMES)

    return check


def refuses_depth_in_training(*words: str):
    """Training with depth refuses it. A folder's depth may be that of the scored images alone."""

    def check(_folder: Path, settings: Settings) -> None:
        with pytest.raises(InputError) as error:
            sets.target_images(config_of(settings), depth=True)
        assert all(word in str(error.value) for word in words), error.value

    return check


def raises(*words: str):
    """The settings are refused."""

    def check(_folder: Path, settings: Settings) -> None:
        with pytest.raises(InputError) as error:
            config_of(settings)
        assert all(word in str(error.value) for word in words), error.value

    return check


def nearness(f: Frame) -> np.ndarray:
    """Relative depth: larger is nearer, 0 in the sky."""
    return np.where(f.metres > 0, 10 + 60000 / np.maximum(f.metres, 1), 0).round()


TARGET_DEPTHS = [
    target_depth("target-depth-16", "relative depth, 16-bit PNG",
        (".png", lambda f: png(nearness(f), 16, GREY)), "read as stored; 0 is unknown",
        reads_depth(nearness)),
    target_depth("target-depth-8", "relative depth, 8-bit PNG",
        (".png", lambda f: png(nearness(f) // 256, 8, GREY)), "read as stored; 0 is unknown",
        reads_depth(lambda f: nearness(f) // 256)),
    target_depth("target-depth-npy", "relative depth, `.npy` of float64 with negative numbers",
        (".npy", lambda f: npy(nearness(f) / 7.0 - 30)), "read as stored",
        reads_depth(lambda f: nearness(f) / 7.0 - 30)),
    target_depth("target-depth-nan", "relative depth, TIFF with NaN and infinity in the sky",
        (".tif", lambda f: tiff(np.where(f.metres > 0, nearness(f), (np.nan, np.inf) * 48)
                                .astype(np.float32))),
        "read; these pixels are unknown", reads_depth(nearness)),
    target_depth("target-depth-metres", "depth in centimetres", CENTIMETRES, "read as metres",
        reads_depth(lambda f: f.metres), depth_kind="metres"),
    target_depth("target-depth-inverse", "1 / metres, floating point",
        (".npy", lambda f: npy(np.where(f.metres > 0, 1 / np.maximum(f.metres, 0.1), 0))),
        "read as metres", reads_depth(lambda f: f.metres), depth_kind="inverse"),
    target_depth("target-depth-unit", "relative depth with `depth_per_metre`", CENTIMETRES,
        "error that names both settings", raises("data.target.depth_kind", "depth_per_metre"),
        depth_per_metre=100),
    target_depth("target-depth-size", "depth maps of half the size",
        (".png", lambda f: png(nearness(f)[::2, ::2], 16, GREY)),
        "error with both sizes", refuses_depth("a.png", "48x32")),
    target_depth("target-depth-missing", "a pattern that no file matches", CENTIMETRES,
        "error with the first file that is missing",
        refuses_depth_in_training("2 files", "a.png"), pattern="deep/*.png"),
    target_depth("target-depth-zero", "0 everywhere",
        (".png", lambda f: png(f.centimetres * 0, 16, GREY)), "error",
        refuses_depth("a.png", "no pixel has a depth")),
    target_depth("target-depth-coloured", "a picture of depth in colours",
        (".png", lambda f: png(coloured(f), 8, RGB)), "error with the reason",
        refuses_depth("a.png", "channels that differ")),
    target_depth("target-depth-own", "`depth: own` of a data set without depth", CENTIMETRES,
        "error", refuses_depth_in_training("data.target.depth is own"), pattern="own",
        depth_kind="metres"),
]  # fmt: skip


SITUATIONS: dict[str, list[Situation]] = {
    "Label spaces and class maps": SPACES,
    "Label maps": LABELS,
    "Depth maps": DEPTHS,
    "Depth maps of the target, to train with": TARGET_DEPTHS,
    "Images": IMAGES,
    "Folders and archives": FOLDERS,
    "Several sources": SOURCES,
    "Other shapes": SHAPES,
    "Plausibility": PLAUSIBILITY,
    "predict": PREDICT,
    "Commands and later runs": RUNS,
}
"""All rows, by the part of the table."""


_INTRODUCTION = """\
# Situations

What happens to data of one's own. Each row is a test, whose input `tests/data/situations.py`
writes; version 0.1.0 was run on the same inputs. An error names the file or setting and what to do:
`data check` then ends with exit status 1, training with 2 before its first step.
[Data sets](data.md) describes the formats.
"""


def docs_page() -> str:
    """docs/situations.md."""
    parts = [_INTRODUCTION]
    for title, rows in SITUATIONS.items():
        parts.append(f"## {title}\n\n| input | 0.1.0 | now |\n|---|---|---|")
        parts[-1] += "".join(f"\n| {row.input} | {row.before} | {row.now} |" for row in rows) + "\n"
    return "\n".join(parts)


if __name__ == "__main__":
    print(docs_page(), end="")
