"""One full update of all networks, with both levels and the optimisers, against public code.

The public code is ``benchmarks/yardstick.py``: eager, channels-last, under autocast, and compiled
with ``torch.compile``. All contenders start from the same weights and see the same batch. The
benchmark checks that their losses and gradients agree before it measures times.
"""

import gc
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import harness
from benchmarks.harness import clock, peak_flops, peak_mib, records
from benchmarks.yardstick import Yardstick
from gioada_fast.adaptation import Batch, TwoLevelAdaptation
from gioada_fast.config import AdaptationConfig, Config, ModelConfig, OptimiserConfig
from gioada_fast.engine.step import Step
from gioada_fast.engine.trainer import Phase, build_optimisers

STILL = OptimiserConfig(
    task_lr=1e-6,
    translation_lr=1e-6,
    image_discriminator_lr=1e-6,
    output_discriminator_lr=1e-6,
)
"""Learning rates so small that the weights hardly change from round to round."""
SECONDS = 60.0  # measurement time per case; multiplied by harness.time_factor
EAGER = "yardstick fp32"
GRADIENTS_RTOL = 3e-2  # tests/test_yardstick.py gives the reason
PAPER = ModelConfig(
    width=1.0, norm="none", translation_width=1.0, discriminator_width=1.0
)  # VGG-16 as published


@dataclass(frozen=True)
class Case:
    """Networks and batch of a case, and its guards: the worst ratios that pass, see ``ratios``."""

    model: ModelConfig
    num_classes: int
    batch_size: int
    size: tuple[int, int]
    guards: dict[str, float]
    compiles_ours: bool = True
    """Whether to compile our step too: that takes minutes on a CPU, and gains nothing if
    convolutions dominate."""
    cuda_only: bool = False


CASES = {
    "demo 4x180x240": Case(
        ModelConfig(),
        11,
        4,
        (180, 240),
        {"eager": 2.5, "fp32": 1.05, "bf16": 1.4, "memory": 0.75, "checkpointing": 0.7},
    ),
    "paper 1x128x256": Case(
        PAPER,
        16,
        1,
        (128, 256),
        {"eager": 2.5, "fp32": 1.0, "bf16": 1.2, "memory": 0.85, "checkpointing": 0.85},
        compiles_ours=False,
    ),
    "paper 1x512x1024": Case(PAPER, 16, 1, (512, 1024), {}, cuda_only=True),
}
TARGETS = {"eager": 2.5, "fp32": 1.25, "bf16": 1.3, "memory": 0.6, "checkpointing": 0.6}
"""Goals of the package. The guards are the ratios that it has reached, with room for noise."""


IN_MEMORY = ("memory", "checkpointing")  # smaller is better


class Contender:
    """One implementation of the update, with its own copy of the networks."""

    def __init__(
        self,
        gradients: Callable[[], dict],
        update: Callable[[], dict],
        optimisers: dict[str, torch.optim.Optimizer],
    ):
        self.gradients, self.update, self.optimisers = gradients, update, optimisers
        self.ms: list[float] = []
        self.failure: str | None = None

    def zero_grad(self) -> None:
        """Drop all gradients and free their memory."""
        for optimiser in self.optimisers.values():
            optimiser.zero_grad(set_to_none=True)


def networks(case: Case, config: Config, device: str) -> TwoLevelAdaptation:
    """Networks with gradients in every layer."""
    torch.manual_seed(0)
    adaptation = TwoLevelAdaptation(case.num_classes, config.adaptation, config.model)
    adaptation.class_weights = torch.linspace(0.5, 1.5, case.num_classes)
    # this layer starts at zero, which would make the gradients of all layers before it zero
    if adaptation.translation is not None:
        torch.nn.init.normal_(adaptation.translation.to_image.weight, std=0.01)
    return adaptation.to(device, memory_format=torch.channels_last)


