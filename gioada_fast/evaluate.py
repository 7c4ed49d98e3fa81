"""Score: ``python -m gioada_fast.evaluate runs/NAME``.

Takes a run's folder, or the weights file of a task network, and prints IoU by class on labelled
target frames: those of the run's settings, or any others by --target, --root and --split.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from . import cli
from .config import Config, DataConfig, TargetConfig
from .data.datasets import describe_target, evaluation_frames
from .engine.device import choose_device
from .engine.evaluator import Scores, evaluate
from .engine.networks import find_weights, load_task
from .engine.report import percent

PROG = "python -m gioada_fast.evaluate"


def main(arguments: Sequence[str]) -> None:
    """Print scores as a table, or as JSON."""
    parser = cli.Parser(prog=PROG)
    parser.add_argument("model", type=str, help="folder of a run, or a task.safetensors")
    parser.add_argument("--weights", default="task", help="which of a run: task, task_source_only")
    parser.add_argument("--target", help="data set: street_scenes or camvid (unset: the run's)")
    parser.add_argument("--root", help="folder of the data set (unset: the run's)")
    parser.add_argument("--split", help="CamVid: val, ... (unset: the run's)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], help="unset: the run's")
    options = parser.parse_args(list(arguments))

    path = Path(options.model).expanduser()
    task, space, metadata = load_task(find_weights(path, options.weights))
    config = cli.read_config(path / "config.yaml", PROG) if path.is_dir() else Config()
    target = config.data.target
    if options.target not in (None, target.name):
        # another data set's folder is not the run's
        roots = {"street_scenes": TargetConfig().root, "camvid": None}
        target.name = cli.choice("--target", options.target, tuple(roots))
        target.root = roots[target.name]
    if options.root is not None:
        target.root = options.root
    if options.split is not None:
        target.evaluation_split = options.split
    height, width = metadata["size"]
    data = DataConfig(target=target, label_space=space.name, height=height, width=width)

    device = choose_device(options.device)
    frames = evaluation_frames(data)
    precision = options.precision or config.precision
    scores = evaluate(task.to(device), frames, space, device, precision)
    if options.json:
        print(json.dumps({"frames": len(frames), **asdict(scores)}))
    else:
        Console().print(_table(scores, f"{describe_target(data)}: {len(frames)} frames"))


def _table(scores: Scores, caption: str) -> Table:
    table = Table("class", caption=caption)
    table.add_column("IoU %", justify="right")
    for name, iou in scores.iou.items():
        table.add_row(name, percent(iou))
    table.add_section()
    table.add_row("pixel accuracy", percent(scores.pixel_accuracy))
    table.add_row("mIoU", percent(scores.miou))
    return table


if __name__ == "__main__":
    cli.run(main)
