"""The profile of an update: each network gets its time, and the command line prints it."""

import gzip
import json

import pytest
import torch

from gioada_fast.engine.profiling import OTHER, profile_updates
from gioada_fast.engine.step import Step

from ..commands import command
from ..miniature import flags, write_street_scenes
from ..test_adaptation import make_batch
from .test_step import make_trained


def test_time_is_assigned_to_the_network_that_takes_it(tmp_path):
    """One network is slowed down in its forward pass, another one in its backward pass."""
    adaptation, batch = make_trained(), make_batch()
    work = torch.randn(700, 700)

    class SlowBackward(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.view_as(x)

        @staticmethod
        def backward(ctx, grad):
            for _ in range(10):
                work @ work
            return grad

    def slow_forward(module, inputs):
        for _ in range(10):
            work @ work

    networks = {
        "G_img": adaptation.translation,
        "D_img": adaptation.image_discriminator,
        "G_task": adaptation.task,
        "D_out": adaptation.output_discriminator,
    }
    step = Step(adaptation, {}, "fp32")
    step.gradients([batch])

    def profiled():
        return profile_updates(lambda: step.gradients([batch]), networks, 2, None).networks

    before = profiled()
    assert list(before) == [*networks, "optimisers", OTHER]
    assert all(forward > 0 and backward > 0 for forward, backward in list(before.values())[:4])
    hooks = [
        adaptation.task.trunk.fc[0].register_forward_pre_hook(slow_forward),
        adaptation.translation.up1.register_forward_hook(lambda *a: SlowBackward.apply(a[-1])),
    ]
    after = profiled()
    for hook in hooks:
        hook.remove()
    more = {n: (after[n][0] - before[n][0], after[n][1] - before[n][1]) for n in before}
    assert max(more, key=lambda name: more[name][0]) == "G_task"
    assert max(more, key=lambda name: more[name][1]) == "G_img"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    write_street_scenes(root)
    return root


def test_the_command_line_prints_tables_and_writes_a_trace(scenes, tmp_path):
    short = {"schedule.adaptation_steps": 1}  # fewer updates than the profile measures
    done = command("train", "--profile", *flags(scenes, tmp_path, **short), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for text in ("G_img", "D_out", "optimisers", "aten::convolution_backward", "trace: "):
        assert text in done.stdout, done.stdout
    with gzip.open(tmp_path / "mini" / "trace.json.gz") as file:
        assert json.load(file)["traceEvents"]
    assert not (tmp_path / "mini" / "result.json").exists()
