"""The interface of a trunk."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from ...errors import InputError
from ..layers import recomputed

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Trunk(nn.Module):
    """Computes features from an image, the input of the heads of ``TaskNet``.

    To add a trunk, write a subclass in a file of ``models/trunks`` and its name in ``TRUNKS``. The
    subclass sets ``NORMS`` and ``out_channels`` and defines ``__init__(width, norm)`` and
    ``forward``. The other members have defaults, which suit features of one scale and stride 8. Its
    ``state_dict`` should have the key names of published weights, so that their files can be
    loaded. The task network's optimiser has a group with its own learning rate for the trunk.

    A trunk with features at several scales sets ``scales``, ``size_multiple`` and ``pyramid``
    instead of ``out_channels`` and ``forward``.

    This is a base class and not a ``typing.Protocol`` because a trunk must be an ``nn.Module``, and
    because later members can get a default that works for existing trunks.

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

    TAKES_NAME: ClassVar[bool] = False
    """Whether ``model.backbone`` has a name of its own behind a colon, as in ``timm:NAME``."""

    out_channels: int
    """Number of channels of the features."""

    size_multiple: int = 1
    """The task network pads images so that height and width are multiples of this."""

    mean: Sequence[float] = IMAGENET_MEAN
    """Mean of R, G and B in [0, 1] that the weights expect to be subtracted."""

    std: Sequence[float] = IMAGENET_STD
    """Standard deviation of R, G and B in [0, 1] by which the weights expect images divided."""

    traces_any_size: bool = True
    """Whether ``torch.export`` can trace it for images of any size."""

    compiles: bool = True
    """Whether ``torch.compile`` gives the gradients that PyTorch gives without it."""

    checkpointing: bool = False
    """Whether to keep only the input of each stage for the backward pass, which computes the stage
    again: less memory, more time, the same gradients."""

    def __init__(self, width: float = 1.0, norm: str = "group"):
        super().__init__()
        if norm not in self.NORMS:
            raise InputError(
                f"model.norm is {norm!r}, but {type(self).__name__} has {', '.join(self.NORMS)}"
            )

    @classmethod
    def build(
        cls, name: str, width: float, norm: str, config: Mapping[str, Any] | None = None
    ) -> "Trunk":
        """Make the trunk of a task network.

        Args:
            name: ``model.backbone``.
            width: see the class.
            norm: see the class.
            config: ``model.trunk_config``, for trunks whose architecture is not in their name.
        """
        return cls(width, norm)

    @property
    def scales(self) -> tuple[tuple[int, int], ...]:
        """(stride, channels) of each feature map, finest first."""
        return ((8, self.out_channels),)

    def pyramid(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the feature maps of ``scales``; see ``forward`` for the image."""
        return (self(x),)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the features of a trunk of one scale.

        Args:
            x: float32 [N, 3, H, W] RGB, channels-last, normalised with ``mean`` and ``std``.
                Autocast may be on.

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

    def blocks(self) -> Sequence[Sequence[nn.Module]]:
        """Groups of modules that make up the trunk's depth, from the image to the features.

        ``optimiser.layer_decay`` counts them.
        """
        raise InputError(
            f"{type(self).__name__} does not name its blocks, which model.task_checkpointing and "
            "optimiser.layer_decay need: leave them out"
        )

    def stages(self) -> Sequence[Sequence[nn.Module]]:
        """The same modules in the groups that ``checkpointing`` computes again, one at a time.

        By default the blocks. Larger groups keep fewer inputs, but all tensors of one group at once
        while it is computed again.
        """
        return self.blocks()

    def enable_checkpointing(self) -> None:
        """Set ``checkpointing``; the default suits trunks whose ``forward`` calls ``run``."""
        self.stages()
        self.checkpointing = True

    def run(self, stage: Sequence[nn.Module], x: Tensor) -> Tensor:
        """Apply the modules of a stage one after the other."""
        out: Tensor = recomputed(_apply, stage, x) if self.checkpointing else _apply(stage, x)
        return out


def _apply(modules: Sequence[nn.Module], x: Tensor) -> Tensor:
    for module in modules:
        x = module(x)
    return x
