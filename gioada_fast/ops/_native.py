"""The compiled module ``gioada_fast._C``, if it was built, and the function that runs a kernel."""

import functools
import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch  # before _C: both then share torch's OpenMP runtime
from torch import Tensor

native: ModuleType | None
"""``gioada_fast._C``, or None; then ``native_error`` says why."""

try:
    native = importlib.import_module("gioada_fast._C")
    native.read_tensors_of(Tensor)
except (ImportError, AttributeError) as error:
    native = None
    native_error = f"gioada_fast._C cannot be imported: {error}"
else:
    native_error = ""


def run(kernel: str, backend: str, *arguments: Any) -> int | None:
    """Run a kernel on a back end. Some of the arguments are tensors for its results.

    Args:
        kernel: name of an op, or name of an op + ``_backward``.
        backend: ``cpp``, ``cuda`` or ``triton``.
        arguments: the fields of the kernel's struct in ``csrc/<op>.h``, in their order. A Triton
            launcher in ``ops/triton/<op>.py`` takes the same arguments. The first one is a tensor,
            or a list of tensors, on the device that the kernel runs on.

    Returns:
        For kernels that read labels, on ``cpp``: the index of the first label out of range, or -1.
    """
    if backend == "cpp":
        return _cpu_kernel(kernel)(torch.get_num_threads(), *arguments)
    if backend == "triton":
        return _triton_launcher(kernel)(*arguments)
    run_cuda(kernel, *arguments)
    return None


def run_cuda(kernel: str, *arguments: Any) -> None:
    """Run a CUDA kernel on the current stream. Tests replace this function to emulate kernels."""
    first = arguments[0]
    size = getattr(native, f"{kernel}_cuda_workspace")(*arguments)
    workspace = first.new_empty(size, dtype=torch.float32)
    with torch.cuda.device(first.device):
        stream = torch.cuda.current_stream().cuda_stream
        getattr(native, f"{kernel}_cuda")(workspace, stream, *arguments)


@functools.cache
def _cpu_kernel(kernel: str) -> Callable:
    return getattr(native, f"{kernel}_cpu")


@functools.cache
def _triton_launcher(kernel: str) -> Callable:
    op = kernel.removesuffix("_backward")
    module = importlib.import_module(f"gioada_fast.ops.triton.{op}")
    return module.launch if op == kernel else module.launch_backward
