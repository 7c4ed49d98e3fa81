"""The user's own folder: which files belong to a frame, and what is said where none do."""

import io
import zipfile

import cv2
import numpy as np
import pytest
from PIL import Image

from gioada_fast.config import DataConfig, SourceConfig, TargetConfig
from gioada_fast.data import sets
from gioada_fast.errors import InputError

IDS = np.repeat(np.array([[0, 1, 7, 7]], np.uint8), 64, 0).repeat(16, 1)
METRES = np.repeat(np.linspace(1, 50, 64, dtype=np.float32)[:, None], 64, 1)
PIXELS = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
CLASSES = {0: "road", 1: "sky", 7: "car"}


def content(array: np.ndarray, suffix: str) -> bytes:
    """A file of an array, in a format by its suffix."""
    buffer = io.BytesIO()
    kind = suffix.lower()
    if kind == ".npy":
        np.save(buffer, array)
    elif kind == ".npz":
        np.savez(buffer, array)
    elif kind in (".tif", ".tiff"):
        Image.fromarray(array).save(buffer, "TIFF")
    elif kind == ".webp":
        Image.fromarray(np.dstack([array] * 3) if array.ndim == 2 else array).save(
            buffer, "WEBP", lossless=True
        )
    else:
        bgr = array if array.ndim == 2 else array[..., ::-1]
        return cv2.imencode(kind, bgr)[1].tobytes()
    return buffer.getvalue()


def write(root, files: dict[str, np.ndarray]) -> None:
    for name, array in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(array, path.suffix))


def source(root, images="images/*", labels="labels/*", **settings) -> sets.SourceFrames:
    settings = {"classes": CLASSES, **settings}
    config = SourceConfig(name="folder", root=str(root), images=images, labels=labels, **settings)
    return sets.source_files(DataConfig(config, label_space="cityscapes16", height=64, width=64))


def files(frames) -> list[tuple[str | None, ...]]:
    root = frames.data.root
    return [
        tuple(path and path.relative_to(root).as_posix() for path in frame)
        for frame in frames.data.frames
    ]


@pytest.mark.parametrize(
    ("image", "labels", "depth"),
    [
        (".png", ".png", ".npy"),
        (".PNG", ".Png", ".NPY"),
        (".jpg", ".tif", ".tif"),
        (".JPEG", ".TIFF", ".TIFF"),
        (".tif", ".npy", ".npz"),
        (".tiff", ".bmp", ".npy"),
        (".webp", ".webp", ".tiff"),
        (".bmp", ".npz", ".npy"),
    ],
)
@pytest.mark.parametrize("named", [False, True])
def test_files_of_every_suffix_are_found(tmp_path, image, labels, depth, named):
    name = "a.b/frame.01 ä[1]"
    write(tmp_path, {f"images/{name}{image}": PIXELS, f"labels/{name}_id{labels}": IDS,
                     f"depth/{name}{depth}": METRES})  # fmt: skip
    suffixes = [suffix.lower() if named else "" for suffix in (image, labels, depth)]
    frames = source(
        tmp_path,
        f"images/*{suffixes[0]}",
        f"labels/*_id{suffixes[1]}",
        depth=f"depth/*{suffixes[2]}",
    )
    frame = frames[0]
    assert len(frames) == 1
    if image.lower() not in (".jpg", ".jpeg"):
        np.testing.assert_array_equal(frame.image, PIXELS)
    assert set(np.unique(frame.labels)) == {0, 9, 12}
    np.testing.assert_allclose(frame.depth, METRES)
    assert frames.data.depth.per_metre is None


def test_only_depth_in_whole_numbers_along_the_axis_is_packed_as_counts(tmp_path):
    write(tmp_path, {"images/1.png": PIXELS, "labels/1.png": IDS,
                     "depth/1.PNG": (METRES * 256).astype(np.uint16)})  # fmt: skip
    for settings, expected in (
        ({}, 100),
        ({"depth_per_metre": 256.0}, 256),
        ({"depth_along": "ray", "depth_fov": 90.0}, None),
        ({"depth_kind": "disparity", "depth_per_metre": 256.0, "depth_focal_baseline": 9.0}, None),
        ({"depth_kind": "inverse", "depth_per_metre": 256.0}, None),
    ):
        frames = source(tmp_path, depth="depth/*", **settings)
        assert frames.data.depth.per_metre == expected and frames[0].depth.any()


def test_lossy_maps_are_found_and_refused_with_the_reason(tmp_path):
    write(tmp_path, {"images/1.png": PIXELS, "labels/1.jpg": IDS, "depth/1.jpeg": IDS,
                     "ids/1.png": IDS})  # fmt: skip
    for settings in ({}, {"labels": "labels/*.jpg"}, {"labels": "ids/*", "depth": "depth/*"}):
        with pytest.raises(InputError, match=r"1\.jpe?g: .* JPEG, which is lossy"):
            source(tmp_path, **settings)[0]


