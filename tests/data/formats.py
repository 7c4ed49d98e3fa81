"""Miniatures of the public data sets, written only from the format descriptions.

Nothing here calls the package's readers: they are tested against the values that a writer returns.
Every pixel is random, so a shifted, resampled or mirrored frame shows, and the same
seed gives the same files.
"""

import zipfile
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import OpenEXR
from PIL import Image

SIZE = (40, 56)
FAR = 655.34
"""Metres; larger values mean no depth."""

VKITTI_CLASSES = (
    *("Terrain", "Sky", "Tree", "Vegetation", "Building", "Road", "GuardRail"),
    *("TrafficSign", "TrafficLight", "Pole", "Misc", "Truck", "Car", "Van"),
)
"""Class names; ``classes`` of ``write_vkitti`` has indices into this tuple."""
VKITTI_OBJECTS = (
    *VKITTI_CLASSES[:11],
    *("Truck:0", "Car:0", "Car:3", "Car:12", "Van:1", "Van:3"),
)
"""Objects with their own colour in a world of Virtual KITTI 1.3.1."""
VKITTI2_CLASSES = (*VKITTI_CLASSES, "Undefined")
"""Class names; ``classes`` of ``write_vkitti2`` has indices into this tuple."""
VKITTI2_PALETTE = (
    *((210, 0, 200), (90, 200, 255), (0, 199, 0), (90, 240, 0), (140, 140, 140)),
    *((100, 60, 100), (250, 100, 255), (255, 255, 0), (200, 200, 0), (255, 130, 0)),
    *((80, 80, 80), (160, 60, 60), (255, 127, 80), (0, 139, 139), (0, 0, 0)),
)
"""(R, G, B) of each of ``VKITTI2_CLASSES``."""
SYNTHIA_IDS = range(23)
CITYSCAPES_IDS = range(34)
CITYSCAPES_TRAIN_IDS = (*range(19), 255)
VISTAS_IDS = {"v1.2": range(66), "v2.0": range(124)}
IDD_LEVEL_3_IDS = (*range(26), 255)


class Written(NamedTuple):
    """One frame on disk."""

    image: Path
    """File of the image."""
    pixels: np.ndarray
    """uint8 [H, W, 3] RGB; for a JPEG as OpenCV decodes it."""
    classes: np.ndarray | None
    """uint8 [H, W]: for Virtual KITTI indices into the tuple of names, otherwise ids as stored."""
    metres: np.ndarray | None
    """float64 [H, W] depth in metres; 0 for no depth (0, 65535 in 16 bits, beyond FAR)."""


def write_vkitti(
    root, scenes=("0001", "0002"), variations=("clone", "fog"), frames=2, size=SIZE, seed=0
) -> list[Written]:
    """Virtual KITTI 1.3.1, by scene, variation and frame; ``classes`` index ``VKITTI_CLASSES``.

    All worlds share one set of colours but assign them to different objects: in the wrong encoding
    file a colour exists, but has another meaning. Up to ``len(VKITTI_OBJECTS)`` worlds differ.
    """
    root, rng, written = Path(root), np.random.default_rng(seed), []
    codes = rng.choice(2**24, len(VKITTI_OBJECTS), replace=False)
    class_of = [VKITTI_CLASSES.index(name.split(":")[0]) for name in VKITTI_OBJECTS]
    worlds = [(scene, variation) for scene in scenes for variation in variations]
    for shift, (scene, variation) in enumerate(worlds):
        colours = _bytes(np.roll(codes, shift))
        encoding = f"vkitti_1.3.1_scenegt/{scene}_{variation}_scenegt_rgb_encoding.txt"
        _write_colours(root / encoding, "Category(:id) r g b", VKITTI_OBJECTS, colours)
        for frame in range(frames):
            name = f"{scene}/{variation}/{frame:05d}.png"
            image = root / "vkitti_1.3.1_rgb" / name
            pixels = _write_noise(image, size, rng)
            objects = _scatter(range(len(VKITTI_OBJECTS)), size, rng)
            _write(root / "vkitti_1.3.1_scenegt" / name, colours[objects])
            depth = _stored_depth(size, rng)
            _write(root / "vkitti_1.3.1_depthgt" / name, depth)
            classes = np.array(class_of, np.uint8)[objects]
            written.append(Written(image, pixels, classes, _metres(depth, 0.01)))
    return written


