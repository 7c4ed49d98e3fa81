import dataclasses

import cv2
import numpy as np
import pytest

from gioada_fast.config import DataConfig, SourceConfig, TargetConfig
from gioada_fast.data import sets
from gioada_fast.data.class_weights import class_weights
from gioada_fast.data.depth_maps import CENTIMETRES
from gioada_fast.data.label_maps import id_labels
from gioada_fast.data.rasters import read_image
from gioada_fast.data.readers.camvid import CAMVID
from gioada_fast.data.unreadable import Unreadable
from gioada_fast.errors import InputError
from gioada_fast.labels import (
    BUILT_IN_SPACES,
    IGNORE,
    STREET,
    STREET_IDS,
    label_space,
)

from ..miniature import SIZE, street_frame, write_camvid, write_street_scenes

CAMVID11 = label_space("camvid11")


def config(tmp_path, **target):
    return DataConfig(
        source=SourceConfig(root=str(tmp_path), frames=6),
        target=TargetConfig(
            **{"root": str(tmp_path), "frames": 5, "evaluation_frames": 3, **target}
        ),
        height=SIZE[0],
        width=SIZE[1],
    )


def test_source_comes_back_value_for_value(tmp_path):
    write_street_scenes(tmp_path)
    frames = sets.source_frames(config(tmp_path))
    assert len(frames) == 6
    image, ids, centimetres = street_frame(2)
    frame = frames[2]
    np.testing.assert_array_equal(frame.image, image)
    for name, train_id in (("sky", 0), ("road", 3), ("car", 8)):
        assert CAMVID11.classes[train_id] == name
        assert (frame.labels[ids == STREET_IDS[name]] == train_id).all()
    assert frame.depth.dtype == np.float32
    np.testing.assert_allclose(frame.depth, centimetres / 100, rtol=1e-6)


def test_the_three_sets_share_no_frame_and_the_target_has_no_labels(tmp_path):
    write_street_scenes(tmp_path)
    data = config(tmp_path)
    target = sets.target_images(data)
    scored = sets.evaluation_frames(data)
    assert len(target) == 5 and len(scored) == 3
    assert {p.stem for p in target.paths}.isdisjoint(image.stem for image, *_ in scored.data.frames)
    # no place for labels; depth only if it is asked for
    fields = {"paths", "size", "upright", "depth_paths", "depth"}
    assert {f.name for f in dataclasses.fields(target)} == fields
    assert not target.has_depth and target.depth_paths is target.depth is None
    assert all("image" in path.name for path in target.paths)
    assert isinstance(target[0], np.ndarray)


def test_camvid_frames_are_resized_and_labels_are_not(tmp_path):
    write_camvid(tmp_path / "camvid")
    data = config(tmp_path, name="camvid", root=str(tmp_path / "camvid"))
    assert sets.target_images(data)[0].shape == (*SIZE, 3)
    frame = sets.evaluation_frames(data)[0]
    # 128x96 is less wide than SIZE: cropped to train on, whole to score
    assert frame.image.shape == (72, 96, 3) and frame.labels.shape == (96, 128)
    raw = cv2.imread(str(tmp_path / "camvid" / "valannot" / "val_000.png"), -1)
    assert (frame.labels == np.where(raw == 11, IGNORE, raw)).all()


def test_real_camvid_frames(shared):
    data = DataConfig(target=TargetConfig(name="camvid", root=str(shared / "data" / "camvid")))
    frames = sets.evaluation_frames(data)
    assert len(frames) == 101 and len(sets.target_images(data)) == 367
    counts = sum(np.bincount(frames[i].labels.ravel(), minlength=256) for i in range(0, 101, 10))
    assert counts[:11].min() > 0 and counts[12:255].sum() == 0
    # the road and the buildings fill most of a street
    assert set(np.argsort(counts[:11])[-3:]) <= {0, 1, 3, 5}


