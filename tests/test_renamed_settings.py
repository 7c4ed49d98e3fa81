"""Settings that version 0.1.0 called something else, in its flags, YAML files, runs and weights."""

import json

import pytest
import torch
import yaml

from gioada_fast.config import Config, ModelConfig, rename_old_settings
from gioada_fast.engine.checkpoint import save_weights
from gioada_fast.engine.networks import build_adaptation, load_task, save_task
from gioada_fast.engine.run_folder import RunFolder

from .commands import command
from .miniature import SMALL_MODEL, flags, write_street_scenes

HINTS = {
    "model.start": "hint: model.start is now called model.init_from",
    "adaptation.half_rendered": (
        "hint: adaptation.half_rendered is now called adaptation.keep_half_untranslated"
    ),
    "model.norm": "hint: model.norm=none of resnet101 is now called model.norm=frozen_batch",
}


def with_old_names(settings):
    """The same settings as version 0.1.0 would have saved them."""
    model, adaptation = settings["model"], settings["adaptation"]
    model["start"] = model.pop("init_from")
    adaptation["half_rendered"] = adaptation.pop("keep_half_untranslated")
    if model["norm"] == "frozen_batch":
        model["norm"] = "none"
    return settings


def make_old(run):
    """Rewrite a run's settings, in its folder and in its checkpoint."""
    settings = with_old_names(yaml.safe_load(run.config.read_text()))
    run.config.write_text(yaml.safe_dump(settings))
    checkpoint = torch.load(run.checkpoint, weights_only=True)
    with_old_names(checkpoint["config"])
    torch.save(checkpoint, run.checkpoint)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Miniature frames, and a finished run that looks as if version 0.1.0 had made it."""
    folder = tmp_path_factory.mktemp("world")
    write_street_scenes(folder / "scenes")
    settings = {"adaptation.keep_half_untranslated": "false", "model.backbone": "resnet101"}
    settings["model.norm"] = "frozen_batch"
    done = command("train", *flags(folder / "scenes", folder / "runs", **settings), cwd=folder)
    assert done.returncode == 0, done.stderr
    run = RunFolder(folder / "runs" / "mini")
    make_old(run)
    for name in ("task", "task_source_only"):
        network, _, metadata = load_task(run.weights(name))
        assert metadata["norm"] == "frozen_batch"
        save_weights(run.weights(name), network, {**metadata, "norm": "none"})
    return folder


def printed_settings(*arguments, cwd):
    done = command("train", *arguments, "--print_config", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout), done.stderr


def test_old_flags_work_with_a_hint(tmp_path):
    for flags_ in (
        ["--model.start=a.safetensors", "--adaptation.half_rendered=false"],
        ["--model.start", "a.safetensors", "--adaptation.half_rendered", "false"],
    ):
        settings, stderr = printed_settings(*flags_, cwd=tmp_path)
        assert settings["model"]["init_from"] == "a.safetensors"
        assert settings["adaptation"]["keep_half_untranslated"] is False
        assert stderr.splitlines() == [HINTS["model.start"], HINTS["adaptation.half_rendered"]]


def test_old_names_in_a_yaml_file_work_with_a_hint_and_flags_override_them(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "model: {start: a.safetensors}\nadaptation: {half_rendered: false}\n"
        "optimiser: {task_lr: 1e-3}\n"
    )
    settings, stderr = printed_settings("--config", file, cwd=tmp_path)
    assert settings["model"]["init_from"] == "a.safetensors"
    assert settings["adaptation"]["keep_half_untranslated"] is False
    assert settings["optimiser"]["task_lr"] == 1e-3
    assert HINTS["model.start"] in stderr and HINTS["adaptation.half_rendered"] in stderr
    assert (
        settings["adaptation"]["self_train_half"] is False
    )  # the version of these names had no other
    flag = "--adaptation.keep_half_untranslated=true"
    settings, _ = printed_settings("--config", file, flag, cwd=tmp_path)
    assert settings["adaptation"]["keep_half_untranslated"] is True


def test_new_names_and_none_of_vgg_give_no_hint(tmp_path):
    arguments = ["--model.init_from=a.safetensors", "--model.norm=none"]
    settings, stderr = printed_settings(*arguments, cwd=tmp_path)
    assert settings["model"]["norm"] == "none" and stderr == ""
    assert ModelConfig(norm="none").trunk_norm == "none"


def test_none_of_resnet_is_its_frozen_batch_norm(tmp_path):
    model = ModelConfig(backbone="resnet101", norm="none")
    assert model.trunk_norm == model.norm == "frozen_batch"
    done = command(
        "train",
        "--model.norm=none",
        "--model.backbone=resnet101",
        "--model.init_from=no",
        cwd=tmp_path,
    )
    assert done.returncode == 2 and HINTS["model.norm"] in done.stderr
    (tmp_path / "mine.yaml").write_text("model: {norm: none, backbone: resnet101}\n")
    done = command("train", "--config=mine.yaml", "--model.init_from=no", cwd=tmp_path)
    assert done.returncode == 2 and HINTS["model.norm"] in done.stderr


def test_unknown_settings_are_still_refused(tmp_path):
    done = command("train", "--adaptation.third_rendered=false", cwd=tmp_path)
    assert done.returncode == 2 and "third_rendered" in done.stderr


def test_a_run_of_0_1_0_is_scored_and_resumed_without_a_hint(world):
    run = RunFolder(world / "runs" / "mini")
    miou = json.loads(run.result.read_text())["columns"][-1]["miou"]
    done = command("evaluate", run, "--json", cwd=world)
    assert done.returncode == 0 and "hint" not in done.stderr, done.stderr
    assert json.loads(done.stdout)["miou"] == pytest.approx(miou, abs=1e-12)
    done = command("train", "--resume", run, cwd=world)
    assert done.returncode == 0 and "hint" not in done.stderr, done.stderr
    assert json.loads(run.result.read_text())["columns"][-1]["miou"] == miou


def test_weights_of_0_1_0_are_a_start(world):
    start = world / "runs" / "mini" / "task.safetensors"
    values = {"name": "again", "model.backbone": "resnet101", "model.norm": "frozen_batch"}
    few = {"schedule.source_only_steps": 1, "schedule.adaptation_steps": 0}
    given = flags(world / "scenes", world / "runs", **values, **few)
    done = command("train", *given, f"--model.start={start}", cwd=world)
    assert done.returncode == 0 and HINTS["model.start"] in done.stderr, done.stderr


def test_rows_of_0_1_0_are_kept(world):
    settings = {
        "name": "ablation",
        "schedule.source_only_steps": 1,
        "schedule.adaptation_steps": 1,
        "adaptation.keep_half_untranslated": "false",
    }
    typed = [*flags(world / "scenes", world / "runs", **settings), "--seeds", "0", "--rows"]
    done = command("ablate", *typed, "source_only", cwd=world)
    assert done.returncode == 0, done.stderr
    run = RunFolder(world / "runs" / "ablation" / "seed0" / "source_only")
    make_old(run)
    trained = run.checkpoint.stat().st_mtime_ns
    done = command("ablate", *typed, "source_only", "input", cwd=world)
    assert done.returncode == 0 and "hint" not in done.stderr, done.stderr
    assert run.checkpoint.stat().st_mtime_ns == trained
    done = command("ablate", *typed, "source_only", "--adaptation.half_rendered=true", cwd=world)
    message = " ".join(done.stderr.split())
    assert done.returncode == 2 and HINTS["adaptation.half_rendered"] in message
    assert "adaptation.keep_half_untranslated = False, now it is True" in message


def test_all_or_some_settings_are_renamed():
    assert rename_old_settings({}) == {} and rename_old_settings({"model": None}) == {}
    settings = {"model": {"trunk_checkpointing": True}}
    rename_old_settings(settings)
    assert settings == {"model": {"task_checkpointing": True}}
    settings = {"model": {"start": None}, "adaptation": {"lambda_out": 0.1}}
    assert rename_old_settings(settings) == {"model.start": "model.init_from"}
    assert settings == {"model": {"init_from": None}, "adaptation": {"lambda_out": 0.1}}


def test_weights_of_vgg_keep_their_norm(tmp_path):
    config = Config(model=ModelConfig(norm="none", **SMALL_MODEL))
    save_task(tmp_path / "task.safetensors", build_adaptation(config).task, config)
    assert load_task(tmp_path / "task.safetensors")[2]["norm"] == "none"
