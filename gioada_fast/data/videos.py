"""Reads videos of every format that OpenCV decodes."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from ..errors import InputError
from .opencv_log import silence_opencv

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts"),
    *(".wmv", ".flv", ".ogv", ".3gp"),
)
"""In lower case; files may have them in any case."""
FALLBACK_RATE = 25.0
"""Frames per second of a video that does not say it."""

_COUNTED = (".mp4", ".m4v", ".mov", ".avi", ".3gp")
"""Formats whose files list their frames. The number for others follows from the duration, which
includes the sound."""

_FFMPEG = cv2.CAP_FFMPEG in cv2.videoio_registry.getStreamBackends()
_BACKEND = cv2.CAP_FFMPEG if _FFMPEG else cv2.CAP_ANY
"""Other back ends read nothing more, and print their own errors."""
_MAX_GAP = 1000
"""Damaged frames in a row after which a video ends."""

silence_opencv()
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # FFmpeg's AV_LOG_QUIET


class Video:
    """The frames of a video, one after the other.

    Attributes:
        path: the file.
        size: (H, W) of the frames, turned upright.
        rate: frames per second.
        declared: number of frames that the file says it has; 0 if it does not say.
        read: number of frames that were read so far.
        time: seconds from the first frame to the one that was read last.

    Raises:
        InputError: there is no such file, it is no video, or it has no frame.
    """

    def __init__(self, path: Path):
        self.path, self.read, self.time = path, 0, 0.0
        self._start = 0.0
        self._failures, self._gaps = 0, False
        self._other_size: tuple[int, int] | None = None
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        self._capture = cv2.VideoCapture(str(path), _BACKEND)
        rate, declared = map(self._capture.get, (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT))
        self.rate = rate if 0.01 <= rate <= 1000 else FALLBACK_RATE
        self.declared = max(0, round(declared))
        first = self._next()
        if first is None:
            raise InputError(
                f"{path}: OpenCV finds no frame in it ({path.stat().st_size} bytes): it is no "
                "video, truncated, or of a codec that OpenCV's FFmpeg lacks"
            )
        self._first = first
        self._start = self._timestamp()
        self.size = first.shape[0], first.shape[1]

    def __iter__(self) -> Iterator[np.ndarray]:
        """Frames, RGB uint8 [H, W, 3]; may be called once.

        Frames that cannot be decoded are skipped, see ``damage``.
        A frame of another size than the first ends the video.
        """
        frame: np.ndarray | None = self._first
        duration = self.declared / self.rate
        while frame is not None:
            if frame.shape[:2] != self.size:
                self._other_size = frame.shape[0], frame.shape[1]
                break
            self.read += 1
            # some files have frames without a time, and clocks that jump
            self.time = min(max(self.time, self._timestamp() - self._start), duration)
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            frame = self._next()
        self._capture.release()

    def _timestamp(self) -> float:
        """When the last frame is shown, in seconds."""
        seconds = float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000
        return seconds if math.isfinite(seconds) else 0.0

    def _next(self) -> np.ndarray | None:
        """The next frame that can be decoded, BGR; None at the end.

        The decoder fails at a damaged frame and at the end; after a damaged frame it can go on.
        """
        for failed in range(_MAX_GAP):
            try:
                found, frame = self._capture.read()
            except cv2.error:  # the header says more pixels than OpenCV allocates
                found, frame = False, None
            if found and frame is not None:
                self._gaps |= failed > 0
                return frame
            self._failures += 1
            if self.read + self._failures >= self.declared:
                break
        return None

    def damage(self) -> str | None:
        """What was missing, after all frames were read; None if nothing was."""
        if self._other_size is not None:
            (h, w), (first_h, first_w) = self._other_size, self.size
            return (
                f"{self.path}: frame {self.read + 1} is {w}x{h}, the first is {first_w}x{first_h}: "
                "cut the video where its size changes; the frames before were predicted"
            )
        missing = self.declared - self.read
        if missing <= 0:
            return None
        reasons = "truncated, damaged, or cut without encoding it again"
        if self.path.suffix.lower() not in _COUNTED:
            # as many as the time between the last frame and the end of the file has room for, not
            # counting those that a variable frame rate leaves out before
            at_end = round(self.declared - self.time * self.rate) - 1
            if at_end <= self.rate and not self._gaps:
                return None
            reasons = "truncated or damaged, or its sound is longer than its pictures"
        return (
            f"{self.path}: {missing} of the {self.declared} frames that it declares cannot be "
            f"read: it is {reasons}; the others were predicted"
        )
