"""Pairs per second of the loader, from the data sets' own files, from zip archives and from packs.

The frames are synthetic. Images have structure on all scales and camera noise, so that a PNG is
about as large as in SYNTHIA (1.3 MiB) and Cityscapes (2.5 MiB); labels and depth form patches.
Files are in the page cache, so the benchmark measures decoding, resizing, mirroring and copying; on
a slow disk, files and packs are both slower. Every batch is read once, as in training. A process
verifies the checksum of a frame in a pack when it first reads the frame; this is measured
separately, as the first epoch.
"""

import itertools
import os
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from benchmarks import guards, harness
from benchmarks.harness import clock, records
from gioada_fast import street_scenes
from gioada_fast.adaptation import Batch, TwoLevelAdaptation
from gioada_fast.config import Config, DataConfig, SourceConfig, TargetConfig
from gioada_fast.data import pack_writer, sets
from gioada_fast.data.loader import PairStream, pair_batches
from gioada_fast.data.unreadable import Unreadable
from gioada_fast.engine.step import Step
from gioada_fast.engine.trainer import Phase, build_optimisers
from gioada_fast.labels import STREET, label_space

FRAMES = 8
WORKERS = (0, 1, 2)
ROUNDS = 2
SECONDS = 1.5  # measurement time for each source of frames, number of workers and round


def _write_synthia(root: Path) -> SourceConfig:
    for index in range(FRAMES):
        rng = np.random.default_rng(index)
        patches, depth = _patches((760, 1280), 23, rng)
        ids = patches.astype(np.uint16)
        _write_png(root / f"RGB/{index:07d}.png", _image(patches, rng))
        _write_png(root / f"GT/LABELS/{index:07d}.png", np.dstack([ids, ids * 7, ids * 0]))
        _write_png(root / f"Depth/Depth/{index:07d}.png", np.dstack([depth] * 3))
    return SourceConfig(name="synthia", root=str(root))


def _write_cityscapes(root: Path) -> TargetConfig:
    for index in range(FRAMES):
        rng = np.random.default_rng(1000 + index)
        patches, _ = _patches((1024, 2048), 23, rng)
        name = f"leftImg8bit/train/aachen/aachen_{index:06d}_000019_leftImg8bit.png"
        _write_png(root / name, _image(patches, rng, noise=0.3))
    return TargetConfig(name="cityscapes", root=str(root))


def _write_scenes(root: Path) -> tuple[SourceConfig, TargetConfig]:
    """Write frames in the format of the cache of street scenes."""
    for look, first in (("day", 0), ("overcast", 1_000_000)):
        for seed in range(first, first + FRAMES):
            rng = np.random.default_rng(seed)
            paths = street_scenes.frame_paths(root, look, (180, 240), seed)
            labels, depth = _patches((180, 240), len(STREET.classes), rng)
            for path, array in zip(paths, (_image(labels, rng), labels, depth), strict=True):
                _write_png(path, array)
    return (
        SourceConfig(root=str(root), frames=FRAMES),
        TargetConfig(root=str(root), frames=FRAMES),
    )