def write_vkitti2(
    root,
    scenes=("Scene01",),
    variations=("clone",),
    cameras=("Camera_0", "Camera_1"),
    frames=2,
    colours="{scene}/{variation}/colors.txt",
    size=SIZE,
    seed=0,
) -> list[Written]:
    """Virtual KITTI 2, by scene, variation, camera, frame; ``classes`` index ``VKITTI2_CLASSES``.

    ``colours`` is where the list of colours lies under ``root``.
    """
    root, rng, written = Path(root), np.random.default_rng(seed), []
    palette = np.array(VKITTI2_PALETTE, np.uint8)
    for scene, variation in ((s, v) for s in scenes for v in variations):
        path = root / colours.format(scene=scene, variation=variation)
        _write_colours(path, "Category r g b", VKITTI2_CLASSES, palette)
        for camera, frame in ((c, f) for c in cameras for f in range(frames)):
            folder = root / scene / variation / "frames"
            image = folder / "rgb" / camera / f"rgb_{frame:05d}.jpg"
            pixels = _write_noise(image, size, rng)
            classes = _scatter(range(len(VKITTI2_CLASSES)), size, rng)
            _write(
                folder / "classSegmentation" / camera / f"classgt_{frame:05d}.png", palette[classes]
            )
            depth = _stored_depth(size, rng)
            _write(folder / "depth" / camera / f"depth_{frame:05d}.png", depth)
            written.append(Written(image, pixels, classes, _metres(depth, 0.01)))
    return written


def write_synthia(
    root,
    frames=3,
    parsed=False,
    depth_folder="Depth/Depth",
    parsed_folder="parsed_LABELS",
    size=SIZE,
    seed=0,
) -> list[Written]:
    """SYNTHIA-RAND-CITYSCAPES; ``classes`` are raw ids 0 to 22.

    ``parsed`` puts 8-bit ids into ``parsed_folder`` instead of 16-bit (id, instance, 0) into
    ``GT/LABELS``; a second call on the same root adds the other folder to the same frames.
    """
    root, rng, written = Path(root), np.random.default_rng(seed), []
    for frame in range(frames):
        name = f"{frame:07d}.png"
        pixels = _write_noise(root / "RGB" / name, size, rng)
        classes = _scatter(SYNTHIA_IDS, size, rng)
        instances = rng.integers(0, 2**16, size, np.uint16)
        if parsed:
            _write(root / parsed_folder / name, classes)
        else:
            labels = np.dstack([classes.astype(np.uint16), instances, np.zeros_like(instances)])
            _write(root / "GT" / "LABELS" / name, labels)
        depth = _stored_depth(size, rng)
        _write(root / depth_folder / name, np.dstack([depth] * 3))
        written.append(Written(root / "RGB" / name, pixels, classes, _metres(depth, 0.01)))
    return written


