"""The sets of a run: labelled sources, unlabelled target, labelled frames to score on.

Training targets cannot carry labels: their class has no place for them, and ``training_set`` drops
them where a data set lists them. Labels of the target's training images are read in two cases: an
oracle uses the target as its source, see ``supervised``, and ``data.target.labelled`` names some of
the images, see ``labelled_frames``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..config import OWN_DEPTH, TARGET_SEED, DataConfig, FramesConfig, SourceConfig, TargetConfig
from ..errors import InputError
from ..labels import BUILT_IN_SPACES, Labelling, LabelSpace, label_space
from . import registry, tree
from .depth_maps import DepthReader
from .files import IMAGE_SUFFIXES, DataSet, FrameFiles, LabelledFrame, describe_folder
from .pack_reader import PackedSource, PackedTarget, folder_of
from .pack_settings import pack_command, source_settings, target_settings
from .patterns import beside, depth_reader_of
from .rasters import read_image
from .source_mix import SourceMix
from .transforms import (
    check_same_size,
    crop_to_shape,
    fit,
    resize_frame,
    resize_image,
    resize_nearest,
)


@dataclass(frozen=True)
class SourceFrames:
    """Frames with labels and depth, cropped and resized to ``size``; without depth it is 0."""

    data: DataSet
    size: tuple[int, int]

    @property
    def has_depth(self) -> bool:
        """Whether the data set has depth maps."""
        return self.data.depth is not None

    def __len__(self) -> int:
        return len(self.data.frames)

    def __getitem__(self, index: int) -> LabelledFrame:
        image, labels, depth = _read(self.data, self.data.frames[index])
        if depth is None:
            depth = np.zeros(labels.shape, np.float32)
        return resize_frame(LabelledFrame(image, labels, depth), self.size)

    def labels(self, index: int) -> np.ndarray:
        """Labels alone, uint8 [H, W] train ids."""
        labels = _read_labels(self.data, self.data.frames[index])
        return resize_nearest(crop_to_shape(labels, self.size), self.size)


@dataclass(frozen=True)
class TargetImages:
    """Unlabelled images, cropped and resized to ``size``, perhaps with depth maps."""

    paths: Sequence[Path]
    size: tuple[int, int]
    upright: bool = False
    """Whether to turn images as their EXIF orientation says."""
    depth_paths: Sequence[Path] | None = None
    """The depth map of each image; None without depth."""
    depth: DepthReader | None = None

    @property
    def has_depth(self) -> bool:
        """Whether ``with_depth`` may be called."""
        return self.depth is not None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        """uint8 [H, W, 3] RGB."""
        return self._resized(read_image(self.paths[index], self.upright))

    def name(self, index: int) -> str:
        """Path of an image."""
        return str(self.paths[index])

    def with_depth(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """(uint8 [H, W, 3] RGB, depth float32 [H, W] as ``DepthReader.read`` returns it)."""
        assert self.depth is not None and self.depth_paths is not None
        path, depth_path = self.paths[index], self.depth_paths[index]
        image, depth = read_image(path, self.upright), self.depth.read(depth_path)
        check_same_size(image, depth, path, depth_path)
        return self._resized(image), resize_nearest(crop_to_shape(depth, self.size), self.size)

    def _resized(self, image: np.ndarray) -> np.ndarray:
        return resize_image(crop_to_shape(image, self.size), self.size)


class EvaluationFrame(NamedTuple):
    """A frame to score on: the image at the networks' scale, labels and depth at their own."""

    image: np.ndarray
    """uint8 [H, W, 3] RGB: the whole image, scaled until it covers the frames' size, if set."""
    labels: np.ndarray
    """uint8 [H', W'] train ids."""
    depth: np.ndarray | None
    """float32 [H', W'] metres, 0 for no depth; None if the data set has no depth maps."""


@dataclass(frozen=True)
class EvaluationFrames:
    """Labelled target frames, for scoring only."""

    data: DataSet
    size: tuple[int, int] | None
    """(H, W) that images are scaled to cover; None: as they are."""

    def __len__(self) -> int:
        return len(self.data.frames)

    def __getitem__(self, index: int) -> EvaluationFrame:
        image, labels, depth = _read(self.data, self.data.frames[index])
        scaled = image if self.size is None else fit(image, self.size)
        return EvaluationFrame(scaled, labels, depth)

    def name(self, index: int) -> str:
        """Name of a frame's image, without suffix."""
        return self.data.frames[index].image.stem


