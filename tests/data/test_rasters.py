"""Images of every format, written by other libraries, and files that are no images."""

import io
import os
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from gioada_fast.data.rasters import ImageFacts, image_facts, read_image, read_with_facts
from gioada_fast.errors import InputError

from .raster_files import (
    GREY,
    GREY_ALPHA,
    RGB,
    RGBA,
    bmp,
    exif,
    exr,
    npy,
    npz,
    pil,
    png,
    tiff,
    tiff_of_bits,
)

H, W = 12, 20
_RNG = np.random.default_rng(0)
COLOURS = _RNG.integers(0, 256, (H, W, 3), np.uint8)
LEVELS = _RNG.integers(0, 256, (H, W), np.uint8)
WITH_ALPHA = np.dstack([COLOURS, LEVELS])
BITS = LEVELS > 127
DEEP = _RNG.integers(0, 2**16, (H, W, 3)).astype(np.uint16)
DEEP[0, 0] = 65535
UNIT = (COLOURS / 255).astype(np.float32)
INDEXED = Image.fromarray(COLOURS).quantize(100)


def rgb(grey) -> np.ndarray:
    return np.dstack([np.asarray(grey, np.uint8)] * 3)


def scaled(values, bits: int) -> np.ndarray:
    return np.rint(values * (255 / (2**bits - 1))).astype(np.uint8)


def as_pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


TABLE = _RNG.integers(0, 256, (256, 3), np.uint8)
INDEXED_RGB = np.asarray(INDEXED.convert("RGB"))
TRANSPARENT = pil(INDEXED, "PNG", transparency=bytes(range(100)))
JPEG, GREY_JPEG = pil(COLOURS, "JPEG"), pil(LEVELS, "JPEG")
PROGRESSIVE = pil(COLOURS, "JPEG", progressive=True)
CMYK_JPEG = pil(COLOURS, "JPEG", "CMYK")
WEBP = pil(COLOURS, "WEBP")
TIFF_JPEG = pil(COLOURS, "TIFF", compression="jpeg")
WHITE_IS_ZERO = pil(LEVELS, "TIFF", compression="tiff_lzw").replace(
    b"\x06\x01\x03\0\1\0\0\0\1", b"\x06\x01\x03\0\1\0\0\0\0"
)
CMYK_TIFF = pil(COLOURS, "TIFF", "CMYK")
YCBCR_TIFF = pil(COLOURS, "TIFF", "YCbCr")

