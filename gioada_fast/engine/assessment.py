"""Scores of a task network that need no labels, and how they correlate with scores that do.

Every score is computed frame by frame; the score of a network is the mean over the frames. Target
images have no labels here, so whatever a score says can be said of any folder of images.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..config import LabelFreeScore
from ..errors import InputError
from ..labels import LabelSpace
from ..models import TaskNet
from ..models.layers import normalise, upsample
from ..ops import upsample_argmax
from . import distributed
from .device import autocast
from .inference import image_tensor

SND_TEMPERATURE = 0.05
"""Of soft neighbourhood density (Saito et al., ICCV 2021)."""
_SND_PIXELS = 1024
"""Maximum number of an image's pixels that soft neighbourhood density compares with each other."""


def photometric_changes(image: Tensor) -> list[Tensor]:
    """The same image darker, brighter, with less contrast and with less colour.

    Args:
        image: uint8 [N, 3, H, W].

    Returns:
        Four images uint8 [N, 3, H, W]. The amounts were chosen here.
    """
    x = image.float()
    mean, grey = x.mean((1, 2, 3), keepdim=True), x.mean(1, keepdim=True)
    changed = [0.7 * x, 1.3 * x, mean + 0.6 * (x - mean), grey + 0.5 * (x - grey)]
    return [y.round().clamp(0, 255).to(torch.uint8) for y in changed]


def soft_neighbourhood_density(probabilities: Tensor) -> Tensor:
    """Entropy of the similarities between pixels: how densely similar predictions surround each.

        P_ij = softmax over j != i of <f_i, f_j> / T,    snd = -1/N sum_ij P_ij log P_ij

    f are softmax outputs, scaled to length 1. Higher is better. Networks that predict the same for
    all pixels have the highest value, log(N - 1).

    Args:
        probabilities: [N, C].

    Returns:
        Scalar.

    Source: Saito et al. (ICCV 2021, arXiv 2108.10860); T = 0.05 as there. Their code for images
    leaves out i = j, that for segmentation does not; it draws 100 pixels of each image at random.
    """
    f = torch.nn.functional.normalize(probabilities.float(), dim=1)
    similarity = f @ f.T / SND_TEMPERATURE
    similarity.fill_diagonal_(-math.inf)
    return torch.special.entr(similarity.softmax(1)).sum(1).mean()


