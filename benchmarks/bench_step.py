"""One full update of all networks, with both levels and the optimisers, against public code.

The public code is ``benchmarks/yardstick.py``: eager, channels-last, under autocast, and compiled
with ``torch.compile``. All contenders start from the same weights and see the same batch. The
benchmark checks that their losses and gradients agree before it measures times.
"""

import gc
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import guards, harness
from benchmarks.harness import clock, peak_flops, peak_mib, records
from benchmarks.yardstick import Yardstick
from gioada_fast.adaptation import Batch, TwoLevelAdaptation
from gioada_fast.config import AdaptationConfig, Config, ModelConfig, OptimiserConfig
from gioada_fast.engine.device import has_fast_bf16
from gioada_fast.engine.step import Step
from gioada_fast.engine.trainer import Phase, build_optimisers

STILL = OptimiserConfig(
    task_lr=1e-6,
    translation_lr=1e-6,
    image_discriminator_lr=1e-6,
    output_discriminator_lr=1e-6,
)
"""Learning rates so small that the weights hardly change from round to round."""
SECONDS = 40.0  # measurement time per case; multiplied by harness.time_factor
EAGER = "yardstick fp32"
GRADIENTS_RTOL = 3e-2  # tests/test_yardstick.py gives the reason
PAPER = ModelConfig(
    width=1.0, norm="none", translation_width=1.0, discriminator_width=1.0
)  # VGG-16 as published


@dataclass(frozen=True)
class Case:
    """Networks and batch of a case."""

    model: ModelConfig
    num_classes: int
    batch_size: int
    size: tuple[int, int]
    compiles: bool = True
    """Whether to compile the yardstick and our step, too: that takes minutes on a CPU, and gains
    nothing if convolutions dominate."""
    cuda_only: bool = False


