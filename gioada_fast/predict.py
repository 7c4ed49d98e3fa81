"""Predict: ``python -m gioada_fast.predict runs/NAME IMAGE_OR_FOLDER ... --output FOLDER``.

Writes four pictures per image, at the image's size: NAME_ids.png (train ids), NAME_colour.png,
NAME_overlay.png and NAME_depth.png (near is bright); with --metres also NAME_metres.png, depth in
centimetres as 16 bits, which data.target.depth takes. Folders and zip archives are searched with
all their subfolders, which the output folder repeats.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from . import cli
from .data import tree
from .data.depth_maps import counts
from .data.files import IMAGE_SUFFIXES, expand
from .data.rasters import read_with_facts
from .data.transforms import covering_size, fit
from .depth import decode_depth
from .engine.device import choose_device
from .engine.inference import image_tensor, predict_maps
from .engine.networks import load_task
from .engine.run_folder import find_weights
from .errors import InputError
from .report.panels import colour_depth, overlay, save_image

PROG = "python -m gioada_fast.predict"
KINDS = ("ids", "colour", "overlay", "depth")
CENTIMETRES = 100.0
"""Counts per metre of NAME_metres.png."""
_MAX_AREA = 32
"""Largest image that the network is applied to, relative to the size that it was trained at."""
_FIRST = f"_{KINDS[0]}.png"


def main(arguments: Sequence[str]) -> None:
    """Write pictures of the task network's predictions."""
    parser = cli.Parser(prog=PROG)
    parser.add_argument("model", type=str, help="folder of a run, or a task.safetensors")
    parser.add_argument("inputs", nargs="+", help="images, folders or zip archives of images")
    parser.add_argument("--output", required=True, help="folder to write to")
    parser.add_argument(
        "--weights", default="task", help="weights of a run: task, task_control, task_source_only"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto")
    parser.add_argument(
        "--metres", action="store_true", help="also write NAME_metres.png: depth in centimetres"
    )
    options = parser.parse_args(list(arguments))

    task, space, metadata = load_task(
        find_weights(Path(options.model).expanduser(), options.weights)
    )
    task = task.to(choose_device(options.device))
    output = expand(options.output, "--output")
    inputs = _find_inputs(options.inputs, output)
    cli.output_folder(options.output)
    unreadable, turned = [], 0
    console = Console(stderr=True)
    progress = track(inputs.images.items(), "predict", console=console, transient=True)
    for name, path in progress:
        try:
            image, facts = read_with_facts(path, upright=True)
            batch = image_tensor(_fitted(image, path, tuple(metadata["size"]))[np.newaxis])
        except Exception as error:  # a decoder may raise any
            unreadable.append(str(error) if isinstance(error, InputError) else f"{path}: {error!r}")
            continue
        turned += facts.orientation != 1
        labels, depth = predict_maps(task, batch, options.precision, size=image.shape[:2])
        colours = space.colourise(labels[0])
        pictures = (labels[0], colours, overlay(image, colours), colour_depth(depth[0]))
        cli.output_folder(str(name.parent))
        for file, picture in zip(_outputs(name), pictures, strict=True):
            save_image(file, picture)
        if options.metres:
            metres = decode_depth(torch.from_numpy(depth[0]), metadata["depth_encoding"]).numpy()
            save_image(_metres_file(name), counts(metres, CENTIMETRES))
    if unreadable:
        inputs.left["unreadable"] = len(unreadable)
    taken = _count(len(inputs.images) - len(unreadable), "image")
    if turned:
        taken += f" ({turned} turned as their EXIF data says)"
    print(f"{output}: took {taken}{_other_files(inputs.left)}")
    if unreadable:
        message = f"{_count(len(unreadable), 'image')} cannot be read"
        cli.fail("\n".join([message, *unreadable]), status=1)


def _fitted(image: np.ndarray, path: Path, size: tuple[int, int]) -> np.ndarray:
    (height, width), (h, w) = image.shape[:2], covering_size(image.shape[:2], size)
    if h * w > _MAX_AREA * size[0] * size[1]:
        raise InputError(f"{path}: {width}x{height} pixels: too narrow to be predicted")
    return fit(image, size)


@dataclass
class _Inputs:
    images: dict[Path, Path] = field(default_factory=dict)
    """Images, by the paths of their pictures without ``_KIND.png``."""
    left: Counter[str] = field(default_factory=Counter)
    """Numbers of other files, by kind."""


def _find_inputs(names: Sequence[str], output: Path) -> _Inputs:
    inputs = _Inputs()
    for name in names:
        path = expand(name, "the input")
        if tree.is_folder(path):
            _add_folder(inputs, path, output)
        elif tree.is_file(path):
            _add(inputs, path, output / path.stem)
        else:
            raise InputError(f"{path}: no such file or folder")
    _check_outputs(inputs.images)
    return inputs


def _add_folder(inputs: _Inputs, folder: Path, output: Path) -> None:
    written = output.resolve()
    if folder.resolve() == written:
        raise InputError(
            f"{folder} is an input: its images could be overwritten, and pictures in it would be "
            "predicted the next time: change --output"
        )
    left = Counter({"hidden": tree.hidden_under(folder)})
    count = 0
    files = tree.files_under(folder)
    earlier = _predictions(files)
    for file in files:
        suffix = file.suffix.lower()
        if written in file.resolve().parents:
            left["in the output folder"] += 1
        elif file in earlier:
            left["earlier predictions"] += 1
        elif suffix in IMAGE_SUFFIXES:
            _add(inputs, file, output / file.relative_to(folder).with_suffix(""))
            count += 1
        else:
            kind = suffix if suffix.isprintable() else ascii(suffix)
            left[kind or "without a suffix"] += 1
    if not count:
        raise InputError(f"{folder}: no image in it{_other_files(left)}")
    inputs.left.update(left)


def _add(inputs: _Inputs, image: Path, name: Path) -> None:
    other = inputs.images.setdefault(name, image)
    if other != image:
        raise InputError(
            f"{other} and {image} would both be written to {_outputs(name)[0]}: rename one, or "
            "predict them into two folders"
        )


def _predictions(files: Sequence[Path]) -> set[Path]:
    """Files that this command wrote: all kinds of pictures of an image are there."""
    images = {
        file.with_name(file.name.removesuffix(_FIRST))
        for file in files
        if file.name.endswith(_FIRST)
    }
    existing = set(files)
    written = [outputs for image in images if existing.issuperset(outputs := _outputs(image))]
    metres = {_metres_file(image) for image in images} & existing
    return {file for outputs in written for file in outputs} | metres


def _metres_file(name: Path) -> Path:
    return name.with_name(f"{name.name}_metres.png")


def _outputs(name: Path) -> list[Path]:
    return [name.with_name(f"{name.name}_{kind}.png") for kind in KINDS]


def _check_outputs(images: dict[Path, Path]) -> None:
    """Refuse outputs that overwrite an input."""
    inputs = {path.resolve() for path in images.values()}
    for name in images:
        for file in (*_outputs(name), _metres_file(name)):
            if file.resolve() in inputs:
                raise InputError(f"{file} is an input and would be overwritten: change --output")


def _other_files(left: Counter[str]) -> str:
    """What was left, for messages."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in left.items() if count)
    return f", left {_count(left.total(), 'file')}: {kinds}" if kinds else ""


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


if __name__ == "__main__":
    cli.run(main)
