"""Patterns of the user's files: which image a label or depth map belongs to.

A pattern is a path under the root with one ``*`` for the name of the frame, which may contain
folders: the label map of ``images/a/1.jpg`` (``images/*``) is ``labels/a/1.png`` (``labels/*``).
Without a suffix, a pattern finds files of every format.
"""

import posixpath
from collections.abc import Sequence
from dataclasses import replace
from glob import escape
from pathlib import Path

from ..config import FramesConfig
from ..errors import InputError
from . import tree
from .depth_maps import DepthReader, depth_reader
from .files import IMAGE_SUFFIXES, FrameFiles, by_name, no_match

# Label and depth maps of these formats are found, even if their decoders then refuse them with the
# reason, such as a JPEG file as label map.
MAP_SUFFIXES = (*IMAGE_SUFFIXES, ".npy", ".npz", ".exr", ".pfm", ".hdr", ".gif", ".pgm", ".ppm")

DEPTH_SETTINGS = (
    "depth_kind",
    "depth_per_metre",
    "depth_focal_baseline",
    "depth_along",
    "depth_fov",
)
"""Names of the settings that say what depth maps contain."""


class Pattern:
    """A pattern of the settings, under a root: the paths before and after its ``*``, and suffixes.

    Args:
        text: value of the setting.
        root: of the data set.
        suffixes: of files that a pattern without suffix matches.
        absolute: whether it may be an absolute path, which may start with ``~``, instead.
    """

    def __init__(self, text: str, root: Path, suffixes: tuple[str, ...], absolute: bool = False):
        path = posixpath.normpath(posixpath.expanduser(text) if absolute else text)
        if text.count("*") != 1 or (path.startswith("/") and not absolute):
            raise InputError(
                f"pattern {text!r}: expected a path under {root} with one '*' for the name"
            )
        if path.startswith("/"):
            folder = path.partition("*")[0].rpartition("/")[0] + "/"
            root, path = Path(folder), path.removeprefix(folder)
        while path.startswith("../"):
            above = root / ".."
            root = above if tree.is_folder(above) else root.parent  # in archives
            path = path.removeprefix("../")
        stem, suffix = posixpath.splitext(path)
        explicit = suffix.lower() in MAP_SUFFIXES
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
    pattern = Pattern(images, root, IMAGE_SUFFIXES)
    maps = [
        None if text is None else Pattern(text, root, MAP_SUFFIXES, absolute=is_depth)
        for text, is_depth in ((labels, False), (depth, True))
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


def beside(root: Path, images: Sequence[Path], text: str, setting: str) -> list[Path]:
    """The map of each image, for data sets that have a layout of their own.

    The frame's name is the image's path under the root without its suffix, with as many of its
    folders as the maps have: ``a/1`` or ``1`` for the image ``a/1.jpg``.

    Args:
        root: of the data set.
        images: the images.
        text: the pattern of the maps.
        setting: its name.

    Raises:
        InputError: the pattern is malformed, or two images would share a map.
    """
    pattern = Pattern(text, root, MAP_SUFFIXES, absolute=True)
    images_set = set(images)
    own = pattern.by_frame([file for file in pattern.files() if file not in images_set])
    paths = [image.relative_to(root).with_suffix("").parts for image in images]
    deepest = max(map(len, paths), default=1)
    for depth in range(deepest, 0, -1):
        names = ["/".join(parts[-depth:]) for parts in paths]
        if depth > 1 and not any(name in own for name in names):
            continue
        first: dict[str, Path] = {}
        for name, image in zip(names, images, strict=True):
            if first.setdefault(name, image) is not image:
                raise InputError(
                    f"{first[name]} and {image} would share a map of {setting} = {text}, "
                    f"{own.get(name) or pattern.file(name)}: put the maps into folders as the "
                    "images are"
                )
        break
    return [own.get(name) or pattern.file(name) for name in names]


def depth_reader_of(config: FramesConfig, frames: Sequence[FrameFiles]) -> DepthReader:
    """Reader of the depth maps of frames, as the settings describe them."""
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