def _read(data: DataSet, files: FrameFiles) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Image, labels and depth at their own size; depth is None if the data set has none."""
    assert files.labels is not None
    image, labels = read_image(files.image, data.upright), _read_labels(data, files)
    depth = None
    check_same_size(image, labels, files.image, files.labels)
    if data.depth is not None:
        assert files.depth is not None
        depth = data.depth.read(files.depth)
        check_same_size(image, depth, files.image, files.depth)
    return image, labels, depth


def _read_labels(data: DataSet, files: FrameFiles) -> np.ndarray:
    assert data.read_labels is not None and files.labels is not None
    return data.read_labels(files.labels)


def source_frames(config: DataConfig) -> SourceFrames | PackedSource | SourceMix:
    """The labelled source or sources, from packs if ``packs`` is set.

    Renders missing street scenes.
    """
    settings = config.named_sources()
    parts = {setting: _source_part(config, setting) for setting in settings}
    if config.sources is None:
        return parts["data.source"]
    return SourceMix(parts, [source.share for source in settings.values()])


def source_parts(
    source: SourceFrames | PackedSource | SourceMix,
) -> dict[str, SourceFrames | PackedSource]:
    """The sources of ``source_frames`` by the prefix of their settings."""
    return source.parts if isinstance(source, SourceMix) else {"data.source": source}


def _source_part(config: DataConfig, setting: str) -> SourceFrames | PackedSource:
    if config.packs is None:
        return source_files(config, setting)
    return PackedSource(
        folder_of(config, setting), source_settings(config, setting), pack_command(config)
    )


def source_files(config: DataConfig, setting: str = "data.source") -> SourceFrames:
    """A labelled source from its files."""
    size = config.size_of(config.named_sources()[setting])
    return SourceFrames(_complete(source_set(config, setting)), size)


def target_images(config: DataConfig, depth: bool = False) -> TargetImages | PackedTarget:
    """The unlabelled target images, from their pack if ``packs`` is set.

    Args:
        config: settings.
        depth: with the depth maps of ``target.depth``.
    """
    if config.packs is not None:
        settings = target_settings(config, depth)
        folder = folder_of(config, "data.target")
        return PackedTarget(folder, settings, pack_command(config), depth)
    return target_files(config, depth)


def target_files(config: DataConfig, depth: bool = False) -> TargetImages:
    """The unlabelled target images from their files, perhaps with depth maps."""
    data = training_set(config, depth)
    images = [frame.image for frame in data.frames]
    if data.depth is None:
        return TargetImages(images, config.target_size, data.upright)
    maps = [files.depth for files in _complete(data).frames if files.depth is not None]
    return TargetImages(images, config.target_size, data.upright, maps, data.depth)


def training_set(config: DataConfig, depth: bool) -> DataSet:
    """The target's images to train on, without labels.

    Args:
        config: settings.
        depth: with the depth maps of ``target.depth``, some of which may be missing.

    Raises:
        InputError: depth is asked for, and there are no depth maps; or as readers raise it.
    """
    data, target = target_set(config, "target"), config.target
    unlabelled = replace(data, read_labels=None, depth=None)
    if not depth:
        return replace(unlabelled, frames=[FrameFiles(files.image) for files in data.frames])
    if target.depth is None:
        raise InputError(
            "data.target.depth is not set: it is the pattern of the depth maps of the target's "
            "images, such as pseudo_depth/*.png"
        )
    if target.depth != OWN_DEPTH and not registry.find(target.name, "target").pairs_depth:
        images = [files.image for files in data.frames]
        maps = beside(data.root, images, target.depth, "data.target.depth")
        frames = [FrameFiles(i, depth=d) for i, d in zip(images, maps, strict=True)]
        _refuse_labels(data, frames)
        return replace(unlabelled, frames=frames, depth=depth_reader_of(target, frames))
    if data.depth is None:
        raise InputError(
            f"data.target.depth is own, but {data.name} has no depth maps: set the pattern of "
            "depth maps, such as pseudo_depth/*.png"
        )
    frames = [FrameFiles(files.image, depth=files.depth) for files in data.frames]
    _refuse_labels(data, frames)
    return replace(unlabelled, frames=frames, depth=data.depth)


def _refuse_labels(data: DataSet, frames: Sequence[FrameFiles]) -> None:
    """Refuse label maps that a pattern passes off as depth maps."""
    labels = {files.labels for files in data.frames if files.labels is not None}
    for files in frames:
        if files.depth in labels:
            raise InputError(
                f"data.target.depth names {files.depth}, which has labels of the target: training "
                "never reads them; set it to the pattern of the depth maps"
            )


def trains_with_depth(config: DataConfig) -> bool:
    """Whether the settings name depth maps of the target's images to train on, and one exists.

    A folder's depth maps may belong to the scored images alone.
    """
    if config.target.depth is None:
        return False
    if not registry.find(config.target.name, "target").pairs_depth:
        return True
    data = training_set(config, depth=True)
    return len(data.missing()) < len(data.frames)


def evaluation_frames(config: DataConfig) -> EvaluationFrames:
    """The labelled target frames to score on; none if the target has no labels."""
    data = target_set(config, "evaluation")
    if data.read_labels is None:
        data = DataSet(data.name, data.root, [])
    return EvaluationFrames(_complete(data), config.target_size)


def source_set(config: DataConfig, setting: str = "data.source") -> DataSet:
    """The files of a source; some may be missing."""
    source = config.named_sources()[setting]
    data = _files(config, "source", setting, source)
    if source.include == "*":
        return data
    frames = [
        files
        for files in data.frames
        if fnmatch(files.image.relative_to(data.root).as_posix(), source.include)
    ]
    if not frames:
        raise InputError(
            f"{setting}.include is {source.include!r}, which none of the {len(data.frames)} images "
            f"matches; the first is {data.frames[0].image.relative_to(data.root)}"
        )
    return replace(data, frames=frames)


def target_set(config: DataConfig, part: str) -> DataSet:
    """The files of the part ``target`` (to train on) or ``evaluation``; some may be missing."""
    return _files(config, part, "data.target", config.target)


def _files(
    config: DataConfig, part: str, setting: str, settings: SourceConfig | TargetConfig
) -> DataSet:
    side = "source" if part == "source" else "target"
    reader, space = registry.find(settings.name, side), label_space(config.label_space)
    labelling = reader.labelling_of(settings)
    if labelling is not None and not labelling.serves(space):
        raise InputError(_refusal(settings.name, labelling, space))
    if settings.depth == OWN_DEPTH or (part == "evaluation" and settings.depth_kind == "relative"):
        settings = replace(settings, depth=None, depth_kind="metres")
    split, size = reader.split(settings, part), config.size_of(settings)
    if split and not reader.has_splits(side):
        name = f"{setting}.{registry.SPLIT_SETTINGS[part]}"
        raise InputError(f"{name} is {split!r}, but {reader.name} has no splits: leave it out")
    data = reader.data_set(registry.Request(reader, part, settings, split, size, space, setting))
    read_labels = data.read_labels
    if read_labels is not None and settings.unknown_labels == "ignore":
        read_labels = partial(read_labels, unknown="ignore")
    upright = settings.exif_orientation == "apply"
    return replace(data, read_labels=read_labels, size=size, upright=upright)


def supervised(config: DataConfig) -> DataConfig:
    """Settings of an oracle, whose source is the target's training images with their labels."""
    target = config.target
    if target.depth == OWN_DEPTH or target.depth_kind == "relative":
        target = replace(target, depth=None, depth_kind="metres")
    source = SourceConfig(
        **{field.name: getattr(target, field.name) for field in fields(FramesConfig)},
        name=target.name,
        split=target.train_split,
        look=target.look,
        frames=target.frames,
        first_seed=TARGET_SEED,
    )
    return replace(config, source=source, sources=None, packs=None)


