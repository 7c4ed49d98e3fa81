"""Flags of the commands that predict: how the task network is applied to images."""

import argparse
import re
from typing import Any

from .engine.windows import Inference
from .errors import InputError

OWN = "own"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add ``--scale``, ``--window``, ``--stride``, ``--tta`` and ``--batch``."""
    parser.add_argument(
        "--scale",
        default="1",
        help="size at which the network sees images, relative to the size that it was trained at; "
        f"{OWN}: images are not scaled",
    )
    parser.add_argument(
        "--window",
        metavar="SIDE|WIDTHxHEIGHT",
        help="pixels of the windows that slide over the scaled images (unset: the network sees "
        "each image whole)",
    )
    parser.add_argument(
        "--stride",
        metavar="PIXELS|XxY",
        help="distance of neighbouring windows, whose logits are averaged where they overlap "
        "(unset: three quarters of the window)",
    )
    parser.add_argument(
        "--tta",
        action="store_true",
        help="average over mirrored images and the scales 0.75, 1 and 1.25",
    )
    parser.add_argument("--batch", type=int, default=1, help="windows that are predicted at once")


def read_flags(options: Any, trained: tuple[int, int]) -> Inference:
    """The settings that the flags give.

    Args:
        options: parsed arguments.
        trained: (H, W) that the network was trained at.

    Raises:
        InputError: a value is invalid, or they do not fit together.
    """
    return Inference(
        trained,
        None if options.scale == OWN else _factor(options.scale),
        pixels("--window", options.window),
        pixels("--stride", options.stride),
        options.tta,
        options.batch,
    )


def _factor(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise InputError(f"--scale is {text}, expected a number above 0, or {OWN}") from error


def pixels(flag: str, text: str | None) -> tuple[int, int] | None:
    """(H, W) from SIDE or WIDTHxHEIGHT; None for None.

    Raises:
        InputError: it is neither.
    """
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,9})(?:x(\d{1,9}))?", text)
    if found is None or 0 in (sides := [int(side) for side in found.groups(found[1])]):
        raise InputError(f"{flag} is {text}, expected pixels above 0, such as 1024 or 1024x512")
    width, height = sides
    return height, width
