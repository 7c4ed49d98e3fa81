"""Raster files in memory, written by other libraries or byte by byte, never by the package."""

import io
import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
import OpenEXR
import tifffile
from PIL import Image

# colour types of PNG
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6


def pil(pixels, kind: str, mode: str | None = None, **options) -> bytes:
    """An array, or a picture of Pillow, in one of Pillow's formats."""
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = io.BytesIO()
    (picture if mode is None else picture.convert(mode)).save(file, kind, **options)
    return file.getvalue()


def png(samples, bits: int, colour_type: int, **chunks: bytes) -> bytes:
    """A PNG of any depth from samples [H, W] or [H, W, C]; PLTE, sBIT, eXIf ... by name."""
    height, width = samples.shape[:2]
    if bits == 16:
        rows = samples.astype(">u2").reshape(height, -1).view(np.uint8)
    else:
        rows = _packed(samples.reshape(height, -1), bits)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    parts = {"IHDR": header, **chunks, "IDAT": zlib.compress(lines), "IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data))
        + name.encode()
        + data
        + struct.pack(">I", zlib.crc32(name.encode() + data))
        for name, data in parts.items()
    )


def tiff(*pages, **options) -> bytes:
    file = io.BytesIO()
    with tifffile.TiffWriter(file, bigtiff=options.pop("bigtiff", False)) as writer:
        for page in pages:
            writer.write(page, **{"metadata": None, **options})
    return file.getvalue()


def exr(channels, windows=None, **header) -> bytes:
    """An EXR file; ``windows`` are those of the data and of the display, each (min, max)."""
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage, **header}
    if windows is not None:
        for name, corners in zip(("dataWindow", "displayWindow"), windows, strict=True):
            header[name] = tuple(np.array(corner, np.int32) for corner in corners)
    return _exr(OpenEXR.File(header, channels))


def exr_parts(**parts) -> bytes:
    """An EXR file of several parts, each with its channels."""
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    return _exr(
        OpenEXR.File([OpenEXR.Part(dict(header), part, name) for name, part in parts.items()])
    )


def _exr(file: OpenEXR.File) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.exr"
        file.write(str(path))
        return path.read_bytes()


def npy(array, **options) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def npz(**arrays) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def exif(orientation: int, byteorder: str = ">") -> bytes:
    """EXIF data with an orientation alone."""
    start = b"MM\0*" if byteorder == ">" else b"II*\0"
    entry = struct.pack(f"{byteorder}IHHHIHHI", 8, 1, 274, 3, 1, orientation, 0, 0)
    return start + entry


def bmp(indices, bits: int, colours, top_down: bool = False) -> bytes:
    """A BMP of 1, 4 or 8 bits with a palette [N, 3]."""
    height, width = indices.shape
    lines = np.zeros((height, (width * bits + 31) // 32 * 4), np.uint8)
    packed = _packed(indices, bits)
    lines[:, : packed.shape[1]] = packed
    table = b"".join(bytes([b, g, r, 0]) for r, g, b in np.asarray(colours).tolist())
    start = 54 + len(table)
    header = struct.pack("<IiiHHIIiiII", 40, width, -height if top_down else height, 1, bits, 0, 0,
                         0, 0, len(table) // 4, 0)  # fmt: skip
    pixels = (lines if top_down else lines[::-1]).tobytes()
    return struct.pack("<2sIII", b"BM", start + len(pixels), 0, start) + header + table + pixels


def tiff_of_bits(samples, bits: int, photometric: int = 1, colours=None) -> bytes:
    """A TIFF of one sample of 1 to 14 bits, packed; with the palette [2^bits, 3] ``colours``."""
    height, width = samples.shape
    pixels = _packed(samples, bits).tobytes()
    table = b"" if colours is None else (np.asarray(colours, "<u2").T * 257).tobytes()
    tags = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, photometric),
            (273, 4, 8 + len(table)), (277, 3, 1), (278, 4, height),
            (279, 4, len(pixels))]  # fmt: skip
    entries = [struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags]
    if table:
        entries.append(struct.pack("<HHII", 320, 3, len(table) // 2, 8))
    start = 8 + len(table) + len(pixels)
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return struct.pack("<2sHI", b"II", 42, start) + table + pixels + directory


def _packed(samples, bits: int) -> np.ndarray:
    """uint8 [H, bytes] of samples of any number of bits; each row starts with a byte of its own."""
    big = np.asarray(samples, ">u2")[..., None].view(np.uint8)
    return np.packbits(np.unpackbits(big, axis=2)[:, :, 16 - bits :].reshape(len(samples), -1), 1)