def labelled_frames(config: DataConfig) -> SourceFrames | None:
    """The target's training images in ``target.labelled`` with their labels, without depth.

    None if the setting is unset. No label file of another image is opened.

    Raises:
        InputError: the setting asks for more images than there are, or names an image that does not
            exist or more than one; or a label file is missing.
    """
    if config.target.labelled is None:
        return None
    oracle = supervised(config)
    data = _files(oracle, "source", "data.target", oracle.source)
    data = replace(data, frames=_named_frames(data, config.target.labelled), depth=None)
    frames = [files._replace(depth=None) for files in data.frames]
    missing = (data := replace(data, frames=frames)).missing()
    if missing:
        raise InputError(
            f"data.target.labelled asks for labels of {len(frames)} images, but {len(missing)} "
            f"label files are missing, first {missing[0]}; {describe_folder(missing[0].parent)}"
        )
    return SourceFrames(data, config.target_size)


def _named_frames(data: DataSet, labelled: int | Sequence[str]) -> list[FrameFiles]:
    """The frames that ``target.labelled`` chooses, in the order of the data set."""
    if isinstance(labelled, int):
        if labelled > len(data.frames):
            raise InputError(
                f"data.target.labelled is {labelled}, but {data.name} has {len(data.frames)} "
                "images to train on"
            )
        return [data.frames[index] for index in evenly_spaced(len(data.frames), labelled)]
    by_name: dict[str, list[int]] = {}
    for index, files in enumerate(data.frames):
        path = files.image.relative_to(data.root)
        for name in {path.as_posix(), path.name, path.stem}:
            by_name.setdefault(name, []).append(index)
    chosen = set()
    for name in labelled:
        found = by_name.get(name, [])
        if len(found) != 1:
            example = data.frames[0].image.relative_to(data.root).as_posix()
            wrong = f"which {len(found)} images have: give the path" if found else "no such image"
            raise InputError(
                f"data.target.labelled names {name}, {wrong} under {data.root}, such as {example}"
            )
        chosen.update(found)
    return [data.frames[index] for index in sorted(chosen)]


