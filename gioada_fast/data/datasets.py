"""The three sets of a run: labelled source, unlabelled target, labelled frames that score.

The target that is trained on is a list of image files and nothing else: its class has no place for
a label, and no function here hands the trainer one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from ..config import DataConfig
from ..errors import InputError
from . import camvid, street_scenes
from .frames import read_depth_centimetres, read_image, read_labels
from .labels import LABEL_SPACES, LabelSpace, camvid_table, street_table


class LabelledFrame(NamedTuple):
    """image uint8 [H, W, 3] RGB, labels uint8 [H, W] train ids, depth float32 [H, W] metres."""

    image: np.ndarray
    labels: np.ndarray
    depth: np.ndarray


@dataclass(frozen=True)
class SourceFrames:
    """Synthetic frames with labels and depth, resized to ``size``."""

    paths: Sequence[tuple[Path, Path, Path]]
    """(image, label map, depth map)."""
    table: np.ndarray
    read_depth: Callable[[Path], np.ndarray]
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> LabelledFrame:
        image_path, labels_path, depth_path = self.paths[index]
        image = read_image(image_path)
        labels = read_labels(labels_path, self.table)
        depth = self.read_depth(depth_path)
        for array, path in ((labels, labels_path), (depth, depth_path)):
            _check_same_size(image, array, image_path, path)
        return LabelledFrame(
            resize_image(image, self.size),
            resize_nearest(labels, self.size),
            resize_nearest(depth, self.size),
        )

    def class_frequencies(self, num_classes: int) -> np.ndarray:
        """Share of each class in the labelled pixels of all frames, float64 [C]."""
        counts = np.zeros(256, np.int64)
        for _, labels_path, _ in self.paths:
            counts += np.bincount(read_labels(labels_path, self.table).ravel(), minlength=256)
        return counts[:num_classes] / max(1, counts[:num_classes].sum())


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
    """image uint8 [H, W, 3] RGB at the networks' size, labels uint8 [H', W'] at their own size."""

    image: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class EvaluationFrames:
    """Labelled target frames, for scoring alone."""

    paths: Sequence[tuple[Path, Path]]
    """(image, label map)."""
    table: np.ndarray
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> EvaluationFrame:
        image_path, labels_path = self.paths[index]
        image, labels = read_image(image_path), read_labels(labels_path, self.table)
        _check_same_size(image, labels, image_path, labels_path)
        return EvaluationFrame(resize_image(image, self.size), labels)


# Seeds of the street scenes; the three sets never share one.
_SOURCE_SEEDS, _TARGET_SEEDS, _EVALUATION_SEEDS = 0, 1_000_000, 2_000_000


def source_frames(config: DataConfig) -> SourceFrames:
    """The synthetic set that the settings name; street scenes that are missing are rendered."""
    source, size = config.source, (config.height, config.width)
    paths = street_scenes.ensure(
        Path(source.root).expanduser(), source.look, _seeds(_SOURCE_SEEDS, source.frames), size
    )
    table = street_table(label_space(config))
    return SourceFrames(paths, table, read_depth_centimetres, size)


def target_images(config: DataConfig) -> TargetImages:
    """The unlabelled images that the settings name."""
    target, size = config.target, (config.height, config.width)
    if target.name == "camvid":
        return TargetImages(camvid.images(target.root, target.train_split), size)
    paths = street_scenes.ensure(
        _scenes_root(config), target.look, _seeds(_TARGET_SEEDS, target.frames), size
    )
    return TargetImages([frame.image for frame in paths], size)


def evaluation_frames(config: DataConfig) -> EvaluationFrames:
    """The labelled target frames that the settings name."""
    target, size, space = config.target, (config.height, config.width), label_space(config)
    if target.name == "camvid":
        pairs = camvid.labelled_images(target.root, target.evaluation_split)
        return EvaluationFrames(pairs, camvid_table(space), size)
    seeds = _seeds(_EVALUATION_SEEDS, target.evaluation_frames)
    paths = street_scenes.ensure(_scenes_root(config), target.look, seeds, size)
    pairs = [(frame.image, frame.labels) for frame in paths]
    return EvaluationFrames(pairs, street_table(space), size)


def describe_target(config: DataConfig) -> str:
    """What the target is, in words for a table's caption."""
    target = config.target
    if target.name == "camvid":
        return f"CamVid, real frames ({target.evaluation_split})"
    return f"street scenes in the look {target.look!r}: rendered, a stand-in for real images"


def label_space(config: DataConfig) -> LabelSpace:
    """The classes that are trained and scored."""
    return LABEL_SPACES[config.label_space]


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


def class_weights(frames: SourceFrames, num_classes: int) -> np.ndarray:
    """1 / sqrt(frequency in the source's labels), mean 1, float32 [C]; absent classes weigh 1."""
    frequency = frames.class_frequencies(num_classes)
    present = frequency > 0
    weights = np.ones(num_classes)
    weights[present] = 1 / np.sqrt(frequency[present])
    weights[present] /= weights[present].mean()
    return weights.astype(np.float32)


def _scenes_root(config: DataConfig) -> Path:
    if config.target.root is None:
        raise InputError("data.target.root is not set: street scenes are rendered into it")
    return Path(config.target.root).expanduser()


def _seeds(first: int, count: int) -> range:
    return range(first, first + count)


def _check_same_size(image: np.ndarray, other: np.ndarray, path: Path, other_path: Path) -> None:
    if image.shape[:2] != other.shape[:2]:
        (h, w), (other_h, other_w) = image.shape[:2], other.shape[:2]
        raise InputError(f"{other_path}: {other_w}x{other_h}, but its image {path} is {w}x{h}")


__all__ = [
    "EvaluationFrames",
    "SourceFrames",
    "TargetImages",
    "class_weights",
    "describe_target",
    "evaluation_frames",
    "label_space",
    "source_frames",
    "target_images",
]
