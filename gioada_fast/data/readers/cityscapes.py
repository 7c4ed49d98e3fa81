"""Cityscapes (Cordts et al., CVPR 2016): real frames of 2048x1024 with fine labels.

<root>/leftImg8bit/<split>/<city>/<city>_000000_000000_leftImg8bit.png
<root>/gtFine/<split>/<city>/<city>_000000_000000_gtFine_labelIds.png
"""

from pathlib import Path

from ...labels import COMMON_CLASSES, IGNORE, Labelling
from ..files import DataSet, FrameFiles, find_images
from ..label_maps import id_labels
from ..registry import Reader, Request, Splits

# gtFine's labelIds, and KITTI's semantic ids.
CITYSCAPES = Labelling(
    "Cityscapes",
    {
        name: name if name in COMMON_CLASSES else None
        for name in (
            "unlabeled", "ego vehicle", "rectification border", "out of roi", "static", "dynamic",
            "ground", "road", "sidewalk", "parking", "rail track", "building", "wall", "fence",
            "guard rail", "bridge", "tunnel", "pole", "polegroup", "traffic light", "traffic sign",
            "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "caravan",
            "trailer", "train", "motorcycle", "bicycle",
        )
    },
    spaces=("cityscapes19", "cityscapes16", "cityscapes13", "kitti10", "camvid11"),
)  # fmt: skip

# The same classes as train ids, which BDD100K, ACDC, IDD and others store.
CITYSCAPES_TRAIN_IDS = Labelling(
    "Cityscapes' train ids",
    {**{name: name for name in COMMON_CLASSES}, "ignored": None},
    spaces=CITYSCAPES.spaces,
    numbers=(*range(len(COMMON_CLASSES)), IGNORE),
)


def data_set(request: Request) -> DataSet:
    """All cities of a split."""
    reader, root, split = request.reader, request.root(), request.split
    images = find_images(root, f"leftImg8bit/{split}/*/*_leftImg8bit", reader.layout)
    frames = [FrameFiles(image, _labels(root, split, image)) for image in images]
    return DataSet(reader.title, root, frames, id_labels(CITYSCAPES.train_ids(request.space)))


def _labels(root: Path, split: str, image: Path) -> Path:
    name = image.stem.removesuffix("_leftImg8bit")
    return root / "gtFine" / split / image.parent.name / f"{name}_gtFine_labelIds.png"


READER = Reader(
    name="cityscapes",
    title="Cityscapes",
    licence="non-commercial purposes, also of models that were trained on it",
    files="`leftImg8bit/<split>/<city>/`, `gtFine/<split>/<city>/*_labelIds.png`",
    layout=(
        "download leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip of Cityscapes and "
        "unpack them into one folder, which then holds leftImg8bit/<split>/<city>/"
        "*_leftImg8bit.png and gtFine/<split>/<city>/*_gtFine_labelIds.png"
    ),
    data_set=data_set,
    labelling=CITYSCAPES,
    splits=Splits(train="train", evaluation="val"),
)
