"""Writes a program as an ONNX file or a PyTorch program, and runs the file that was written."""

import contextlib
import importlib
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch.export import ExportedProgram

from ..errors import InputError
from .check import Runner, Tensors

OPSET = 20
"""Operator set of ONNX files unless another one is asked for."""
MIN_OPSET = 18
"""The first with the bilinear resize that the networks need."""
ABOUT = "gioada_fast"
"""Key of the description in the metadata of ONNX files."""
ABOUT_FILE = "gioada_fast.json"
"""Name of the description in PyTorch programs."""
_MAX_BYTES = 2**31
"""Size limit of a single ONNX file."""


def onnx_packages() -> None:
    """Import what ONNX files need.

    Raises:
        InputError: a package is missing; the message says how to install it.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        _import(name)


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"--format onnx needs {name}, which cannot be imported ({error}): "
            'pip install "gioada_fast[export]"'
        ) from error


def version(package: str) -> str:
    """Version of an installed package."""
    return str(_import(package).__version__)


def check_opset(opset: int) -> None:
    """Refuse an operator set that the networks cannot have, or that is newer than onnx."""
    newest = _import("onnx").defs.onnx_opset_version()
    if not MIN_OPSET <= opset <= newest:
        raise InputError(f"--opset is {opset}, must be {MIN_OPSET} to {newest}")


def write_onnx(
    program: ExportedProgram,
    shapes: Sequence[Mapping[int, Any]],
    outputs: Sequence[str],
    opset: int,
    about: Mapping[str, Any],
    path: Path,
) -> None:
    """Write an ONNX file with the weights in it.

    Args:
        program: see ``graphs.trace``.
        shapes: likewise; the names of dynamic dimensions.
        outputs: names of the outputs.
        opset: version of the operator set.
        about: description for the file's metadata, which must fit JSON.
        path: the file.

    Raises:
        InputError: the network has an operator that ONNX lacks, or it is too large for one file.
    """
    size = sum(x.nbytes for x in program.state_dict.values())
    if size >= _MAX_BYTES:
        raise InputError(
            f"the network has {size / 2**30:.1f} GiB of weights, an ONNX file holds up to 2: "
            "--format pt2 has no such limit"
        )
    try:
        with _quiet():
            onnx = torch.onnx.export(
                program,
                (),
                output_names=list(outputs),
                opset_version=opset,
                dynamic_shapes=tuple(shapes),
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # whatever the exporter raises for an operator
        lines = [line for line in str(error).splitlines() if line.strip()] or [repr(error)]
        raise InputError(
            f"PyTorch cannot write this network as ONNX: {lines[0].strip()}; --format pt2 needs "
            "no conversion"
        ) from error
    assert onnx is not None
    written = onnx.model.opset_imports[""]
    if written != opset:
        raise InputError(f"--opset is {opset}, but this network converts to {written} alone")
    onnx.model.metadata_props[ABOUT] = json.dumps(about)
    onnx.save(path, external_data=False)


def onnx_runner(path: Path) -> Runner:
    """Runs an ONNX file with onnxruntime, on as many threads as PyTorch has."""
    runtime = _import("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(tensors: Tensors) -> Tensors:
        results = session.run(names, {name: x.numpy() for name, x in tensors.items()})
        return dict(zip(names, map(torch.from_numpy, results), strict=True))

    return run


def write_program(program: ExportedProgram, about: Mapping[str, Any], path: Path) -> None:
    """Write a file that ``torch.export.load`` reads, with a description beside the program."""
    foreign = foreign_operators(program)
    assert not foreign, foreign
    # torch.export.save asks for the suffix .pt2 of a path, but not of a file
    with path.open("wb") as file, _quiet():
        torch.export.save(program, file, extra_files={ABOUT_FILE: json.dumps(about)})


def program_runner(path: Path) -> Runner:
    """Runs a PyTorch program."""
    with path.open("rb") as file:
        module = torch.export.load(file).module()

    def run(tensors: Tensors) -> Tensors:
        with torch.no_grad():
            results: Tensors = module(*tensors.values())
        return results

    return run


def foreign_operators(program: ExportedProgram) -> list[str]:
    """Operators of a program that PyTorch alone does not have."""
    names = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    return sorted(name for name in names if name.startswith("gioada_fast"))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings of packages that are not installed, and of weights in another layout."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
