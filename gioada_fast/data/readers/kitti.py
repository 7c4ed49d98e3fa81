"""KITTI's semantic segmentation benchmark (Alhaija et al., IJCV 2018): 200 labelled real frames.

<root>/training/image_2/000000_10.png
<root>/training/semantic/000000_10.png    Cityscapes's ids
<root>/testing/image_2/000000_10.png
"""

from ...config import SourceConfig, TargetConfig
from ...labels import CITYSCAPES, LabelSpace
from ..files import DataSet, FrameFiles, find_images, find_root, id_labels

NAME = "KITTI"
LABELLING = CITYSCAPES
TRAIN_SPLIT, EVALUATION_SPLIT = "testing", "training"
"""Only ``training`` has labels: it is what scores, and ``testing`` what is trained on."""
LAYOUT = (
    "download data_semantics.zip of KITTI's semantic segmentation benchmark and unpack it; its "
    "folder holds training/image_2/000000_10.png, training/semantic/000000_10.png and "
    "testing/image_2/000000_10.png"
)


def data_set(
    config: SourceConfig | TargetConfig, split: str, space: LabelSpace, side: str = "data.target"
) -> DataSet:
    """The frames of ``training`` or ``testing``."""
    root = find_root(config.root, f"{side}.root", LAYOUT)
    images = find_images(root, f"{split}/image_2/*", LAYOUT)
    labels = root / split / "semantic"
    frames = [FrameFiles(image, labels / f"{image.stem}.png") for image in images]
    return DataSet(NAME, root, frames, id_labels(CITYSCAPES.table(space)))
