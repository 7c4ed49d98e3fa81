"""Depth maps of every format and meaning, written by other libraries."""

import os
import pickle

import cv2
import numpy as np
import OpenEXR
import pytest
from PIL import Image

from gioada_fast.data.depth_maps import CARLA_DEPTH, CENTIMETRES, depth_reader
from gioada_fast.errors import InputError

from .raster_files import GREY, RGB, RGBA, exr, exr_parts, npy, npz, pil, png, tiff
from .test_rasters import assert_survives_damage

H, W = 8, 14
FAR = 655.34
_RNG = np.random.default_rng(0)
METRES = _RNG.uniform(0.5, 300, (H, W)).astype(np.float32)
METRES[0, :3] = 0, 1, 2
COUNTS = np.rint(METRES * 100).astype(np.uint16)
SMALL = np.rint(METRES / 2).astype(np.uint8)
OTHER = _RNG.uniform(0, 1, (H, W)).astype(np.float32)
HALF = METRES.astype(np.float16)
with np.errstate(divide="ignore"):
    INVERSE_METRES, INVERSE_COUNTS = 1 / METRES, 1 / COUNTS.astype(float)


def thrice(values) -> np.ndarray:
    return np.dstack([values] * 3)


def rgba(values) -> np.ndarray:
    return np.dstack([values, values, values, np.full_like(values, 9)])


TILES = OpenEXR.TileDescription()
TILES.xSize = TILES.ySize = 5
BLENDER = {
    **{f"View Layer.Combined.{c}": OTHER * k for k, c in enumerate("RGBA", 1)},
    **{f"View Layer.Normal.{c}": OTHER / k for k, c in enumerate("XYZ", 2)},
    "View Layer.Depth.Z": METRES,
}

# name, file, settings, metres
CASES = [
    ("png 16", png(COUNTS, 16, GREY), {}, COUNTS / 100),
    ("png 16 by Pillow", pil(COUNTS, "PNG"), {"per_metre": 256}, COUNTS / 256),
    ("png 16 in equal channels", png(thrice(COUNTS), 16, RGB), {}, COUNTS / 100),
    ("png 16 with alpha", png(rgba(COUNTS), 16, RGBA), {"per_metre": 1000}, COUNTS / 1000),
    ("png 8", png(SMALL, 8, GREY), {"per_metre": 0.5}, SMALL * 2.0),
    ("png 8 in equal channels", pil(thrice(SMALL), "PNG"), {"per_metre": 2}, SMALL / 2),
    ("png grey palette", pil(Image.fromarray(SMALL), "PNG", "P"), {"per_metre": 2}, SMALL / 2),
    *(
        (f"tiff {how}", pil(pixels, "TIFF", compression=how), {}, metres)
        for how in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd")
        for pixels, metres in ((METRES, METRES), (COUNTS, COUNTS / 100))
    ),
    ("tiff float16", tiff(HALF), {}, HALF),
    ("tiff float64", tiff(METRES.astype(float)), {}, METRES),
    ("tiff float64 lzw", cv2.imencode(".tiff", METRES.astype(float))[1].tobytes(), {}, METRES),
    ("tiff tiles", tiff(METRES, tile=(16, 16)), {}, METRES),
    ("tiff millimetres", tiff(METRES * 1000), {"per_metre": 1000}, METRES),
    ("tiff int32", tiff(COUNTS.astype(np.int32) * 10), {"per_metre": 1000}, COUNTS / 100),
    ("tiff equal channels", tiff(thrice(METRES), photometric="rgb"), {}, METRES),
    *((f"exr {name}", exr({name: METRES}), {}, METRES)
      for name in ("Z", "V", "Y", "R", "Depth", "depth.Z", "View Layer.Depth.Z", "distance")),
    *((f"exr {name}", exr({"Z": METRES}, compression=getattr(OpenEXR, name)), {}, METRES)
      for name in ("NO_COMPRESSION", "RLE_COMPRESSION", "ZIPS_COMPRESSION", "PIZ_COMPRESSION")),
    ("exr tiles", exr({"Z": METRES}, type=OpenEXR.tiledimage, tiles=TILES), {}, METRES),
    ("exr with NaN", exr(dict.fromkeys("RGB", np.where(METRES > 9, METRES, np.float32("nan")))),
     {}, np.where(METRES > 9, METRES, 0)),
    ("exr half", exr({"Z": HALF}), {}, HALF),
    ("exr uint", exr({"Z": COUNTS.astype(np.uint32)}), {}, COUNTS / 100),
    ("exr R = G = B", exr({"R": METRES, "G": METRES, "B": METRES}), {}, METRES),
    ("exr R = G = B and alpha", exr({"R": METRES, "G": METRES, "B": METRES, "A": OTHER}), {},
     METRES),
    ("exr Y and alpha", exr({"Y": METRES, "A": OTHER}), {}, METRES),
    ("exr colours and Z", exr({"R": OTHER, "G": OTHER * 2, "B": OTHER * 3, "Z": METRES}), {},
     METRES),
    ("exr layers", exr(BLENDER), {}, METRES),
    ("exr depth in a layer's R, G, B", exr({**{f"WorldDepth.{c}": METRES for c in "RGB"},
     "WorldDepth.A": OTHER, "R": OTHER, "G": OTHER * 2, "B": OTHER}), {}, METRES),
    ("exr parts", exr_parts(rgba={"R": OTHER, "G": OTHER * 2, "B": OTHER}, depth={"Z": METRES}),
     {}, METRES),
    ("exr window inside", exr({"Z": METRES}, [((3, 2), (W + 2, H + 1)), ((0, 0), (W + 3, H + 4))]),
     {}, np.pad(METRES, ((2, 3), (3, 1)))),
    ("exr window outside", exr({"Z": METRES}, [((-1, -2), (W - 2, H - 3)), ((0, 0), (W - 4, 3))]),
     {}, METRES[2:6, 1 : W - 2]),
    ("exr window moved", exr({"Z": METRES}, [((5, 6), (W + 4, H + 5)), ((5, 6), (W + 4, H + 5))]),
     {}, METRES),
    *((f"npy {t}", npy(METRES.astype(t)), {}, METRES) for t in ("float32", ">f4", "float64")),
    ("npy float16", npy(HALF), {}, HALF),
    ("npy [1, H, W]", npy(METRES[None]), {}, METRES),
    ("npy [H, W, 1]", npy(METRES[..., None]), {}, METRES),
    ("npy millimetres", npy(COUNTS.astype(np.int32)), {"per_metre": 1000}, COUNTS / 1000),
    ("npz", npz(x=METRES), {}, METRES),
    ("npz depth", npz(image=OTHER, Depth=METRES), {}, METRES),
    ("npz arr_0", npz(arr_0=METRES, arr_1=OTHER), {}, METRES),
    ("disparity", png(COUNTS, 16, GREY),
     {"kind": "disparity", "per_metre": 256, "focal_baseline": 40.0}, 40 * 256 * INVERSE_COUNTS),
    ("disparity float", npy(METRES), {"kind": "disparity", "focal_baseline": 7.0},
     7 * INVERSE_METRES),
    ("inverse", npy(METRES), {"kind": "inverse"}, INVERSE_METRES),
    ("inverse 16", png(COUNTS, 16, GREY), {"kind": "inverse", "per_metre": 65536},
     65536 * INVERSE_COUNTS),
]  # fmt: skip