def _patches(size: tuple[int, int], classes: int, rng) -> tuple[np.ndarray, np.ndarray]:
    """(classes uint8 [H, W] in patches, depth uint16 [H, W] in centimetres with the same edges)."""
    h, w = size
    coarse = cv2.resize(rng.random((h // 40, w // 40)), (w, h), interpolation=cv2.INTER_CUBIC)
    fine = cv2.resize(rng.random((h // 8, w // 8)), (w, h), interpolation=cv2.INTER_LINEAR)
    patches = (np.clip(coarse + 0.05 * fine, 0, 1) * (classes - 1)).astype(np.uint8)
    rows = np.linspace(60000, 300, h)[:, None]
    return patches, (rows * (0.5 + rng.random(classes)[patches] / 2)).astype(np.uint16)


def _image(patches: np.ndarray, rng, noise: float = 0.5) -> np.ndarray:
    """uint8 [H, W, 3]: one colour per patch, texture on all scales, and ``noise`` per pixel."""
    h, w = patches.shape
    image = rng.integers(40, 200, (256, 3)).astype(np.float32)[patches]
    scale = 64
    while scale >= 4:
        texture = rng.standard_normal((h // scale + 1, w // scale + 1, 3)).astype(np.float32)
        image += 2 * cv2.resize(texture, (w, h), interpolation=cv2.INTER_LINEAR)
        scale //= 2
    image += noise * rng.standard_normal(image.shape).astype(np.float32)
    return image.clip(0, 255).astype(np.uint8)


def _write_png(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Use the filters of most PNG writers; OpenCV's own make larger files.
    assert cv2.imwrite(
        str(path), array, [cv2.IMWRITE_PNG_COMPRESSION, 4, cv2.IMWRITE_PNG_STRATEGY, 0]
    )


@dataclass(frozen=True)
class Case:
    """The frames to load."""

    write: Callable[[Path], tuple[SourceConfig, TargetConfig]]
    label_space: str
    size: tuple[int, int]
    batch_size: int


CASES = {
    "street scenes 4x180x240": Case(_write_scenes, "camvid11", (180, 240), 4),
    "SYNTHIA, Cityscapes 1x512x1024": Case(
        lambda root: (_write_synthia(root / "s"), _write_cityscapes(root / "t")),
        "cityscapes16",
        (512, 1024),
        1,
    ),
}
ANY = {"files": guards.ANY_TIME, "step": guards.ANY_TIME, "zip": 0.6}
"""What holds on any machine: packs are no slower than files, and feed the step; archives add little
to the decoding of images."""
TARGETS = {"files": 8.0, "step": 1.5, "zip": 0.9}
"""Goals at 1024x512: pairs per second from packs, divided by pairs per second from files, and by
pairs per second that the step of the demo's networks consumes; and pairs per second from archives,
divided by those from files. Each loader has its best number of processes."""


def _batches(source, target, case: Case, workers: int, count: int):
    """Yield ``count`` batches. All tensors of a batch are read before it is yielded."""
    stream = PairStream(source, target, 0, True, case.size)
    unreadable = Unreadable(0, print)
    loaded = pair_batches(stream, 0, count, case.batch_size, workers, False, unreadable)
    for batch in loaded:
        for tensor in batch.values():
            tensor.clone()
        yield batch


def _pairs_per_second(frames, case: Case, workers: int, ms: float) -> float:
    """Speed after the first epoch. ``ms``, the rough time of a batch, sets the batch count."""
    warm = 4 * workers + FRAMES // case.batch_size
    count = max(12, min(2000, int(harness.time_factor * SECONDS * 1e3 / ms)))
    batches = _batches(*frames, case, workers, warm + count)
    next(itertools.islice(batches, warm - 1, None))
    start = time.perf_counter()
    for _ in batches:
        pass
    return count * case.batch_size / (time.perf_counter() - start)


def _first_epoch(config: DataConfig, case: Case) -> float:
    """Pairs per second of a first epoch, in which the process verifies the pack's checksums."""
    frames = sets.source_frames(config), sets.target_images(config)
    count = FRAMES // case.batch_size
    batches = _batches(*frames, case, 0, count)
    start = time.perf_counter()
    for _ in batches:
        pass
    return count * case.batch_size / (time.perf_counter() - start)


def _step(frames, case: Case) -> float:
    """Pairs per second that a full update of the demo's networks consumes."""
    torch.manual_seed(0)
    config = Config()
    classes = label_space(case.label_space).num_classes
    adaptation = TwoLevelAdaptation(classes, config.adaptation, config.model)
    adaptation = adaptation.to(memory_format=torch.channels_last)
    step = Step(adaptation, build_optimisers(config, adaptation, Phase("adaptation", 0, 1000)))
    batch = Batch(**next(_batches(*frames, case, 0, 1)))
    step([batch])
    return case.batch_size * 1e3 / min(clock(lambda: step([batch]), "cpu") for _ in range(3))


def _zipped(config: DataConfig, folder: Path) -> DataConfig | None:
    """The same frames in an archive for each set; None for street scenes, which are rendered."""
    if config.source.name == "street_scenes":
        return None
    folder.mkdir()
    sides = {}
    for side, frames in (("source", config.source), ("target", config.target)):
        root = Path(frames.root)
        with zipfile.ZipFile(folder / f"{side}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(root.rglob("*")):
                archive.write(path, path.relative_to(root))
        sides[side] = replace(frames, root=str(folder / f"{side}.zip"))
    return replace(config, **sides)


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", CASES)
def bench_loader(name, device, tmp_path):
    if device != "cpu":
        pytest.skip("the loader runs on the CPU")
    case = CASES[name]
    source, target = case.write(tmp_path / "files")
    h, w = case.size
    config = DataConfig(source, target, label_space=case.label_space, height=h, width=w)
    config.packs = str(tmp_path / "packs")
    pack_writer.pack(config)
    frames = {
        "files": (sets.source_files(config), sets.target_files(config)),
        "pack": (sets.source_frames(config), sets.target_images(config)),
    }
    zipped = _zipped(config, tmp_path / "zip")
    if zipped is not None:
        frames["zip"] = sets.source_files(zipped), sets.target_files(zipped)
        np.testing.assert_array_equal(frames["zip"][0][0].image, frames["files"][0][0].image)
    ways = [(way, workers) for way in frames for workers in WORKERS]
    once = {
        way: clock(lambda both=both: next(_batches(*both, case, 0, 1)), "cpu")
        for way, both in frames.items()
    }
    speeds: dict[tuple[str, int], list[float]] = {key: [] for key in ways}
    rounds = 1 if harness.quick else ROUNDS
    for _ in range(rounds):
        for way, workers in ways:
            speeds[way, workers].append(_pairs_per_second(frames[way], case, workers, once[way]))
    fastest = {key: max(rounds) for key, rounds in speeds.items()}
    best = {way: max(fastest[way, workers] for workers in WORKERS) for way in frames}
    step = _step(frames["pack"], case)
    ratios = {"files": best["pack"] / best["files"], "step": best["pack"] / step}
    if zipped is not None:
        ratios["zip"] = best["zip"] / best["files"]
    record = {
        "op": "loader",
        "shape": name,
        "cores": len(os.sched_getaffinity(0)),
        "rounds": rounds,
        "loaders": {
            way: {
                "pairs_per_second": {str(n): fastest[way, n] for n in WORKERS},
                "mib_per_pair": _bytes(tmp_path / folder) / FRAMES / 2**20,
            }
            for way, folder in (("files", "files"), ("pack", "packs"), ("zip", "zip"))
            if way in frames
        },
        "first_epoch_pairs_per_second": max(_first_epoch(config, case) for _ in range(5)),
        "step_pairs_per_second": step,
        "ratios": {key: {"value": value, "target": TARGETS[key]} for key, value in ratios.items()},
    }
    guards.add_guards(record, device, {key: ANY[key] for key in ratios})
    records.append(record)
    guards.check(record)
