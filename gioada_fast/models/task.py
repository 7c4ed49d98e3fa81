"""The task network G_task, which predicts segmentation and depth from an image."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from .heads import DECODERS, AtrousHead, Decoder, atrous_heads, classifier
from .layers import recomputed
from .trunks import Trunk, trunk_class

HEADS = ("deeplab", *DECODERS)
"""Values of ``model.head``."""


class TaskNet(nn.Module):
    """A trunk with heads for segmentation and depth.

    With ``deeplab`` this is DeepLab-v2: two heads on the features of a trunk of output stride 8.
    With the other heads, a decoder fuses all feature maps of the trunk, and the output stride is
    about 4 for most trunks.

    Args:
        num_classes: C.
        backbone: a key of ``trunks.TRUNKS``.
        width: factor on the trunk's channels.
        norm: one of the trunk's ``NORMS``.
        trunk_config: architecture of a trunk whose name does not say it, see ``Trunk.build``.
        head: one of ``HEADS``. None: deeplab for a trunk of one scale and stride 8, otherwise
            segformer.
        head_channels: channels of the decoder, a multiple of 8; no effect on deeplab.
        checkpointing: keep only the inputs of the trunk's stages and of the heads for the backward
            pass, which computes them again: less memory, more time, the same gradients.

    Source: Chen et al. (arXiv 1606.00915); the decoders name their own.
    """

    input_scale: Tensor
    input_shift: Tensor

    def __init__(
        self,
        num_classes: int,
        backbone: str = "vgg16",
        width: float = 1.0,
        norm: str = "group",
        trunk_config: Mapping[str, Any] | None = None,
        head: str | None = None,
        head_channels: int = 256,
        checkpointing: bool = False,
    ):
        super().__init__()
        self.trunk: Trunk = trunk_class(backbone).build(backbone, width, norm, trunk_config)
        self.checkpointing = checkpointing
        if checkpointing:
            self.trunk.enable_checkpointing()
        is_dense = [stride for stride, _ in self.trunk.scales] == [8]
        self.head = head or ("deeplab" if is_dense else "segformer")
        self.decoder: Decoder | None = None
        self.segmentation: nn.Module
        self.depth: nn.Module
        if self.head != "deeplab":
            self.decoder = DECODERS[self.head](self.trunk.scales, head_channels)
            self.segmentation = classifier(head_channels, num_classes)
            self.depth = classifier(head_channels, 1)
        elif is_dense:
            self.segmentation = AtrousHead(self.trunk.scales[0][1], num_classes)
            self.depth = AtrousHead(self.trunk.scales[0][1], 1)
        else:
            strides = ", ".join(str(stride) for stride, _ in self.trunk.scales)
            raise InputError(
                f"model.head is deeplab, which needs features of stride 8 alone; {backbone} has "
                f"strides {strides}: set model.head to {' or '.join(DECODERS)}"
            )
        mean = torch.tensor(self.trunk.mean).view(1, 3, 1, 1)
        std = torch.tensor(self.trunk.std).view(1, 3, 1, 1)
        # ((x + 1) / 2 - mean) / std as one multiplication and addition
        self.register_buffer("input_scale", 0.5 / std, persistent=False)
        self.register_buffer("input_shift", (0.5 - mean) / std, persistent=False)

    @property
    def neutral(self) -> Tensor:
        """[1, 3, 1, 1]: the colour, in [-1, 1], that the trunk sees as 0: the mean of its data."""
        return -self.input_shift / self.input_scale

    def head_parameters(self) -> list[nn.Parameter]:
        """All weights but the trunk's."""
        decoder = [] if self.decoder is None else [*self.decoder.parameters()]
        return [*decoder, *self.segmentation.parameters(), *self.depth.parameters()]

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Predict segmentation and depth.

        Images whose size is no multiple of the trunk's ``size_multiple`` (the patch size of a
        vision transformer, the largest stride of the others) are padded at the bottom and the right
        with the mean colour. The output is cut to the part that shows the image.

        Args:
            image: [N, 3, H, W] in [-1, 1].

        Returns:
            (logits [N, C, h, w], encoded depth [N, 1, h, w]), h and w about H / s and W / s, where
            s is the output stride: 8 for ``deeplab``, otherwise the trunk's finest stride, or a
            quarter of it if that is above 8.
        """
        x = image * self.input_scale + self.input_shift
        (height, width), multiple = image.shape[2:], self.trunk.size_multiple
        padding = (-width % multiple, -height % multiple)
        if any(padding):
            x = F.pad(x, (0, padding[0], 0, padding[1]))
        maps = self.trunk.pyramid(x.contiguous(memory_format=torch.channels_last))
        logits, depth = recomputed(self._heads, *maps) if self.checkpointing else self._heads(*maps)
        if any(padding):
            h = -(-height * logits.shape[2] // x.shape[2])
            w = -(-width * logits.shape[3] // x.shape[3])
            logits, depth = logits[:, :, :h, :w], depth[:, :, :h, :w]
        return logits, depth

    def _heads(self, *maps: Tensor) -> tuple[Tensor, Tensor]:
        if self.decoder is not None:
            fused = self.decoder(maps)
            return self.segmentation(fused), self.depth(fused)
        assert isinstance(self.segmentation, AtrousHead) and isinstance(self.depth, AtrousHead)
        logits, depth = atrous_heads(maps[0], (self.segmentation, self.depth))
        return logits, depth
