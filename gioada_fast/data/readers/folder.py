"""The user's own folder, as source or target: patterns for images, labels and depth."""

from ...config import TargetConfig
from ...errors import InputError
from ...labels import read_class_map
from ..class_maps import class_map_labels
from ..files import DataSet
from ..patterns import DEPTH_SETTINGS, by_patterns, depth_reader_of
from ..registry import SPLIT_SETTINGS, Reader, Request

IMAGES = "images/*"


def data_set(request: Request) -> DataSet:
    """All frames that the patterns match."""
    config, root, space = request.config, request.root(), request.space

    if request.part == "evaluation" and config.labels is None:
        return DataSet(f"folder {root}", root, [])

    split_setting = f"{request.setting}.{SPLIT_SETTINGS[request.part]}"
    patterns = (config.images or IMAGES, config.labels, config.depth)
    if request.split and not any("{split}" in pattern for pattern in patterns if pattern):
        raise InputError(
            f"{split_setting} is {request.split!r}, but no pattern has {{split}}, which it would "
            "replace: leave it out, or set patterns such as {split}/images/*"
        )

    def filled(pattern: str) -> str:
        if "{split}" in pattern and not request.split:
            raise InputError(
                f"{split_setting} is not set: it replaces {{split}} in the pattern {pattern}"
            )
        return pattern.replace("{split}", request.split)

    labels = config.labels and filled(config.labels)
    depth = config.depth and filled(config.depth)
    images = filled(config.images or IMAGES)
    frames = by_patterns(root, images, labels, depth, request.reader.layout)
    read_labels = None
    if labels is not None:
        if config.classes is None:
            raise InputError(
                f"{request.setting}.classes is not set: a class map (a YAML file or a mapping) "
                f"from the ids or colours of {labels} to classes of {space.name}, with lines such "
                f"as '7: {space.classes[0]}'"
            )
        train_ids = read_class_map(config.classes, space, f"{request.setting}.classes")
        read_labels = class_map_labels(train_ids, config.unknown_labels)
    elif request.part == "source":
        raise InputError(
            f"{request.setting}.labels is not set: a source needs labels, by a pattern such as "
            "labels/*"
        )
    read_depth = None if depth is None else depth_reader_of(config, frames)
    return DataSet(f"folder {root}", root, frames, read_labels, read_depth)


def _description(target: TargetConfig) -> str:
    return f"the images of {target.root}"


READER = Reader(
    name="folder",
    title="your own",
    licence="your own data, or terms that you know",
    files=f"`{IMAGES}`, and patterns for labels and depth, which a target may lack",
    layout=(
        f"a folder with images as {IMAGES}; the settings images, labels and depth give other "
        "patterns, such as labels/*.png; labels also need a class map (a YAML file), which the "
        "setting classes names"
    ),
    data_set=data_set,
    pack_settings={
        "source": ("images", "labels", "depth", *DEPTH_SETTINGS, "split"),
        "target": ("images", "train_split"),
    },
    description=_description,
    pairs_depth=True,
)
