"""Judges whether the images, labels and depth of a set are plausible.

``measure`` takes a few numbers from each frame, in any process; ``judge`` applies ``RULES`` to the
numbers of a set. Rules are conservative: each bound lies far from the numbers of CamVid, KITTI,
Cityscapes and the street scenes, and rules about the place of things in the image apply only to
label spaces with both a road and a sky, because other worlds (a warehouse, a view from above) have
another order.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

from ..labels import COMMON_CLASSES, IGNORE, Labelling, LabelSpace
from . import registry
from .files import DataSet
from .rasters import ImageFacts

BANDS = 8
"""Number of horizontal bands of equal height that an image is divided into, from the top."""

_SIDE = 160
"""Numbers are measured on every k-th pixel of an image, so that its longer side has at most this
many."""
_MIN_PIXELS = 100
"""Minimum number of measured pixels, or of edges, for a correlation or an alignment."""
_MIN_VALUES = 16
"""Minimum number of distinct depths of a regular grid; a few boxes seen from above have less."""
_MAX_FRAMES, _MAX_SHOWN = 3, 5
"""Maximum numbers of frames that a warning has pictures of, and of files that it lists."""

# Percentage of each common class in the eight bands of an image, from the top, if the camera looks
# along a street: rounded from CamVid, KITTI, a Cityscapes frame and the street scenes.
_PLACES = {
    "road": (0, 0, 0, 1, 30, 60, 75, 80),
    "sidewalk": (0, 0, 0, 1, 10, 15, 12, 8),
    "building": (35, 40, 42, 40, 18, 4, 0, 0),
    "wall": (1, 1, 1, 1, 1, 1, 0, 0),
    "fence": (0, 0, 0, 6, 3, 1, 0, 0),
    "pole": (1, 1, 1, 2, 2, 1, 0, 0),
    "traffic light": (0.5, 0.5, 0.5, 0.3, 0, 0, 0, 0),
    "traffic sign": (0.5, 0.7, 1, 0.7, 0.1, 0, 0, 0),
    "vegetation": (25, 30, 37, 22, 6, 2, 1, 1),
    "terrain": (0, 0, 0, 1, 4, 5, 5, 4),
    "sky": (38, 24, 12, 2, 0, 0, 0, 0),
    "person": (0, 0, 0, 1.5, 2, 1, 0.3, 0.1),
    "rider": (0, 0, 0, 0.5, 0.7, 0.3, 0.1, 0),
    "car": (0, 0, 1, 10, 18, 9, 4, 3),
    "truck": (0, 0.2, 0.5, 1, 0.6, 0.2, 0, 0),
    "bus": (0, 0.2, 0.5, 1, 0.6, 0.2, 0, 0),
    "train": (0, 0.1, 0.2, 0.4, 0.2, 0.1, 0, 0),
    "motorcycle": (0, 0, 0, 0.2, 0.4, 0.2, 0.1, 0),
    "bicycle": (0, 0, 0, 0.5, 1, 0.6, 0.2, 0.1),
}
_ALWAYS_IGNORED, _ANYWHERE = 5.0, 0.2
"""Percentage of pixels without a class in every band, and of any class in any band."""

# Mean log probability of a pixel's class in its band. CamVid, KITTI, Cityscapes and the street
# scenes have -0.97 to -1.58, over all label spaces that they serve; with ids moved by one -1.68 to
# -4.3, upside down -4.1 to -5.0.
_GOOD_PLACES, _BAD_PLACES, _BETTER_PLACES = -1.75, -2.2, 0.45

# Alignment: mean z-score of the image's gradient at the edges of labels or depth. Its gain over the
# alignment after moving them by a third of the width is 0.54 (one frame) to 1.05 in sound sets of
# labels, 0.50 to 0.81 for depth, and 0.03 to 0.22 for labels of other scenes; simulated night, fog,
# blur and JPEG of quality 15 leave 0.28 or more. Flipped labels are better aligned than the right
# ones in no frame of these sets, but in one of the simulated fog, by 0.27.
_ALIGNED, _BETTER_ALIGNED = 0.2, 0.35
_MIN_ALIGNED_FRAMES = 4
# share of pixels that are edges; others are noise or too few to judge
_MIN_EDGES, _MAX_EDGES = 0.003, 0.4

_LUMA = np.array([0.299, 0.587, 0.114])
"""Weights of R, G and B in the grey values of image files."""


_NEVER_DRAWN = "labels-never-drawn"


class PlausibilityWarning(NamedTuple):
    """Something in a set that no sound set has."""

    rule: str
    """Name in ``RULES``."""
    message: str
    """What was measured, and the bound."""
    advice: str
    """What to do."""
    frames: tuple[int, ...] = ()
    """Indices in the data set of the frames that show it best, the worst first."""

    def __str__(self) -> str:
        return f"{self.message}: {self.advice} ({self.rule})"


class Roles(NamedTuple):
    """Train ids of the classes that rules speak about; empty if a label space has none."""

    sky: tuple[int, ...]
    road: tuple[int, ...]

    @property
    def street(self) -> bool:
        """Whether the label space describes streets."""
        return bool(self.sky and self.road)


@lru_cache
def roles(space: LabelSpace) -> Roles:
    """The classes of a label space that are sky alone, or road."""
    names = _common_names(space)
    return Roles(
        tuple(i for i, of in enumerate(names) if of == ("sky",)),
        tuple(i for i, of in enumerate(names) if "road" in of),
    )


@dataclass
class Measures:
    """Numbers of one frame; NaN where the frame has no such file or nothing to measure."""

    # grey values, 0 to 255
    dark: float = math.nan
    """99th percentile."""
    bright: float = math.nan
    """1st percentile."""
    contrast: float = math.nan
    """Standard deviation."""
    # labels
    ignored: float = math.nan
    """Share of pixels without a class."""
    values: float = math.nan
    """Number of distinct train ids, IGNORE included."""
    explained: float = math.nan
    """Share of the image's variance that the labels explain."""
    labels_here: float = math.nan
    """Alignment of label and image edges; the next ones after flipping the labels."""
    labels_mirrored: float = math.nan
    labels_upside_down: float = math.nan
    labels_turned: float = math.nan
    labels_gain: float = math.nan
    """Alignment of edges between left and right neighbours, minus the same after moving the labels
    sideways. (Edges between rows, such as the horizon, hardly change by that.)"""
    # depth in metres, over pixels with a depth
    share: float = math.nan
    """Share of pixels with a depth."""
    share_not_sky: float = math.nan
    """The same without the pixels that are labelled as sky."""
    median: float = math.nan
    p5: float = math.nan
    p95: float = math.nan
    fall: float = math.nan
    """Correlation of the row and the logarithm of depth in the lower 60 % of the image; negative if
    depth falls towards the bottom."""
    sky: float = math.nan
    """Median of the sky, if most of the sky has a depth."""
    road: float = math.nan
    """Median of the road."""
    road_bottom: float = math.nan
    """Median of the road in the lowest 15 % of the image."""
    depths: float = math.nan
    """Number of distinct depths."""
    step: float = math.nan
    """Unit relative to the median, if depths (or inverse depths) are multiples of a unit; or 0."""
    like_image: float = math.nan
    """Absolute correlation of depth and grey value."""
    like_labels: float = math.nan
    """Share of the depth's variance that the labels explain."""
    depth_here: float = math.nan
    depth_mirrored: float = math.nan
    depth_upside_down: float = math.nan
    depth_turned: float = math.nan
    depth_gain: float = math.nan


