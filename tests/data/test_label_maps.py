"""Label maps of every format, written by other libraries, and their mapping to train ids."""

import os
import pickle

import cv2
import numpy as np
import pytest
from PIL import Image

from gioada_fast.data.label_maps import UnknownLabels, colour_labels, id_labels
from gioada_fast.data.rasters import read_labels
from gioada_fast.errors import InputError
from gioada_fast.labels import IGNORE

from .raster_files import GREY, PALETTE, RGB, RGBA, bmp, exr, npy, npz, pil, png, tiff, tiff_of_bits
from .test_rasters import assert_survives_damage

H, W = 9, 13
_RNG = np.random.default_rng(0)
IDS = _RNG.permutation(np.resize(np.arange(11, dtype=np.uint8), H * W)).reshape(H, W)
WIDE = (IDS.astype(np.uint16) * 1000) + 7
SIGNED = IDS.astype(np.int32) * 5 - 1
OTHER = _RNG.integers(0, 256, (H, W), np.uint8)
BITS = IDS > 4
PALETTE_COLOURS = _RNG.permutation(256).astype(np.uint8)[:, None] ^ np.array([1, 77, 200], np.uint8)


def indexed(ids) -> Image.Image:
    picture = Image.fromarray(np.asarray(ids, np.uint8), "L")
    picture.putpalette(PALETTE_COLOURS.tobytes())
    return picture


def indexed_png(ids, bits: int, **chunks) -> bytes:
    return png(ids, bits, PALETTE, PLTE=PALETTE_COLOURS[: 2**bits].tobytes(), **chunks)


def in_red(ids, alpha: bool = False) -> np.ndarray:
    return np.dstack([ids, OTHER, OTHER[::-1], *([OTHER] if alpha else [])]).astype(ids.dtype)


# name, file, ids
ID_FILES = [
    ("png", pil(IDS, "PNG"), IDS),
    *((f"png palette {b}", indexed_png(IDS & (2**b - 1), b), IDS & (2**b - 1))
      for b in (1, 2, 4, 8)),
    ("png palette alpha", indexed_png(IDS, 8, tRNS=bytes(range(20))), IDS),
    ("png palette by Pillow", pil(indexed(IDS), "PNG"), IDS),
    *((f"png grey {b}", png(IDS & (2**b - 1), b, GREY), IDS & (2**b - 1)) for b in (1, 2, 4, 8)),
    ("png 1 bit by Pillow", pil(BITS, "PNG"), BITS),
    ("png 16", png(WIDE, 16, GREY), WIDE),
    ("png 16 by Pillow", pil(WIDE, "PNG"), WIDE),
    ("png 16 by OpenCV", cv2.imencode(".png", WIDE)[1].tobytes(), WIDE),
    ("png grey alpha", pil(np.dstack([IDS, OTHER]), "PNG", "LA"), IDS),
    ("bmp", pil(IDS, "BMP"), IDS),
    ("bmp palette", pil(indexed(IDS), "BMP"), IDS),
    ("bmp 1 bit", pil(BITS, "BMP"), BITS),
    *(
        (f"bmp {b} {name}", bmp(IDS & (2**b - 1), b, colours[: 2**b], b == 4), IDS & (2**b - 1))
        for b in (1, 4, 8)
        for name, colours in (
            ("palette", PALETTE_COLOURS), ("levels", np.arange(256)[:, None].repeat(3, 1)),
            ("white and black", [[255] * 3, [0] * 3]),
        )
    ),
    ("bmp 8 bits of 2 colours", bmp(BITS, 8, [[0] * 3, [255] * 3]), BITS),
    ("gif", pil(indexed(IDS), "GIF"), IDS),
    *(
        (f"tiff {name} {how}", pil(pixels, "TIFF", compression=how), ids)
        for name, pixels, ids in (
            ("grey", IDS, IDS), ("palette", indexed(IDS), IDS), ("1 bit", BITS, BITS),
            ("16", WIDE, WIDE), ("32", SIGNED, SIGNED),
        )
        for how in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd")
    ),
    *(
        (f"tiff {b} bits", tiff_of_bits(WIDE & (2**b - 1), b), WIDE & (2**b - 1))
        for b in (1, 2, 4, 8, 12)
    ),
    *(
        (f"tiff palette of {b} bits",
         tiff_of_bits(IDS & (2**b - 1), b, 3, PALETTE_COLOURS[: 2**b]), IDS & (2**b - 1))
        for b in (1, 2, 4, 8)
    ),
    ("tiff tiles", tiff(WIDE, tile=(16, 16)), WIDE),
    ("tiff int8", tiff(SIGNED.astype(np.int8)), SIGNED),
    ("tiff int8 lzw", cv2.imencode(".tiff", SIGNED.astype(np.int8))[1].tobytes(), SIGNED),
    ("tiff int16", tiff(SIGNED.astype(np.int16)), SIGNED),
    ("tiff uint32 lzw", cv2.imencode(".tiff", WIDE.astype(np.uint32) << 16)[1].tobytes(),
     WIDE.astype(np.int64) << 16),
    ("tiff float", tiff(SIGNED.astype(np.float32)), SIGNED),
    ("tiff white is 0", tiff(IDS, photometric="miniswhite"), IDS),
    ("webp lossless", pil(IDS, "WEBP", "RGB", lossless=True), IDS),
    ("exr", exr({"IndexOB.X": IDS.astype(np.float32)}), IDS),
    ("exr uint", exr({"id": WIDE.astype(np.uint32)}), WIDE),
    *((f"npy {t}", npy(SIGNED.astype(t)), SIGNED)
      for t in ("int8", "int16", ">i4", "int64", "float16", "float32", "float64")),
    *((f"npy {t}", npy(IDS.astype(t)), IDS) for t in ("uint8", "uint16", ">u4", "uint64")),
    ("npy bool", npy(BITS), BITS),
    ("npy [1, H, W]", npy(IDS[None]), IDS),
    ("npy [H, W, 1]", npy(IDS[..., None]), IDS),
    ("npy Fortran", npy(np.asfortranarray(SIGNED)), SIGNED),
    ("npz", npz(seg=WIDE), WIDE),
    ("npz with names", npz(image=OTHER, labels=IDS), IDS),
]  # fmt: skip
# ids in R, whatever the other channels contain
RED_FILES = [
    ("png", pil(in_red(IDS), "PNG"), IDS),
    ("png alpha", pil(in_red(IDS, alpha=True), "PNG"), IDS),
    ("png 16", png(in_red(WIDE), 16, RGB), WIDE),
    ("png 16 alpha", png(in_red(WIDE, alpha=True), 16, RGBA), WIDE),
    ("bmp", pil(in_red(IDS), "BMP"), IDS),
    ("tiff", pil(in_red(IDS), "TIFF", compression="tiff_lzw"), IDS),
    ("webp", pil(in_red(IDS), "WEBP", lossless=True), IDS),
    ("npy", npy(in_red(WIDE)), WIDE),
]


