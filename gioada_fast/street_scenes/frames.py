"""Renders one frame: builds the street, casts rays, shades the hits, simulates the camera."""

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..errors import InputError
from ..labels import STREET_IDS
from ..memory import check_memory
from . import grammar, materials
from .camera import SUBSAMPLES, develop, draw_camera
from .grammar import Scene
from .light import (
    Weather,
    ambient_visibility,
    draw_weather,
    reflected_radiance,
    sky_radiance,
)
from .looks import LOOK_CAMERA, LOOKS, CameraRanges, Look
from .materials import Hits
from .rays import Caster, RayHits
from .textures import noise_volume

VERSION = 4
"""Version of the renderer, part of the cache's path. Increase it when any pixel changes."""


_PIXEL_BYTES = 500
"""Memory for a pixel while a frame is rendered, at least."""


class Frame(NamedTuple):
    """A rendered frame. Depth is 0 exactly where the label is sky."""

    image: np.ndarray
    """uint8 [H, W, 3] RGB."""
    depth: np.ndarray
    """float32 [H, W] metres along the optical axis, 0 for sky."""
    labels: np.ndarray
    """uint8 [H, W] ids of ``STREET_IDS``."""


def check_arguments(
    look: str, size: tuple[int, int], seeds: Sequence[int], camera: CameraRanges
) -> None:
    """Checks the arguments of ``render``.

    Raises:
        InputError: ``look`` is unknown, ``size`` is empty, a seed is negative, or a range of
            ``camera`` is out of bounds.
    """
    if look not in LOOKS:
        raise InputError(f"unknown look {look!r}: choose one of {', '.join(LOOKS)}")
    if len(size) != 2 or min(size) < 1:
        raise InputError(f"size is {size}, expected (height, width) of at least 1 pixel")
    check_memory(
        size[0] * size[1] * _PIXEL_BYTES,
        f"rendering a street scene of {size[1]}x{size[0]} pixels",
        "choose a smaller size",
    )
    if min(seeds, default=0) < 0:
        raise InputError(f"seed {min(seeds)} is negative: seeds of street scenes start at 0")
    camera.replaced(LOOKS[look])


def render(
    seed: int,
    look: str = "day",
    size: tuple[int, int] = (180, 240),
    camera: CameraRanges = LOOK_CAMERA,
) -> Frame:
    """Renders one frame. The same arguments give the same bytes in every process.

    Args:
        seed: 0 or more.
        look: a key of ``LOOKS``.
        size: (H, W) in pixels.
        camera: ranges of the camera, by default the look's.

    Raises:
        InputError: ``look`` is unknown, ``size`` is empty, ``seed`` is negative, a range of
            ``camera`` is out of bounds, or embreex is not installed.
    """
    check_arguments(look, size, [seed], camera)
    settings = camera.apply(LOOKS[look])
    rng = np.random.default_rng([seed, zlib.crc32(look.encode())])
    scene = grammar.build_scene(rng, settings)
    weather = draw_weather(rng, settings)
    drawn = draw_camera(rng, settings, scene.camera_x)
    view = _View(scene, weather, settings, drawn.position)

    angle = float(1 / (drawn.focal * size[1]))
    centre, cosine = drawn.rays(size, 1)
    centre_hits = view.trace(centre, angle, filled=True)
    hit = centre_hits.face >= 0
    label = view.triangles.labels[centre_hits.face]
    labels = np.where(hit, label, STREET_IDS["sky"]).astype(np.uint8)
    depth = np.where(hit, centre_hits.distance * cosine, 0).astype(np.float32)

    visibility = np.repeat(view.ambient_visibility(centre, centre_hits, size), SUBSAMPLES**2)
    rays, _ = drawn.rays(size, SUBSAMPLES)
    traced = view.trace(rays, angle / SUBSAMPLES, filled=False)
    radiance = view.radiance(rays, traced, visibility, angle / SUBSAMPLES)
    image = develop(rng, settings, radiance.reshape(-1, SUBSAMPLES**2, 3), size)
    return Frame(image, depth.reshape(size), labels.reshape(size))


