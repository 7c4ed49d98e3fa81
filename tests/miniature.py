"""Miniature data sets on disk: street-scene frames that need no ray caster, and a CamVid folder.

Ground, sky and one car in different colours: enough to learn in a few steps.
"""

from pathlib import Path

import cv2
import numpy as np

from gioada_fast import street_scenes
from gioada_fast.config import EVALUATION_SEED, TARGET_SEED, TargetConfig
from gioada_fast.labels import STREET_IDS

SIZE = (64, 96)
LOOK = TargetConfig().look
"""The target's."""
SMALL_MODEL = {
    "width": 0.125,
    "translation_width": 0.125,
    "translation_blocks": 1,
    "discriminator_width": 0.125,
}


def write_street_scenes(
    root: Path,
    source: int = 6,
    target: int = 5,
    evaluation: int = 3,
    camera: street_scenes.CameraRanges = street_scenes.LOOK_CAMERA,
) -> None:
    """Fill the cache of street scenes, so that nothing is rendered; ``camera`` is the source's."""
    parts = (
        ("day", 0, source, camera),
        (LOOK, TARGET_SEED, target, street_scenes.LOOK_CAMERA),
        (LOOK, EVALUATION_SEED, evaluation, street_scenes.LOOK_CAMERA),
    )
    for look, first, count, ranges in parts:
        for seed in range(first, first + count):
            paths = street_scenes.frame_paths(root, look, SIZE, seed, ranges)
            paths.image.parent.mkdir(parents=True, exist_ok=True)
            image, labels, depth = street_frame(seed, dark=look != "day")
            cv2.imwrite(str(paths.image), image[..., ::-1])
            cv2.imwrite(str(paths.labels), labels)
            cv2.imwrite(str(paths.depth), depth)


def street_frame(seed: int, dark: bool = False):
    """(image uint8 [H, W, 3], street ids uint8 [H, W], centimetres uint16 [H, W])."""
    rng = np.random.default_rng(seed)
    (h, w), horizon = SIZE, int(rng.integers(24, 36))
    labels = np.full(SIZE, STREET_IDS["sky"], np.uint8)
    labels[horizon:] = STREET_IDS["road"]
    x = int(rng.integers(0, w - 24))
    labels[horizon + 4 : horizon + 16, x : x + 24] = STREET_IDS["car"]
    colours = {"sky": (150, 180, 230), "road": (90, 90, 90), "car": (170, 40, 40)}
    image = np.zeros((*SIZE, 3), np.float32)
    for name, colour in colours.items():
        image[labels == STREET_IDS[name]] = colour
    image = image * (0.6 if dark else 1.0) + rng.normal(0, 8, image.shape)
    depth = np.zeros(SIZE, np.uint16)
    rows = np.arange(horizon, h)
    depth[horizon:] = (15000 / (rows - horizon + 1)).astype(np.uint16)[:, None]
    return image.clip(0, 255).astype(np.uint8), labels, depth


def write_camvid(root: Path, splits=("train", "val"), count: int = 3) -> None:
    """A CamVid folder of 96x128 frames with labels for every split."""
    rng = np.random.default_rng(0)
    for split in splits:
        (root / split).mkdir(parents=True)
        (root / f"{split}annot").mkdir()
        for index in range(count):
            name = f"{split}_{index:03d}.png"
            image = rng.integers(0, 255, (96, 128, 3), np.uint8)
            cv2.imwrite(str(root / split / name), image)
            labels = rng.integers(0, 12, (96, 128), np.uint8)
            cv2.imwrite(str(root / f"{split}annot" / name), labels)


def flags(root: Path, runs: Path, **settings) -> list[str]:
    """Command-line flags of a run of a few steps on the miniature street scenes."""
    values = {
        "name": "mini",
        "runs_dir": runs,
        "precision": "fp32",
        "data.source.root": root,
        "data.target.root": root,
        "data.source.frames": 6,
        "data.target.frames": 5,
        "data.target.evaluation_frames": 3,
        "data.height": SIZE[0],
        "data.width": SIZE[1],
        "data.workers": 0,
        "schedule.source_only_steps": 4,
        "schedule.adaptation_steps": 4,
        "schedule.control": "false",
        "schedule.batch_size": 2,
        "schedule.log_every": 2,
        "schedule.evaluate_every": 4,
        "schedule.panel_every": 4,
        "schedule.checkpoint_every": 2,
        **{f"model.{name}": value for name, value in SMALL_MODEL.items()},
        **settings,
    }
    return [f"--{name}={value}" for name, value in values.items()]
