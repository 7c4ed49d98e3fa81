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
        flat = samples.astype(np.uint8).reshape(height, -1, 1)
        rows = np.packbits(np.unpackbits(flat, axis=2)[:, :, 8 - bits :].reshape(height, -1), 1)
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
