"""Videos are read to the end, and what cannot be read is said."""

import cv2
import numpy as np
import pytest

from gioada_fast.data.videos import FALLBACK_RATE, Video
from gioada_fast.errors import InputError
from tests.video_files import damage, truncate, write_video


@pytest.mark.parametrize(
    ("name", "codec", "grey"),
    [
        ("a.mp4", "mp4v", False),
        ("a.avi", "MJPG", False),
        ("a.AVI", "FFV1", True),
        ("a.mkv", "FFV1", False),
        ("a.webm", "VP80", False),
    ],
)
def test_formats(tmp_path, name, codec, grey):
    video = Video(write_video(tmp_path / name, codec=codec, rate=12.5, grey=grey))
    frames = list(video)
    assert (video.read, video.declared, video.size, video.rate) == (12, 12, (48, 64), 12.5)
    assert video.damage() is None and len(frames) == 12
    for k, frame in enumerate(frames):
        assert frame.shape == (48, 64, 3) and frame.dtype == np.uint8
        assert frame[24, 3 * k + 4, 0] > 180 and frame[24, 60, 0] < 80  # red comes first


@pytest.mark.parametrize(
    ("name", "codec", "spoil"),
    [
        ("middle.avi", "MJPG", lambda path: damage(path, 0.7, 0.75)),
        ("middle.mp4", "mp4v", lambda path: damage(path, 0.33, 0.5)),
        ("first.avi", "MJPG", lambda path: damage(path, 0.525, 0.54)),
        ("end.avi", "MJPG", lambda path: truncate(path, 0.7)),
        ("end.mkv", "FFV1", lambda path: truncate(path, 0.4)),
    ],
)
def test_damage_is_reported(tmp_path, name, codec, spoil):
    path = spoil(write_video(tmp_path / name, 30, codec=codec))
    video = Video(path)
    frames = list(video)
    assert 0 < len(frames) == video.read < 30
    assert video.damage().startswith(
        f"{path}: {30 - len(frames)} of the 30 frames that it declares"
    )


def test_a_number_of_frames_from_the_duration_may_be_too_high(tmp_path):
    """The sound of a Matroska file may end up to a second after the pictures."""
    video = Video(write_video(tmp_path / "a.mkv", codec="FFV1"))
    video.declared += 9
    assert len(list(video)) == 12 and video.damage() is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda p: p.write_bytes(b""),
        lambda p: p.write_text("no video\n" * 99),
        lambda p: truncate(write_video(p, codec="mp4v"), 0.5),  # MP4 has its index at the end
        lambda p: write_video(p.with_suffix(".avi"), count=0).rename(p),
    ],
)
def test_unreadable_videos(tmp_path, spoil, capfd):
    path = tmp_path / "a_001.mp4"
    spoil(path)
    with pytest.raises(InputError, match="OpenCV finds no frame in it"):
        Video(path)
    assert capfd.readouterr().err == ""


def test_a_video_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"gone\.mp4: no such file"):
        Video(tmp_path / "gone.mp4")


class Capture:
    """A decoder whose frames change their size, and whose file declares nonsense."""

    def __init__(self, path, backend):
        self.frames = [np.zeros((4, 6, 3), np.uint8)] * 2 + [np.zeros((6, 4, 3), np.uint8)]

    def get(self, prop):
        return {
            cv2.CAP_PROP_FPS: 90000.0,
            cv2.CAP_PROP_FRAME_COUNT: 1e12,
            cv2.CAP_PROP_POS_MSEC: np.nan,
        }[prop]

    def read(self):
        return (True, self.frames.pop(0)) if self.frames else (False, None)

    def release(self):
        pass


def test_frames_that_change_their_size_and_a_number_that_is_nonsense(tmp_path, monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    (tmp_path / "a.mp4").write_text("")
    video = Video(tmp_path / "a.mp4")
    assert video.rate == FALLBACK_RATE and len(list(video)) == 2
    assert "frame 3 is 4x6, the first is 6x4" in video.damage()
    video = Video(tmp_path / "a.mp4")
    video._capture.frames.pop()
    assert len(list(video)) == 2 and "of the 1000000000000 frames" in video.damage()


class VariableRate(Capture):
    """Ten frames in the first second, then one every half second; the fifth has no time."""

    times = (*range(1000, 2000, 100), 2000, 2500, 3000)

    def __init__(self, path, backend):
        self.position = -1

    def get(self, prop):
        time = 0 if self.position == 5 else self.times[max(0, self.position)]
        return {
            cv2.CAP_PROP_FPS: 10.0,
            cv2.CAP_PROP_FRAME_COUNT: 21.0,
            cv2.CAP_PROP_POS_MSEC: time,
        }[prop]

    def read(self):
        self.position += 1
        has_frame = self.position < len(self.times)
        return has_frame, np.zeros((4, 6, 3), np.uint8) if has_frame else None


def test_a_variable_frame_rate_is_no_damage(tmp_path, monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", VariableRate)
    (tmp_path / "a.mkv").write_text("")
    video = Video(tmp_path / "a.mkv")
    times = [video.time for _ in video]
    assert times == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.4, 0.6, 0.7, 0.8, 0.9, 1, 1.5, 2])
    assert video.read == 13 and video.declared == 21 and video.damage() is None
    monkeypatch.setattr(VariableRate, "times", VariableRate.times[:6])
    video = Video(tmp_path / "a.mkv")
    assert len(list(video)) == 6 and "15 of the 21 frames" in video.damage()
