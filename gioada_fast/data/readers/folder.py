"""A folder of one's own, as source or target: images, and by pattern their labels and depth.

A pattern is a path under the root with one ``*``, which stands for the name of the frame, folders
included: the label map of ``images/a/1.jpg`` (``images/*``) is ``labels/a/1.png`` (``labels/*``).
Without a suffix, images may be PNG or JPEG, and labels and depth are PNG.
"""

from pathlib import Path

from ...config import SourceConfig, TargetConfig
from ...errors import InputError
from ...labels import LabelSpace, lookup_table, read_class_map
from ..files import (
    IMAGE_SUFFIXES,
    DataSet,
    FrameFiles,
    LabelReader,
    colour_labels,
    depth_counts,
    find_root,
    id_labels,
)

NAME = "folder"
IMAGES = "images/*"
LAYOUT = (
    f"a folder with images as {IMAGES}, or by the settings images, labels and depth, patterns such "
    "as labels/*.png, and with labels a class map (a YAML file) in the setting classes"
)


def data_set(
    config: SourceConfig | TargetConfig, side: str, space: LabelSpace, split: str = ""
) -> DataSet:
    """All frames that the patterns match.

    Args:
        config: of either side.
        side: ``data.source`` or ``data.target``, for messages.
        space: classes that the class map maps to.
        split: what stands for ``{split}`` in the patterns.
    """
    root = find_root(config.root, f"{side}.root", LAYOUT)
    images, labels, depth = (
        pattern and pattern.replace("{split}", split)
        for pattern in (config.images or IMAGES, config.labels, config.depth)
    )
    frames = by_patterns(root, images, labels, depth, LAYOUT)
    reader = None
    if labels is not None:
        if config.classes is None:
            raise InputError(
                f"{side}.classes is not set: a YAML file that maps the ids of {labels} to classes "
                f"of {space.name}, with lines such as '7: {space.classes[0]}'"
            )
        reader = _label_reader(Path(config.classes).expanduser(), space)
    depth_reader = None if depth is None else depth_counts(config.depth_per_metre)
    return DataSet(f"{NAME} {root}", root, frames, reader, depth_reader)


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


def _label_reader(path: Path, space: LabelSpace) -> LabelReader:
    train_ids = read_class_map(path, space)
    if all(isinstance(key, int) for key in train_ids):
        return id_labels(lookup_table(train_ids))
    return colour_labels(_Same(train_ids))


class _Same:
    """The same colours for every file."""

    def __init__(self, train_ids):
        self.train_ids = train_ids

    def __call__(self, path: Path):
        return self.train_ids
