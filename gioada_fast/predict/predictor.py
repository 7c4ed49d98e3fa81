"""Predicts all images and videos, and records what could not be read."""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from .. import cli
from ..data.rasters import read_with_facts
from ..data.videos import Video
from ..engine.inference import predict_pieces
from ..engine.windows import Inference
from ..errors import InputError
from ..labels import LabelSpace
from ..models import TaskNet
from ..report.video_writer import VideoWriter
from .outputs import Prediction, video_file


@dataclass
class Done:
    """What was predicted."""

    images: int = 0
    turned: int = 0
    """Number of images that were turned as their EXIF data says."""
    videos: int = 0
    frames: int = 0
    seconds: float = 0.0
    """Time for the videos, with reading and writing."""
    unreadable_images: list[str] = field(default_factory=list)
    """Messages that name them."""
    unreadable_videos: list[str] = field(default_factory=list)
    damaged_videos: list[str] = field(default_factory=list)
    """Videos that were read in part."""


@dataclass(frozen=True)
class Predictor:
    """A task network, and how it is applied."""

    task: TaskNet
    space: LabelSpace
    precision: str
    inference: Inference

    def images(
        self, images: Mapping[Path, Path], encoding: str | None, progress: Progress, done: Done
    ) -> None:
        """Predict images and write their pictures.

        Args:
            images: files, by the paths of their pictures without ``_KIND.png``.
            encoding: the network's encoding of depth, to write metres; None: without them.
            progress: shows the progress.
            done: counts images and those that cannot be read.

        Raises:
            InputError: a picture cannot be written.
        """
        for prediction in self._predicted(self._read(images, encoding, progress, done)):
            cli.output_folder(str(prediction.name.parent))
            prediction.save(self.space)
            done.images += 1

    def videos(
        self, videos: Mapping[Path, Path], kind: str, progress: Progress, done: Done
    ) -> None:
        """Predict videos and write one for each.

        Args:
            videos: files, by the paths of the results without ``_KIND.mp4``.
            kind: one of ``outputs.VIDEO_KINDS``.
            progress: shows the progress.
            done: counts videos, frames, and videos that cannot be read.

        Raises:
            InputError: a video cannot be written.
        """
        for name, path in videos.items():
            start = time.perf_counter()
            try:
                video = Video(path)
                self.inference.check(video.size, str(path))
            except InputError as error:
                done.unreadable_videos.append(str(error))
                continue
            self._predict_video(video, name, kind, progress)
            done.videos += 1
            done.frames += video.read
            done.seconds += time.perf_counter() - start
            damage = video.damage()
            if damage is not None:
                done.damaged_videos.append(damage)

    def _predict_video(self, video: Video, name: Path, kind: str, progress: Progress) -> None:
        depth = kind != "overlay"
        frames = progress.track(video, video.declared or None, description=video.path.name)
        predictions = (Prediction(frame, name, depth=depth, time=video.time) for frame in frames)
        height, width = video.size
        size = height, width * (3 if depth else 1)
        cli.output_folder(str(name.parent))
        with VideoWriter(video_file(name, kind), size, video.rate) as writer:
            for prediction in self._predicted(predictions):
                writer.write(prediction.frame(kind, self.space), prediction.time)

    def _read(
        self, images: Mapping[Path, Path], encoding: str | None, progress: Progress, done: Done
    ) -> Iterator[Prediction]:
        """Images that can be read, still without predictions."""
        for name, path in progress.track(images.items(), description="images"):
            try:
                image, facts = read_with_facts(path, upright=True)
                self.inference.check((image.shape[0], image.shape[1]), str(path))
            except Exception as error:  # a decoder may raise any
                known = isinstance(error, InputError)
                done.unreadable_images.append(str(error) if known else f"{path}: {error!r}")
                continue
            done.turned += facts.orientation != 1
            yield Prediction(image, name, encoding=encoding)

    def _predicted(self, predictions: Iterable[Prediction]) -> Iterator[Prediction]:
        """Predict images; those of equal size at once, if the network sees them whole."""
        waiting: list[Prediction] = []
        for prediction in predictions:
            size = prediction.size
            if waiting and waiting[0].size != size:
                yield from self._predict(waiting)
                waiting = []
            waiting.append(prediction)
            if len(waiting) == self.inference.batch or not self.inference.sees_whole(size):
                yield from self._predict(waiting)
                waiting = []
        if waiting:
            yield from self._predict(waiting)

    def _predict(self, predictions: list[Prediction]) -> list[Prediction]:
        """Predict images of equal size."""
        images, size = [prediction.image for prediction in predictions], predictions[0].size
        for piece in predict_pieces(self.task, images, size, self.precision, self.inference):
            for index, prediction in enumerate(predictions):
                prediction.add(piece, index)
        return predictions


def progress_bars() -> Progress:
    """Bars with the number of images or frames, their rate, and the remaining time."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )


class _Rate(ProgressColumn):
    """Images or frames per second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f}/s")
