"""Casts rays with embreex, through the holes of alpha cut-outs."""

from typing import NamedTuple

import numpy as np

from ..errors import InputError
from .geometry import Triangles
from .materials import IS_CUT_OUT, opaque, quad_uv

MAX_LAYERS = 10
"""Number of cut-out faces that a ray may pass through. The next face stops it."""
RAY_OFFSET = 2e-3
"""Metres behind a cut-out face at which the ray is cast again."""


class RayHits(NamedTuple):
    """The first opaque surface along each ray."""

    face: np.ndarray
    """int32 [N], -1 for none."""
    distance: np.ndarray
    """float32 [N] metres along the ray; undefined where ``face`` is -1."""
    uv: np.ndarray
    """float32 [2, N] texture coordinates on cut-out faces, 0 elsewhere."""


class Caster:
    """A bounding volume hierarchy over a scene's triangles.

    Args:
        vertices: float32 [V, 3] world coordinates of the bent street, metres.
        scene: faces and their attributes.

    Raises:
        InputError: embreex is not installed.
    """

    def __init__(self, vertices: np.ndarray, scene: Triangles) -> None:
        try:
            from embreex.mesh_construction import TriangleMesh
            from embreex.rtcore_scene import EmbreeScene
        except ImportError as error:
            raise InputError(
                'street scenes need embreex: pip install "gioada_fast[scenes]"'
            ) from error
        self.scene = scene
        self._cut_out = IS_CUT_OUT[scene.materials]
        self._embree = EmbreeScene()
        self._mesh = TriangleMesh(self._embree, vertices, scene.faces)

    def _intersect(self, origins: np.ndarray, directions: np.ndarray) -> dict[str, np.ndarray]:
        return self._embree.run(origins, directions, output=True)

    def occluded(self, origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Whether each ray hits an opaque surface, bool [N]. Cut-outs are dithered by coverage."""
        return self.trace(origins, directions, 1e-3, filled=False, max_layers=3).face >= 0

    def nearest(self, origins: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Nearest face int32 [N] (-1 for none) and its distance float32 [N]; cut-outs are solid."""
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
        """Finds the first opaque surface along each ray.

        Args:
            origins: float32 [N, 3].
            directions: float32 [N, 3], unit.
            pixel_angle: radians between neighbouring rays; selects the mip level of cut-outs.
            filled: close the holes of plants and fences, as annotators of labels do.
            max_layers: number of cut-out faces that a ray may pass through.
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
    """Thresholds float32 [N] in 0 .. 1 that are uncorrelated between rays and between layers."""
    state = index.astype(np.uint32) * np.uint32(2654435769) + np.uint32(layer * 40503)
    state ^= state >> np.uint32(15)
    state *= np.uint32(0x85EBCA6B)
    return (state >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
