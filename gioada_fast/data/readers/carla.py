"""Recordings of CARLA (Dosovitskiy et al., CoRL 2017).

    <root>/rgb/000000.png  <root>/semantic/000000.png  <root>/depth/000000.png

or another layout that ``images``, ``labels`` and ``depth`` describe. The semantic tag is in R; the
tags of version 0.9.14 are other ones than those before. Depth has 24 bits, R + 256 G + 65536 B,
from 0 to 1000 metres; the sky is at 1000.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np

from ...config import SourceConfig, TargetConfig
from ...errors import InputError
from ...labels import COMMON_CLASSES, Labelling, read_class_map
from ..class_maps import class_map_labels
from ..depth_maps import CARLA_DEPTH
from ..files import DataSet, find_root
from ..label_maps import id_labels
from ..rasters import read_labels as stored_labels
from ..registry import Reader, Request
from ..tree import is_folder
from .folder import by_patterns

IMAGES, LABELS, DEPTH = "rgb/*", "semantic/*", "depth/*"

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

# Tags since CARLA 0.9.14: Cityscapes' train ids plus one, then CARLA's own.
CARLA_0_9_14 = Labelling(
    "CARLA 0.9.14 and later",
    {
        "unlabeled": None,
        **{name: name for name in COMMON_CLASSES},
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

# SHIFT was recorded with the older tags, and has pixels of one more.
SHIFT = Labelling("SHIFT", {**CARLA_0_9_10.classes, "undefined": None}, CARLA_0_9_10.spaces)

TABLES = {
    "carla_0_9_10": CARLA_0_9_10,
    "carla_0_9_14": CARLA_0_9_14,
    "shift": SHIFT,
}

_MAPS = 8
"""Number of label maps that decide between the tables."""
_ROAD_AND_SKY = {"carla_0_9_10": ((7, 6), (13,)), "carla_0_9_14": ((1, 24), (11,))}
"""Tags of the road with its lines, and of the sky."""


def labelling(config: SourceConfig | TargetConfig) -> Labelling | None:
    """The table of tags that ``classes`` names or, if it is unset, the one that the maps draw.

    None for a class map. Also None if the label maps do not decide, or are gone, as they may be
    once they are packed.
    """
    if config.classes is None:
        try:
            root = find_root(config.root, "data.source.root", "")
            return TABLES[_drawn_table(root, config.images or IMAGES, config.labels or LABELS)]
        except InputError:
            return None
    if not isinstance(config.classes, str):
        return None
    if config.classes in TABLES:
        return TABLES[config.classes]
    path = Path(config.classes).expanduser()
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return None
    raise InputError(
        f"data.source.classes is {config.classes!r}, expected one of {', '.join(TABLES)}, or a "
        "class map (a YAML file)"
    )


@lru_cache
def _drawn_table(root: Path, images: str, labels: str) -> str:
    name = recognise(DataSet("", root, by_patterns(root, images, labels, None, "")))
    if name is None:
        raise InputError(f"{root}: the label maps do not decide")
    return name


def recognise(data: DataSet) -> str | None:
    """Name of the table whose road lies below and whose sky lies above in some label maps.

    None if that is neither of the two tables, or both. SHIFT has the tags of ``carla_0_9_10``.
    """
    paths = [files.labels for files in data.frames if files.labels is not None]
    shares = dict.fromkeys(_ROAD_AND_SKY, 0.0)
    for path in paths[:: -(-len(paths) // _MAPS) or 1]:
        try:
            tags = stored_labels(path)
        except InputError:
            continue  # check and training report it
        tags = tags if tags.ndim == 2 else tags[:, :, 0]
        rows = -(-len(tags) // 5)
        for name, (road, sky) in _ROAD_AND_SKY.items():
            shares[name] += np.isin(tags[-rows:], road).mean() + np.isin(tags[:rows], sky).mean()
    second, first = sorted(shares, key=lambda name: shares[name])
    clear = shares[first] > max(3 * shares[second], 0.1 * min(_MAPS, len(paths)))
    return first if clear else None


def data_set(request: Request) -> DataSet:
    """All frames that the patterns match."""
    reader, config, root = request.reader, request.config, request.root()
    labels, depth = config.labels or LABELS, config.depth
    if depth is None and is_folder(root / DEPTH.partition("/")[0]):
        depth = DEPTH
    frames = by_patterns(root, config.images or IMAGES, labels, depth, reader.layout)
    table = labelling(config)
    if table is not None:
        train_ids = table.train_ids(request.space)
        read_labels = id_labels(train_ids, in_red=True)
    elif config.classes is not None:
        classes = read_class_map(config.classes, request.space, f"{request.setting}.classes")
        read_labels = class_map_labels(classes)
    else:
        raise InputError(
            f"{root}: cannot tell the version of CARLA from {labels}: neither version's road lies "
            "below and its sky above (colours instead of raw tags have none). Set "
            f"{request.setting}.classes to carla_0_9_10 (up to 0.9.13), carla_0_9_14 (0.9.14 and "
            "later), shift, or a class map (a YAML file)"
        )
    name = reader.title if table is None else table.name
    return DataSet(name, root, frames, read_labels, None if depth is None else CARLA_DEPTH)


READER = Reader(
    name="carla",
    title="CARLA",
    files="`rgb/*`, `semantic/*`, `depth/*`, or other patterns",
    layout=(
        f"record CARLA's cameras rgb, semantic_segmentation (raw) and depth (raw) as {IMAGES}.png, "
        f"{LABELS}.png and {DEPTH}.png, with one name for each frame, or describe another layout "
        "with data.source.images, labels and depth"
    ),
    data_set=data_set,
    labelling=labelling,
    sides=("source",),
    pack_settings={"source": ("images", "labels", "depth")},
)
