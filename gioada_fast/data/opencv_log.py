"""OpenCV's own messages, which every module turns off that lets OpenCV read files."""

import cv2


def silence_opencv() -> None:
    """Print nothing: damaged files become errors of this package."""
    if hasattr(cv2, "setLogLevel"):  # until OpenCV 4.11, the last one that takes NumPy 1
        cv2.setLogLevel(0)
    else:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
