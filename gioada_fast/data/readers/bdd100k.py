"""BDD100K's 10k images (Yu et al., CVPR 2020): real frames of 1280x720 with train ids.

    <root>/images/10k/<split>/<name>.jpg  <root>/labels/sem_seg/masks/<split>/<name>.png

or, in the older release,

    <root>/seg/images/<split>/<name>.jpg  <root>/seg/labels/<split>/<name>_train_id.png
"""

from ..files import DataSet, FrameFiles, find_images
from ..label_maps import id_labels
from ..registry import Reader, Request, Splits
from ..tree import is_folder
from .cityscapes import CITYSCAPES_TRAIN_IDS


def data_set(request: Request) -> DataSet:
    """The frames of a split."""
    reader, root, split = request.reader, request.root(), request.split
    if is_folder(root / "seg" / "images") and not is_folder(root / "images" / "10k"):
        folder, labels, suffix = "seg/images", root / "seg" / "labels", "_train_id"
    else:
        folder, labels, suffix = "images/10k", root / "labels" / "sem_seg" / "masks", ""
    images = find_images(root, f"{folder}/{split}/*", reader.layout)
    frames = [FrameFiles(i, labels / split / f"{i.stem}{suffix}.png") for i in images]
    read_labels = id_labels(CITYSCAPES_TRAIN_IDS.train_ids(request.space))
    return DataSet(reader.title, root, frames, read_labels)


READER = Reader(
    name="bdd100k",
    title="BDD100K",
    licence="educational, research and not-for-profit purposes",
    files=(
        "`images/10k/<split>/`, `labels/sem_seg/masks/<split>/`; or `seg/images/<split>/`, "
        "`seg/labels/<split>/*_train_id.png`"
    ),
    layout=(
        "download the 10K images and the segmentation labels of BDD100K and unpack them; the "
        "folder bdd100k holds images/10k/<split>/*.jpg and labels/sem_seg/masks/<split>/*.png (or "
        "seg/images/<split>/*.jpg and seg/labels/<split>/*_train_id.png)"
    ),
    data_set=data_set,
    labelling=CITYSCAPES_TRAIN_IDS,
    splits=Splits(train="train", evaluation="val"),
)
