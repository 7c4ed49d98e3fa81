"""The one table of classes: label spaces that are trained and scored, and data sets' own labels.

Cityscapes's names are what the two sides have in common: a ``Labelling`` says which of them each of
a data set's own classes is, a ``LabelSpace`` which of them each of its classes takes in.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from .errors import InputError

IGNORE = 255
"""Train id of pixels that are neither trained nor scored."""

FAR = 655.34
"""Metres, the largest depth: the last value of 16-bit centimetres. Beyond it a pixel has none."""

UNKNOWN = -1
"""Entry of a look-up table for ids that the data set does not have."""


@dataclass(frozen=True)
class LabelSpace:
    """Classes that are trained and scored, in the order of their train ids."""

    name: str
    classes: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    """RGB, one for each class."""
    ids: tuple[int, ...]
    """Ids by which the official evaluators know the classes."""
    merged: tuple[tuple[str, str], ...] = ()
    """Cityscapes's names that are part of a class of another name, with that name. A tuple, for a
    space is hashed and sent to other processes."""
    also_scored: str | None = None
    """Label space whose classes are some of these, with a mean of its own in the field's tables."""

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def train_id(self, name: str | None) -> int:
        """Train id of Cityscapes's class ``name``; IGNORE where no class takes it in."""
        name = dict(self.merged).get(name, name)
        return self.classes.index(name) if name in self.classes else IGNORE

    def colourise(self, labels: np.ndarray) -> np.ndarray:
        """Train ids [H, W] to RGB uint8 [H, W, 3]; ignored pixels are black."""
        palette = np.zeros((256, 3), np.uint8)
        palette[: self.num_classes] = self.colours
        return palette[labels]

    def official_ids(self, labels: np.ndarray) -> np.ndarray:
        """Train ids [H, W] to the ids [H, W] uint8 that the official evaluators take."""
        table = np.zeros(256, np.uint8)
        table[: self.num_classes] = self.ids
        return table[labels]


@dataclass(frozen=True)
class Labelling:
    """What the label maps of a data set hold."""

    name: str
    classes: Mapping[str, str | None]
    """The data set's own name of a class, and Cityscapes's; None is never trained or scored. The
    place in the order is the id."""
    spaces: tuple[str, ...]
    """Label spaces that it can be mapped to."""

    @property
    def ids(self) -> dict[str, int]:
        """Id of each of the data set's own names."""
        return {name: index for index, name in enumerate(self.classes)}

    def table(self, space: LabelSpace) -> np.ndarray:
        """int16 [256] from the data set's ids to train ids of ``space``, IGNORE or UNKNOWN."""
        table = np.full(256, UNKNOWN, np.int16)
        table[: len(self.classes)] = [space.train_id(name) for name in self.classes.values()]
        return table


# name: (id, colour), as in cityscapesscripts.helpers.labels
_CITYSCAPES = {
    "road": (7, (128, 64, 128)),
    "sidewalk": (8, (244, 35, 232)),
    "building": (11, (70, 70, 70)),
    "wall": (12, (102, 102, 156)),
    "fence": (13, (190, 153, 153)),
    "pole": (17, (153, 153, 153)),
    "traffic light": (19, (250, 170, 30)),
    "traffic sign": (20, (220, 220, 0)),
    "vegetation": (21, (107, 142, 35)),
    "terrain": (22, (152, 251, 152)),
    "sky": (23, (70, 130, 180)),
    "person": (24, (220, 20, 60)),
    "rider": (25, (255, 0, 0)),
    "car": (26, (0, 0, 142)),
    "truck": (27, (0, 0, 70)),
    "bus": (28, (0, 60, 100)),
    "train": (31, (0, 80, 100)),
    "motorcycle": (32, (0, 0, 230)),
    "bicycle": (33, (119, 11, 32)),
}


def _cityscapes_space(name: str, *without: str, also_scored: str | None = None) -> LabelSpace:
    classes = tuple(c for c in _CITYSCAPES if c not in without)
    ids, colours = zip(*(_CITYSCAPES[c] for c in classes), strict=True)
    return LabelSpace(name, classes, colours, ids, also_scored=also_scored)


