"""Writes videos."""

import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from ..errors import InputError

SUFFIX = ".mp4"
MAX_SIDE = 8190
"""Pixels on a side that MPEG-4 can have, an even number."""
_CODEC = "mp4v"
"""MPEG-4 part 2, which OpenCV's wheels encode; they have no H.264 encoder."""


class VideoWriter:
    """A context manager that writes an MPEG-4 video completely or not at all.

    An odd height or width gets one more row or column, a copy of the last one, because the codec
    needs even sizes.

    Args:
        path: the file, ending in ``SUFFIX``; an existing one is replaced.
        size: (H, W) of the pictures.
        rate: frames per second.

    Raises:
        InputError: the pictures are too large for the codec, or the file cannot be written.
    """

    def __init__(self, path: Path, size: tuple[int, int], rate: float):
        height, width = size
        if max(size) > MAX_SIDE:
            raise InputError(
                f"{path}: {width}x{height} pixels, but its codec takes up to {MAX_SIDE} on a side"
            )
        self._path, self._size, self._rate, self._count = path, size, rate, 0
        self._last: np.ndarray | None = None
        self._padding = height % 2, width % 2
        # the suffix chooses the format
        self._temporary = path.with_name(f".{path.stem}.{os.getpid()}{SUFFIX}")
        even = width + self._padding[1], height + self._padding[0]
        codec = cv2.VideoWriter.fourcc(*_CODEC)
        self._writer = cv2.VideoWriter(str(self._temporary), codec, rate, even)
        if not self._writer.isOpened():
            self._remove()
            raise InputError(f"{path}: cannot be written: is the folder writable, the disk full?")

    def __enter__(self) -> "VideoWriter":
        return self

    def write(self, picture: np.ndarray, time: float = 0.0) -> None:
        """Append a picture.

        Args:
            picture: RGB uint8 [H, W, 3].
            time: when it is to be shown, in seconds: the picture before is repeated until then. A
                picture that comes too late is shown as soon as possible.
        """
        if picture.shape != (*self._size, 3) or picture.dtype != np.uint8:
            raise ValueError(
                f"picture is {picture.dtype} {list(picture.shape)}, expected uint8 "
                f"{[*self._size, 3]}"
            )
        bottom, right = self._padding
        if bottom or right:
            picture = np.pad(picture, ((0, bottom), (0, right), (0, 0)), "edge")
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        while self._last is not None and self._count < round(time * self._rate):
            self._append(self._last)
        self._append(picture)
        self._last = picture

    def _append(self, picture: np.ndarray) -> None:
        self._writer.write(picture)
        self._count += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._writer.release()
        try:
            if kind is None:
                self._check()
                os.replace(self._temporary, self._path)
        except OSError as failure:
            raise InputError(f"{self._path}: cannot be written: {failure}") from failure
        finally:
            self._remove()

    def _check(self) -> None:
        """Count the frames, because OpenCV does not report that a disk is full."""
        capture = cv2.VideoCapture(str(self._temporary))
        written = round(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        capture.release()
        if written != self._count:
            raise InputError(
                f"{self._path}: cannot be written, {max(0, written)} of {self._count} frames were: "
                "is the disk full?"
            )

    def _remove(self) -> None:
        with suppress(OSError):
            self._temporary.unlink()
