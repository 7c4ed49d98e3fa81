"""Triangle meshes with attributes for each face: primitives, and templates that are stamped often.

World axes: x to the right, y along the main street away from the camera, z up. All lengths are in
metres.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

Point = Sequence[float | np.floating] | np.ndarray
"""(x, y, z)."""
Float = float | np.floating
"""A Python or NumPy number."""
Point2 = tuple[Float, Float]
"""(x, y)."""

NUM_PARAMS = 15
"""Columns of the table of material parameters; ``materials.FacadeParams`` fills them all."""
GROUND_STEP = 6.0
"""Target length along y, in metres, of the pieces that ground is cut into."""


class Pose(NamedTuple):
    """Placement of a mesh: world = rotation @ local + origin."""

    rotation: np.ndarray
    """float32 [3, 3]; may mirror or stretch as well."""
    origin: np.ndarray
    """float32 [3]."""

    def apply(self, points: ArrayLike | Sequence[Point]) -> np.ndarray:
        """Transforms local points [N, 3] into world points float32 [N, 3]."""
        return np.asarray(points, np.float32) @ self.rotation.T + self.origin

    def point(self, x: Float, y: Float, z: Float) -> np.ndarray:
        """Transforms one local point into a world point float32 [3]."""
        return self.apply([(x, y, z)])[0]


def pose(x: Float, y: Float, z: Float = 0.0, *, yaw: Float = 0.0) -> Pose:
    """Upright pose. ``yaw`` in radians turns it anticlockwise as seen from above."""
    c, s = np.cos(yaw), np.sin(yaw)
    rotation = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]], np.float32)
    return Pose(rotation, np.array([x, y, z], np.float32))


IDENTITY = pose(0, 0)


class Template(NamedTuple):
    """A mesh in local coordinates whose faces refer to a palette instead of colours."""

    vertices: np.ndarray
    """float32 [V, 3]."""
    faces: np.ndarray
    """int32 [F, 3]."""
    labels: np.ndarray
    """uint8 [F] ids of ``STREET_IDS``."""
    materials: np.ndarray
    """uint8 [F] ids of ``materials``."""
    slots: np.ndarray
    """int64 [F] rows of the palette that ``Mesh.stamp`` receives."""
    normals: np.ndarray
    """float32 [F, 3] shading normals; a zero row stands for the face's own normal."""
    quads: np.ndarray
    """uint8 [F]: 1 and 2 for the halves of a textured quad, 0 for other faces."""


