"""One frame: build the street, cast rays, shade, develop."""

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..errors import InputError
from ..labels import STREET_IDS
from . import grammar, materials
from .camera import SUBSAMPLES, develop, draw_camera
from .geometry import Triangles
from .light import (
    Weather,
    ambient_occlusion,
    draw_weather,
    reflected,
    sky_radiance,
)
from .looks import LOOKS
from .materials import Hits, Street
from .rays import Caster, RayHits
from .textures import noise_volume

VERSION = 4
"""Part of the cache's path: bump it when pixels change."""


class Frame(NamedTuple):
    """A rendered view; depth is 0 exactly where the label is sky."""

    image: np.ndarray
    """uint8 [H, W, 3] RGB."""
    depth: np.ndarray
    """float32 [H, W] metres along the optical axis, 0 for sky."""
    labels: np.ndarray
    """uint8 [H, W] ids of ``STREET_IDS``."""


def check(look: str, size: tuple[int, int], seeds: Sequence[int]) -> None:
    """Raises InputError for an unknown look, an empty size or a negative seed."""
    if look not in LOOKS:
        raise InputError(f"unknown look {look!r}: choose one of {', '.join(LOOKS)}")
    if len(size) != 2 or min(size) < 1:
        raise InputError(f"size is {size}, expected (height, width) of at least 1 pixel")
    if min(seeds, default=0) < 0:
        raise InputError(f"seed {min(seeds)} is negative: seeds of street scenes start at 0")


def render(seed: int, look: str = "day", size: tuple[int, int] = (180, 240)) -> Frame:
    """Renders the frame of a seed; the same arguments give the same bytes in every process.

    Args:
        seed: 0 or more.
        look: a key of ``LOOKS``.
        size: (H, W) in pixels.

    Raises:
        InputError: unknown look, empty size, negative seed, or embreex is not installed.
    """
    check(look, size, [seed])
    style = LOOKS[look]
    rng = np.random.default_rng([seed, zlib.crc32(look.encode())])
    scene = grammar.build(rng, style)
    weather = draw_weather(rng, style)
    camera = draw_camera(rng, style, scene.camera_x)
    street, triangles = scene.street, scene.triangles

    vertices = street.bend_vertices(triangles.vertices)
    caster = Caster(vertices, triangles)
    normals = _face_normals(vertices, triangles.faces)

    angle = float(1 / (camera.focal * size[1]))
    centre, cosine = camera.rays(size, 1)
    outline = caster.trace(_repeat(camera.position, centre), centre, angle, outline=True)
    hit = outline.face >= 0
    labels = np.where(hit, triangles.labels[outline.face], STREET_IDS["sky"]).astype(np.uint8)
    depth = np.where(hit, outline.distance * cosine, 0).astype(np.float32)

    openness = _openness(caster, camera.position, centre, outline, normals, triangles, size)
    rays, _ = camera.rays(size, SUBSAMPLES)
    traced = caster.trace(_repeat(camera.position, rays), rays, angle / SUBSAMPLES, outline=False)
    volume = noise_volume(style.texture_exponent)
    radiance = _radiance(
        caster,
        camera.position,
        rays,
        traced,
        normals,
        triangles,
        street,
        weather,
        volume,
        style.texture_contrast,
        np.repeat(openness, SUBSAMPLES**2),
        angle / SUBSAMPLES,
    )
    image = develop(rng, style, radiance.reshape(-1, SUBSAMPLES**2, 3), size)
    return Frame(image, depth.reshape(size), labels.reshape(size))


def _repeat(position: np.ndarray, like: np.ndarray) -> np.ndarray:
    return np.broadcast_to(position, like.shape).copy()


def _face_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    length = np.sqrt(np.einsum("nc,nc->n", normal, normal))
    return normal / np.maximum(length, 1e-12)[:, None]


