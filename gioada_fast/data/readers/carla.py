"""Recordings of CARLA (Dosovitskiy et al., CoRL 2017), SHIFT (Sun et al., CVPR 2022) among them.

    <root>/rgb/000000.png  <root>/semantic/000000.png  <root>/depth/000000.png

or any other layout by ``images``, ``labels`` and ``depth``, such as SHIFT's front camera:
``img/*_img_front``, ``semseg/*_semseg_front``, ``depth/*_depth_front``. The semantic tag is in R,
and depth 24 bits in R + 256 G + 65536 B of 1000 metres, which stand for the sky.
"""

from ...config import SourceConfig
from ...errors import InputError
from ...labels import CARLA_TABLES, Labelling, LabelSpace
from ..files import CARLA_DEPTH, DataSet, find_root, id_labels
from .folder import by_patterns

NAME = "CARLA"
IMAGES, LABELS, DEPTH = "rgb/*", "semantic/*", "depth/*"
LAYOUT = (
    f"record CARLA's cameras rgb, semantic_segmentation (raw) and depth (raw) as {IMAGES}.png, "
    f"{LABELS}.png and {DEPTH}.png, with one name for each frame; other layouts by "
    "data.source.images, labels and depth"
)


def labelling(config: SourceConfig) -> Labelling:
    """The table of tags that ``classes`` names."""
    if config.classes is None:
        return CARLA_TABLES["carla_0_9_10"]
    if config.classes not in CARLA_TABLES:
        raise InputError(
            f"data.source.classes is {config.classes!r}, expected one of {', '.join(CARLA_TABLES)}"
        )
    return CARLA_TABLES[config.classes]


def data_set(config: SourceConfig, space: LabelSpace) -> DataSet:
    """All frames that the patterns match."""
    root = find_root(config.root, "data.source.root", LAYOUT)
    frames = by_patterns(
        root, config.images or IMAGES, config.labels or LABELS, config.depth or DEPTH, LAYOUT
    )
    reader = id_labels(labelling(config).table(space), in_red=True)
    return DataSet(NAME, root, frames, reader, CARLA_DEPTH)
