"""Images, label maps and depth maps as arrays, from files of every supported format."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import cv2
import numpy as np

from ..errors import InputError
from . import decoders
from .decoders import Raster, Undecodable, png
from .decoders.pictures import opencv
from .tree import read_bytes

T = TypeVar("T")

_PICTURES = ("PNG", "JPEG", "TIFF", "WebP", "BMP", "GIF")
_LABELS = ("PNG", "TIFF", "WebP", "BMP", "GIF", "EXR", "npy", "npz")
_DEPTH = ("PNG", "TIFF", "EXR", "npy", "npz", "WebP", "BMP")
_LABEL_NAMES = ("labels", "label", "semantic", "arr_0")
_DEPTH_NAMES = ("depth", "arr_0")


class ImageFacts(NamedTuple):
    """What an image file contains."""

    height: int
    width: int
    channels: int
    """Including alpha; a palette counts as 3."""
    bits_stored: int
    """Bits per channel in the file."""
    bits_held: int
    """Bits per channel that the values use: the file's own declaration, or the smallest of 8, 10,
    12, 14 and 16 bits that covers the largest value; ``bits_stored`` if that is at most 8 or the
    values are floating point."""
    orientation: int
    """By EXIF, 1 (as stored) to 8."""


def read_image(path: Path, upright: bool = False) -> np.ndarray:
    """Read an image of any supported format as RGB.

    Values of 9 to 16 bits are scaled to 8 by the number of bits that they use, see
    ``ImageFacts.bits_held``; floating point is scaled from 0..1. Alpha is dropped.

    Args:
        path: the file.
        upright: turn the image as its EXIF data says. Otherwise it comes as stored, like its label
            and depth maps.

    Returns:
        uint8 [H, W, 3].

    Raises:
        InputError: there is no such file, or it is no image; the message says what it contains.
    """
    data = read_bytes(path)
    image, _ = _checked(path, data, "image", _PICTURES, _decode_image)
    return _upright(path, data, image) if upright else image


def read_with_facts(path: Path, upright: bool = False) -> tuple[np.ndarray, ImageFacts]:
    """``read_image`` and ``image_facts`` with one decode."""
    data = read_bytes(path)
    image, raster = _checked(path, data, "image", _PICTURES, _decode_image)
    facts = _checked(path, data, "image", _PICTURES, partial(_facts, raster=raster))
    return (_upright(path, data, image) if upright else image), facts


def image_facts(path: Path) -> ImageFacts:
    """What an image file contains. Decodes pixels only for more than 8 bits."""
    return _checked(path, read_bytes(path), "image", _PICTURES, _facts)


def read_labels(path: Path, colours: bool = False) -> np.ndarray:
    """Read a label map as stored.

    Args:
        path: the file.
        colours: return a palette's colours instead of its indices.

    Returns:
        Integers [H, W], or R, G, B [H, W, 3] of 8 or 16 bits if the file has colours. Floating
        point must be whole numbers.

    Raises:
        InputError: there is no such file, or it is no label map; the message says what it contains.
            Lossy compression is refused, because it changes ids where classes meet.
    """
    raster = _decoded(path, "label map", _LABELS, _LABEL_NAMES)
    if raster.lossy:
        raise InputError(
            f"{path}: label map with lossy compression ({raster.lossy}), which changes ids where "
            "classes meet: save label maps as PNG"
        )
    if colours and raster.palette is not None:
        return _coloured(raster)
    pixels = _flat(raster.pixels, path, "label map")
    if pixels.dtype.kind != "f":
        return pixels.astype(np.uint8) if pixels.dtype == bool else pixels
    with np.errstate(invalid="ignore"):
        pixels = pixels.astype(np.float64)
    whole = np.isfinite(pixels) & (np.abs(pixels) < 2**53)
    ids = np.where(whole, pixels, 0).astype(np.int64)
    fractions = ~whole | (ids != pixels)
    if fractions.any():
        raise InputError(
            f"{path}: label map has the value {pixels[fractions][0]}, expected whole numbers"
        )
    return ids


def read_values(path: Path) -> np.ndarray:
    """Read a depth map as stored.

    Returns:
        Integers or floating point, [H, W], or R, G, B [H, W, 3] if the file has colours.

    Raises:
        InputError: there is no such file, or it is no depth map; the message says what it contains.
            Lossy compression is refused.
    """
    raster = _decoded(path, "depth map", _DEPTH, _DEPTH_NAMES)
    if raster.lossy:
        raise InputError(
            f"{path}: depth map with lossy compression ({raster.lossy}), which changes depth where "
            "objects meet: save depth maps as 16-bit PNG, TIFF, EXR or npy"
        )
    pixels = raster.pixels if raster.palette is None else _coloured(raster)
    pixels = _flat(pixels, path, "depth map")
    if pixels.dtype == bool:
        raise InputError(f"{path}: depth map has no numbers but true and false")
    return pixels


def _decoded(path: Path, kind: str, formats: tuple[str, ...], names: tuple[str, ...]) -> Raster:
    return _checked(path, read_bytes(path), kind, formats, partial(decoders.decode, names=names))


def _checked(
    path: Path, data: bytes, kind: str, formats: tuple[str, ...], decode: Callable[[bytes], T]
) -> T:
    """Result of a decoder, whose errors become errors of the file."""
    content, unreadable = "", f"{path}: not a readable image ({len(data)} bytes)"
    try:
        content = decoders.content_of(data)
        if content in formats:
            return decoders.guarded(decode, data)
    except Undecodable as error:
        if content:
            raise InputError(f"{unreadable}: {error}") from error
        raise InputError(f"{unreadable}: {error}; expected {', '.join(formats)}") from error
    if content == "JPEG":
        raise InputError(
            f"{path}: {kind} is a JPEG, which is lossy: it changes values where objects meet; save "
            f"it as {', '.join(formats[:2])} or another of {', '.join(formats[2:])}"
        )
    raise InputError(f"{path}: {kind} is {content}, expected one of {', '.join(formats)}")


def _decode_image(data: bytes) -> tuple[np.ndarray, Raster | None]:
    """RGB uint8 [H, W, 3], and the raster that it was made from, if any."""
    content = decoders.content_of(data)
    if content in ("JPEG", "WebP"):
        return opencv(data, cv2.IMREAD_COLOR), None
    if content == "PNG":
        parsed = png.parse(data)
        if parsed.bits <= 8:
            return opencv(parsed.file, cv2.IMREAD_COLOR), None
    raster = decoders.decode(data)
    return _rgb(raster), raster


def _rgb(raster: Raster) -> np.ndarray:
    pixels, held = raster.pixels, _bits_held(raster)
    if raster.palette is not None:
        return _coloured(raster)
    if pixels.dtype.kind == "f":
        low, high = float(np.nanmin(pixels, initial=0)), float(np.nanmax(pixels, initial=0))
        if low < -0.001 or high > 1.001:
            raise Undecodable(f"floating point from {low:g} to {high:g}, expected 0 to 1")
        pixels = np.rint(np.nan_to_num(pixels).clip(0, 1) * 255).astype(np.uint8)
    elif pixels.dtype.kind != "u" or pixels.dtype.itemsize > 2:
        raise Undecodable(f"{pixels.dtype} values: expected 8 or 16 bits without sign, or floats")
    elif pixels.dtype != np.uint8 or held != 8:
        values = np.arange(2 ** (8 * pixels.itemsize)) * (255 / (2**held - 1))
        pixels = np.rint(values).clip(0, 255).astype(np.uint8)[pixels]
    if raster.white_is_zero:
        pixels = 255 - pixels
    return pixels if pixels.ndim == 3 else np.dstack([pixels] * 3)


def _bits_held(raster: Raster) -> int:
    """See ``ImageFacts.bits_held``."""
    if raster.pixels.dtype.kind == "f" or raster.bits < 16:
        return raster.bits
    largest = int(raster.pixels.max(initial=0))
    if raster.max_value and largest <= raster.max_value:
        return min(raster.max_value.bit_length(), raster.bits)
    return next((bits for bits in (8, 10, 12, 14) if largest < 2**bits), raster.bits)


def _coloured(raster: Raster) -> np.ndarray:
    assert raster.palette is not None
    colours = np.zeros((2 ** (8 * raster.pixels.itemsize), 3), np.uint8)
    colours[: len(raster.palette)] = raster.palette
    return colours[raster.pixels]


def _flat(pixels: np.ndarray, path: Path, kind: str) -> np.ndarray:
    """[H, W], or [H, W, 3] of 8 or 16 bits."""
    shape = pixels.shape
    if pixels.ndim == 3 and 1 in (shape[0], shape[2]):
        pixels = pixels[0] if shape[0] == 1 else pixels[:, :, 0]
    colours = pixels.ndim == 3 and shape[2] == 3
    if (pixels.ndim != 2 and not colours) or not pixels.size:
        raise InputError(
            f"{path}: {kind} is an array {list(shape)}, expected [H, W], [1, H, W] or [H, W, 1]"
        )
    return np.ascontiguousarray(pixels)


def _facts(data: bytes, raster: Raster | None = None) -> ImageFacts:
    height, width, channels, bits = decoders.header(data)
    held = bits
    if bits > 8:
        held = _bits_held(raster or decoders.decode(data))
    return ImageFacts(height, width, channels, bits, held, decoders.read_orientation(data))


def _upright(path: Path, data: bytes, image: np.ndarray) -> np.ndarray:
    orientation = _checked(path, data, "image", _PICTURES, decoders.read_orientation)
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)
