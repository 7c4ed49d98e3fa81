"""Self-contained HTML pages from the templates of this folder, with pictures inside."""

import base64
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypedDict

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from .formatting import duration, percent, points
from .panels import encode_image

_MAX_PICTURE_BYTES = 400_000
"""Limit of an embedded picture: seven of them, a third larger as base64, fit in a page of 5 MB."""


class Picture(TypedDict):
    """An embedded picture, as ``picture.html`` shows it."""

    uri: str
    caption: str
    width: int
    height: int


def render(template: str, **values: Any) -> str:
    """HTML from a template; all values are escaped."""
    environment = Environment(
        loader=PackageLoader("gioada_fast", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, points=points, duration=duration)
    return environment.get_template(template).render(**values)


def embed(captions: Iterable[tuple[Path, str]], unreadable: list[str]) -> list[Picture]:
    """JPEG files as data URIs, shrunk until each is small enough.

    Args:
        captions: (file, caption) of each picture.
        unreadable: names of files that cannot be read are appended to it.
    """
    pictures: list[Picture] = []
    for path, caption in captions:
        try:
            data = path.read_bytes()
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        except (OSError, cv2.error):
            image = None
        if image is None:
            unreadable.append(path.name)
            continue
        pictures.append(_picture(image, data, caption))
    return pictures


def embed_image(image: np.ndarray, caption: str) -> Picture:
    """An image RGB uint8 [H, W, 3] as a data URI, shrunk until it is small enough."""
    return _picture(image, encode_image(image), caption)


def _picture(image: np.ndarray, data: bytes, caption: str) -> Picture:
    """The image whose JPEG file is ``data``."""
    while len(data) > _MAX_PICTURE_BYTES:
        image = cv2.resize(image, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA)
        data = encode_image(image)
    uri = f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
    height, width = image.shape[:2]
    return {"uri": uri, "caption": caption, "width": width, "height": height}


def unreadable_notes(names: Iterable[str]) -> list[str]:
    """A note for each picture that a page leaves out."""
    return [f"{name} could not be read and is left out." for name in names]
