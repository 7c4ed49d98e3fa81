"""Virtual KITTI 1.3.1 (Gaidon et al., CVPR 2016), and its classes, which version 2 shares.

    <root>/vkitti_1.3.1_rgb/<world>/<variation>/00000.png
    <root>/vkitti_1.3.1_scenegt/<world>/<variation>/00000.png
    <root>/vkitti_1.3.1_scenegt/<world>_<variation>_scenegt_rgb_encoding.txt
    <root>/vkitti_1.3.1_depthgt/<world>/<variation>/00000.png

Each object of a world and variation has its own colour; the text file lists their classes. Depth is
16-bit centimetres; 655.35 m means no depth.
"""

from functools import lru_cache
from pathlib import Path

from ...errors import InputError
from ...labels import Labelling, LabelSpace
from .. import tree
from ..depth_maps import CENTIMETRES
from ..files import DataSet, FrameFiles, find_images
from ..label_maps import Colours, colour_labels
from ..registry import Reader, Request

# For both versions. Label maps contain colours, which colour tables map to these classes.
VKITTI = Labelling(
    "Virtual KITTI",
    {
        "Terrain": "terrain",
        "Sky": "sky",
        "Tree": "vegetation",
        "Vegetation": "vegetation",
        "Building": "building",
        "Road": "road",
        "GuardRail": None,
        "TrafficSign": "traffic sign",
        "TrafficLight": "traffic light",
        "Pole": "pole",
        "Misc": None,
        "Truck": "truck",
        "Car": "car",
        "Van": "car",
        "Undefined": None,
    },
    spaces=("kitti10",),
)


def data_set(request: Request) -> DataSet:
    """All worlds and variations; ``include`` selects among them."""
    reader, root = request.reader, request.root()
    images = find_images(root, "vkitti_1.3.1_rgb/*/*/*", reader.layout)
    frames = [FrameFiles(i, _beside(i, "scenegt"), _beside(i, "depthgt")) for i in images]
    read_labels = colour_labels(_Encodings(request.space))
    return DataSet(reader.title, root, frames, read_labels, CENTIMETRES)


def _beside(image: Path, kind: str) -> Path:
    *_, world, variation, _ = image.parts
    folder = image.parents[3] / f"vkitti_1.3.1_{kind}"
    return folder / world / variation / f"{image.stem}.png"


class _Encodings:
    """Colours of a label map by its world and variation."""

    def __init__(self, space: LabelSpace):
        self.space = space

    def __call__(self, labels: Path) -> Colours:
        world, variation = labels.parts[-3:-1]
        name = f"{world}_{variation}_scenegt_rgb_encoding.txt"
        return read_colours(labels.parents[2] / name, self.space)


@lru_cache(maxsize=256)
def read_colours(path: Path, space: LabelSpace) -> Colours:
    """Train ids by colour from a text file: a header, then ``Name[:instance] R G B``."""
    try:
        lines = tree.read_bytes(path).decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: colours of the classes: not a text file ({error})") from error
    colours = {}
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        try:
            name, *rgb = line.split()
            r, g, b = map(int, rgb)
        except ValueError:
            raise InputError(f"{path}: line {number}: {line!r} is not 'Name R G B'") from None
        category = name.partition(":")[0]
        if category not in VKITTI.classes:
            raise InputError(
                f"{path}: line {number}: class {category!r}, expected one of "
                f"{', '.join(VKITTI.classes)}"
            )
        colours[r, g, b] = space.train_id(VKITTI.classes[category])
    if not colours:
        raise InputError(f"{path}: names no colour")
    return colours


READER = Reader(
    name="vkitti",
    title="Virtual KITTI 1.3.1",
    files=(
        "`vkitti_1.3.1_{rgb,scenegt,depthgt}/<world>/<variation>/00000.png` and the colour tables "
        "`vkitti_1.3.1_scenegt/<world>_<variation>_scenegt_rgb_encoding.txt`"
    ),
    layout=(
        "download vkitti_1.3.1_rgb.tar, vkitti_1.3.1_scenegt.tar and vkitti_1.3.1_depthgt.tar of "
        "Virtual KITTI and unpack them into one folder, which then holds "
        "vkitti_1.3.1_{rgb,scenegt,depthgt}/<world>/<variation>/00000.png and "
        "vkitti_1.3.1_scenegt/<world>_<variation>_scenegt_rgb_encoding.txt"
    ),
    data_set=data_set,
    labelling=VKITTI,
    sides=("source",),
)