def train_ids_of(ids) -> dict[int, int]:
    """Another train id for each id, among them 254 and IGNORE."""
    values = np.unique(np.asarray(ids, np.int64)).tolist()
    return {value: (254 - i if i % 3 else IGNORE) for i, value in enumerate(values)}


def mapped(ids, train_ids) -> np.ndarray:
    return np.vectorize(train_ids.get)(np.asarray(ids, np.int64)).astype(np.uint8)


def check_ids(path, data, ids, red: bool):
    path.write_bytes(data)
    train_ids = train_ids_of(ids)
    labels = pickle.loads(pickle.dumps(id_labels(train_ids, in_red=red)))(path)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, mapped(ids, train_ids))

    number = next(iter(train_ids))
    train_ids.pop(number)
    with pytest.raises(UnknownLabels, match=rf"labels: unknown ids.*: {number} \(") as error:
        id_labels(train_ids, in_red=red)(path)
    assert error.value.counts == {number: (np.asarray(ids) == number).sum()}
    assert pickle.loads(pickle.dumps(error.value)).counts == error.value.counts
    labels = id_labels(train_ids, in_red=red, unknown="ignore")(path)
    np.testing.assert_array_equal(labels, mapped(ids, {**train_ids, number: IGNORE}))


@pytest.mark.parametrize(("data", "ids"), [f[1:] for f in ID_FILES], ids=[f[0] for f in ID_FILES])
def test_ids(tmp_path, data, ids):
    check_ids(tmp_path / "labels", data, ids, red=False)
    check_ids(tmp_path / "labels", data, ids, red=True)


@pytest.mark.parametrize(("data", "ids"), [f[1:] for f in RED_FILES], ids=[f[0] for f in RED_FILES])
def test_ids_in_red(tmp_path, data, ids):
    check_ids(tmp_path / "labels", data, ids, red=True)
    with pytest.raises(InputError, match=r"labels: label map has colours .*expected ids in one"):
        id_labels(train_ids_of(ids))(tmp_path / "labels")


def test_ids_far_apart(tmp_path):
    path = tmp_path / "labels.npy"
    np.save(path, np.array([[-(2**40), 2**40, 3]]))
    train_ids = {-(2**40): 1, 2**40: 2, 3: IGNORE, 4: 7}
    assert id_labels(train_ids)(path).tolist() == [[1, 2, IGNORE]]
    with pytest.raises(UnknownLabels, match=r"-1099511627776 \(1 pixels\); known are 3 to 4"):
        id_labels({3: 1, 4: 0, 2**40: 2})(path)


def test_unknown_ids_are_listed_by_their_number(tmp_path):
    path = tmp_path / "labels.png"
    path.write_bytes(pil(np.array([[0, 7, 7, 9, 40]], np.uint8), "PNG"))
    words = r"ids: 7 \(2 pixels\), 9 \(1 pixels\), 40 \(1 pixels\); known are 0 to 2, 5.*ignore"
    with pytest.raises(UnknownLabels, match=words) as error:
        id_labels({0: 0, 1: 1, 2: 2, 5: 3})(path)
    assert error.value.counts == {7: 2, 9: 1, 40: 1}
    path.write_bytes(pil(in_red(np.full((H, W), 128, np.uint8)), "PNG"))
    with pytest.raises(UnknownLabels, match=r"in the channel R .*colours.*: 128 \(117 pixels\)"):
        id_labels({0: 0}, in_red=True)(path)


