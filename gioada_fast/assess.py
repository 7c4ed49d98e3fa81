"""Judge without labels: ``python -m gioada_fast.assess runs/NAME [more] --target images/``.

Takes runs, ablations, weights files and checkpoints, and computes scores on target images that need
no labels, see docs/judging.md. Prints a table and writes assessment.html, with curves and pictures
of the images that the networks are least sure of, and assessment.json.

--target IMAGES    folder, archive or image; default: the target images that the runs trained on
--images 100       maximum number of images, taken at even intervals
--correlate        also compute the mIoU on the labelled frames of the runs' target, and how each
                   score correlates with it
--output FOLDER    default: the first folder given, or the first file's folder
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.text import Text

from . import cli
from .atomic_files import write_atomically
from .config import Config, DataConfig
from .data.files import expand
from .data.pack_reader import PackedTarget
from .data.sets import (
    TargetImages,
    describe_target,
    evaluation_frames,
    evenly_spaced,
    images_in,
    target_images,
)
from .engine.assessment import SCORES, assess, correlate, frame_pictures, mean_score
from .engine.candidates import Candidate, Networks, find_candidates
from .engine.device import choose_device
from .engine.evaluator import evaluate
from .engine.run import command_line, versions
from .engine.run_folder import RunFolder
from .errors import InputError
from .report.assessment_report import UncertainFrame, assessment_page, tables, uncertainty_panel

PROG = "python -m gioada_fast.assess"
_UNSURE_IMAGES = 5
"""Number of images that a network is least sure of, which the report shows."""
_MAX_PANELS = 4
"""Number of runs whose last network's images the report shows."""


def main(arguments: Sequence[str]) -> None:
    """Print a table of the scores, or JSON, and write the report."""
    parser = cli.Parser(prog=PROG)
    parser.add_argument(
        "models", nargs="+", help="runs, ablations, weights files (.safetensors), checkpoints (.pt)"
    )
    parser.add_argument(
        "--target", help="folder or archive of images, or an image (unset: the runs' target images)"
    )
    parser.add_argument("--images", type=int, default=100, help="maximum number of images")
    parser.add_argument(
        "--correlate",
        action="store_true",
        help="compute the mIoU on the runs' labelled target frames, and its correlations",
    )
    parser.add_argument("--output", help="folder of assessment.html and assessment.json")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], help="unset: the run's")
    options = parser.parse_args(list(arguments))
    if options.images < 1:
        raise InputError(f"--images is {options.images}, must be at least 1")

    paths = [Path(model).expanduser() for model in options.models]
    candidates = find_candidates(paths)
    judge = _Judge(candidates, options)
    output = paths[0] if paths[0].is_dir() else paths[0].parent
    if options.output is not None:
        output = cli.output_folder(options.output)

    networks, panels = [], []
    console = Console(stderr=True)
    for candidate in track(candidates, "assess", console=console, transient=True):
        loaded = candidate.load()
        judged = judge.scores(candidate, loaded)
        networks.append(judged.record)
        if candidate in _shown(candidates):
            panels.append((_caption(judged.record), judge.panel(candidate, loaded, judged)))
    for message in judge.unreadable:
        console.print("[yellow]warning:[/]", Text(f"{message}: left out"), soft_wrap=True)
    summary = {
        "target": judge.description,
        "images": len(judged.names),
        "scores": {
            name: {"caption": score.caption, "higher_is_better": score.higher_is_better}
            for name, score in SCORES.items()
        },
        "networks": networks,
        "correlations": _correlations(networks) if options.correlate else None,
        "command": command_line(),
        "versions": versions(),
    }
    text = json.dumps(summary, indent=1)
    _write(output / "assessment.json", text)
    _write(output / "assessment.html", assessment_page(summary, panels))
    if options.json:
        print(text)
        return
    console = Console()
    for table in tables(summary):
        console.print(table)
    console.print(Text(f"report: {output / 'assessment.html'}"), soft_wrap=True)


def _write(path: Path, text: str) -> None:
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


class _Judged(NamedTuple):
    record: dict[str, Any]
    """Entry of the summary's ``networks``."""
    names: list[str]
    """Names of the images."""
    images: list[np.ndarray]
    entropy: np.ndarray
    """Mean entropy of each image."""


