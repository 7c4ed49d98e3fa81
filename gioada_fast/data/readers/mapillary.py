"""Mapillary Vistas (Neuhold et al., ICCV 2017): real frames of many sizes, up to 22 megapixels.

    <root>/<split>/images/<name>.jpg
    <root>/<split>/labels/<name>.png         v1.2: palette, the index is one of 66 classes
    <root>/<split>/v1.2/labels/<name>.png    the same, as the download of v2.0 has it
    <root>/<split>/v2.0/labels/<name>.png    v2.0: one of 124 classes

Splits are training, validation and testing, which has no labels.
"""

from collections.abc import Iterator
from fnmatch import fnmatch

from ...labels import Labelling
from ..files import DataSet, FrameFiles, find_images
from ..label_maps import id_labels
from ..registry import Reader, Request, Splits
from ..tree import is_folder
from .cityscapes import CITYSCAPES

# Classes in the order of their ids, each group with its common prefix.
_V1_2 = (
    ("animal", "bird ground-animal"),
    ("construction--barrier", "curb fence guard-rail other-barrier wall"),
    ("construction--flat", "bike-lane crosswalk-plain curb-cut parking pedestrian-area rail-track "
     "road service-lane sidewalk"),
    ("construction--structure", "bridge building tunnel"),
    ("human", "person rider--bicyclist rider--motorcyclist rider--other-rider"),
    ("marking", "crosswalk-zebra general"),
    ("nature", "mountain sand sky snow terrain vegetation water"),
    ("object", "banner bench bike-rack billboard catch-basin cctv-camera fire-hydrant junction-box "
     "mailbox manhole phone-booth pothole street-light"),
    ("object--support", "pole traffic-sign-frame utility-pole"),
    ("object", "traffic-light traffic-sign--back traffic-sign--front trash-can"),
    ("object--vehicle", "bicycle boat bus car caravan motorcycle on-rails other-vehicle trailer "
     "truck wheeled-slow"),
    ("void", "car-mount ego-vehicle unlabeled"),
)  # fmt: skip
_V2_0 = (
    ("animal", "bird ground-animal"),
    ("construction--barrier", "ambiguous concrete-block curb fence guard-rail other-barrier "
     "road-median road-side separator temporary wall"),
    ("construction--flat", "bike-lane crosswalk-plain curb-cut driveway parking parking-aisle "
     "pedestrian-area rail-track road road-shoulder service-lane sidewalk traffic-island"),
    ("construction--structure", "bridge building garage tunnel"),
    ("human", "person--individual person--person-group rider--bicyclist rider--motorcyclist "
     "rider--other-rider"),
    ("marking--continuous", "dashed solid zigzag"),
    ("marking--discrete", "ambiguous arrow--left arrow--other arrow--right "
     "arrow--split-left-or-straight arrow--split-right-or-straight arrow--straight "
     "crosswalk-zebra give-way-row give-way-single hatched--chevron hatched--diagonal "
     "other-marking stop-line symbol--bicycle symbol--other text"),
    ("marking-only", "continuous--dashed discrete--crosswalk-zebra discrete--other-marking "
     "discrete--text"),
    ("nature", "mountain sand sky snow terrain vegetation water"),
    ("object", "banner bench bike-rack catch-basin cctv-camera fire-hydrant junction-box mailbox "
     "manhole parking-meter phone-booth pothole"),
    ("object--sign", "advertisement ambiguous back information other store"),
    ("object", "street-light"),
    ("object--support", "pole pole-group traffic-sign-frame utility-pole"),
    ("object", "traffic-cone"),
    ("object--traffic-light", "general-single pedestrians general-upright general-horizontal "
     "cyclists other"),
    ("object--traffic-sign", "ambiguous back direction-back direction-front front "
     "information-parking temporary-back temporary-front"),
    ("object", "trash-can"),
    ("object--vehicle", "bicycle boat bus car caravan motorcycle on-rails other-vehicle trailer "
     "truck vehicle-group wheeled-slow"),
    ("object", "water-valve"),
    ("void", "car-mount dynamic ego-vehicle ground static unlabeled"),
)  # fmt: skip

# Common class of each class by the first pattern that matches. Classes that public loaders map
# differently, or leave out, are ignored: crosswalks, bike lanes, parking, bridges, snow and others.
_PATTERNS = {
    "*crosswalk*": None,
    "construction--flat--road": "road",
    "marking*": "road",
    "object--manhole": "road",
    "construction--barrier--curb": "sidewalk",
    "construction--flat--sidewalk": "sidewalk",
    "construction--structure--building": "building",
    "construction--structure--garage": "building",
    "construction--barrier--wall": "wall",
    "construction--barrier--fence": "fence",
    "object--support--pole": "pole",
    "object--support--utility-pole": "pole",
    "object--traffic-light*": "traffic light",
    "object--traffic-sign--*front": "traffic sign",
    "object--traffic-sign--information-parking": "traffic sign",
    "nature--vegetation": "vegetation",
    "nature--terrain": "terrain",
    "nature--sky": "sky",
    "human--person*": "person",
    "human--rider*": "rider",
    "object--vehicle--car": "car",
    "object--vehicle--truck": "truck",
    "object--vehicle--bus": "bus",
    "object--vehicle--on-rails": "train",
    "object--vehicle--motorcycle": "motorcycle",
    "object--vehicle--bicycle": "bicycle",
}


def _classes(groups: tuple[tuple[str, str], ...]) -> Iterator[tuple[str, str | None]]:
    for prefix, names in groups:
        for name in (f"{prefix}--{name}" for name in names.split()):
            yield name, next((c for p, c in _PATTERNS.items() if fnmatch(name, p)), None)


VISTAS_1_2, VISTAS_2_0 = (
    Labelling(f"Mapillary Vistas {version}", dict(_classes(groups)), CITYSCAPES.spaces)
    for version, groups in (("v1.2", _V1_2), ("v2.0", _V2_0))
)
_LABELS = {"labels": VISTAS_1_2, "v1.2/labels": VISTAS_1_2, "v2.0/labels": VISTAS_2_0}


def data_set(request: Request) -> DataSet:
    """The frames of a split; its folders say which version the labels have."""
    reader, root, split = request.reader, request.root(), request.split
    images = find_images(root, f"{split}/images/*", reader.layout)
    folder = next((f for f in _LABELS if is_folder(root / split / f)), "labels")
    frames = [FrameFiles(i, root / split / folder / f"{i.stem}.png") for i in images]
    labelling = _LABELS[folder]
    read_labels = id_labels(labelling.train_ids(request.space))
    return DataSet(labelling.name, root, frames, read_labels)


READER = Reader(
    name="mapillary",
    title="Mapillary Vistas",
    files="`<split>/images/`, and `<split>/labels/` (v1.2) or `<split>/v2.0/labels/`",
    layout=(
        "download Mapillary Vistas v1.2 or v2.0 and unpack it; its folder holds "
        "training/images/*.jpg, validation/images/*.jpg and validation/labels/*.png (v1.2) or "
        "validation/v2.0/labels/*.png"
    ),
    data_set=data_set,
    labelling=VISTAS_1_2,
    splits=Splits(train="training", evaluation="validation"),
)
