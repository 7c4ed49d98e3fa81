"""Finds what is to be exported: weights of a run, and frames of the run to check on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import cli
from ..config import Config, DataConfig
from ..data.files import LabelledFrame, expand
from ..data.sets import images_in, source_frames, target_images
from ..data.transforms import resize_frame
from ..data.unreadable import Frames, first_readable
from ..engine.run_folder import TASK, TRANSLATION, RunFolder, find_weights
from ..engine.trainer import phases
from ..errors import InputError

FRAMES = 2
"""Number of frames to check on."""


@dataclass(frozen=True)
class Origin:
    """Weights, and the run that they come from; None for a weights file without a run."""

    weights: Path
    name: str
    """Of the weights in the run: ``task``, ..., ``translation``."""
    run: RunFolder | None = None
    config: Config | None = None


def find_origin(model: str, name: str, prog: str) -> Origin:
    """Find weights: a file by its own path, or the weights ``name`` in a run's folder.

    Raises:
        InputError: there are no such weights; the message says how far the run is.
    """
    path = expand(model, "the model")
    if not path.is_dir():
        return Origin(find_weights(path, name), name)
    run = RunFolder(path)
    config = cli.read_config(run.config, prog)
    try:
        return Origin(find_weights(path, name), name, run, config)
    except InputError as error:
        reason = _missing(run, config, name)
        raise InputError(f"{error}{reason and f': {reason}'}") from error


def _missing(run: RunFolder, config: Config, name: str) -> str:
    """Why a run has no such weights; empty if the settings do not say it."""
    plan = phases(config)
    if name == TRANSLATION and config.adaptation.input_level == "none":
        return "adaptation.input_level is none, so the run trained no translation network"
    if name in (TASK, TRANSLATION) and plan[-1].name != "adaptation":
        return "the run trained on the source alone; --weights task_source_only exports that"
    result = run.read_result()
    columns = [] if result is None else result["columns"]
    if len(columns) < len(plan):
        records, _ = run.read_metrics()
        step = records[-1]["step"] if records else 0
        return (
            f"the run is not finished (step {step} of {plan[-1].end}); python -m "
            f"gioada_fast.train --resume {run} continues it"
        )
    return ""


def target_pictures(origin: Origin, images: str | None, size: tuple[int, int]) -> np.ndarray:
    """Images to check a task network on: the target's, or those of a folder.

    Args:
        origin: the network.
        images: an image, a folder or an archive; None: the run's target.
        size: (H, W) of the result.

    Returns:
        RGB uint8 [FRAMES, H, W, 3].

    Raises:
        InputError: there are no images, or none can be read.
    """
    if images is not None:
        found: Frames[np.ndarray] = images_in(expand(images, "--images"), size)
    elif origin.config is None:
        raise InputError(
            f"{origin.weights} is not the folder of a run, whose frames the exported network "
            "would be checked on: give an image or a folder of images with --images"
        )
    else:
        config = replace(_few(origin.config.data), height=size[0], width=size[1])
        target = replace(config.target, height=size[0], width=size[1])
        with_advice = "to check on other images, give --images"
        found = _read(lambda: target_images(replace(config, target=target)), with_advice)
    return np.stack(_filled(found, "images"))


def source_pictures(origin: Origin, size: tuple[int, int] | None) -> Sequence[LabelledFrame]:
    """Frames of the run's sources to check a translation network on, all of the same size.

    Args:
        origin: the network.
        size: (H, W) of the result; None: that of the first frame.

    Raises:
        InputError: there is no run, or its sources cannot be read.
    """
    if origin.config is None:
        raise InputError(
            f"{origin.weights} is not the folder of a run, whose source frames the exported "
            "translation network would be checked on: give the run's folder"
        )
    data = _few(origin.config.data)
    frames = _filled(_read(lambda: source_frames(data), "they are needed to check"), "frames")
    size = size or (frames[0].labels.shape[0], frames[0].labels.shape[1])
    return [resize_frame(frame, size) for frame in frames]


def _few(data: DataConfig) -> DataConfig:
    """Without packs, and without street scenes that would have to be rendered."""
    first = [replace(source, frames=FRAMES) for source in data.named_sources().values()]
    return replace(
        data,
        packs=None,
        source=first[0],
        sources=None if data.sources is None else first,
        target=replace(data.target, frames=FRAMES, labelled=None),
    )


def _read(open_set: Any, advice: str) -> Any:
    try:
        return open_set()
    except InputError as error:
        raise InputError(f"{error}; frames of the run: {advice}") from error


def _filled(frames: Any, noun: str) -> list[Any]:
    """The first readable frames; a single one is repeated."""
    found = first_readable(frames, FRAMES)
    if not found:
        frames[0]  # raises what is wrong with it
        raise InputError(f"no {noun} to check on can be read")
    return (found * FRAMES)[:FRAMES]
