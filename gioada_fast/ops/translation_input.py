"""The input of the translation network, built from stored synthetic frames.

    out[:, :3] = image / 127.5 - 1
    out[:, 3]  = depth
    out[:, 4:] = one-hot labels; all zero where the label is no class

Reads 8 bytes per pixel (float32 depth, uint8 labels) and writes the network's channels-last input
once. On CPU most of the time goes into the page faults of the new result, so it depends on huge
pages more than on the kernel.

Source: input-level adaptation of GIO-Ada (arXiv 1812.05040): the generator gets image, depth and
semantic labels concatenated.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gioada_fast.ops._checks import (
    FLOATS,
    check_device,
    check_dtype,
    check_image,
    checked_labels,
)
from gioada_fast.ops._native import run
from gioada_fast.ops._registry import FusedOp

_NAME = "translation_input"


def reference(
    image: Tensor,
    depth: Tensor,
    labels: Tensor,
    num_classes: int,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The op in plain PyTorch; arguments as for ``translation_input``."""
    exact = torch.promote_types(dtype, torch.float32)
    classes = torch.arange(num_classes, device=labels.device).view(1, -1, 1, 1)
    one_hot = labels.view(depth.shape) == classes
    parts = [image.to(exact) / 127.5 - 1, depth.to(exact), one_hot.to(exact)]
    return torch.cat(parts, dim=1).to(dtype, memory_format=torch.channels_last)


def sample(
    n: int = 2,
    classes: int = 19,
    height: int = 7,
    width: int = 21,
    label_dtype: torch.dtype = torch.uint8,
    dtype: torch.dtype = torch.float32,
    label_shape: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Random arguments; a tenth of the labels are ignored."""
    image = torch.randint(0, 256, (n, 3, height, width), dtype=torch.uint8)
    depth = torch.rand(n, 1, height, width)
    labels = torch.randint(0, classes, (n, height, width))
    labels[torch.rand(labels.shape) < 0.1] = 255
    labels = labels.to(label_dtype).view(tuple(label_shape or labels.shape))
    return {
        "image": image,
        "depth": depth,
        "labels": labels,
        "num_classes": classes,
        "dtype": dtype,
    }


def _checked(
    image: Tensor, depth: Tensor, labels: Tensor, num_classes: int, dtype: torch.dtype
) -> Tensor:
    """Labels as [N, H, W]."""
    check_image("image", image, channels=3)
    check_dtype("image", image, (torch.uint8,))
    check_image("depth", depth, channels=1)
    check_dtype("depth", depth)
    check_device("depth", depth, "image", image)
    labels = checked_labels(labels, "image", image)
    size = [image.shape[0], *image.shape[2:]]
    for name, found in (("depth", [depth.shape[0], *depth.shape[2:]]), ("labels", [*labels.shape])):
        if found != size:
            raise ValueError(f"{name}: N, H, W are {found}, but {size} in image")
    if depth.requires_grad:
        raise ValueError("depth requires a gradient, which this op does not have")
    if not isinstance(num_classes, int | torch.SymInt):
        raise TypeError(f"num_classes is {num_classes!r}, expected an integer")
    if num_classes < 1:
        raise ValueError(f"num_classes is {num_classes}, expected at least 1")
    if dtype not in FLOATS:
        raise TypeError(f"dtype is {dtype}, expected float32, bfloat16, float16 or float64")
    return labels


def _fake(
    image: Tensor,
    depth: Tensor,
    labels: Tensor,
    num_classes: int,
    dtype: torch.dtype,
    backend: str,
) -> Tensor:
    """Empty result [N, 4 + C, H, W], channels-last."""
    n, _, height, width = image.shape
    out = image.new_empty((n, height, width, 4 + num_classes), dtype=dtype)
    return out.permute(0, 3, 1, 2)


def _kernel(
    image: Tensor,
    depth: Tensor,
    labels: Tensor,
    num_classes: int,
    dtype: torch.dtype,
    backend: str,
) -> Tensor:
    out = _fake(image, depth, labels, num_classes, dtype, backend)
    if out.numel():
        run(_NAME, backend, image, depth, labels, out)
    return out


_op = FusedOp(_NAME, fake=_fake, kernel=_kernel, backends=("cpp", "triton"))


def translation_input(
    image: Tensor,
    depth: Tensor,
    labels: Tensor,
    num_classes: int,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Concatenation of normalised image, depth and one-hot labels: G_img's input.

    Args:
        image: [N, 3, H, W] uint8, any memory format.
        depth: [N, 1, H, W] encoded depth, float32, bfloat16, float16 or float64, on the image's
            device. Copied, including NaN; only rounded to ``dtype``.
        labels: [N, H, W] or [N, 1, H, W] train ids, int64, int32 or uint8. Labels outside [0, C),
            such as 255, have no class: all class channels are zero.
        num_classes: C.
        dtype: dtype of the result: float32, bfloat16, float16, or float64, which ``reference``
            computes.

    Returns:
        [N, 3 + 1 + C, H, W], channels-last; the image in [-1, 1]. Has no gradient.

    Raises:
        ValueError: shapes or devices disagree, H or W is 0, ``num_classes`` is below 1, or
            ``depth`` requires a gradient.
        TypeError: a dtype other than the above, or ``num_classes`` is not an integer.
        RuntimeError: the requested back end does not run here.
    """
    labels = _checked(image, depth, labels, num_classes, dtype)
    backend = "reference" if dtype == torch.float64 else _op.choose(depth)
    if backend == "reference":
        return reference(image, depth, labels, num_classes, dtype)
    return _op(image, depth, labels.contiguous(), num_classes, dtype, backend)