# name, file, pixels, channels, bits stored, bits held
IMAGES = [
    ("png", pil(COLOURS, "PNG"), COLOURS, 3, 8, 8),
    ("png grey", pil(LEVELS, "PNG"), rgb(LEVELS), 1, 8, 8),
    ("png rgba", pil(WITH_ALPHA, "PNG"), COLOURS, 4, 8, 8),
    ("png grey alpha", png(WITH_ALPHA[..., 2:], 8, GREY_ALPHA), rgb(COLOURS[..., 2]), 2, 8, 8),
    ("png palette", pil(INDEXED, "PNG"), INDEXED_RGB, 3, 8, 8),
    ("png palette alpha", TRANSPARENT, INDEXED_RGB, 3, 8, 8),
    ("png 1 bit", png(BITS, 1, GREY), rgb(BITS * 255), 1, 1, 1),
    ("png 2 bits", png(LEVELS >> 6, 2, GREY), rgb(scaled(LEVELS >> 6, 2)), 1, 2, 2),
    ("png 4 bits", png(LEVELS >> 4, 4, GREY), rgb(scaled(LEVELS >> 4, 4)), 1, 4, 4),
    *(
        (f"png {b} in 16", png(DEEP >> (16 - b), 16, RGB), scaled(DEEP >> (16 - b), b), 3, 16, b)
        for b in (8, 10, 12, 14, 16)
    ),
    ("png 16 rgba", png(np.dstack([DEEP, DEEP[..., :1]]), 16, RGBA), scaled(DEEP, 16), 4, 16, 16),
    ("png 16 grey", png(DEEP[..., 0], 16, GREY), rgb(scaled(DEEP[..., 0], 16)), 1, 16, 16),
    ("png dark", png(DEEP >> 8, 16, RGB, sBIT=b"\x0c\x0c\x0c"), scaled(DEEP >> 8, 12), 3, 16, 12),
    ("png dark rgba", png(np.dstack([DEEP >> 8, DEEP[..., :1]]), 16, RGBA,
     sBIT=b"\x0c\x0c\x0c\x10"), scaled(DEEP >> 8, 12), 4, 16, 12),
    ("png sBIT", png(DEEP & 0xFFF0, 16, RGB, sBIT=b"\x0c" * 3), scaled(DEEP & 0xFFF0, 16), 3, 16,
     16),
    ("jpeg", JPEG, as_pillow(JPEG), 3, 8, 8),
    ("jpeg grey", GREY_JPEG, as_pillow(GREY_JPEG), 1, 8, 8),
    ("jpeg progressive", PROGRESSIVE, as_pillow(PROGRESSIVE), 3, 8, 8),
    ("webp", WEBP, as_pillow(WEBP), 3, 8, 8),
    ("webp lossless", pil(WITH_ALPHA, "WEBP", lossless=True, exact=True), COLOURS, 4, 8, 8),
    ("bmp", pil(COLOURS, "BMP"), COLOURS, 3, 8, 8),
    ("bmp grey", pil(LEVELS, "BMP"), rgb(LEVELS), 1, 8, 8),
    ("bmp palette", pil(INDEXED, "BMP"), INDEXED_RGB, 3, 8, 8),
    ("bmp 4 bits", bmp(LEVELS >> 4, 4, TABLE[:16]), TABLE[LEVELS >> 4], 3, 8, 8),
    ("bmp 1 bit", pil(BITS, "BMP"), rgb(BITS * 255), 1, 1, 1),
    ("gif", pil(INDEXED, "GIF"), INDEXED_RGB, 3, 8, 8),
    *(
        (f"tiff {name} {how}", pil(pixels, "TIFF", compression=how), expected, *facts)
        for name, pixels, expected, *facts in (
            ("rgb", COLOURS, COLOURS, 3, 8, 8),
            ("grey", LEVELS, rgb(LEVELS), 1, 8, 8),
            ("rgba", WITH_ALPHA, COLOURS, 4, 8, 8),
            ("palette", INDEXED, INDEXED_RGB, 3, 8, 8),
            ("1 bit", BITS, rgb(BITS * 255), 1, 1, 1),
            ("16 bits", DEEP[..., 0], rgb(scaled(DEEP[..., 0], 16)), 1, 16, 16),
            ("float", UNIT[..., 0].copy(), rgb(COLOURS[..., 0]), 1, 32, 32),
        )
        for how in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "lzma", "zstd")
    ),
    *(
        (f"tiff {name}", pil(BITS, "TIFF", compression=name), rgb(BITS * 255), 1, 1, 1)
        for name in ("group3", "group4", "tiff_ccitt")
    ),
    ("tiff jpeg", TIFF_JPEG, as_pillow(TIFF_JPEG), 3, 8, 8),
    ("tiff cmyk", CMYK_TIFF, as_pillow(CMYK_TIFF), 4, 8, 8),
    ("tiff ycbcr", YCBCR_TIFF, as_pillow(YCBCR_TIFF), 3, 8, 8),
    ("tiff predictor", pil(COLOURS, "TIFF", compression="tiff_lzw", tiffinfo={317: 2}), COLOURS, 3,
     8, 8),
    ("tiff 16 lzw", cv2.imencode(".tiff", DEEP[..., ::-1])[1].tobytes(), scaled(DEEP, 16), 3, 16,
     16),
    ("tiff planar", tiff(np.moveaxis(COLOURS, 2, 0), photometric="rgb", planarconfig="separate"),
     COLOURS, 3, 8, 8),
    ("tiff tiled", tiff(COLOURS, photometric="rgb", tile=(16, 16)), COLOURS, 3, 8, 8),
    ("tiff zlib", tiff(COLOURS, photometric="rgb", compression="zlib", predictor=True), COLOURS, 3,
     8, 8),
    ("bigtiff", tiff(DEEP, photometric="rgb", bigtiff=True), scaled(DEEP, 16), 3, 16, 16),
    ("tiff 12 in 16", tiff(DEEP >> 4, photometric="rgb"), scaled(DEEP >> 4, 12), 3, 16, 12),
    ("tiff MaxSampleValue", tiff(DEEP >> 7, photometric="rgb",
     extratags=[(281, 3, 3, (4095,) * 3, True)]), scaled(DEEP >> 7, 12), 3, 16, 12),
    ("tiff white is 0", tiff(LEVELS, photometric="miniswhite"), rgb(255 - LEVELS), 1, 8, 8),
    ("tiff lzw, white is 0", WHITE_IS_ZERO, rgb(255 - LEVELS), 1, 8, 8),
    ("tiff 1 bit, white is 0", tiff(BITS, photometric="miniswhite"), rgb(~BITS * 255), 1, 1, 1),
    ("tiff float16", tiff(UNIT.astype(np.float16), photometric="rgb"), COLOURS, 3, 16, 16),
    ("tiff float64", tiff(COLOURS / 255, photometric="rgb"), COLOURS, 3, 64, 64),
    ("tiff three grey samples", tiff(UNIT, photometric="minisblack", planarconfig="contig"),
     COLOURS, 3, 32, 32),
    *(
        (f"tiff {b} bits", tiff_of_bits(DEEP[..., 0] >> (16 - b), b),
         rgb(scaled(DEEP[..., 0] >> (16 - b), b)), 1, b, b)
        for b in (1, 2, 4, 8, 10, 12, 14)
    ),
    ("tiff 4 bits palette", tiff_of_bits(LEVELS >> 4, 4, 3, TABLE[:16]), TABLE[LEVELS >> 4], 3, 4,
     4),
    ("tiff thumbnail", tiff(COLOURS, COLOURS[::2, ::2], photometric="rgb"), COLOURS, 3, 8, 8),
]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "pixels", "facts"), [(d, p, f) for _, d, p, *f in IMAGES], ids=[i[0] for i in IMAGES]
)
def test_an_image(tmp_path, data, pixels, facts):
    path = tmp_path / "image.jpg"  # the suffix does not matter
    path.write_bytes(data)
    image = read_image(path)
    assert image.dtype == np.uint8 and image.shape == (H, W, 3)
    if pixels is not None:
        np.testing.assert_array_equal(image, pixels)
    assert image_facts(path) == ImageFacts(H, W, *facts, 1)
    again, facts = read_with_facts(path)
    assert facts == image_facts(path) and np.array_equal(again, image)