CITYSCAPES19 = _cityscapes_space("cityscapes19")
# SYNTHIA and Cityscapes have 16 classes in common; most tables add a mean without the three that
# SYNTHIA draws least like Cityscapes.
CITYSCAPES16 = _cityscapes_space(
    "cityscapes16", "terrain", "truck", "train", also_scored="cityscapes13"
)
CITYSCAPES13 = _cityscapes_space(
    "cityscapes13", "terrain", "truck", "train", "wall", "fence", "pole"
)
# What Virtual KITTI draws of KITTI's classes.
KITTI10 = _cityscapes_space(
    "kitti10", "sidewalk", "wall", "fence", "person", "rider", "bus", "train", "motorcycle",
    "bicycle",
)  # fmt: skip
# CamVid as packed in the SegNet tutorial. It draws walls with buildings, grass and hedges with
# trees, lights with signs, lorries and buses with cars, and a rider with the bicycle under it.
CAMVID11 = LabelSpace(
    "camvid11",
    ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian",
     "bicyclist"),
    ((128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
     (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192)),
    ids=tuple(range(11)),
    merged=(
        ("wall", "building"), ("sidewalk", "pavement"), ("vegetation", "tree"), ("terrain", "tree"),
        ("traffic sign", "sign"), ("traffic light", "sign"), ("truck", "car"), ("bus", "car"),
        ("person", "pedestrian"), ("rider", "bicyclist"), ("bicycle", "bicyclist"),
        ("motorcycle", "bicyclist"),
    ),
)  # fmt: skip

LABEL_SPACES = {
    space.name: space for space in (CAMVID11, CITYSCAPES19, CITYSCAPES16, CITYSCAPES13, KITTI10)
}

# Ids in the label files that the street-scene generator writes.
STREET = Labelling(
    "street scenes",
    {
        "sky": "sky",
        "building": "building",
        "wall": "wall",
        "pole": "pole",
        "road": "road",
        "pavement": "sidewalk",
        "tree": "vegetation",
        "terrain": "terrain",
        "traffic light": "traffic light",
        "traffic sign": "traffic sign",
        "fence": "fence",
        "car": "car",
        "bus": "bus",
        "lorry": "truck",
        "pedestrian": "person",
        "rider": "rider",
        "bicycle": "bicycle",
        "motorcycle": "motorcycle",
        "void": None,
    },
    spaces=("camvid11", "cityscapes16", "cityscapes13", "kitti10"),
)
STREET_IDS = STREET.ids

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

