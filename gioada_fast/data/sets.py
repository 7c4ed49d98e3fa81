"""The three sets of a run: labelled source, unlabelled target, labelled frames that score.

The target that is trained on is a list of image files and nothing else: its class has no place for
a label. Labels of real frames reach the trainer where the settings name them as the source alone,
as those of an oracle do, see ``supervised``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from .. import street_scenes
from ..config import SCENES_CACHE, DataConfig, FramesConfig, SourceConfig, TargetConfig
from ..errors import InputError
from ..labels import LABEL_SPACES, STREET, Labelling, LabelSpace, read_class_map
from .files import CENTIMETRES, DataSet, FrameFiles, LabelledFrame, id_labels, read_image
from .pack_reader import PackedSource, PackedTarget, folder_of, pack_command
from .readers import camvid, carla, cityscapes, folder, kitti, synthia, vkitti, vkitti2

_SOURCES = {"vkitti": vkitti, "vkitti2": vkitti2, "synthia": synthia, "carla": carla}
_TARGETS = {"kitti": kitti, "cityscapes": cityscapes, "camvid": camvid}
"""Data sets with a file of their own; street_scenes and folder are for both sides, and any target
may be a source, too."""

TARGETS = ("street_scenes", *_TARGETS, "folder")
"""Names of all targets."""


@dataclass(frozen=True)
class SourceFrames:
    """Frames with labels and depth, resized to ``size``; without depth, it is 0 everywhere."""

    data: DataSet
    size: tuple[int, int]

    @property
    def has_depth(self) -> bool:
        """Whether the data set has depth maps."""
        return self.data.depth is not None

    def __len__(self) -> int:
        return len(self.data.frames)

    def __getitem__(self, index: int) -> LabelledFrame:
        files = self.data.frames[index]
        image = read_image(files.image)
        labels = self.data.read_labels(files.labels)
        check_same_size(image, labels, files.image, files.labels)
        depth = np.zeros(labels.shape, np.float32)
        if self.has_depth:
            depth = self.data.depth.read(files.depth)
            check_same_size(image, depth, files.image, files.depth)
        return LabelledFrame(
            resize_image(image, self.size),
            resize_nearest(labels, self.size),
            resize_nearest(depth, self.size),
        )

    def labels(self, index: int) -> np.ndarray:
        """Labels alone, uint8 [H, W] train ids."""
        return resize_nearest(self.data.read_labels(self.data.frames[index].labels), self.size)


@dataclass(frozen=True)
class TargetImages:
    """Unlabelled images, resized to ``size``."""

    paths: Sequence[Path]
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        """uint8 [H, W, 3] RGB."""
        return resize_image(read_image(self.paths[index]), self.size)


class EvaluationFrame(NamedTuple):
    """A frame that scores: the image at the networks' size, what is true at its own."""

    image: np.ndarray
    """uint8 [H, W, 3] RGB."""
    labels: np.ndarray
    """uint8 [H', W'] train ids."""
    depth: np.ndarray | None
    """float32 [H', W'] metres, 0 where there is none; None where the data set has no depth."""


@dataclass(frozen=True)
class EvaluationFrames:
    """Labelled target frames, for scoring alone."""

    data: DataSet
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.data.frames)

    def __getitem__(self, index: int) -> EvaluationFrame:
        files = self.data.frames[index]
        image, labels = read_image(files.image), self.data.read_labels(files.labels)
        check_same_size(image, labels, files.image, files.labels)
        depth = None
        if self.data.depth is not None:
            depth = self.data.depth.read(files.depth)
            check_same_size(image, depth, files.image, files.depth)
        return EvaluationFrame(resize_image(image, self.size), labels, depth)

    def name(self, index: int) -> str:
        """Name of a frame's image, without suffix."""
        return self.data.frames[index].image.stem


