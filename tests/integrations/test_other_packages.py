"""The changes that ``docs/ops.md`` shows for other packages, against the lines that they replace.

The packages are not installed: each test has their published lines, reduced to plain PyTorch.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gioada_fast import ops

CLASSES = 7


@pytest.fixture
def logits() -> Tensor:
    return torch.randn(2, CLASSES, 12, 16, requires_grad=True)


@pytest.fixture
def labels() -> Tensor:
    labels = torch.randint(0, CLASSES, (2, 48, 64))
    labels[torch.rand(labels.shape) < 0.1] = 255
    return labels


def assert_agree(loss: Tensor, expected: Tensor, logits: Tensor) -> None:
    """Assert that the losses and their gradients are equal within rounding."""
    torch.testing.assert_close(loss, expected)
    grads = [torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (loss, expected)]
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("avg_non_ignore", [False, True])
def test_mmsegmentation(logits, labels, align_corners, avg_non_ignore):
    # BaseDecodeHead.loss_by_feat and losses/cross_entropy_loss.py, version 1.2.2
    z = F.interpolate(logits, labels.shape[1:], mode="bilinear", align_corners=align_corners)
    per_pixel = F.cross_entropy(z, labels, reduction="none", ignore_index=255)
    valid = labels.numel() - (labels == 255).sum().item()
    expected = 0.4 * per_pixel.sum() / (valid if avg_non_ignore else labels.numel())
    loss = 0.4 * ops.upsample_cross_entropy(
        logits,
        labels[:, None],
        255,
        align_corners=align_corners,
        mean_over="valid" if avg_non_ignore else "all",
    )
    assert_agree(loss, expected, logits)


def test_mmsegmentation_class_weights(logits, labels):
    weight = torch.linspace(0.5, 1.5, CLASSES)
    z = F.interpolate(logits, labels.shape[1:], mode="bilinear", align_corners=False)
    per_pixel = F.cross_entropy(z, labels, weight, reduction="none", ignore_index=255)
    label_weights = weight[labels.clamp(max=CLASSES - 1)].masked_fill(labels == 255, 0)
    expected = per_pixel.sum() / label_weights.sum()
    loss = ops.upsample_cross_entropy(logits, labels, 255, weight, align_corners=False)
    assert_agree(loss, expected, logits)


def test_segmentation_models_pytorch(logits, labels):
    # base/heads.py, version 0.6.0
    upsampling = torch.nn.Upsample(mode="bilinear", scale_factor=4, align_corners=True)
    expected = F.cross_entropy(upsampling(logits), labels, ignore_index=255)
    assert_agree(ops.upsample_cross_entropy(logits, labels, 255), expected, logits)


def test_segmentation_models_pytorch_soft_cross_entropy(logits, labels):
    # losses/_functional.py, label_smoothed_nll_loss, version 0.6.0
    z = F.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=True)
    log_p, target = F.log_softmax(z, 1), labels[:, None]
    ignored = target == 255
    nll = -log_p.gather(1, target.masked_fill(ignored, 0)).masked_fill(ignored, 0)
    smooth = -log_p.sum(1, keepdim=True).masked_fill(ignored, 0)
    expected = 0.9 * nll.mean() + 0.1 / CLASSES * smooth.mean()
    loss = ops.upsample_cross_entropy(logits, labels, 255, label_smoothing=0.1, mean_over="all")
    assert_agree(loss, expected, logits)


def test_detectron2(logits, labels):
    # modeling/meta_arch/semantic_seg.py, SemSegFPNHead.losses
    z = F.interpolate(logits.float(), scale_factor=4, mode="bilinear", align_corners=False)
    expected = 0.5 * F.cross_entropy(z, labels, reduction="mean", ignore_index=255)
    loss = 0.5 * ops.upsample_cross_entropy(logits, labels, 255, align_corners=False)
    assert_agree(loss, expected, logits)


def test_torchvision(logits, labels):
    # models/segmentation/_utils.py and criterion of references/segmentation/train.py
    small = {"out": logits, "aux": 2 * logits.flip(1)}
    full = {
        name: F.interpolate(z, size=labels.shape[1:], mode="bilinear", align_corners=False)
        for name, z in small.items()
    }
    losses = {name: F.cross_entropy(z, labels, ignore_index=255) for name, z in full.items()}
    expected = losses["out"] + 0.5 * losses["aux"]
    loss = sum(
        weight * ops.upsample_cross_entropy(small[name], labels, 255, align_corners=False)
        for name, weight in (("out", 1.0), ("aux", 0.5))
    )
    assert_agree(loss, expected, logits)
