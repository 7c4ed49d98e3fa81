"""Score: ``python -m gioada_fast.evaluate runs/NAME``.

Takes the folder of a run or the weights file of a task network. Prints the IoU of each class on
labelled target frames, and depth errors if the frames have depth. By default it scores the
evaluation frames of the run; --target, --root, --split and, for a folder, --images, --labels,
--depth and --classes select others. --save-predictions FOLDER writes each frame's segmentation at
the frame's size under the image's name, as a PNG of official ids, which cityscapesscripts and the
servers of Cityscapes and KITTI accept. --scale, --window, --stride, --tta and --batch say how the
network is applied to images, as in predict. The exit status is 1 if a score is not finite.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from . import cli
from .config import Config, DataConfig, TargetConfig
from .data import registry
from .data.sets import describe_target, evaluation_frames
from .engine.checkpoint import first_of
from .engine.device import choose_device
from .engine.evaluator import MAX_SCORED_DEPTH, Scores, evaluate
from .engine.networks import load_task
from .engine.run_folder import RunFolder, find_weights
from .errors import InputError
from .inference_flags import add_flags, read_flags
from .report.formatting import percent
from .report.panels import save_image

PROG = "python -m gioada_fast.evaluate"
_TARGET_FLAGS = {
    "root": "folder of the data set (unset: the run's)",
    "split": "val, ... (unset: the run's)",
    "images": "folder: pattern of the images",
    "labels": "folder: pattern of the label maps",
    "depth": "folder: pattern of the depth maps",
    "classes": "folder: YAML file that maps label ids to classes",
}


def main(arguments: Sequence[str]) -> None:
    """Print scores as a table, or as JSON."""
    parser = cli.Parser(prog=PROG)
    parser.add_argument("model", type=str, help="folder of a run, or a task.safetensors")
    parser.add_argument(
        "--weights", default="task", help="weights of a run: task, task_control, task_source_only"
    )
    parser.add_argument(
        "--target", help=f"data set: {', '.join(registry.names('target'))} (unset: the run's)"
    )
    for name, text in _TARGET_FLAGS.items():
        parser.add_argument(f"--{name}", help=text)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--save-predictions",
        metavar="FOLDER",
        help="write PNGs of official ids to a folder, which must not exist yet",
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], help="unset: the run's")
    add_flags(parser)
    options = parser.parse_args(list(arguments))

    path = Path(options.model).expanduser()
    task, space, metadata = load_task(find_weights(path, options.weights))
    config = cli.read_config(RunFolder(path).config, PROG) if path.is_dir() else Config()
    target = _target(config.data.target, options)
    target.height, target.width = height, width = metadata["size"]
    inference = read_flags(options, (height, width))
    data = DataConfig(target=target, label_space=space.setting, height=height, width=width)

    device = choose_device(options.device)
    frames = replace(evaluation_frames(data), size=None)  # the flags say how to scale them
    if not len(frames):
        raise InputError(f"{describe_target(data)}: there are no labels to score with")
    save = None
    if options.save_predictions is not None:
        folder = cli.output_folder(options.save_predictions, new=True)

        def save(index, labels):
            save_image(folder / f"{frames.name(index)}.png", space.official_ids(labels))

    scores = evaluate(
        task.to(device),
        frames,
        space,
        device,
        options.precision or config.precision,
        metadata["depth_encoding"],
        save,
        inference,
    )
    if options.json:
        print(json.dumps(_without_nan({"frames": len(frames), **asdict(scores)})))
    else:
        Console().print(_table(scores, f"{describe_target(data)}: {len(frames)} frames"))
    wrong = scores.not_finite()
    if wrong:
        cli.fail(
            f"{first_of(wrong)}: not finite, because the network's predictions are not: the "
            f"weights of {path} are damaged, or their training diverged",
            status=1,
        )
    if scores.miou is None:
        cli.fail(f"{describe_target(data)}: no pixel of its labels has a class", status=1)


def _without_nan(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _target(target: TargetConfig, options) -> TargetConfig:
    """The run's target, changed by the flags."""
    if options.target not in (None, target.name):
        # the run's folder and splits belong to another data set
        name = cli.choice("--target", options.target, registry.names("target"))
        target = TargetConfig(name=name)
    for name in _TARGET_FLAGS:
        value = getattr(options, name)
        if value is not None:
            setattr(target, "evaluation_split" if name == "split" else name, value)
    return target


def _table(scores: Scores, caption: str) -> Table:
    table = Table("class", caption=Text(caption))
    table.add_column("IoU %", justify="right")
    for name, iou in scores.iou.items():
        table.add_row(Text(name), percent(iou))
    table.add_section()
    table.add_row("pixel accuracy", percent(scores.pixel_accuracy))
    table.add_row("mIoU", percent(scores.miou))
    for name, miou in scores.miou_of.items():
        table.add_row(f"mIoU of {name}", percent(miou))
    if scores.depth is not None:
        table.add_section()
        table.add_row(f"depth up to {MAX_SCORED_DEPTH:g} m: abs rel", f"{scores.depth.abs_rel:.3f}")
        table.add_row("depth: RMSE, m", f"{scores.depth.rmse:.2f}")
        table.add_row("depth: δ < 1.25", percent(scores.depth.delta_1_25))
    return table


if __name__ == "__main__":
    cli.run(main)