def _towards_viewer(normals: np.ndarray, directions: np.ndarray) -> np.ndarray:
    away = np.einsum("nc,nc->n", normals, directions) > 0
    return np.where(away[:, None], -normals, normals)


def _openness(caster, origin, directions, hits: RayHits, normals, triangles, size) -> np.ndarray:
    """Ambient occlusion at the pixel centres, float32 [H * W]."""
    hit = hits.face >= 0
    normal = _towards_viewer(normals[hits.face], directions)
    point = origin + directions * hits.distance[:, None] + normal * np.float32(0.01)
    point[~hit] = np.nan
    normal[~hit] = 0
    return ambient_occlusion(caster, point, normal, size)


def _radiance(
    caster: Caster,
    origin: np.ndarray,
    directions: np.ndarray,
    traced: RayHits,
    normals: np.ndarray,
    triangles: Triangles,
    street: Street,
    weather: Weather,
    volume: np.ndarray,
    contrast: float,
    openness: np.ndarray,
    pixel_angle: float,
) -> np.ndarray:
    """Light along every ray, float32 [N, 3]."""
    out = np.empty(directions.shape, np.float32)
    missed = np.flatnonzero(traced.face < 0)
    out[missed] = sky_radiance(directions[missed], weather)
    index = np.flatnonzero(traced.face >= 0)
    if not len(index):
        return out
    face, direction = traced.face[index], directions[index]
    distance, ambient_open = traced.distance[index], openness[index]
    point = origin + direction * distance[:, None]
    normal = _towards_viewer(normals[face], direction)
    hits = Hits(
        face,
        street.straighten(point),
        direction,
        normal,
        distance,
        traced.uv[:, index],
        pixel_angle,
    )
    surface = materials.shade(triangles, street, volume, contrast, hits)

    # leaves let light through, and the rays that measured their openness took the cards as solid
    leaf = triangles.materials[face] == materials.LEAVES
    ambient_open[leaf] = 0.45 + 0.55 * ambient_open[leaf]

    given = np.flatnonzero(triangles.normals.any(1)[face])
    shading_normal = normal.copy()
    shading_normal[given] = triangles.normals[face[given]]

    # the ground throws some light back at what looks down
    up = shading_normal[:, 2]
    light = weather.ambient * (ambient_open * (0.64 + 0.36 * up))[:, None]
    if weather.sun is not None:
        facing = np.einsum("nc,c->n", shading_normal, weather.sun)
        lit = np.flatnonzero(facing > 0)
        start = point[lit] + normal[lit] * np.float32(0.012)
        towards = np.broadcast_to(weather.sun, (len(lit), 3)).copy()
        free = ~caster.occluded(start, towards)
        lit = lit[free]
        light[lit] += facing[lit, None] * weather.sun_colour
        # sunlit streets brighten their shadows
        light += weather.sun_colour * np.float32(0.07) * ambient_open[:, None]
    radiance = surface.albedo * (light + surface.glow[:, None])

    glossy = np.flatnonzero(surface.gloss > 0)
    if len(glossy):
        n, d = normal[glossy], direction[glossy]
        cosine = np.abs(np.einsum("nc,nc->n", n, d))
        mirror = d + 2 * cosine[:, None] * n
        base = surface.gloss[glossy]
        grazing = np.square(np.square(1 - cosine)) * (1 - cosine)
        fresnel = base + (1 - base) * np.minimum(base * 4, 0.9) * grazing
        sheen = reflected(mirror, weather) * (0.35 + 0.65 * ambient_open[glossy])[:, None]
        radiance[glossy] += fresnel[:, None] * (sheen - radiance[glossy])
    if weather.haze:
        clear = np.exp(-distance * np.float32(weather.haze))[:, None]
        veil = np.float32(0.7 * weather.sky) * np.array([0.97, 0.99, 1.0], np.float32)
        radiance = radiance * clear + veil * (1 - clear)
    out[index] = radiance
    return out