def source_frames(config: DataConfig) -> SourceFrames | PackedSource:
    """The labelled set that the settings name; street scenes that are missing are rendered.

    Where ``packs`` is set, the same frames from their pack.
    """
    if config.packs is not None:
        return PackedSource(
            folder_of(config, "source"), source_settings(config), pack_command(config)
        )
    return source_files(config)


def source_files(config: DataConfig) -> SourceFrames:
    """The labelled set from its files."""
    return SourceFrames(_complete(source_set(config)), config.source_size)


def target_images(config: DataConfig) -> TargetImages | PackedTarget:
    """The unlabelled images that the settings name; where ``packs`` is set, from their pack."""
    if config.packs is not None:
        return PackedTarget(
            folder_of(config, "target"), target_settings(config), pack_command(config)
        )
    return target_files(config)


def target_files(config: DataConfig) -> TargetImages:
    """The unlabelled images from their files."""
    data = target_set(config, "train")
    return TargetImages([frame.image for frame in data.frames], config.target_size)


def evaluation_frames(config: DataConfig) -> EvaluationFrames:
    """The labelled target frames that the settings name; none where the target has no labels."""
    data = target_set(config, "evaluation")
    if data.read_labels is None:
        data = DataSet(data.name, data.root, [])
    return EvaluationFrames(_complete(data), config.target_size)


# First seeds of the target's street scenes; the source's start from 0, and no two sets share one.
_TARGET_SEEDS, _EVALUATION_SEEDS = 1_000_000, 2_000_000


def source_set(config: DataConfig) -> DataSet:
    """The files of the source; some may be missing."""
    source, space = config.source, label_space(config)
    _check_serves(source.name, _spaces_of_source(config), space)
    if source.name == "street_scenes":
        data = _scenes(source, source.first_seed, source.frames, config.source_size, space)
    elif source.name == "folder":
        data = folder.data_set(source, "data.source", space, source.split or "")
        if data.read_labels is None:
            raise InputError(
                "data.source.labels is not set: a source needs labels, by a pattern such as "
                "labels/*"
            )
    elif source.name in _TARGETS:
        reader = _TARGETS[source.name]
        data = reader.data_set(source, source.split or reader.TRAIN_SPLIT, space, "data.source")
    else:
        data = _SOURCES[source.name].data_set(source, space)
    if source.include == "*":
        return data
    frames = [
        files
        for files in data.frames
        if fnmatch(files.image.relative_to(data.root).as_posix(), source.include)
    ]
    if not frames:
        raise InputError(
            f"data.source.include is {source.include!r}, which none of the {len(data.frames)} "
            f"images matches; the first is {data.frames[0].image.relative_to(data.root)}"
        )
    return DataSet(data.name, data.root, frames, data.read_labels, data.depth)


def target_set(config: DataConfig, part: str) -> DataSet:
    """The files of the target's part ``train`` or ``evaluation``; some may be missing."""
    target, space = config.target, label_space(config)
    _check_serves(target.name, _spaces_of_target(config), space)
    split = target.train_split if part == "train" else target.evaluation_split
    if target.name == "street_scenes":
        first, count = (
            (_TARGET_SEEDS, target.frames)
            if part == "train"
            else (_EVALUATION_SEEDS, target.evaluation_frames)
        )
        return _scenes(target, first, count, config.target_size, space)
    if target.name == "folder":
        return folder.data_set(target, "data.target", space, split or "")
    reader = _TARGETS[target.name]
    return reader.data_set(target, split or _default_split(target.name, part), space)


def supervised(config: DataConfig) -> DataConfig:
    """The same with the target's training images, and their labels, as the source: an oracle's."""
    target = config.target
    source = SourceConfig(
        **{field.name: getattr(target, field.name) for field in fields(FramesConfig)},
        name=target.name,
        split=target.train_split,
        look=target.look,
        frames=target.frames,
        first_seed=_TARGET_SEEDS,
    )
    return replace(config, source=source, packs=None)


