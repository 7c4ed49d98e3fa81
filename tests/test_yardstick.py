"""The yardstick must compute the same as our step, otherwise comparing times is meaningless."""

import itertools
from dataclasses import replace

import pytest
import torch

from benchmarks.yardstick import NETWORKS, Yardstick
from gioada_fast.adaptation import Batch, TwoLevelAdaptation
from gioada_fast.config import AdaptationConfig, Config, ModelConfig
from gioada_fast.engine.step import Step

from .miniature import SMALL_MODEL

CLASSES = 4
ROWS = list(itertools.product(("none", "image", "geometry"), ("none", "semantics", "joint")))

# Tolerance relative to the norm of a weight's gradient. Rounding alone gives differences of 1e-5.
# But if an input of a ReLU is within rounding of 0, or two values in a pooling window are within
# rounding of each other, rounding decides where the gradient goes. In networks as narrow as these,
# one such pixel has caused a difference of 1e-2. In float64, where no values are that close, the
# same networks agree to 1e-6, the precision of the target depth.
RTOL = 3e-2


def make(input_level="geometry", output_level="joint", model=None, **settings):
    """Networks and a batch, with weights that make all terms of similar size."""
    torch.manual_seed(0)
    levels = {"lambda_depth": 1.0, "lambda_img": 1.0, "lambda_out": 1.0}
    levels |= {"keep_half_untranslated": False, **settings}
    config = Config(
        model=ModelConfig(**{**SMALL_MODEL, **(model or {})}),
        adaptation=AdaptationConfig(input_level, output_level, **levels),
    )
    adaptation = TwoLevelAdaptation(CLASSES, config.adaptation, config.model)
    adaptation.class_weights = torch.tensor([1.0, 2.0, 0.5, 0.8])
    if adaptation.translation is not None:  # it starts at zero, which stops the gradient
        torch.nn.init.normal_(adaptation.translation.to_image.weight, std=0.02)
    for name, buffer in adaptation.named_buffers():  # make batch norm differ from the identity
        if name.endswith(("weight", "bias", "running_mean", "running_var")):
            buffer.add_(0.1 * torch.rand_like(buffer))
    images = torch.randint(0, 256, (2, 2, 3, 64, 96), dtype=torch.uint8)
    labels = torch.randint(0, CLASSES, (2, 64, 96), dtype=torch.uint8)
    labels[:, :4] = 255
    depth = torch.rand(2, 1, 64, 96) * 100
    depth[:, :, :, :8] = 0
    return config, adaptation, Batch(images[0], labels, depth, images[1])


def assert_losses_agree(ours, theirs, rtol=1e-5):
    assert ours.keys() == theirs.keys()
    for name, loss in ours.items():
        assert loss.item() == pytest.approx(theirs[name], rel=rtol), name


@pytest.mark.parametrize(("input_level", "output_level"), ROWS)
def test_losses_and_gradients_agree_with_our_step(input_level, output_level):
    config, adaptation, batch = make(input_level, output_level)
    yardstick = Yardstick(adaptation, config)
    present = {name for name in NETWORKS if getattr(adaptation, name) is not None}
    assert set(yardstick.networks) == present
    ours = Step(adaptation, {}, "fp32").gradients([batch])
    assert_losses_agree(ours, yardstick.gradients(yardstick.load(batch)))
    yardstick.assert_gradients_of(adaptation, RTOL)


@pytest.mark.parametrize("term", ["lambda_depth", "lambda_img", "lambda_out"])
def test_the_tolerance_detects_a_doubled_term(term):
    config, adaptation, batch = make()
    other = replace(config, adaptation=replace(config.adaptation, **{term: 2.0}))
    yardstick = Yardstick(adaptation, other)
    Step(adaptation, {}, "fp32").gradients([batch])
    yardstick.gradients(yardstick.load(batch))
    with pytest.raises(AssertionError, match="gradients differ"):
        yardstick.assert_gradients_of(adaptation, RTOL)


@pytest.mark.parametrize(
    ("backbone", "norm"), [("vgg16", "group"), ("vgg16", "none"), ("resnet101", "group")]
)
def test_losses_agree_for_every_trunk(backbone, norm):
    """Compares losses only: over a hundred narrow layers, one pixel's difference grows to 1e-1."""
    config, adaptation, batch = make(model={"backbone": backbone, "norm": norm})
    yardstick = Yardstick(adaptation, config)
    ours = Step(adaptation, {}, "fp32").gradients([batch])
    assert_losses_agree(ours, yardstick.gradients(yardstick.load(batch)))


@pytest.mark.parametrize("encoding", ["inverse", "log", "linear"])
def test_losses_agree_for_every_encoding_of_depth(encoding):
    config, adaptation, batch = make(depth_encoding=encoding)
    yardstick = Yardstick(adaptation, config, channels_last=True)
    ours = Step(adaptation, {}, "fp32").gradients([batch])
    assert_losses_agree(ours, yardstick.gradients(yardstick.load(batch)))


def test_an_update_moves_every_network_and_lowers_the_loss():
    config, adaptation, batch = make()
    yardstick = Yardstick(adaptation, config)
    before = {n: [p.clone() for p in m.parameters()] for n, m in yardstick.networks.items()}
    loaded = yardstick.load(batch)
    losses = [yardstick.update(loaded)["seg"] for _ in range(4)]
    assert losses[-1] < losses[0]
    for name, network in yardstick.networks.items():
        assert not any(map(torch.equal, before[name], network.parameters())), name


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("gan_loss", "hinge", "hinge"),
        ("keep_half_untranslated", True, "keep_half_untranslated"),
    ],
)
def test_unsupported_settings_are_refused(name, value, message):
    config, adaptation, _ = make(**{name: value})
    with pytest.raises(NotImplementedError, match=message):
        Yardstick(adaptation, config)
