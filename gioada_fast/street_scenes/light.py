"""The light of a scene: weather, radiance of the sky, ambient visibility, mirrored surroundings."""

from dataclasses import dataclass

import cv2
import numpy as np

from .looks import Look
from .rays import Caster
from .textures import CLOUD_SIDE, cloud_texture

ZENITH = np.array([0.2, 0.4, 0.85], np.float32)
HORIZON = np.array([0.96, 0.98, 1.0], np.float32)


@dataclass
class Weather:
    """Light of one frame. Radiance and irradiance are in units of the sensor's white point."""

    sun: np.ndarray | None
    """float32 [3] unit vector towards the sun, None when clouds hide it."""
    sun_colour: np.ndarray
    """float32 [3] irradiance from the sun."""
    sky_brightness: float
    """Scale of the sky's radiance."""
    ambient: np.ndarray
    """float32 [3] irradiance from the whole sky."""
    cloud_cover: float
    """0 is nearly clear, 1 and above is overcast."""
    haze: float
    """Extinction coefficient, 1 / metres."""
    cloud_offset: float
    """Shift of the cloud texture in texels, so that frames differ."""


def draw_weather(rng: np.random.Generator, look: Look) -> Weather:
    """Draws the light of a frame from the ranges of ``look``."""
    elevation, azimuth = np.deg2rad(rng.uniform(*look.sun_elevation)), rng.uniform(0, 2 * np.pi)
    sunny = rng.random() < look.sunny
    direction = np.array(
        [
            np.cos(elevation) * np.cos(azimuth),
            np.cos(elevation) * np.sin(azimuth),
            np.sin(elevation),
        ],
        np.float32,
    )
    sky = rng.uniform(*look.sky_brightness)
    cloud = rng.uniform(*look.cloud) * (rng.uniform(0.3, 0.6) if sunny else 1.0)
    warmth = np.array([1.0, 0.9, 0.74]) ** (1.6 - elevation)
    colour = warmth * rng.uniform(*look.sun_strength) * sky
    tint = np.array([0.9, 1.0, 1.15]) if sunny else np.array([0.99, 1.0, 1.02])
    ambient = tint * sky * (rng.uniform(0.4, 0.65) if sunny else rng.uniform(0.6, 0.95))
    return Weather(
        direction if sunny else None,
        colour.astype(np.float32),
        sky,
        ambient.astype(np.float32),
        cloud,
        rng.uniform(*look.haze),
        rng.uniform(0, CLOUD_SIDE),
    )


def sky_radiance(directions: np.ndarray, weather: Weather) -> np.ndarray:
    """Radiance of the sky, float32 [N, 3] linear RGB, along unit directions float32 [N, 3]."""
    up = np.clip(directions[:, 2], 0, 1)
    blue = np.power(up, np.float32(0.55))[:, None]
    colour = HORIZON + (ZENITH - HORIZON) * blue
    # clouds lie on a plane overhead; near the horizon their size is clamped, else they would alias
    scale = np.float32(38) / np.maximum(up, 0.07)
    x, y = directions[:, 0] * scale + np.float32(weather.cloud_offset), directions[:, 1] * scale
    broad = _clouds(x, y)
    ragged = _clouds(x * np.float32(3.1), y * np.float32(3.1))
    density = 0.75 * broad + 0.25 * ragged
    cover = np.clip((density - np.float32(0.8 - 0.6 * weather.cloud_cover)) * 3.2, 0, 1)[:, None]
    lit = (0.62 + 0.5 * broad + 0.15 * (ragged - 0.5))[:, None] * HORIZON
    colour += cover * (lit - colour)
    if weather.sun is not None:
        glare = np.clip(np.einsum("nc,c->n", directions, weather.sun), 0, 1) ** 12
        colour += 0.8 * glare[:, None]
    return colour * np.float32(weather.sky_brightness * 1.2)


