"""Labels of some of the target's training images: which images, and that no other label is read."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from gioada_fast.config import DataConfig, TargetConfig
from gioada_fast.data.loader import PairStream
from gioada_fast.data.sets import labelled_frames, source_frames, supervised, target_images
from gioada_fast.errors import InputError

from ..commands import command
from ..miniature import flags, write_camvid, write_street_scenes


def camvid(root: Path, labelled, **target) -> DataConfig:
    target = TargetConfig(name="camvid", root=str(root), labelled=labelled, **target)
    return DataConfig(target=target, height=64, width=96)


def names(config: DataConfig) -> list[str]:
    frames = labelled_frames(config)
    return [files.image.stem.removeprefix("train_") for files in frames.data.frames]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labelled")
    write_camvid(folder / "camvid", count=5)
    write_street_scenes(folder / "scenes")
    return folder


@pytest.mark.parametrize(
    ("labelled", "expected"),
    [
        (1, ["000"]),
        (2, ["000", "004"]),
        (3, ["000", "002", "004"]),
        (5, ["000", "001", "002", "003", "004"]),
        (["train_003", "train_001.png"], ["001", "003"]),
        (["train/train_002.png", "train_002"], ["002"]),
    ],
)
def test_images_are_counted_at_even_intervals_or_named(root, labelled, expected):
    assert names(camvid(root / "camvid", labelled)) == expected


def test_they_have_the_labels_of_the_oracle_and_the_size_of_the_target(root):
    config = camvid(root / "camvid", ["train_003"])
    (ours,) = (frame for frame in labelled_frames(config))
    oracle = source_frames(supervised(config))[3]
    np.testing.assert_array_equal(ours.labels, oracle.labels)
    np.testing.assert_array_equal(ours.image, target_images(config)[3])
    assert not ours.depth.any() and not labelled_frames(config).has_depth
    assert labelled_frames(camvid(root / "camvid", None)) is None


def test_street_scenes_give_their_labels_without_depth(root):
    scenes = str(root / "scenes")
    target = TargetConfig(root=scenes, frames=5, labelled=2)
    frames = labelled_frames(DataConfig(target=target, height=64, width=96))
    assert len(frames) == 2 and not frames[0].depth.any() and len(np.unique(frames[0].labels)) == 3


def test_pairs_have_labelled_images_in_epochs_of_their_own(root):
    config = camvid(root / "camvid", 3)
    frames = labelled_frames(config)
    source = source_frames(supervised(config))

    def stream(seed, labelled=frames, flip=False):
        return PairStream(source, target_images(config), seed, flip, (64, 96), labelled=labelled)

    def seen(seed, epoch):
        pairs = (stream(seed)[k][0] for k in range(3 * epoch, 3 * epoch + 3))
        return [pair["labelled_labels"].tobytes() for pair in pairs]

    every = sorted(frame.labels.tobytes() for frame in frames)
    assert all(sorted(seen(seed, epoch)) == every for seed in (0, 1) for epoch in (0, 1))
    assert len({tuple(seen(seed, 0)) for seed in range(9)}) > 1
    # the other images of a pair are the same without them
    pair, plain = stream(0, flip=True)[7][0], stream(0, None, flip=True)[7][0]
    assert pair.keys() - plain.keys() == {"labelled_image", "labelled_labels"}
    assert all(np.array_equal(pair[key], plain[key]) for key in plain)
    flipped = [stream(0, flip=True)[k][0]["labelled_labels"] for k in range(8)]
    straight = [stream(0)[k][0]["labelled_labels"] for k in range(8)]
    same = [np.array_equal(a, b) for a, b in zip(flipped, straight, strict=True)]
    mirrored = [np.array_equal(a, b[:, ::-1]) for a, b in zip(flipped, straight, strict=True)]
    assert all(a != b for a, b in zip(same, mirrored, strict=True)) and 0 < sum(same) < 8


def train(root, camvid_root, name, **settings):
    values = {
        "name": name,
        "data.target.name": "camvid",
        "data.target.root": camvid_root,
        "data.target.labelled": '["train_001", "train_003"]',
        "adaptation.input_level": "none",
        "adaptation.output_level": "none",
        "schedule.source_only_steps": 1,
        "schedule.adaptation_steps": 1,
        "schedule.control": "true",
        **settings,
    }
    return command("train", *flags(root / "scenes", root / "runs", **values), cwd=root)


def garbage(folder: Path, kept: tuple[str, ...]) -> None:
    for path in folder.iterdir():
        if path.stem not in kept:
            path.write_bytes(b"garbage")


def test_labels_of_other_images_are_never_read(root, tmp_path):
    """Garbage in their files changes no weight; other labels of the named images do."""
    weights = {}
    for name in ("clean", "garbage", "other"):
        write_camvid(tmp_path / name, count=5)
        folder = tmp_path / name / "trainannot"
        if name == "garbage":
            garbage(folder, ("train_001", "train_003"))
        elif name == "other":
            cv2.imwrite(str(folder / "train_003.png"), np.full((96, 128), 3, np.uint8))
        done = train(root, tmp_path / name, name)
        assert done.returncode == 0, done.stderr
        run = root / "runs" / name
        weights[name] = [
            (run / f"{part}.safetensors").read_bytes()
            for part in ("task_source_only", "task_control", "task")
        ]
        # with labels alone the run adapts, and has a control
        assert "labels of 2 target images" in (run / "result.json").read_text()
        assert "loss/labelled" in (run / "metrics.jsonl").read_text()
    assert weights["clean"] == weights["garbage"]
    assert weights["clean"][:2] == weights["other"][:2]
    assert weights["clean"][2] != weights["other"][2] != weights["other"][1]


@pytest.mark.parametrize(
    ("labelled", "words"),
    [
        (6, "data.target.labelled is 6, but CamVid has 5 images to train on"),
        (0, "data.target.labelled is 0, must be above 0"),
        ([], "data.target.labelled is empty"),
        (["train_009"], "names train_009, no such image under"),
        (["val_000"], "names val_000, no such image under"),
    ],
)
def test_images_that_do_not_exist_are_refused(root, labelled, words):
    with pytest.raises(InputError, match=words):
        labelled_frames(camvid(root / "camvid", labelled))


def test_a_target_without_labels_is_refused(root, tmp_path):
    write_camvid(tmp_path / "camvid", count=2)
    (tmp_path / "camvid" / "trainannot" / "train_001.png").unlink()
    assert names(camvid(tmp_path / "camvid", ["train_000"])) == ["000"]
    words = "labels of 2 images, but 1 label files are missing, first .*train_001.png"
    with pytest.raises(InputError, match=words):
        labelled_frames(camvid(tmp_path / "camvid", 2))
    folder = TargetConfig(
        name="folder", root=str(tmp_path / "camvid"), images="train/*", labelled=1
    )
    with pytest.raises(InputError, match=r"data\.target\.labels is not set"):
        labelled_frames(DataConfig(target=folder))
    for name in ("a", "b"):
        path = tmp_path / "twin" / "images" / name / "1.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
    twins = TargetConfig(
        name="folder", root=str(tmp_path / "twin"), images="images/*", labels="labels/*",
        classes={"7": "road"}, labelled=["1"],
    )  # fmt: skip
    with pytest.raises(InputError, match="names 1, which 2 images have: give the path"):
        labelled_frames(DataConfig(target=twins))
    # refused before a run has a folder
    done = train(root, root / "camvid", "refused", **{"data.target.labelled": 9})
    assert done.returncode == 2 and "data.target.labelled is 9" in done.stderr
    assert not (root / "runs" / "refused").exists()


def test_labels_that_cannot_be_read_stop_a_run_before_its_first_update(root, tmp_path):
    write_camvid(tmp_path / "camvid", count=2)
    path = tmp_path / "camvid" / "trainannot" / "train_001.png"
    cv2.imwrite(str(path), np.full((96, 128), 77, np.uint8))
    settings = {"data.target.labelled": "[train_000, train_001]"}
    done = train(root, tmp_path / "camvid", "unreadable", **settings)
    assert done.returncode == 2 and "train_001.png: unknown ids: 77" in done.stderr
    assert not (root / "runs" / "unreadable").exists()
