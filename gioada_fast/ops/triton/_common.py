"""What Triton kernels share: the device of a launch, positions of bilinear resizing."""

import contextlib

import torch
import triton
import triton.language as tl
from torch import Tensor


def on_device_of(tensor: Tensor) -> contextlib.AbstractContextManager:
    """Context in which kernels are launched on the tensor's device."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()


@triton.jit
def cell_begin(cell, size_in, size_out):
    # First output index of a cell; see cell_begin in csrc/common.h.
    spread = tl.maximum(size_in - 1, 1)
    begin = (cell * (size_out - 1) + spread - 1) // spread
    begin = tl.where(cell <= 0, 0, begin)
    at_end = (cell >= spread) | ((size_out == 1) & (cell > 0))
    return tl.where(at_end, size_out, begin)


@triton.jit
def cell_of(index, size_in, size_out):
    # Cell of an output index; see cell_of in csrc/common.h.
    cell = index.to(tl.int64) * (size_in - 1) // tl.maximum(size_out - 1, 1)
    return tl.maximum(tl.minimum(cell, size_in - 2), 0).to(tl.int32)


@triton.jit
def upper_weight(index, cell, size_in, size_out):
    # Weight of point cell + 1; 0 where there is but one point on a side.
    rest = index * (size_in - 1) - cell * (size_out - 1)
    upper = rest.to(tl.float32) / tl.maximum(size_out - 1, 1).to(tl.float32)
    return tl.where((size_in == 1) | (size_out == 1), 0.0, upper)
