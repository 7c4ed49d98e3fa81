"""India Driving Dataset, segmentation (Varma et al., WACV 2019): real frames.

    <root>/leftImg8bit/<split>/<sequence>/<frame>_leftImg8bit.png    or .jpg
    <root>/gtFine/<split>/<sequence>/<frame>_gtFine_polygons.json    as downloaded
    <root>/gtFine/<split>/<sequence>/<frame>_gtFine_labelcsTrainIds.png
    <root>/gtFine/<split>/<sequence>/<frame>_gtFine_labellevel3Ids.png

The public tool (AutoNUE/public-code) draws the label images from the polygons: Cityscapes' train
ids, which are preferred, or the 26 classes of level 3.
"""

from pathlib import Path

from ...errors import InputError
from ...labels import IGNORE, Labelling
from ..files import DataSet, FrameFiles, find_images
from ..label_maps import id_labels
from ..registry import Reader, Request, Splits
from ..tree import is_file
from .cityscapes import CITYSCAPES_TRAIN_IDS

# Level 3 merges some classes: animals count as persons, the rail track as terrain, groups of poles
# as poles, and what is left of the background as sky, as the public tool has it.
LEVEL_3 = Labelling(
    "IDD level 3",
    {
        "road": "road",
        "parking and drivable fallback": None,
        "sidewalk": "sidewalk",
        "non-drivable fallback and rail track": "terrain",
        "person and animal": "person",
        "rider": "rider",
        "motorcycle": "motorcycle",
        "bicycle": "bicycle",
        "autorickshaw": None,
        "car": "car",
        "truck": "truck",
        "bus": "bus",
        "caravan, trailer, train and vehicle fallback": None,
        "curb": None,
        "wall": "wall",
        "fence": "fence",
        "guard rail": None,
        "billboard": None,
        "traffic sign": "traffic sign",
        "traffic light": "traffic light",
        "pole": "pole",
        "obs-str-bar-fallback": None,
        "building": "building",
        "bridge and tunnel": None,
        "vegetation": "vegetation",
        "sky and fallback background": "sky",
        "unlabeled": None,
    },
    spaces=CITYSCAPES_TRAIN_IDS.spaces,
    numbers=(*range(26), IGNORE),
)

# By the tool's --id-type, the preferred one first.
_ENCODINGS = {"csTrainId": CITYSCAPES_TRAIN_IDS, "level3Id": LEVEL_3}
_COMMAND = "python preperation/createLabels.py --datadir {} --id-type csTrainId --num-workers 4"


def data_set(request: Request) -> DataSet:
    """The frames of a split, with the label images that the tool has drawn."""
    reader, root, split = request.reader, request.root(), request.split
    images = find_images(root, f"leftImg8bit/{split}/*/*_leftImg8bit", reader.layout)
    encoding = next(
        (e for e in _ENCODINGS if any(is_file(_labels(root, split, i, e)) for i in images)), None
    )
    if encoding is None and request.part != "target":
        raise InputError(
            f"{root / 'gtFine' / split}: no label images; draw them from the polygons with the "
            f"repository AutoNUE/public-code:\n{_COMMAND.format(root)}"
        )
    encoding = encoding or "csTrainId"
    frames = [FrameFiles(image, _labels(root, split, image, encoding)) for image in images]
    read_labels = id_labels(_ENCODINGS[encoding].train_ids(request.space))
    return DataSet(reader.title, root, frames, read_labels)


def _labels(root: Path, split: str, image: Path, encoding: str) -> Path:
    name = image.stem.removesuffix("_leftImg8bit")
    return root / "gtFine" / split / image.parent.name / f"{name}_gtFine_label{encoding}s.png"


READER = Reader(
    name="idd",
    title="IDD",
    files="`leftImg8bit/<split>/<sequence>/`, `gtFine/<split>/<sequence>/*_labelcsTrainIds.png`",
    layout=(
        "download IDD Segmentation and unpack it; its folder holds leftImg8bit/<split>/*/"
        "*_leftImg8bit.png and gtFine/<split>/*/*_gtFine_polygons.json, from which the repository "
        f"AutoNUE/public-code draws label images: {_COMMAND.format('<folder>')}"
    ),
    data_set=data_set,
    labelling=CITYSCAPES_TRAIN_IDS,
    splits=Splits(train="train", evaluation="val"),
)