class FrameFacts(NamedTuple):
    """What ``measure`` found in one frame."""

    measures: Measures
    digest: bytes = b""
    """Hash of the image's pixels."""
    places: np.ndarray | None = None
    """uint32 [256, BANDS]: number of measured pixels by train id and band."""
    image: ImageFacts | None = None


def measure(
    image: np.ndarray | None,
    labels: np.ndarray | None,
    metres: np.ndarray | None,
    space_roles: Roles,
    image_facts: ImageFacts | None = None,
) -> FrameFacts:
    """Numbers of a frame; files that are missing, unreadable or of another size are None.

    Args:
        image: RGB uint8 [H, W, 3].
        labels: train ids uint8 [H, W].
        metres: depth float32 [H, W], 0 for no depth.
        space_roles: ``roles`` of the label space.
        image_facts: how the image is stored.
    """
    found = Measures()
    arrays = [array for array in (image, labels, metres) if array is not None]
    if not arrays or 0 in arrays[0].shape:
        return FrameFacts(found)
    step = _step(arrays[0])
    edges = grey = None
    digest, counts = b"", None
    if image is not None:
        digest = _digest(image)
        grey = _every(image, step) @ _LUMA
        found.bright, found.dark = (float(value) for value in np.percentile(grey, (1, 99)))
        found.contrast = float(grey.std())
        edges = image_edges(image)
    small = None
    if labels is not None:
        small = _every(labels, step)
        counts = places(small)
        found.ignored = float((small == IGNORE).mean())
        found.values = float(np.count_nonzero(counts.any(axis=1)))
        if grey is not None and edges is not None:
            found.explained = _explained(grey, small)
            _set_alignment(found, "labels", edges, small, label_edges)
    if metres is not None:
        _measure_depth(found, _every(metres, step), small, grey, edges, space_roles)
    return FrameFacts(found, digest, counts, image_facts)


def _measure_depth(
    found: Measures,
    metres: np.ndarray,
    labels: np.ndarray | None,
    grey: np.ndarray | None,
    edges: "Edges | None",
    space_roles: Roles,
) -> None:
    has_depth = metres > 0
    found.share = float(has_depth.mean())
    found.share_not_sky = found.share
    if labels is not None:
        sky, road = (np.isin(labels, ids) for ids in space_roles)
        if not sky.all():
            found.share_not_sky = float(has_depth[~sky].mean())
        bottom = road.copy()
        bottom[: round(0.85 * len(road))] = False
        if sky.any() and has_depth[sky].mean() > 0.5:
            found.sky = _median(metres[sky & has_depth])
        found.road = _median(metres[road & has_depth])
        found.road_bottom = _median(metres[bottom & has_depth])
        if has_depth.any():
            found.like_labels = _explained(metres[has_depth], labels[has_depth])
    known = metres[has_depth]
    if known.size < _MIN_PIXELS:
        return
    found.p5, found.median, found.p95 = (float(v) for v in np.percentile(known, (5, 50, 95)))
    distinct = np.unique(known)
    found.depths = float(distinct.size)
    found.step = _unit(distinct, found.median)
    if _values_in_a_row(metres) > 4:  # inverse depth of flat ground is regular, too
        found.step = max(found.step, _unit(1 / distinct, 1 / found.median))
    lower = has_depth.copy()
    lower[: round(0.4 * len(lower))] = False
    found.fall = _correlation(np.nonzero(lower)[0], np.log(metres[lower]))
    if grey is not None and edges is not None:
        found.like_image = abs(_correlation(known, grey[has_depth]))
        _set_alignment(found, "depth", edges, metres, depth_edges)