class Mesh:
    """Collects triangles and their attributes; ``finish`` concatenates them.

    The primitives pass ``*attributes`` and ``**options`` on to ``add``: label, material and colour,
    then keyword arguments.
    """

    def __init__(self) -> None:
        self._parts: list[tuple[Any, ...]] = []
        self._params: list[list[float]] = [[0.0] * NUM_PARAMS]

    def params(self, *values: float | np.integer) -> int:
        """Appends a row to the table of material parameters and returns its index.

        Args:
            values: at most NUM_PARAMS; ``materials`` says what each material expects.
        """
        self._params.append([*map(float, values), *[0.0] * (NUM_PARAMS - len(values))])
        return len(self._params) - 1

    def add(
        self,
        vertices: ArrayLike,
        faces: ArrayLike,
        label: int | np.ndarray,
        material: int | np.ndarray,
        colour: Point,
        *,
        at: Pose = IDENTITY,
        params: int | np.ndarray = 0,
        normals: np.ndarray | None = None,
        quads: np.ndarray | int = 0,
    ) -> None:
        """Adds triangles.

        Args:
            vertices: [V, 3] local coordinates.
            faces: int [F, 3].
            label: id of ``STREET_IDS``, one for all faces or [F].
            material: id of ``materials``, one for all faces or [F].
            colour: linear RGB, [3] for all faces or [F, 3].
            at: placement in the world.
            params: row of material parameters, one for all faces or [F].
            normals: [F, 3] local shading normals; a zero row stands for the face's own normal.
            quads: 1 and 2 for the halves of a textured quad, 0 for other faces; one or [F].
        """
        vertices, faces = np.asarray(vertices, np.float32), np.asarray(faces, np.int32)
        if at is not IDENTITY:
            vertices = at.apply(vertices)
            normals = None if normals is None else normals @ at.rotation.T
        self._parts.append((vertices, faces, label, material, colour, params, normals, quads))

    def box(self, low: Point, high: Point, *attributes: Any, **options: Any) -> None:
        """Adds an axis-aligned box between two opposite corners."""
        low = np.asarray(low, np.float32)
        self.add(
            BOX_VERTICES * (np.asarray(high, np.float32) - low) + low,
            BOX_FACES,
            *attributes,
            **options,
        )

    def triangle(self, a: Point, b: Point, c: Point, *attributes: Any, **options: Any) -> None:
        """Adds one triangle."""
        self.add(np.array([a, b, c], np.float32), [[0, 1, 2]], *attributes, **options)

    def quad(
        self, a: Point, b: Point, c: Point, d: Point, *attributes: Any, **options: Any
    ) -> None:
        """Adds a quad whose corners are given in order around it."""
        self.add(np.array([a, b, c, d], np.float32), QUAD_FACES, *attributes, **options)

    def panel(
        self,
        p: Point2,
        q: Point2,
        z0: float,
        z1: float,
        *attributes: Any,
        textured: bool = False,
        **options: Any,
    ) -> None:
        """Adds a vertical rectangle from ``p`` to ``q`` (x, y), between heights ``z0`` and ``z1``.

        ``textured`` adds texture coordinates, (0, 0) at the foot of ``p`` and (1, 1) at the top of
        ``q``.
        """
        corners = (*p, z0), (*q, z0), (*q, z1), (*p, z1)
        self.quad(*corners, *attributes, quads=QUAD_HALVES if textured else 0, **options)

    def cylinder(
        self,
        a: Point,
        b: Point,
        radius_a: float,
        radius_b: float,
        sides: int,
        *attributes: Any,
        **options: Any,
    ) -> None:
        """Adds a capped, possibly tapered cylinder from ``a`` to ``b``."""
        ax, ay, az = (float(q) for q in a)
        dx, dy, dz = (float(q) - p for p, q in zip((ax, ay, az), b, strict=True))
        length = math.sqrt(dx * dx + dy * dy + dz * dz)
        # u and w span the plane across the axis; plain floats are faster than small arrays
        if abs(dz) < 0.9 * length:
            ux, uy, uz = dy, -dx, 0.0
        else:
            ux, uy, uz = 0.0, dz, -dy
        scale = 1 / math.sqrt(ux * ux + uy * uy + uz * uz)
        ux, uy, uz = ux * scale, uy * scale, uz * scale
        wx = (dy * uz - dz * uy) / length
        wy = (dz * ux - dx * uz) / length
        wz = (dx * uy - dy * ux) / length
        unit, faces = unit_cylinder(sides)
        frame = np.array([[ux, uy, uz], [wx, wy, wz], [dx, dy, dz]], np.float32)
        taper = radius_a + (radius_b - radius_a) * unit[:, 2:]
        shaped = np.concatenate([unit[:, :2] * taper, unit[:, 2:]], 1)
        origin = np.array([ax, ay, az], np.float32)
        self.add(shaped @ frame + origin, faces, *attributes, **options)

    def ellipsoid(
        self, centre: Point, radii: Point, subdivisions: int, *attributes: Any, **options: Any
    ) -> None:
        """Adds an ellipsoid, made from an icosphere."""
        unit, faces = icosphere(subdivisions)
        self.add(unit * np.asarray(radii) + np.asarray(centre), faces, *attributes, **options)

    def ground(
        self,
        x0: float,
        x1: float,
        y0: float,
        y1: float,
        z: float,
        *attributes: Any,
        **options: Any,
    ) -> None:
        """Adds a horizontal rectangle, cut along y so that it can follow a bent street."""
        count = max(1, round((y1 - y0) / GROUND_STEP))
        y = np.linspace(y0, y1, count + 1)
        left = np.stack([np.full_like(y, x0), y, np.full_like(y, z)], 1)
        right = np.add(left, (x1 - x0, 0, 0))
        vertices = np.stack([left, right], 1).reshape(-1, 3)
        index = 2 * np.arange(count)
        first = np.stack([index, index + 1, index + 3], 1)
        second = np.stack([index, index + 3, index + 2], 1)
        self.add(vertices, np.concatenate([first, second]), *attributes, **options)

    def stamp(self, template: Template, palette: np.ndarray, at: Pose, params: int = 0) -> None:
        """Adds a template at a pose.

        Args:
            template: the mesh.
            palette: linear RGB [slots, 3].
            at: placement in the world.
            params: row of material parameters for all faces.
        """
        self.add(
            template.vertices,
            template.faces,
            template.labels,
            template.materials,
            np.asarray(palette, np.float32)[template.slots],
            at=at,
            params=params,
            normals=template.normals,
            quads=template.quads,
        )

    def template(self) -> Template:
        """The triangles added so far as a template; red holds the row of the palette."""
        mesh = self.finish()
        slots = mesh.colours[:, 0].astype(np.int64)
        return Template(
            mesh.vertices, mesh.faces, mesh.labels, mesh.materials, slots, mesh.normals, mesh.quads
        )

    def finish(self) -> "Triangles":
        """The triangles added so far."""
        num_vertices = sum(len(part[0]) for part in self._parts)
        num_faces = sum(len(part[1]) for part in self._parts)
        out = Triangles(
            vertices=np.empty((num_vertices, 3), np.float32),
            faces=np.empty((num_faces, 3), np.int32),
            labels=np.empty(num_faces, np.uint8),
            materials=np.empty(num_faces, np.uint8),
            colours=np.empty((num_faces, 3), np.float32),
            param_row=np.empty(num_faces, np.int32),
            normals=np.zeros((num_faces, 3), np.float32),
            quads=np.empty(num_faces, np.uint8),
            params=np.array(self._params, np.float32),
        )
        v = f = 0
        for vertices, faces, label, material, colour, params, normals, quads in self._parts:
            v_end, f_end = v + len(vertices), f + len(faces)
            out.vertices[v:v_end] = vertices
            out.faces[f:f_end] = faces
            out.faces[f:f_end] += v
            out.labels[f:f_end] = label
            out.materials[f:f_end] = material
            out.colours[f:f_end] = colour
            out.param_row[f:f_end] = params
            out.quads[f:f_end] = quads
            if normals is not None:
                out.normals[f:f_end] = normals
            v, f = v_end, f_end
        return out


