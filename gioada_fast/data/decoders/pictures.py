"""JPEG, WebP, BMP and GIF, and the two libraries that decode pictures."""

import io
import struct

import cv2
import numpy as np
from PIL import ExifTags, Image

from ..opencv_log import silence_opencv
from .raster import Header, Raster, Undecodable

# The loader's processes already run in parallel.
cv2.setNumThreads(0)
silence_opencv()


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
    return Raster("JPEG", pixels, 8, lossy="JPEG")


def size(data: bytes) -> tuple[int, int]:
    """(H, W) as the first frame header of a JPEG says, whatever Pillow thinks of the size."""
    place = 2
    while place + 9 <= len(data):
        marker = data[place + 1]
        if data[place] != 0xFF or marker == 0xFF:  # bytes between segments
            place += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, place + 5)
            return height, width
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # without a length
            place += 2
        else:
            place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    raise Undecodable("truncated")


def decode_webp(data: bytes) -> Raster:
    pixels = opencv(data, cv2.IMREAD_COLOR)
    return Raster("WebP", pixels, 8, lossy="WebP without 'lossless'" if _lossy(data) else None)


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


def decode_gif(data: bytes) -> Raster:
    """The first picture of a GIF; its pixels are indices."""
    picture = pillow(data)
    if picture.mode == "P":
        return Raster("GIF", np.asarray(picture), 8, palette(picture))
    return Raster("GIF", np.asarray(picture if picture.mode == "L" else picture.convert("RGB")), 8)


def decode_bmp(data: bytes) -> Raster:
    """A BMP; up to 8 bits are always indices of a palette."""
    (start,) = struct.unpack_from("<I", data, 10)
    header, width, height, _, bits, compression = struct.unpack_from("<IiiHHI", data, 14)
    if header < 40 or bits > 8 or compression:
        picture = pillow(data)
        if picture.mode == "P":
            return Raster("BMP", np.asarray(picture), 8, palette(picture))
        return Raster("BMP", np.asarray(picture.convert("RGB")), 8)
    # Pillow takes indices of black and white, or of 16 grey levels, for something else
    rows, stride = abs(height), (width * bits + 31) // 32 * 4
    if min(rows, width) < 1 or start + rows * stride > len(data):
        raise Undecodable("truncated")
    lines = np.frombuffer(data, np.uint8, rows * stride, start).reshape(rows, stride)
    lines = lines if height < 0 else lines[::-1]
    parts = np.unpackbits(lines, axis=1).reshape(rows, -1, bits)[:, :width]
    pixels = np.packbits(parts, axis=2)[:, :, 0] >> (8 - bits)
    colours = np.frombuffer(data, np.uint8, (start - 14 - header) // 4 * 4, 14 + header)
    return Raster("BMP", pixels, bits, colours.reshape(-1, 4)[:, 2::-1])


def orientation(data: bytes) -> int:
    """Orientation by the EXIF or XMP data of a JPEG or WebP; 1 without any."""
    return Image.open(io.BytesIO(data)).getexif().get(ExifTags.Base.Orientation, 1)


def header(data: bytes) -> Header:
    picture = Image.open(io.BytesIO(data))
    width, height = picture.size
    channels = 3 if picture.mode == "P" else len(picture.getbands())
    return Header(height, width, channels, 1 if picture.mode == "1" else 8)
