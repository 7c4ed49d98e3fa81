"""The interface of a trunk."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from ...errors import InputError


class Trunk(nn.Module):
    """Computes features of output stride 8 from an image, the input of the heads of ``TaskNet``.

    To add a trunk, write a subclass in a file of ``models/trunks`` and its name in ``TRUNKS``. The
    subclass sets ``NORMS`` and ``out_channels`` and defines ``__init__(width, norm)`` and
    ``forward``. The other members have defaults. Its ``state_dict`` should have the key names of
    published weights, so that their files can be loaded. The task network's optimiser has a group
    with its own learning rate for the trunk.

    This is a base class and not a ``typing.Protocol`` because a trunk must be an ``nn.Module``, and
    because later members, such as features at several scales, can get a default that works for
    existing trunks.

    Args:
        width: factor on the numbers of channels; 1 for pretrained weights.
        norm: one of ``NORMS``.
    """

    NORMS: ClassVar[Sequence[str]]
    """Values of ``model.norm`` that the trunk accepts. ``group`` is the default without pretrained
    weights, ``none`` with them (ResNet: ``frozen_batch``)."""

    IMAGENET_URL: ClassVar[str | None] = None
    """File that ``model.pretrained: imagenet`` downloads. Its name ends in the first 8 or more
    digits of its SHA-256. None if there is no such file: users must then give a path or a URL."""

    out_channels: int
    """Number of channels of the features."""

    def __init__(self, width: float = 1.0, norm: str = "group"):
        super().__init__()
        if norm not in self.NORMS:
            raise InputError(
                f"model.norm is {norm!r}, but {type(self).__name__} has {', '.join(self.NORMS)}"
            )

    def forward(self, x: Tensor) -> Tensor:
        """Compute the features.

        Args:
            x: float32 [N, 3, H, W] RGB, channels-last, normalised with ImageNet's mean and
                standard deviation. Autocast may be on.

        Returns:
            [N, out_channels, h, w], channels-last, with h and w about H / 8 and W / 8. The losses
            upsample the heads' outputs to H x W with align_corners=True.
        """
        raise NotImplementedError

    def pretrained_keys(self) -> set[str]:
        """Keys of ``state_dict`` that a file of ImageNet weights must contain; by default all."""
        return set(self.state_dict())

    def scale_to_unit_variance(self) -> None:
        """Rescale pretrained weights so that features have about unit variance.

        Called once after the weights have been loaded. Features may change by a constant factor.
        The default does nothing, which is right for trunks with normalisation.
        """
