"""A run with a control: the same updates on the source alone, beside adaptation."""

import json
import signal
from unittest import mock

import pytest
from safetensors.torch import load_file

from gioada_fast.config import Config, ScheduleConfig
from gioada_fast.engine.ablation import row_config
from gioada_fast.engine.checkpoint import load_checkpoint, save_checkpoint
from gioada_fast.engine.step import Step
from gioada_fast.engine.trainer import phases, updates_done
from gioada_fast.street_scenes.cache import VERSION

from ..commands import command
from ..miniature import LOOK, flags, write_street_scenes
from .test_trainer import assert_equal

SOURCE_ONLY, ADAPTATION = 2, 2
UPDATES = SOURCE_ONLY + 2 * ADAPTATION
SETTINGS = {
    "schedule.source_only_steps": SOURCE_ONLY,
    "schedule.adaptation_steps": ADAPTATION,
    "schedule.control": "true",
    "schedule.log_every": 1,
    "schedule.panel_every": 2,
    "optimiser.adaptation_lr": 5e-4,
    "adaptation.self_training": "true",
}
TARGETS = f"street_scenes/v{VERSION}/{LOOK}_96x64/*_image.png"
NO_LEVELS = {
    "adaptation.input_level": "none",
    "adaptation.output_level": "none",
    "adaptation.self_training": "false",
}


def train(world, run, **settings):
    """Start a run, or resume it if its folder exists."""
    given = flags(world, run.parent, **{**SETTINGS, "name": run.name, **settings})
    return command("train", *(["--resume", run] if run.exists() else given), cwd=world)


def finish(world, run, **settings):
    done = train(world, run, **settings)
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout


def columns(run):
    return json.loads((run / "result.json").read_text())["columns"]


def records(run, phase=None):
    """The records of a phase without times."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [
        {key: value for key, value in line.items() if key not in ("pairs_per_second", "phase")}
        for line in lines
        if phase in (None, line["phase"])
    ]


def assert_same_weights(file, other):
    assert_equal(load_file(file), load_file(other), str(file))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Scenes, and three runs: with a control, without one, and with all levels off."""
    folder = tmp_path_factory.mktemp("control")
    write_street_scenes(folder)
    (folder / "log").write_text(finish(folder, folder / "runs" / "with"))
    for name, settings in (("without", {}), ("off", NO_LEVELS)):
        finish(folder, folder / "runs" / name, **{**settings, "schedule.control": "false"})
    return folder


def test_the_control_changes_no_bit_of_the_adapted_networks(world):
    ours, theirs = (world / "runs" / name for name in ("with", "without"))
    for name in ("task", "translation", "task_source_only"):
        assert_same_weights(ours / f"{name}.safetensors", theirs / f"{name}.safetensors")
    ours, theirs = (load_checkpoint(run / "checkpoints" / "last.pt") for run in (ours, theirs))
    for part in ("networks", "optimisers", "rng", "step", "phase", "branch"):
        assert_equal(ours[part], theirs[part], part)
    assert any(key.startswith("output_discriminator") for key in ours["networks"])
    for phase in ("source_only", "adaptation"):
        assert records(world / "runs" / "with", phase) == records(world / "runs" / "without", phase)


def test_the_control_is_a_run_with_all_levels_off(world):
    control, off = world / "runs" / "with", world / "runs" / "off"
    assert_same_weights(control / "task_control.safetensors", off / "task.safetensors")
    assert records(control, "control") == records(off, "adaptation")
    assert columns(off)[-1] == {**columns(control)[1], "name": "source only, longer"}


def test_results_name_three_columns_with_the_updates_of_each_network(world):
    run, end = world / "runs" / "with", SOURCE_ONLY + ADAPTATION
    assert [(column["name"], column["updates"]) for column in columns(run)] == [
        ("source only", SOURCE_ONLY),
        ("control", end),
        ("adapted", end),
    ]
    text = " ".join((world / "log").read_text().split())
    assert "difference to control" in text and f"control {end}, adapted {end}." in text
    assert "a control that trained as long on the source" in (run / "report.html").read_text()
    done = command("evaluate", run, "--weights", "task_control", "--json", cwd=world)
    assert json.loads(done.stdout)["miou"] == pytest.approx(columns(run)[1]["miou"], abs=1e-12)
    assert {path.name for path in run.glob("panels/*")} == {
        f"step_{step:06d}.jpg" for step in (2, 4)
    }
    assert list(run.glob("tensorboard/events*")) and list(run.glob("tensorboard/control/events*"))


