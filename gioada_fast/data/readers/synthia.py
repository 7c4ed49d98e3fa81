"""SYNTHIA-RAND-CITYSCAPES (Ros et al., CVPR 2016): 9,400 frames of 1280x760.

<root>/RGB/0000000.png
<root>/GT/LABELS/0000000.png       16-bit RGB: class in R, instance in G
<root>/parsed_LABELS/0000000.png   in use as well: 8 bits, the class; also as GT/parsed_LABELS
<root>/Depth/Depth/0000000.png     16-bit centimetres, the same in each channel; also as Depth/
"""

from pathlib import Path

from ...config import SourceConfig
from ...errors import InputError
from ...labels import SYNTHIA, LabelSpace
from ..files import CENTIMETRES, DataSet, FrameFiles, find_images, find_root, id_labels

NAME = "SYNTHIA-RAND-CITYSCAPES"
LABELLING = SYNTHIA
LAYOUT = (
    "download SYNTHIA-RAND-CITYSCAPES (CVPR16) and unpack it; its folder holds "
    "RGB/0000000.png, GT/LABELS/0000000.png (or parsed_LABELS/0000000.png) and "
    "Depth/Depth/0000000.png (or Depth/0000000.png)"
)


def data_set(config: SourceConfig, space: LabelSpace) -> DataSet:
    """All frames; labels as shipped, where they are there, else the parsed ones."""
    root = find_root(config.root, "data.source.root", LAYOUT)
    images = find_images(root, "RGB/*", LAYOUT)
    labels = _folder(root, "GT/LABELS", "parsed_LABELS", "GT/parsed_LABELS")
    depth = _folder(root, "Depth/Depth", "Depth")
    frames = [FrameFiles(i, labels / f"{i.stem}.png", depth / f"{i.stem}.png") for i in images]
    shipped = labels.name == "LABELS"
    return DataSet(NAME, root, frames, id_labels(SYNTHIA.table(space), in_red=shipped), CENTIMETRES)


def _folder(root: Path, *names: str) -> Path:
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise InputError(f"{root}: has none of the folders {', '.join(names)}; {LAYOUT}")
