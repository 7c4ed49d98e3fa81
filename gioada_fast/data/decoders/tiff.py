"""TIFF."""

import io
import itertools
import logging
import math
import struct

import numpy as np
import tifffile
from PIL import Image

from .pictures import opencv, pillow
from .raster import MAX_PIXELS, Header, Raster, Undecodable

# Damaged files become errors of this package, which tifffile need not print as well.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_ORIENTATION, _MAX_SAMPLE_VALUE = 274, 281
_MAX_PAGES = 16
_LOSSY = {6: "JPEG", 7: "JPEG", 33003: "JPEG 2000", 34712: "JPEG 2000", 50001: "WebP"}


def decode(data: bytes) -> Raster:
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        # the chain of pictures never ends in some damaged files
        others = itertools.islice(file.pages, 1, _MAX_PAGES)
        if any(other.shape == page.shape for other in others):
            raise Undecodable("with several pictures of the same size: save one to each file")
        if page.photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR):
            raise Undecodable(
                f"with colours of the kind {page.photometric!s}: save it as RGB or grey"
            )
        _check_size(page)
        pixels = _pixels(page, data)
        declared = page.tags.get(_MAX_SAMPLE_VALUE)
    return Raster(
        "TIFF",
        pixels,
        page.bitspersample,
        _palette(page) if page.photometric == _PALETTE else None,
        _LOSSY.get(page.compression),
        page.photometric == _WHITE_IS_ZERO and page.bitspersample > 1,
        None if declared is None else int(np.max(declared.value)),
    )


def _check_size(page: tifffile.TiffPage) -> None:
    """Refuse a size for which the file has too few strips or tiles: tifffile would fill them in."""
    if page.imagedepth != 1:
        raise Undecodable(f"a volume of {page.imagedepth} pictures")
    if page.imagelength * page.imagewidth > MAX_PIXELS:
        raise Undecodable(f"of {page.imagewidth}x{page.imagelength} pixels, too large")
    segments = min(len(page.dataoffsets), len(page.databytecounts))
    if math.prod(page.chunked) > segments:
        raise Undecodable(f"truncated: {segments} of {math.prod(page.chunked)} strips or tiles")


def _pixels(page: tifffile.TiffPage, data: bytes) -> np.ndarray:
    """[H, W] as stored (1 bit: 1 is white), or RGB [H, W, 3] for colours of all kinds."""
    if page.photometric == _YCBCR:
        return _by_other_libraries(page, data)
    try:
        pixels = page.asarray(squeeze=False, maxworkers=1)
    except (ValueError, ImportError, NotImplementedError) as error:
        # without the package imagecodecs, tifffile knows few compressions and packings
        if not isinstance(error, ValueError) or "imagecodecs" in str(error):
            return _by_other_libraries(page, data)
        raise
    planes, _, height, width, samples = pixels.shape
    pixels = np.moveaxis(pixels[:, 0], 0, 2).reshape(height, width, planes * samples)
    if page.photometric == _CMYK:
        if pixels.dtype != np.uint8:
            raise Undecodable(f"with {page.bitspersample}-bit CMYK colours: save it as RGB")
        return np.asarray(Image.fromarray(pixels[:, :, :4], "CMYK").convert("RGB"))
    if _is_rgb(page):
        return np.ascontiguousarray(pixels[:, :, :3])
    grey = np.ascontiguousarray(pixels[:, :, 0])
    if grey.dtype == bool:
        return (grey ^ (page.photometric == _WHITE_IS_ZERO)).astype(np.uint8)
    return grey


def _is_rgb(page: tifffile.TiffPage) -> bool:
    """Some programs write colours as grey with three samples."""
    return page.photometric == _RGB or (page.photometric != _PALETTE and page.samplesperpixel >= 3)


def _by_other_libraries(page: tifffile.TiffPage, data: bytes) -> np.ndarray:
    """The same with Pillow; with OpenCV where Pillow reduces colours to 8 bits or knows no way."""
    data = _unturned(page, data)
    bits = page.bitspersample
    if (bits > 8 and page.samplesperpixel > 1) or 8 < bits < 16 or bits > 32:
        pixels = opencv(data)
        if 8 < bits < 16:
            pixels = pixels >> (16 - bits)
        return pixels if _is_rgb(page) or pixels.ndim == 2 else pixels[:, :, 0].copy()
    picture = pillow(data)
    if page.photometric in (_YCBCR, _CMYK) or _is_rgb(page):
        return np.asarray(picture.convert("RGB"))
    pixels = np.asarray(picture)
    if bits == 1:
        return pixels.astype(np.uint8)
    pixels = pixels.astype(pixels.dtype.newbyteorder("="))
    if page.dtype is not None and pixels.itemsize == page.dtype.itemsize:
        pixels = pixels.view(page.dtype)  # Pillow knows no int8 and no uint32
    pixels = pixels if pixels.ndim == 2 else pixels[:, :, 0].copy()
    if bits <= 8 and page.photometric != _PALETTE:
        last = 2**bits - 1
        pixels = pixels // (255 // last)
        if page.photometric == _WHITE_IS_ZERO:
            pixels = np.uint8(last) - pixels
    return pixels


def _unturned(page: tifffile.TiffPage, data: bytes) -> bytes:
    """The file with orientation 1, because Pillow and OpenCV turn pictures."""
    tag = page.tags.get(_ORIENTATION)
    if tag is None or tag.value == 1:
        return data
    place = tag.valueoffset
    value = struct.pack(page.parent.byteorder + "H", 1)
    return data[:place] + value + data[place + 2 :]


def _palette(page: tifffile.TiffPage) -> np.ndarray:
    colours = np.asarray(page.colormap).T
    # 16 bits by the standard, but some programs write 8
    return (colours >> 8 if colours.max() > 255 else colours).astype(np.uint8)


def orientation(data: bytes) -> int:
    """Value of the tag Orientation."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        tag = file.pages.first.tags.get(_ORIENTATION)
        return 1 if tag is None else int(tag.value)


def header(data: bytes) -> Header:
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        channels = 3 if page.photometric == _PALETTE else page.samplesperpixel
        return Header(page.imagelength, page.imagewidth, channels, page.bitspersample)