class Triangles(NamedTuple):
    """A finished mesh: vertices, faces and the attributes of each face."""

    vertices: np.ndarray
    """float32 [V, 3]."""
    faces: np.ndarray
    """int32 [F, 3]."""
    labels: np.ndarray
    """uint8 [F] ids of ``STREET_IDS``."""
    materials: np.ndarray
    """uint8 [F] ids of ``materials``."""
    colours: np.ndarray
    """float32 [F, 3] linear RGB."""
    param_row: np.ndarray
    """int32 [F] rows of ``params``."""
    normals: np.ndarray
    """float32 [F, 3] shading normals; a zero row stands for the face's own normal."""
    quads: np.ndarray
    """uint8 [F]: 1 and 2 for the halves of a textured quad, 0 for other faces."""
    params: np.ndarray
    """float32 [K, NUM_PARAMS] material parameters."""


BOX_VERTICES = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], np.float32)
BOX_FACES = np.array(
    [
        [0, 1, 3],
        [0, 3, 2],
        [4, 6, 7],
        [4, 7, 5],
        [0, 4, 5],
        [0, 5, 1],
        [2, 3, 7],
        [2, 7, 6],
        [0, 2, 6],
        [0, 6, 4],
        [1, 5, 7],
        [1, 7, 3],
    ],
    np.int32,
)
QUAD_FACES = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
QUAD_HALVES = np.array([1, 2], np.uint8)


@lru_cache
def unit_cylinder(sides: int) -> tuple[np.ndarray, np.ndarray]:
    """Capped cylinder of radius 1 from z = 0 to 1: vertices float32 [V, 3], faces int32 [F, 3]."""
    angle = np.arange(sides) * 2 * np.pi / sides
    ring = np.stack([np.cos(angle), np.sin(angle), np.zeros(sides)], 1)
    vertices = np.concatenate([ring, np.add(ring, (0, 0, 1)), [[0, 0, 0], [0, 0, 1]]]).astype(
        np.float32
    )
    i = np.arange(sides)
    j = (i + 1) % sides
    low, high = np.full(sides, 2 * sides), np.full(sides, 2 * sides + 1)
    faces = np.concatenate(
        [
            np.stack([i, j, sides + j], 1),
            np.stack([i, sides + j, sides + i], 1),
            np.stack([low, j, i], 1),
            np.stack([high, sides + i, sides + j], 1),
        ]
    )
    return vertices, faces.astype(np.int32)


@lru_cache
def icosphere(subdivisions: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit sphere: vertices float32 [V, 3], faces int32 [20 * 4 ** subdivisions, 3]."""
    g = (1 + 5**0.5) / 2
    vertices = [
        (-1, g, 0),
        (1, g, 0),
        (-1, -g, 0),
        (1, -g, 0),
        (0, -1, g),
        (0, 1, g),
        (0, -1, -g),
        (0, 1, -g),
        (g, 0, -1),
        (g, 0, 1),
        (-g, 0, -1),
        (-g, 0, 1),
    ]
    faces = [
        (0, 11, 5),
        (0, 5, 1),
        (0, 1, 7),
        (0, 7, 10),
        (0, 10, 11),
        (1, 5, 9),
        (5, 11, 4),
        (11, 10, 2),
        (10, 7, 6),
        (7, 1, 8),
        (3, 9, 4),
        (3, 4, 2),
        (3, 2, 6),
        (3, 6, 8),
        (3, 8, 9),
        (4, 9, 5),
        (2, 4, 11),
        (6, 2, 10),
        (8, 6, 7),
        (9, 8, 1),
    ]
    points = [np.array(v) / np.linalg.norm(v) for v in vertices]
    for _ in range(subdivisions):
        middles: dict[tuple[int, int], int] = {}

        def middle(i: int, j: int, middles: dict[tuple[int, int], int] = middles) -> int:
            key = (min(i, j), max(i, j))
            if key not in middles:
                point = points[i] + points[j]
                middles[key] = len(points)
                points.append(point / np.linalg.norm(point))
            return middles[key]

        split = []
        for a, b, c in faces:
            ab, bc, ca = middle(a, b), middle(b, c), middle(c, a)
            split += [(a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca)]
        faces = split
    return np.array(points, np.float32), np.array(faces, np.int32)