def source_settings(config: DataConfig) -> dict[str, Any]:
    """What the source's frames depend on, wherever they lie: settings by their names."""
    source, space = config.source, label_space(config)
    settings = {
        "data.source.name": source.name,
        "data.source.include": source.include,
        "data.label_space": space.name,
        **_size_settings("source", config.source_size),
        **_own_settings("source", source),
    }
    labelling = _labelling(source)
    if labelling is not None:
        train_ids = {name: space.train_id(c) for name, c in labelling.classes.items()}
    elif source.classes is not None and (path := Path(source.classes).expanduser()).is_file():
        train_ids = {str(key): value for key, value in read_class_map(path, space).items()}
    else:
        return settings  # the class map went where the data set did
    return {**settings, "train id": train_ids}


def target_settings(config: DataConfig) -> dict[str, Any]:
    """The same for the target's images to train on."""
    target = config.target
    settings = {
        "data.target.name": target.name,
        **_size_settings("target", config.target_size),
        **_own_settings("target", target),
    }
    if target.name in _TARGETS:
        split = target.train_split or _default_split(target.name, "train")
        settings["data.target.train_split"] = split
    return settings


def _size_settings(side: str, size: tuple[int, int]) -> dict[str, int]:
    return {f"data.{side}.height": size[0], f"data.{side}.width": size[1]}


def _own_settings(side: str, config: SourceConfig | TargetConfig) -> dict[str, Any]:
    """Settings that only some data sets have; the target's labels are none of its images'."""
    names = {
        ("source", "street_scenes"): ("look", "frames", "first_seed"),
        ("target", "street_scenes"): ("look", "frames"),
        ("source", "carla"): ("images", "labels", "depth"),
        ("source", "folder"): ("images", "labels", "depth", "depth_per_metre", "split"),
        ("target", "folder"): ("images", "train_split"),
    }.get((side, config.name), ())
    settings = {f"data.{side}.{name}": getattr(config, name) for name in names}
    if config.name == "street_scenes":
        settings["version of street scenes"] = street_scenes.VERSION
    return settings


def describe_target(config: DataConfig) -> str:
    """What the target is, in words for a table's caption."""
    target = config.target
    if target.name == "street_scenes":
        return f"street scenes in the look {target.look!r}: rendered, a stand-in for real images"
    if target.name == "folder":
        return f"the images of {target.root}"
    split = target.evaluation_split or _default_split(target.name, "evaluation")
    return f"{_TARGETS[target.name].NAME}, real frames ({split})"


def label_space(config: DataConfig) -> LabelSpace:
    """The classes that are trained and scored."""
    return LABEL_SPACES[config.label_space]


def check_label_space(config: DataConfig) -> None:
    """Refuse a source and a target that cannot both be mapped to the label space.

    Raises:
        InputError: shows the label spaces of both.
    """
    source, target = _spaces_of_source(config), _spaces_of_target(config)
    if config.label_space in source and config.label_space in target:
        return
    shared = [name for name in source if name in target]
    raise InputError(
        f"source {config.source.name} can be labelled in {', '.join(source)}; target "
        f"{config.target.name} in {', '.join(target)}; data.label_space is {config.label_space}: "
        + (f"set it to {' or '.join(shared)}" if shared else "they have none in common")
    )


class Unreadable:
    """Files that could not be read: each is told once, and more than ``limit`` are an error."""

    def __init__(self, limit: int, tell: Callable[[str], None]):
        self.limit, self.tell = limit, tell
        self._messages: set[str] = set()

    def add(self, message: str) -> None:
        """Take note of a file's error.

        Raises:
            InputError: there are more than ``limit`` now.
        """
        if message in self._messages:
            return
        self._messages.add(message)
        if len(self._messages) > self.limit:
            raise InputError(
                f"{message}\n{len(self._messages)} files cannot be read, data.max_unreadable is "
                f"{self.limit}; python -m gioada_fast.data check names them all"
            )
        self.tell(f"{message}: left out ({len(self._messages)} of at most {self.limit})")


