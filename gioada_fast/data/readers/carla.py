"""Recordings of CARLA (Dosovitskiy et al., CoRL 2017), such as SHIFT (Sun et al., CVPR 2022).

    <root>/rgb/000000.png  <root>/semantic/000000.png  <root>/depth/000000.png

or another layout that ``images``, ``labels`` and ``depth`` describe, such as SHIFT's front camera:
``img/*_img_front``, ``semseg/*_semseg_front``, ``depth/*_depth_front``. The semantic tag is in R.
Depth has 24 bits, R + 256 G + 65536 B, from 0 to 1000 metres; the sky is at 1000.
"""

from ...config import SourceConfig, TargetConfig
from ...errors import InputError
from ...labels import COMMON_CLASSES, Labelling
from ..depth_maps import CARLA_DEPTH
from ..files import DataSet
from ..label_maps import id_labels
from ..registry import Reader, Request
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

TABLES = {
    "carla_0_9_10": CARLA_0_9_10,
    "carla_0_9_14": CARLA_0_9_14,
    "shift": CARLA_0_9_10,
}


def labelling(config: SourceConfig | TargetConfig) -> Labelling:
    """The table of tags that ``classes`` names."""
    name = "carla_0_9_10" if config.classes is None else config.classes
    if name not in TABLES:
        raise InputError(f"data.source.classes is {name!r}, expected one of {', '.join(TABLES)}")
    return TABLES[name]


def data_set(request: Request) -> DataSet:
    """All frames that the patterns match."""
    reader, config, root = request.reader, request.config, request.root()
    patterns = config.images or IMAGES, config.labels or LABELS, config.depth or DEPTH
    frames = by_patterns(root, *patterns, reader.layout)
    read_labels = id_labels(labelling(config).train_ids(request.space), in_red=True)
    return DataSet(reader.title, root, frames, read_labels, CARLA_DEPTH)


READER = Reader(
    name="carla",
    title="CARLA",
    files="`rgb/*`, `semantic/*`, `depth/*`, or other patterns, such as those of SHIFT",
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
