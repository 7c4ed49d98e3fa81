"""``predict`` goes through folders and archives, and says what it took and left, and why."""

import zipfile

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from gioada_fast.config import Config, DataConfig, TargetConfig
from gioada_fast.data.sets import target_images
from gioada_fast.engine.networks import save_task
from gioada_fast.models import TaskNet
from gioada_fast.predict.outputs import KINDS

from .commands import command
from .video_files import damage, read_video, truncate, write_video

PIXELS = np.random.default_rng(0).integers(0, 256, (48, 80, 3), np.uint8)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Weights of an untrained network."""
    config = Config()
    config.data.height, config.data.width, config.model.width = 64, 96, 0.125
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "task.safetensors"
    task = TaskNet(11, "vgg16", 0.125, config.model.trunk_norm)
    save_task(path, task, config)
    return path


def write(folder, *names, image=PIXELS, **options):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path, **options)


def run(model, *arguments, cwd):
    return command("predict", model, *arguments, "--device=cpu", cwd=cwd)


def pictures(folder):
    """Images that were predicted, without their kinds."""
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    names = {file.rpartition("_")[0] for file in files}
    assert set(files) == {f"{name}_{kind}.png" for name in names for kind in KINDS}
    return sorted(names)


def recorded_shapes(monkeypatch):
    """The shapes of what the network sees, in a list that grows."""
    shapes = []
    original = TaskNet.forward

    def recorded(task, image):
        shapes.append(tuple(image.shape))
        return original(task, image)

    monkeypatch.setattr(TaskNet, "forward", recorded)
    return shapes


def test_all_formats_in_subfolders_and_archives(model, tmp_path):
    write(tmp_path / "in", "1.png", "a/2.JPG", "a/b c/3.tif", "4.webp", "5.bmp", "ü.TIFF")
    write(tmp_path / "zipped", "6.png")
    with zipfile.ZipFile(tmp_path / "in" / "x.zip", "w") as z:
        z.write(tmp_path / "zipped" / "6.png", "d/6.png")
        z.writestr("__MACOSX/d/._6.png", "")
    write(tmp_path / "in" / ".thumbs", "7.png")
    (tmp_path / "in" / "a" / "._2.JPG").write_text("")
    (tmp_path / "in" / "a" / "notes.txt").write_text("")
    done = run(model, "in", "--output", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert pictures(tmp_path / "out") == ["1", "4", "5", "a/2", "a/b c/3", "d/6", "ü"]
    assert done.stdout.strip().endswith("took 7 images, left 4 files: 3 hidden, 1 .txt")
    ids = cv2.imread(str(tmp_path / "out" / "a" / "2_ids.png"), cv2.IMREAD_UNCHANGED)
    assert ids.shape == (48, 80) and ids.max() < 11
    again = run(model, "in/x.zip", "--output", "again", cwd=tmp_path)
    assert pictures(tmp_path / "again") == ["d/6"] and "took 1 image, left 1 file" in again.stdout


def test_unreadable_images_do_not_end_it(model, tmp_path):
    write(tmp_path / "in", "1.png", "2.png", "3.png")
    write(tmp_path / "in", "strip.png", image=np.zeros((1, 500, 3), np.uint8))
    (tmp_path / "in" / "1.png").write_bytes(b"")
    (tmp_path / "in" / "2.png").write_bytes((tmp_path / "in" / "2.png").read_bytes()[:200])
    (tmp_path / "in" / "link.png").symlink_to("gone.png")
    done = run(model, "in", "--output", "out", cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert pictures(tmp_path / "out") == ["3"]
    assert "took 1 image, left 4 files: 4 unreadable" in done.stdout
    assert "4 images cannot be read" in done.stderr
    for words in (
        "in/1.png: ",
        "in/2.png: ",
        "in/link.png: no such file: it is a link to gone.png",
    ):
        assert words in done.stderr


def test_pictures_are_not_predicted_again(model, tmp_path):
    write(tmp_path / "in", "1.png", "sub/2_ids.png")
    for output in ("in/out", "in/out", "in/other"):
        done = run(model, "in", "--output", output, cwd=tmp_path)
        assert done.returncode == 0 and "took 2 images" in done.stdout, done.stderr
        assert pictures(tmp_path / output) == ["1", "sub/2_ids"]
    assert "left 8 files: 8 earlier predictions" in done.stdout
    done = run(model, "in", "--output", "in/other", cwd=tmp_path)
    assert "left 16 files: 8 in the output folder, 8 earlier predictions" in done.stdout
    refused = run(model, "in", "--output", "in/../in", cwd=tmp_path)
    assert refused.returncode == 2 and "change --output" in refused.stderr


@pytest.mark.parametrize(
    ("names", "inputs", "words"),
    [
        (("in/a.png", "in/a.jpg"), ("in",), ("in/a.jpg and in/a.png", "out/a_ids.png")),
        (("in/a.png", "b/a.png"), ("in", "b"), ("in/a.png and b/a.png", "out/a_ids.png")),
        (("in/s/a.png", "b/a.png"), ("in/s/a.png", "b"), ("in/s/a.png and b/a.png",)),
        (("in/a.png",), ("in/b.png",), ("in/b.png: no such file or folder",)),
        (("in/a.gif",), ("in",), ("in: no image or video in it, left 1 file: 1 .gif",)),
    ],
)
def test_refused_inputs(model, tmp_path, names, inputs, words):
    write(tmp_path, *names)
    done = run(model, *inputs, "--output", "out", cwd=tmp_path)
    assert done.returncode == 2 and not (tmp_path / "out").exists()
    for word in words:
        assert word in done.stderr


def test_an_image_that_is_given_twice_is_predicted_once(model, tmp_path):
    write(tmp_path, "in/a.png")
    done = run(model, "in", "in/a.png", "--output", "out", cwd=tmp_path)
    assert done.returncode == 0 and "took 1 image:" not in done.stdout
    assert "took 1 image" in done.stdout


def test_images_are_upright_and_keep_their_shape(model, tmp_path, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    write(tmp_path / "in", "turned.jpg", exif=exif)
    write(tmp_path / "in", "wide.png", image=np.zeros((40, 400, 3), np.uint8))
    shapes = recorded_shapes(monkeypatch)
    done = run(model, "in", "--output", "out", cwd=tmp_path)
    assert "took 2 images (1 turned as their EXIF data says)" in done.stdout, done.stderr
    turned = cv2.imread(str(tmp_path / "out" / "turned_overlay.png"))
    assert turned.shape == (80, 48, 3)
    assert [shape[2:] for shape in shapes] == [(160, 96), (64, 640)]


def test_metres_are_depth_maps_for_training(model, tmp_path):
    write(tmp_path / "in", "a/1.png", "2.png")
    assert run(model, "in", "--output", "out", "--metres", cwd=tmp_path).returncode == 0
    target = TargetConfig(
        name="folder", root=str(tmp_path / "in"), images="*", depth=f"{tmp_path}/out/*_metres.png"
    )
    data = DataConfig(target=target, height=64, width=96)
    depth = [target_images(data, depth=True).with_depth(k)[1] for k in range(2)]
    assert all(d.shape == (64, 96) and 2 <= d.min() <= d.max() < 656 for d in depth)
    # they are no images of their own the next time
    again = run(model, "out", "--output", "again", cwd=tmp_path)
    assert again.returncode == 2 and "10 earlier predictions" in again.stderr


def test_a_window_that_covers_the_image_changes_nothing(model, tmp_path):
    write(tmp_path / "in", "1.png", "2.png", "3.png")
    write(tmp_path / "in", "4.png", image=np.ascontiguousarray(PIXELS[:40]))
    assert run(model, "in", "--output", "whole", cwd=tmp_path).returncode == 0
    options = ("--window=300x200", "--stride=10", "--batch=2")
    done = run(model, "in", "--output", "windows", *options, cwd=tmp_path)
    assert done.returncode == 0 and "took 4 images" in done.stdout, done.stderr
    files = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert len(files) == 16
    for file in files:
        same = [(tmp_path / folder / file).read_bytes() for folder in ("whole", "windows")]
        # a batch may round differently
        a, b = (cv2.imdecode(np.frombuffer(s, np.uint8), cv2.IMREAD_UNCHANGED) for s in same)
        assert (a != b).mean() < 0.01, file


def test_images_at_their_own_size_in_windows(model, tmp_path, monkeypatch):
    shapes = recorded_shapes(monkeypatch)
    image = np.random.default_rng(0).integers(0, 256, (150, 333, 3), np.uint8)
    write(tmp_path / "in", "1.png", image=image)
    options = ("--scale=own", "--window=64x96", "--batch=3", "--tta", "--metres")
    done = run(model, "in", "--output", "out", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {shape[2:] for shape in shapes} == {(96, 64)} and max(s[0] for s in shapes) == 3
    for kind in (*KINDS, "metres"):
        picture = cv2.imread(str(tmp_path / "out" / f"1_{kind}.png"), cv2.IMREAD_UNCHANGED)
        assert picture.shape[:2] == (150, 333)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--window=0",), "--window is 0, expected pixels above 0, such as 1024 or 1024x512"),
        (("--window=-64",), "--window is -64, expected"),
        (("--window=64x",), "--window is 64x, expected"),
        (("--window=16",), "--window is 16x16, must be at least 32"),
        (("--window=64", "--stride=65"), "--stride is 65x65, must be from 1 to the window's 64x64"),
        (("--window=64", "--stride=0"), "--stride is 0, expected"),
        (("--stride=64",), "--stride needs windows: set --window"),
        (("--scale=big",), "--scale is big, expected a number above 0, or own"),
        (("--scale=-1",), "--scale is -1"),
        (("--batch=0",), "--batch is 0"),
        (("--batch=x",), "batch"),
        (("--video=gif",), "--video"),
    ],
)
def test_flags_that_are_refused(model, tmp_path, flags, words):
    write(tmp_path, "a.png")
    done = run(model, "a.png", "--output", "out", *flags, cwd=tmp_path)
    assert done.returncode == 2 and not (tmp_path / "out").exists()
    assert words in done.stderr and "Traceback" not in done.stderr


def test_images_that_need_windows_or_are_too_small(model, tmp_path):
    write(tmp_path / "in", "large.png", image=np.zeros((600, 700, 3), np.uint8))
    write(tmp_path / "in", "small.png", image=np.zeros((20, 30, 3), np.uint8))
    write(tmp_path / "in", "taken.png")
    done = run(model, "in", "--output", "out", "--scale=own", cwd=tmp_path)
    assert done.returncode == 1 and pictures(tmp_path / "out") == ["taken"]
    assert "in/large.png: 700x600 pixels: the network would see 700x600 at once" in done.stderr
    assert "in/small.png: 30x20 pixels: the network would see 30x20, and needs 32" in done.stderr


@pytest.mark.parametrize(
    ("kind", "options", "shape"),
    [
        ("overlay", (), (48, 64)),
        ("side-by-side", ("--batch=5",), (48, 192)),
        ("overlay", ("--scale=own", "--window=40", "--batch=8"), (48, 64)),
    ],
)
def test_videos(model, tmp_path, kind, options, shape):
    write_video(tmp_path / "in/drive/a.avi", codec="FFV1", rate=12.5)
    write_video(tmp_path / "in/grey.mkv", 3, codec="FFV1", grey=True)
    write(tmp_path / "in", "1.png")
    done = run(model, "in", "--output", "in/out", f"--video={kind}", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "took 1 image and 2 videos (15 frames, " in done.stdout and "left" not in done.stdout
    frames = read_video(tmp_path / f"in/out/drive/a_{kind}.mp4")
    assert len(frames) == 12 and frames[0].shape == (*shape, 3)
    # the bar of the input shows through, and moves
    bright = [
        frame[:40, :56].astype(int).max(0).sum(1).argmax() for frame in (frames[0], frames[9])
    ]
    assert bright[1] > bright[0] + 15
    # results are no inputs the next time
    again = run(model, "in", "--output", "other", f"--video={kind}", cwd=tmp_path)
    assert "took 1 image and 2 videos" in again.stdout
    assert "left 6 files: 6 earlier predictions" in again.stdout


def test_bad_videos_do_not_end_it(model, tmp_path):
    folder = tmp_path / "in"
    write_video(folder / "good.mp4", 4, codec="mp4v")
    damage(write_video(folder / "middle.avi", 30), 0.7, 0.75)
    truncate(write_video(folder / "cut.mp4", codec="mp4v"), 0.5)
    write_video(folder / "none.avi", 0)
    write_video(folder / "tiny.avi", 2, size=(16, 16))
    with zipfile.ZipFile(folder / "x.zip", "w") as z:
        z.write(folder / "good.mp4", "packed.mp4")
    done = run(model, "in", "--output", "out", "--scale=own", cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "good_overlay.mp4",
        "middle_overlay.mp4",
    ]
    for words in (
        "3 videos cannot be read",
        "in/cut.mp4: OpenCV finds no frame in it",
        "in/none.avi: OpenCV finds no frame in it",
        "in/tiny.avi: 16x16 pixels: the network would see 16x16, and needs 32",
        "1 damaged video read in part",
        "of the 30 frames that it declares cannot be read",
    ):
        assert words in done.stderr
    assert "took 2 videos (" in done.stdout
    assert "1 videos in archives, which must be unpacked, 3 unreadable" in done.stdout


@pytest.mark.parametrize(
    ("names", "output", "words"),
    [
        (("in/a.mp4", "in/a.avi"), "out", "would both be written to out/a_overlay.mp4"),
        (("in/a.mp4", "in/a_overlay.mp4"), "in", "in/a_overlay.mp4 is an input and would be over"),
        (("in/wide.avi",), "out", "8400x96 pixels, but its codec takes up to"),
    ],
)
def test_videos_that_cannot_be_written(model, tmp_path, names, output, words):
    for name in names:
        size = (96, 2800) if "wide" in name else (48, 64)
        write_video(tmp_path / name, 2, size=size)
    options = ("--video=side-by-side", "--window=200")
    done = run(model, *names, "--output", output, *options, cwd=tmp_path)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr
