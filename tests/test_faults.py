"""What goes wrong outside: damaged files, impossible numbers, full disks, dead processes.

Every command ends with one message that names the place, and nothing is lost or wrong in silence.
"""

import dataclasses
import io
import json
import math
import multiprocessing
import os
import random
import re
import resource
import shutil
import struct
import subprocess
import sys
import types
import typing
import warnings
import zlib
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from gioada_fast import cli, street_scenes
from gioada_fast.config import (
    AdaptationConfig,
    Config,
    DataConfig,
    ModelConfig,
    OptimiserConfig,
    ScheduleConfig,
    SourceConfig,
    TargetConfig,
)
from gioada_fast.data import pack_writer, rasters
from gioada_fast.data.check import check_set
from gioada_fast.data.loader import PairStream
from gioada_fast.data.pack_reader import folder_of
from gioada_fast.data.sets import source_frames, source_set
from gioada_fast.engine import memory_estimate
from gioada_fast.engine.checkpoint import checksum, load_checkpoint
from gioada_fast.engine.networks import load_task
from gioada_fast.engine.run_folder import RunFolder
from gioada_fast.errors import InputError
from gioada_fast.labels import label_space
from gioada_fast.memory import available_memory, check_memory

from .commands import command
from .miniature import SIZE, flags, write_camvid, write_street_scenes


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Miniature data and one finished run."""
    folder = tmp_path_factory.mktemp("faults")
    write_street_scenes(folder / "scenes")
    write_camvid(folder / "camvid")
    done = command("train", *flags(folder / "scenes", folder / "runs"), cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def run(world, tmp_path):
    return Path(shutil.copytree(world / "runs" / "mini", tmp_path / "run"))


def refused(done, *words, status=2):
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


# Configurations

CONFIGURATIONS = {
    "latin-1": ("name: Straße\n".encode("latin-1"), "is not UTF-8"),
    "utf-16": ("seed: 1\n".encode("utf-16"), "is not UTF-8"),
    "zeros": (b"seed: 1\n\0\0\0\0", "not readable as YAML"),
    "empty": (b"", "configuration is empty"),
    "a list": (b"- seed: 1\n", "line 1: configuration is [{'seed': 1}]"),
    "a text": (b"seed\n", "line 1: configuration is 'seed'"),
    "cut off in a name": (b"data:\n  workers: 1\n  hei", "configuration"),
    "cut off after a name": (b"data:\n  workers:", "line 2: data.workers is empty"),
    "cut off after a section": (b"seed: 1\nschedule:\n", "schedule is empty"),
    "cut off in a list": (b"data: {sources: [{frames: ", "not readable as YAML"),
    "an empty text": (b"device:\n", "line 1: device is empty"),
    "a source without a number": (b"data: {sources: [{frames: }]}\n", "sources[0].frames is empty"),
    "a number as a section": (b"data: 3\n", "data is 3, expected 'name: value' lines"),
    "a list as a section": (b"data: {source: [1]}\n", "data.source is [1]"),
    "a number as a name": (b"1: 2\n", "1 is not the name of a setting"),
    "a huge number": (b"data: {height: " + b"9" * 5000 + b"}\n", "configuration is not readable"),
    "a surrogate": (b'name: "\\ud800"\n', "not readable as YAML"),
    "a deep nest": (b"[" * 100_000, "nested more than"),
    "null for a space": (b"data: {label_space: null}\n", "data.label_space is empty"),
}


PARSER = cli.config_parser("faults")


@pytest.mark.parametrize("case", CONFIGURATIONS)
def test_a_damaged_configuration_is_refused_with_its_place(tmp_path, case):
    content, message = CONFIGURATIONS[case]
    (tmp_path / "mine.yaml").write_bytes(content)
    with pytest.raises(InputError, match=re.escape(message)) as error:
        cli.instantiate(PARSER, PARSER.parse_args(["--config", str(tmp_path / "mine.yaml")]))
    assert str(tmp_path / "mine.yaml") in str(error.value)


def test_every_command_refuses_a_damaged_configuration(run, tmp_path):
    content, message = CONFIGURATIONS["latin-1"]
    (tmp_path / "mine.yaml").write_bytes(content)
    (run / "config.yaml").write_bytes(content)
    for module, *arguments in (
        ("train", "--config", "mine.yaml"),
        ("ablate", "--config", "mine.yaml"),
        ("data", "check", "--config", "mine.yaml"),
        ("train", "--resume", run),
        ("evaluate", run),
        ("assess", run),
        ("translate", run, "--output", "translated"),
    ):
        refused(command(module, *arguments, cwd=tmp_path), ".yaml", message)
    assert not (tmp_path / "translated").exists()


def test_a_class_twice_on_the_command_line_is_refused():
    with pytest.raises(InputError, match=r"data\.source\.classes, line 1: 7 is given twice"):
        PARSER.parse_args(["--data.source.classes={7: road, 7: car}"])


@pytest.mark.parametrize("content", ['{"columns": [{}]}'])
def test_a_damaged_result_is_refused_before_training_goes_on(run, tmp_path, content):
    (run / "result.json").write_text(content)
    done = command("train", "--resume", run, cwd=tmp_path)
    refused(done, "result.json", "remove it")


# Numbers

SECTIONS = {
    Config: {},
    DataConfig: {},
    SourceConfig: {},
    TargetConfig: {},
    ModelConfig: {},
    AdaptationConfig: {"self_training": True},
    OptimiserConfig: {},
    ScheduleConfig: {},
}


def numbers(kind):
    """(section, setting) of all settings that may be of a type."""
    found = []
    for section in SECTIONS:
        for name, hint in typing.get_type_hints(section).items():
            union = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
            if kind in (typing.get_args(hint) if union else (hint,)):
                found.append(pytest.param(section, name, id=f"{section.__name__}.{name}"))
    return found


@pytest.mark.parametrize(("section", "name"), numbers(float))
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_rates_and_weights_are_finite(section, name, value):
    with pytest.raises(InputError, match=f"{name} is "):
        section(**{**SECTIONS[section], name: value})


@pytest.mark.parametrize(("section", "name"), numbers(int))
@pytest.mark.parametrize("value", [2**63, 2**70, -1])
def test_whole_numbers_have_bounds(section, name, value):
    with pytest.raises(InputError, match=f"{name} is "):
        section(**{**SECTIONS[section], name: value})


def test_every_setting_without_a_value_is_refused():
    for section in SECTIONS:
        for field in dataclasses.fields(section):
            hint = typing.get_type_hints(section)[field.name]
            if type(None) not in typing.get_args(hint) and not dataclasses.is_dataclass(hint):
                with pytest.raises(InputError, match=f"{field.name} is empty"):
                    section(**{field.name: None})


@pytest.mark.parametrize(
    "flag", ["--scale=nan", "--scale=1e308", "--batch=0", f"--batch={2**70}", "--window=0"]
)
def test_flags_have_bounds(world, tmp_path, flag):
    run = world / "runs" / "mini"
    done = command("predict", run, world / "camvid", "--output", "out", flag, cwd=tmp_path)
    refused(done, flag.partition("=")[0])


LARGE = {
    "batches": ({"data.workers": 200, "schedule.batch_size": 4096}, "401 batches of 4096 pairs"),
    "networks": ({"model.width": 64}, "weights, gradients and optimisers would need at least"),
    "activations": ({"data.workers": 0}, "A batch of 2 images of 16384x16384 would need at least"),
}


@pytest.mark.parametrize("case", LARGE)
def test_memory_is_estimated_before_it_is_asked_for(world, tmp_path, monkeypatch, case):
    monkeypatch.setattr("gioada_fast.memory.available_memory", lambda: 64 * 2**30)
    settings, message = LARGE[case]
    side = {} if case == "networks" else {"data.height": 16384, "data.width": 16384}
    done = command("train", *flags(world / "scenes", tmp_path, **settings, **side), cwd=tmp_path)
    refused(done, message, "64.0 GiB are free")
    assert not (tmp_path / "mini").exists()


def test_the_estimate_is_a_lower_bound_of_what_a_forward_pass_keeps():
    config = Config(data=DataConfig(height=64, width=96), schedule=ScheduleConfig(batch_size=2))
    config.precision = "fp32"
    weights, activations = memory_estimate._task_memory(config, 11, torch.device("cpu"))
    assert weights > 4 * 4 * 10**6 and 2**20 < activations < 2**26


def test_rendering_is_refused_if_the_memory_does_not_suffice(monkeypatch):
    assert available_memory() > 2**20
    with pytest.raises(InputError, match=r"it would need at least 2\.0 GiB of memory, 1\.0 MiB"):
        check_memory(2**31, "it", "take less", 2**20)
    monkeypatch.setattr("gioada_fast.memory.available_memory", lambda: 2**30)
    with pytest.raises(InputError, match="rendering a street scene of 16384x16384 pixels"):
        street_scenes.render(0, size=(16384, 16384))


# Decoders


def png_chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def huge_png(side):
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(99))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def huge_jpeg(side):
    data = bytearray(cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))[1].tobytes())
    place = data.find(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", side, side)
    return bytes(data)


def huge_bmp(side):
    data = bytearray(cv2.imencode(".bmp", np.zeros((64, 64, 3), np.uint8))[1].tobytes())
    data[18:26] = struct.pack("<ii", side, side)
    return bytes(data)


def huge_npy(side):
    file = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": (side, side)}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()


HUGE = {".png": huge_png, ".jpg": huge_jpeg, ".bmp": huge_bmp, ".npy": huge_npy}


@pytest.mark.parametrize("suffix", HUGE)
@pytest.mark.parametrize("side", [60000, 30000])
def test_a_header_that_asks_for_any_size_is_one_unreadable_frame(tmp_path, suffix, side):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(HUGE[suffix](side))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for read in (rasters.read_image, rasters.read_labels, rasters.read_values):
        with pytest.raises(InputError, match=rf"a\{suffix}") as error:
            read(path)
        for word in ("OpenCV", "error:", " 0x", "DecompressionBomb"):
            assert word not in str(error.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000


@pytest.mark.parametrize(
    "raised", [cv2.error("OpenCV(5) x.cpp:1"), MemoryError(), struct.error("a"), RecursionError()]
)
def test_whatever_a_decoder_raises_is_in_our_words(world, monkeypatch, raised):
    def imdecode(*_):
        raise raised

    monkeypatch.setattr(cv2, "imdecode", imdecode)
    path = next((world / "camvid" / "train").glob("*.png"))
    with pytest.raises(InputError, match=r"train_\d+\.png: not a readable image.*PNG, ") as error:
        rasters.read_image(path)
    assert "OpenCV" not in str(error.value)


def test_training_check_and_predict_take_a_huge_header_for_one_frame(world, tmp_path):
    shutil.copytree(world / "scenes", tmp_path / "scenes")
    image = sorted((tmp_path / "scenes").rglob("*day*/*_image.png"))[0]
    image.write_bytes(huge_png(60000))
    settings = {"schedule.source_only_steps": 3, "schedule.adaptation_steps": 0}
    done = command("train", *flags(tmp_path / "scenes", tmp_path, **settings), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "60000x60000 pixels, too large: left out (1 of at most 10)" in done.stdout
    config = DataConfig(
        source=SourceConfig(root=str(tmp_path / "scenes"), frames=6), height=SIZE[0], width=SIZE[1]
    )
    report = check_set(source_set(config), "source", label_space("camvid11"), workers=0)
    assert [error.message for error in report.errors if "60000x60000" in error.message]
    run = world / "runs" / "mini"
    done = command("predict", run, image.parent, "--output", "out", cwd=tmp_path)
    refused(done, "1 image cannot be read", "60000x60000", status=1)
    assert len(list((tmp_path / "out").glob("*_overlay.png"))) == 17  # the other 5 images and maps


def test_translate_goes_on_past_an_unreadable_frame(world, tmp_path):
    scenes = shutil.copytree(world / "scenes", tmp_path / "scenes")
    run = Path(shutil.copytree(world / "runs" / "mini", tmp_path / "run"))
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace(str(world / "scenes"), str(scenes)))
    sorted(scenes.rglob("*day*/*_image.png"))[0].write_bytes(b"damaged")
    done = command("translate", run, "--output", "out", cwd=tmp_path)
    refused(done, "1 frames cannot be read", "0000000_image.png", status=1)
    assert len(list((tmp_path / "out" / "images").iterdir())) == 5


# Checkpoints and weights


def flipped(path, rng, bits=40):
    data = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    for place in rng.choices(range(start, len(data)), k=bits):
        data[place] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def test_flipped_bits_in_weights_are_refused_by_every_command(world, run, tmp_path):
    for name in ("task", "translation"):
        flipped(run / f"{name}.safetensors", random.Random(1))
    image = next((world / "camvid" / "train").glob("*.png"))
    for module, *arguments in (
        ("evaluate", run),
        ("predict", run, image, "--output", tmp_path / "out"),
        ("assess", run),
        ("translate", run, "--output", tmp_path / "translated"),
        ("train", f"--model.init_from={run}/task.safetensors", "--name=other", *[
            flag for flag in flags(world / "scenes", tmp_path) if "--name" not in flag]),
    ):  # fmt: skip
        refused(command(module, *arguments, cwd=tmp_path), ".safetensors", "checksum")


def test_metadata_has_the_checksum_and_weights_without_one_load(run):
    path = run / "task.safetensors"
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["gioada_fast"])
    assert len(header.pop("checksum")) == 64
    save_file(load_file(path), path, metadata={"gioada_fast": json.dumps(header)})
    load_task(path)  # as version 0.1.0 wrote it
    header["width"] = 0.25
    header["checksum"] = "0" * 64
    save_file(load_file(path), path, metadata={"gioada_fast": json.dumps(header)})
    with pytest.raises(InputError, match="checksum"):
        load_task(path)


def test_a_checksum_depends_on_every_value():
    contents = [
        {"a": torch.tensor([1.0, 2.0])}, {"a": torch.tensor([1.0, 2.5])},
        {"b": torch.tensor([1.0, 2.0])}, {"a": torch.tensor([[1.0, 2.0]])},
        {"a": torch.tensor([1.0, 2.0], dtype=torch.bfloat16)}, {"a": torch.zeros(0)},
        {"a": [1.0, 2.0]}, {"a": [1, 2]}, {"a": ["1", 2]}, {"a": [1, [2]]}, {"a": None}, {},
    ]  # fmt: skip
    assert len({checksum(content) for content in contents}) == len(contents)
    assert checksum({"a": 1, "b": 2}) == checksum({"b": 2, "a": 1})
    image = torch.rand(2, 3, 4, 5)
    assert checksum(image) == checksum(image.contiguous(memory_format=torch.channels_last))


@pytest.mark.parametrize("damage", ["one bit"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(world, run, tmp_path, damage):
    last, previous = run / "checkpoints" / "last.pt", run / "checkpoints" / "previous.pt"
    assert (load_checkpoint(last)["step"], load_checkpoint(previous)["step"]) == (8, 6)
    if damage == "missing":
        last.unlink()
    else:
        data = bytearray(last.read_bytes())
        data[len(data) // 2] ^= 1
        last.write_bytes(data)
    done = command("train", "--resume", run, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "last.pt" in said and "goes on from" in said and "previous.pt, update 6" in said
    original = world / "runs" / "mini"
    for name in ("task.safetensors", "translation.safetensors"):
        assert (run / name).read_bytes() == (original / name).read_bytes()
    assert load_checkpoint(last)["step"] == 8


@pytest.mark.parametrize("lost", [["task", "translation"]])
def test_a_finished_run_without_its_result_is_scored_again(world, run, tmp_path, lost):
    (run / "result.json").unlink()
    for name in lost:
        (run / f"{name}.safetensors").unlink()
    done = command("train", "--resume", run, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    ours, theirs = (
        json.loads((r / "result.json").read_text())["columns"] for r in (run, world / "runs/mini")
    )
    assert ours == (theirs[1:] if "task_source_only" in lost else theirs)
    assert (run / "task.safetensors").is_file()


# Scores


@pytest.mark.parametrize("value", [math.nan, 3e38])
def test_evaluate_says_that_scores_are_not_finite(world, run, value):
    path = run / "task.safetensors"
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["gioada_fast"])
    del header["checksum"]
    tensors = load_file(path)
    for tensor in tensors.values():
        tensor.fill_(value)
    save_file(tensors, path, metadata={"gioada_fast": json.dumps(header)})
    done = command("evaluate", run, cwd=world)
    refused(done, "mIoU", "not finite", "damaged", status=1)
    done = command("evaluate", run, "--json", cwd=world)
    refused(done, "not finite", status=1)
    assert json.loads(done.stdout)["miou"] is None and "NaN" not in done.stdout


def test_evaluate_says_that_no_pixel_was_scored(world, tmp_path):
    lines = "".join(f"{number}: null\n" for number in range(12))
    (tmp_path / "none.yaml").write_text(lines)
    arguments = ["--target", "folder", "--root", world / "camvid", "--images", "val/*"]
    arguments += ["--labels", "valannot/*", "--classes", "none.yaml"]
    done = command("evaluate", world / "runs" / "mini", *arguments, cwd=tmp_path)
    refused(done, "no pixel of its labels has a class", status=1)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--split", "nonsense"],
        ["--target", "camvid", "--root", "camvid", "--split", "nonsense"],
        ["--target", "folder", "--root", "camvid", "--images", "val/*", "--labels", "valannot/*",
         "--split", "nonsense"],
    ],
)  # fmt: skip
def test_a_split_that_a_set_lacks_is_refused(world, arguments):
    done = command("evaluate", world / "runs" / "mini", *arguments, cwd=world)
    refused(done, "nonsense")


def test_no_warning_comes_through_if_no_class_is_left(world, tmp_path):
    classes = ", ".join(f"{number}: null" for number in range(12))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        done = command("train", *flags(world / "scenes", tmp_path, **{
            "data.source.name": "folder", "data.source.root": world / "camvid",
            "data.source.images": "train/*", "data.source.labels": "trainannot/*",
            "data.source.classes": f"{{{classes}}}", "adaptation.input_level": "none",
            "adaptation.output_level": "none", "adaptation.self_training": "true",
            "adaptation.rare_class_temperature": 0.01, "schedule.source_only_steps": 1,
            "schedule.adaptation_steps": 1,
        }), cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "labels-ignored" in done.stdout


def test_a_folder_that_no_run_can_go_on_from_says_so(tmp_path):
    """As a run leaves it that is killed before it has written its settings."""
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    with pytest.raises(InputError, match=r"has no config\.yaml, .* remove it"):
        RunFolder(folder).claimed().__enter__()
    (folder / "config.yaml").write_text("seed: 0")
    with pytest.raises(InputError, match=f"resume it with --resume {folder}, or give another"):
        RunFolder(folder).claimed().__enter__()
    assert (folder / "checkpoints").is_dir()


# Full disks


@contextmanager
def largest_file(size):
    """No file grows beyond a size: every place that writes fails, whatever library writes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [0, 40_000, 2_000_000])