def test_cmyk_jpegs_have_about_the_colours_of_pillow(tmp_path):
    (tmp_path / "image").write_bytes(CMYK_JPEG)
    difference = read_image(tmp_path / "image").astype(int) - as_pillow(CMYK_JPEG)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "TIFF LZW"])
def test_orientation_is_applied_on_request_alone(tmp_path, kind, orientation):
    path, data = tmp_path / "image", exif(orientation, "<" if orientation % 2 else ">")
    options = {
        "JPEG": {"exif": b"Exif\0\0" + data},
        "PNG": {"exif": data},
        "WEBP": {"exif": data, "lossless": True},
        "TIFF": {"tiffinfo": {274: orientation}},
        "TIFF LZW": {"tiffinfo": {274: orientation}, "compression": "tiff_lzw"},
    }[kind]
    path.write_bytes(pil(COLOURS, kind.split()[0], **options))
    stored = read_image(path)
    assert stored.shape == (H, W, 3)
    if kind != "JPEG":
        np.testing.assert_array_equal(stored, COLOURS)
    picture = Image.fromarray(stored)
    picture.getexif()[274] = orientation
    np.testing.assert_array_equal(
        read_image(path, upright=True), np.asarray(ImageOps.exif_transpose(picture))
    )
    assert image_facts(path).orientation == orientation