class FrameOutput:
    """What the networks predict for one image and its changed copies, computed when a score asks.

    Args:
        task: the network in evaluation mode, on its device.
        image: uint8 [1, 3, H, W] on that device.
        space: classes of the network.
        precision: see ``device.autocast``.
        teacher: the teacher of self-training, or None.
    """

    def __init__(
        self,
        task: TaskNet,
        image: Tensor,
        space: LabelSpace,
        precision: str = "auto",
        teacher: TaskNet | None = None,
    ):
        self.task, self.image, self.space = task, image, space
        self.precision, self.teacher = precision, teacher
        self.size = image.shape[2], image.shape[3]

    def predict(self, network: TaskNet, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits float32 [N, C, h, w] and encoded depth float32 [N, 1, h, w]."""
        with autocast(self.image.device, self.precision):
            logits, depth = network(normalise(images))
        return logits.float(), depth.float()

    @cached_property
    def output(self) -> tuple[Tensor, Tensor]:
        """Logits [1, C, h, w] and encoded depth [1, 1, h, w] of the image as it is."""
        return self.predict(self.task, self.image)

    @cached_property
    def probabilities(self) -> Tensor:
        """[C, H, W]."""
        return upsample(self.output[0], self.size)[0].softmax(0)

    @cached_property
    def labels(self) -> Tensor:
        """uint8 [1, H, W] train ids."""
        return self.labels_of(self.output[0])

    def labels_of(self, logits: Tensor) -> Tensor:
        """uint8 [N, H, W] train ids."""
        return upsample_argmax(logits, self.size, dtype=torch.uint8)


@dataclass(frozen=True)
class Score:
    """A score that needs no labels."""

    caption: str
    """What it is, in a few words."""
    function: Callable[[FrameOutput], Tensor | float]
    """The score of a frame, NaN if it is undefined."""
    higher_is_better: bool = True

    def prefers(self, value: float, other: float | None) -> bool:
        """Whether a value is better than another one, or the first that is defined."""
        if other is None or math.isnan(value):
            return not math.isnan(value)
        return value > other if self.higher_is_better else value < other


def entropy(frame: FrameOutput) -> Tensor:
    """Mean over the pixels of the entropy of the class probabilities, divided by log C."""
    p = frame.probabilities
    return torch.special.entr(p).sum(0).mean() / math.log(max(2, len(p)))


def confidence(frame: FrameOutput) -> Tensor:
    """Mean over the pixels of the largest class probability."""
    return frame.probabilities.amax(0).mean()


def information(frame: FrameOutput) -> Tensor:
    """Entropy of the mean class probabilities minus the mean entropy, divided by log C.

    It is high if each pixel is certain and the classes differ between pixels. Unlike entropy and
    confidence, it does not reward a network that predicts one class everywhere.

    Source: mutual information of input and prediction (Shi and Sha, ICML 2012, arXiv 1206.6438),
    here of the pixels of one image.
    """
    p = frame.probabilities
    marginal = torch.special.entr(p.mean((1, 2))).sum()
    return marginal / math.log(max(2, len(p))) - entropy(frame)


def nuclear(frame: FrameOutput) -> Tensor:
    """Nuclear norm of the class probabilities P [N, C] of an image's pixels, from 0 to 1.

        sum of the singular values of P / sqrt(N min(N, C))

    Like ``information``, it is high if pixels are certain and show different classes.

    Source: Deng et al. (ICML 2023, arXiv 2302.01094), there of a whole data set. The pixels are
    those of the network's own resolution.
    """
    p = frame.output[0][0].flatten(1).softmax(0).double()
    squares = torch.linalg.eigvalsh(p @ p.T)  # of the singular values
    return squares.clamp(min=0).sqrt().sum() / math.sqrt(p.shape[1] * min(p.shape))


def flip(frame: FrameOutput) -> Tensor:
    """Effective invariance to mirroring, see ``invariance``."""
    logits, _ = frame.predict(frame.task, frame.image.flip(3))
    return invariance(frame, logits.flip(3))


def photometric(frame: FrameOutput) -> Tensor:
    """Effective invariance, mean over ``photometric_changes``."""
    logits, _ = frame.predict(frame.task, torch.cat(photometric_changes(frame.image)))
    return torch.stack([invariance(frame, changed) for changed in logits.split(1)]).mean()


def invariance(frame: FrameOutput, logits: Tensor) -> Tensor:
    """Effective invariance of the pixels, mean: how surely they keep their class in a changed copy.

        sqrt(p q) if the classes are the same, otherwise 0

    p and q are the largest class probabilities of the image and of its copy.

    Args:
        frame: the image as it is.
        logits: [1, C, h, w] of the changed copy, moved back to the place of the image's pixels.

    Source: Deng, Gould, Zheng (NeurIPS 2022, arXiv 2207.07065).
    """
    q, changed = upsample(logits, frame.size)[0].softmax(0).max(0)
    p, labels = frame.probabilities.max(0)
    return torch.where(changed == labels, (p * q).sqrt(), 0.0).mean()


def snd(frame: FrameOutput) -> Tensor:
    """Soft neighbourhood density of evenly spaced pixels of the network's own resolution."""
    p = frame.output[0][0].softmax(0).flatten(1).T
    count = min(len(p), _SND_PIXELS)
    if count < 2:
        return p.new_tensor(math.nan)
    places = torch.linspace(0, len(p) - 1, count, dtype=torch.float64, device=p.device)
    return soft_neighbourhood_density(p[places.round().long()])


def teacher_agreement(frame: FrameOutput) -> Tensor | float:
    """Share of the pixels that student and teacher give the same class."""
    if frame.teacher is None:
        return math.nan
    logits, _ = frame.predict(frame.teacher, frame.image)
    return agreement(frame.labels_of(logits), frame.labels)


def depth_agreement(frame: FrameOutput) -> Tensor | float:
    """Share of sky and road whose predicted depth fits sky and road.

    At the network's own resolution, out of two groups together: pixels that are segmented as sky,
    which agree if they are farther than half of the other pixels (never if there are no others);
    and pairs of pixels one above the other that are both segmented as road, which agree if the
    lower one is nearer. Undefined without such pixels. Depth only has to be in order, so that the
    encoding does not matter.
    """
    logits, depth = frame.output
    labels, nearness = logits[0].argmax(0), depth[0, 0]
    agreeing, counted = nearness.new_zeros(()), nearness.new_zeros(())
    sky, road = _sky_and_road(frame.space)
    if sky is not None:
        is_sky = labels == sky
        others = torch.where(is_sky, math.inf, nearness).flatten().sort().values
        median = others[((~is_sky).sum() - 1).clamp(min=0) // 2]
        agreeing = agreeing + (is_sky & (nearness < median) & ~is_sky.all()).sum()
        counted = counted + is_sky.sum()
    if road is not None:
        pairs = (labels[:-1] == road) & (labels[1:] == road)
        agreeing = agreeing + (pairs & (nearness[1:] > nearness[:-1])).sum()
        counted = counted + pairs.sum()
    return agreeing / counted


def agreement(labels: Tensor, others: Tensor) -> Tensor:
    """Share of equal train ids; the shapes may differ in the first dimension."""
    return (labels == others).float().mean()


def _sky_and_road(space: LabelSpace) -> tuple[int | None, int | None]:
    """Train ids of the classes that are sky alone, and ground with the road; None without."""
    ground = {"road", "sidewalk", "terrain"}
    found: dict[str, int] = {}
    for train_id, name in enumerate(space.classes):
        of = set(space.of[train_id] if space.of else ()) or {name}
        if of == {"sky"}:
            found["sky"] = train_id
        if "road" in of and of <= ground:
            found["road"] = train_id
    return found.get("sky"), found.get("road")


SCORES: dict[LabelFreeScore, Score] = {
    "entropy": Score("mean entropy", entropy, higher_is_better=False),
    "confidence": Score("mean confidence", confidence),
    "information": Score("mutual information", information),
    "nuclear": Score("nuclear norm of the predictions", nuclear),
    "flip": Score("consistency under mirroring", flip),
    "photometric": Score("consistency under photometric change", photometric),
    "snd": Score("soft neighbourhood density", snd),
    "teacher": Score("agreement of student and teacher", teacher_agreement),
    "depth": Score("agreement of segmentation and depth", depth_agreement),
}
"""The scores by name."""


def check_defined(name: LabelFreeScore, space: LabelSpace, has_teacher: bool, setting: str) -> None:
    """Refuse a score that no network of a run would have.

    Raises:
        InputError: the score needs a teacher or classes that there are not.
    """
    if name == "teacher" and not has_teacher:
        raise InputError(
            f"{setting} is teacher, but the run has none: set adaptation.self_training, or choose "
            "another score"
        )
    if name == "depth" and _sky_and_road(space) == (None, None):
        raise InputError(
            f"{setting} is depth, which compares sky and road, but label space {space.name} has "
            "neither as a class of its own: choose another score"
        )


@torch.no_grad()
def assess(
    task: TaskNet,
    images: Sequence[np.ndarray],
    space: LabelSpace,
    precision: str = "auto",
    teacher: TaskNet | None = None,
    names: Sequence[LabelFreeScore] = tuple(SCORES),
) -> dict[LabelFreeScore, np.ndarray]:
    """Compute label-free scores of a task network on each image.

    Several processes divide the images among them; each gets the scores of all images. Neither the
    networks nor any random state is changed.

    Args:
        task: the network, on its device.
        images: RGB uint8 [H, W, 3].
        space: the network's classes.
        precision: see ``device.autocast``.
        teacher: the teacher of self-training, or None; its score is then NaN.
        names: the scores to compute.

    Returns:
        For each score, float64 [number of images], NaN where it is undefined.
    """
    networks = [network for network in (task, teacher) if network is not None]
    training = [network.training for network in networks]
    for network in networks:
        network.eval()
    device = next(task.parameters()).device
    values = torch.zeros(len(images), len(names), dtype=torch.float64, device=device)
    for index in range(distributed.rank(), len(images), distributed.world_size()):
        image = image_tensor(images[index][np.newaxis]).to(device)
        frame = FrameOutput(task, image, space, precision, teacher)
        for column, name in enumerate(names):
            values[index, column] = SCORES[name].function(frame)
    for network, mode in zip(networks, training, strict=True):
        network.train(mode)
    rows = distributed.sum_over_processes(values).cpu().numpy()
    return {name: rows[:, column] for column, name in enumerate(names)}


class FramePictures(NamedTuple):
    """What a network predicts for an image, as arrays to draw."""

    labels: np.ndarray
    """uint8 [H, W] train ids."""
    entropy: np.ndarray
    """float32 [H, W] in [0, 1]: entropy of the class probabilities, divided by log C."""
    depth: np.ndarray
    """float32 [H, W], encoded."""


@torch.no_grad()
def frame_pictures(
    task: TaskNet, image: np.ndarray, space: LabelSpace, precision: str = "auto"
) -> FramePictures:
    """Predict for an image RGB uint8 [H, W, 3] what a report shows of it."""
    device = next(task.parameters()).device
    frame = FrameOutput(task, image_tensor(image[np.newaxis]).to(device), space, precision)
    p = frame.probabilities
    uncertainty = torch.special.entr(p).sum(0) / math.log(max(2, len(p)))
    depth = upsample(frame.output[1], frame.size)[0, 0]
    return FramePictures(
        frame.labels[0].cpu().numpy(), uncertainty.cpu().numpy(), depth.cpu().numpy()
    )


def mean_score(values: np.ndarray) -> float:
    """Mean over the frames where a score is defined, NaN if there is none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else math.nan


@dataclass(frozen=True)
class Correlation:
    """How a score follows the mIoU over several networks; None where it is undefined."""

    networks: int
    """Number of networks that have both."""
    spearman: float | None
    """Pearson's correlation of the ranks; ties have their mean rank."""
    pearson: float | None
    spearman_within: float | None
    """Mean of Spearman's correlation over the runs with three or more networks."""
    preferred_miou: float | None
    """mIoU of the network that the score prefers."""


def correlate(
    name: LabelFreeScore, scores: Sequence[float], mious: Sequence[float], runs: Sequence[str]
) -> Correlation:
    """Correlate a score with the mIoU. A score whose low values are better is negated first.

    Args:
        name: of the score.
        scores: its value for each network, NaN where it is undefined.
        mious: mIoU of each network, NaN where it is undefined.
        runs: the run that each network comes from.
    """
    score = SCORES[name]
    x, y = np.asarray(scores, np.float64), np.asarray(mious, np.float64)
    defined = ~(np.isnan(x) | np.isnan(y))
    x, y = (x if score.higher_is_better else -x)[defined], y[defined]
    own = np.asarray(runs)[defined]
    groups = [own == run for run in dict.fromkeys(own)]
    of_runs = (spearman(x[g], y[g]) for g in groups if g.sum() >= 3)
    within = [value for value in of_runs if value is not None]
    return Correlation(
        len(x),
        spearman(x, y),
        pearson(x, y),
        float(np.mean(within)) if within else None,
        float(y[np.argmax(x)]) if len(x) else None,
    )


def pearson(x: np.ndarray, y: np.ndarray) -> float | None:
    """Pearson's correlation; None for fewer than two values or a constant."""
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(np.corrcoef(x, y)[0, 1])


def spearman(x: np.ndarray, y: np.ndarray) -> float | None:
    """Spearman's correlation; None for fewer than two values or a constant."""
    return pearson(_ranks(x), _ranks(y))


def _ranks(x: np.ndarray) -> np.ndarray:
    """Ranks from 0; equal values have the mean of their ranks."""
    _, place, count = np.unique(x, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count + 1) / 2)[place]


def summaries(scores: Mapping[LabelFreeScore, np.ndarray]) -> dict[LabelFreeScore, float | None]:
    """The mean of each score over the frames; None if it is undefined."""
    means = {name: mean_score(values) for name, values in scores.items()}
    return {name: None if math.isnan(value) else value for name, value in means.items()}
