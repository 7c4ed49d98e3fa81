"""Writes small videos, and damages them."""

from pathlib import Path

import cv2
import numpy as np


def write_video(
    path: Path,
    count: int = 12,
    size: tuple[int, int] = (48, 64),
    codec: str = "MJPG",
    rate: float = 10,
    grey: bool = False,
) -> Path:
    """A bright bar moves over a dark ground; its left edge is at 3 k pixels in frame k."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), rate, size[::-1], not grey)
    assert writer.isOpened(), codec
    for k in range(count):
        frame = np.full((*size, 3), 40, np.uint8)
        frame[:, 3 * k : 3 * k + 9] = (40, 220, 220)
        writer.write(frame[:, :, 1].copy() if grey else frame)
    writer.release()
    return path


def damage(path: Path, begin: float, end: float) -> Path:
    """Replace a part of a file, given as fractions of its length, by noise."""
    data = bytearray(path.read_bytes())
    start, stop = int(len(data) * begin), int(len(data) * end)
    data[start:stop] = np.random.default_rng(0).integers(0, 256, stop - start, np.uint8).tobytes()
    path.write_bytes(data)
    return path


def truncate(path: Path, fraction: float) -> Path:
    """Keep the first part of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])
    return path


def read_video(path: Path) -> list[np.ndarray]:
    """All frames, BGR."""
    capture, frames = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        frames.append(read[1])
    return frames