def _step(array: np.ndarray) -> int:
    h, w = array.shape[:2]
    return min(-(-max(h, w) // _SIDE), h, w)


def _every(array: np.ndarray, step: int) -> np.ndarray:
    """Every ``step``-th pixel, the centres of the cells that ``image_edges`` averages."""
    h, w = array.shape[0] // step * step, array.shape[1] // step * step
    return array[step // 2 : h : step, step // 2 : w : step]


def _digest(image: np.ndarray) -> bytes:
    """Hash of some 40,000 pixels: files of other formats with the same pixels have the same."""
    step = max(1, math.isqrt(image.shape[0] * image.shape[1] // 40_000))
    pixels = np.ascontiguousarray(image[::step, ::step])
    return hashlib.blake2b(
        pixels.tobytes(), digest_size=16, key=repr(image.shape).encode()
    ).digest()


def places(labels: np.ndarray) -> np.ndarray:
    """Number of pixels by value and band: uint32 [256, BANDS] of labels uint8 [H, W]."""
    bands = np.arange(len(labels)) * BANDS // len(labels)
    codes = labels.astype(np.int64) * BANDS + bands[:, None]
    return np.bincount(codes.ravel(), minlength=256 * BANDS).reshape(256, BANDS).astype(np.uint32)


def _explained(values: np.ndarray, labels: np.ndarray) -> float:
    """Share of the variance of ``values`` that lies between the classes of ``labels``."""
    values, labels = values.ravel().astype(np.float64), labels.ravel()
    count = np.bincount(labels, minlength=256)
    mean = np.bincount(labels, values, minlength=256) / np.maximum(count, 1)
    total = values.var()
    within = np.square(values - mean[labels]).mean()
    judged = values.size >= _MIN_PIXELS and total > 1e-6 and (count > 0).sum() > 1
    return float(1 - within / total) if judged else math.nan


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    if x.size < _MIN_PIXELS or np.std(x) < 1e-6 or np.std(y) < 1e-6:
        return math.nan
    return float(np.corrcoef(x, y)[0, 1])


def _unit(distinct: np.ndarray, typical: float) -> float:
    """Unit of values that lie on a regular grid, relative to ``typical``; 0 if they do not."""
    if not _MIN_VALUES <= distinct.size <= 1024:
        return 0.0
    values = np.sort(distinct.astype(np.float64))
    smallest, extent = np.diff(values).min(), values[-1] - values[0]
    if extent > 1024 * smallest:
        return 0.0
    # another rounding, to centimetres for example, makes the smallest gap less than the unit
    for count in range(math.ceil(extent / smallest / 1.1), round(extent / smallest) + 1):
        steps = (values - values[0]) * (count / extent)
        if np.abs(steps - np.rint(steps)).max() < 0.15:
            return float(extent / count / typical)
    return 0.0


def _values_in_a_row(metres: np.ndarray) -> float:
    """Median number of distinct depths in a row of pixels."""
    return float(np.median([np.unique(row).size for row in metres[::4]]))


def _median(values: np.ndarray) -> float:
    """Median; NaN for less than 10 values."""
    return float(np.median(values)) if values.size >= 10 else math.nan


class Edges(NamedTuple):
    """Strength of the edge between each pixel and its neighbour to the right, and below; [h, w]."""

    right: np.ndarray
    below: np.ndarray


def image_edges(image: np.ndarray) -> Edges:
    """z-scores of the logarithm of an image's gradient, on cells averaged to ``_SIDE`` pixels."""
    step = _step(image)
    h, w = image.shape[0] // step, image.shape[1] // step
    cells = cv2.resize(image[: h * step, : w * step], (w, h), interpolation=cv2.INTER_AREA)
    grey = cells.astype(np.float32).mean(axis=2)
    gradients = _differences(grey)
    logs = [np.log1p(np.abs(gradient)) for gradient in gradients]
    return Edges(*((log - log.mean()) / max(float(log.std()), 1e-6) for log in logs))


def label_edges(labels: np.ndarray) -> Edges:
    """Where two neighbours have different classes; pixels that are ignored have no edges."""
    known = labels != IGNORE
    changes = (change != 0 for change in _differences(labels.astype(np.int16)))
    return Edges(*(c & k for c, k in zip(changes, _both(known), strict=True)))


def depth_edges(metres: np.ndarray) -> Edges:
    """Where depth jumps: by 15 % sideways, or downwards by 30 % against the ground's slope."""
    known = metres > 0
    logs = np.log(np.maximum(metres, 1e-3))
    right, below = _differences(logs)
    slope = np.zeros_like(logs)
    slope[1:] = below[1:] - below[:-1]
    right_known, below_known = _both(known)
    return Edges((np.abs(right) > 0.15) & right_known, (np.abs(slope) > 0.3) & below_known)


def label_alignment(image: np.ndarray, labels: np.ndarray) -> float:
    """Alignment of an image RGB uint8 [H, W, 3] with label edges; NaN if the sizes differ, too."""
    if image.shape[:2] != labels.shape:
        return math.nan
    return alignment(image_edges(image), label_edges(_every(labels, _step(labels))))


def _differences(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    right, below = np.zeros_like(array), np.zeros_like(array)
    np.subtract(array[:, 1:], array[:, :-1], out=right[:, :-1])
    np.subtract(array[1:], array[:-1], out=below[:-1])
    return right, below


def _both(known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    right, below = known.copy(), known.copy()
    right[:, :-1] &= known[:, 1:]
    below[:-1] &= known[1:]
    return right, below


def alignment(edges: Edges, other: Edges) -> float:
    """Mean z-score of the image at the edges of labels or depth; NaN if too few or too many."""
    count = np.count_nonzero(other.right) + np.count_nonzero(other.below)
    if count < _MIN_PIXELS or not _MIN_EDGES < count / other.right.size < _MAX_EDGES:
        return math.nan
    total = edges.right[other.right].sum() + edges.below[other.below].sum()
    return float(total / count)


def _mean_at(values: np.ndarray, mask: np.ndarray) -> float:
    chosen = values[mask]
    return float(chosen.mean()) if chosen.size >= _MIN_PIXELS else math.nan


def _set_alignment(
    found: Measures,
    kind: str,
    edges: Edges,
    array: np.ndarray,
    edges_of: Callable[[np.ndarray], Edges],
) -> None:
    here = alignment(edges, edges_of(array))
    if math.isnan(here):
        return
    flips = {
        "mirrored": array[:, ::-1],
        "upside_down": array[::-1],
        "turned": array[::-1, ::-1],
    }
    setattr(found, f"{kind}_here", here)
    third = array.shape[1] // 3
    own, *moved = (
        _mean_at(edges.right, edges_of(np.roll(array, by, axis=1)).right)
        for by in (0, third, -third)
    )
    setattr(found, f"{kind}_gain", own - sum(moved) / 2)
    for name, flipped in flips.items():
        setattr(found, f"{kind}_{name}", alignment(edges, edges_of(flipped)))


class StoredLabels(NamedTuple):
    """Label maps of a few frames as they are stored."""

    places: np.ndarray
    """int64 [256, BANDS]: number of pixels by stored id and band."""
    train_ids: Mapping[int, int]
    """Train id, or IGNORE, of each id that the set's reader knows."""


@dataclass(frozen=True)
class SetFacts:
    """What the rules judge."""

    data: DataSet
    name: str
    """``source``, ``source 1``, ``source 2`` ..., ``target`` or ``evaluation``."""
    space: LabelSpace
    frames: Mapping[int, FrameFacts]
    """By the frame's index in ``data``."""
    pixels: np.ndarray
    """int64 [256]: pixels of all frames by train id."""
    whole: bool = True
    """Whether ``frames`` are all of the set."""
    stored: StoredLabels | None = None
    """None if there are no label maps with ids."""
    unread_labels: int = 0
    """Number of label maps that cannot be read because of values that the set does not define."""
    unknown: int = 0
    """Number of pixels with values that the set does not define."""
    neighbours: np.ndarray | None = None
    """float [n, 3]: alignment of n images with the labels of their own frame, the one before, and
    the one after."""
    places: np.ndarray = field(init=False)
    """int64 [256, BANDS], summed over the frames."""
    indices: np.ndarray = field(init=False)
    """int64 [n]: keys of ``frames``, sorted."""

    def __post_init__(self):
        places = np.zeros((256, BANDS), np.int64)
        for frame in self.frames.values():
            if frame.places is not None:
                places += frame.places
        object.__setattr__(self, "places", places)
        object.__setattr__(self, "indices", np.array(sorted(self.frames), np.int64))

    def column(self, name: str) -> np.ndarray:
        """One of ``Measures`` of every frame, in the order of ``indices``: float [n]."""
        return np.array([getattr(self.frames[i].measures, name) for i in self.indices], float)

    @property
    def is_source(self) -> bool:
        return self.name.startswith("source")

    @property
    def setting(self) -> str:
        """Prefix of the set's settings."""
        number = self.name.partition(" ")[2]
        if number:
            return f"data.sources[{int(number) - 1}]"
        return "data.source" if self.is_source else "data.target"

    @property
    def street(self) -> bool:
        """Whether road and sky are drawn, so that the camera looks along a street."""
        drawn = self.places.sum(axis=1)
        least = 0.001 * max(1, drawn.sum())
        return all(ids and drawn[list(ids)].sum() > least for ids in roles(self.space))

    def worst(self, badness: np.ndarray) -> tuple[int, ...]:
        """Indices of the frames with the greatest ``badness`` [n], NaN and -inf left out."""
        usable = np.flatnonzero(np.isfinite(badness))
        order = usable[np.argsort(-badness[usable], kind="stable")]
        return tuple(int(self.indices[i]) for i in order[:_MAX_FRAMES])


@dataclass(frozen=True)
class Rule:
    """A rule of plausibility."""

    name: str
    find: Callable[[SetFacts], tuple[str, tuple[int, ...]] | None]
    """Returns what was measured and the frames that show it, or None."""
    advice: str
    """``{setting}`` stands for ``data.source`` or ``data.target``."""
    explained_by: tuple[str, ...] = ()
    """Rules that are the cause of this one: if one of them warns, this one does not."""
    needs_all: bool = False
    """Whether the rule needs every frame of the set."""
    needs_metres: bool = False
    """Whether the rule needs metres, which relative depth has not."""


def judge(facts: SetFacts) -> list[PlausibilityWarning]:
    """Warnings of all rules about a set, in the order of ``RULES``."""
    warnings: dict[str, PlausibilityWarning] = {}
    if not facts.frames:
        return []
    for rule in RULES:
        if (rule.needs_all and not facts.whole) or any(n in warnings for n in rule.explained_by):
            continue
        if rule.needs_metres and facts.data.depth is not None and facts.data.depth.relative:
            continue
        with np.errstate(invalid="ignore", divide="ignore"):  # NaN compares as False
            found = rule.find(facts)
        if found is not None:
            message, frames = found
            advice = rule.advice.replace("{setting}", facts.setting)
            warnings[rule.name] = PlausibilityWarning(rule.name, message, advice, frames)
    return list(warnings.values())


def drawn_by_others(
    warnings: Sequence[PlausibilityWarning], facts: SetFacts, others: Iterable[SetFacts]
) -> list[PlausibilityWarning]:
    """A source's warnings, where classes that other sources draw are not missing."""
    together = replace(facts, pixels=facts.pixels + sum(other.pixels for other in others))
    found = _never_drawn(together)
    kept = [w for w in warnings if w.rule != _NEVER_DRAWN or found is not None]
    return [w._replace(message=found[0]) if found and w.rule == _NEVER_DRAWN else w for w in kept]


def shared_images(
    name: str, facts: SetFacts, other_name: str, other: SetFacts
) -> PlausibilityWarning | None:
    """Images of a set that another set has, too."""
    first = {frame.digest: index for index, frame in sorted(other.frames.items(), reverse=True)}
    shared = [
        index for index in facts.indices.tolist() if facts.frames[index].digest in first
        and facts.frames[index].digest
    ]  # fmt: skip
    if not shared:
        return None
    image = facts.data.frames[shared[0]].image
    twin = other.data.frames[first[facts.frames[shared[0]].digest]].image
    return PlausibilityWarning(
        "images-shared",
        f"{len(shared)} of {len(facts.indices)} images of {name} have the same pixels as an image "
        f"of {other_name}, first {image} and {twin}",
        "leave them out of one set; scores on images that were trained on say nothing",
        tuple(shared[:_MAX_FRAMES]),
    )


def _mean(values: np.ndarray) -> float:
    """Mean without NaN; NaN if there is nothing else."""
    values = values[np.isfinite(values)]
    return float(values.mean()) if values.size else math.nan


def _typical(values: np.ndarray) -> float:
    """Median without NaN; NaN if there is nothing else."""
    values = values[np.isfinite(values)]
    return float(np.median(values)) if values.size else math.nan


# --- images ---


def _one_value(facts: SetFacts) -> tuple[str, tuple[int, ...]] | None:
    flat = facts.column("contrast") < 0.5
    return _counted(facts, flat, "images have the same colour at every pixel", "contrast")


def _near_black(facts: SetFacts) -> tuple[str, tuple[int, ...]] | None:
    black = facts.column("dark") < 16
    return _counted(facts, black, "images are nearly black: 99 % of the pixels below 16", "dark")


def _near_white(facts: SetFacts) -> tuple[str, tuple[int, ...]] | None:
    white = facts.column("bright") > 240
    return _counted(facts, white, "images are nearly white: 99 % of the pixels above 240", "dark")


def _orientation(facts: SetFacts) -> tuple[str, tuple[int, ...]] | None:
    images = {i: frame.image for i, frame in facts.frames.items() if frame.image is not None}
    turned = [i for i, image in images.items() if image.orientation != 1]
    if not turned or facts.data.upright:
        return None
    first = turned[0]
    return (
        f"{len(turned)} of {len(images)} images are to be turned by their EXIF data (orientation "
        f"{images[first].orientation}), but are read as stored: "
        f"{_listed(facts.data.frames[i].image for i in turned)}",
        tuple(turned[:_MAX_FRAMES]),
    )


def _bits(facts: SetFacts) -> tuple[str, tuple[int, ...]] | None:
    deep = {
        i: frame.image.bits_held
        for i, frame in facts.frames.items()
        if frame.image is not None and frame.image.bits_stored > 8
    }
    if not deep:
        return None
    shallow = [i for i, bits in deep.items() if bits <= 8]
    if shallow:
        return (
            f"{len(shallow)} of {len(facts.frames)} images have more than 8 bits, but values up to "
            f"255, such as {facts.data.frames[shallow[0]].image}",
            tuple(shallow[:_MAX_FRAMES]),
        )
    held = sorted(set(deep.values()))
    if len(held) == 1:
        return None
    examples = [next(i for i, bits in deep.items() if bits == number) for number in held]
    return (
        f"images are scaled from {' and '.join(map(str, held))} bits, by their largest values: "
        f"{_listed(facts.data.frames[i].image for i in examples)}",
        tuple(examples[:_MAX_FRAMES]),
    )


def _listed(paths: Iterable[object]) -> str:
    """The first paths, and how many more there are."""
    names = list(map(str, paths))
    more = len(names) - _MAX_SHOWN
    return ", ".join(names[:_MAX_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _repeated(facts: SetFacts) -> tuple[str, tuple[int, ...]] | None:
    seen: dict[bytes, int] = {}
    again: list[int] = []
    for index in facts.indices.tolist():
        digest = facts.frames[index].digest
        if digest and seen.setdefault(digest, index) != index:
            again.append(index)
    if not again:
        return None
    files = facts.data.frames
    first = files[again[0]].image, files[seen[facts.frames[again[0]].digest]].image
    return (
        f"{len(again)} of {len(facts.indices)} images have the same pixels as an earlier image, "
        f"first {first[0]} and {first[1]}",
        tuple(again[:_MAX_FRAMES]),
    )


def _counted(
    facts: SetFacts, mask: np.ndarray, words: str, name: str, least: float = 0.0
) -> tuple[str, tuple[int, ...]] | None:
    """Warns if more than a share ``least`` of the frames is in ``mask``; the lowest ``name`` first.

    The message names the number of frames and the first of them.
    """
    count = int(mask.sum())
    if count == 0 or count <= least * len(mask):
        return None
    frames = facts.worst(np.where(mask, -np.nan_to_num(facts.column(name)), -np.inf))
    image = facts.data.frames[frames[0]].image
    return f"{count} of {len(mask)} {words}, such as {image}", frames


# --- labels ---


def _labels_ignored(facts: SetFacts) -> tuple[str, tuple[int, ...]] | None:
    total = int(facts.pixels.sum())
    if not total:
        return None
    share, bound = facts.pixels[IGNORE] / total, _ignored_bound(facts.space)
    ignored = facts.column("ignored")
    if share > bound:
        return (
            f"{share:.1%} of the pixels have no class of {facts.space.name} (bound {bound:.0%})",
            facts.worst(ignored),
        )
    least = 0.02 if roles(facts.space).street else 0.5
    return _counted(facts, ignored >= 1, "label maps have no pixel with a class", "ignored", least)


def _ignored_bound(space: LabelSpace) -> float:
    """Share that streets have outside the space's classes, plus 45 %; at most 97 %.

    Measured: 0 to 12 % in spaces that cover 95 % of a street. Spaces without road or sky, and
    classes that no common class describes, may leave out anything else.
    """
    if not roles(space).street:
        return 0.97
    return min(0.97, float(np.exp(_log_places(space)[IGNORE]).mean()) + 0.45)


def _labels_one_value(facts: SetFacts) -> tuple[str, tuple[int, ...]] | None:
    one = (facts.column("values") == 1) & (facts.column("ignored") < 1)
    least = 0.05 if roles(facts.space).street else 0.5
    return _counted(facts, one, "label maps have the same class at every pixel", "values", least)


def _one_class(facts: SetFacts) -> tuple[str, tuple[int, ...]] | None:
    labelled = facts.pixels[:IGNORE]
    share = labelled.max() / max(1, labelled.sum())
    if share <= 0.95:
        return None
    name = facts.space.classes[int(labelled.argmax())]
    return (
        f"{name} has {share:.1%} of the labelled pixels (bound 95 %)",
        facts.worst(-facts.column("values")),
    )


def _labels_unknown(facts: SetFacts) -> tuple[str, tuple[int, ...]] | None:
    share = facts.unknown / max(1, int(facts.pixels.sum()))
    if not share:
        return None
    return (
        f"{share:.2%} of the pixels have values that the data set does not define, and are ignored",
        facts.worst(facts.column("ignored")),
    )


def _never_drawn(facts: SetFacts) -> tuple[str, tuple[int, ...]] | None:
    if not facts.is_source or not facts.pixels[:IGNORE].any():
        return None
    missing = [name for i, name in enumerate(facts.space.classes) if not facts.pixels[i]]
    if not missing:
        return None
    count = f"{len(missing)} of {facts.space.num_classes}"
    return f"{count} classes are never drawn: {', '.join(missing)}", ()


def _labels_flipped(facts: SetFacts) -> tuple[str, tuple[int, ...]] | None:
    return _flipped(facts, "labels")


def _labels_elsewhere(facts: SetFacts) -> tuple[str, tuple[int, ...]] | None:
    return _elsewhere(facts, "labels", "class boundaries")


def _depth_flipped(facts: SetFacts) -> tuple[str, tuple[int, ...]] | None:
    return _flipped(facts, "depth")


def _depth_elsewhere(facts: SetFacts) -> tuple[str, tuple[int, ...]] | None:
    return _elsewhere(facts, "depth", "jumps of depth")


def _flipped(facts: SetFacts, kind: str) -> tuple[str, tuple[int, ...]] | None:
    here = facts.column(f"{kind}_here")
    names = {
        "mirrored": "mirrored left to right",
        "upside_down": "turned upside down",
        "turned": "turned by 180 degrees",
    }
    for flip, words in names.items():
        flipped = facts.column(f"{kind}_{flip}")
        better = flipped - here
        judged = np.isfinite(better)
        wrong = better > _BETTER_ALIGNED
        if wrong.sum() > 0.02 * judged.sum():
            return (
                f"{kind} of {wrong.sum()} of {judged.sum()} frames fit their images better when "
                f"{words}: alignment of edges {_mean(flipped[wrong]):.2f} instead of "
                f"{_mean(here[wrong]):.2f}",
                facts.worst(np.where(wrong, better, np.nan)),
            )
    return None


def _elsewhere(facts: SetFacts, kind: str, edges: str) -> tuple[str, tuple[int, ...]] | None:
    gain = facts.column(f"{kind}_gain")
    judged = np.isfinite(gain)
    if judged.sum() < _MIN_ALIGNED_FRAMES or _mean(gain) > _ALIGNED:
        return None
    return (
        f"{edges} are not where the images have edges: alignment {_mean(gain):.2f} (bound "
        f"{_ALIGNED})",
        facts.worst(-gain),
    )


def _labels_of_neighbour(facts: SetFacts) -> tuple[str, tuple[int, ...]] | None:
    if facts.neighbours is None or len(facts.neighbours) < _MIN_ALIGNED_FRAMES:
        return None
    own, before, after = (_mean(column) for column in facts.neighbours.T)
    name, other, column = ("before", before, 1) if before > after else ("after", after, 2)
    wins = _mean(facts.neighbours[:, column] > facts.neighbours[:, 0])
    if not (other - own > 0.08 and wins >= 0.75):
        return None
    return (
        f"label maps fit the image of another frame better: alignment of edges {other:.2f} with "
        f"the labels of the frame {name}, {own:.2f} with their own",
        facts.worst(-facts.column("labels_here")),
    )


def _labels_are_image(facts: SetFacts) -> tuple[str, tuple[int, ...]] | None:
    same = facts.column("explained") > 0.997
    return _counted(
        facts, same, "images show nothing but their classes (99.7 % of the variance)", "explained"
    )


# --- labels: where the classes lie ---


def _common_names(space: LabelSpace) -> list[tuple[str, ...]]:
    """Common classes of each class: its ``of``, or its own name if it has none."""
    of = space.of or ((),) * space.num_classes
    return [
        names or ((name,) if name in COMMON_CLASSES else ())
        for name, names in zip(space.classes, of, strict=True)
    ]


@lru_cache
def _log_places(space: LabelSpace) -> np.ndarray:
    """Log probability [256, BANDS] of each train id in a band; NaN if it is no common class."""
    places = np.full((256, BANDS), np.nan)
    names = _common_names(space)
    for train_id, of in enumerate(names):
        if of:
            places[train_id] = np.sum([_PLACES[name] for name in of], axis=0)
    covered = {name for of in names for name in of}
    places[IGNORE] = _ALWAYS_IGNORED + sum(
        np.array(_PLACES[name], float) for name in COMMON_CLASSES if name not in covered
    )
    return np.log((places + _ANYWHERE) / 100).clip(max=0)


def plausibility_of(places: np.ndarray, space: LabelSpace) -> float:
    """Mean log probability of a pixel's class in its band: float; NaN if it cannot be judged.

    Only for spaces with road and sky, if at least 70 % of the pixels are ignored or of classes that
    common classes describe.

    Args:
        places: number of pixels [256, BANDS] by train id and band.
        space: its classes.
    """
    logs = _log_places(space)
    known = np.isfinite(logs[:, 0])
    pixels = places[known].sum()
    if not roles(space).street or pixels < 0.7 * max(1, places.sum()):
        return math.nan
    return float((places[known] * logs[known]).sum() / pixels)


def _numbering(facts: SetFacts) -> tuple[str, tuple[int, ...]] | None:
    now = plausibility_of(facts.places, facts.space) if facts.places.any() else math.nan
    if math.isnan(now):
        # no map could be read, because all have ids that the set does not define
        if facts.places.any() or not facts.unread_labels:
            return None
        if facts.stored is not None:
            now = plausibility_of(_reread(facts.stored.places, facts.stored.train_ids), facts.space)
        now = -math.inf if math.isnan(now) else now
    scores = [(plausibility_of(p, facts.space), words) for words, p in _other_readings(facts)]
    best, words = max(
        ((score, words) for score, words in scores if not math.isnan(score)),
        default=(-math.inf, ""),
        key=lambda scored: scored[0],
    )
    if best < _GOOD_PLACES or best - now < _BETTER_PLACES:
        return None
    present = "cannot be read" if math.isinf(now) else f"now {now:.2f}"
    return (
        f"classes lie where a street has them if {words}: plausibility of their places {best:.2f} "
        f"({present}; streets have {_GOOD_PLACES} or more)",
        facts.worst(facts.column("ignored")) or tuple(facts.indices[:_MAX_FRAMES].tolist()),
    )


def _other_readings(facts: SetFacts) -> Iterable[tuple[str, np.ndarray]]:
    """Other ways to read the labels: in words, and the places [256, BANDS] by train id."""
    yield "the label maps are turned upside down", facts.places[:, ::-1]
    last = facts.space.num_classes - 1
    for move, words in ((-1, "less by one"), (1, "greater by one")):
        moved = {i: i + move if 0 <= i + move <= last else IGNORE for i in range(last + 1)}
        yield f"the train ids are {words}", _reread(facts.places, moved)
    if facts.stored is None:
        return
    readings: list[tuple[str, Mapping[int, int]]] = [("their ids are", facts.stored.train_ids)]
    for name, labelling in _labellings():
        readings.append((f"they are {name},", labelling.train_ids(facts.space)))
        yield f"they are {name}", _reread(facts.stored.places, readings[-1][1])
    for name, train_ids in readings:
        for move, words in ((-1, "less by one"), (1, "greater by one")):
            moved = {number - move: train_id for number, train_id in train_ids.items()}
            yield f"{name} {words}", _reread(facts.stored.places, moved)


@lru_cache
def _labellings() -> tuple[tuple[str, Labelling], ...]:
    """Ids that label maps are often written in, in words."""
    train_ids = Labelling("train ids", {name: name for name in COMMON_CLASSES})
    found = {"Cityscapes' train ids": train_ids}
    for reader in registry.readers().values():
        if isinstance(reader.labelling, Labelling) and reader.labelling not in found.values():
            found[f"ids of {reader.labelling.name}"] = reader.labelling
    return tuple(found.items())


def _reread(places: np.ndarray, train_ids: Mapping[int, int]) -> np.ndarray:
    """Places by other train ids; ids that ``train_ids`` lacks are ignored."""
    result = np.zeros((256, BANDS), np.int64)
    for value in np.flatnonzero(places.any(axis=1)).tolist():
        result[train_ids.get(value, IGNORE)] += places[value]
    return result


def _labels_place(facts: SetFacts) -> tuple[str, tuple[int, ...]] | None:
    now = plausibility_of(facts.places, facts.space)
    if not facts.street or not now < _BAD_PLACES:
        return None
    heights = (np.arange(BANDS) + 0.5) / BANDS
    sky, road = (facts.places[list(ids)].sum(axis=0) for ids in roles(facts.space))
    return (
        f"classes lie where no street has them: plausibility of their places {now:.2f} (bound "
        f"{_BAD_PLACES}); from top (0) to bottom (1), sky lies at {sky @ heights / sky.sum():.2f} "
        f"and road at {road @ heights / road.sum():.2f}",
        facts.worst(-facts.column("labels_here")),
    )


# --- depth ---


def _depth_one_value(facts: SetFacts) -> tuple[str, tuple[int, ...]] | None:
    return _counted(
        facts, facts.column("depths") == 1, "depth maps have the same depth everywhere", "median"
    )


def _depth_like_image(facts: SetFacts) -> tuple[str, tuple[int, ...]] | None:
    same = facts.column("like_image") > 0.97
    return _counted(facts, same, "depth maps are copies of the grey image", "median")


def _depth_like_labels(facts: SetFacts) -> tuple[str, tuple[int, ...]] | None:
    same = (facts.column("like_labels") > 0.998) & (facts.column("depths") > 1)
    return _counted(facts, same, "depth maps have one depth for each class", "median")


def _depth_quantised(facts: SetFacts) -> tuple[str, tuple[int, ...]] | None:
    step = facts.column("step")
    # street scenes: 0.1 %, as they are in centimetres
    if not _typical(step) > 0.02:
        return None
    return (
        f"depth comes in steps of {_typical(step):.1%} of its median (bound 2 %), with "
        f"{_typical(facts.column('depths')):.0f} values in a map",
        facts.worst(step),
    )


def _depth_missing(facts: SetFacts) -> tuple[str, tuple[int, ...]] | None:
    # the depth of real evaluation frames comes from lasers, which miss most pixels
    share = facts.column("share_not_sky")
    if not facts.is_source or not _mean(share) < 0.5:
        return None
    return (
        f"{_mean(share):.1%} of the pixels that are not sky have a depth (bound 50 %)",
        facts.worst(-share),
    )


def _depth_rises(facts: SetFacts) -> tuple[str, tuple[int, ...]] | None:
    fall = facts.column("fall")
    # street scenes: -0.57 to -0.95
    bound = -0.3 if facts.street else 0.5
    if not _typical(fall) > bound:
        return None
    return (
        "depth does not fall from the horizon to the bottom of the image: correlation with the row "
        f"{_typical(fall):.2f} (bound {bound})",
        facts.worst(fall),
    )


def _depth_of_sky(facts: SetFacts) -> tuple[str, tuple[int, ...]] | None:
    sky, road = facts.column("sky"), facts.column("road")
    nearer = sky < road
    judged = int(np.isfinite(sky - road).sum())
    if not judged or nearer.sum() <= judged / 2:
        return None
    return (
        f"the sky is nearer than the road in {nearer.sum()} of {judged} frames, at "
        f"{_typical(sky):.2f} m against {_typical(road):.2f} m",
        facts.worst(road / sky),
    )


def _depth_units(facts: SetFacts) -> tuple[str, tuple[int, ...]] | None:
    median, bottom = _typical(facts.column("median")), math.nan
    least, most = 0.2, 300.0
    if facts.street:
        # street scenes: medians of 4.6 to 18 m, and 2.1 to 5 m at the bottom of the image
        least, most, bottom = 2.5, 100.0, _typical(facts.column("road_bottom"))
    if not (median < least or median > most or bottom < 0.8 or bottom > 25):
        return None
    road = "" if math.isnan(bottom) else f"; road at the bottom at {bottom:.3g} m (0.8 to 25 m)"
    return (
        f"depth has a median of {median:.3g} m (bounds {least:g} to {most:g} m){road}",
        facts.worst(np.abs(np.log(facts.column("median")))),
    )


def _depth_range(facts: SetFacts) -> tuple[str, tuple[int, ...]] | None:
    ratio = facts.column("p95") / facts.column("p5")
    # street scenes: 6 to 30
    if not facts.street or not _typical(ratio) < 2:
        return None
    p5, p95 = _typical(facts.column("p5")), _typical(facts.column("p95"))
    return (
        f"depth lies between {p5:.3g} and {p95:.3g} m (5th and 95th percentile; streets have a "
        "ratio of at least 2)",
        facts.worst(-ratio),
    )


_PAIRS = "make sure that an image and its {} have the same name, and that all were exported alike"
_CLASSES = "compare the class map, or the ids of the labels, with the data set's documentation"
_KIND = (
    "set {setting}.depth_kind (metres, disparity or inverse) and depth_per_metre to what the files "
    "contain; relative maps are larger where it is nearer"
)
_PATTERN = "set {{setting}}.{} to the pattern of the {}, not of the {}"

_NO_IMAGE = ("images-one-colour", "images-near-black", "images-near-white", "images-are-labels")
_WRONG_LABELS = ("labels-flipped", "labels-numbering", "labels-one-value", "labels-place")
_NO_DEPTH = ("depth-one-value", "depth-is-image", "depth-is-labels")

RULES = (
    Rule("images-one-colour", _one_value, "render or export these images again"),
    Rule(
        "images-near-black",
        _near_black,
        "leave them out, or export them again with their whole range of values",
        ("images-one-colour",),
    ),
    Rule("images-near-white", _near_white, "leave them out", ("images-one-colour",)),
    Rule(
        "images-orientation",
        _orientation,
        "if the label and depth maps are as the images look, set {setting}.exif_orientation to "
        "apply; otherwise remove the orientation from the files",
    ),
    Rule(
        "images-bits",
        _bits,
        "export all images alike, with 8 bits or with the whole range of 16",
    ),
    Rule(
        "images-repeated",
        _repeated,
        "leave the copies out",
        ("images-one-colour",),
        needs_all=True,
    ),
    Rule(
        "images-are-labels", _labels_are_image, _PATTERN.format("images", "images", "label maps")
    ),
    Rule("labels-flipped", _labels_flipped, "flip the label maps (or the images) back", _NO_IMAGE),
    Rule("labels-one-value", _labels_one_value, "render or export these label maps again"),
    Rule(
        "labels-numbering",
        _numbering,
        "correct the class map or the label maps, or take the reader of that data set",
        ("labels-flipped", "labels-one-value"),
    ),
    Rule(
        "labels-of-another-frame",
        _labels_elsewhere,
        _PAIRS.format("label map"),
        (*_NO_IMAGE, "labels-flipped", "images-repeated"),
    ),
    Rule(
        "labels-of-neighbour",
        _labels_of_neighbour,
        _PAIRS.format("label map"),
        (*_NO_IMAGE, "labels-flipped", "labels-of-another-frame", "images-repeated"),
    ),
    Rule(
        "labels-unknown",
        _labels_unknown,
        "add the values to the class map if they stand for classes",
        ("labels-numbering",),
    ),
    Rule("labels-ignored", _labels_ignored, _CLASSES, ("labels-numbering",)),
    Rule(
        "labels-one-class",
        _one_class,
        f"{_CLASSES}; the other classes are hardly trained",
        ("labels-numbering", "labels-one-value", "labels-ignored"),
    ),
    Rule(
        "labels-place",
        _labels_place,
        _CLASSES,
        ("labels-flipped", "labels-numbering", "labels-one-class"),
    ),
    Rule(
        _NEVER_DRAWN,
        _never_drawn,
        "leave the class out of the label space, or add frames or a source that draws it; it is "
        "never predicted",
        (*_WRONG_LABELS, "labels-ignored", "labels-one-class"),
        needs_all=True,
    ),
    Rule("depth-one-value", _depth_one_value, "render or export these depth maps again"),
    Rule(
        "depth-is-image", _depth_like_image, _PATTERN.format("depth", "depth maps", "images")
    ),
    Rule(
        "depth-is-labels",
        _depth_like_labels,
        _PATTERN.format("depth", "depth maps", "label maps"),
    ),
    Rule(
        "depth-flipped",
        _depth_flipped,
        "flip the depth maps (or the images) back",
        (*_NO_DEPTH, *_NO_IMAGE),
    ),
    Rule("depth-does-not-fall", _depth_rises, _KIND, (*_NO_DEPTH, "depth-flipped")),
    Rule(
        "depth-sky-near",
        _depth_of_sky,
        "write 0 as the depth of the sky",
        (*_WRONG_LABELS, *_NO_DEPTH, "depth-flipped", "depth-does-not-fall"),
    ),
    Rule(
        "depth-units",
        _depth_units,
        "set {setting}.depth_per_metre to the number that stands for one metre in the files",
        (*_NO_DEPTH, "depth-does-not-fall"),
        needs_metres=True,
    ),
    Rule(
        "depth-range",
        _depth_range,
        _KIND,
        (*_NO_DEPTH, "depth-does-not-fall", "depth-units"),
        needs_metres=True,
    ),
    Rule(
        "depth-of-another-frame",
        _depth_elsewhere,
        _PAIRS.format("depth map"),
        (*_NO_DEPTH, *_NO_IMAGE, "depth-flipped", "depth-does-not-fall", "depth-range",
         "images-repeated"),
    ),
    Rule(
        "depth-quantised",
        _depth_quantised,
        "export depth with 16 bits or floating point",
        _NO_DEPTH,
        needs_metres=True,
    ),
    Rule(
        "depth-missing",
        _depth_missing,
        "make sure that only 0 and the largest whole number mean no depth, and that "
        "depth_per_metre is right: depths beyond 655 m do not count",
    ),
)  # fmt: skip
"""All rules. Causes come before what they explain."""
