"""Renders random city streets as a car's camera sees them: image, depth in metres and labels.

A frame depends only on its seed, look, size and camera.

>>> from gioada_fast import street_scenes
>>> frame = street_scenes.render(seed=1, look="day", size=(180, 240))

Needs the extra ``scenes``: ``pip install "gioada_fast[scenes]"``.
"""

from .cache import FramePaths, ensure, frame_paths
from .frames import VERSION, Frame, render
from .looks import LOOK_CAMERA, LOOKS, CameraRanges, Look

__all__ = [
    "LOOKS",
    "LOOK_CAMERA",
    "VERSION",
    "CameraRanges",
    "Frame",
    "FramePaths",
    "Look",
    "ensure",
    "frame_paths",
    "render",
]