def first_readable(frames: Sequence, count: int) -> list:
    """The first ``count`` frames, without those that cannot be read."""
    found = []
    for index in range(len(frames)):
        if len(found) == count:
            break
        try:
            found.append(frames[index])
        except InputError:
            continue
    return found


def class_weights(
    frames: SourceFrames | PackedSource, num_classes: int, unreadable: Unreadable
) -> np.ndarray:
    """1 / sqrt(frequency in the source's labels), mean 1, float32 [C]; absent classes weigh 1."""
    counts = np.zeros(256, np.int64)
    for index in range(len(frames)):
        try:
            counts += np.bincount(frames.labels(index).ravel(), minlength=256)
        except InputError as error:
            unreadable.add(str(error))
    counts = counts[:num_classes]
    present = counts > 0
    weights = np.ones(num_classes)
    weights[present] = 1 / np.sqrt(counts[present] / counts.sum())
    weights[present] /= weights[present].mean()
    return weights.astype(np.float32)


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 [H, W, 3] to ``size`` (H, W): area when it shrinks, bilinear when it grows."""
    if image.shape[:2] == tuple(size):
        return image
    shrinks = image.shape[0] >= size[0] and image.shape[1] >= size[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(image, size[::-1], interpolation=method)


def resize_nearest(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[H, W] of labels or depth to ``size`` (H, W), nearest: no class or depth is invented."""
    if array.shape == tuple(size):
        return array
    return cv2.resize(array, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)


def check_same_size(image: np.ndarray, other: np.ndarray, path: Path, other_path: Path) -> None:
    """Refuse a label or depth map whose size is not its image's."""
    if image.shape[:2] != other.shape[:2]:
        (h, w), (other_h, other_w) = image.shape[:2], other.shape[:2]
        raise InputError(f"{other_path}: {other_w}x{other_h}, but its image {path} is {w}x{h}")


def _scenes(config, first: int, count: int, size: tuple[int, int], space: LabelSpace) -> DataSet:
    root = Path(config.root or SCENES_CACHE).expanduser()
    paths = street_scenes.ensure(root, config.look, range(first, first + count), size)
    frames = [FrameFiles(*files) for files in paths]
    return DataSet("street scenes", root, frames, id_labels(STREET.table(space)), CENTIMETRES)


def _spaces_of_source(config: DataConfig) -> tuple[str, ...]:
    labelling = _labelling(config.source)
    return tuple(LABEL_SPACES) if labelling is None else labelling.spaces


def _labelling(source: SourceConfig) -> Labelling | None:
    """What the source's label maps hold; None where a class map says so."""
    if source.name == "street_scenes":
        return STREET
    if source.name == "folder":
        return None
    if source.name == "carla":
        return carla.labelling(source)
    return (_SOURCES | _TARGETS)[source.name].LABELLING


def _spaces_of_target(config: DataConfig) -> tuple[str, ...]:
    name = config.target.name
    if name == "street_scenes":
        return STREET.spaces
    return tuple(LABEL_SPACES) if name == "folder" else _TARGETS[name].LABELLING.spaces


def _check_serves(name: str, spaces: Sequence[str], space: LabelSpace) -> None:
    if space.name not in spaces:
        raise InputError(
            f"{name} can be labelled in {', '.join(spaces)}, not in {space.name} "
            f"({', '.join(space.classes)}): set data.label_space, or take another data set"
        )


def _default_split(name: str, part: str) -> str:
    reader = _TARGETS[name]
    return reader.TRAIN_SPLIT if part == "train" else reader.EVALUATION_SPLIT


def _complete(data: DataSet) -> DataSet:
    missing = data.missing()
    if missing:
        raise InputError(
            f"{data.name}: {len(missing)} files that belong to images are missing, first "
            f"{missing[0]}; python -m gioada_fast.data check names them all"
        )
    return data