def _clouds(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = np.mod(x, CLOUD_SIDE).astype(np.float32), np.mod(y, CLOUD_SIDE).astype(np.float32)
    count = len(x)
    if not count:
        return x
    # cv2.remap takes at most 32767 columns, so the samples are folded into rows of 256
    shape = (-(-count // 256), 256)
    map_x, map_y = np.resize(x, shape), np.resize(y, shape)
    out = cv2.remap(cloud_texture(), map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    return out.ravel()[:count]


def ambient_visibility(
    caster: Caster, points: np.ndarray, normals: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """How much of a point's surroundings is open: 1 minus ambient occlusion.

    Each pixel casts one cosine-weighted ray. The directions repeat every 4 x 4 pixels, and a filter
    of that size averages sixteen of them within one surface.

    Args:
        caster: the scene.
        points: float32 [H * W, 3] world points just off the surface; NaN where there is none.
        normals: float32 [H * W, 3] unit surface normals.
        shape: (H, W) in pixels.

    Returns:
        float32 [H * W] in 0.15 .. 1; 1 where there is no surface.
    """
    height, width = shape
    open_sky = np.ones(height * width, np.float32)
    index = np.flatnonzero(~np.isnan(points[:, 0]))
    row, column = index // width, index % width
    cell = (row % 4) * 4 + column % 4
    # permutations of the sixteen cells, so that azimuth and elevation vary independently
    azimuth = (cell * 7 % 16 + 0.5) * np.float32(2 * np.pi / 16)
    lift = (cell * 5 % 16 + 0.5) / 16 * 2 - 1
    ring = np.sqrt(1 - lift**2)
    ball = np.stack([ring * np.cos(azimuth), ring * np.sin(azimuth), lift], 1).astype(np.float32)
    direction = normals[index] + ball
    direction /= np.maximum(np.sqrt(np.einsum("nc,nc->n", direction, direction)), 1e-3)[:, None]
    face, distance = caster.nearest(points[index], direction)
    reach = np.where(face >= 0, 1 - np.exp(-distance * np.float32(1 / 2.5)), 1)
    open_sky[index] = 0.15 + 0.85 * reach
    return _same_surface_filter(open_sky, points, normals, shape)


def _same_surface_filter(
    values: np.ndarray, points: np.ndarray, normals: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """Averages values [H * W] over 4 x 4 pixels that lie on nearly the same plane."""
    height, width = shape
    pad = ((2, 2), (2, 2))
    image = np.pad(values.reshape(shape), pad, mode="edge")
    normal = np.pad(normals.reshape(height, width, 3), (*pad, (0, 0)), mode="edge")
    plane = (
        np.nan_to_num(np.einsum("nc,nc->n", points, normals), nan=1e6)
        .astype(np.float32)
        .reshape(shape)
    )
    plane = np.pad(plane, pad, mode="edge")
    centre_normal, centre_plane = normals.reshape(height, width, 3), plane[2:-2, 2:-2]
    total, weight = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for dy in range(4):
        for dx in range(4):
            rows, columns = slice(dy, dy + height), slice(dx, dx + width)
            same = np.abs(plane[rows, columns] - centre_plane) < 0.35
            same &= np.einsum("hwc,hwc->hw", normal[rows, columns], centre_normal) > 0.8
            total += np.where(same, image[rows, columns], 0)
            weight += same
    return np.where(weight > 0, total / np.maximum(weight, 1), values.reshape(shape)).ravel()


def reflected_radiance(directions: np.ndarray, weather: Weather) -> np.ndarray:
    """Radiance that a mirror in the street reflects: houses near the horizon, sky above.

    Args:
        directions: float32 [N, 3] unit, of the reflected rays.
        weather: the light.

    Returns:
        float32 [N, 3] linear RGB.
    """
    sky = sky_radiance(directions, weather)
    houses = weather.ambient * np.float32(0.16)
    fraction = np.clip((directions[:, 2] - 0.16) * 6, 0, 1)[:, None]
    return houses + (np.minimum(sky, 1.5) - houses) * fraction
