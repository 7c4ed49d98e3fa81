"""Decodes raster files, one format in each module. A file's content tells its format, never its
suffix.
"""

import codecs
import contextlib
import warnings
from collections.abc import Callable
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import TypeVar

from PIL import Image

from . import arrays, pictures, png
from .raster import MAX_FILE_PIXELS, Header, Raster, Undecodable

__all__ = [
    "Raster", "Undecodable", "content_of", "decode", "guarded", "header", "png", "read_orientation",
]  # fmt: skip

T = TypeVar("T")

_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"BM": "BMP",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"v/1\x01": "EXR",
    b"\x93NUMPY": "npy",
    b"PK\x03\x04": "npz",
    b"PK\x05\x06": "npz",
}
_OTHERS = {
    b"\x1f\x8b": "a gzip archive",
    b"\x28\xb5\x2f\xfd": "a Zstandard archive",
    b"\x89HDF": "HDF5",
    b"%PDF": "a PDF document",
    b"8BPS": "a Photoshop document",
    b"DDS ": "a DDS texture",
    b"#?RADIANCE": "a Radiance HDR image",
    b"\0\0\0\x0cjP": "a JPEG 2000 image",
    b"\xff\x4f\xff\x51": "a JPEG 2000 image",
    b"\0\0\0\x0cJXL": "a JPEG XL image",
    b"\xff\x0a": "a JPEG XL image",
    b"\x80\x02": "a Python pickle, which could run code",
    b"\x80\x03": "a Python pickle, which could run code",
    b"\x80\x04": "a Python pickle, which could run code",
    b"\x80\x05": "a Python pickle, which could run code",
    b"\0\x05\x16\x07": "an AppleDouble file, which macOS adds to archives",
    **{b"P%d\n" % kind: "a PNM image" for kind in range(1, 8)},
    b"PF\n": "a PFM image",
    b"Pf\n": "a PFM image",
}


_PIXELS_PER_BYTE = {"PNG": 8500, "JPEG": 1000}
"""Upper bounds of what a byte of a file can stand for: 1032 bytes of deflated 1-bit pixels (PNG),
or 256 pixels in 6 blocks of at least 1 bit (JPEG)."""
_SMALL = 2**24
"""Pixels that any machine has memory for."""


def content_of(data: bytes) -> str:
    """Name of a file's format.

    Raises:
        Undecodable: it is no raster; the message says what it is.
    """
    for signature, name in _SIGNATURES.items():
        if data.startswith(signature):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    raise Undecodable(_description(data))


def _description(data: bytes) -> str:
    if not data:
        return "the file is empty"
    for signature, description in _OTHERS.items():
        if data.startswith(signature):
            return description
    if data[4:8] == b"ftyp":
        return "an AVIF or HEIC image, or a video"
    start = data[:256].removeprefix(b"\xef\xbb\xbf").strip()
    if not start.strip(b"\0"):
        return "blank"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer: git lfs pull fetches the file itself"
    if start[:1] == b"<" and b"html" in start.lower():
        return "a web page (HTML): did a download need a login?"
    with contextlib.suppress(UnicodeDecodeError):
        # the last character may be cut
        text = codecs.getincrementaldecoder("utf-8")().decode(start)
        if text and all(character.isprintable() or character in "\r\n\t" for character in text):
            return f"text: {text.splitlines()[0][:60]!r}"
    return "no known format"


def decode(data: bytes, names: tuple[str, ...] = ()) -> Raster:
    """Decode a file.

    Args:
        data: the whole file.
        names: which array or channel to read if an npz or EXR file has several, the first choice
            first, in lower case.
    """
    decoders: dict[str, Callable[[bytes], Raster]] = {
        "PNG": png.decode,
        "JPEG": pictures.decode_jpeg,
        "WebP": pictures.decode_webp,
        "BMP": pictures.decode_bmp,
        "GIF": pictures.decode_gif,
        "TIFF": lambda data: _of_rare_format("tiff").decode(data),
        "EXR": lambda data: _of_rare_format("exr").decode(data, names),
        "npy": arrays.decode_npy,
        "npz": partial(arrays.decode_npz, names=names),
    }
    return decoders[content_of(data)](data)


def _of_rare_format(name: str) -> ModuleType:
    """A module that is imported when needed, because its library takes megabytes of memory."""
    return import_module(f".{name}", __name__)


def guarded(decoder: Callable[[bytes], T], data: bytes) -> T:
    """Result of a function of this module.

    Raises:
        Undecodable: the content is no raster, or damaged; the message says what it is.
    """
    content = content_of(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _check_size(content, data)
            return decoder(data)
    except Undecodable as error:
        raise Undecodable(f"{content}, {error}") from error
    except MemoryError as error:
        raise Undecodable(f"{content}, too large for this machine's memory") from error
    except Image.DecompressionBombError as error:
        raise Undecodable(f"{content}, too large, or its header is damaged") from error
    except Exception as error:
        # Libraries raise anything from struct.error to RecursionError on damaged files. Their texts
        # speak of their own source, but for packages that a compression needs.
        reason = f": {error}".splitlines()[0] if "imagecodecs" in str(error) else ""
        raise Undecodable(f"{content}, damaged or truncated{reason}") from error


def _check_size(content: str, data: bytes) -> None:
    """Refuse a picture whose header asks for more memory than its file can fill.

    TIFF, EXR, npy, npz and Pillow have checks of their own.
    """
    if content not in _PIXELS_PER_BYTE:
        return
    height, width = (png if content == "PNG" else pictures).size(data)
    pixels = width * height
    if not pixels:
        raise Undecodable(f"of {width}x{height} pixels, damaged")
    if pixels > MAX_FILE_PIXELS:
        raise Undecodable(f"of {width}x{height} pixels, too large")
    if pixels > max(_SMALL, _PIXELS_PER_BYTE[content] * len(data)):
        raise Undecodable(
            f"truncated: its header says {width}x{height} pixels, too many for {len(data)} bytes"
        )


def header(data: bytes) -> Header:
    """Size, channels and bits of a picture, without decoding its pixels."""
    content = content_of(data)
    if content == "TIFF":
        return _of_rare_format("tiff").header(data)
    return (png.header if content == "PNG" else pictures.header)(data)


def read_orientation(data: bytes) -> int:
    """Orientation of a picture by its EXIF data, 1 (as stored) to 8."""
    content = content_of(data)
    if content not in ("PNG", "TIFF", "JPEG", "WebP"):
        return 1
    if content == "TIFF":
        value = _of_rare_format("tiff").orientation(data)
    else:
        value = (png.orientation if content == "PNG" else pictures.orientation)(data)
    return value if value in range(1, 9) else 1
