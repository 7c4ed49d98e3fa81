"""Compares an exported network with the original, and measures how long both take."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..depth import encode_depth
from ..models import TaskNet
from ..models.layers import normalise, upsample
from .graphs import Graph, TaskGraph, TranslationGraph

Tensors = Mapping[str, Tensor]
Runner = Callable[[Tensors], Tensors]
"""Applies an exported network to the arguments of its graph."""

_SECONDS = 1.0
"""Time for the measurement of each network."""
_MAX_ROUNDS = 30


class Difference(NamedTuple):
    """The largest difference of an output over all frames."""

    output: str
    value: float
    unit: str


def compare(graph: Graph, frames: Tensors, runner: Runner) -> list[Difference]:
    """Compare an exported network with the original in float32.

    Logits count relative to the largest one (at least 1), depth in the network's encoding from 0
    to 1. Two labels of a pixel differ by the logits of the two classes, which rounding may swap if
    they are about equal. Translated images count in units of the whole range, beyond the rounding
    to bytes.

    Args:
        graph: what was exported, in evaluation mode.
        frames: arguments of the graph, with images as bytes.
        runner: the exported network.
    """
    with torch.no_grad():
        found = runner(arguments(graph, frames))
        if isinstance(graph, TranslationGraph):
            expected = (
                graph.unrounded(frames["image"], *map(frames.get, ("depth", "labels"))) + 1
            ) / 2
            translated = found["translated"]
            rounding = 0.5 if translated.dtype == torch.uint8 else 0.0
            scale = 255 if translated.dtype == torch.uint8 else 1
            beyond = (translated.float() - expected * scale).abs().max() - rounding
            return [Difference("translated", max(0.0, float(beyond)) / scale, "of the range")]
        return _of_task(graph.task, graph, frames["image"], found)


def _of_task(task: TaskNet, graph: TaskGraph, images: Tensor, found: Tensors) -> list[Difference]:
    logits, depth = task(normalise(images))
    scale = max(1.0, float(logits.abs().max()))
    if graph.output == "logits":
        difference = float((found["logits"] - logits).abs().max())
    else:
        difference = _label_difference(logits, found["labels"])
    size = images.shape[2:]
    encoded, _ = encode_depth(found["depth"], graph.encoding)
    expected = upsample(depth, size)[:, 0].clamp(0, 1)
    if graph.encoding == "inverse":  # the farthest depth stands for all smaller ones
        expected = expected.clamp(min=float(encoded.min()))
    return [
        Difference(graph.output, difference / scale, "of the largest logit"),
        Difference("depth", float((encoded - expected).abs().max()), "in its encoding"),
    ]


def _label_difference(logits: Tensor, labels: Tensor) -> float:
    """How much the logit of a label falls short of the largest one at any pixel."""
    size, worst = labels.shape[1:], 0.0
    for small, found in zip(logits, labels, strict=True):
        best = torch.full(size, -torch.inf)
        own = torch.full(size, -torch.inf)
        for index, channel in enumerate(small):
            z = upsample(channel[None, None], size)[0, 0]
            best = torch.maximum(best, z)
            own = torch.where(found == index, z, own)
        worst = max(worst, float((best - own).max()))  # infinite for a label that is no class
    return worst


def arguments(graph: Graph, frames: Tensors) -> dict[str, Tensor]:
    """The arguments of a graph for frames whose images are bytes."""
    image = frames["image"]
    return {**frames, "image": image if graph.input == "uint8" else image.float() / 255}


def latencies(frames: Tensors, runners: Sequence[Runner]) -> list[float]:
    """Median seconds of each network, measured in turn."""
    times: list[list[float]] = [[] for _ in runners]
    for runner in runners:
        runner(frames)
    start = time.perf_counter()
    while len(times[0]) < _MAX_ROUNDS and (
        len(times[0]) < 3 or time.perf_counter() - start < _SECONDS * len(runners)
    ):
        for runner, taken in zip(runners, times, strict=True):
            before = time.perf_counter()
            runner(frames)
            taken.append(time.perf_counter() - before)
    return [statistics.median(taken) for taken in times]
