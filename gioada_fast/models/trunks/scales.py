"""What trunks from other libraries share: the choice of feature maps, and batch norms."""

from collections.abc import Sequence

from torch import nn

TAPS = 4
"""Number of layers that a vision transformer's features come from."""


def choose_scales(strides: Sequence[int]) -> list[int]:
    """Indices of the feature maps to use.

    Of a network with several strides: the last map of each stride from 4 on. Of a vision
    transformer, whose layers all have the same stride: ``TAPS`` of them, evenly spaced, the last
    one included, as in DPT (arXiv 2103.13413).

    Args:
        strides: stride of each map, from the image to the features.
    """
    if len(set(strides)) == 1:
        count = min(TAPS, len(strides))
        return [(i + 1) * len(strides) // count - 1 for i in range(count)]
    last = {stride: index for index, stride in enumerate(strides)}
    return sorted(index for stride, index in last.items() if stride >= 4)


def keep_statistics(network: nn.Module) -> None:
    """Set the batch norms of a network to evaluation mode: they keep the pretrained statistics."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
