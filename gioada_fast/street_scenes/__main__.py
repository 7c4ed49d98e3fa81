"""Draws a contact sheet: ``python -m gioada_fast.street_scenes --sheet out.png --seeds 1 2 3``."""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

from ..config import CAMERA_BOUNDS
from ..errors import InputError
from ..labels import IGNORE, STREET, STREET_IDS, label_space
from .frames import Frame, render
from .looks import LOOKS, CameraRanges

EXTRA_COLOURS = {"terrain": (152, 251, 152), "lorry": (0, 0, 70), "void": (0, 0, 0)}


def colourise(labels: np.ndarray) -> np.ndarray:
    """Colours labels as Cityscapes does.

    Args:
        labels: [H, W] ids of ``STREET_IDS``.

    Returns:
        uint8 [H, W, 3] RGB.
    """
    space = label_space("cityscapes16")
    train_ids = np.full(256, IGNORE, np.uint8)
    for street_id, train_id in STREET.train_ids(space).items():
        train_ids[street_id] = train_id
    image = space.colourise(train_ids[labels])
    for name, colour in EXTRA_COLOURS.items():
        image[labels == STREET_IDS[name]] = colour
    return image


def depth_image(depth: np.ndarray) -> np.ndarray:
    """Colours depth on a logarithmic scale.

    Args:
        depth: float32 [H, W] metres, 0 for none.

    Returns:
        uint8 [H, W, 3] RGB; near is bright, none is black.
    """
    near = np.clip(1 - np.log(np.maximum(depth, 2) / 2) / np.log(150), 0, 1)
    colours = cv2.applyColorMap((near * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    return np.where(depth[..., None] > 0, colours[..., ::-1], 0)


def contact_sheet(frames: list[Frame], columns: int, images_only: bool = False) -> np.ndarray:
    """Tiles frames, each with its labels and depth below its image unless ``images_only``.

    Args:
        frames: at least one, all of one size.
        columns: number of frames side by side.
        images_only: leave labels and depth out.

    Returns:
        uint8 [height, width, 3] RGB.
    """
    tiles = [
        frame.image
        if images_only
        else np.vstack([frame.image, colourise(frame.labels), depth_image(frame.depth)])
        for frame in frames
    ]
    while len(tiles) % columns:
        tiles.append(np.zeros_like(tiles[0]))
    rows = [np.hstack(tiles[k : k + columns]) for k in range(0, len(tiles), columns)]
    return np.vstack(rows)


def main() -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m gioada_fast.street_scenes")
    parser.add_argument("--sheet", type=Path, required=True, help="image file to write")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--look", choices=list(LOOKS), default="day")
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), default=(180, 240))
    for name, (low, high, unit) in CAMERA_BOUNDS.items():
        parser.add_argument(
            f"--{name}",
            type=float,
            nargs="+",
            metavar=unit.upper(),
            help=f"one number, or lowest and highest, of {low:g} to {high:g}; default: the look's",
        )
    parser.add_argument("--columns", type=int, default=3)
    parser.add_argument("--images-only", action="store_true")
    args = parser.parse_args()
    try:
        if args.columns < 1:
            raise InputError(f"--columns is {args.columns}, must be at least 1")
        if not all(0 <= seed < 2**32 for seed in args.seeds):
            raise InputError("--seeds must be from 0 to 4294967295")
        camera = CameraRanges.read({name: getattr(args, name) for name in CAMERA_BOUNDS}, "--")
        frames = [render(seed, args.look, tuple(args.size), camera) for seed in args.seeds]
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    picture = contact_sheet(frames, args.columns, args.images_only)
    try:
        written = cv2.imwrite(str(args.sheet), picture[..., ::-1])
    except cv2.error:  # it knows no such format
        written = False
    if not written:
        print(f"cannot write {args.sheet}: expected a .png or .jpg", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