# gtFine's labelIds, and KITTI's semantic ids.
CITYSCAPES = Labelling(
    "Cityscapes",
    {
        name: name if name in _CITYSCAPES else None
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

# SYNTHIA-RAND-CITYSCAPES. The classes that no public table of 16 classes uses stay out.
SYNTHIA = Labelling(
    "SYNTHIA",
    {
        "void": None,
        "sky": "sky",
        "building": "building",
        "road": "road",
        "sidewalk": "sidewalk",
        "fence": "fence",
        "vegetation": "vegetation",
        "pole": "pole",
        "car": "car",
        "traffic sign": "traffic sign",
        "pedestrian": "person",
        "bicycle": "bicycle",
        "motorcycle": "motorcycle",
        "parking slot": None,
        "road work": None,
        "traffic light": "traffic light",
        "terrain": None,
        "rider": "rider",
        "truck": None,
        "bus": "bus",
        "train": None,
        "wall": "wall",
        "lane marking": None,
    },
    spaces=("cityscapes16", "cityscapes13"),
)

# Both versions; the label maps hold colours, of which these are the classes.
VKITTI = Labelling(
    "Virtual KITTI",
    {
        "Terrain": "terrain",
        "Sky": "sky",
        "Tree": "vegetation",
        "Vegetation": "vegetation",
        "Building": "building",
        "Road": "road",
        "GuardRail": None,
        "TrafficSign": "traffic sign",
        "TrafficLight": "traffic light",
        "Pole": "pole",
        "Misc": None,
        "Truck": "truck",
        "Car": "car",
        "Van": "car",
        "Undefined": None,
    },
    spaces=("kitti10",),
)

# Tags of CARLA 0.9.10 to 0.9.13 and of SHIFT, which was recorded with them. Vehicles of all kinds
# are one class, and riders are pedestrians.
CARLA_0_9_10 = Labelling(
    "CARLA 0.9.10 to 0.9.13",
    {
        "unlabeled": None,
        "building": "building",
        "fence": "fence",
        "other": None,
        "pedestrian": "person",
        "pole": "pole",
        "road line": "road",
        "road": "road",
        "sidewalk": "sidewalk",
        "vegetation": "vegetation",
        "vehicle": "car",
        "wall": "wall",
        "traffic sign": "traffic sign",
        "sky": "sky",
        "ground": None,
        "bridge": None,
        "rail track": None,
        "guard rail": None,
        "traffic light": "traffic light",
        "static": None,
        "dynamic": None,
        "water": None,
        "terrain": "terrain",
    },
    spaces=("cityscapes19", "cityscapes16", "cityscapes13", "kitti10", "camvid11"),
)

# Tags since CARLA 0.9.14: Cityscapes's train ids and one, then CARLA's own.
CARLA_0_9_14 = Labelling(
    "CARLA 0.9.14 and later",
    {
        "unlabeled": None,
        **{name: name for name in _CITYSCAPES},
        "static": None,
        "dynamic": None,
        "other": None,
        "water": None,
        "road line": "road",
        "ground": None,
        "bridge": None,
        "rail track": None,
        "guard rail": None,
    },
    spaces=("cityscapes19", "cityscapes16", "cityscapes13", "kitti10", "camvid11"),
)

CARLA_TABLES = {
    "carla_0_9_10": CARLA_0_9_10,
    "carla_0_9_14": CARLA_0_9_14,
    "shift": CARLA_0_9_10,
}


def lookup_table(train_ids: Mapping[int, int]) -> np.ndarray:
    """int16 [256] table from a data set's id to the train id or IGNORE; all others are UNKNOWN."""
    table = np.full(256, UNKNOWN, np.int16)
    table[list(train_ids)] = list(train_ids.values())
    return table


def read_class_map(path: Path, space: LabelSpace) -> dict[int | tuple[int, int, int], int]:
    """Train ids by id, or by colour, from a YAML file of one's own.

    Keys are ids from 0 to 255, or colours as ``"R G B"``; values are classes of ``space``, or null
    for what is ignored::

        0: road
        1: building
        255: null

    Raises:
        InputError: the file is not such a map; tells the entry.
    """
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: class map: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: class map is not readable as YAML: {error}") from error
    if not isinstance(entries, dict) or not entries:
        raise InputError(f"{path}: class map holds no entries such as '7: road'")
    train_ids: dict[int | tuple[int, int, int], int] = {}
    for key, name in entries.items():
        if name is not None and name not in space.classes:
            raise InputError(
                f"{path}: {key}: {name!r} is no class of {space.name} "
                f"({', '.join(space.classes)}); null ignores an id"
            )
        train_ids[_id_or_colour(key, path)] = IGNORE if name is None else space.classes.index(name)
    if len({type(key) for key in train_ids}) > 1:
        raise InputError(f"{path}: class map mixes ids and colours")
    return train_ids


def _id_or_colour(key: object, path: Path) -> int | tuple[int, int, int]:
    parts = str(key).split()
    if len(parts) in (1, 3) and all(part.isdecimal() and int(part) < 256 for part in parts):
        numbers = tuple(map(int, parts))
        return numbers if len(numbers) == 3 else numbers[0]
    raise InputError(
        f"{path}: {key!r} is neither an id from 0 to 255 nor a colour such as '128 64 128'"
    )
