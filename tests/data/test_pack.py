"""Packs return the same bits as the files, or are refused."""

import fcntl
import json
import pickle
import resource
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from gioada_fast.config import CAMERA_BOUNDS, DataConfig, SourceConfig, TargetConfig
from gioada_fast.data import pack_writer, sets
from gioada_fast.data.depth_maps import counts, metres
from gioada_fast.data.loader import PairStream, pair_batches
from gioada_fast.data.pack_settings import differences, source_settings
from gioada_fast.data.unreadable import Unreadable
from gioada_fast.errors import InputError

from .. import miniature
from ..commands import command
from . import formats

SIZE = (70, 110)
CROP = (64, 96)


def config(root, source, target, space, **settings):
    """Frames of 80x128 that are resized to SIZE and cropped to CROP."""
    size = {"height": SIZE[0], "width": SIZE[1]}
    return DataConfig(
        source=SourceConfig(name=source, root=str(root / "source"), **size),
        target=TargetConfig(name=target, root=str(root / "target"), **size),
        label_space=space,
        height=CROP[0],
        width=CROP[1],
        packs=str(root / "packs"),
        **settings,
    )


def synthia(root, frames=3):
    formats.write_synthia(root / "source", frames, size=(80, 128))
    formats.write_cityscapes(root / "target", size=(80, 128))
    return config(root, "synthia", "cityscapes", "cityscapes16")


def vkitti2(root):
    formats.write_vkitti2(root / "source", size=(80, 128))
    formats.write_kitti(root / "target", size=(80, 128))
    return config(root, "vkitti2", "kitti", "kitti10")


def carla(root):
    formats.write_carla(root / "source", size=(80, 128))
    miniature.write_camvid(root / "target")
    return config(root, "carla", "camvid", "camvid11")


def street_scenes(root):
    miniature.write_street_scenes(root)
    return DataConfig(
        source=SourceConfig(root=str(root), frames=6),
        target=TargetConfig(root=str(root), frames=5, evaluation_frames=3),
        height=miniature.SIZE[0],
        width=miniature.SIZE[1],
        packs=str(root / "packs"),
    )