def test_class_weights_are_one_over_the_root_of_the_frequency(tmp_path):
    write_street_scenes(tmp_path)
    frames = sets.source_frames(config(tmp_path))
    frequency = np.zeros(11)
    for index in range(len(frames)):
        frequency += np.bincount(frames[index].labels.ravel(), minlength=11)[:11]
    weights = class_weights(frames, 11, Unreadable(0, print))
    present = frequency > 0
    assert present.sum() == 3 and (weights[~present] == 1).all()
    assert weights[present].mean() == pytest.approx(1)
    ratio = weights[8] / weights[3]
    assert ratio == pytest.approx(np.sqrt(frequency[3] / frequency[8]), rel=1e-5)


def test_street_scenes_draw_all_classes_of_the_spaces_they_serve():
    for space in map(label_space, BUILT_IN_SPACES):
        assert len(space.classes) == len(space.colours) == len(set(space.colours))
        assert len(space.ids) == len(set(space.ids)) == space.num_classes
        if space.name in STREET.spaces:
            train_ids = STREET.train_ids(space)
            assert list(train_ids) == list(range(len(STREET.classes)))
            assert set(train_ids.values()) - {IGNORE} == set(range(space.num_classes))


def test_camvid_labels_fit_only_their_own_classes(tmp_path):
    assert list(CAMVID.train_ids(CAMVID11).values()) == [*range(11), IGNORE]
    write_camvid(tmp_path)
    data = config(tmp_path, name="camvid")
    data.label_space = "cityscapes16"
    with pytest.raises(InputError, match=r"camvid11, not in cityscapes16 \(road"):
        sets.evaluation_frames(data)


def test_bad_files_are_named(tmp_path):
    read_labels = id_labels({0: 0, 1: 1, 2: IGNORE})
    path = tmp_path / "labels.png"
    cv2.imwrite(str(path), np.array([[0, 1], [2, 7]], np.uint8))
    with pytest.raises(InputError, match=r"labels\.png: unknown ids: 7 \(1 pixels\).*0 to 2"):
        read_labels(path)
    cv2.imwrite(str(path), np.arange(12, dtype=np.uint8).reshape(2, 2, 3))
    with pytest.raises(InputError, match=r"labels\.png.*one channel"):
        read_labels(path)
    with pytest.raises(InputError, match=r"labels\.png.*uint16"):
        CENTIMETRES.read(path)
    path.write_bytes(b"\x89PNG half")
    for read in (read_image, CENTIMETRES.read):
        with pytest.raises(InputError, match=r"labels\.png: not a readable image"):
            read(path)
    with pytest.raises(InputError, match="no such file"):
        read_image(tmp_path / "missing.png")


def test_an_image_and_its_labels_must_have_one_size(tmp_path):
    write_camvid(tmp_path)
    cv2.imwrite(str(tmp_path / "valannot" / "val_000.png"), np.zeros((5, 5), np.uint8))
    data = config(tmp_path, name="camvid")
    with pytest.raises(InputError, match=r"valannot/val_000\.png: 5x5.*128x96"):
        sets.evaluation_frames(data)[0]


@pytest.mark.parametrize("gone", ["train", "val", "valannot"])
def test_a_folder_that_is_missing_or_empty_is_named(tmp_path, gone):
    import shutil

    write_camvid(tmp_path)
    shutil.rmtree(tmp_path / gone)
    data = config(tmp_path, name="camvid")
    build = sets.target_images if gone == "train" else sets.evaluation_frames
    with pytest.raises(InputError, match=gone):
        build(data)
    (tmp_path / gone).mkdir()
    with pytest.raises(InputError, match=gone):
        build(data)


def test_no_depth_is_zero(tmp_path):
    cv2.imwrite(str(tmp_path / "d.png"), np.array([[0, 65535, 150]], np.uint16))
    assert CENTIMETRES.read(tmp_path / "d.png").tolist() == [[0, 0, 1.5]]