def batch_of(case: Case, device: str) -> Batch:
    """Noise with the shapes of frames: labels in blocks, a tenth ignored, sky without depth."""
    n, (h, w) = case.batch_size, case.size
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (2, n, 3, h, w), dtype=torch.uint8, generator=generator)
    blocks = torch.randint(0, case.num_classes, (n, h // 16 + 1, w // 16 + 1), generator=generator)
    labels = blocks.repeat_interleave(16, 1).repeat_interleave(16, 2)[:, :h, :w].byte().clone()
    labels[torch.rand(labels.shape, generator=generator) < 0.1] = 255
    depth = 2 + 100 * torch.rand(n, 1, h, w, generator=generator)
    depth[:, :, : h // 4] = 0
    return Batch(*(x.contiguous().to(device) for x in (images[0], labels, depth, images[1])))


def _ours(adaptation, config: Config, batch: Batch, precision: str, compile: bool) -> Contender:
    optimisers = build_optimisers(config, adaptation, Phase("adaptation", 0, 1000))
    update = Step(adaptation, optimisers, precision, compile)
    return Contender(lambda: update.gradients([batch]), lambda: update([batch]), optimisers)


def _theirs(yardstick: Yardstick, batch: Batch) -> Contender:
    loaded = yardstick.load(batch)
    return Contender(
        lambda: yardstick.gradients(loaded), lambda: yardstick.update(loaded), yardstick.optimisers
    )


@contextmanager
def _without_tf32() -> Iterator[None]:
    """Turn TF32 off: with its 11 bits, gradients of the first layers differ by a tenth on a GPU."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _contenders(case: Case, config: Config, device: str) -> dict[str, Contender]:
    """All contenders by name. Asserts that gradients of ours and of the yardstick agree in fp32."""
    adaptation, batch = networks(case, config, device), batch_of(case, device)
    found: dict[str, Contender] = {}
    for precision in ("fp32", "bf16"):
        for suffix, last, compile in (
            ("", False, False),
            (" channels-last", True, False),
            (" compile", False, True),
        ):
            yardstick = Yardstick(adaptation, config, last, precision, compile)
            found[f"yardstick {precision}{suffix}"] = _theirs(yardstick, batch)
            if f"yardstick {precision}{suffix}" == EAGER:
                with _without_tf32():
                    Step(adaptation, {}, "fp32").gradients([batch])
                    found[EAGER].gradients()
                yardstick.assert_gradients_of(adaptation, GRADIENTS_RTOL)
                adaptation.zero_grad()
    for precision in ("fp32", "bf16"):
        for compile in (False, True) if case.compiles_ours else (False,):
            mine = networks(case, config, device)
            name = f"ours {precision}{' compile' if compile else ''}"
            found[name] = _ours(mine, config, batch, precision, compile)
    mine = networks(case, config, device)
    mine.translation.checkpointing = True
    found["ours bf16 checkpointing"] = _ours(mine, config, batch, "bf16", compile=False)
    return found


def _first_losses(contenders: dict[str, Contender]) -> None:
    """Assert that the losses of all contenders agree; record why a compiled contender fails."""
    expected: dict[str, float] = {}
    for name, contender in contenders.items():
        contender.zero_grad()
        try:
            with _without_tf32():
                losses = {k: float(v) for k, v in contender.gradients().items()}
        except Exception as error:
            if "compile" not in name:
                raise
            contender.failure = f"{type(error).__name__}: {error}".splitlines()[0]
            contender.zero_grad()
            continue
        expected = expected or losses
        rtol = 1e-4 if "fp32" in name else 3e-2
        assert losses.keys() == expected.keys(), name
        for term, loss in losses.items():
            assert loss == pytest.approx(expected[term], rel=rtol), f"{name}: {term}"


def _flops(contender: Contender) -> int:
    contender.zero_grad()
    with FlopCounterMode(display=False) as counter:
        contender.gradients()
    return counter.get_total_flops()


def ratios(contenders: dict[str, dict], guards: dict[str, float]) -> dict[str, dict]:
    """The ratios that have targets and guards.

    eager: time of the eager fp32 yardstick over our best time in bf16.
    fp32, bf16: best time of the yardstick in that precision over our best time in it.
    memory: peak memory that our fastest bf16 update adds, over the eager fp32 yardstick's.
    checkpointing: the same for our update with activation checkpointing of the translation network.
    """

    def best(prefix: str) -> str:
        running = [n for n, c in contenders.items() if n.startswith(prefix) and "ms" in c]
        return min(running, key=lambda name: contenders[name]["ms"])

    pairs = {
        "eager": (EAGER, best("ours bf16")),
        "fp32": (best("yardstick fp32"), best("ours fp32")),
        "bf16": (best("yardstick bf16"), best("ours bf16")),
        "memory": (best("ours bf16"), EAGER),
        "checkpointing": ("ours bf16 checkpointing", EAGER),
    }
    found = {}
    for name, (over, under) in pairs.items():
        unit = "mib" if name in IN_MEMORY else "ms"
        found[name] = {
            "value": contenders[over][unit] / contenders[under][unit],
            "of": [over, under],
            "target": TARGETS[name],
            "guard": guards.get(name),
        }
    return found


@pytest.mark.parametrize("name", CASES)
def bench_step(name, device):
    case = CASES[name]
    if case.cuda_only and device != "cuda":
        pytest.skip("takes too long on a CPU")
    gc.collect()
    torch.compiler.reset()
    paper = AdaptationConfig(keep_half_untranslated=False)
    config = Config(model=case.model, adaptation=paper, optimiser=STILL)
    # contenders share code, which torch.compile compiles again for the networks of each
    with torch._dynamo.config.patch(recompile_limit=256, accumulated_recompile_limit=1024):
        record = _race(name, case, config, device)
    records.append(record)
    for key, ratio in record["ratios"].items():
        value, guard = ratio["value"], ratio["guard"]
        if guard is not None:
            kept = value <= guard if key in IN_MEMORY else value >= guard
            assert kept, f"{name}, {key}: {value:.2f}, guard is {guard}"


def _race(name: str, case: Case, config: Config, device: str) -> dict:
    contenders = _contenders(case, config, device)
    _first_losses(contenders)
    flops = _flops(contenders[EAGER])
    running = {n: c for n, c in contenders.items() if c.failure is None}
    for contender in running.values():
        contender.update()  # creates the optimisers' state
    calls = 5 if device == "cuda" else 1
    once = sum(clock(contender.update, device, calls) for contender in running.values())
    rounds = max(3, min(50, int(harness.time_factor * SECONDS * 1e3 / once)))
    for _ in range(rounds):
        for contender in running.values():
            contender.ms.append(clock(contender.update, device, calls))
            contender.zero_grad()

    found: dict[str, dict] = {}
    for n, contender in contenders.items():
        if contender.failure is not None:
            found[n] = {"failed": contender.failure}
            continue
        losses = contender.update()
        if not all(torch.isfinite(torch.as_tensor(v)) for v in losses.values()):
            assert "compile" in n, n
            found[n] = {"failed": f"losses are not finite after {rounds + 2} updates"}
            continue
        contender.zero_grad()
        dtype = torch.bfloat16 if "bf16" in n else torch.float32
        ms = min(contender.ms)
        found[n] = {
            "ms": ms,
            "median_ms": statistics.median(contender.ms),
            "pairs_per_second": case.batch_size / (ms / 1e3),
            "mib": peak_mib(contender.update, device),
            "share_of_peak": flops / (ms / 1e3) / peak_flops(device, dtype),
        }
        contender.zero_grad()
    return {
        "op": "step",
        "shape": name,
        "rounds": rounds,
        "flops": flops,
        "peak_flops": {
            "fp32": peak_flops(device, torch.float32),
            "bf16": peak_flops(device, torch.bfloat16),
        },
        "contenders": found,
        "ratios": ratios(found, case.guards),
    }
