"""Label spaces: class names, colours, and look-up tables from a data set's ids to train ids."""

from dataclasses import dataclass

import numpy as np

from ..errors import InputError

IGNORE = 255


@dataclass(frozen=True)
class LabelSpace:
    """Classes that are trained and scored, in the order of their train ids."""

    name: str
    classes: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    """RGB, one for each class."""

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def colourise(self, labels: np.ndarray) -> np.ndarray:
        """Train ids [H, W] to RGB uint8 [H, W, 3]; ignored pixels are black."""
        palette = np.zeros((256, 3), np.uint8)
        palette[: self.num_classes] = self.colours
        return palette[labels]


CAMVID11 = LabelSpace(
    "camvid11",
    ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian",
     "bicyclist"),
    ((128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
     (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192)),
)  # fmt: skip

CITYSCAPES16 = LabelSpace(
    "cityscapes16",
    ("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign",
     "vegetation", "sky", "person", "rider", "car", "bus", "motorcycle", "bicycle"),
    ((128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153),
     (153, 153, 153), (250, 170, 30), (220, 220, 0), (107, 142, 35), (70, 130, 180), (220, 20, 60),
     (255, 0, 0), (0, 0, 142), (0, 60, 100), (0, 0, 230), (119, 11, 32)),
)  # fmt: skip

LABEL_SPACES = {space.name: space for space in (CAMVID11, CITYSCAPES16)}

# What the street-scene generator draws, and the class that each becomes in the two label spaces.
# CamVid draws walls with buildings, grass and hedges with trees, lights with signs, lorries and
# buses with cars, and a rider with the bicycle under it; the 16 classes know no lorry, no terrain.
# name: (camvid11, cityscapes16); None is ignored.
STREET_CLASSES: dict[str, tuple[str | None, str | None]] = {
    "sky": ("sky", "sky"),
    "building": ("building", "building"),
    "wall": ("building", "wall"),
    "pole": ("pole", "pole"),
    "road": ("road", "road"),
    "pavement": ("pavement", "sidewalk"),
    "tree": ("tree", "vegetation"),
    "terrain": ("tree", None),
    "traffic light": ("sign", "traffic light"),
    "traffic sign": ("sign", "traffic sign"),
    "fence": ("fence", "fence"),
    "car": ("car", "car"),
    "bus": ("car", "bus"),
    "lorry": ("car", None),
    "pedestrian": ("pedestrian", "person"),
    "rider": ("bicyclist", "rider"),
    "bicycle": ("bicyclist", "bicycle"),
    "motorcycle": ("bicyclist", "motorcycle"),
    "void": (None, None),
}
STREET_IDS = {name: index for index, name in enumerate(STREET_CLASSES)}
"""Ids in the label files that the street-scene generator writes."""


UNKNOWN = -1
"""Entry of a look-up table for ids that the data set does not have."""


def lookup_table(train_ids: dict[int, int], ignored: tuple[int, ...] = ()) -> np.ndarray:
    """int16 [256] table from a data set's id to the train id, IGNORE or UNKNOWN."""
    table = np.full(256, UNKNOWN, np.int16)
    table[list(ignored)] = IGNORE
    table[list(train_ids)] = list(train_ids.values())
    return table


def street_table(space: LabelSpace) -> np.ndarray:
    """Table from the ids of ``STREET_CLASSES`` to the train ids of ``space``."""
    column = {CAMVID11.name: 0, CITYSCAPES16.name: 1}[space.name]
    train_ids = {
        STREET_IDS[name]: space.classes.index(names[column])
        for name, names in STREET_CLASSES.items()
        if names[column] is not None
    }
    return lookup_table(train_ids, ignored=tuple(STREET_IDS.values()))


def camvid_table(space: LabelSpace) -> np.ndarray:
    """Table from CamVid's label values 0 to 11 (11 is unlabelled) to the train ids of ``space``."""
    if space != CAMVID11:
        raise InputError(
            f"camvid is labelled with {CAMVID11.name} ({', '.join(CAMVID11.classes)}), not with "
            f"{space.name} ({', '.join(space.classes)}): set data.label_space to {CAMVID11.name}"
        )
    return lookup_table({index: index for index in range(CAMVID11.num_classes)}, ignored=(11,))
