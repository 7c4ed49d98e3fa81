"""KITTI's semantic segmentation benchmark (Alhaija et al., IJCV 2018): 200 labelled real frames.

<root>/training/image_2/000000_10.png
<root>/training/semantic/000000_10.png    Cityscapes' ids
<root>/testing/image_2/000000_10.png
"""

from ..files import DataSet, FrameFiles, find_images
from ..label_maps import id_labels
from ..registry import Reader, Request, Splits
from .cityscapes import CITYSCAPES


def data_set(request: Request) -> DataSet:
    """The frames of ``training`` or ``testing``."""
    reader, root = request.reader, request.root()
    images = find_images(root, f"{request.split}/image_2/*", reader.layout)
    labels = root / request.split / "semantic"
    frames = [FrameFiles(image, labels / f"{image.stem}.png") for image in images]
    return DataSet(reader.title, root, frames, id_labels(CITYSCAPES.train_ids(request.space)))


READER = Reader(
    name="kitti",
    title="KITTI",
    licence="CC BY-NC-SA 3.0",
    files="`training/{image_2,semantic}/`, `testing/image_2/`",
    layout=(
        "download data_semantics.zip of KITTI's semantic segmentation benchmark and unpack it; its "
        "folder holds training/image_2/000000_10.png, training/semantic/000000_10.png and "
        "testing/image_2/000000_10.png"
    ),
    data_set=data_set,
    labelling=CITYSCAPES,
    # only training has labels, so it scores
    splits=Splits(train="testing", evaluation="training"),
)