ENDLESS = tiff_of_bits(LEVELS, 8)
ENDLESS = ENDLESS[:-4] + ENDLESS[4:8]  # the first picture is followed by itself
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
OTHERS = [
    (b"", r"\(0 bytes\): the file is empty"),
    (b"\0" * 99, "blank"),
    (b"<!DOCTYPE html>\n<html><body>Log in</body></html>", "a web page"),
    (LFS, "Git LFS pointer: git lfs pull"),
    (b"one line\nand another", "text: 'one line'"),
    ("größer ".encode() * 99, "text: 'größer"),
    (zlib.compress(bytes(999)), "no known format"),
    (b"\0\0\0 ftypheic" + bytes(99), "HEIC"),
    (b"P6\n2 2\n255\n" + bytes(12), "PNM"),
    (exr({"R": UNIT[..., 0].copy()}), "image is EXR, expected one of PNG, JPEG"),
    (npy(LEVELS), "image is npy"),
    (npz(a=LEVELS), "image is npz"),
    (pil(COLOURS, "PNG")[:200], "PNG, truncated"),
    (pil(COLOURS, "PNG")[:-1], "PNG, truncated"),
    (pil(COLOURS, "PNG").replace(b"IDAT", b"IDAU"), "PNG"),
    (JPEG[:-30], "JPEG, .*truncated"),
    (PROGRESSIVE[:-30], "JPEG, .*truncated"),
    (WEBP[:-30], "WebP, .*truncated"),
    (pil(COLOURS, "TIFF")[:-300], "TIFF"),
    (pil(COLOURS, "BMP")[:-30], "BMP, .*truncated"),
    (pil(INDEXED, "GIF")[:-30], "GIF, .*truncated"),
    (tiff(COLOURS, COLOURS, photometric="rgb"), "TIFF, with several pictures of the same size"),
    (ENDLESS, "TIFF, with several pictures"),
    (tiff(255 * UNIT, photometric="rgb"), "floating point from 0 to 255, expected 0 to 1"),
    (tiff(LEVELS.astype(np.int32)), "int32 values"),
    (tiff(DEEP.astype(np.int16), photometric="rgb"), "int16 values"),
]


@pytest.mark.parametrize(("data", "words"), OTHERS)
def test_what_is_no_image_is_described(tmp_path, data, words):
    path = tmp_path / "image.png"
    path.write_bytes(data)
    with pytest.raises(InputError, match=rf"image\.png: .*{words}"):
        read_image(path)


def test_large_images_are_read(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(pil(np.zeros((6000, 8000), np.uint8), "TIFF", compression="tiff_lzw"))
    assert read_image(path).shape == (6000, 8000, 3)


def test_warnings_of_decoders_are_not_shown(tmp_path, capfd, recwarn):
    path = tmp_path / "image"
    for data in (
        pil(COLOURS, "PNG", icc_profile=b"no profile" * 20),
        pil(INDEXED, "PNG", transparency=b"\0\1"),
        pil(COLOURS, "TIFF", tiffinfo={65000: "private"}),
    ):
        path.write_bytes(data)
        read_image(path), read_image(path, upright=True), image_facts(path)
    for data, _ in OTHERS:
        path.write_bytes(data)
        with pytest.raises(InputError):
            read_image(path)
    assert capfd.readouterr() == ("", "") and not recwarn.list


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """The file cut, or with up to 9 other bytes, or both."""
    content = bytearray(data[: rng.integers(1, len(data))] if rng.random() < 0.4 else data)
    if rng.random() < 0.8:
        # headers are the start of a file, and the end of a TIFF
        near = len(content) if rng.random() < 0.5 else min(len(content), 200)
        for _ in range(rng.integers(1, 10)):
            content[rng.integers(near)] = rng.choice([0, 1, 127, 255, rng.integers(256)])
    return bytes(content)


def assert_survives_damage(read, files, path, tries: int) -> None:
    """Only InputError comes out of damaged files."""
    rng = np.random.default_rng(0)
    for name, data in files:
        for _ in range(tries):
            path.write_bytes(damaged(data, rng))
            try:
                read(path)
            except InputError:
                continue
            except BaseException as error:
                raise AssertionError(f"damaged {name}: {error!r}") from error


def test_damaged_images(tmp_path):
    tries = int(os.environ.get("FUZZ", 8))
    files = [(name, data) for name, data, *_ in IMAGES]
    assert_survives_damage(read_with_facts, files, tmp_path / "image", tries)
