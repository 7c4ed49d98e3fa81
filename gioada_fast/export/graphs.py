"""The networks as other programs run them: from pixels to labels and metres, in plain PyTorch.

A graph takes images as they come from a file and returns a dict of named tensors. ``trace`` makes
it a program of PyTorch's own operators, without an operator of this package.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from .. import ops
from ..depth import decode_depth, encode_depth, surface_normals
from ..errors import InputError
from ..models import TaskNet, TranslationNet
from ..models.layers import normalise, upsample
from ..ops import upsample_argmax

INPUTS = ("uint8", "float")
"""Images as bytes, or as float32 from 0 to 1."""
OUTPUTS = ("labels", "logits")
"""What the task network's graph returns beside depth."""


class TaskGraph(nn.Module):
    """G_task with everything around it.

    Args:
        task: the network.
        encoding: its encoding of depth.
        input: one of ``INPUTS``.
        output: one of ``OUTPUTS``.
    """

    def __init__(self, task: TaskNet, encoding: str, input: str, output: str):
        super().__init__()
        self.task = task
        self.encoding, self.input, self.output = encoding, input, output

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Segment images.

        Args:
            image: RGB [N, 3, H, W], uint8 or float32.

        Returns:
            ``labels`` (uint8 [N, H, W], train ids) or ``logits`` (float32 [N, C, h, w]), and
            ``depth`` (float32 [N, H, W], metres).
        """
        logits, depth = self.task(normalise(image) if self.input == "uint8" else image * 2 - 1)
        size = image.shape[2:]
        metres = decode_depth(upsample(depth, size)[:, 0], self.encoding)
        if self.output == "logits":
            return {"logits": logits, "depth": metres}
        return {"labels": upsample_argmax(logits, size, dtype=torch.uint8), "depth": metres}


class TranslationGraph(nn.Module):
    """G_img with everything around it.

    Args:
        translation: the network.
        encoding: its encoding of depth.
        input: one of ``INPUTS``, also of the result.
    """

    def __init__(self, translation: TranslationNet, encoding: str, input: str):
        super().__init__()
        self.translation = translation
        self.encoding, self.input = encoding, input

    def forward(
        self, image: Tensor, depth: Tensor | None = None, labels: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Translate source images; depth and labels only for a network with geometry.

        Args:
            image: RGB [N, 3, H, W], uint8, or float32, which is rounded to bytes.
            depth: float32 [N, H, W] metres, 0 for no depth.
            labels: uint8 [N, H, W] train ids, 255 ignored.

        Returns:
            ``translated``: [N, 3, H, W] of the dtype of ``image``.
        """
        if self.input == "float":
            image = (image * 255).round().clamp(0, 255).to(torch.uint8)
        translated = (self.unrounded(image, depth, labels) + 1) / 2
        if self.input == "uint8":
            translated = (translated * 255).round().clamp(0, 255).to(torch.uint8)
        return {"translated": translated}

    def unrounded(self, image: Tensor, depth: Tensor | None, labels: Tensor | None) -> Tensor:
        """The network's own output in [-1, 1] for images uint8 [N, 3, H, W]."""
        encoded = normals = None
        if depth is not None:
            metres = depth.unsqueeze(1)
            encoded = encode_depth(metres, self.encoding)[0]
            normals = surface_normals(metres) if self.translation.normals else None
        out: Tensor = self.translation(image, encoded, labels, normals=normals)
        return out


Graph = TaskGraph | TranslationGraph


def size_multiple(graph: Graph) -> int:
    """Height and width of images must be multiples of this, unless the size is fixed."""
    return graph.task.trunk.size_multiple if isinstance(graph, TaskGraph) else 1


def min_side(graph: Graph) -> int:
    """Smallest height and width of images, unless the size is fixed.

    Two multiples: torch.export takes a dimension of size 1 for another case, see its docs on 0/1
    specialisation.
    """
    multiple = size_multiple(graph)
    return max(2, -(-32 // multiple)) * multiple


def trace(
    graph: Graph, example: Mapping[str, Tensor], fixed_size: bool
) -> tuple[ExportedProgram, Sequence[Mapping[int, Dim]]]:
    """A graph as a program of PyTorch's own operators, for batches of any length.

    Args:
        graph: in evaluation mode, on the CPU.
        example: arguments of ``forward``, two images.
        fixed_size: whether the program takes images of the example's height and width alone.

    Returns:
        The program, and the dynamic dimensions of each argument.

    Raises:
        InputError: PyTorch cannot trace the network, or not for any size.
    """
    if isinstance(graph, TaskGraph) and not (fixed_size or graph.task.trunk.traces_any_size):
        raise InputError(
            "this trunk computes attention in windows, which torch.export cannot trace for images "
            "of any size: set --size WIDTHxHEIGHT"
        )
    batch = Dim("batch", min=1)
    height, width = _dimension("height", graph), _dimension("width", graph)
    shapes = []
    for x in example.values():
        free = {} if fixed_size else {x.dim() - 2: height, x.dim() - 1: width}
        shapes.append({0: batch, **free})
    try:
        with torch.no_grad(), ops.backend("reference"):
            program = torch.export.export(
                graph,
                tuple(example.values()),
                dynamic_shapes=tuple(shapes),
                # what can only be known for a given size is checked when the program runs
                prefer_deferred_runtime_asserts_over_guards=True,
            )
    except Exception as error:  # whatever the code of a trunk raises while it is traced
        lines = [line for line in str(error).splitlines() if line.strip()] or [repr(error)]
        advice = "" if fixed_size else "; --size WIDTHxHEIGHT exports it for images of one size"
        raise InputError(
            f"torch.export cannot trace this network: {lines[0].strip()}{advice}"
        ) from error
    return program, shapes


def _dimension(name: str, graph: Graph) -> Dim:
    """A dimension of images, from ``min_side`` on."""
    multiple, least = size_multiple(graph), min_side(graph)
    if multiple == 1:
        return Dim(name, min=least)
    return multiple * Dim(f"{name}_in_{multiple}s", min=least // multiple)