def test_a_run_on_a_full_disk_ends_with_a_message_and_is_resumed(world, tmp_path, size):
    with largest_file(size):
        done = command("train", *flags(world / "scenes", tmp_path), cwd=tmp_path)
    refused(done, "written")
    run = tmp_path / "mini"
    if not run.exists():  # nothing is left of a run that could not begin
        return
    done = command("train", "--resume", run, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (run / "task.safetensors").read_bytes() == (
        world / "runs" / "mini" / "task.safetensors"
    ).read_bytes()


def test_other_commands_on_a_full_disk_end_with_a_message(world, tmp_path):
    run, scenes = world / "runs" / "mini", world / "scenes"
    data = [f"--data.{side}.root={scenes}" for side in ("source", "target")]
    data += [
        "--data.source.frames=6",
        "--data.target.frames=5",
        "--data.target.evaluation_frames=3",
    ]
    data += ["--data.height=64", "--data.width=96"]
    image = next((world / "camvid" / "train").glob("*.png"))
    with largest_file(100):
        for module, *arguments in (
            ("predict", run, image, "--output", "predicted"),
            ("translate", run, "--output", "translated"),
            ("evaluate", run, "--save-predictions", "saved"),
            ("assess", run, "--output", "assessed"),
            ("data", "pack", *data, "--data.packs=packs"),
            ("data", "check", *data, "--only=source"),
            ("train", "--profile", *flags(scenes, tmp_path)),
        ):
            refused(command(module, *arguments, cwd=tmp_path), "written")
        paths = street_scenes.frame_paths(tmp_path, "day", SIZE, 0)
        paths.image.parent.mkdir(parents=True)
        image = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
        depth, labels = np.zeros((64, 96), np.float32), np.zeros((64, 96), np.uint8)
        frame = street_scenes.Frame(image, depth, labels)
        with pytest.raises(InputError, match="cannot be written"):
            street_scenes.cache.write_frame(frame, paths)
        assert not any(paths.image.parent.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_to_a_full_disk_ends_without_a_traceback(world):
    arguments = [sys.executable, "-m", "gioada_fast.data", "--help"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            arguments, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2 and "standard output" in done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


# Several processes


def _ensure(root):
    street_scenes.ensure(root, "day", range(3), (32, 48), workers=0)


def _pack(arguments):
    root, packs = arguments
    source = SourceConfig(root=str(root), frames=6)
    target = TargetConfig(root=str(root), frames=5, evaluation_frames=3)
    config = DataConfig(
        source=source, target=target, height=SIZE[0], width=SIZE[1], packs=str(packs)
    )
    try:
        pack_writer.pack(config, lambda _: None, workers=0)
    except InputError as error:
        return str(error)
    return [image.copy() for image, *_ in (source_frames(config)[k] for k in range(6))]


def test_two_processes_share_a_cache_and_a_pack(world, tmp_path):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        if street_scenes_can_be_rendered():
            pool.map(_ensure, [tmp_path / "cache"] * 2)
            files = [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]
            assert len(files) == 9 and all(rasters.read_values(file).size for file in files)
        packed = pool.map(_pack, [(world / "scenes", tmp_path / "packs")] * 2)
    images = [result for result in packed if not isinstance(result, str)]
    assert images and np.array_equal(images[0], images[-1])
    assert all("another process is packing" in r for r in packed if isinstance(r, str))
    assert not list((tmp_path / "packs").glob("*.partial"))
    assert folder_of(DataConfig(packs=str(tmp_path / "packs")), "data.source").is_dir()


def street_scenes_can_be_rendered():
    try:
        import embreex  # noqa: F401
    except ImportError:
        return False
    return True


def test_a_pack_that_another_process_finished_is_kept(world, tmp_path, monkeypatch):
    before = pack_writer._locked

    @contextmanager
    def late(folder):
        monkeypatch.setattr(pack_writer, "_locked", before)
        _pack((world / "scenes", tmp_path / "packs"))
        with before(folder):
            yield

    monkeypatch.setattr(pack_writer, "_locked", late)
    images = _pack((world / "scenes", tmp_path / "packs"))
    assert len(images) == 6


def test_a_killed_loader_process_is_named(world, tmp_path, monkeypatch):
    original = PairStream.__getitem__

    def killed(self, k):
        if k == 5:  # in the loader process, which is a fork of this one
            os.kill(os.getpid(), 9)
        return original(self, k)

    monkeypatch.setattr(PairStream, "__getitem__", killed)
    settings = {"data.workers": 1, "schedule.checkpoint_every": 1}
    done = command("train", *flags(world / "scenes", tmp_path, **settings), cwd=tmp_path)
    refused(done, "a process that loads images was killed", "checkpoint", status=1)
    monkeypatch.setattr(PairStream, "__getitem__", original)
    done = command("train", "--resume", tmp_path / "mini", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "mini" / "task.safetensors").read_bytes() == (
        world / "runs" / "mini" / "task.safetensors"
    ).read_bytes()
