"""Cityscapes (Cordts et al., CVPR 2016): real frames of 2048x1024 with fine labels.

<root>/leftImg8bit/<split>/<city>/<city>_000000_000000_leftImg8bit.png
<root>/gtFine/<split>/<city>/<city>_000000_000000_gtFine_labelIds.png
"""

from pathlib import Path

from ...config import SourceConfig, TargetConfig
from ...labels import CITYSCAPES, LabelSpace
from ..files import DataSet, FrameFiles, find_images, find_root, id_labels

NAME = "Cityscapes"
LABELLING = CITYSCAPES
TRAIN_SPLIT, EVALUATION_SPLIT = "train", "val"
LAYOUT = (
    "download leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip of Cityscapes and unpack "
    "them into one folder, which then holds "
    "leftImg8bit/<split>/<city>/*_leftImg8bit.png and gtFine/<split>/<city>/*_gtFine_labelIds.png"
)


def data_set(
    config: SourceConfig | TargetConfig, split: str, space: LabelSpace, side: str = "data.target"
) -> DataSet:
    """All cities of a split."""
    root = find_root(config.root, f"{side}.root", LAYOUT)
    images = find_images(root, f"leftImg8bit/{split}/*/*_leftImg8bit", LAYOUT)
    frames = [FrameFiles(image, _labels(root, split, image)) for image in images]
    return DataSet(NAME, root, frames, id_labels(CITYSCAPES.table(space)))


def _labels(root: Path, split: str, image: Path) -> Path:
    name = image.stem.removesuffix("_leftImg8bit")
    return root / "gtFine" / split / image.parent.name / f"{name}_gtFine_labelIds.png"
