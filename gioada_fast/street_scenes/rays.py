"""Ray casting through embreex, with cut-outs."""

from typing import NamedTuple

import numpy as np

from ..errors import InputError
from .geometry import Triangles
from .materials import IS_CUT_OUT, opaque, quad_uv

MAX_LAYERS = 10
"""Cut-outs that one ray may pass; whatever it meets after that stops it."""
RAY_OFFSET = 2e-3
"""Metres by which a ray restarts behind a surface."""


class RayHits(NamedTuple):
    """First opaque surface along each ray."""

    face: np.ndarray
    """int32 [N], -1 for none."""
    distance: np.ndarray
    """float32 [N], metres along the unit direction; meaningless where ``face`` is -1."""
    uv: np.ndarray
    """float32 [2, N] texture coordinates on cut-outs, 0 elsewhere."""


class Caster:
    """A bounding volume hierarchy over the scene's triangles."""

    def __init__(self, vertices: np.ndarray, scene: Triangles) -> None:
        try:
            from embreex.mesh_construction import TriangleMesh
            from embreex.rtcore_scene import EmbreeScene
        except ImportError as error:
            raise InputError(
                'street scenes are ray-cast with embreex: pip install "gioada_fast[scenes]"'
            ) from error
        self.scene = scene
        self._cut_out = IS_CUT_OUT[scene.materials]
        self._embree = EmbreeScene()
        self._mesh = TriangleMesh(self._embree, vertices, scene.faces)

    def _intersect(self, origins: np.ndarray, directions: np.ndarray) -> dict[str, np.ndarray]:
        return self._embree.run(origins, directions, output=True)

    def occluded(self, origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Whether anything solid blocks each ray, bool [N]; see-through faces block by coverage."""
        return self.trace(origins, directions, 1e-3, filled=False, max_layers=3).face >= 0

    def nearest(self, origins: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Face int32 [N] (-1 for none) and distance float32 [N], cut-outs taken as solid."""
        hit = self._intersect(origins, directions)
        return hit["primID"], hit["tfar"]

    def trace(
        self,
        origins: np.ndarray,
        directions: np.ndarray,
        pixel_angle: float,
        filled: bool,
        max_layers: int = MAX_LAYERS,
    ) -> RayHits:
        """First opaque hit of each ray.

        Args:
            origins: float32 [N, 3].
            directions: float32 [N, 3], unit.
            pixel_angle: radians between neighbouring rays, picks the level of cut-out textures.
            filled: whether cut-outs are filled as a label map draws them.
            max_layers: cut-outs that a ray may pass.
        """
        hit = self._intersect(origins, directions)
        face, distance = hit["primID"], hit["tfar"]
        active = np.flatnonzero((face >= 0) & self._cut_out[face])
        uv = np.zeros((2, len(face)), np.float32)
        uv[:, active] = quad_uv(self.scene.quads[face[active]], hit["u"][active], hit["v"][active])
        travelled = distance[active]
        for layer in range(max_layers):
            if not len(active):
                break
            dither = _dither(active, layer)
            passes = ~opaque(
                self.scene, face[active], uv[:, active], travelled * pixel_angle, dither, filled
            )
            distance[active] = travelled
            active, travelled = active[passes], travelled[passes]
            if not len(active):
                break
            direction = directions[active]
            again = self._intersect(
                origins[active] + direction * (travelled + RAY_OFFSET)[:, None], direction
            )
            face[active] = again["primID"]
            uv[:, active] = quad_uv(self.scene.quads[again["primID"]], again["u"], again["v"])
            travelled = travelled + RAY_OFFSET + again["tfar"]
            distance[active] = travelled
            more = (again["primID"] >= 0) & self._cut_out[again["primID"]]
            active, travelled = active[more], travelled[more]
        return RayHits(face, distance, uv)


def _dither(index: np.ndarray, layer: int) -> np.ndarray:
    """float32 [N] in 0 .. 1, decorrelated between neighbouring rays and layers (golden ratio)."""
    state = index.astype(np.uint32) * np.uint32(2654435769) + np.uint32(layer * 40503)
    state ^= state >> np.uint32(15)
    state *= np.uint32(0x85EBCA6B)
    return (state >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