class _Judge:
    """Scores networks on the same images, each at the size that it was trained at."""

    def __init__(self, candidates: Sequence[Candidate], options: Any):
        self._options, self._device = options, choose_device(options.device)
        folders = dict.fromkeys(c.folder for c in candidates if c.folder is not None)
        self._configs = {
            folder: cli.read_config(RunFolder(folder).config, PROG) for folder in folders
        }
        self._target = None
        if options.target is not None:
            self._target = expand(options.target, "--target")
            images_in(self._target, (1, 1))  # before the networks, which take longer
        without = [c.path for c in candidates if c.folder is None]
        if without and (self._target is None or options.correlate):
            flag = "--target" if self._target is None else "--correlate"
            raise InputError(
                f"{without[0]} is not in the folder of a run, which would name the target: "
                + ("give --target" if flag == "--target" else "leave out --correlate")
            )
        self._check_same_target()
        self._cache: dict[tuple[int, int], tuple[list[str], list[np.ndarray]]] = {}
        self.unreadable: list[str] = []
        first = next(iter(self._configs.values()), None)
        assert first is not None or self._target is not None
        self.description = str(self._target)
        if self._target is None and first is not None:
            self.description = describe_target(first.data, "target")

    def _check_same_target(self) -> None:
        """Refuse runs that would be judged on different images, whose scores do not compare."""
        if self._target is not None and not self._options.correlate:
            return
        first: tuple[Path, list[Any]] | None = None
        for folder, config in self._configs.items():
            target = config.data.target
            own: list[Any] = [
                target.name,
                target.root,
                target.images,
                target.train_split,
                target.look,
            ]
            own += [target.frames, target.evaluation_split]
            if first is None:
                first = folder, own
            elif own != first[1]:
                raise InputError(
                    f"{first[0]} and {folder} have different targets, so that their scores do not "
                    "compare: judge them one by one, or give --target"
                )

    def scores(self, candidate: Candidate, loaded: Networks) -> _Judged:
        """Score a network; the mIoU only if it is to be correlated."""
        task, teacher, space, metadata = loaded
        config = None if candidate.folder is None else self._configs[candidate.folder]
        names, images = self._images(config, tuple(metadata["size"]))
        task.to(self._device)
        if teacher is not None:
            teacher.to(self._device)
        precision = self._precision(candidate)
        values = assess(task, images, space, precision, teacher)
        means = {name: mean_score(of_images) for name, of_images in values.items()}
        miou = None
        if self._options.correlate:
            assert config is not None
            height, width = metadata["size"]
            target = replace(config.data.target, height=height, width=width)
            data = DataConfig(target=target, label_space=space.setting, height=height, width=width)
            frames = evaluation_frames(data)
            if not len(frames):
                raise InputError(f"{describe_target(data)}: there are no labels to correlate with")
            miou = evaluate(
                task, frames, space, self._device, precision, metadata["depth_encoding"]
            ).miou
        least_sure = np.argsort(-values["entropy"], kind="stable")[:_UNSURE_IMAGES]
        record = {
            "run": candidate.run,
            "phase": candidate.phase,
            "step": candidate.step,
            "file": str(candidate.path),
            "scores": {name: None if math.isnan(mean) else mean for name, mean in means.items()},
            "miou": miou,
            "least_sure": [names[index] for index in least_sure],
        }
        return _Judged(record, names, images, values["entropy"])

    def _precision(self, candidate: Candidate) -> str:
        """As the flag says, otherwise as the run's settings do."""
        of_run = "auto" if candidate.folder is None else self._configs[candidate.folder].precision
        return self._options.precision or of_run

    def panel(self, candidate: Candidate, loaded: Networks, judged: _Judged) -> np.ndarray:
        """The images that the network is least sure of, with its predictions."""
        frames, precision = [], self._precision(candidate)
        for index in np.argsort(-judged.entropy, kind="stable")[:_UNSURE_IMAGES]:
            image = judged.images[index]
            drawn = frame_pictures(loaded.task, image, loaded.space, precision)
            frames.append(UncertainFrame(image, *drawn))
        return uncertainty_panel(frames, loaded.space)

    def _images(
        self, config: Config | None, size: tuple[int, int]
    ) -> tuple[list[str], list[np.ndarray]]:
        """Names and images to judge on, at a size; those that cannot be read are left out."""
        if size in self._cache:
            return self._cache[size]
        frames: TargetImages | PackedTarget
        if self._target is not None:
            frames = images_in(self._target, size)
        else:
            assert config is not None
            frames = target_images(config.data)
        names, images = [], []
        for index in evenly_spaced(len(frames), self._options.images):
            try:
                images.append(frames[index])
                names.append(frames.name(index))
            except InputError as error:
                if str(error) not in self.unreadable:
                    self.unreadable.append(str(error))
        if not images:
            raise InputError(f"{self.unreadable[-1]}: no readable image is left")
        self._cache[size] = names, images
        return names, images


def _shown(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The last network of each run, of the first runs."""
    last = {candidate.run: candidate for candidate in candidates}
    return list(last.values())[:_MAX_PANELS]


def _caption(record: dict[str, Any]) -> str:
    where = "" if record["step"] is None else f", step {record['step']}"
    return f"{record['run']}{where}"


def _correlations(networks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How each score correlates with the mIoU over the networks."""
    mious = [math.nan if n["miou"] is None else n["miou"] for n in networks]
    runs = [network["run"] for network in networks]
    found: dict[str, Any] = {}
    for name in SCORES:
        values = [n["scores"][name] for n in networks]
        scores = [math.nan if value is None else value for value in values]
        found[name] = asdict(correlate(name, scores, mious, runs))
    return found


if __name__ == "__main__":
    cli.run(main)
