"""PNG."""

import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image

from .pictures import opencv, palette, pillow
from .raster import Header, Raster, Undecodable

GREY, PALETTE, GREY_ALPHA = 0, 3, 4
_CHANNELS = {GREY: 1, 2: 3, PALETTE: 3, GREY_ALPHA: 2, 6: 4}
_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")


class Png(NamedTuple):
    """A PNG whose structure and checksums are valid."""

    height: int
    width: int
    bits: int
    colour_type: int
    ancillary: Mapping[bytes, bytes]
    """Data of the other chunks by name."""
    file: bytes
    """The file without ancillary chunks. They would make OpenCV turn the picture, add alpha and
    print warnings about colour profiles."""

    @property
    def channels(self) -> int:
        return _CHANNELS.get(self.colour_type, 0)

    @property
    def max_value(self) -> int | None:
        """Largest sample by the chunk sBIT."""
        significant = self.ancillary.get(b"sBIT", b"")[: 1 if self.channels < 3 else 3]
        return 2 ** max(significant) - 1 if significant else None


def parse(data: bytes) -> Png:
    """Split a PNG into its chunks."""
    ancillary: dict[bytes, bytes] = {}
    dropped = False
    critical = [data[:8]]
    for name, start, end in _chunks(data):
        if name in _CRITICAL:
            critical.append(data[start - 8 : end + 4])
        else:
            ancillary.setdefault(name, data[start:end])
            dropped = True
    width, height, bits, colour_type = struct.unpack_from(">IIBB", data, 16)
    file = b"".join(critical) if dropped else data
    return Png(height, width, bits, colour_type, ancillary, file)


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, first byte and end of the data of each chunk."""
    place, name, view = 8, b"", memoryview(data)
    while name != b"IEND":
        start = place + 8
        length = int.from_bytes(data[place : place + 4], "big")
        end = start + length
        if end + 4 > len(data):
            raise Undecodable("truncated")
        name = data[place + 4 : start]
        if place == 8 and (name != b"IHDR" or length != 13):
            raise Undecodable("damaged: it does not start with its header")
        checksum = int.from_bytes(data[end : end + 4], "big")
        if name in _CRITICAL and zlib.crc32(view[place + 4 : end]) != checksum:
            raise Undecodable(f"damaged at byte {place}: wrong checksum")
        yield name, start, end
        place = end + 4


def size(data: bytes) -> tuple[int, int]:
    """(H, W) as the header says, without a look at the rest of the file."""
    width, height = struct.unpack_from(">II", data, 16)
    return height, width


def decode(data: bytes) -> Raster:
    png = parse(data)
    if png.colour_type == PALETTE:
        picture = pillow(png.file)
        pixels = np.asarray(picture)
        return Raster("PNG", pixels, png.bits, palette(picture))
    pixels = opencv(png.file)
    if png.colour_type in (GREY, GREY_ALPHA) and pixels.ndim == 3:
        pixels = np.ascontiguousarray(pixels[:, :, 0])
    if png.bits < 8:
        pixels = pixels // (255 // (2**png.bits - 1))
    return Raster("PNG", pixels, png.bits, max_value=png.max_value)


def orientation(data: bytes) -> int:
    """Orientation by the chunk eXIf; 1 without one."""
    exif = Image.Exif()
    exif.load(parse(data).ancillary.get(b"eXIf", b""))
    return exif.get(ExifTags.Base.Orientation, 1)


def header(data: bytes) -> Header:
    png = parse(data)
    return Header(png.height, png.width, png.channels, png.bits)
