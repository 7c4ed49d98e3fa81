"""A small street by analytic ray casting: enough structure for the rules of plausibility.

Sky, buildings, trees, road, pavement, poles with signs, cars, pedestrians and cyclists, with planar
depth in metres; class ids are CamVid's.
"""

from typing import NamedTuple

import numpy as np

SIZE = (96, 160)
SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(11)
IDS = {
    "sky": SKY, "building": BUILDING, "pole": POLE, "road": ROAD, "pavement": PAVEMENT,
    "tree": TREE, "sign": SIGN, "fence": FENCE, "car": CAR, "pedestrian": PEDESTRIAN,
    "bicyclist": BICYCLIST,
}  # fmt: skip

_CAMERA_HEIGHT, _SEGMENT, _FAR = 1.6, 7.0, 150.0
_COLOURS = np.array(
    [(190, 205, 225), (120, 95, 80), (70, 70, 70), (85, 85, 90), (140, 135, 130), (50, 90, 45),
     (200, 170, 40), (110, 100, 70), (150, 40, 45), (60, 60, 110), (160, 110, 60)]
)  # fmt: skip


class ToyFrame(NamedTuple):
    image: np.ndarray
    """uint8 [H, W, 3] RGB."""
    ids: np.ndarray
    """uint8 [H, W]."""
    metres: np.ndarray
    """float32 [H, W], 0 for the sky."""


def frames(count: int, first: int = 0, video: bool = False) -> list[ToyFrame]:
    """Frames of different streets, or of one street along which the camera drives."""
    return [render(first if video else first + k, 3.0 * k if video else 0.0) for k in range(count)]


def render(street: int, travelled: float = 0.0) -> ToyFrame:
    """A frame of street number ``street`` after ``travelled`` metres."""
    rng = np.random.default_rng(street)
    h, w = SIZE
    horizon, centre = rng.uniform(0.36, 0.46) * h, rng.uniform(0.42, 0.58) * w
    right = (np.arange(w) - centre + 0.5)[None] / (0.6 * w) + np.zeros((h, 1))
    down = (np.arange(h) - horizon + 0.5)[:, None] / (0.6 * w) + np.zeros((1, w))
    edges = rng.uniform(3.2, 5.0, 2), rng.uniform(7, 12, 2)  # of road and pavement, by side
    side = (right > 0).astype(int)

    depth = np.full(SIZE, np.inf)
    ids = np.full(SIZE, SKY, np.uint8)
    shade = rng.normal(0, 4, SIZE) + 25 * (np.arange(h)[:, None] / h)
    ground = np.where(down > 0, _CAMERA_HEIGHT / np.maximum(down, 1e-6), np.inf)
    ground[ground > _FAR] = np.inf
    x = np.abs(right * np.where(np.isfinite(ground), ground, 0))
    on_ground = np.isfinite(ground)
    ids[on_ground] = np.where(x < edges[0][side], ROAD, PAVEMENT)[on_ground]
    depth[on_ground] = ground[on_ground]

    front = edges[1][side] / np.maximum(np.abs(right), 1e-6)
    segment = np.minimum((front + travelled) // _SEGMENT, 60).astype(int)
    heights = rng.uniform(2.5, 16, (2, 61))
    kinds = rng.choice([BUILDING, BUILDING, TREE, FENCE], (2, 61))
    heights[kinds == FENCE] = 2.0
    tints = rng.normal(0, 28, (2, 61))
    level = _CAMERA_HEIGHT - down * front
    bumps = 1.2 * np.sin(3 * (front + travelled)) * (kinds[side, segment] == TREE)
    walls = (
        (front < np.minimum(depth, _FAR)) & (level > 0) & (level < heights[side, segment] + bumps)
    )
    ids[walls], depth[walls] = kinds[side, segment][walls], front[walls]
    windows = 30 * ((level % 3 > 1.4) & ((front + travelled) % 2.2 > 1.0))
    shade = shade + np.where(walls, tints[side, segment] + windows * (ids == BUILDING), 0)

    things = [
        (CAR, 1.8, 0.0, 1.5, 2.6), (CAR, 1.8, 0.0, 1.5, -2.4), (PEDESTRIAN, 0.55, 0.0, 1.75, 5.6),
        (BICYCLIST, 0.7, 0.0, 1.8, 3.0), (POLE, 0.22, 0.0, 5.0, -5.2), (SIGN, 0.9, 2.2, 3.1, 5.4),
        (POLE, 0.22, 0.0, 3.0, 5.4),
    ]  # fmt: skip
    for kind, width, bottom, top, lateral in things * 3:
        z = (rng.uniform(4, 45) - travelled) % 45 + 4
        lateral = lateral + rng.uniform(-0.5, 0.5)
        tint = rng.normal(0, 35)
        level = _CAMERA_HEIGHT - down * z
        covered = (np.abs(right * z - lateral) < width / 2) & (level > bottom) & (level < top)
        covered &= z < depth
        ids[covered], depth[covered] = kind, z
        shade = np.where(covered, rng.normal(0, 6, SIZE) + tint, shade)

    image = _COLOURS[ids] + shade[..., None] - 10 * np.log1p(np.minimum(depth, 60))[..., None] / 4
    metres = np.where(np.isfinite(depth), depth, 0).astype(np.float32)
    return ToyFrame(image.clip(0, 255).astype(np.uint8), ids, metres)
