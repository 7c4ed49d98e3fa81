"""Argument checks shared by the ops. Each error names the value found and the value expected."""

from collections.abc import Sequence

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
LABELS = (torch.int64, torch.int32, torch.uint8)
REDUCTIONS = ("mean", "sum", "none")


def check_dtype(name: str, tensor: Tensor, allowed: tuple[torch.dtype, ...] = FLOATS) -> None:
    """Raise TypeError unless the tensor has one of the dtypes."""
    if tensor.dtype not in allowed:
        *some, last = (str(dtype).removeprefix("torch.") for dtype in allowed)
        expected = f"{', '.join(some)} or {last}" if some else last
        raise TypeError(f"{name}: {tensor.dtype}, expected {expected}")


def check_device(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    """Raise ValueError unless both tensors are on one device."""
    if tensor.device != other.device:
        raise ValueError(f"{name}: on {tensor.device}, but {other_name} on {other.device}")


def check_image(name: str, tensor: Tensor, channels: int | None = None) -> None:
    """Raise ValueError unless the tensor is [N, C, h, w] with C, h and w > 0."""
    expected = "C" if channels is None else str(channels)
    wrong = tensor.dim() != 4 or 0 in tensor.shape[1:]
    if wrong or (channels is not None and tensor.shape[1] != channels):
        raise ValueError(
            f"{name}: {list(tensor.shape)}, expected [N, {expected}, h, w] with all but N above 0"
        )


def check_size(size: Sequence[int]) -> None:
    """Raise TypeError or ValueError unless ``size`` is (H, W), both at least 1."""
    if not isinstance(size, Sequence) or not all(isinstance(s, int | torch.SymInt) for s in size):
        raise TypeError(f"size: {size!r}, expected integers (H, W)")
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size: {tuple(size)}, expected (H, W), both at least 1")


def checked_labels(labels: Tensor, name: str, image: Tensor) -> Tensor:
    """Labels as [N, H, W].

    Raises:
        ValueError, TypeError: labels are not [N, H, W] or [N, 1, H, W] of int64, int32 or uint8
            with N and device of ``image``.
    """
    given = labels.shape
    if labels.dim() == 4 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dim() != 3 or labels.shape[0] != image.shape[0]:
        raise ValueError(
            f"labels: {list(given)}, expected [N, H, W] or [N, 1, H, W] with N = {image.shape[0]} "
            f"as in {name} {list(image.shape)}"
        )
    check_dtype("labels", labels, LABELS)
    check_device("labels", labels, name, image)
    return labels


def check_label_values(labels: Tensor, num_classes: int, ignore_index: int) -> None:
    """Raise ValueError if a label is neither a class nor ``ignore_index``.

    Eager CPU only: on CUDA or under ``torch.compile`` this would synchronise. The C++ kernels
    report the index themselves, see ``check_wrong_label``.
    """
    if labels.device.type != "cpu" or torch.compiler.is_compiling():
        return
    wrong = (labels != ignore_index) & ((labels < 0) | (labels >= num_classes))
    if wrong.any():
        check_wrong_label(int(wrong.flatten().byte().argmax()), labels, num_classes, ignore_index)


def check_wrong_label(
    index: int | None, labels: Tensor, num_classes: int, ignore_index: int
) -> None:
    """Raise ValueError if ``run`` has found a label out of range.

    Args:
        index: the result of ``run``: flat index of the label in [N, H, W], -1 if there is none, or
            None if the back end does not check labels.
    """
    if index is None or index < 0:
        return
    _, height, width = labels.shape
    n, y, x = index // (height * width), index // width % height, index % width
    raise ValueError(
        f"labels: {int(labels[n, y, x])} at [{n}, {y}, {x}], expected a class in "
        f"[0, {num_classes}) or ignore_index = {ignore_index}"
    )


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise ValueError unless the value is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(choices)}")


def check_constant(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    """Raise unless a weight of a loss is floating point, without gradient, on the other's device.

    Raises:
        TypeError: not a floating-point type.
        ValueError: on another device, or the tensor requires a gradient.
    """
    check_dtype(name, tensor)
    check_device(name, tensor, other_name, other)
    if tensor.requires_grad:
        raise ValueError(f"{name} requires a gradient, which this loss does not have")


def checked_pixel_weight(weight: Tensor, targets: Tensor, name: str, image: Tensor) -> Tensor:
    """Weights of the pixels in the shape of ``targets``: [N, H, W] or [N, 1, H, W].

    Raises:
        ValueError, TypeError: neither of these two shapes, or see ``check_constant`` for ``image``.
    """
    n, height, width = targets.shape[0], *targets.shape[-2:]
    if weight.shape not in ((n, height, width), (n, 1, height, width)):
        raise ValueError(
            f"pixel_weight: {list(weight.shape)}, expected [N, H, W] or [N, 1, H, W] = "
            f"[{n}, {height}, {width}] or [{n}, 1, {height}, {width}]"
        )
    check_constant("pixel_weight", weight, name, image)
    return weight.reshape(targets.shape)


def check_bool(name: str, value: object) -> None:
    """Raise TypeError unless the value is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}, expected True or False")
