"""SYNTHIA-RAND-CITYSCAPES (Ros et al., CVPR 2016): 9,400 frames of 1280x760.

<root>/RGB/0000000.png
<root>/GT/LABELS/0000000.png       16-bit RGB: class in R, instance in G
<root>/parsed_LABELS/0000000.png   also common: 8 bits, the class; or in GT/parsed_LABELS
<root>/Depth/Depth/0000000.png     16-bit centimetres, the same in each channel; or in Depth/
"""

from pathlib import Path

from ...errors import InputError
from ...labels import Labelling
from .. import tree
from ..depth_maps import CENTIMETRES
from ..files import DataSet, FrameFiles, find_images
from ..label_maps import id_labels
from ..registry import Reader, Request

# Classes outside the usual 16 are ignored.
SYNTHIA = Labelling(
    "SYNTHIA",
    {
        "void": None,
        "sky": "sky",
        "building": "building",
        "road": "road",
        "sidewalk": "sidewalk",
        "fence": "fence",
        "vegetation": "vegetation",
        "pole": "pole",
        "car": "car",
        "traffic sign": "traffic sign",
        "pedestrian": "person",
        "bicycle": "bicycle",
        "motorcycle": "motorcycle",
        "parking slot": None,
        "road work": None,
        "traffic light": "traffic light",
        "terrain": None,
        "rider": "rider",
        "truck": None,
        "bus": "bus",
        "train": None,
        "wall": "wall",
        "lane marking": None,
    },
    spaces=("cityscapes16", "cityscapes13"),
)


def data_set(request: Request) -> DataSet:
    """All frames, with labels as shipped or else the parsed ones."""
    reader, root = request.reader, request.root()
    images = find_images(root, "RGB/*", reader.layout)
    labels = _folder(request, root, "GT/LABELS", "parsed_LABELS", "GT/parsed_LABELS")
    depth = _folder(request, root, "Depth/Depth", "Depth")
    frames = [FrameFiles(i, labels / f"{i.stem}.png", depth / f"{i.stem}.png") for i in images]
    read_labels = id_labels(SYNTHIA.train_ids(request.space), in_red=labels.name == "LABELS")
    return DataSet(reader.title, root, frames, read_labels, CENTIMETRES)


def _folder(request: Request, root: Path, *names: str) -> Path:
    for name in names:
        if tree.is_folder(root / name):
            return root / name
    raise InputError(f"{root}: has none of the folders {', '.join(names)}; {request.reader.layout}")


READER = Reader(
    name="synthia",
    title="SYNTHIA-RAND-CITYSCAPES",
    files=(
        "`RGB/`, `GT/LABELS/` as shipped (16 bits) or `parsed_LABELS/` (8 bits), `Depth/Depth/` or "
        "`Depth/`"
    ),
    layout=(
        "download SYNTHIA-RAND-CITYSCAPES (CVPR16) and unpack it; its folder holds "
        "RGB/0000000.png, GT/LABELS/0000000.png (or parsed_LABELS/0000000.png) and "
        "Depth/Depth/0000000.png (or Depth/0000000.png)"
    ),
    data_set=data_set,
    labelling=SYNTHIA,
    sides=("source",),
)
