"""Seeded random damage to everything that the package reads: it is read, or refused as bad input.

A failure names its seed: ``pytest tests/test_fuzz.py -k "[123]"`` runs one case.
"""

import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import tifffile
import torch

from gioada_fast import cli
from gioada_fast.config import Config, dump_settings
from gioada_fast.data import rasters
from gioada_fast.data.pack_reader import Manifest
from gioada_fast.engine.checkpoint import (
    load_checkpoint,
    load_weights,
    save_checkpoint,
    save_weights,
)
from gioada_fast.engine.run_folder import RunFolder
from gioada_fast.errors import InputError
from gioada_fast.labels import label_space, read_class_map

CASES = 300


class Kind(NamedTuple):
    """A kind of file, and what reads it."""

    name: str
    content: bytes
    read: Callable[[Path], object]


PARSER = cli.config_parser("fuzz")


def read_configuration(path: Path) -> Config:
    return cli.instantiate(PARSER, PARSER.parse_args(["--config", str(path)]))


def read_settings(path: Path) -> None:
    RunFolder(path.parent).read_settings()


def read_result(path: Path) -> None:
    RunFolder(path.parent).read_result()


def read_metrics(path: Path) -> None:
    RunFolder(path.parent).read_metrics()


def read_raster(path: Path) -> None:
    for read in (rasters.read_image, rasters.read_labels, rasters.read_values, rasters.image_facts):
        try:
            read(path)
        except InputError as error:
            assert str(path) in str(error) and len(str(error)) < 2000


def saved(save: Callable[[io.BytesIO], object]) -> bytes:
    file = io.BytesIO()
    save(file)
    return file.getvalue()


@pytest.fixture(scope="module")
def kinds(tmp_path_factory) -> list[Kind]:
    """One sound file of every kind."""
    folder = tmp_path_factory.mktemp("sound")
    image = np.random.default_rng(0).integers(0, 255, (24, 40, 3), np.uint8)
    grey = image[:, :, 0]
    save_checkpoint(folder / "a.pt", {"step": 1, "networks": {"a": torch.randn(50)}})
    save_weights(folder / "a.safetensors", torch.nn.Linear(4, 4), {"network": "task"})
    settings = {
        "seed": 3,
        "data": {"source": {"frames": 7}, "height": 64, "width": 96, "sources": None},
        "optimiser": {"task_lr": 1e-3, "clip_norm": 10.0},
        "schedule": {"source_only_steps": 3, "keep_best": "entropy"},
    }
    yaml = dump_settings(settings).encode()
    space = b"name: own\nclasses:\n  floor: {colour: [1, 2, 3], of: [road]}\n  wall: {id: 7}\n"
    column = {"name": "source only", "updates": 3, "iou": {"a": 0.5}, "miou": 0.5}
    result = {"target": "t", "seconds": 1.0, "classes": ["a"], "colours": [[1, 2, 3]]}
    record = {"step": 1, "phase": "adaptation", "loss/total": 1.5, "eval/iou": {"a": None}}
    camvid = label_space("camvid11")
    pictures = {s: cv2.imencode(s, image)[1].tobytes() for s in (".png", ".jpg", ".webp", ".bmp")}
    pictures[".tif"] = saved(lambda file: tifffile.imwrite(file, image, photometric="rgb"))
    pictures[".npy"] = saved(lambda file: np.save(file, grey))
    pictures[".npz"] = saved(lambda file: np.savez_compressed(file, depth=grey, other=grey))
    return [
        Kind("mine.yaml", yaml, read_configuration),
        Kind("config.yaml", yaml, read_settings),
        Kind("result.json", json.dumps({**result, "columns": [column]}).encode(), read_result),
        Kind("metrics.jsonl", json.dumps(record).encode() + b"\n", read_metrics),
        Kind("manifest.json", Manifest({}, (), {}).to_json().encode(), Manifest.read),
        Kind("space.yaml", space, label_space),
        Kind(
            "map.yaml",
            b"0: road\n1: car\n'255': null\n",
            lambda path: read_class_map(path, camvid, "data.source.classes"),
        ),
        Kind("a.pt", (folder / "a.pt").read_bytes(), load_checkpoint),
        Kind("a.safetensors", (folder / "a.safetensors").read_bytes(), load_weights),
        *(Kind(f"a{suffix}", content, read_raster) for suffix, content in pictures.items()),
    ]


TOKENS = (
    *(b"", b"null", b"~", b"nan", b".nan", b".inf", b"-1", b"1e400", b"0", b"true", b"[]", b"{}"),
    *(b"9" * 30, b"9" * 5000, b"\xff\xfe", b"\0", b"'", b'"', b": ", b"- ", b"\n", b"\t", b"&a "),
    *(b"*a", b"!!python/object:os.system", b"<<: ", "ä".encode("latin-1"), "\u2028".encode()),
)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Content with a few random changes."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(data) + 1)
        if rng.random() < 0.5:  # most of what can go wrong is in the headers
            place = min(place, rng.randrange(64))
        end = min(len(data), place + rng.choice((1, 2, 4, 20)))
        change = rng.randrange(7)
        if change == 0:
            del data[place:]
        elif change == 1:
            del data[place:end]
        elif change == 2:
            data[place:end] = rng.choice(TOKENS)
        elif change == 3:
            data[place:place] = rng.choice(TOKENS)
        elif change == 4:
            data[place:end] = rng.randbytes(end - place)
        elif change == 5:
            data[place:place] = data[end : end + rng.randrange(200)]
        elif place < len(data):
            data[place] ^= 1 << rng.randrange(8)
    return bytes(data)


VALUES = (
    *("", "null", "nan", "-inf", "1e400", "-1", "0", "1", "0.5", str(2**70), "[]", "{}", "[[[["),
    *("{a: {b: ]", "true", "ä", "../..", "x" * 300, "0x10", "1_000", "2026-13-77", "folder"),
)


def command_line(rng: random.Random) -> list[str]:
    """A few settings with values that may be anything."""
    names = [action.dest for action in PARSER._actions if action.dest not in ("help", "config")]
    names.remove("print_config")
    flags = [f"--{rng.choice(names)}={rng.choice(VALUES)}" for _ in range(rng.randint(1, 3))]
    if rng.random() < 0.1:
        flags.append(rng.choice(("--no.such=1", "--", "-x", "stray", "--data.source")))
    return flags


@pytest.mark.parametrize("seed", range(CASES))
def test_damaged_input_is_read_or_refused(kinds, tmp_path, seed):
    rng = random.Random(seed)
    try:
        if seed % 3 == 0:
            case = arguments = command_line(rng)
            cli.instantiate(PARSER, PARSER.parse_args(arguments))
        else:
            kind = kinds[seed % len(kinds)]
            content = damaged(kind.content, rng)
            case = f"{kind.name} {content[:300]!r}"
            (tmp_path / kind.name).write_bytes(content)
            kind.read(tmp_path / kind.name)
    except InputError as error:
        assert str(error), f"seed {seed}: {case}"
    except BaseException as error:
        raise AssertionError(f"seed {seed}: {case}: {error!r}") from error
