"""Label readers that fail in other processes, which import only this file."""

import os
import time
from pathlib import Path

import cv2
import numpy as np


def end_the_process(path: Path) -> np.ndarray:
    """Ends the process at two files, as a crashing decoder would; raises an error at another."""
    if path.stem in ("000001", "000004"):
        os._exit(1)
    if path.stem == "000002":
        raise KeyError("no reader raises this")
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def wait_a_minute(path: Path) -> np.ndarray:
    """Leaves a file to show that it started, then hangs."""
    path.with_suffix(".begun").touch()
    time.sleep(60)
    return np.zeros((1, 1), np.uint8)
