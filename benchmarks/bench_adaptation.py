"""What each setting of the adaptation costs: time and memory of an update with it.

All updates see the same batch at the demo's size. The ratio of an update's time is to the update
with both levels (GIO-Ada), measured in the same rounds.
"""

import gc
from dataclasses import replace
from typing import Any

import torch

from benchmarks import guards, harness
from benchmarks.bench_step import CASES, STILL, batch_of, networks
from benchmarks.harness import clock, peak_mib, records
from gioada_fast.adaptation import Batch
from gioada_fast.config import AdaptationConfig, Config
from gioada_fast.engine.ablation import ROWS
from gioada_fast.engine.step import Step
from gioada_fast.engine.trainer import Phase, build_optimisers

SECONDS = 25.0  # measurement time; multiplied by harness.time_factor
BOTH = "both"
TARGET, ANY = 1.3, 1.7
"""Time of an update with self-training over one without: the goal, and the worst that passes on any
machine. Self-training adds half of the images to G_task, and the teacher."""


def _settings() -> dict[str, dict[str, Any]]:
    """The rows of the ablation that train differently, by name."""
    off = {"input_level": "none", "output_level": "none"}
    skipped = {"self_rare"}  # a matter of the loader
    return {
        name: {**off, **row.adaptation}
        for name, row in ROWS.items()
        if row.adaptation
        and name not in skipped
        and (not harness.quick or name in (BOTH, "self_training"))
    }


def _with_noise(batch: Batch, num_classes: int, patch: int) -> Batch:
    """The batch with random numbers and depth maps, as the loader would add them."""
    n, _, h, w = batch.source_image.shape
    generator = torch.Generator().manual_seed(2)
    device = batch.source_image.device
    return batch._replace(
        class_mix_noise=torch.rand(n, num_classes, generator=generator).to(device),
        mask_noise=torch.rand(n, -(-h // patch), -(-w // patch), generator=generator).to(device),
        target_depth=(2 + 100 * torch.rand(n, 1, h, w, generator=generator)).to(device),
    )


def bench_adaptation(device):
    gc.collect()
    case = CASES["demo 4x180x240"]
    batch = batch_of(case, device)
    batch = _with_noise(batch, case.num_classes, AdaptationConfig().mask_patch)
    steps = {}
    for name, settings in _settings().items():
        config = Config(
            model=case.model, adaptation=replace(AdaptationConfig(), **settings), optimiser=STILL
        )
        adaptation = networks(case, config, device)
        optimisers = build_optimisers(config, adaptation, Phase("adaptation", 0, 1000))
        steps[name] = Step(adaptation, optimisers)
    once = 0.0
    for step in steps.values():
        step([batch])  # creates the optimisers' state
        once += clock(lambda step=step: step([batch]), device, 1)
    rounds = max(2, min(50, int(harness.time_factor * SECONDS * 1e3 / once)))
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            times[name].append(clock(lambda step=step: step([batch]), device, 1))
    settings = {
        name: {
            "ms": min(times[name]),
            "ratio": min(times[name]) / min(times[BOTH]),
            "mib": peak_mib(lambda step=step: step([batch]), device),
        }
        for name, step in steps.items()
    }
    record = {
        "op": "adaptation",
        "shape": "demo 4x180x240",
        "rounds": rounds,
        "settings": settings,
        "target": TARGET,
    }
    guards.add_guards(record, device, at_most={"self_training": ANY})
    records.append(record)
    guards.check(record)
