"""JPEG, WebP, BMP and GIF, and the two libraries that decode pictures."""

import io
import struct

import cv2
import numpy as np
from PIL import ExifTags, Image

from .raster import Header, Raster, Undecodable

# The loader's processes already run in parallel.
cv2.setNumThreads(0)
# Damaged files become errors of this package, which OpenCV need not print as well.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def opencv(data: bytes, flags: int = cv2.IMREAD_UNCHANGED) -> np.ndarray:
    """Decode with OpenCV, as stored: colours are R, G, B, without alpha."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise Undecodable("damaged or truncated")
    if pixels.ndim == 2:
        return pixels
    code = cv2.COLOR_BGR2RGB if pixels.shape[2] == 3 else cv2.COLOR_BGRA2RGB
    return cv2.cvtColor(pixels, code)


def pillow(data: bytes) -> Image.Image:
    """Decode the first picture with Pillow."""
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


def palette(picture: Image.Image) -> np.ndarray:
    """Colours uint8 [N, 3] of a picture of mode P."""
    return np.array(picture.getpalette("RGB") or (), np.uint8).reshape(-1, 3)


def decode_jpeg(data: bytes) -> Raster:
    pixels = opencv(data, cv2.IMREAD_COLOR)
    return Raster("JPEG", pixels, 8, 3, lossy="JPEG")


def decode_webp(data: bytes) -> Raster:
    pixels = opencv(data, cv2.IMREAD_COLOR)
    return Raster("WebP", pixels, 8, 3, lossy="WebP without 'lossless'" if _lossy(data) else None)


def _lossy(data: bytes) -> bool:
    """Whether a WebP has lossy pixels, chunk 'VP8 ', rather than 'VP8L'."""
    place = 12
    while place + 8 <= len(data):
        name = data[place : place + 4]
        (length,) = struct.unpack_from("<I", data, place + 4)
        if name in (b"VP8 ", b"VP8L"):
            return name == b"VP8 "
        # the chunks of an animation's first frame follow its header of 16 bytes
        place += 8 + (16 if name == b"ANMF" else length + length % 2)
    return True


def decode_indexed(data: bytes) -> Raster:
    """BMP and GIF, whose pixels may be indices."""
    picture = pillow(data)
    content = picture.format or ""
    if picture.mode == "P":
        return Raster(content, np.asarray(picture), 8, 3, palette(picture))
    if picture.mode == "1":
        return Raster(content, np.asarray(picture, np.uint8), 1, 1)
    if picture.mode == "L":
        return Raster(content, np.asarray(picture), 8, 1)
    return Raster(content, np.asarray(picture.convert("RGB")), 8, len(picture.getbands()))


def orientation(data: bytes) -> int:
    """Orientation by the EXIF or XMP data of a JPEG or WebP; 1 without any."""
    return Image.open(io.BytesIO(data)).getexif().get(ExifTags.Base.Orientation, 1)


def header(data: bytes) -> Header:
    picture = Image.open(io.BytesIO(data))
    width, height = picture.size
    channels = 3 if picture.mode == "P" else len(picture.getbands())
    return Header(height, width, channels, 1 if picture.mode == "1" else 8)
