"""Predict: ``python -m gioada_fast.predict runs/NAME IMAGE_OR_FOLDER ... --output FOLDER``.

Writes four pictures per image, at the image's size: NAME_ids.png (train ids), NAME_colour.png,
NAME_overlay.png and NAME_depth.png (near is bright).
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from . import cli
from .data.files import list_images
from .data.rasters import read_image
from .data.transforms import resize_image
from .engine.device import choose_device
from .engine.inference import image_tensor, predict_maps
from .engine.networks import load_task
from .engine.run_folder import find_weights
from .errors import InputError
from .report.panels import colour_depth, overlay, save_image

PROG = "python -m gioada_fast.predict"
KINDS = ("ids", "colour", "overlay", "depth")


def main(arguments: Sequence[str]) -> None:
    """Write pictures of the task network's predictions."""
    parser = cli.Parser(prog=PROG)
    parser.add_argument("model", type=str, help="folder of a run, or a task.safetensors")
    parser.add_argument("inputs", nargs="+", help="images, or folders of images")
    parser.add_argument("--output", required=True, help="folder to write to")
    parser.add_argument("--weights", default="task", help="task or task_source_only, of a run")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto")
    options = parser.parse_args(list(arguments))

    task, space, metadata = load_task(
        find_weights(Path(options.model).expanduser(), options.weights)
    )
    task = task.to(choose_device(options.device))
    images = list(_images(options.inputs))
    output = cli.output_folder(options.output)
    _check_outputs(images, output)
    console = Console(stderr=True)
    for path in track(images, description="predict", console=console, transient=True):
        image = read_image(path)
        batch = image_tensor(resize_image(image, tuple(metadata["size"]))[np.newaxis])
        labels, depth = predict_maps(task, batch, options.precision, size=image.shape[:2])
        colours = space.colourise(labels[0])
        pictures = (labels[0], colours, overlay(image, colours), colour_depth(depth[0]))
        for file, picture in zip(_outputs(path, output), pictures, strict=True):
            save_image(file, picture)
    print(f"{len(images)} images: {output}")


def _outputs(image: Path, output: Path) -> list[Path]:
    return [output / f"{image.stem}_{kind}.png" for kind in KINDS]


def _check_outputs(images: Sequence[Path], output: Path) -> None:
    """Refuse two images with the same output files, and outputs that overwrite an input."""
    stem, count = Counter(path.stem for path in images).most_common(1)[0]
    if count > 1:
        raise InputError(f"{count} inputs would be written to {stem}_{KINDS[0]}.png")
    inputs = {path.resolve() for path in images}
    for image in images:
        for file in _outputs(image, output):
            if file.resolve() in inputs:
                raise InputError(f"{file} is an input and would be overwritten: change --output")


def _images(inputs: Sequence[str]) -> Iterator[Path]:
    for name in inputs:
        path = Path(name).expanduser()
        if path.is_dir():
            yield from list_images(path)
        elif path.is_file():
            yield path
        else:
            raise InputError(f"{path}: no such file or folder")


if __name__ == "__main__":
    cli.run(main)