def write_carla(
    root,
    images="rgb/{}.png",
    labels="semantic/{}.png",
    depth="depth/{}.png",
    ids=range(23),
    road=7,
    sky=13,
    frames=2,
    size=SIZE,
    seed=0,
) -> list[Written]:
    """CARLA and SHIFT: raw id in R, 24-bit depth; sky lies at 1000 m, so it has no depth.

    The lowest rows are ``road``, the topmost ``sky``; with None, all ids are everywhere.
    The depth contains each of the 24 bits alone, both ends, 65535 (3.9 m: an ordinary value here)
    and 655 and 656 m on either side of ``FAR``.
    """
    root, rng, written = Path(root), np.random.default_rng(seed), []
    last = 2**24 - 1
    edges = [0, 65535, last, last * 655 // 1000, last * 656 // 1000, *(1 << np.arange(24))]
    for frame in range(frames):
        image = root / images.format(f"{frame:06d}")
        pixels = _write_noise(image, size, rng)
        classes = _scatter(ids, size, rng)
        if road is not None:
            classes[-size[0] // 5 :], classes[: size[0] // 5] = road, sky
        zero = np.zeros_like(classes)
        _write(root / labels.format(f"{frame:06d}"), np.dstack([classes, zero, zero]))
        codes = _with_edges(edges, 2**24, size, rng)
        _write(root / depth.format(f"{frame:06d}"), _bytes(codes)[..., ::-1])  # lowest byte in R
        metres = codes * 1000 / last
        written.append(Written(image, pixels, classes, np.where(metres > FAR, 0, metres)))
    return written


def write_shift(
    root, split="train", archives=True, own_folders=False, depth=True, size=SIZE, seed=0
) -> list[Written]:
    """SHIFT's front camera, two sequences; ``classes`` are raw ids 0 to 23.

    ``archives``: as downloaded, img.zip, semseg.zip and depth.zip; otherwise unpacked into one
    folder, or with ``own_folders`` into a folder for each archive.
    """
    front, written = Path(root, "discrete", "images", split, "front"), []
    kinds = {"images": "img", "labels": "semseg", "depth": "depth"}
    for number, sequence in enumerate(("003b-d9c4", "0116-4859")):
        names = {
            key: f"{kind if own_folders else '.'}/{sequence}/{{}}_{kind}_front"
            f".{'jpg' if kind == 'img' else 'png'}"
            for key, kind in kinds.items()
        }
        written += write_carla(front, **names, ids=range(24), size=size, seed=seed + number)
    if not depth:
        for path in front.rglob("*_depth_front.png"):
            path.unlink()
        written = [truth._replace(metres=None) for truth in written]
    if archives:
        names = ("img", "semseg", "depth") if depth else ("img", "semseg")
        pack_into_archives(front, {name: f"*/*_{name}_front.*" for name in names})
    return written


def write_gta5(root, frames=3, size=SIZE, seed=0) -> list[Written]:
    """GTA5: palette PNGs, whose index ``classes`` is Cityscapes' id; there is no depth."""
    root, rng, written = Path(root), np.random.default_rng(seed), []
    for frame in range(1, frames + 1):
        name = f"{frame:05d}.png"
        pixels = _write_noise(root / "images" / name, size, rng)
        classes = _scatter(range(35), size, rng)
        _write_palette(root / "labels" / name, classes, rng)
        written.append(Written(root / "images" / name, pixels, classes, None))
    return written


def write_urbansyn(
    root, frames=3, unit=1e5, channels=1, depth=True, size=SIZE, seed=0
) -> list[Written]:
    """UrbanSyn: train ids, 19 for unlabelled, and EXR depth in units of ``unit`` metres.

    ``channels``: of the label maps, equal ones.
    """
    root, rng, written = Path(root), np.random.default_rng(seed), []
    for frame in range(1, frames + 1):
        image = root / "rgb" / f"rgb_{frame:04d}.png"
        pixels = _write_noise(image, size, rng)
        classes = _scatter(range(20), size, rng)
        labels = classes if channels == 1 else np.dstack([classes] * channels)
        _write(root / "ss" / f"ss_{frame:04d}.png", labels)
        metres = None
        if depth:
            stored = (_float_depth(size, rng) / unit).astype(np.float32)
            _write_exr(root / "depth" / f"depth_{frame:04d}.exr", stored, "Y")
            metres = _known(stored * np.float64(unit))
        written.append(Written(image, pixels, classes, metres))
    return written


def write_synscapes(root, frames=3, images="rgb", depth=True, size=SIZE, seed=0) -> list[Written]:
    """Synscapes: Cityscapes' ids and EXR depth in metres."""
    root, rng, written = Path(root, "img"), np.random.default_rng(seed), []
    for frame in range(1, frames + 1):
        pixels = _write_noise(root / images / f"{frame}.png", size, rng)
        classes = _scatter(CITYSCAPES_IDS, size, rng)
        _write(root / "class" / f"{frame}.png", classes)
        metres = None
        if depth:
            stored = _float_depth(size, rng)
            _write_exr(root / "depth" / f"{frame}.exr", stored, "Z")
            metres = _known(stored.astype(np.float64))
        written.append(Written(root / images / f"{frame}.png", pixels, classes, metres))
    return written


def write_bdd100k(root, older=False, frames=2, size=SIZE, seed=0) -> dict[str, list[Written]]:
    """BDD100K in its newer or ``older`` layout; ``classes`` are train ids, 255 for ignored.

    Like all sets below: the split to train on has no labels, and there is no depth.
    """
    rng, written = np.random.default_rng(seed), {}
    for split in ("train", "val"):
        images, labels = f"images/10k/{split}/{{}}.jpg", f"labels/sem_seg/masks/{split}/{{}}.png"
        if older:
            images, labels = f"seg/images/{split}/{{}}.jpg", f"seg/labels/{split}/{{}}_train_id.png"
        names = [f"{rng.integers(2**32):08x}-00000000" for _ in range(frames)]
        written[split] = [
            _write_real(root, images.format(name), split == "val" and labels.format(name),
                        CITYSCAPES_TRAIN_IDS, size, rng)
            for name in sorted(names)
        ]  # fmt: skip
    return written


def write_acdc(
    root, kind="labelIds", conditions=("fog", "night"), frames=2, size=SIZE, seed=0
) -> dict[str, list[Written]]:
    """ACDC, by split; ``classes`` are raw ids, or for ``kind`` labelTrainIds train ids.

    There are also the clear-weather images of both splits, which belong to no split.
    """
    rng, written = np.random.default_rng(seed), {"train": [], "val": []}
    ids = CITYSCAPES_IDS if kind == "labelIds" else CITYSCAPES_TRAIN_IDS
    for condition, split in ((c, s) for c in conditions for s in written):
        for frame in range(frames):
            sequence = f"GOPR{100 + frame}"
            name = f"{condition}/{split}/{sequence}/{sequence}_frame_{frame:06d}"
            image = f"rgb_anon/{name}_rgb_anon.png"
            labels = split == "val" and f"gt/{name}_gt_{kind}.png"
            written[split].append(_write_real(root, image, labels, ids, size, rng))
            name = name.replace(f"/{split}/", f"/{split}_ref/")
            for suffix in ("_rgb_ref_anon.png", "_rgb_anon.png"):
                _write_real(root, f"rgb_anon/{name}{suffix}", None, (), size, rng)
    return written


def write_mapillary(
    root, version="v1.2", folder="labels", frames=2, size=SIZE, seed=0
) -> dict[str, list[Written]]:
    """Mapillary Vistas; ``classes`` are the palette indices of ``version``."""
    rng, written = np.random.default_rng(seed), {}
    for split in ("training", "validation"):
        names = [f"{split[0]}{frame}_kjBpGSzLyyL" for frame in range(frames)]
        written[split] = [
            _write_real(root, f"{split}/images/{name}.jpg",
                        split == "validation" and f"{split}/{folder}/{name}.png",
                        VISTAS_IDS[version], size, rng, palette=True)
            for name in names
        ]  # fmt: skip
    return written


def write_idd(
    root, kind="labelcsTrainIds", suffix=".png", frames=2, size=SIZE, seed=0
) -> dict[str, list[Written]]:
    """IDD; ``classes`` are train ids, or for ``kind`` labellevel3Ids the ids of level 3.

    With ``kind`` None there are only the polygons, as downloaded.
    """
    rng, written = np.random.default_rng(seed), {}
    ids = CITYSCAPES_TRAIN_IDS if kind == "labelcsTrainIds" else IDD_LEVEL_3_IDS
    for split in ("train", "val"):
        written[split] = []
        for name in (f"{split}/{frame}/{frame:06d}" for frame in range(frames)):
            polygons = Path(root, "gtFine", f"{name}_gtFine_polygons.json")
            polygons.parent.mkdir(parents=True)
            polygons.write_text("{}")
            labels = kind and split == "val" and f"gtFine/{name}_gtFine_{kind}.png"
            image = f"leftImg8bit/{name}_leftImg8bit{suffix}"
            written[split].append(_write_real(root, image, labels, ids, size, rng))
    return written


def write_cityscapes(
    root, splits=("train", "val"), cities=("aachen", "bochum"), frames=1, size=(64, 128), seed=0
) -> dict[str, list[Written]]:
    """Cityscapes, every city in every split; ``classes`` are raw ids 0 to 33, there is no depth."""
    root, rng, written = Path(root), np.random.default_rng(seed), {split: [] for split in splits}
    for number, split in enumerate(splits):
        for city, frame in ((c, f) for c in cities for f in range(frames)):
            name = f"{split}/{city}/{city}_{number * frames + frame:06d}_000019"
            image = root / "leftImg8bit" / f"{name}_leftImg8bit.png"
            pixels = _write_noise(image, size, rng)
            classes = _scatter(CITYSCAPES_IDS, size, rng)
            _write(root / "gtFine" / f"{name}_gtFine_labelIds.png", classes)
            written[split].append(Written(image, pixels, classes, None))
    return written


def write_kitti(root, frames=3, size=SIZE, seed=0) -> dict[str, list[Written]]:
    """KITTI semantics; ``classes`` are raw Cityscapes ids in "training", None in "testing"."""
    root, rng, written = Path(root), np.random.default_rng(seed), {"training": [], "testing": []}
    for split, name in ((s, f"{f:06d}_10.png") for s in written for f in range(frames)):
        image = root / split / "image_2" / name
        pixels, classes = _write_noise(image, size, rng), None
        if split == "training":
            classes = _scatter(CITYSCAPES_IDS, size, rng)
            _write(root / split / "semantic" / name, classes)
        written[split].append(Written(image, pixels, classes, None))
    return written


def write_folder(
    root,
    images="images/{}.png",
    labels="labels/{}.png",
    depth="depth/{}.png",
    ids=(0, 1, 2, 7),
    frames=3,
    scale=0.001,
    size=SIZE,
    seed=0,
) -> list[Written]:
    """The user's own folder: 8-bit raw ids and 16-bit depth in units of ``scale`` metres."""
    root, rng, written = Path(root), np.random.default_rng(seed), []
    for frame in range(frames):
        image = root / images.format(f"{frame:06d}")
        pixels = _write_noise(image, size, rng)
        classes = _scatter(ids, size, rng)
        _write(root / labels.format(f"{frame:06d}"), classes)
        stored = _stored_depth(size, rng)
        _write(root / depth.format(f"{frame:06d}"), stored)
        written.append(Written(image, pixels, classes, _metres(stored, scale)))
    return written


def pack_into_archives(root: Path, patterns: dict[str, str]) -> None:
    """Move the files that match each pattern into a zip archive of its name."""
    for name, pattern in patterns.items():
        with zipfile.ZipFile(root / f"{name}.zip", "w") as archive:
            for path in sorted(root.glob(pattern)):
                archive.write(path, path.relative_to(root))
                path.unlink()


def _write_real(root, image, labels, ids, size, rng, palette=False) -> Written:
    """Write a frame without depth and, if ``labels`` is a path, its label map of ``ids``."""
    pixels, classes = _write_noise(Path(root, image), size, rng), None
    if labels:
        classes = _scatter(ids, size, rng)
        if palette:
            _write_palette(Path(root, labels), classes, rng)
        else:
            _write(Path(root, labels), classes)
    return Written(Path(root, image), pixels, classes, None)


def _scatter(values, size, rng) -> np.ndarray:
    """uint8 [H, W] with each of ``values`` equally often, in random places."""
    pixels = np.resize(np.array(values, np.uint8), size[0] * size[1])
    return rng.permutation(pixels).reshape(size)


def _with_edges(edges, stop: int, size, rng) -> np.ndarray:
    """int64 [H, W] of random values below ``stop``, among them each of ``edges``."""
    values = rng.integers(0, stop, size[0] * size[1])
    values[: len(edges)] = edges
    return rng.permutation(values).reshape(size)


def _stored_depth(size, rng) -> np.ndarray:
    """uint16 [H, W] with 0 (no depth), small values, the far plane in centimetres and beyond it."""
    return _with_edges((0, 1, 2, 99, 150, 256, 65533, 65534, 65535), 2**16, size, rng).astype("u2")


def _float_depth(size, rng) -> np.ndarray:
    """float32 [H, W] metres of a street, among them no depth, the far plane and beyond it."""
    metres = rng.uniform(2, 80, size[0] * size[1])
    edges = (0, -1, 0.001, 0.5, 655.3, 655.4, 1000, 1e5, np.inf, np.nan)
    metres[: len(edges)] = edges
    return rng.permutation(metres).reshape(size).astype(np.float32)


def _known(metres: np.ndarray) -> np.ndarray:
    """float64 [H, W] with 0 for all that is no depth up to FAR."""
    return np.where((metres > 0) & (metres <= FAR), metres, 0)


def _metres(stored: np.ndarray, unit: float) -> np.ndarray:
    """Metres [H, W] of 16-bit depth in units of ``unit`` metres, 0 for no depth."""
    metres = stored * unit
    # 65534 cm lies on the far plane, whichever way the product rounds
    nothing = (stored == 0) | (stored == 65535) | (metres > FAR + 1e-6)
    return np.where(nothing, 0, metres)


def _bytes(codes: np.ndarray) -> np.ndarray:
    """The three bytes of 24-bit numbers, highest first: [...] to uint8 [..., 3]."""
    return (codes[..., None] >> np.array([16, 8, 0]) & 255).astype(np.uint8)


def _write(path: Path, array: np.ndarray) -> None:
    """Write [H, W] or RGB [H, W, 3] of 8 or 16 bits; OpenCV wants BGR."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), array if array.ndim == 2 else array[..., ::-1]), path


def _write_palette(path: Path, indices: np.ndarray, rng) -> None:
    """Write a palette PNG, whose colours say nothing about its indices."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(indices, "P")
    image.putpalette(rng.integers(0, 256, 768, np.uint8).tobytes())
    image.save(path)


def _write_exr(path: Path, values: np.ndarray, channel: str) -> None:
    """Write float32 [H, W] as the one channel of an EXR file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, {channel: values}).write(str(path))


def _write_noise(path: Path, size, rng) -> np.ndarray:
    """Write a random image; uint8 [H, W, 3] RGB as it decodes."""
    _write(path, rng.integers(0, 256, (*size, 3), np.uint8))
    return cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1].copy()


def _write_colours(path: Path, header: str, names, colours: np.ndarray) -> None:
    """Write a header line, then ``name R G B`` a line."""
    lines = [f"{name} {r} {g} {b}" for name, (r, g, b) in zip(names, colours, strict=True)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *lines]) + "\n")