def images_in(path: Path, size: tuple[int, int]) -> TargetImages:
    """An image, or all images in a folder or archive and its subfolders, turned as EXIF says.

    Raises:
        InputError: there is no such file or folder, or no image in it.
    """
    files = tree.files_under(path) if tree.is_folder(path) else [path]
    images = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    if not tree.is_folder(path) and not tree.is_file(path):
        raise InputError(f"{path}: no such file or folder")
    if not images:
        raise InputError(f"{path}: no image in it; {describe_folder(path)}")
    return TargetImages(images, size, upright=True)


def evenly_spaced(length: int, count: int) -> list[int]:
    """Indices of ``count`` of ``length`` frames at even intervals; all if there are fewer."""
    return np.linspace(0, length - 1, min(length, count)).round().astype(int).tolist()


def describe_target(config: DataConfig, part: str = "evaluation") -> str:
    """Describes the target's part ``evaluation`` or ``target`` (to train on), for captions."""
    target = config.target
    reader = registry.find(target.name, "target")
    if reader.description is not None:
        return reader.description(target)
    return f"{reader.title}, real frames ({reader.split(target, part)})"


def describe_sources(
    config: DataConfig,
    source: SourceFrames | PackedSource | SourceMix,
    labelled: SourceFrames | None = None,
) -> list[str]:
    """Describes each source: data set, number of frames, share of the pairs; and target labels."""
    parts, settings = source_parts(source), config.named_sources()
    shares = source.shares if isinstance(source, SourceMix) else [1]
    described = [
        f"{registry.find(settings[setting].name, 'source').title}, {len(frames)} frames"
        + ("" if frames.has_depth else " without depth")
        + ("" if len(parts) == 1 else f", {share:.1%} of the pairs")
        for share, (setting, frames) in zip(shares, parts.items(), strict=True)
    ]
    if labelled is not None:
        described.append(f"labels of {len(labelled)} target images")
    return described


def check_label_space(config: DataConfig) -> None:
    """Refuse sources and a target that cannot all be mapped to the label space.

    Raises:
        InputError: the message has the label spaces of each, or the classes that one of them lacks.
    """
    space, spaces = label_space(config.label_space), {}
    own = space.name not in BUILT_IN_SPACES
    sides: dict[str, SourceConfig | TargetConfig] = {
        **config.named_sources(),
        "data.target": config.target,
    }
    for setting, settings in sides.items():
        side = "target" if setting == "data.target" else "source"
        labelling = registry.find(settings.name, side).labelling_of(settings)
        if own and labelling is not None and not labelling.serves(space):
            raise InputError(_refusal(settings.name, labelling, space))
        spaces[f"{side} {settings.name}"] = _built_in_spaces(labelling)
    if own or all(space.name in names for names in spaces.values()):
        return
    each = list(spaces.values())
    shared = [name for name in each[0] if all(name in names for names in each)]
    first, *others = (f"{side} in {_list(names)}" for side, names in spaces.items())
    raise InputError(
        "; ".join([first.replace(" in ", " can be labelled in ", 1), *others])
        + f"; data.label_space is {space.name}: "
        + (f"set it to {' or '.join(shared)}" if shared else "they have none in common")
    )


def _built_in_spaces(labelling: Labelling | None) -> tuple[str, ...]:
    """Built-in label spaces that labels can be mapped to."""
    if labelling is not None and labelling.spaces is not None:
        return labelling.spaces
    return tuple(
        name for name in BUILT_IN_SPACES if labelling is None or labelling.serves(label_space(name))
    )


def _list(spaces: Sequence[str]) -> str:
    return ", ".join(spaces) or "no built-in label space"


def _refusal(name: str, labelling: Labelling, space: LabelSpace) -> str:
    """Why a data set cannot be mapped to a label space."""
    if space.name in BUILT_IN_SPACES:
        return (
            f"{name} can be labelled in {_list(_built_in_spaces(labelling))}, not in "
            f"{space.name} ({', '.join(space.classes)}): set data.label_space, or take another "
            "data set"
        )
    return (
        f"{name} has no labels for {', '.join(labelling.undrawn(space))} of label space "
        f"{space.name}: its classes are {', '.join(n for n, c in labelling.classes.items() if c)}; "
        "leave these classes out or without 'of', or take another data set"
    )


def _complete(data: DataSet) -> DataSet:
    missing = data.missing()
    if missing:
        raise InputError(
            f"{data.name}: {len(missing)} files that belong to images are missing, first "
            f"{missing[0]}; {describe_folder(missing[0].parent)}; python -m gioada_fast.data check "
            "names them all"
        )
    return data