def test_a_run_stopped_after_every_update_equals_the_unbroken_run(world, tmp_path):
    """It finds all that it needs in its checkpoint, even where files of weights are deleted."""
    update, stale = Step.__call__, {"loss/seg": 9.0}
    run, unbroken = tmp_path / "with", world / "runs" / "with"

    def interrupted(self, batches):
        signal.raise_signal(signal.SIGINT)
        return update(self, batches)

    with mock.patch.object(Step, "__call__", interrupted):
        for number in range(1, UPDATES + 1):
            assert train(world, run).returncode == 130
            last = load_checkpoint(run / "checkpoints" / "last.pt")
            step = number if number <= SOURCE_ONLY + ADAPTATION else number - ADAPTATION
            assert last["step"] == step
            # a killed run leaves records that its checkpoint does not have
            with (run / "metrics.jsonl").open("a") as log:
                if last["phase"] != "adaptation":
                    for later in (3, 4):
                        record = {"step": later, "phase": "adaptation", **stale}
                        log.write(json.dumps(record) + "\n")
                log.write('{"step": 1, "pha')
            for weights in run.glob("*.safetensors"):
                weights.unlink()
    assert "task_control.safetensors is missing" in finish(world, run)
    assert records(run) == records(unbroken)
    ours, theirs = (load_checkpoint(r / "checkpoints" / "last.pt") for r in (run, unbroken))
    for part in ("networks", "optimisers", "rng", "step"):
        assert_equal(ours[part], theirs[part], part)
    assert columns(run) == columns(unbroken)


def test_a_run_that_an_older_version_saved_is_resumed(world, tmp_path):
    """Its checkpoint does not name the phase."""
    update = Step.__call__

    def interrupted(self, batches):
        if "translation" in self.optimisers:
            signal.raise_signal(signal.SIGINT)
        return update(self, batches)

    run = tmp_path / "without"
    with mock.patch.object(Step, "__call__", interrupted):
        assert train(world, run, **{"schedule.control": "false"}).returncode == 130
    state = load_checkpoint(run / "checkpoints" / "last.pt")
    assert state["step"] == SOURCE_ONLY + 1
    del state["phase"], state["branch"], state["config"]["schedule"]["control"]
    save_checkpoint(run / "checkpoints" / "last.pt", state)
    finish(world, run)
    assert_same_weights(run / "task.safetensors", world / "runs" / "without" / "task.safetensors")
    assert records(run) == records(world / "runs" / "without")


@pytest.mark.parametrize(
    ("settings", "names", "words"),
    [
        ({"schedule.source_only_steps": 0}, ["control", "adapted"], "difference to control"),
        ({"schedule.adaptation_steps": 0}, ["source only"], "schedule.adaptation_steps is 0"),
        (NO_LEVELS, ["source only", "source only, longer"], "so the run is a control itself"),
        (
            {"data.target.name": "folder", "data.target.images": TARGETS},
            ["source only", "control", "adapted"],
            "control 2, adapted 2.",
        ),
    ],
)
def test_runs_without_an_adaptation_or_a_phase_or_labels(world, tmp_path, settings, names, words):
    few = {"schedule.source_only_steps": 1, "schedule.adaptation_steps": 1}
    output = finish(world, tmp_path / "few", **{**few, **settings})
    assert [column["name"] for column in columns(tmp_path / "few")] == names
    assert words in " ".join(output.split())


@pytest.mark.parametrize(
    ("control", "saved", "done"),
    [
        (True, None, {}),
        (True, ("source_only", 2), {"source_only": 2}),
        (True, ("control", 3), {"source_only": 2, "control": 3}),
        (True, ("adaptation", 3), {"source_only": 2, "control": 4, "adaptation": 3}),
        (False, (None, 1), {"source_only": 1}),
        (False, (None, 2), {"source_only": 2}),
        (False, (None, 3), {"source_only": 2, "adaptation": 3}),
    ],
)
def test_updates_done_in_a_checkpoint(control, saved, done):
    config = Config(schedule=ScheduleConfig(SOURCE_ONLY, ADAPTATION, control=control))
    state = saved and {"step": saved[1], **({"phase": saved[0]} if saved[0] else {})}
    assert updates_done(config, state) == done


def test_rows_of_an_ablation_train_no_control_of_their_own(tmp_path):
    config = Config(schedule=ScheduleConfig(control=True))
    assert [phase.name for phase in phases(config)] == ["source_only", "control", "adaptation"]
    assert not row_config(config, "both", 0, tmp_path).schedule.control