COLOURS = PALETTE_COLOURS[IDS]
COLOUR_FILES = [
    ("png", pil(COLOURS, "PNG")),
    ("png alpha", pil(np.dstack([COLOURS, OTHER]), "PNG")),
    ("png palette", pil(indexed(IDS), "PNG")),
    ("png palette 4", indexed_png(IDS, 4)),
    ("bmp", pil(COLOURS, "BMP")),
    ("bmp palette", pil(indexed(IDS), "BMP")),
    ("gif", pil(indexed(IDS), "GIF")),
    ("tiff", pil(COLOURS, "TIFF", compression="tiff_lzw")),
    ("tiff palette", pil(indexed(IDS), "TIFF")),
    ("webp", pil(np.dstack([COLOURS, OTHER]), "WEBP", lossless=True, exact=True)),
    ("npy", npy(COLOURS)),
]


@pytest.mark.parametrize("data", [f[1] for f in COLOUR_FILES], ids=[f[0] for f in COLOUR_FILES])
def test_colours(tmp_path, data):
    path = tmp_path / "labels"
    path.write_bytes(data)
    train_ids = {tuple(PALETTE_COLOURS[i].tolist()): i + 240 for i in range(11)}
    np.testing.assert_array_equal(colour_labels(Same(train_ids))(path), IDS + 240)

    (colour, _), *known = train_ids.items()
    with pytest.raises(UnknownLabels, match=r"labels: unknown colours: \(\d+, ") as error:
        colour_labels(Same(dict(known)))(path)
    assert error.value.counts == {colour: (IDS == 0).sum()}
    labels = colour_labels(Same(dict(known)), unknown="ignore")(path)
    np.testing.assert_array_equal(labels, np.where(IDS == 0, IGNORE, IDS + 240))


class Same:
    def __init__(self, train_ids):
        self.train_ids = train_ids

    def __call__(self, path):
        return self.train_ids


def test_colours_are_not_looked_for_in_grey(tmp_path):
    path = tmp_path / "labels.png"
    for data in (pil(IDS, "PNG"), png(WIDE, 16, GREY), png(in_red(WIDE), 16, RGB)):
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"labels\.png: label map is uint\d+ .* list ids"):
            colour_labels(Same({(0, 0, 0): 0}))(path)


REFUSED = [
    (pil(IDS, "JPEG"), "label map is a JPEG, which is lossy"),
    (pil(IDS, "WEBP", "RGB"), r"lossy compression \(WebP"),
    (pil(IDS, "TIFF", compression="jpeg"), r"lossy compression \(JPEG"),
    (npy(IDS + 0.5), r"has the value \d+\.5, expected whole numbers"),
    (npy(np.where(IDS == 3, np.nan, 1)), "the value nan"),
    (npy(np.array([["a"]])), "array of <U1: save it as numbers"),
    (npy(np.array([[{}]]), allow_pickle=True), "array of object"),
    (npy(np.zeros((H, W), [("id", "u1")])), "array of .*'id'"),
    (npy(np.zeros((3, H, W), np.uint8)), r"an array \[3, 9, 13\], expected \[H, W\]"),
    (npy(np.zeros((H, W, 2), np.uint8)), r"an array \[9, 13, 2\]"),
    (npy(np.zeros(7, np.uint8)), r"an array \[7\]"),
    (npy(np.zeros((0, 4), np.uint8)), r"an array \[0, 4\]"),
    (npy(IDS)[:-5], "npy, truncated"),
    (npz(a=IDS, b=IDS), "with the arrays a, b: name one of them labels"),
    (npz(a=IDS)[:-9], "npz, damaged or truncated"),
    (tiff(IDS, IDS), "with several pictures of the same size"),
    (exr({"R": IDS / np.float32(2), "G": COLOURS[..., 0].astype(np.float32)}), "channels G, R"),
    (b"", "the file is empty"),
    (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
    (b"{\"labels\": []}", "text: "),
    (pickle.dumps(IDS), "pickle"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "words"), REFUSED)
def test_what_is_no_label_map_is_described(tmp_path, data, words):
    path = tmp_path / "labels.png"
    path.write_bytes(data)
    with pytest.raises(InputError, match=rf"labels\.png: .*{words}"):
        read_labels(path)


def test_damaged_label_maps(tmp_path):
    tries = int(os.environ.get("FUZZ", 8))
    files = [f[:2] for f in (*ID_FILES, *RED_FILES, *COLOUR_FILES)]
    read_ids, path = id_labels({0: 0}, in_red=True, unknown="ignore"), tmp_path / "labels"
    assert_survives_damage(read_ids, files, path, tries)
    read_colours = colour_labels(Same({(0, 0, 0): 0}))
    assert_survives_damage(read_colours, COLOUR_FILES, path, tries)
