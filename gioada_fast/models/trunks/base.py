"""What the task network, the pretrained weights and the optimisers need of a trunk."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from ...errors import InputError


class Trunk(nn.Module):
    """The protocol of a trunk: a network from an image to features of output stride 8.

    A trunk is one class in a file of ``models/trunks`` and its name in ``TRUNKS``. It sets
    ``NORMS`` and ``out_channels`` and defines ``__init__(width, norm)`` and ``forward``; the other
    members have defaults. ``TaskNet`` puts its heads on the features. The trunk's parameters form
    one group of the task network's optimiser, with a learning rate of their own. The keys of
    ``state_dict`` are those of the published weights, so that their files can be loaded.

    A base class and not a ``typing.Protocol``: a trunk is an ``nn.Module``, and members that are
    added here later, such as features at several scales, can have a default for the trunks that
    exist.

    Args:
        width: factor on the numbers of channels; 1 for pretrained weights.
        norm: one of ``NORMS``.
    """

    NORMS: ClassVar[Sequence[str]]
    """Kinds of normalisation that the trunk can be built with. ``model.norm`` offers the names
    ``group`` (group norm, for training from scratch) and ``none`` (no normalisation that is
    trained, for pretrained weights)."""

    IMAGENET_URL: ClassVar[str | None] = None
    """What ``model.pretrained: imagenet`` downloads, with the first digits of the SHA-256 in the
    file's name. None: there is no such file, and ``model.pretrained`` is a path or another URL."""

    out_channels: int
    """Channels of the features."""

    def __init__(self, width: float = 1.0, norm: str = "group"):
        super().__init__()
        if norm not in self.NORMS:
            raise InputError(
                f"model.norm is {norm!r}, {type(self).__name__} has {', '.join(self.NORMS)}"
            )

    def forward(self, x: Tensor) -> Tensor:
        """Compute the features.

        Args:
            x: [N, 3, H, W] RGB with ImageNet's mean and standard deviation removed, float32,
                channels-last; under autocast, the trunk's layers choose their dtype.

        Returns:
            [N, out_channels, h, w], channels-last, where h and w are about H / 8 and W / 8; the
            losses upsample them to the labels' size with corners aligned.
        """
        raise NotImplementedError

    def pretrained_keys(self) -> set[str]:
        """Keys of ``state_dict`` that a file of ImageNet weights must have; by default all."""
        return set(self.state_dict())

    def scale_to_unit_variance(self) -> None:
        """Rescale pretrained weights so that features have about unit variance.

        Called once, after the weights have been loaded. The function may change by a constant
        factor. By default nothing is done, which is right where layers are normalised.
        """
