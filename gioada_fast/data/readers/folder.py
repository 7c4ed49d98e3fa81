"""The user's own folder, as source or target: patterns for images, labels and depth.

A pattern is a path under the root with one ``*`` for the name of the frame, which may contain
folders: the label map of ``images/a/1.jpg`` (``images/*``) is ``labels/a/1.png`` (``labels/*``).
Without a suffix, images may be PNG or JPEG, and labels and depth are PNG.
"""

from collections.abc import Mapping
from pathlib import Path

from ...config import TargetConfig
from ...errors import InputError
from ...labels import read_class_map
from ..depth_maps import depth_counts
from ..files import IMAGE_SUFFIXES, DataSet, FrameFiles
from ..label_maps import Colours, LabelReader, colour_labels, id_labels
from ..registry import Reader, Request

IMAGES = "images/*"


def data_set(request: Request) -> DataSet:
    """All frames that the patterns match."""
    config, root, space = request.config, request.root(), request.space

    def filled(pattern: str) -> str:
        return pattern.replace("{split}", request.split)

    labels = config.labels and filled(config.labels)
    depth = config.depth and filled(config.depth)
    images = filled(config.images or IMAGES)
    frames = by_patterns(root, images, labels, depth, request.reader.layout)
    read_labels = None
    if labels is not None:
        if config.classes is None:
            raise InputError(
                f"{request.setting}.classes is not set: a YAML file that maps the ids of {labels} "
                f"to classes of {space.name}, with lines such as '7: {space.classes[0]}'"
            )
        classes = read_class_map(config.classes, space, f"{request.setting}.classes")
        read_labels = _label_reader(classes)
    elif request.part == "source":
        raise InputError(
            "data.source.labels is not set: a source needs labels, by a pattern such as labels/*"
        )
    read_depth = None if depth is None else depth_counts(config.depth_per_metre or 100)
    return DataSet(f"folder {root}", root, frames, read_labels, read_depth)


def by_patterns(
    root: Path, images: str, labels: str | None, depth: str | None, layout: str
) -> list[FrameFiles]:
    """Frames whose images match a pattern, sorted by name, and the files that belong to them."""
    for pattern in (images, labels, depth):
        if pattern is not None and (pattern.count("*") != 1 or Path(pattern).is_absolute()):
            raise InputError(
                f"pattern {pattern!r}: expected a path under {root} with one '*' for the name"
            )
    before, after = images.split("*")
    suffixes = IMAGE_SUFFIXES if not Path(images).suffix else (Path(images).suffix.lower(),)
    after = after.removesuffix(Path(images).suffix)
    folder = root / before.rpartition("/")[0]
    frames = []
    for image in folder.rglob("*") if folder.is_dir() else ():
        path = image.relative_to(root).as_posix()
        stem = path.removesuffix(image.suffix)
        named = stem.startswith(before) and stem.endswith(after)
        if named and image.suffix.lower() in suffixes and len(stem) > len(before + after):
            name = stem[len(before) : len(stem) - len(after)]
            frames.append(FrameFiles(image, _named(root, labels, name), _named(root, depth, name)))
    if not frames:
        raise InputError(f"{root}: no image matches {images}; {layout}")
    return sorted(frames)


def _named(root: Path, pattern: str | None, name: str) -> Path | None:
    if pattern is None:
        return None
    path = pattern.replace("*", name)
    return root / (path if Path(pattern).suffix else f"{path}.png")


def _label_reader(train_ids: Mapping[int | tuple[int, int, int], int]) -> LabelReader:
    by_id = {key: train_id for key, train_id in train_ids.items() if isinstance(key, int)}
    if by_id:
        return id_labels(by_id)
    return colour_labels(
        _Same({key: train_id for key, train_id in train_ids.items() if isinstance(key, tuple)})
    )


class _Same:
    """The same colours for every file."""

    def __init__(self, train_ids: Colours):
        self.train_ids = train_ids

    def __call__(self, path: Path) -> Colours:
        return self.train_ids


def _description(target: TargetConfig) -> str:
    return f"the images of {target.root}"


READER = Reader(
    name="folder",
    title="your own",
    files=f"`{IMAGES}`, and patterns for labels and depth, which a target may lack",
    layout=(
        f"a folder with images as {IMAGES}; the settings images, labels and depth give other "
        "patterns, such as labels/*.png; labels also need a class map (a YAML file), which the "
        "setting classes names"
    ),
    data_set=data_set,
    pack_settings={
        "source": ("images", "labels", "depth", "depth_per_metre", "split"),
        "target": ("images", "train_split"),
    },
    description=_description,
)
