"""The ops as ``torch.nn.Module``, with the argument names of PyTorch's own modules.

Each holds the options of one op and calls it; see the op for shapes, dtypes and errors.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gioada_fast.ops.gan_loss import gan_loss
from gioada_fast.ops.instance_norm_act import instance_norm_act
from gioada_fast.ops.semantic_depth_concat import semantic_depth_concat
from gioada_fast.ops.translation_input import translation_input
from gioada_fast.ops.upsample_argmax import upsample_argmax
from gioada_fast.ops.upsample_confusion_matrix import upsample_confusion_matrix
from gioada_fast.ops.upsample_cross_entropy import upsample_cross_entropy
from gioada_fast.ops.upsample_depth_loss import upsample_depth_loss


class _WithOptions(nn.Module):
    """A module that passes ``self.options`` to its op as keyword arguments."""

    def __init__(self, **options):
        super().__init__()
        self.options = options

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items())


class UpsampleCrossEntropy(_WithOptions):
    """``nn.CrossEntropyLoss`` of bilinearly upsampled logits: ``upsample_cross_entropy``.

    Args:
        weight: [C] weight of each class; a buffer, as in ``nn.CrossEntropyLoss``.
        ignore_index: label of pixels that do not count.
        reduction: "mean", "sum" or "none".
        label_smoothing: from 0 to 1.
        align_corners: as in ``nn.Upsample``.
        mean_over: "valid" or "all" pixels.
    """

    weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        ignore_index: int = 255,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        align_corners: bool = True,
        mean_over: str = "valid",
    ):
        super().__init__(
            ignore_index=ignore_index,
            reduction=reduction,
            label_smoothing=label_smoothing,
            align_corners=align_corners,
            mean_over=mean_over,
        )
        self.register_buffer("weight", weight)

    def forward(self, logits: Tensor, labels: Tensor, pixel_weight: Tensor | None = None) -> Tensor:
        """Loss of logits [N, C, h, w] against labels [N, H, W]."""
        return upsample_cross_entropy(
            logits, labels, weight=self.weight, pixel_weight=pixel_weight, **self.options
        )


class UpsampleDepthLoss(_WithOptions):
    """Loss of bilinearly upsampled depth: ``upsample_depth_loss``.

    Args:
        kind: "l1", "berhu", "l2" or "silog".
        reduction: "mean", "sum" or "none".
        align_corners: as in ``nn.Upsample``.
        silog_lambda: weight of the squared mean in "silog".
    """

    def __init__(
        self,
        kind: str = "l1",
        reduction: str = "mean",
        align_corners: bool = True,
        silog_lambda: float = 0.5,
    ):
        super().__init__(
            kind=kind,
            reduction=reduction,
            align_corners=align_corners,
            silog_lambda=silog_lambda,
        )

    def forward(
        self,
        depth: Tensor,
        target: Tensor,
        valid: Tensor | None = None,
        pixel_weight: Tensor | None = None,
    ) -> Tensor:
        """Loss of depth [N, 1, h, w] against target [N, 1, H, W]."""
        return upsample_depth_loss(
            depth, target, valid=valid, pixel_weight=pixel_weight, **self.options
        )


class SemanticDepthConcat(_WithOptions):
    """Upsampled class probabilities and depth in one map: ``semantic_depth_concat``.

    Args:
        size: (H, W) of the result; or
        scale_factor: its ratio to the size of the logits, one number or (vertical, horizontal).
        align_corners: as in ``nn.Upsample``.
    """

    def __init__(
        self,
        size: tuple[int, int] | None = None,
        scale_factor: float | tuple[float, float] | None = None,
        align_corners: bool = True,
    ):
        super().__init__(size=size, scale_factor=scale_factor, align_corners=align_corners)

    def forward(self, logits: Tensor, depth: Tensor | None = None) -> Tensor:
        """[N, C + 1, H, W] from logits [N, C, h, w] and depth [N, 1, h, w]."""
        return semantic_depth_concat(logits, depth, **self.options)


class UpsampleArgmax(_WithOptions):
    """Predictions at full size: ``upsample_argmax``.

    Args:
        size: (H, W) of the result.
        align_corners: as in ``nn.Upsample``.
        dtype: ``torch.int64`` or ``torch.uint8``.
    """

    def __init__(
        self,
        size: tuple[int, int],
        align_corners: bool = True,
        dtype: torch.dtype = torch.int64,
    ):
        super().__init__(size=size, align_corners=align_corners, dtype=dtype)

    def forward(self, logits: Tensor) -> Tensor:
        """Classes [N, H, W] of logits [N, C, h, w]."""
        return upsample_argmax(logits, **self.options)


class UpsampleConfusionMatrix(_WithOptions):
    """Counts of (label, prediction): ``upsample_confusion_matrix``.

    Args:
        ignore_index: label of pixels that do not count.
        align_corners: as in ``nn.Upsample``.
    """

    def __init__(self, ignore_index: int = 255, align_corners: bool = True):
        super().__init__(ignore_index=ignore_index, align_corners=align_corners)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Counts [C, C] of logits [N, C, h, w] against labels [N, H, W]."""
        return upsample_confusion_matrix(logits, labels, **self.options)