class _View:
    """A scene and its light, seen from the camera's position."""

    def __init__(self, scene: Scene, weather: Weather, look: Look, origin: np.ndarray) -> None:
        self.street, self.triangles = scene.street, scene.triangles
        self.weather, self.look, self.origin = weather, look, origin
        vertices = self.street.bend_vertices(self.triangles.vertices)
        self.caster = Caster(vertices, self.triangles)
        self.normals = _face_normals(vertices, self.triangles.faces)

    def trace(self, directions: np.ndarray, pixel_angle: float, filled: bool) -> RayHits:
        """First opaque hits of rays from the camera; takes the arguments of ``Caster.trace``."""
        origins = np.broadcast_to(self.origin, directions.shape).copy()
        return self.caster.trace(origins, directions, pixel_angle, filled)

    def ambient_visibility(
        self, directions: np.ndarray, hits: RayHits, size: tuple[int, int]
    ) -> np.ndarray:
        """Ambient visibility at the pixels' centres.

        Args:
            directions: float32 [H * W, 3], unit.
            hits: what the rays hit, [H * W].
            size: (H, W) in pixels.

        Returns:
            float32 [H * W] in 0 .. 1.
        """
        hit = hits.face >= 0
        normal = _towards_viewer(self.normals[hits.face], directions)
        point = self.origin + directions * hits.distance[:, None] + normal * np.float32(0.01)
        point[~hit] = np.nan
        normal[~hit] = 0
        return ambient_visibility(self.caster, point, normal, size)

    def radiance(
        self, directions: np.ndarray, traced: RayHits, visibility: np.ndarray, pixel_angle: float
    ) -> np.ndarray:
        """Radiance along each ray.

        Args:
            directions: float32 [N, 3], unit.
            traced: what the rays hit, [N].
            visibility: float32 [N] ambient visibility.
            pixel_angle: radians between neighbouring rays.

        Returns:
            float32 [N, 3] linear RGB.
        """
        out = np.empty(directions.shape, np.float32)
        missed = np.flatnonzero(traced.face < 0)
        out[missed] = sky_radiance(directions[missed], self.weather)
        index = np.flatnonzero(traced.face >= 0)
        if not len(index):
            return out
        face, direction, distance = traced.face[index], directions[index], traced.distance[index]
        point = self.origin + direction * distance[:, None]
        normal = _towards_viewer(self.normals[face], direction)
        hits = Hits(
            face,
            self.street.straighten(point),
            direction,
            normal,
            distance,
            traced.uv[:, index],
            distance * pixel_angle,
        )
        volume = noise_volume(self.look.texture_exponent)
        surface = materials.shade(
            self.triangles, self.street, volume, self.look.texture_contrast, hits
        )
        # leaves transmit light, but the rays of ambient_visibility treat their cards as solid
        visible = visibility[index]
        leaf = self.triangles.materials[face] == materials.LEAVES
        visible[leaf] = 0.45 + 0.55 * visible[leaf]

        light = self._irradiance(face, point, normal, visible)
        radiance = surface.albedo * (light + surface.glow[:, None])
        self._reflect(radiance, surface.gloss, direction, normal, visible)
        if self.weather.haze:
            clear = np.exp(-distance * np.float32(self.weather.haze))[:, None]
            veil = np.float32(0.7 * self.weather.sky_brightness) * np.array(
                [0.97, 0.99, 1.0], np.float32
            )
            radiance = radiance * clear + veil * (1 - clear)
        out[index] = radiance
        return out

    def _irradiance(
        self, face: np.ndarray, point: np.ndarray, normal: np.ndarray, visibility: np.ndarray
    ) -> np.ndarray:
        """Irradiance float32 [N, 3] from sky, ground and sun at surface points [N, 3]."""
        weather, shading_normal = self.weather, normal.copy()
        smooth = np.flatnonzero((self.triangles.normals[face] != 0).any(1))
        shading_normal[smooth] = self.triangles.normals[face[smooth]]
        # the ground reflects light onto surfaces that face down
        up = shading_normal[:, 2]
        light = weather.ambient * (visibility * (0.64 + 0.36 * up))[:, None]
        if weather.sun is None:
            return light
        facing = np.einsum("nc,c->n", shading_normal, weather.sun)
        lit = np.flatnonzero(facing > 0)
        start = point[lit] + normal[lit] * np.float32(0.012)
        towards = np.broadcast_to(weather.sun, (len(lit), 3)).copy()
        lit = lit[~self.caster.occluded(start, towards)]
        light[lit] += facing[lit, None] * weather.sun_colour
        # sunlit surfaces light the shadows
        light += weather.sun_colour * np.float32(0.07) * visibility[:, None]
        return light

    def _reflect(
        self,
        radiance: np.ndarray,
        gloss: np.ndarray,
        direction: np.ndarray,
        normal: np.ndarray,
        visibility: np.ndarray,
    ) -> None:
        """Blends reflections into ``radiance`` [N, 3] in place, by a damped Fresnel term."""
        glossy = np.flatnonzero(gloss > 0)
        if not len(glossy):
            return
        n, d = normal[glossy], direction[glossy]
        cosine = np.abs(np.einsum("nc,nc->n", n, d))
        mirror = d + 2 * cosine[:, None] * n
        base = gloss[glossy]
        grazing = np.square(np.square(1 - cosine)) * (1 - cosine)
        fresnel = base + (1 - base) * np.minimum(base * 4, 0.9) * grazing
        sheen = (
            reflected_radiance(mirror, self.weather) * (0.35 + 0.65 * visibility[glossy])[:, None]
        )
        radiance[glossy] += fresnel[:, None] * (sheen - radiance[glossy])


def _face_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    length = np.sqrt(np.einsum("nc,nc->n", normal, normal))
    return normal / np.maximum(length, 1e-12)[:, None]


def _towards_viewer(normals: np.ndarray, directions: np.ndarray) -> np.ndarray:
    away = np.einsum("nc,nc->n", normals, directions) > 0
    return np.where(away[:, None], -normals, normals)