def near(metres) -> np.ndarray:
    """0 for no depth: 0, infinite or beyond FAR."""
    metres = np.asarray(metres, np.float64)
    return np.where(np.isfinite(metres) & (metres <= FAR + 1e-4), metres, 0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("data", "settings", "metres"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_depth(tmp_path, data, settings, metres):
    path = tmp_path / "depth"
    path.write_bytes(data)
    depth = pickle.loads(pickle.dumps(depth_reader(**settings).read))(path)
    assert depth.dtype == np.float32 and depth.any()
    np.testing.assert_allclose(depth, near(metres), rtol=3e-7)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("kind", ["metres", "disparity", "inverse"])
def test_values_that_are_no_depth(tmp_path, dtype, kind):
    nothing = [0, -1, np.nan, np.inf, -np.inf, *([1e4] if kind == "metres" else [1e-7])]
    np.save(tmp_path / "depth.npy", np.array([[2, *nothing]], dtype))
    depth = depth_reader(kind, focal_baseline=4.0).read(tmp_path / "depth.npy")
    assert depth.tolist() == [[{"metres": 2, "disparity": 2, "inverse": 0.5}[kind], *[0] * 6]]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "uint32", "int64"])
def test_the_largest_whole_number_is_no_depth(tmp_path, dtype):
    last = np.iinfo(dtype).max
    np.save(tmp_path / "depth.npy", np.array([[last, last - 1, 0, 1]], dtype))
    depth = depth_reader(per_metre=last / 100).read(tmp_path / "depth.npy")
    assert depth[0, [0, 2]].tolist() == [0, 0] and depth[0, 1] == pytest.approx(100, rel=0.01)


def test_counts_have_the_same_bits_in_every_reader(tmp_path):
    path = tmp_path / "depth.png"
    every = np.arange(2**16).reshape(256, 256)
    path.write_bytes(png(every, 16, GREY))
    np.testing.assert_array_equal(depth_reader().read(path), CENTIMETRES.read(path))
    assert CENTIMETRES.per_metre == 100 and CENTIMETRES.read(path).max() == np.float32(655.34)


