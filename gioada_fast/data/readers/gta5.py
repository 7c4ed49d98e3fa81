"""GTA5, Playing for Data (Richter et al., ECCV 2016): 24,966 frames of 1914x1052, without depth.

    <root>/images/00001.png
    <root>/labels/00001.png    palette: the index is Cityscapes' id

A few frames have other sizes; 15188 and 17705 show nothing but black.
"""

from ...labels import Labelling
from ..files import DataSet, FrameFiles, find_images
from ..label_maps import id_labels
from ..registry import Reader, Request
from .cityscapes import CITYSCAPES

GTA5 = Labelling("GTA5", {**CITYSCAPES.classes, "license plate": None}, CITYSCAPES.spaces)


def data_set(request: Request) -> DataSet:
    """All frames."""
    reader, root = request.reader, request.root()
    images = find_images(root, "images/*", reader.layout)
    frames = [FrameFiles(image, root / "labels" / f"{image.stem}.png") for image in images]
    read_labels = id_labels(GTA5.train_ids(request.space))
    return DataSet(reader.title, root, frames, read_labels)


READER = Reader(
    name="gta5",
    title="GTA5",
    files="`images/`, `labels/`",
    layout=(
        "download 01_images.zip to 10_images.zip and 01_labels.zip to 10_labels.zip of Playing for "
        "Data into one folder, which then, or once they are unpacked, holds images/00001.png and "
        "labels/00001.png"
    ),
    data_set=data_set,
    labelling=GTA5,
    sides=("source",),
)