def test_unknown_ids_and_colours(tmp_path):
    write(tmp_path, {"images/1.png": PIXELS, "labels/1.png": IDS})
    classes = {0: "road", 7: "car"}
    with pytest.raises(InputError, match=r"1\.png: unknown ids: 1 "):
        source(tmp_path, classes=classes)[0]
    labels = source(tmp_path, classes=classes, unknown_labels="ignore")[0].labels
    assert set(np.unique(labels)) == {0, 12, 255}


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("images/1.png", "images/1.jpg", "labels/1.png"), r"images/1\.(jpg|png) and 1\.(png|jpg)"),
        (("images/1.png", "images/1.PNG", "labels/1.png"), r"images/1\.(PNG|png) and 1\.(png|PNG)"),
        (("images/1.png", "labels/1.png", "labels/1.npy"), r"labels/1\.npy and 1\.png"),
        (
            ("images/1.png", "labels/1.png", "depth/1.npy", "depth/1.tif"),
            r"depth/1\.npy and 1\.tif",
        ),
    ],
)
def test_two_files_of_one_name_are_told(tmp_path, names, words):
    write(tmp_path, {name: IDS for name in names})
    with pytest.raises(InputError, match=words + r".*(a suffix|remove)"):
        source(tmp_path, depth="depth/*")


def test_maps_beside_the_images_are_no_images(tmp_path):
    write(tmp_path, {"1.png": PIXELS, "1_ids.png": IDS, "1_depth.npy": METRES, "2.png": PIXELS,
                     "2_ids.png": IDS, "2_depth.npy": METRES})  # fmt: skip
    frames = source(tmp_path, "*", "*_ids", depth="*_depth")
    assert files(frames) == [(f"{i}.png", f"{i}_ids.png", f"{i}_depth.npy") for i in (1, 2)]
    with pytest.raises(InputError, match=r"also matches the pattern of its labels .* suffixes"):
        source(tmp_path, "*", "*")
    write(tmp_path, {"s/1.jpg": PIXELS, "s/1.png": IDS})
    assert files(source(tmp_path, "s/*.jpg", "s/*")) == [("s/1.jpg", "s/1.png", None)]
    assert files(source(tmp_path, "s/*", "s/*.png")) == [("s/1.jpg", "s/1.png", None)]


def test_folders_beside_the_root(tmp_path):
    write(tmp_path, {"rgb/a/1.png": PIXELS, "ids/a/1.tif": IDS})
    frames = source(tmp_path / "rgb", "./*", "../ids/*")
    assert [frame.labels.resolve() for frame in frames.data.frames] == [tmp_path / "ids/a/1.tif"]
    assert len(frames) == 1 and frames[0].labels.any()
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in ("rgb/a/1.png", "ids/a/1.tif"):
            archive.write(tmp_path / name, name)
    assert source(tmp_path / "x.zip" / "rgb", "*", "../ids/*")[0].labels.any()


def test_the_split_replaces_its_placeholder(tmp_path):
    write(
        tmp_path, {f"{s}/rgb/1.png": PIXELS for s in "ab"} | {f"{s}/ids/1.npy": IDS for s in "ab"}
    )
    frames = source(tmp_path, "{split}/rgb/*", "{split}/ids/*", split="b")
    assert files(frames) == [("b/rgb/1.png", "b/ids/1.npy", None)]
    with pytest.raises(InputError, match=r"data\.source\.split is not set: it replaces \{split"):
        source(tmp_path, "{split}/rgb/*", "{split}/ids/*")
    target = TargetConfig(name="folder", root=str(tmp_path), images="{split}/rgb/*")
    config = DataConfig(target=target)
    assert len(sets.evaluation_frames(config)) == 0  # without labels there are none
    with pytest.raises(InputError, match=r"data\.target\.train_split is not set"):
        sets.target_images(config)
    target.train_split = "a"
    assert len(sets.target_images(config)) == 1


@pytest.mark.parametrize(
    ("root", "pattern", "words"),
    [
        (
            "",
            "images/*",
            r"no image matches images/\*; .* contains 2 \.gif, 1 no suffix, 1 \.txt, sub/",
        ),
        ("", "images/*.jpg", r"no image matches images/\*\.jpg; .*images contains"),
        ("", "other/*", r"no image matches other/\*; .* contains images/, set/"),
        ("", "rgb/*", r"is the data set's folder .*set\?"),
        ("set/rgb", "rgb/*", r"is the data set's folder .*set\?"),
        ("", "images", r"pattern 'images': expected a path under .* with one '\*'"),
        ("", "/images/*", r"pattern '/images/\*': expected"),
        ("", "*/*", r"pattern '\*/\*': expected"),
        ("inner.zip", "images/*", r"inner\.zip contains 1 \.zip \(archives in an archive"),
    ],
)
def test_what_is_there_is_said_where_no_image_matches(tmp_path, root, pattern, words):
    write(tmp_path, {"set/rgb/1.png": PIXELS, "images/sub/3_x.tif": IDS})
    for name in ("1.gif", "2.gif", "notes.txt", "README"):
        (tmp_path / "images" / name).write_text("")
    (tmp_path / "images/sub/3_x.tif").rename(tmp_path / "images/sub/x.dat")
    if root:
        with zipfile.ZipFile(tmp_path / "inner.zip", "w") as archive:
            archive.writestr("images.zip", "")
    with pytest.raises(InputError, match=words):
        source(tmp_path / root, pattern)


def test_a_target_needs_no_labels(tmp_path):
    write(tmp_path, {"photos/1.webp": PIXELS, "photos/sub/2.TIF": PIXELS})
    (tmp_path / "photos" / "._1.webp").write_text("")
    target = TargetConfig(name="folder", root=str(tmp_path), images="photos/*")
    config = DataConfig(target=target, height=64, width=64)
    assert [path.name for path in sets.target_images(config).paths] == ["1.webp", "2.TIF"]
    assert len(sets.evaluation_frames(config)) == 0
