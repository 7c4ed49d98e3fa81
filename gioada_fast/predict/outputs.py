"""Draws predictions, and names and writes their files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ..data.depth_maps import counts
from ..depth import decode_depth
from ..engine.inference import Piece
from ..labels import LabelSpace
from ..report.panels import colour_depth, overlay, save_image
from ..report.video_writer import SUFFIX

KINDS = ("ids", "colour", "overlay", "depth")
"""Pictures of an image."""
VIDEO_KINDS = ("overlay", "side-by-side")
"""What a video shows: an overlay, or frame, classes and depth side by side."""
CENTIMETRES = 100.0
"""Counts per metre of NAME_metres.png."""
_ROWS = 256
"""Rows of depth that are drawn at once: drawing needs more memory than the picture."""


def outputs(name: Path) -> list[Path]:
    """The pictures of an image, in the order of ``KINDS``."""
    return [name.with_name(f"{name.name}_{kind}.png") for kind in KINDS]


def metres_file(name: Path) -> Path:
    """The depth map of an image."""
    return name.with_name(f"{name.name}_metres.png")


def video_file(name: Path, kind: str) -> Path:
    """The predictions for a video."""
    return name.with_name(f"{name.name}_{kind}{SUFFIX}")


class Prediction:
    """The prediction for one image, assembled from its pieces.

    Holds pictures instead of depth, which needs more memory: a large image has 7 bytes per pixel
    here, 9 with metres.

    Args:
        image: RGB uint8 [H, W, 3].
        name: path of the files without ``_KIND.SUFFIX``.
        depth: whether to draw depth.
        encoding: encoding of the depth, to keep metres; None: without them.
        time: of a video's frame, in seconds from the first one.
    """

    def __init__(
        self,
        image: np.ndarray,
        name: Path,
        depth: bool = True,
        encoding: str | None = None,
        time: float = 0.0,
    ):
        self.image, self.name, self.time = image, name, time
        self.size = image.shape[0], image.shape[1]
        self.ids = np.empty(self.size, np.uint8)
        self.depth = np.empty((*self.size, 3), np.uint8) if depth else None
        self.metres = np.empty(self.size, np.uint16) if encoding else None
        self._encoding = encoding

    def add(self, piece: Piece, index: int) -> None:
        """Add a piece, in which the image has an index."""
        self.ids[piece.rows, piece.columns] = piece.labels[index]
        if self.depth is not None:
            _fill(self.depth[piece.rows, piece.columns], piece.depth[index], colour_depth)
        if self.metres is not None:
            _fill(self.metres[piece.rows, piece.columns], piece.depth[index], self._centimetres)

    def _centimetres(self, depth: np.ndarray) -> np.ndarray:
        assert self._encoding is not None
        return counts(decode_depth(torch.from_numpy(depth), self._encoding).numpy(), CENTIMETRES)

    def save(self, space: LabelSpace) -> None:
        """Write all pictures of an image, and metres if there are any.

        Each picture is dropped as soon as it is written.
        """
        ids, colour, mixed, depth = outputs(self.name)
        if self.metres is not None:
            save_image(metres_file(self.name), self.metres)
            self.metres = None
        assert self.depth is not None
        save_image(depth, self.depth)
        self.depth = None
        save_image(ids, self.ids)
        colours = space.colourise(self.ids)
        save_image(colour, colours)
        save_image(mixed, overlay(self.image, colours, out=colours))

    def frame(self, kind: str, space: LabelSpace) -> np.ndarray:
        """The picture of a video: RGB uint8 [H, W, 3], or [H, 3 W, 3] side by side."""
        colours = space.colourise(self.ids)
        if kind == "overlay":
            return overlay(self.image, colours, out=colours)
        assert self.depth is not None
        return np.hstack([self.image, colours, self.depth])


def _fill(
    result: np.ndarray, depth: np.ndarray, convert: Callable[[np.ndarray], np.ndarray]
) -> None:
    for top in range(0, len(depth), _ROWS):
        rows = slice(top, top + _ROWS)
        result[rows] = convert(depth[rows])