CASES = {
    "demo 4x180x240": Case(
        ModelConfig(),
        11,
        4,
        (180, 240),
    ),
    "paper 1x128x256": Case(
        PAPER,
        16,
        1,
        (128, 256),
        compiles=False,
    ),
    "paper 1x512x1024": Case(PAPER, 16, 1, (512, 1024), cuda_only=True),
}
TARGETS = {"eager": 2.5, "fp32": 1.25, "bf16": 1.4}
"""Goals of the package for the ratios of time."""
EAGER_FP32_TARGET = 1.4
"""The goal for eager where bf16 is not compared."""
MEMORY_TARGETS = {"memory": 0.6, "memory_fp32": 1.0, "memory_saving": 0.6}
"""Goals for the ratios of memory, where smaller is better."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SAVING = ("task_checkpointing", "micro_batch")
"""Settings that save memory, each a contender of its own."""


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


def precisions(device: str) -> tuple[str, ...]:
    """The precisions to compare: bf16 only where the hardware multiplies it."""
    return ("fp32", "bf16") if has_fast_bf16(torch.device(device)) else ("fp32",)


def _ours(
    adaptation,
    config: Config,
    batch: Batch,
    precision: str,
    compile: bool = False,
    micro_batch: int | None = None,
) -> Contender:
    optimisers = build_optimisers(config, adaptation, Phase("adaptation", 0, 1000))
    update = Step(adaptation, optimisers, precision, compile, micro_batch=micro_batch)
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
    variants = [("", False, False)]
    if not harness.quick:
        variants.append((" channels-last", True, False))
        if case.compiles:
            variants.append((" compile", False, True))
    for precision in precisions(device):
        for suffix, last, compile in variants:
            yardstick = Yardstick(adaptation, config, last, precision, compile)
            found[f"yardstick {precision}{suffix}"] = _theirs(yardstick, batch)
            if f"yardstick {precision}{suffix}" == EAGER:
                with _without_tf32():
                    Step(adaptation, {}, "fp32").gradients([batch])
                    found[EAGER].gradients()
                yardstick.assert_gradients_of(adaptation, GRADIENTS_RTOL)
                adaptation.zero_grad()
    compiles = device == "cuda" and case.compiles and not harness.quick
    for precision in precisions(device):
        for compile in (False, True) if compiles else (False,):
            mine = networks(case, config, device)
            name = f"ours {precision}{' compile' if compile else ''}"
            found[name] = _ours(mine, config, batch, precision, compile)
    best = precisions(device)[-1]
    model = replace(config.model, task_checkpointing=True)
    mine = networks(case, replace(config, model=model), device)
    found[f"ours {best} task_checkpointing"] = _ours(mine, config, batch, best)
    if case.batch_size > 1:
        mine = networks(case, config, device)
        found[f"ours {best} micro_batch"] = _ours(mine, config, batch, best, micro_batch=1)
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


def count_flops(function: Callable) -> int:
    """Floating-point operations of the matrix products and convolutions of a call."""
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def ratios(contenders: dict[str, dict]) -> dict[str, dict]:
    """The ratios that have targets and guards.

    eager: time of the eager fp32 yardstick over our best time.
    fp32, bf16: best time of the yardstick in that precision over our best time in it.
    memory: peak memory that our fastest update adds, over the eager fp32 yardstick's.
    memory_fp32: the same in fp32.
    memory_saving: the same, of the update with that setting that saves most.
    """
    plain = [name for name, c in contenders.items() if not name.endswith(SAVING) and "ms" in c]
    saving = [name for name in contenders if name.endswith(SAVING)]

    def best(prefix: str) -> str:
        running = [name for name in plain if name.startswith(prefix)]
        return min(running, key=lambda name: contenders[name]["ms"])

    fastest = best("ours")
    pairs = {
        "eager": (EAGER, fastest),
        **{
            precision: (best(f"yardstick {precision}"), best(f"ours {precision}"))
            for precision in ("fp32", "bf16")
            if f"ours {precision}" in contenders
        },
        "memory": (fastest, EAGER),
        "memory_fp32": ("ours fp32", EAGER),
        "memory_saving": (min(saving, key=lambda name: contenders[name]["mib"]), EAGER),
    }
    targets = TARGETS | MEMORY_TARGETS
    if "ours bf16" not in contenders:
        targets["eager"] = EAGER_FP32_TARGET
    found = {}
    for name, (over, under) in pairs.items():
        unit = "mib" if name in MEMORY_TARGETS else "ms"
        found[name] = {
            "value": contenders[over][unit] / contenders[under][unit],
            "of": [over, under],
            "target": targets[name],
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
    guards.add_guards(
        record,
        device,
        {name: guards.ANY_TIME for name in record["ratios"] if name in TARGETS},
        {name: guards.ANY_MEMORY for name in MEMORY_TARGETS},
    )
    records.append(record)
    guards.check(record)


def _race(name: str, case: Case, config: Config, device: str) -> dict:
    contenders = _contenders(case, config, device)
    _first_losses(contenders)
    contenders[EAGER].zero_grad()
    flops = count_flops(contenders[EAGER].gradients)
    running = {n: c for n, c in contenders.items() if c.failure is None}
    for contender in running.values():
        contender.update()  # creates the optimisers' state
    calls = 5 if device == "cuda" else 1

    def measure() -> float:
        for contender in running.values():
            contender.ms.append(clock(contender.update, device, calls))
            contender.zero_grad()
        return sum(contender.ms[-1] for contender in running.values())

    rounds = max(
        2 if harness.quick else 3, min(50, int(harness.time_factor * SECONDS * 1e3 / measure()))
    )
    for _ in range(1, rounds):
        measure()

    found: dict[str, dict] = {}
    for n, contender in contenders.items():
        if contender.failure is not None:
            found[n] = {"failed": contender.failure}
            continue
        losses: dict = {}
        mib = peak_mib(
            lambda losses=losses, update=contender.update: losses.update(update()), device
        )
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
            "mib": mib,
            "share_of_peak": flops / (ms / 1e3) / peak_flops(device, dtype),
        }
    return {
        "op": "step",
        "shape": name,
        "rounds": rounds,
        "flops": flops,
        "peak_flops": {
            precision: peak_flops(device, DTYPES[precision]) for precision in precisions(device)
        },
        "contenders": found,
        "ratios": ratios(found),
    }
