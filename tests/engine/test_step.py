"""The step has the same gradients accumulated, compiled and with activation checkpointing."""

import pytest
import torch

from gioada_fast.config import Config, OptimiserConfig
from gioada_fast.engine.step import GraphedStep, Step
from gioada_fast.engine.trainer import Phase, build_optimisers
from gioada_fast.models.layers import ActivationPool, GroupNormReLU

from ..test_adaptation import make, make_batch, with_labelled

ROWS = [
    {"input_level": "none", "output_level": "none"},
    {"input_level": "image", "output_level": "semantics"},
    {"input_level": "geometry", "output_level": "joint"},
    {"input_level": "normals", "output_level": "product", "image_discriminator_input": "depth"},
]


def gradients(adaptation, batches, **settings):
    """(losses, gradients by name) of a step."""
    adaptation.zero_grad()
    losses = Step(adaptation, {}, "fp32", **settings).gradients(batches)
    return losses, {
        name: p.grad.clone() for name, p in adaptation.named_parameters() if p.grad is not None
    }


def make_trained(*levels, **settings):
    """Networks whose translation network changes its input, so that all weights get gradients."""
    adaptation = make(*levels, **settings)
    if adaptation.translation is not None:
        torch.nn.init.normal_(adaptation.translation.to_image.weight, std=0.01)
    return adaptation


def assert_same(found, expected, rtol=1e-4):
    """Assert that losses and gradients agree, relative to the largest gradient of each network.

    A bias before an instance norm has no effect: its gradient is nothing but rounding error.
    """
    losses, grads = expected
    torch.testing.assert_close(found[0], losses, rtol=rtol, atol=1e-6)
    assert found[1].keys() == grads.keys()
    for network in {name.split(".")[0] for name in grads}:
        names = [name for name in grads if name.startswith(network)]
        scale = max(float(grads[name].abs().max()) for name in names)
        for name in names:
            difference = float((found[1][name] - grads[name]).abs().max())
            assert difference <= rtol * scale, (name, difference, scale)


def unequal_batch(pairs=2, labelled=False):
    """Frames that differ in their numbers of labelled pixels and of pixels with depth.

    ``labelled``: with labels of target images, too.
    """
    batch = make_batch(pairs=pairs)
    if labelled:
        batch = with_labelled(batch)
        batch.labelled_labels[0, 20:] = 255
    batch.source_labels[0, 8:40] = 255
    batch.source_depth[1, :, 8:24] = 0
    return batch


@pytest.mark.parametrize("levels", ROWS)
def test_accumulated_batches_have_the_gradient_of_one_large_batch(levels):
    adaptation, batch = make_trained(**levels), unequal_batch(pairs=4, labelled=True)
    adaptation.class_weights = torch.tensor([0.5, 1.0, 1.5, 2.0])
    whole = gradients(adaptation, [batch])
    halves = [batch.map(lambda x: x[:2]), batch.map(lambda x: x[2:])]
    assert_same(gradients(adaptation, halves), whole)


def test_batches_without_labels_and_depth_change_nothing():
    adaptation, batch = make_trained("none", "none"), make_batch()
    blank = make_batch()
    blank.source_labels.fill_(255)
    blank.source_depth.zero_()
    whole, accumulated = gradients(adaptation, [batch]), gradients(adaptation, [batch, blank])
    assert_same(accumulated, whole)
    losses, grads = gradients(adaptation, [blank, blank])
    assert all(float(loss) == 0 for loss in losses.values())
    assert all(float(grad.abs().max()) == 0 for grad in grads.values())


EVERYTHING = {
    "self_training": True,
    "confidence": 0.3,
    "mask_ratio": 0.5,
    "mask_patch": 16,
    "mix_classes": "depth",
    "lambda_target_depth": 1.0,
    "depth_agreement": True,
    "image_discriminator_input": "depth",
}


@pytest.mark.parametrize("size", [1, 2, 3])
def test_micro_batches_have_the_gradient_of_the_whole_batch(size):
    """Every other pair is translated and self-trained, wherever the batch is cut."""
    adaptation, batch = make_trained(**EVERYTHING), unequal_batch(pairs=4, labelled=True)
    adaptation.class_weights = torch.tensor([0.5, 1.0, 1.5, 2.0])
    whole = gradients(adaptation, [batch])
    assert_same(gradients(adaptation, [batch], micro_batch=size), whole)


