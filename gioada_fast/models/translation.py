"""The translation network G_img: synthetic image, depth and semantics to a real-looking image."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..ops import translation_input
from .layers import InstanceNormAct, channels, interior, normalise


class TranslationNet(nn.Module):
    """ResNet generator of CycleGAN, guided by geometry.

    7x7 convolution, two of stride 2, residual blocks, two upsamplings, 7x7, tanh; instance norm and
    reflection padding throughout. The result is ``tanh(f(input) + atanh(x_s))`` and the last
    convolution starts at zero: an untrained network translates nothing, so that a task network
    trained on the source goes on where it was, and what is learned is the change from source to
    target.

    Args:
        num_classes: C, the channels of the one-hot labels.
        geometry: whether depth and semantics are seen; without them the input is the image alone.
        width: factor on the 64 base channels.
        blocks: residual blocks.
        checkpointing: keep only the input of each residual block for the backward pass, which
            computes the block again.

    Source: Johnson et al. (arXiv 1603.08155), Zhu et al. (arXiv 1703.10593); the input of depth and
    semantics is GIO-Ada's (arXiv 1812.05040), section on input-level adaptation.
    """

    def __init__(
        self,
        num_classes: int,
        geometry: bool = True,
        width: float = 1.0,
        blocks: int = 9,
        checkpointing: bool = False,
    ):
        super().__init__()
        self.checkpointing = checkpointing
        self.num_classes = num_classes
        self.geometry = geometry
        c1, c2, c4 = (channels(base, width) for base in (64, 128, 256))
        in_channels = 3 + (1 + num_classes if geometry else 0)
        # every norm pads for the convolution that follows it
        self.encoder = nn.Sequential(
            nn.ReflectionPad2d(3),
            *_conv_norm_relu(nn.Conv2d(in_channels, c1, 7)),
            *_conv_norm_relu(nn.Conv2d(c1, c2, 3, stride=2, padding=1)),
            *_conv_norm_relu(nn.Conv2d(c2, c4, 3, stride=2, padding=1), pad=1 if blocks else 0),
        )
        self.blocks = nn.Sequential(
            *(ResidualBlock(c4, pad=1 if i < blocks - 1 else 0) for i in range(blocks))
        )
        self.up1 = nn.Sequential(*_conv_norm_relu(nn.Conv2d(c4, c2, 3, padding=1)))
        self.up2 = nn.Sequential(*_conv_norm_relu(nn.Conv2d(c2, c1, 3, padding=1), pad=3))
        self.to_image = nn.Conv2d(c1, 3, 7)
        assert self.to_image.bias is not None
        nn.init.zeros_(self.to_image.weight)
        nn.init.zeros_(self.to_image.bias)

    def forward(
        self,
        image: Tensor,
        depth: Tensor | None = None,
        labels: Tensor | None = None,
        x_s: Tensor | None = None,
    ) -> Tensor:
        """Translate.

        Args:
            image: uint8 [N, 3, H, W].
            depth: [N, 1, H, W] encoded; needed with ``geometry``.
            labels: [N, H, W] train ids, uint8 or int64; ignored pixels have no class.
            x_s: ``normalise(image)``, where the caller has it already.

        Returns:
            [N, 3, H, W] float32 in (-1, 1).
        """
        x = x_s = normalise(image) if x_s is None else x_s
        if self.geometry:
            if depth is None or labels is None:
                raise ValueError("depth, labels: None, but the network was built with geometry")
            dtype = _compute_dtype(image.device)
            x = translation_input(image, depth, labels, self.num_classes, dtype)
        half = (image.shape[2] + 1) // 2, (image.shape[3] + 1) // 2
        x = self.encoder(x)
        for block in self.blocks:
            if self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False, preserve_rng_state=False)
            else:
                x = block(x)
        # nearest upsampling to the encoder's own sizes, so that odd sizes come back as they were
        x = self.up1(F.interpolate(x, size=half, mode="nearest"))
        x = self.up2(F.interpolate(x, size=image.shape[2:], mode="nearest"))
        change = self.to_image(x).float()
        # 0.999 keeps atanh and its gradient finite where the image is black or white
        return torch.tanh(change + torch.atanh(x_s * 0.999))


class ResidualBlock(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))), each 3x3 with reflection padding.

    The input is x padded by 1, the output padded by ``pad``: 1 for another block.
    """

    def __init__(self, c: int, pad: int):
        super().__init__()
        self.conv1 = nn.Conv2d(c, c, 3)
        self.norm1 = InstanceNormAct("relu", pad=1)
        self.conv2 = nn.Conv2d(c, c, 3)
        self.norm2 = InstanceNormAct("none", pad=pad)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(self.conv1(x))
        return self.norm2(self.conv2(y), residual=interior(x, 1))


def _compute_dtype(device: torch.device) -> torch.dtype:
    """What the first convolution computes in."""
    if torch.is_autocast_enabled(device.type):
        return torch.get_autocast_dtype(device.type)
    return torch.float32


def _conv_norm_relu(conv: nn.Conv2d, pad: int = 0) -> tuple[nn.Module, ...]:
    return conv, InstanceNormAct("relu", pad)
