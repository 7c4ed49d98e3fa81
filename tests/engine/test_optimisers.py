"""Settings of the task network's optimiser: rates by layer, weight decay, clipping, warm-up."""

import pytest
import torch

from gioada_fast.adaptation import TwoLevelAdaptation
from gioada_fast.config import AdaptationConfig, Config, ModelConfig, OptimiserConfig
from gioada_fast.engine.step import Step
from gioada_fast.engine.trainer import Phase, Trainer, build_optimisers

from ..test_adaptation import CLASSES, make_batch

PHASE = Phase("source_only", 0, 40)


def made(backbone="vgg16", input_level="none", **settings):
    """(optimisers, networks) with learning rate 1 for the heads and 0.5 for the trunk."""
    optimiser = OptimiserConfig(task_lr=1.0, trunk_lr_factor=0.5, **settings)
    config = Config(model=ModelConfig(backbone=backbone, width=0.125), optimiser=optimiser)
    adaptation = TwoLevelAdaptation(
        CLASSES, AdaptationConfig(input_level=input_level, output_level="none"), config.model
    )
    return build_optimisers(config, adaptation, PHASE), adaptation


def rates(optimiser, network):
    """Learning rate and weight decay of each weight, by name."""
    found = {
        id(weight): (group["lr"], group["weight_decay"])
        for group in optimiser.param_groups
        for weight in group["params"]
    }
    assert len(found) == sum(len(group["params"]) for group in optimiser.param_groups)
    return {name: found[id(weight)] for name, weight in network.named_parameters()}


def test_the_trunk_has_one_rate_by_default():
    optimisers, adaptation = made(weight_decay=0.01)
    found = rates(optimisers["task"], adaptation.task)
    assert {name.split(".")[0]: value for name, value in found.items()} == {
        "trunk": (0.5, 0.01),
        "segmentation": (1.0, 0.01),
        "depth": (1.0, 0.01),
    }
    assert len(optimisers["task"].param_groups) == 2


@pytest.mark.parametrize("backbone", ["vgg16", "resnet101"])
def test_the_rate_falls_from_block_to_block_towards_the_image(backbone):
    optimisers, adaptation = made(backbone, layer_decay=0.9)
    found = rates(optimisers["task"], adaptation.task)
    blocks = adaptation.task.trunk.blocks()
    names = {id(weight): name for name, weight in adaptation.task.named_parameters()}
    for number, block in enumerate(reversed(blocks)):
        for module in block:
            for weight in module.parameters():
                assert found[names[id(weight)]][0] == pytest.approx(0.5 * 0.9**number)
    if backbone == "resnet101":
        assert found["trunk.conv1.weight"][0] == pytest.approx(0.5 * 0.9 ** len(blocks))
    assert found["segmentation.branches.0.weight"][0] == 1.0
    assert optimisers["task"].param_groups[-1]["lr"] == 1.0  # the one that is logged


def test_norms_and_biases_can_be_without_weight_decay():
    optimisers, adaptation = made("resnet101", decay_norms=False, layer_decay=0.9)
    for name, (_, decay) in rates(optimisers["task"], adaptation.task).items():
        weight = adaptation.task.get_parameter(name)
        assert decay == (5e-4 if weight.ndim > 1 else 0.0), name


@pytest.mark.parametrize("task", ["adamw", "sgd"])
def test_the_gradient_of_the_task_network_alone_is_clipped(task, monkeypatch):
    norms = {}

    def norm(network):
        return torch.stack([w.grad.norm() for w in network.parameters()]).norm().item()

    for clip in (None, 1e-3, 1e6):
        torch.manual_seed(0)
        optimisers, adaptation = made(input_level="geometry", task=task)
        step = Step(adaptation, optimisers, "fp32", clip_norm=clip)
        step([make_batch()])
        norms[clip] = norm(adaptation.task), norm(adaptation.translation)
    assert norms[1e-3][0] == pytest.approx(1e-3, rel=1e-3) and norms[None][0] > 2e-3
    assert norms[1e6] == norms[None] and norms[1e-3][1] == norms[None][1]


def test_the_rate_rises_linearly_and_falls_by_the_power():
    config = Config(optimiser=OptimiserConfig(task_lr=1.0, warmup_steps=10, poly_power=1.0))
    trainer = Trainer.__new__(Trainer)
    trainer.config, trainer.optimisers = config, made()[0]
    group = trainer.optimisers["task"].param_groups[-1]
    for trainer.step in range(PHASE.steps):
        trainer._set_learning_rates(PHASE)
        expected = (1 - trainer.step / 40) * min(1.0, (trainer.step + 1) / 10)
        assert group["lr"] == pytest.approx(expected)
