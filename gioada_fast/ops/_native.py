"""The compiled module ``gioada_fast._C``, where it was built, and how tensors are handed to it."""

from collections.abc import Callable
from types import ModuleType

import torch  # before _C: both then share torch's OpenMP runtime
from torch import Tensor

native: ModuleType | None
"""``gioada_fast._C``, or None; then ``native_error`` says why."""

try:
    from gioada_fast import _C as native
except ImportError as error:
    native = None
    native_error = f"gioada_fast._C cannot be imported: {error}"
else:
    native_error = ""


def address(tensor: Tensor | None) -> int:
    """Address of the first element; 0, a null pointer, for None and for no elements."""
    return tensor.data_ptr() if tensor is not None and tensor.numel() else 0


def float_type(tensor: Tensor) -> "native.FloatType":
    """Element type of a float32 or bfloat16 tensor."""
    return native.FloatType.bfloat16 if tensor.dtype == torch.bfloat16 else native.FloatType.float32


def label_type(labels: Tensor) -> "native.LabelType":
    """Element type of an int64 or uint8 tensor."""
    return native.LabelType.uint8 if labels.dtype == torch.uint8 else native.LabelType.int64


def run_cpu(kernel: str, op: object) -> None:
    """Run a C++ kernel on as many threads as PyTorch uses."""
    getattr(native, f"{kernel}_cpu")(op, torch.get_num_threads())


def run_cuda(kernel: str, op: object, on: Tensor) -> None:
    """Run a CUDA kernel on the device of ``on`` and its current stream."""
    size = getattr(native, f"{kernel}_workspace")(op)
    workspace = on.new_empty(size, dtype=torch.float32)
    launch: Callable = getattr(native, f"{kernel}_cuda")
    with torch.cuda.device(on.device):
        launch(op, address(workspace), torch.cuda.current_stream().cuda_stream)
