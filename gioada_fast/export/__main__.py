"""Export: ``python -m gioada_fast.export runs/NAME --format FORMAT --output PATH``.

Writes a trained network in a form that other programs run:

--format onnx     one file for onnxruntime and other runtimes
--format pt2      a program for torch.export.load, without this package
--format folder   a repository for the Hugging Face hub: weights, configuration and a model card

The first two take RGB images [N, 3, H, W] of any size, as bytes or with --input float from 0 to 1.
The task network returns labels (uint8 train ids [N, H, W]) and depth (metres [N, H, W]); with
--predict logits it returns logits at the network's own scale. --weights translation exports the
translation network, which takes depth (metres) and labels, too.

What was written is compared with the original on frames of the run. If they differ by more than
--bound, nothing is kept.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from .. import __version__, cli
from ..atomic_files import write_atomically
from ..data.files import expand
from ..engine.inference import image_tensor
from ..engine.networks import load_task, load_translation
from ..engine.run_folder import TASK, TRANSLATION
from ..errors import InputError
from ..inference_flags import pixels
from ..labels import LabelSpace, label_space
from . import files
from .check import Difference, Runner, Tensors, arguments, compare, latencies
from .graphs import (
    INPUTS,
    OUTPUTS,
    Graph,
    TaskGraph,
    TranslationGraph,
    min_side,
    size_multiple,
    trace,
)
from .hub_folder import WEIGHTS, remove_folder, write_folder
from .origin import Origin, find_origin, source_pictures, target_pictures

PROG = "python -m gioada_fast.export"
FORMATS = ("onnx", "pt2", "folder")


@dataclass(frozen=True)
class Network:
    """What is exported, and frames to check it on."""

    origin: Origin
    graph: Graph
    space: LabelSpace
    trained: tuple[int, int]
    """(H, W) that it was trained at."""
    frames: dict[str, torch.Tensor]
    """Arguments of the graph, with images as bytes."""


def main(arguments: Sequence[str]) -> None:
    """Write and check an exported network."""
    parser = cli.Parser(prog=PROG)
    parser.add_argument("model", type=str, help="folder of a run, or a weights file")
    parser.add_argument("--format", required=True, help=", ".join(FORMATS))
    parser.add_argument("--output", required=True, help="file or folder to write; must not exist")
    parser.add_argument(
        "--weights",
        default=TASK,
        help="weights of a run: task, task_control, task_source_only, task_best, translation",
    )
    parser.add_argument(
        "--input", default=INPUTS[0], help="images: uint8, or float for float32 from 0 to 1"
    )
    parser.add_argument(
        "--predict",
        default=OUTPUTS[0],
        help="what the task network returns beside depth: labels at full size, or logits",
    )
    parser.add_argument(
        "--size", metavar="WIDTHxHEIGHT", help="take images of this size alone (unset: of any size)"
    )
    parser.add_argument("--opset", type=int, default=files.OPSET, help="onnx: operator set")
    parser.add_argument("--images", help="an image, or a folder of images, to check on")
    parser.add_argument(
        "--bound", type=float, default=1e-3, help="largest difference to the original"
    )
    options = parser.parse_args(list(arguments))

    cli.choice("--format", options.format, FORMATS)
    cli.choice("--input", options.input, INPUTS)
    cli.choice("--predict", options.predict, OUTPUTS)
    if not options.bound > 0:
        raise InputError(f"--bound is {options.bound}, must be above 0")
    if options.format == "onnx":
        files.onnx_packages()
        files.check_opset(options.opset)
    output = _free_output(options.output)
    network = _load(options)
    if options.format == "folder":
        _export_folder(network, output)
    else:
        _export_file(network, options, output)


def _free_output(name: str) -> Path:
    """The path to write to, in a folder that exists."""
    output = expand(name, "--output")
    if output.exists():
        raise InputError(f"{output} exists already and is not overwritten: change --output")
    if output.parent.exists() and not output.parent.is_dir():
        raise InputError(f"{output.parent} is a file, so there is no {output}: change --output")
    cli.output_folder(str(output.parent))
    return output


def _load(options: Any) -> Network:
    origin = find_origin(options.model, options.weights, PROG)
    fixed = pixels("--size", options.size)
    if origin.name == TRANSLATION:
        return _load_translation(origin, options, fixed)
    task, space, metadata = load_task(origin.weights)
    graph = TaskGraph(task, metadata["depth_encoding"], options.input, options.predict).eval()
    height, width = metadata["size"]
    images = target_pictures(origin, options.images, fixed or (height, width))
    frames = _cut({"image": image_tensor(images)}, 1 if fixed else size_multiple(graph))
    return Network(origin, graph, space, (height, width), frames)


def _load_translation(origin: Origin, options: Any, fixed: tuple[int, int] | None) -> Network:
    if options.images is not None:
        raise InputError(
            "--images: the translation network also needs depth and labels, which source frames "
            "of the run have: leave it out"
        )
    translation, metadata = load_translation(origin.weights)
    graph = TranslationGraph(translation, metadata["depth_encoding"], options.input).eval()
    pictures = source_pictures(origin, fixed)
    frames = {"image": image_tensor(np.stack([frame.image for frame in pictures]))}
    if translation.geometry:
        frames["depth"] = torch.from_numpy(np.stack([frame.depth for frame in pictures]))
        frames["labels"] = torch.from_numpy(np.stack([frame.labels for frame in pictures]))
    space = label_space(metadata["label_space"])
    height, width = frames["image"].shape[2:]
    return Network(origin, graph, space, (height, width), frames)


def _cut(frames: Tensors, multiple: int) -> dict[str, torch.Tensor]:
    """Frames whose height and width are multiples of a number, cut at the bottom and right."""
    height, width = frames["image"].shape[2:]
    rows, columns = height - height % multiple, width - width % multiple
    return {name: x[..., :rows, :columns].contiguous() for name, x in frames.items()}


def _export_file(network: Network, options: Any, output: Path) -> None:
    graph, fixed = network.graph, options.size is not None
    example = arguments(graph, network.frames)
    program, shapes = trace(graph, example, fixed)
    with torch.no_grad():
        outputs = list(graph(**example))
    about = _about(network, options, outputs)
    if options.format == "onnx":
        write = functools.partial(files.write_onnx, program, shapes, outputs, options.opset, about)
    else:
        write = functools.partial(files.write_program, program, about)
    speeds: list[float] = []

    def write_and_check(path: Path) -> None:
        write(path)
        runner = (files.onnx_runner if options.format == "onnx" else files.program_runner)(path)
        _check(network, runner, fixed, options.bound)
        one = {name: x[:1] for name, x in example.items()}
        speeds.extend(latencies(one, [_original(graph), runner]))

    write_atomically(output, write_and_check)
    height, width = network.frames["image"].shape[2:]
    kind = f"opset {options.opset}, " if options.format == "onnx" else ""
    size = f"{width}x{height}" if fixed else "any size"
    print(f"{output}: {kind}images of {size} as {options.input}, {_megabytes(output)}")
    runtime = f"PyTorch {torch.__version__}"
    if options.format == "onnx":
        runtime = f"onnxruntime {files.version('onnxruntime')}"
    print(
        f"one image of {width}x{height}: {1000 * speeds[1]:.1f} ms exported ({runtime}), "
        f"{1000 * speeds[0]:.1f} ms before (PyTorch {torch.__version__}); "
        f"{torch.get_num_threads()} threads, float32"
    )


def _original(graph: Graph) -> Runner:
    def run(tensors: Tensors) -> Tensors:
        with torch.no_grad():
            results: Tensors = graph(**tensors)
        return results

    return run


def _check(network: Network, runner: Runner, fixed: bool, bound: float) -> None:
    """Compare on all frames, on one, and on a part of one; print and judge the differences."""
    batches = [network.frames, {name: x[:1] for name, x in network.frames.items()}]
    if not fixed:
        batches.append(_part(batches[1], network.graph))
    results = []
    for frames in batches:
        try:
            results.append(compare(network.graph, frames, runner))
        except Exception as error:  # whatever a runtime raises
            shape = "x".join(map(str, frames["image"].shape))
            reason = str(error).strip().partition("\n")[0] or repr(error)
            raise InputError(
                f"the exported network fails on images of {shape}: {reason}; nothing was written"
            ) from error
    by_output = zip(*results, strict=True)
    _judge([max(differences, key=_value) for differences in by_output], bound)


def _judge(differences: Sequence[Difference], bound: float) -> None:
    """Print the largest differences, and refuse those above the bound."""
    table = Table("output", "largest difference", "", "bound")
    for difference in differences:
        table.add_row(difference.output, f"{difference.value:.1e}", difference.unit, f"{bound:g}")
    Console().print(table)
    for difference in differences:
        if not difference.value <= bound:  # nan is not
            raise InputError(
                f"the exported network differs from the original: {difference.output} by "
                f"{difference.value:.1e} {difference.unit}, above --bound {bound:g}; nothing was "
                "written"
            )


def _value(difference: Difference) -> float:
    return float("inf") if difference.value != difference.value else difference.value


def _part(frames: Tensors, graph: Graph) -> dict[str, torch.Tensor]:
    """About three quarters of the height and two thirds of the width; odd if they may be."""
    height, width = frames["image"].shape[2:]
    multiple, least = size_multiple(graph), min_side(graph)
    rows, columns = max(least, height * 3 // 4), max(least, width * 2 // 3)
    if multiple == 1:
        rows, columns = rows | 1, columns | 1
    part = {name: x[..., :rows, :columns] for name, x in frames.items()}
    return _cut(part, multiple)


def _about(network: Network, options: Any, outputs: Sequence[str]) -> Mapping[str, Any]:
    """The description that is written into the file."""
    graph, space = network.graph, network.space
    return {
        "network": TRANSLATION if isinstance(graph, TranslationGraph) else TASK,
        "gioada_fast": __version__,
        "inputs": list(network.frames),
        "image": "RGB uint8" if options.input == "uint8" else "RGB float32, 0 to 1",
        "outputs": list(outputs),
        "depth": "metres",
        "trained_size": list(network.trained),
        "size": [*network.frames["image"].shape[2:]] if options.size else None,
        "size_multiple": size_multiple(graph),
        "label_space": space.name,
        "classes": list(space.classes),
        "colours": [list(colour) for colour in space.colours],
        "ids": list(space.ids),
    }


def _export_folder(network: Network, output: Path) -> None:
    write_folder(network.origin, network.graph, network.space, network.trained, output)
    try:
        _check_bits(network, _reloaded(network, output / WEIGHTS))
    except BaseException:
        remove_folder(output)
        raise
    print(f"{output}: {', '.join(sorted(file.name for file in output.iterdir()))}")


def _check_bits(network: Network, reloaded: Graph) -> None:
    """Compare the outputs of two graphs, which must be the same to the bit."""
    example = arguments(network.graph, network.frames)
    before, after = _original(network.graph)(example), _original(reloaded)(example)
    differences = [
        Difference(name, float((after[name].double() - x.double()).abs().max()), "")
        for name, x in before.items()
    ]
    _judge(differences, 0.0)


def _reloaded(network: Network, path: Path) -> Graph:
    graph = network.graph
    if isinstance(graph, TaskGraph):
        return TaskGraph(load_task(path)[0], graph.encoding, graph.input, graph.output).eval()
    return TranslationGraph(load_translation(path)[0], graph.encoding, graph.input).eval()


def _megabytes(path: Path) -> str:
    return f"{path.stat().st_size / 2**20:.1f} MiB"


if __name__ == "__main__":
    cli.run(main)