class _NormAct(_WithOptions):
    def __init__(self, channels: int, affine: bool, **options):
        super().__init__(**options)
        if affine:
            self.weight = nn.Parameter(torch.ones(channels))
            self.bias = nn.Parameter(torch.zeros(channels))
        else:
            self.register_parameter("weight", None)
            self.register_parameter("bias", None)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """[N, C, H + 2 pad, W + 2 pad] from x [N, C, H, W]."""
        return instance_norm_act(
            x, residual=residual, weight=self.weight, bias=self.bias, **self.options
        )


class InstanceNormAct(_NormAct):
    """``nn.InstanceNorm2d``, activation, residual and padding: ``instance_norm_act``.

    Args:
        num_features: number of channels C.
        eps: added to the variance.
        affine: whether each channel has a weight and a bias.
        activation: "none", "relu", "leaky_relu", "silu" or "gelu".
        negative_slope: of "leaky_relu".
        pad: width of the reflection padding, in pixels.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        affine: bool = False,
        activation: str = "relu",
        negative_slope: float = 0.2,
        pad: int = 0,
    ):
        super().__init__(
            num_features,
            affine,
            activation=activation,
            negative_slope=negative_slope,
            pad=pad,
            eps=eps,
        )


class GroupNormAct(_NormAct):
    """``nn.GroupNorm``, activation, residual and padding: ``instance_norm_act`` with groups.

    Args:
        num_groups: number of groups; divides ``num_channels``.
        num_channels: number of channels C.
        eps: added to the variance.
        affine: whether each channel has a weight and a bias.
        activation: "none", "relu", "leaky_relu", "silu" or "gelu".
        negative_slope: of "leaky_relu".
        pad: width of the reflection padding, in pixels.
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        activation: str = "relu",
        negative_slope: float = 0.2,
        pad: int = 0,
    ):
        super().__init__(
            num_channels,
            affine,
            groups=num_groups,
            activation=activation,
            negative_slope=negative_slope,
            pad=pad,
            eps=eps,
        )


class GANLoss(_WithOptions):
    """Mean loss of discriminator logits against real or fake: ``gan_loss``.

    Args:
        kind: "lsgan", "bce" or "hinge".
    """

    def __init__(self, kind: str = "lsgan"):
        super().__init__(kind=kind)

    def forward(
        self,
        logits: Tensor | Sequence[Tensor],
        real: bool | Sequence[bool],
        generator: bool = False,
    ) -> Tensor:
        """[K] means of K maps; ``generator`` is True on the generator's side."""
        return gan_loss(logits, real, generator=generator, **self.options)


class TranslationInput(_WithOptions):
    """Input of the translation network: ``translation_input``.

    Args:
        num_classes: number of classes C.
        dtype: of the result.
    """

    def __init__(self, num_classes: int, dtype: torch.dtype = torch.float32):
        super().__init__(num_classes=num_classes, dtype=dtype)

    def forward(self, image: Tensor, depth: Tensor, labels: Tensor) -> Tensor:
        """[N, 4 + C, H, W] from image uint8 [N, 3, H, W], depth [N, 1, H, W], labels [N, H, W]."""
        return translation_input(image, depth, labels, **self.options)