@pytest.mark.parametrize("levels", [ROWS[0], ROWS[2]])
def test_micro_batches_are_accumulated_batches_to_the_bit(levels):
    settings = {"keep_half_untranslated": False, "self_train_half": False}
    adaptation = make_trained(**levels, **settings, self_training=True)
    batch = unequal_batch(pairs=3)
    pairs = [batch.map(lambda x, i=i: x[i : i + 1]) for i in range(3)]
    assert_same(gradients(adaptation, [batch], micro_batch=1), gradients(adaptation, pairs), rtol=0)


def test_a_batch_that_fits_is_not_cut():
    adaptation, batch = make_trained(), unequal_batch()
    assert_same(
        gradients(adaptation, [batch], micro_batch=2), gradients(adaptation, [batch]), rtol=0
    )


def kept_bytes(function):
    """Bytes of the tensors that a forward pass keeps for the backward pass."""
    kept: dict[int, int] = {}

    def keep(x):
        kept[x.data_ptr()] = x.nbytes
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        result = function()
    del result
    return sum(kept.values())


def set_checkpointing(adaptation, network):
    """Let the translation network or the task network compute its layers again."""
    if network == "translation":
        adaptation.translation.checkpointing = True
    else:
        adaptation.task.checkpointing = True
        adaptation.task.trunk.enable_checkpointing()


@pytest.mark.parametrize("network", ["translation", "task"])
def test_checkpointing_has_the_same_gradient_and_saves_memory(network):
    adaptation, batch = make_trained(), make_batch()

    def forward():
        x = adaptation.translation(batch.source_image, batch.source_depth, batch.source_labels)
        return adaptation.task(x) if network == "task" else x

    plain, bytes_plain = gradients(adaptation, [batch]), kept_bytes(forward)
    set_checkpointing(adaptation, network)
    again, bytes_again = gradients(adaptation, [batch]), kept_bytes(forward)
    assert_same(again, plain, rtol=0)
    assert bytes_again < bytes_plain


def test_pooling_keeps_only_the_input_of_its_activation():
    pool = ActivationPool(GroupNormReLU(), torch.nn.MaxPool2d(2))
    x = torch.randn(2, 16, 64, 64, requires_grad=True)
    plain = pool[1](pool[0](x))
    assert torch.equal(pool(x), plain)
    grads = [torch.autograd.grad(y.square().sum(), x)[0] for y in (pool(x), plain)]
    assert torch.equal(*grads)
    assert kept_bytes(lambda: pool(x)) == x.nbytes < kept_bytes(lambda: pool[1](pool[0](x)))


@pytest.mark.parametrize(
    ("levels", "checkpointing", "batch"),
    [(ROWS[2], True, make_batch()), (ROWS[3], False, with_labelled(make_batch()))],
)
def test_the_compiled_step_has_no_graph_break_and_the_same_gradient(levels, checkpointing, batch):
    """``fullgraph=True`` raises at a graph break; each of the two losses is compiled once."""
    adaptation = make_trained(**levels)
    plain = gradients(adaptation, [batch])
    for network in ("translation", "task") if checkpointing else ():
        set_checkpointing(adaptation, network)
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    update = Step(adaptation, {}, "fp32", compile=True)
    for _ in range(2):
        adaptation.zero_grad()
        losses = update.gradients([batch])
    counters = torch._dynamo.utils.counters
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] == 2
    found = {name: p.grad for name, p in adaptation.named_parameters()}
    assert_same((losses, found), plain)


@pytest.fixture
def deterministic():
    """Deterministic kernels, as in runs, and convolutions without TF32."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.allow_tf32 = before


@pytest.mark.gpu
@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_a_cuda_graph_of_the_update_trains_like_the_eager_update(optimiser, deterministic):
    """Batches and learning rates differ at every replay.

    The eager updates use capturable optimisers, too. Others round differently, and eight updates
    of Adam at this rate turn one rounding error into 1e-2 of a weight.
    """
    settings = OptimiserConfig(task=optimiser, adaptation_lr=1e-2)
    trained = {}
    for graphs in (False, True):
        adaptation = make_trained().cuda()
        config = Config(optimiser=settings, cuda_graphs=True)
        optimisers = build_optimisers(config, adaptation, Phase("adaptation", 0, 8))
        step = Step(adaptation, optimisers, "fp32")
        update = GraphedStep(step) if graphs else step
        for i in range(8):
            for optimiser_ in optimisers.values():
                for group in optimiser_.param_groups:
                    group["lr"].fill_(group["initial_lr"] / (1 + i))
            batch = make_batch().map(lambda x, i=i: x.roll(i, -1).cuda())
            losses = {name: loss.clone() for name, loss in update([batch]).items()}
        trained[graphs] = losses, {n: p.detach() for n, p in adaptation.named_parameters()}
    assert_same(trained[True], trained[False], rtol=1e-3)
