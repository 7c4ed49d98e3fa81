"""Procedural textures: surface noise, clouds, and alpha cut-outs of leaves and branches."""

from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

NUM_LEAF_CARDS = 4
NUM_BRANCH_CARDS = 6
NOISE_SIDE = 64
"""Side of the noise volume in voxels: a power of two, so that a bit mask wraps an index."""
CLOUD_SIDE = 256
"""Side of the cloud texture in texels."""


def _power_noise(shape: tuple[int, ...], exponent: float, seed: int) -> np.ndarray:
    """Periodic noise with the spectrum 1 / f**exponent, float32 in 0 .. 1, mean about 0.5."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*(np.fft.fftfreq(n) * n for n in shape), indexing="ij")
    frequency = np.sqrt(sum(axis**2 for axis in axes))
    frequency.flat[0] = 1
    spectrum = np.fft.fftn(rng.normal(size=shape)) * frequency**-exponent * (frequency > 1.5)
    noise = np.fft.ifftn(spectrum).real
    return np.clip(0.5 + 0.22 * noise / noise.std(), 0, 1).astype(np.float32)


@lru_cache
def noise_volume(exponent: float) -> np.ndarray:
    """Surface noise float32 [NOISE_SIDE ** 3] in 0 .. 1, a flattened cube."""
    return _power_noise((NOISE_SIDE,) * 3, exponent * 1.5, seed=7).ravel()


@lru_cache
def cloud_texture() -> np.ndarray:
    """Periodic cloud density float32 [CLOUD_SIDE, CLOUD_SIDE] in 0 .. 1."""
    return _power_noise((CLOUD_SIDE, CLOUD_SIDE), 1.9, seed=11)


class Cards(NamedTuple):
    """Alpha cut-out textures with their mip levels, finest level first; R is a level's side."""

    coverage: tuple[np.ndarray, ...]
    """float32 [cards, R, R] for each level: opaque fraction of a texel."""
    shade: tuple[np.ndarray, ...]
    """float32 [cards, R, R] for each level: multiplies the face's colour."""
    silhouette: np.ndarray
    """bool [cards, R, R] at the finest level: the plant with its holes closed, for labels."""


def _pyramid(coverage: np.ndarray, shade: np.ndarray, closing: int) -> Cards:
    """Builds the mip levels.

    Args:
        coverage: float32 [cards, R, R].
        shade: float32 [cards, R, R].
        closing: diameter in texels of the morphological closing that gives the silhouette.
    """
    silhouette = []
    for layer in coverage:
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (closing, closing))
        mask = cv2.copyMakeBorder(
            (layer > 0.3).astype(np.uint8), *(closing,) * 4, cv2.BORDER_CONSTANT, value=0
        )
        mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, kernel)
        silhouette.append(mask[closing:-closing, closing:-closing] > 0)
    levels_coverage, levels_shade = [coverage], [shade]
    while levels_coverage[-1].shape[1] > 8:
        for levels in (levels_coverage, levels_shade):
            size = (levels[-1].shape[1] // 2,) * 2
            levels.append(
                np.stack([cv2.resize(a, size, interpolation=cv2.INTER_AREA) for a in levels[-1]])
            )
    return Cards(tuple(levels_coverage), tuple(levels_shade), np.stack(silhouette))


@lru_cache
def leaf_cards() -> Cards:
    """Clumps of leaves, denser in the middle. Cards are 128 texels wide."""
    side, scale = 128, 2
    rng = np.random.default_rng(3)
    coverage, shade = [], []
    for _ in range(NUM_LEAF_CARDS):
        mask = np.zeros((side * scale, side * scale), np.float32)
        tone = np.full_like(mask, 0.6)
        for _ in range(150):
            radius, angle = abs(rng.normal(0, 0.21)), rng.uniform(0, 2 * np.pi)
            centre = (
                (0.5 + min(radius, 0.43) * np.array([np.cos(angle), np.sin(angle)])) * side * scale
            )
            axes = (int(rng.uniform(7, 13)), int(rng.uniform(4, 7)))
            leaf = (tuple(int(c) for c in centre), axes, float(rng.uniform(0, 360)), 0, 360)
            cv2.ellipse(mask, *leaf, 1.0, -1)
            cv2.ellipse(tone, *leaf, float(rng.uniform(0.4, 1.5)), -1)
        coverage.append(cv2.resize(mask, (side, side), interpolation=cv2.INTER_AREA))
        shade.append(cv2.resize(tone, (side, side), interpolation=cv2.INTER_AREA))
    return _pyramid(np.stack(coverage), np.stack(shade), closing=17)


def _grow(canvas: np.ndarray, rng: np.random.Generator) -> None:
    """Draws a tree's branches on a canvas [R, R], one generation of branches at a time."""
    side = canvas.shape[0]
    count = 4
    start = np.tile([side / 2, 0.0], (count, 1))
    angle = rng.normal(0, 0.38, count)
    length = side * rng.uniform(0.24, 0.31, count)
    width = 6.0
    while len(start):
        end = start + length[:, None] * np.stack([np.sin(angle), np.cos(angle)], 1)
        bow = (start + end) / 2 + rng.normal(0, 0.06, start.shape) * length[:, None]
        points = np.round(np.stack([start, bow, end], 1) * 16).astype(np.int32)
        cv2.polylines(canvas, list(points), False, 1.0, max(1, round(width)), cv2.LINE_AA, 4)
        parent = np.flatnonzero(length > side / 28)
        shoots = np.repeat(parent, rng.integers(1, 3, len(parent)))
        fraction = rng.uniform(0.35, 1.0, (len(shoots), 1))
        turn = rng.choice([-1, 1], len(shoots)) * rng.uniform(0.25, 0.85, len(shoots))
        # each long branch continues at its end and grows side shoots, which bend upwards
        start = np.concatenate([end[parent], start[shoots] + fraction * (end - start)[shoots]])
        angle = np.concatenate(
            [angle[parent] + rng.normal(0, 0.2, len(parent)), 0.93 * (angle[shoots] + turn)]
        )
        shorter = rng.uniform(0.55, 0.8, len(shoots))
        length = np.concatenate([0.72 * length[parent], shorter * length[shoots]])
        width *= 0.66


@lru_cache
def branch_cards() -> Cards:
    """Crowns without leaves that grow from the middle of the lower edge, 256 texels wide."""
    side, scale = 256, 2
    coverage = []
    for k in range(NUM_BRANCH_CARDS):
        rng = np.random.default_rng(100 + k)
        canvas = np.zeros((side * scale, side * scale), np.float32)
        _grow(canvas, rng)
        coverage.append(cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA))
    # cut the crown to an ellipse, so that the card's straight edge does not show
    y, x = np.mgrid[0:side, 0:side] / side
    crown = ((x - 0.5) / 0.49) ** 2 + ((y - 0.5) / 0.5) ** 2 < 1
    coverage = np.clip(np.stack(coverage) * 1.15, 0, 1) * crown.astype(np.float32)
    return _pyramid(coverage, np.ones_like(coverage), closing=31)