def pack(data, workers=0):
    """Lines that packing reports; by default in this process, as each new one takes a second."""
    reported = []
    pack_writer.pack(data, reported.append, workers)
    return reported


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished pack of SYNTHIA and Cityscapes."""
    root = tmp_path_factory.mktemp("made")
    pack(synthia(root))
    return root


@pytest.fixture
def packs(made, tmp_path):
    """Settings and folder of a fresh copy of the packs, without the data sets."""
    data = config(made, "synthia", "cityscapes", "cityscapes16")
    data.packs = str(tmp_path / "packs")
    data.source.root = data.target.root = None
    shutil.copytree(made / "packs", data.packs)
    return data, tmp_path / "packs"


def assert_same_pair(a, b):
    assert a.keys() == b.keys()
    for key in a:
        assert a[key].dtype == b[key].dtype and a[key].shape == b[key].shape
        assert a[key].tobytes() == b[key].tobytes(), key


@pytest.mark.parametrize(
    ("write", "depth"),
    [(synthia, "uint16"), (vkitti2, "uint16"), (carla, "float32"), (street_scenes, "uint16")],
)
def test_a_pack_gives_the_same_bits_as_the_files(tmp_path, write, depth):
    data = write(tmp_path)
    reported = pack(data, workers=None)
    assert len(reported) == 2 and "packs/source: " in reported[0] and " frames of " in reported[0]
    source, target = sets.source_frames(data), sets.target_images(data)
    source_files, target_files = sets.source_files(data), sets.target_files(data)
    assert len(source) == len(source_files) and len(target) == len(target_files)
    for index in range(len(source)):
        a, b = source[index], source_files[index]
        assert_same_pair(a._asdict(), b._asdict())
        np.testing.assert_array_equal(source.labels(index), source_files.labels(index))
    for index in range(len(target)):
        assert_same_pair({"image": target[index]}, {"image": target_files[index]})
    for k in range(12):
        streams = (
            PairStream(*sides, seed=3, flip=True, size=(data.height, data.width))
            for sides in ((source, target), (source_files, target_files))
        )
        (a, errors), (b, _) = (stream[k] for stream in streams)
        assert not errors
        assert_same_pair(a, b)
    packs = tmp_path / "packs"
    assert np.load(packs / "source" / "depth.npy", mmap_mode="r").dtype == depth
    assert sorted(path.name for path in (packs / "target").iterdir()) == [
        "checksums.npy",
        "images.npy",
        "manifest.json",
    ]
    assert sorted(path.name for path in packs.iterdir()) == ["source", "target"]


@pytest.mark.parametrize("per_metre", [100.0, 256.0, 1000.0, 1 / 0.3, 0.5])
def test_counts_are_lossless(per_metre):
    every = np.arange(65536, dtype=np.uint16)
    np.testing.assert_array_equal(counts(metres(every, per_metre), per_metre), every)


def test_training_from_packs_gives_the_same_weights(tmp_path):
    root = tmp_path / "scenes"
    miniature.write_street_scenes(root)
    steps = {"schedule.source_only_steps": 2, "schedule.adaptation_steps": 2}
    files = miniature.flags(root, tmp_path / "runs", **steps, name="files")
    packed = miniature.flags(
        root, tmp_path / "runs", **steps, **{"data.packs": "packs", "data.workers": 1}, name="packs"
    )
    refused = command("train", *packed, cwd=tmp_path)
    assert refused.returncode == 2 and "packs/target: no such pack" in refused.stderr
    assert not (tmp_path / "runs" / "packs").exists()
    # the command in the message, which repeats all changed settings, makes the missing packs
    typed = shlex.split(refused.stderr.splitlines()[-1])
    assert typed[:4] == ["python", "-m", "gioada_fast.data", "pack"]
    done = command("data", *typed[3:], cwd=tmp_path)
    assert done.returncode == 0 and "packs/source: 6 frames of 96x64" in done.stdout, done.stderr
    again = command("data", *typed[3:], cwd=tmp_path)
    assert again.returncode == 0 and "packs/source: 6 frames are packed already" in again.stdout
    for flags in (files, packed):
        done = command("train", *flags, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    for name in ("task", "task_source_only", "translation"):
        weights = [(tmp_path / "runs" / run / f"{name}.safetensors").read_bytes()
                   for run in ("files", "packs")]  # fmt: skip
        assert weights[0] == weights[1], name
    done = command("translate", "runs/packs", "--output=translated", cwd=tmp_path)
    assert done.returncode == 0 and not done.stderr.count("Warning"), done.stderr


def test_frames_that_cannot_be_read_are_all_reported_and_the_others_are_packed(tmp_path):
    data = synthia(tmp_path)
    first, second, third = sorted((tmp_path / "source" / "RGB").iterdir())
    target = next((tmp_path / "target" / "leftImg8bit" / "train" / "bochum").iterdir())
    kept = {path: path.read_bytes() for path in (first, third, target)}
    for path in kept:
        path.write_bytes(b"\x89PNG half")
    with pytest.raises(InputError, match="3 frames cannot be read") as error:
        pack(data)
    for path in kept:
        assert f"{path}: not a readable image" in str(error.value)
    assert not (tmp_path / "packs" / "source").exists()
    with pytest.raises(InputError, match=r"packs/source: not finished; resume with\n.* pack "):
        sets.source_frames(data)
    for path, content in kept.items():
        path.write_bytes(content)
    expected = sets.source_files(data)[1]
    second.write_bytes(b"read no more")
    reported = pack(data)
    assert "packs/source.partial: resumes, 1 of 3 frames are packed" in reported[0]
    assert_same_pair(sets.source_frames(data)[1]._asdict(), expected._asdict())


def test_a_frame_whose_bytes_did_not_reach_the_disk_is_packed_again(tmp_path):
    data = synthia(tmp_path)
    path = tmp_path / "source" / "RGB" / "0000002.png"
    content = path.read_bytes()
    path.write_bytes(b"")
    with pytest.raises(InputError):
        pack(data)
    path.write_bytes(content)
    change_byte(tmp_path / "packs" / "source.partial" / "depth.npy", 1000)
    pack(data)
    frames, files = sets.source_frames(data), sets.source_files(data)
    for index in range(3):
        assert_same_pair(frames[index]._asdict(), files[index]._asdict())


def test_killed_packing_is_resumed(tmp_path):
    data = synthia(tmp_path, frames=60)
    data.source.height, data.source.width = 512, 1024
    partial = tmp_path / "packs" / "source.partial"
    flags = [f"--data.source.{k}={getattr(data.source, k)}"
             for k in ("name", "root", "height", "width")]  # fmt: skip
    flags += [f"--data.target.{k}={getattr(data.target, k)}" for k in ("name", "root")]
    flags += [f"--data.packs={data.packs}", f"--data.label_space={data.label_space}"]
    flags += ["--data.height=64", "--data.width=96", "--data.target.height=70"]
    flags += ["--data.target.width=110"]
    typed = [sys.executable, "-m", "gioada_fast.data", "pack", *flags]
    process = subprocess.Popen(typed, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not packed_frames(partial) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    process.kill()
    process.wait()
    there = packed_frames(partial)
    assert 0 < there < 60 and not (tmp_path / "packs" / "source").exists()
    reported = pack(data)
    assert f"resumes, {there} of 60 frames are packed" in reported[0]
    packed, files = sets.source_frames(data), sets.source_files(data)
    for index in range(0, 60, 7):
        assert_same_pair(packed[index]._asdict(), files[index]._asdict())


def packed_frames(partial):
    try:
        return int(np.load(partial / "checksums.npy").any(1).sum())
    except (OSError, ValueError, EOFError):
        return 0


def test_a_pack_begun_with_other_settings_starts_again(tmp_path):
    data = synthia(tmp_path)
    path = tmp_path / "source" / "RGB" / "0000000.png"
    content = path.read_bytes()
    path.write_bytes(b"")
    with pytest.raises(InputError):
        pack(data)
    path.write_bytes(content)
    data.label_space = "cityscapes13"
    line = next(line for line in pack(data) if "starts again" in line)
    assert f"{tmp_path / 'packs' / 'source.partial'}: was begun with data.label_space = 'c" in line
    assert "= 'cityscapes16', the settings say 'cityscapes13'" in line
    assert_same_pair(sets.source_frames(data)[0]._asdict(), sets.source_files(data)[0]._asdict())


def test_two_processes_do_not_pack_at_once(tmp_path):
    data = synthia(tmp_path)
    partial = tmp_path / "packs" / "source.partial"
    partial.mkdir(parents=True)
    with (partial / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(InputError, match=r"source\.partial is in use"):
            pack(data)


def test_a_folder_that_cannot_be_written_or_is_full(tmp_path, monkeypatch):
    data = synthia(tmp_path)
    (tmp_path / "packs").write_text("a file")
    with pytest.raises(InputError, match=r"packs/source\.partial: cannot be written: "):
        pack(data)
    (tmp_path / "packs").unlink()
    # as a full disk: files end at 32 KiB
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**15, limits[1]))
    try:
        with pytest.raises(InputError, match=r"cannot be written: .*; the same command resumes"):
            pack(data)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2**16))
    with pytest.raises(InputError, match=r"packs: packing needs 0\.2 MiB there, 0\.1 MiB are free"):
        pack(data)
    monkeypatch.undo()
    assert len(pack(data)) == 2


def test_packing_needs_a_folder():
    with pytest.raises(InputError, match=r"data\.packs is not set"):
        pack_writer.pack(DataConfig())


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("source.height", 80, "source/manifest.json: the pack was made with data.source.height = "
                              "70, the settings say 80"),
        ("source.width", 120, "data.source.width = 110, the settings say 120"),
        ("source.include", "RGB/*1.png", "include = '*', the settings say 'RGB/*1.png'"),
        ("source.name", "carla", "data.source.name = 'synthia', the settings say 'carla'"),
        ("label_space", "cityscapes13", "data.label_space = 'cityscapes16', the settings say "),
        ("target.height", 80, "target/manifest.json: the pack was made with data.target.height"),
        ("target.train_split", "val", "data.target.train_split = 'train', the settings say 'val'"),
        ("target.name", "kitti", "data.target.name = 'cityscapes', the settings say 'kitti'"),
    ],
)  # fmt: skip
def test_other_settings_are_refused(packs, setting, value, words):
    data, folder = packs
    owner, name = data, setting
    if "." in setting:
        side, name = setting.split(".")
        owner = getattr(data, side)
    setattr(owner, name, value)
    before = sorted((path, path.stat().st_mtime) for path in folder.rglob("*"))
    side = "target" if "target" in setting else "source"
    read = sets.target_images if side == "target" else sets.source_frames
    for refuses in (read, pack_writer.pack):
        with pytest.raises(InputError) as error:
            refuses(data)
        assert words in str(error.value)
        assert f"remove {folder / side} and pack again with\npython -m " in str(error.value)
        assert f"--data.{setting}={value}" in shlex.split(str(error.value))
    assert before == sorted((path, path.stat().st_mtime) for path in folder.rglob("*"))


def test_settings_that_the_frames_do_not_depend_on_may_change(packs):
    data, _ = packs
    data.flip, data.workers, data.class_weights = False, 3, "none"
    data.source.look, data.source.root, data.target.evaluation_split = "dusk", "/nowhere", "test"
    assert len(sets.source_frames(data)) == 3 and len(sets.target_images(data)) == 2
    reported = pack(data)
    assert all("packed already" in line for line in reported)


def test_a_pack_of_another_camera_is_refused(tmp_path):
    data = street_scenes(tmp_path)
    pack(data)
    assert len(sets.source_frames(data)) == 6
    manifest = tmp_path / "packs" / "source" / "manifest.json"
    content = json.loads(manifest.read_text())
    for name in CAMERA_BOUNDS:  # older packs lack them
        assert content["settings"].pop(f"data.source.{name}") is None
    assert not list(differences(content["settings"], source_settings(data)))
    data.source = replace(data.source, camera_height=1.65)
    with pytest.raises(InputError) as error:
        sets.source_frames(data)
    message = str(error.value)
    assert "data.source.camera_height = None, the settings say [1.65, 1.65]" in message
    assert "--data.source.camera_height=[1.65, 1.65]" in shlex.split(message)


def test_the_class_map_of_a_folder_is_part_of_the_settings(tmp_path):
    formats.write_folder(tmp_path / "source", size=(80, 128))
    formats.write_kitti(tmp_path / "target", size=(80, 128))
    classes = tmp_path / "classes.yaml"
    classes.write_text("0: road\n1: building\n2: sky\n7: null\n")
    data = config(tmp_path, "folder", "kitti", "kitti10")
    data.source.labels, data.source.depth, data.source.classes = "labels/*", "depth/*", str(classes)
    data.source.depth_per_metre = 1000.0
    pack(data)
    frames, files = sets.source_frames(data), sets.source_files(data)
    assert_same_pair(frames[0]._asdict(), files[0]._asdict())
    classes.write_text("0: road\n1: building\n2: null\n7: null\n")
    with pytest.raises(InputError, match="with train id of 2 = 7, the settings say 255; remove "):
        sets.source_frames(data)
    classes.unlink()
    assert len(sets.source_frames(data)) == 3


def change_byte(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["images", "labels", "depth"])
def test_a_truncated_pack_is_refused_before_training(packs, tmp_path, name):
    data, folder = packs
    path = folder / "source" / f"{name}.npy"
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size - 1)
    with pytest.raises(InputError) as error:
        sets.source_frames(data)
    assert f"{path}: truncated: it has {size - 1} bytes, the manifest says {size}" in str(
        error.value
    )
    path.write_bytes(path.read_bytes() + bytes(9))
    with pytest.raises(InputError, match=rf"{name}\.npy: too large: it has"):
        sets.source_frames(data)
    path.unlink()
    with pytest.raises(InputError, match=rf"{name}\.npy: cannot be read: No such file"):
        sets.source_frames(data)


def test_the_command_line_refuses_a_truncated_pack_and_leaves_nothing(tmp_path):
    root = tmp_path / "scenes"
    pack(street_scenes(root))
    with (root / "packs" / "target" / "images.npy").open("r+b") as file:
        file.truncate(5000)
    flags = miniature.flags(root, tmp_path / "runs", **{"data.packs": root / "packs"})
    refused = command("train", *flags, cwd=tmp_path)
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
    assert "packs/target/images.npy: truncated: it has 5000 bytes" in refused.stderr
    assert not (tmp_path / "runs" / "mini").exists()


@pytest.mark.parametrize("name", ["images", "labels", "depth"])
def test_a_changed_byte_is_found_and_its_frame_left_out(packs, name):
    data, folder = packs
    path = folder / "source" / f"{name}.npy"
    change_byte(path, path.stat().st_size // 2)  # the second of three
    frames = sets.source_frames(data)
    frames[0], frames[2]
    words = rf"{path}: frame 1 \(RGB/0000001\.png\) is damaged: its checksum is "
    for _ in range(2):
        with pytest.raises(InputError, match=words):
            frames[1]
    if name == "labels":
        with pytest.raises(InputError, match=words):
            frames.labels(1)
    else:
        frames.labels(1)
    reported = []
    stream = PairStream(frames, sets.target_images(data), 0, True, CROP, unreadable=3)
    batches = pair_batches(
        stream, 0, 6, 1, 0, pin_memory=False, unreadable=Unreadable(1, reported.append)
    )
    assert len(list(batches)) == 6
    assert len(reported) == 1 and "frame 1" in reported[0] and "left out" in reported[0]


def test_a_changed_manifest_is_refused(packs):
    data, folder = packs
    path = folder / "source" / "manifest.json"
    content = path.read_text()
    manifest = json.loads(content)
    again = f"remove {folder / 'source'} and pack again with\npython -m gioada_fast.data pack"

    def refused(text, words):
        path.write_text(text)
        with pytest.raises(InputError) as error:
            sets.source_frames(data)
        assert f"{path}: {words}" in str(error.value) and again in str(error.value)

    refused(json.dumps({**manifest, "depth_per_metre": 1000}), "was changed: its checksum is ")
    refused(json.dumps({**manifest, "format": 2}), "pack of format 2, expected 1")
    refused(content[: len(content) // 2], "not readable as JSON")
    refused("[]", "not the manifest of a pack")
    path.unlink()
    with pytest.raises(InputError, match=r"manifest\.json: cannot be read: No such file"):
        sets.source_frames(data)
    path.write_text(content)
    change_byte(folder / "source" / "checksums.npy", -1)
    with pytest.raises(InputError, match=r"source/checksums\.npy: was changed since the pack"):
        sets.source_frames(data)


def test_the_pack_of_one_side_is_refused_as_the_other(packs):
    data, folder = packs
    shutil.rmtree(folder / "target")
    (folder / "source").rename(folder / "target")
    with pytest.raises(InputError, match=r"made with data\.target\.name = None, the settings say"):
        sets.target_images(data)


def test_a_pack_of_carla_needs_no_files_to_know_their_version(tmp_path):
    data = carla(tmp_path)
    pack(data)
    frames = sets.source_files(data)
    shutil.rmtree(tmp_path / "source")
    for root in (data.source.root, None):
        data.source.root = root
        sets.check_label_space(data)
        packed = sets.source_frames(data)
        assert len(packed) == len(frames)
    data.source.classes = "carla_0_9_14"
    with pytest.raises(InputError, match="train id of vehicle = 8, the settings say None"):
        sets.source_frames(data)


def test_a_pack_goes_to_other_processes(packs):
    data, _ = packs
    for frames in (sets.source_frames(data), sets.target_images(data)):
        expected = frames[1]
        sent = pickle.dumps(frames)
        assert len(sent) < 4000
        np.testing.assert_array_equal(pickle.loads(sent)[1][0], expected[0])
