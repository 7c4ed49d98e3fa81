"""The ops as modules: each gives what its op gives, and what PyTorch's module gives."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gioada_fast import ops

LOGITS = (2, 5, 3, 4)


def maps():
    """Logits and depth [N, C, h, w], labels [N, H, W] and a target depth."""
    labels = torch.randint(0, 5, (2, 9, 13))
    labels[:, :2] = 255
    return torch.randn(LOGITS), torch.rand(2, 1, 3, 4) + 0.5, labels, torch.rand(2, 1, 9, 13) + 0.5


CASES = {
    "UpsampleCrossEntropy": (
        lambda: ops.UpsampleCrossEntropy(torch.rand(5), reduction="sum", align_corners=False),
        lambda m, x, d, y, t: m(x, y),
        lambda m, x, d, y, t: ops.upsample_cross_entropy(
            x, y, weight=m.weight, reduction="sum", align_corners=False
        ),
    ),
    "UpsampleDepthLoss": (
        lambda: ops.UpsampleDepthLoss("silog", silog_lambda=0.85),
        lambda m, x, d, y, t: m(d, t, t > 0.7),
        lambda m, x, d, y, t: ops.upsample_depth_loss(d, t, "silog", t > 0.7, silog_lambda=0.85),
    ),
    "SemanticDepthConcat": (
        lambda: ops.SemanticDepthConcat(scale_factor=2.5, align_corners=False),
        lambda m, x, d, y, t: m(x, d),
        lambda m, x, d, y, t: ops.semantic_depth_concat(
            x, d, scale_factor=2.5, align_corners=False
        ),
    ),
    "UpsampleArgmax": (
        lambda: ops.UpsampleArgmax((9, 13), dtype=torch.uint8),
        lambda m, x, d, y, t: m(x),
        lambda m, x, d, y, t: ops.upsample_argmax(x, (9, 13), dtype=torch.uint8),
    ),
    "UpsampleConfusionMatrix": (
        lambda: ops.UpsampleConfusionMatrix(ignore_index=255, align_corners=False),
        lambda m, x, d, y, t: m(x, y),
        lambda m, x, d, y, t: ops.upsample_confusion_matrix(x, y, 255, align_corners=False),
    ),
    "InstanceNormAct": (
        lambda: ops.InstanceNormAct(5, affine=True, activation="leaky_relu", pad=1),
        lambda m, x, d, y, t: m(x, x),
        lambda m, x, d, y, t: ops.instance_norm_act(
            x, "leaky_relu", residual=x, pad=1, weight=m.weight, bias=m.bias
        ),
    ),
    "GANLoss": (
        lambda: ops.GANLoss("hinge"),
        lambda m, x, d, y, t: m([x, d], True, generator=True),
        lambda m, x, d, y, t: ops.gan_loss([x, d], True, "hinge", True),
    ),
    "TranslationInput": (
        lambda: ops.TranslationInput(5, torch.bfloat16),
        lambda m, x, d, y, t: m((t * 100).byte().expand(2, 3, 9, 13), t, y),
        lambda m, x, d, y, t: ops.translation_input(
            (t * 100).byte().expand(2, 3, 9, 13), t, y, 5, torch.bfloat16
        ),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_module_calls_its_op(name):
    make, call, function = CASES[name]
    module = make()
    inputs = maps()
    assert torch.equal(call(module, *inputs), function(module, *inputs))
    again = copy.deepcopy(module)
    again.load_state_dict(module.state_dict())
    assert torch.equal(call(again, *inputs), function(module, *inputs))
    for option, value in module.options.items():
        assert f"{option}={value!r}" in repr(module)


def test_every_op_has_a_module():
    from gioada_fast.ops import modules

    used = {name for name in ops.registered() if not name.endswith("_backward")}
    assert used <= set(vars(modules))


def test_cross_entropy_is_pytorchs_after_upsample():
    logits, _, labels, _ = maps()
    weight = torch.rand(5)
    options = dict(weight=weight, ignore_index=255, label_smoothing=0.1)
    for align_corners in (True, False):
        ours = ops.UpsampleCrossEntropy(**options, align_corners=align_corners)
        upsample = nn.Upsample((9, 13), mode="bilinear", align_corners=align_corners)
        theirs = nn.CrossEntropyLoss(**options)
        torch.testing.assert_close(ours(logits, labels), theirs(upsample(logits), labels))
        assert ours.state_dict().keys() == theirs.state_dict().keys()


def test_group_norm_loads_pytorchs_weights():
    theirs = nn.GroupNorm(2, 6)
    nn.init.normal_(theirs.weight)
    nn.init.normal_(theirs.bias)
    ours = ops.GroupNormAct(2, 6, activation="silu")
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 6, 5, 7)
    torch.testing.assert_close(ours(x), F.silu(theirs(x)), rtol=1e-5, atol=1e-6)
    assert nn.InstanceNorm2d(6).state_dict().keys() == ops.InstanceNormAct(6).state_dict().keys()


def test_modules_train_under_compile():
    torch.compiler.reset()
    net = nn.Sequential(ops.InstanceNormAct(5, affine=True, pad=1), nn.Conv2d(5, 5, 3))
    loss = ops.UpsampleCrossEntropy(align_corners=False, label_smoothing=0.1)

    def step(x, y):
        return loss(net(x), y)

    logits, _, labels, _ = maps()
    step(logits, labels).backward()
    eager = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    torch.compile(step, fullgraph=True, backend="aot_eager")(logits, labels).backward()
    for p, expected in zip(net.parameters(), eager, strict=True):
        torch.testing.assert_close(p.grad, expected)
