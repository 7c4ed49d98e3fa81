"""Estimates the memory of a run, so that settings that no machine has memory for are refused."""

import contextlib

import torch

from ..adaptation import TwoLevelAdaptation
from ..config import Config
from ..memory import check_memory
from .device import has_fast_bf16

_SMALL_BATCH, _SMALL_WIDTH, _SMALL_BLOCKS = 2**20, 1.0, 16
"""Pixels of a batch, and sizes of networks, that any machine has memory for. An estimate takes a
second, most of which is the import of PyTorch's symbolic shapes."""
_STATES = 4
"""Numbers for each weight: itself, its gradient and two moments of Adam."""
_PIXEL_BYTES = 11
"""Of a pair in the loader: two images uint8, labels uint8, depth float32."""
_PREFETCHED = 2
"""Batches that each loader process has waiting."""


def check_run_memory(config: Config, num_classes: int, device: torch.device) -> None:
    """Refuse a run whose weights and one forward pass of the task network need too much memory.

    The estimate is a lower bound: it leaves out the other networks' activations.

    Args:
        config: all settings.
        num_classes: number of classes.
        device: where the networks will be.

    Raises:
        InputError: this machine, or its GPU, has less memory.
    """
    data, schedule = config.data, config.schedule
    pixels = schedule.batch_size * data.height * data.width
    batches = _PREFETCHED * data.workers + 1
    check_memory(
        batches * pixels * _PIXEL_BYTES,
        f"{batches} batches of {schedule.batch_size} pairs of {data.width}x{data.height}",
        "lower data.workers, schedule.batch_size, data.height or data.width",
    )
    model = config.model
    widths = (model.trunk_width, model.translation_width, model.discriminator_width)
    is_small = max(widths) <= _SMALL_WIDTH and model.translation_blocks <= _SMALL_BLOCKS
    if is_small and pixels <= _SMALL_BATCH:
        return
    available = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
    weights, activations = _task_memory(config, num_classes, device)
    check_memory(
        weights,
        "The networks' weights, gradients and optimisers",
        "lower model.width, translation_width, discriminator_width or translation_blocks",
        available,
    )
    check_memory(
        weights + activations,
        f"A batch of {schedule.micro_batch or schedule.batch_size} images of "
        f"{data.width}x{data.height}",
        "set schedule.micro_batch or model.task_checkpointing, or lower schedule.batch_size, "
        "data.height, data.width or model.width",
        available,
    )


def _task_memory(config: Config, num_classes: int, device: torch.device) -> tuple[int, int]:
    """Bytes of all networks' states, and of what a forward pass of the task network keeps."""
    # the meta device computes no numbers and needs no memory
    with torch.device("meta"):
        adaptation = TwoLevelAdaptation(num_classes, config.adaptation, config.model)
        images = config.schedule.micro_batch or config.schedule.batch_size
        size = (images, 3, config.data.height, config.data.width)
        image = torch.empty(size)
    weights = list(adaptation.parameters())
    own, kept = {id(weight) for weight in weights}, {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in own:
            kept[tensor.untyped_storage()._cdata] = tensor.numel()
        return tensor

    # a trunk of another package may look at numbers, which the meta device does not have
    with (
        contextlib.suppress(NotImplementedError, RuntimeError),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        adaptation.task(image)
    half = config.precision == "bf16" or (config.precision == "auto" and has_fast_bf16(device))
    return (
        4 * _STATES * sum(weight.numel() for weight in weights),
        (2 if half else 4) * sum(kept.values()),
    )
