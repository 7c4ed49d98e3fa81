"""Videos are written completely or not at all."""

import resource

import numpy as np
import pytest

from gioada_fast.errors import InputError
from gioada_fast.report.video_writer import MAX_SIDE, VideoWriter
from tests.video_files import read_video

PICTURE = np.zeros((47, 65, 3), np.uint8)


@pytest.mark.parametrize("rate", [10, 29.97002997, 1 / 3])
def test_odd_sizes_and_any_rate(tmp_path, rate):
    picture = PICTURE.copy()
    picture[:, -8:] = (250, 20, 20)
    with VideoWriter(tmp_path / "a.mp4", (47, 65), rate) as writer:
        for _ in range(5):
            writer.write(picture)
        assert not (tmp_path / "a.mp4").exists()
    frames = read_video(tmp_path / "a.mp4")
    assert len(frames) == 5 and frames[0].shape == (48, 66, 3)
    blue, _, red = frames[4][47, 65].tolist()  # the added corner continues the last column
    assert red > 180 > 90 > blue
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_pictures_are_repeated_until_the_next_one_is_due(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", (48, 64), 10) as writer:
        for shade, time in ((50, 0), (100, 0.1), (200, 0.5), (250, 0.3)):
            writer.write(np.full((48, 64, 3), shade, np.uint8), time)
    shades = [frame.mean() for frame in read_video(tmp_path / "a.mp4")]
    assert shades == pytest.approx([50, 100, 100, 100, 100, 200, 250], abs=10)


def test_an_error_keeps_what_was_there(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_text("before")
    with pytest.raises(KeyboardInterrupt), VideoWriter(path, (47, 65), 10) as writer:
        writer.write(PICTURE)
        raise KeyboardInterrupt
    with pytest.raises(ValueError, match=r"expected uint8 \[47, 65, 3\]"):  # noqa: SIM117
        with VideoWriter(path, (47, 65), 10) as writer:
            writer.write(PICTURE[1:])
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"] and path.read_text() == "before"


def test_a_full_disk_is_an_error(tmp_path):
    """OpenCV reports nothing; a limit on the size of files stands for the disk."""
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with (
            pytest.raises(InputError, match="cannot be written, 0 of 20 frames were"),
            VideoWriter(tmp_path / "a.mp4", (200, 200), 10) as writer,
        ):
            for _ in range(20):
                writer.write(noise)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match=r"gone/a\.mp4: cannot be written"):
        VideoWriter(tmp_path / "gone" / "a.mp4", (48, 64), 10)
    with pytest.raises(InputError, match=f"9000x48 pixels, .* up to {MAX_SIDE}"):
        VideoWriter(tmp_path / "a.mp4", (48, 9000), 10)
