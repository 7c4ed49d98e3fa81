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
    shapes = []
    original = TaskNet.forward

    def recorded(task, image):
        shapes.append(tuple(image.shape[2:]))
        return original(task, image)

    monkeypatch.setattr(TaskNet, "forward", recorded)
    done = run(model, "in", "--output", "out", cwd=tmp_path)
    assert "took 2 images (1 turned as their EXIF data says)" in done.stdout, done.stderr
    turned = cv2.imread(str(tmp_path / "out" / "turned_overlay.png"))
    assert turned.shape == (80, 48, 3)
    assert shapes == [(160, 96), (64, 640)]


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
