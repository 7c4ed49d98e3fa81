"""Training steps of transformers models, forward and backward, with and without the fused loss.

SegFormer-B0, and UperNet with a ConvNeXt of the size of ConvNeXt-Femto; random weights, float32.
UperNet returns full-size logits also with the fused loss.
"""

import copy
import statistics
from collections.abc import Callable

import pytest
import torch
from torch import nn

from benchmarks import guards, harness
from benchmarks.harness import clock, peak_mib, records
from gioada_fast.integrations.transformers import fuse_loss

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install 'gioada_fast[transformers]'"
)

SECONDS = 10.0  # measurement time per case; multiplied by harness.time_factor
BATCH, SIZE = 2, 512  # UperNet's batch norm of one pixel needs two images


def _segformer(num_labels: int) -> nn.Module:
    config = transformers.SegformerConfig(num_labels=num_labels)  # the defaults are B0
    return transformers.SegformerForSemanticSegmentation(config)


def _upernet(num_labels: int) -> nn.Module:
    backbone = transformers.ConvNextConfig(
        hidden_sizes=[48, 96, 192, 384],
        depths=[2, 2, 6, 2],
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = transformers.UperNetConfig(
        backbone_config=backbone,
        hidden_size=128,
        auxiliary_in_channels=192,
        auxiliary_channels=64,
        num_labels=num_labels,
    )
    return transformers.UperNetForSemanticSegmentation(config)


# Model, number of classes.
CASES = {
    "SegFormer-B0, 19 classes": (_segformer, 19),
    "SegFormer-B0, 150 classes": (_segformer, 150),
    "UperNet, 19 classes": (_upernet, 19),
    "UperNet, 150 classes": (_upernet, 150),
}


def _step(model: nn.Module, inputs: dict) -> Callable[[], torch.Tensor]:
    def run() -> torch.Tensor:
        model.zero_grad(set_to_none=True)
        loss = model(**inputs).loss
        loss.backward()
        return loss.detach()

    return run


def _assert_agree(models: dict[str, nn.Module], steps: dict[str, Callable]) -> None:
    """Assert that losses and gradients agree within rounding."""
    results = {}
    for name, step in steps.items():
        torch.manual_seed(1)  # for dropout
        loss = step()
        results[name] = [loss, *(p.grad for p in models[name].parameters() if p.grad is not None)]
    largest = max(gradient.abs().max().item() for gradient in results["theirs"][1:])
    for fused, theirs in zip(results["fused"], results["theirs"], strict=True):
        torch.testing.assert_close(fused, theirs, rtol=1e-3, atol=1e-4 * largest)


@pytest.mark.parametrize("case", CASES)
def bench_transformers(case, benchmark, device):
    build, num_labels = CASES[case]
    torch.manual_seed(0)
    theirs = build(num_labels).to(device).train()
    models = {"theirs": theirs, "fused": fuse_loss(copy.deepcopy(theirs))}
    labels = torch.randint(0, num_labels, (BATCH, SIZE, SIZE), device=device)
    labels[torch.rand(labels.shape, device=device) < 0.1] = 255
    inputs = {"pixel_values": torch.randn(BATCH, 3, SIZE, SIZE, device=device), "labels": labels}
    steps = {name: _step(model, inputs) for name, model in models.items()}
    _assert_agree(models, steps)  # times are only comparable if the results agree

    once = sum(clock(step, device, 1) for step in steps.values())
    rounds = max(
        2 if harness.quick else 3, min(50, int(harness.time_factor * SECONDS * 1e3 / once))
    )
    times: dict[str, list[float]] = {name: [] for name in steps}
    benchmark.group = "transformers"
    benchmark.pedantic(
        lambda: times["fused"].append(clock(steps["fused"], device, 1)),
        setup=lambda: times["theirs"].append(clock(steps["theirs"], device, 1)),
        rounds=rounds,
    )
    for model in models.values():
        model.zero_grad(set_to_none=True)
    memory = {}
    for name, step in steps.items():
        memory[name] = peak_mib(step, device)
        models[name].zero_grad(set_to_none=True)
    ms = {name: min(values) for name, values in times.items()}
    medians = {name: statistics.median(values) for name, values in times.items()}
    record = {
        "op": "transformers",
        "shape": f"{case}, {BATCH}x{SIZE}x{SIZE}",
        "pass": "forward+backward",
        "rounds": rounds,
        "ms": ms["fused"],
        "median_ms": medians["fused"],
        "rivals_ms": {"theirs": ms["theirs"]},
        "rivals_median_ms": {"theirs": medians["theirs"]},
        "best_rival": "theirs",
        "ratio": ms["theirs"] / ms["fused"],
        "peak_mib": memory,
        "memory_ratio": memory["theirs"] / memory["fused"],
    }
    guards.add_guards(record, device, {"time": guards.ANY_TIME}, {"memory": guards.ANY_MEMORY})
    records.append(record)
    benchmark.extra_info.update(record)
    guards.check(record)
