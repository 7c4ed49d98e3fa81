"""A trainer run on the fused ops and one on plain PyTorch are the same run, up to rounding."""

import json

import pytest
import torch

from gioada_fast import ops

from ..commands import command
from ..miniature import flags, write_street_scenes
from ..op_checks import require

STEPS = 20


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    write_street_scenes(folder)
    return folder


def losses_by_step(scenes, runs, backend, **settings):
    """Step -> losses by name, of the first 20 steps."""
    settings = {
        "schedule.log_every": 1,
        "schedule.evaluate_every": STEPS,
        "schedule.panel_every": STEPS,
        "schedule.checkpoint_every": STEPS,
        **settings,
    }
    with ops.backend(backend):
        done = command("train", *flags(scenes, runs / backend, **settings), cwd=scenes)
    assert done.returncode == 0, done.stderr
    lines = (runs / backend / "mini" / "metrics.jsonl").read_text().splitlines()
    logged = [json.loads(line) for line in lines]
    return {
        line["step"]: {k: v for k, v in line.items() if k.startswith("loss/")}
        for line in logged
        if any(k.startswith("loss/") for k in line)
    }


SOURCE_ONLY = {"schedule.source_only_steps": STEPS, "schedule.adaptation_steps": 0}
BOTH_LEVELS = {"schedule.source_only_steps": 0, "schedule.adaptation_steps": STEPS}
OTHER_LOSSES = {"adaptation.depth_loss": "berhu", "adaptation.gan_loss": "hinge"}


def apart(losses, others, steps=STEPS):
    """Largest relative difference of a loss in the first steps."""
    assert losses.keys() == others.keys() and len(losses) == STEPS
    return max(
        abs(found - others[step][name]) / max(abs(others[step][name]), 1e-3)
        for step in list(losses)[:steps]
        for name, found in losses[step].items()
    )


@pytest.mark.parametrize(
    "settings",
    [SOURCE_ONLY, BOTH_LEVELS, BOTH_LEVELS | OTHER_LOSSES],
    ids=["source only", "both levels", "both levels, berhu and hinge"],
)
def test_fused_and_reference_train_alike(scenes, tmp_path, settings):
    """No further apart than two runs on plain PyTorch whose sums are rounded differently.

    Training multiplies a rounding error tenfold every few steps; what rounding alone does is seen
    between one and two threads.
    """
    require("cpp", "cpu")
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        fused = losses_by_step(scenes, tmp_path / "two threads", "cpp", **settings)
        plain = losses_by_step(scenes, tmp_path / "two threads", "reference", **settings)
        torch.set_num_threads(1)
        other = losses_by_step(scenes, tmp_path / "one thread", "reference", **settings)
    finally:
        torch.set_num_threads(threads)
    found, rounding = apart(fused, plain), apart(other, plain)
    print(f"relative difference in {STEPS} steps: {found:.1e}, by rounding alone {rounding:.1e}")
    assert apart(fused, plain, steps=2) < 1e-5
    assert found < 10 * rounding + 1e-5