def test_carla(tmp_path):
    path = tmp_path / "depth.png"
    codes = _RNG.integers(0, 2**24 * 6 // 10, (H, W))
    colours = (codes[..., None] >> np.array([0, 8, 16]) & 255).astype(np.uint8)
    metres = codes * 1000 / (2**24 - 1)
    for pixels in (colours, np.dstack([colours, colours])[..., :4]):
        path.write_bytes(pil(pixels, "PNG"))
        for reader in (CARLA_DEPTH, depth_reader("carla")):
            np.testing.assert_allclose(reader.read(path), near(metres), rtol=3e-7)
    path.write_bytes(pil(thrice(np.full((2, 2), 9, np.uint8)), "PNG"))
    assert CARLA_DEPTH.read(path)[0, 0] == pytest.approx(9 * 65793 * 1000 / (2**24 - 1))
    for data in (png(COUNTS, 16, GREY), npy(METRES), pil(SMALL, "PNG")):
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"depth\.png: depth map is \w+ \[8, 14\].* 24 bits"):
            CARLA_DEPTH.read(path)


@pytest.mark.parametrize("size", [(4, 6), (5, 9)])
def test_distance_along_rays(tmp_path, size):
    height, width = size
    fov = 70.0
    plane = np.full(size, 10.0)
    # a point at pixel (u, v) lies in the direction (u + 1/2 - W/2, v + 1/2 - H/2, f)
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    focal = width / (2 * np.tan(np.deg2rad(fov / 2)))
    rays = np.stack([u + 0.5 - width / 2, v + 0.5 - height / 2, np.full(size, focal)], axis=-1)
    distance = plane * np.linalg.norm(rays, axis=-1) / focal
    np.save(tmp_path / "depth.npy", distance)
    reader = depth_reader(along="ray", fov=fov)
    np.testing.assert_allclose(reader.read(tmp_path / "depth.npy"), plane, rtol=1e-6)
    np.testing.assert_allclose(depth_reader(fov=fov).read(tmp_path / "depth.npy"), distance,
                               rtol=1e-6)  # fmt: skip


REFUSED = [
    (pil(SMALL, "JPEG"), {}, "depth map is a JPEG, which is lossy"),
    (pil(SMALL, "WEBP", "RGB"), {"per_metre": 1}, "lossy compression"),
    (pil(SMALL, "GIF"), {"per_metre": 1}, "depth map is GIF, expected one of PNG"),
    (pil(SMALL, "PNG"), {}, r"whole numbers \(uint8\): set depth_per_metre .* one metre"),
    (png(COUNTS, 16, GREY), {"kind": "inverse"}, "uint16.*depth_per_metre .* one 1 / metre"),
    (png(COUNTS, 16, GREY), {"kind": "disparity", "focal_baseline": 1.0}, "one pixel of dispar"),
    (pil(_RNG.integers(0, 255, (H, W, 3), np.uint8), "PNG"), {}, "channels that differ.*carla"),
    (png(_RNG.integers(0, 2**16, (H, W, 3)), 16, RGB), {}, "uint16 with channels that differ"),
    (pil(Image.fromarray(thrice(SMALL) + np.uint8([0, 9, 70])).quantize(50), "PNG"), {},
     "channels that differ"),
    (exr({"R": OTHER, "G": METRES}), {}, "with the channels G, R: expected one .* contains depth"),
    (exr({"left.Z": OTHER, "right.Z": METRES}), {}, "channels left.Z, right.Z"),
    (exr({"N.X": OTHER, "N.Y": OTHER, "N.Z": METRES}), {}, "channels N.X, N.Y, N.Z"),
    (exr({"Z": METRES})[:-40], {}, "EXR, "),
    (npz(a=METRES, b=METRES), {}, "with the arrays a, b: name one of them depth"),
    (npy(np.full((H, W), np.nan)), {}, "no pixel has a depth"),
    (npy(METRES * 1e6), {}, "no pixel has a depth"),
    (npy(METRES > 3), {}, "true and false"),
    (npy(np.dstack([METRES, OTHER])), {}, r"an array \[8, 14, 2\]"),
    (npy(METRES.astype(complex)), {}, "array of complex128"),
    (png(np.full((H, W), 65535), 16, GREY), {}, "no pixel has a depth"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "settings", "words"), REFUSED)
def test_what_is_no_depth_map_is_described(tmp_path, data, settings, words):
    path = tmp_path / "depth.png"
    path.write_bytes(data)
    with pytest.raises(InputError, match=rf"depth\.png: .*{words}"):
        depth_reader(**settings).read(path)


def test_damaged_depth_maps(tmp_path):
    tries = int(os.environ.get("FUZZ", 8))
    reader = depth_reader(per_metre=1.0, along="ray", fov=90.0)
    assert_survives_damage(reader.read, [c[:2] for c in CASES], tmp_path / "depth", tries)
