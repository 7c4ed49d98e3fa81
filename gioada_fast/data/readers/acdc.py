"""ACDC (Sakaridis, Dai, Van Gool, ICCV 2021): real frames of 1920x1080 in adverse conditions.

    <root>/rgb_anon/<condition>/<split>/<sequence>/<frame>_rgb_anon.png
    <root>/gt/<condition>/<split>/<sequence>/<frame>_gt_labelIds.png         Cityscapes' ids
    <root>/gt/<condition>/<split>/<sequence>/<frame>_gt_labelTrainIds.png    or its train ids

Conditions are fog, night, rain and snow. A split such as ``train`` takes all of them,
``night/train`` one. The clear-weather images of ``<split>_ref`` are left out.
"""

from pathlib import Path

from ..files import DataSet, FrameFiles, find_images
from ..label_maps import id_labels
from ..registry import Reader, Request, Splits
from ..tree import is_file
from .cityscapes import CITYSCAPES, CITYSCAPES_TRAIN_IDS


def data_set(request: Request) -> DataSet:
    """The frames of a split, in one condition or in all."""
    reader, root, split = request.reader, request.root(), request.split
    folder = split if "/" in split else f"*/{split}"
    images = [
        image
        for image in find_images(root, f"rgb_anon/{folder}/*/*_rgb_anon", reader.layout)
        if not image.parts[-3].endswith("_ref")
    ]
    ids, train_ids = (
        [_labels(root, image, kind) for image in images] for kind in ("labelIds", "labelTrainIds")
    )
    labels, labelling = ids, CITYSCAPES
    if not any(map(is_file, ids)) and any(map(is_file, train_ids)):
        labels, labelling = train_ids, CITYSCAPES_TRAIN_IDS
    frames = [FrameFiles(*files) for files in zip(images, labels, strict=True)]
    return DataSet(reader.title, root, frames, id_labels(labelling.train_ids(request.space)))


def _labels(root: Path, image: Path, kind: str) -> Path:
    folder = image.parent.relative_to(root / "rgb_anon")
    return root / "gt" / folder / f"{image.stem.removesuffix('_rgb_anon')}_gt_{kind}.png"


READER = Reader(
    name="acdc",
    title="ACDC",
    files=(
        "`rgb_anon/<condition>/<split>/<sequence>/`, "
        "`gt/<condition>/<split>/<sequence>/*_gt_labelIds.png`"
    ),
    layout=(
        "download rgb_anon_trainvaltest.zip and gt_trainval.zip of ACDC into one folder, which "
        "then, or once they are unpacked, holds rgb_anon/<condition>/<split>/*/*_rgb_anon.png and "
        "gt/<condition>/<split>/*/*_gt_labelIds.png; a split such as train takes all conditions, "
        "night/train one"
    ),
    data_set=data_set,
    labelling=CITYSCAPES,
    splits=Splits(train="train", evaluation="val"),
)
