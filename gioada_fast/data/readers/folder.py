"""The user's own folder, as source or target: patterns for images, labels and depth.

A pattern is a path under the root with one ``*`` for the name of the frame, which may contain
folders: the label map of ``images/a/1.jpg`` (``images/*``) is ``labels/a/1.png`` (``labels/*``).
Without a suffix, a pattern finds files of every format.
"""

import posixpath
from collections.abc import Sequence
from dataclasses import replace
from glob import escape
from pathlib import Path

from ...config import FramesConfig, TargetConfig
from ...errors import InputError
from ...labels import read_class_map
from .. import tree
from ..class_maps import class_map_labels
from ..depth_maps import DepthReader, depth_reader
from ..files import IMAGE_SUFFIXES, DataSet, FrameFiles, by_name, no_match
from ..registry import Reader, Request

IMAGES = "images/*"

_SPLITS = {"source": "split", "target": "train_split", "evaluation": "evaluation_split"}

# Label and depth maps of these formats are found, even if their decoders then refuse them with the
# reason, such as a JPEG file as label map.
_MAP_SUFFIXES = (*IMAGE_SUFFIXES, ".npy", ".npz", ".exr", ".pfm", ".hdr", ".gif", ".pgm", ".ppm")


def data_set(request: Request) -> DataSet:
    """All frames that the patterns match."""
    config, root, space = request.config, request.root(), request.space

    if request.part == "evaluation" and config.labels is None:
        return DataSet(f"folder {root}", root, [])

    def filled(pattern: str) -> str:
        if "{split}" in pattern and not request.split:
            raise InputError(
                f"{request.setting}.{_SPLITS[request.part]} is not set: it replaces {{split}} in "
                f"the pattern {pattern}"
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
    read_depth = None if depth is None else _depth_reader(config, frames)
    return DataSet(f"folder {root}", root, frames, read_labels, read_depth)


def _depth_reader(config: FramesConfig, frames: Sequence[FrameFiles]) -> DepthReader:
    reader = depth_reader(
        config.depth_kind,
        config.depth_per_metre,
        config.depth_focal_baseline,
        config.depth_along,
        config.depth_fov,
    )
    # PNGs have whole numbers of up to 16 bits, which packs store without loss
    counted = config.depth_kind == "metres" and config.depth_along == "axis"
    if counted and all(f.depth is not None and f.depth.suffix.lower() == ".png" for f in frames):
        return replace(reader, per_metre=config.depth_per_metre or 100)
    return reader


class _Pattern:
    """A pattern of the settings, under a root: the paths before and after its ``*``, and suffixes.

    Args:
        text: value of the setting.
        root: of the data set.
        suffixes: of files that a pattern without suffix matches.
    """

    def __init__(self, text: str, root: Path, suffixes: tuple[str, ...]):
        path = posixpath.normpath(text)
        if text.count("*") != 1 or path.startswith("/"):
            raise InputError(
                f"pattern {text!r}: expected a path under {root} with one '*' for the name"
            )
        while path.startswith("../"):
            above = root / ".."
            root = above if tree.is_folder(above) else root.parent  # in archives
            path = path.removeprefix("../")
        stem, suffix = posixpath.splitext(path)
        explicit = suffix.lower() in _MAP_SUFFIXES
        self.text = text
        self.before, self.after = (stem if explicit else path).split("*")
        self.suffixes = (suffix.lower(),) if explicit else suffixes
        self.exactness = len(self.before + self.after), explicit
        """Files that match two patterns belong to the more exact one."""
        self._suffix = suffix if explicit else ".png"
        self._root = root
        self._prefix = len(str(root / "x")) - 1

    def files(self) -> list[Path]:
        """The files that match, sorted."""
        glob = f"{escape(self.before)}**{escape(self.after)}"
        return tree.matching(self._root, glob, self.suffixes)

    def by_frame(self, files: Sequence[Path]) -> dict[str, Path]:
        """Matching files by the frame's name."""
        remedy = f"remove one, or give the pattern {self.text} a suffix"
        start, stop = self._prefix + len(self.before), -len(self.after) or None
        return {stem[start:stop]: file for stem, file in by_name(files, remedy).items()}

    def file(self, name: str) -> Path:
        """The file of a frame of which there is none, or only one of an unknown format."""
        other = self._root / f"{self.before}{name}{self.after}"
        if tree.is_file(other):
            return other  # its decoder says what it contains
        return self._root / f"{self.before}{name}{self.after}{self._suffix}"

    def matches(self, file: Path) -> bool:
        stem, suffix = posixpath.splitext(str(file)[self._prefix :])
        return (
            stem.startswith(self.before)
            and stem.endswith(self.after)
            and suffix.lower() in self.suffixes
        )


def by_patterns(
    root: Path, images: str, labels: str | None, depth: str | None, layout: str
) -> list[FrameFiles]:
    """Frames whose images match a pattern, sorted by name, and the files that belong to them.

    Raises:
        InputError: a pattern is malformed, no image matches, or two files belong to one frame.
    """
    pattern = _Pattern(images, root, IMAGE_SUFFIXES)
    maps = [
        None if text is None else _Pattern(text, root, _MAP_SUFFIXES) for text in (labels, depth)
    ]
    matching = pattern.files()
    if not matching:
        raise InputError(no_match(root, images, layout))
    closer = [m for m in maps if m is not None and m.exactness >= pattern.exactness]
    found = [file for file in matching if not any(m.matches(file) for m in closer)]
    if not found:
        raise InputError(
            f"{root}: each file that matches {images} also matches the pattern of its labels or "
            f"depth ({', '.join(m.text for m in closer)}): give them suffixes"
        )
    frames = pattern.by_frame(found)
    columns: list[list[Path | None]] = []
    for m in maps:
        if m is None:
            columns.append([None] * len(frames))
            continue
        files = m.files()
        if pattern.exactness > m.exactness:
            files = [file for file in files if not pattern.matches(file)]
        own = m.by_frame(files)
        columns.append([own.get(name) or m.file(name) for name in frames])
    return [FrameFiles(*files) for files in zip(frames.values(), *columns, strict=True)]


def _description(target: TargetConfig) -> str:
    return f"the images of {target.root}"


_DEPTH_SETTINGS = (
    "depth_kind",
    "depth_per_metre",
    "depth_focal_baseline",
    "depth_along",
    "depth_fov",
)

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
        "source": ("images", "labels", "depth", *_DEPTH_SETTINGS, "split"),
        "target": ("images", "train_split"),
    },
    description=_description,
)
