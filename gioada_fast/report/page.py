"""Self-contained HTML pages from the templates of this folder, with pictures inside."""

import base64
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from .formatting import duration, percent, points
from .panels import cut_grid

_MAX_PANEL_BYTES = 300_000
"""Limit of a panel: seven of them, a third larger as base64, fit in a page of 3 MB."""
_MAX_SIDE = 1600
"""Limit of a picture's sides in pixels, as on a large screen."""
_QUALITY = 80


class Picture(TypedDict):
    """An embedded picture."""

    uri: str
    column: str
    """Caption above it; empty for a whole panel, which has captions of its own."""
    width: int
    height: int


class Panel(TypedDict):
    """Rows of embedded pictures of one size, as ``panel.html`` shows them."""

    caption: str
    rows: list[list[Picture]]


def render(template: str, **values: Any) -> str:
    """HTML from a template; all values are escaped, and only the page's own script may run."""
    loader = PackageLoader("gioada_fast", "report")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, points=points, duration=duration)
    script = loader.get_source(environment, "page.js")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = {"script": Markup(script), "script_hash": Markup(f"sha256-{digest}")}
    return environment.get_template(template).render(**page, **values)


def picture_size(settings: Mapping[str, Any]) -> tuple[int, int] | None:
    """(height, width) of the pictures in a run's panels; None if the settings do not say."""
    data = settings.get("data") or {}
    target = data.get("target") or {}
    height, width = (target.get(side) or data.get(side) for side in ("height", "width"))
    return (height, width) if height and width else None


def read_pictures(
    path: Path, size: tuple[int, int] | None, *layouts: Sequence[Sequence[str]]
) -> list[dict[str, np.ndarray]] | None:
    """The pictures of a panel's file by column, row by row.

    Args:
        path: JPEG file.
        size: (height, width) of each picture, None if it is not known.
        layouts: for each layout that the panel may have, the captions of each group of columns.

    Returns:
        RGB uint8 [*size, 3]; a single picture without a caption if the panel has none of the
        layouts; None if the file cannot be read.
    """
    try:
        data = path.read_bytes()
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    except (OSError, cv2.error):
        return None
    if image is None:
        return None
    if size is not None:
        for layout in layouts:
            rows = cut_grid(image, size, *layout)
            if rows is not None:
                return rows
    return [{"": image}]


def embed(caption: str, rows: Sequence[Mapping[str, np.ndarray]]) -> Panel:
    """Pictures as data URIs, shrunk until all of them together are small enough.

    Args:
        caption: of the panel.
        rows: pictures by the caption of their column, RGB uint8 [H, W, 3], all of one size.
    """
    first = next(iter(rows[0].values()))
    scale = min(1, _MAX_SIDE / max(first.shape))
    while True:
        encoded = [[_encode(picture, scale) for picture in row.values()] for row in rows]
        size = sum(len(data) for row in encoded for _, data in row)
        if size <= _MAX_PANEL_BYTES:
            break
        scale *= 0.9 * math.sqrt(_MAX_PANEL_BYTES / size)
    return {
        "caption": caption,
        "rows": [
            [
                {
                    "uri": f"data:image/webp;base64,{base64.b64encode(data).decode()}",
                    "column": column,
                    "width": width,
                    "height": height,
                }
                for column, ((height, width), data) in zip(row, pictures, strict=True)
            ]
            for row, pictures in zip(rows, encoded, strict=True)
        ],
    }


def _encode(picture: np.ndarray, scale: float) -> tuple[tuple[int, int], bytes]:
    """(height, width) and WebP file of a picture, which is half as large as a JPEG."""
    height, width = (max(1, round(scale * side)) for side in picture.shape[:2])
    if scale < 1:
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".webp", picture[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, _QUALITY])
    return (height, width), data.tobytes()


def unreadable_notes(names: Iterable[str]) -> list[str]:
    """A note for each picture that a page leaves out."""
    return [f"{name} could not be read and is left out." for name in names]
