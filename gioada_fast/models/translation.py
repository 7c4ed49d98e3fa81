"""The translation network G_img, which makes a synthetic image look real."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..ops import translation_input
from .layers import (
    InstanceNormAct,
    PixelShuffleConv2d,
    UpsamplingConv2d,
    channels,
    interior,
    normalise,
    recomputed,
)


class TranslationNet(nn.Module):
    """ResNet generator of CycleGAN, guided by depth and semantics.

    A 7x7 convolution, two convolutions of stride 2, residual blocks, two upsamplings, a 7x7
    convolution and tanh, with instance norm and reflection padding. f learns the change from source
    to target. The output is

        logit:     tanh(f(input) + atanh(x_s))
        fraction:  x_s + t (1 - x_s) where t = tanh(f(input)) > 0, x_s + t (1 + x_s) elsewhere

    The slope of logit at f = 0 is 1 - x_s^2, and so nearly 0 at white and black; that of fraction
    is 1 + |x_s| towards grey. The last convolution starts at zero: an untrained network returns its
    input, and a task network that was trained on the source sees no sudden change when the
    adaptation begins.

    Args:
        num_classes: C, the number of channels of the one-hot labels.
        geometry: whether the input has depth and semantics beside the image.
        width: factor on the 64 base channels.
        blocks: number of residual blocks.
        checkpointing: keep only the input of each residual block for the backward pass, which
            computes the block again.
        normals: whether the input has surface normals, too; only with ``geometry``.
        change: ``logit`` or ``fraction``, see above.

    Source: Johnson et al. (arXiv 1603.08155), Zhu et al. (arXiv 1703.10593). Depth and semantics in
    the input come from GIO-Ada (arXiv 1812.05040), section on input-level adaptation.
    """

    def __init__(
        self,
        num_classes: int,
        geometry: bool = True,
        width: float = 1.0,
        blocks: int = 9,
        checkpointing: bool = False,
        normals: bool = False,
        change: str = "logit",
    ):
        super().__init__()
        if change not in ("logit", "fraction"):
            raise ValueError(f"change is {change!r}, expected logit or fraction")
        self.change = change
        self.checkpointing = checkpointing
        self.num_classes = num_classes
        self.geometry = geometry
        self.normals = geometry and normals
        c1, c2, c4 = (channels(base, width) for base in (64, 128, 256))
        in_channels = 3 + (1 + num_classes if geometry else 0) + (3 if self.normals else 0)
        # each norm adds the padding of the next convolution
        self.encoder = nn.Sequential(
            nn.ReflectionPad2d(3),
            *_conv_norm_relu(nn.Conv2d(in_channels, c1, 7)),
            *_conv_norm_relu(nn.Conv2d(c1, c2, 3, stride=2, padding=1)),
            *_conv_norm_relu(nn.Conv2d(c2, c4, 3, stride=2, padding=1), pad=1 if blocks else 0),
        )
        self.blocks = nn.Sequential(
            *(ResidualBlock(c4, pad=1 if i < blocks - 1 else 0) for i in range(blocks))
        )
        self.up1 = Upsampling(*_conv_norm_relu(UpsamplingConv2d(c4, c2)))
        self.up2 = Upsampling(*_conv_norm_relu(UpsamplingConv2d(c2, c1), pad=3))
        self.to_image = PixelShuffleConv2d(c1, 3, 7)
        assert self.to_image.bias is not None
        nn.init.zeros_(self.to_image.weight)
        nn.init.zeros_(self.to_image.bias)

    def forward(
        self,
        image: Tensor,
        depth: Tensor | None = None,
        labels: Tensor | None = None,
        x_s: Tensor | None = None,
        normals: Tensor | None = None,
    ) -> Tensor:
        """Translate source images.

        Args:
            image: uint8 [N, 3, H, W].
            depth: [N, 1, H, W] encoded; required with ``geometry``.
            labels: [N, H, W] train ids, uint8 or int64, 255 ignored; required with ``geometry``.
            x_s: ``normalise(image)`` if the caller has computed it already.
            normals: float32 [N, 3, H, W], result of ``surface_normals``; required with ``normals``.

        Returns:
            [N, 3, H, W] float32 in [-1, 1].
        """
        x = x_s = normalise(image) if x_s is None else x_s
        if self.geometry:
            if depth is None or labels is None:
                raise ValueError("depth or labels is None: a network with geometry needs both")
            dtype = _compute_dtype(image.device)
            x = translation_input(image, depth, labels, self.num_classes, dtype)
        if self.normals:
            if normals is None:
                raise ValueError("normals is None: a network with normals needs them")
            x = torch.cat([x, normals.to(x.dtype)], dim=1)
        half = (image.shape[2] + 1) // 2, (image.shape[3] + 1) // 2
        x = self.encoder(x)
        for block in self.blocks:
            x = recomputed(block, x, random=False) if self.checkpointing else block(x)
        # to the sizes in the encoder, which may be odd
        x = self.up1(x, half)
        x = self.up2(x, image.shape[2:])
        change = self.to_image(x).float()
        if self.change == "fraction":
            t = torch.tanh(change)
            return x_s + t * torch.where(t > 0, 1 - x_s, 1 + x_s)
        # 0.999 keeps atanh finite where the image is black or white
        return torch.tanh(change + torch.atanh(x_s * 0.999))


class ResidualBlock(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))) with 3x3 convolutions and reflection padding.

    The input is x padded by 1 pixel. The output is padded by ``pad``: 1 if another block follows.
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


class Upsampling(nn.Sequential):
    """An ``UpsamplingConv2d`` to a given size, and the norm after it."""

    def forward(self, input: Tensor, size: Sequence[int] | None = None) -> Tensor:
        conv, norm = self
        out: Tensor = norm(conv(input, size))
        return out


def _compute_dtype(device: torch.device) -> torch.dtype:
    """Dtype in which the first convolution computes."""
    if torch.is_autocast_enabled(device.type):
        return torch.get_autocast_dtype(device.type)
    return torch.float32


def _conv_norm_relu(conv: nn.Conv2d, pad: int = 0) -> tuple[nn.Module, ...]:
    return conv, InstanceNormAct("relu", pad)
