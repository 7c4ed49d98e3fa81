"""Predict: ``python -m gioada_fast.predict runs/NAME IMAGE_OR_FOLDER ... --output FOLDER``.

For each image, at its own size: NAME_ids.png (train ids), NAME_colour.png, NAME_overlay.png and
NAME_depth.png (near is bright).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from . import cli
from .data.datasets import resize_image
from .data.frames import list_images, read_image
from .engine.device import choose_device
from .engine.inference import image_tensor, predict_maps
from .engine.networks import find_weights, load_task
from .engine.panels import colour_depth, overlay, save_image
from .errors import InputError

PROG = "python -m gioada_fast.predict"


def main(arguments: Sequence[str]) -> None:
    """Write pictures of what the task network sees."""
    parser = cli.Parser(prog=PROG)
    parser.add_argument("model", type=str, help="folder of a run, or a task.safetensors")
    parser.add_argument("inputs", nargs="+", help="images, or folders of images")
    parser.add_argument("--output", required=True, help="folder to write to")
    parser.add_argument("--weights", default="task", help="which of a run: task, task_source_only")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto")
    options = parser.parse_args(list(arguments))

    task, space, metadata = load_task(find_weights(Path(options.model), options.weights))
    task = task.to(choose_device(options.device))
    images = list(_images(options.inputs))
    repeated = {path.stem for path in images if [p.stem for p in images].count(path.stem) > 1}
    if repeated:
        raise InputError(f"two inputs would both be written as {sorted(repeated)[0]}_ids.png")
    output = cli.output_folder(options.output)
    console = Console(stderr=True)
    for path in track(images, description="predict", console=console, transient=True):
        image = read_image(path)
        batch = image_tensor(resize_image(image, tuple(metadata["size"]))[np.newaxis])
        labels, depth = predict_maps(task, batch, options.precision, size=image.shape[:2])
        colours = space.colourise(labels[0])
        save_image(output / f"{path.stem}_ids.png", labels[0])
        save_image(output / f"{path.stem}_colour.png", colours)
        save_image(output / f"{path.stem}_overlay.png", overlay(image, colours))
        save_image(output / f"{path.stem}_depth.png", colour_depth(depth[0]))
    print(f"{len(images)} images: {output}")


def _images(inputs: Sequence[str]) -> Iterator[Path]:
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            yield from list_images(path)
        elif path.is_file():
            yield path
        else:
            raise InputError(f"{path}: no such file or folder")


if __name__ == "__main__":
    cli.run(main)
