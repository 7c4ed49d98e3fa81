"""The scene grammar: draws the layout of a street and builds its geometry.

A main street has junctions with side streets. The blocks between them have pavements, plots with
buildings or trees, street furniture, people and vehicles. The main street runs along +y and is
straight here; ``Street.bend_vertices`` bends the finished mesh.

A frontage is one side of a street with its own coordinates: x is the distance from the kerb into
the block, y runs along the street. So the same rules serve both sides of the main street and the
side streets. Lengths are in metres.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ..labels import STREET_IDS
from . import materials as m
from .buildings import (
    add_boundary,
    add_building,
    add_bus_shelter,
    add_church,
    add_railing,
)
from .colours import grey, hsv
from .frequencies import choose
from .furniture import add_lamp, add_traffic_light, add_traffic_sign
from .geometry import Float, Mesh, Pose, Triangles, pose
from .looks import Look
from .materials import Junction, Street
from .plants import add_bare_tree, add_bush, add_leafy_tree
from .vehicles import add_bicycle, add_motorcycle, add_person, add_vehicle, parked_kind

ROAD, PAVEMENT, TERRAIN = STREET_IDS["road"], STREET_IDS["pavement"], STREET_IDS["terrain"]
POLE, SIGN = STREET_IDS["pole"], STREET_IDS["traffic sign"]
VOID, BUILDING = STREET_IDS["void"], STREET_IDS["building"]

KERB_HEIGHT = 0.12
STREET_START, STREET_END = -14.0, 215.0
"""y at which the buildings of the main street start and end; the camera is at y = 0."""
BLOCK_DEPTH = 140.0
"""Distance from the kerb to the far edge of a block's ground."""
SIDE_STREET_LENGTH = 45.0
"""Distance from the corner up to which a side street has buildings."""


@dataclass
class Scene:
    """Geometry and layout of one street before it is bent."""

    triangles: Triangles
    street: Street
    camera_x: float
    """x of the camera; the main street's centre line is at 0."""


@dataclass
class _Frontage:
    """One side of a street between two corners."""

    at: Pose
    """Maps the frontage's coordinates to world coordinates."""
    width: float
    """Width of the pavement."""
    verge: float
    """Width of the grass between pavement and plots."""
    kind: str
    """Kind of street: city, suburb or park."""
    main: bool
    """Whether it belongs to the main street."""


class _Builder:
    """Draws one street. Every method draws from ``rng``, so their order is part of a frame."""

    def __init__(self, rng: np.random.Generator, look: Look) -> None:
        self.rng = rng
        self.look = look
        self.frequencies = look.frequencies
        self.mesh = Mesh()
        self.street_kind = choose(rng, self.frequencies.street_kinds)
        self.parked = {
            side: rng.random() < self.frequencies.parked[self.street_kind] for side in (-1, 1)
        }
        self.street = self._street()
        near = self.street.near_side
        self.camera_x = near * self._lane(near) * rng.uniform(0.75, 1.15)
        self.occupied: list[tuple[float, float, float, float]] = []
        """(x, y, half width, half length) of the occupied rectangles of the carriageway."""
        self.bare = rng.random() < self.frequencies.bare_trees
        self.metal = grey(rng.choice([0.03, 0.06, 0.22, 0.3]))
        self.storeys = rng.uniform(*self.frequencies.storeys)
        self.paving = np.array([1.06, 1.0, 0.93]) * rng.uniform(0.13, 0.3)
        self.tarmac_pavement = float(rng.random() < 0.35)
        self.slab = rng.choice([0.4, 0.6, 0.9])
        self.leaf = hsv(
            rng.uniform(*look.leaf_hue), rng.uniform(0.28, 0.52), rng.uniform(*look.leaf_value)
        )

    def _street(self) -> Street:
        """Draws the layout of the main street and its junctions."""
        rng, frequencies, look = self.rng, self.frequencies, self.look
        junctions = []
        y = rng.uniform(6, 50)
        while y < 150:
            width = rng.uniform(6, 11)
            junctions.append(
                Junction(
                    y0=y,
                    y1=y + width,
                    side=int(rng.choice([-1, 1, 0])),
                    zebra=bool(rng.random() < frequencies.zebra),
                    signals=bool(rng.random() < frequencies.signals),
                    box_marking=bool(rng.random() < look.yellow_lines * 0.4),
                )
            )
            y += width + rng.uniform(*frequencies.gap_between_junctions)
        half_width = rng.uniform(*frequencies.carriageway_half_width) * (
            0.9 if self.street_kind == "suburb" else 1.0
        )
        if any(self.parked.values()):
            # leave room to pass parked vehicles
            half_width = max(half_width, 4.3)
        return Street(
            seed=int(rng.integers(1, 30000)),
            half_width=half_width,
            junctions=junctions,
            near_side=-1 if frequencies.left_hand_traffic else 1,
            bend=rng.normal(0, 0.0007),
            slope=rng.normal(0, 0.00012),
            marking_albedo=rng.uniform(0.4, 0.75),
            dash=(float(rng.choice([3.0, 6.0, 9.0])), rng.uniform(0.35, 0.65)),
            centre_line=int(rng.choice([0, 1, 2], p=[0.2, 0.62, 0.18])),
            edge_lines=bool(rng.random() < 0.25),
            yellow_lines=bool(rng.random() < look.yellow_lines),
            cobbles=bool(rng.random() < look.cobbles),
            patches=rng.uniform(0.02, 0.15),
            wetness=rng.uniform(*look.wetness),
        )

    def _lane(self, side: int) -> float:
        """Distance of the lane on one side from the centre line."""
        w = self.street.half_width
        return min(w * 0.5, 2.0, w - 2.9 if self.parked[side] else w)

    def build(self) -> Scene:
        """Draws the whole street; to be called once."""
        rng, look, street = self.rng, self.look, self.street
        tone = rng.uniform(*look.road_albedo)
        road = np.array([1.02, 1.0, 0.97]) * tone * rng.uniform(0.95, 1.05, 3)
        # the carriageway extends under the blocks, which cover it
        for x0, x1 in pairwise((-150, -50, 0, 50, 150)):
            self.mesh.ground(x0, x1, STREET_START - 30, 420, 0, ROAD, m.ROAD, road)
        for side in (-1, 1):
            self._side(side)
        self._traffic()
        self._far_end()
        return Scene(self.mesh.finish(), street, self.camera_x)

    def _side(self, side: int) -> None:
        """Adds the blocks on one side of the main street: -1 left, 1 right."""
        rng, street = self.rng, self.street
        width = rng.uniform(*self.frequencies.pavement_width)
        verge = rng.uniform(1, 3.5) if self.street_kind != "city" and rng.random() < 0.5 else 0.0
        start, corner = STREET_START, False
        stops = [j for j in street.junctions if j.side in (side, 0)]
        for junction in [*stops, None]:
            end = STREET_END if junction is None else junction.y0
            self._block(side, start, end, corner, junction is not None, width, verge)
            if junction is None:
                break
            start, corner = junction.y1, True
            self._side_traffic(side, junction)

    def _block(
        self,
        side: int,
        y0: float,
        y1: float,
        corner0: bool,
        corner1: bool,
        width: float,
        verge: float,
    ) -> None:
        """Adds one block: ground, kerbs, plots, furniture, people and parked vehicles.

        Args:
            side: -1 left, 1 right of the main street.
            y0: start of the block.
            y1: end of the block.
            corner0: whether a junction lies at the start.
            corner1: whether a junction lies at the end.
            width: width of the pavement.
            verge: width of the grass between pavement and plots.
        """
        rng, w = self.rng, self.street.half_width
        at = Pose(np.diag([side, 1, 1]).astype(np.float32), np.array([side * w, 0, 0], np.float32))
        radius = rng.uniform(1.5, 3.5)
        a, b = y0 + radius * corner0, y1 - radius * corner1
        if b - a < 3:
            return
        paving = (PAVEMENT, m.PAVING, self.paving)
        params = self.mesh.params(self.slab, self.tarmac_pavement)
        kerb = (PAVEMENT, m.KERB, self.paving * 1.25)
        open_ground = self.street_kind != "city" and rng.random() < 0.75
        inner = (TERRAIN, m.GRASS, hsv(0.24, 0.5, 0.42)) if open_ground else paving
        green = (TERRAIN, m.GRASS, hsv(0.25, 0.5, 0.42))
        self.mesh.ground(0, width, a, b, KERB_HEIGHT, *paving, at=at, params=params)
        if verge:
            self.mesh.ground(width, width + verge, a, b, KERB_HEIGHT + 0.02, *green, at=at)
        self.mesh.ground(
            width + verge, BLOCK_DEPTH, a, b, KERB_HEIGHT, *inner, at=at, params=params
        )
        steps = max(1, round((b - a) / 6))
        outline = [(0.0, y) for y in np.linspace(a, b, steps + 1)]
        for corner, y, sign in ((corner0, a, -1), (corner1, b, 1)):
            if not corner:
                continue
            arc = np.linspace(0, np.pi / 2, 6)
            rim = [(radius * (1 - np.cos(t)), y + sign * radius * np.sin(t)) for t in arc]
            rim.append((BLOCK_DEPTH, y + sign * radius))
            fan = np.array([(BLOCK_DEPTH, y, KERB_HEIGHT)] + [(*p, KERB_HEIGHT) for p in rim])
            faces = [(0, i, i + 1) for i in range(1, len(fan) - 1)]
            self.mesh.add(fan, faces, *paving, at=at, params=params)
            self._kerb(rim, kerb, at)
        self._kerb(outline, kerb, at)

        front = _Frontage(at, width, verge, self.street_kind, main=True)
        side_width = max(1.6, width * 0.8)
        inset = [side_width if corner else 0.0 for corner in (corner0, corner1)]
        self._plots(front, y0 + inset[0], y1 - inset[1])
        self._furnish(front, a + 1, b - 1, corner0, corner1)
        self._people(front, a, b)
        if self.parked[side]:
            self._parked(side, y0, y1)
        for corner, y, sign in ((corner0, y0, 1), (corner1, y1, -1)):
            if corner:
                rotation = np.array([[0, side, 0], [sign, 0, 0], [0, 0, 1]], np.float32)
                turned = Pose(rotation, np.array([side * w, y, 0], np.float32))
                along = _Frontage(turned, side_width, 0.0, self.street_kind, main=False)
                self._plots(along, width + verge + 13, SIDE_STREET_LENGTH)
                self._furnish(along, 8, SIDE_STREET_LENGTH, corner0=False, corner1=False)
                self._people(along, 6, SIDE_STREET_LENGTH * 0.6)

    def _kerb(
        self,
        outline: Sequence[tuple[Float, Float]],
        attributes: tuple[int, int, np.ndarray],
        at: Pose,
    ) -> None:
        """Adds the vertical face of a kerb along ``outline``, points (x, y) of a frontage."""
        line = np.array(outline, np.float32)
        low = np.column_stack([line, np.zeros(len(line))])
        vertices = np.concatenate([low, np.add(low, (0, 0, KERB_HEIGHT))])
        i, n = np.arange(len(line) - 1), len(line)
        faces = np.concatenate(
            [np.stack([i, i + 1, i + 1 + n], 1), np.stack([i, i + 1 + n, i + n], 1)]
        )
        self.mesh.add(vertices, faces, *attributes, at=at)

    def _plots(self, front: _Frontage, y0: float, y1: float) -> None:
        """Adds buildings with gardens, churches and open plots between ``y0`` and ``y1``."""
        rng, mesh, frequencies = self.rng, self.mesh, self.frequencies
        line = front.width + front.verge
        built = frequencies.built[front.kind]
        city = front.kind == "city"
        set_back = 0.0 if city else rng.uniform(2, 6)
        boundary = choose(rng, frequencies.boundaries)
        y = y0
        while y < y1 - 3:
            length = rng.uniform(5, 16) if city else rng.uniform(6.5, 12)
            length = min(length, y1 - y)
            if y1 - y - length < 4:
                length = y1 - y
            middle = front.at.point(line, y + length / 2, 0)
            near = middle[1] < 80 and abs(middle[0]) < 45
            if middle[1] < -25:
                y += length
                continue
            if length > 11 and rng.random() < frequencies.churches and near:
                add_church(mesh, rng, front.at, line + 2.0, y, length)
            elif rng.random() < built and length < 26:
                x = line + (float(rng.choice([0, 0, 0, 0, 0.6])) if city else set_back)
                storeys = max(1, round(self.storeys + rng.normal(0, 0.7))) if city else 2
                if not city and rng.random() < 0.15:
                    storeys = int(rng.choice([1, 3]))
                house = length if city else length - rng.uniform(0.0, 2.5)
                shop = rng.random() < frequencies.shops[front.kind]
                add_building(
                    mesh,
                    rng,
                    self.look,
                    front.at,
                    x,
                    y,
                    max(house, 4),
                    storeys,
                    city=city,
                    shop=bool(shop),
                    detailed=bool(near),
                )
                if set_back > 1.5 and near:
                    gate = rng.uniform(0.55, 0.8) * length
                    kind = boundary if rng.random() < 0.7 else choose(rng, frequencies.boundaries)
                    add_boundary(mesh, rng, front.at, line + 0.1, y, y + gate, kind)
                    add_boundary(mesh, rng, front.at, line + 0.1, y + gate + 1.2, y + length, kind)
                    for _ in range(int(rng.integers(0, 3))):
                        x, bush_y = rng.uniform(0.9, set_back - 0.4), rng.uniform(0, length)
                        foot = front.at.point(line + x, y + bush_y, 0)
                        size, tone = rng.uniform(0.6, 1.4), rng.uniform(0.7, 1.2)
                        add_bush(mesh, rng, foot, size, self.leaf * tone)
            else:
                self._open_plot(front, line, y, length, near)
            y += length
            if not city and rng.random() < 0.15:
                y += rng.uniform(2, 6)

    def _open_plot(
        self, front: _Frontage, line: float, y: float, length: float, near: bool
    ) -> None:
        """Adds a car park or trees on a plot that starts at ``y`` and ``line`` from the kerb."""
        rng = self.rng
        if near:
            kind = choose(rng, self.frequencies.boundaries)
            add_boundary(self.mesh, rng, front.at, line + 0.15, y, y + length, kind)
        if front.kind == "city" and near and rng.random() < 0.5:
            for k in range(int(length / 2.7)):
                spot = front.at.point(line + 4.5, y + 1.4 + 2.7 * k, KERB_HEIGHT)
                if rng.random() < 0.75:
                    turned = pose(*spot, yaw=rng.choice([-1, 1]) * np.pi / 2 + rng.normal(0, 0.03))
                    kind = parked_kind(rng, self.frequencies.vehicles)
                    add_vehicle(self.mesh, rng, turned, kind, self.look.paint_colour)
            return
        for _ in range(int(rng.integers(1, 4))):
            spot = front.at.point(line + rng.uniform(2, 14), y + rng.uniform(0, length), 0)
            self._tree(spot, rng.uniform(6, 15))

    def _tree(self, spot: np.ndarray, height: float) -> None:
        """Adds a tree at the world point ``spot`` unless it would cover the camera."""
        # a crown around the camera would cover the image
        if spot[1] < 3.5 + height * 0.3 and abs(spot[0] - self.camera_x) < height * 0.45:
            return
        rng = self.rng
        if rng.random() < (0.85 if self.bare else 0.12):
            add_bare_tree(self.mesh, rng, spot, height)
        else:
            far = spot[1] > 70
            cards = int(height * (3 if far else 8))
            colour = self.leaf * rng.uniform(0.7, 1.3) * rng.uniform(0.9, 1.1, 3)
            add_leafy_tree(self.mesh, rng, spot, height, colour.astype(np.float32), cards)

    def _furnish(
        self, front: _Frontage, y0: float, y1: float, corner0: bool, corner1: bool
    ) -> None:
        """Adds street lamps, trees, furniture, traffic lights, bicycles and bus stops.

        ``corner0`` and ``corner1`` say whether a junction lies at ``y0`` and ``y1``.
        """
        rng, mesh, frequencies, at = self.rng, self.mesh, self.frequencies, front.at
        if y1 - y0 < 4:
            return
        y = y0 + rng.uniform(0, 15)
        height = rng.uniform(6, 9.5)
        while y < y1:
            add_lamp(mesh, at, y, height, self.metal)
            y += rng.uniform(*frequencies.lamp_gap)
        pit = rng.uniform(7, 12)
        if rng.random() < frequencies.street_trees[front.kind]:
            x = front.width + front.verge * 0.5 if front.verge else 0.9
            for tree_y in np.arange(y0 + 4, y1 - 3, pit):
                if rng.random() < 0.65:
                    self._tree(at.point(x, tree_y, KERB_HEIGHT), rng.uniform(5, 10))
        y = y0 + rng.uniform(0, 10)
        while y < min(y1, 110):
            self._furniture(front, y)
            y += rng.uniform(*frequencies.furniture_gap)
        if not front.main:
            return
        near_end = min(y1, 100)
        for corner, y, sign in ((corner0, y0, 1), (corner1, y1, -1)):
            if not corner or y > 110:
                continue
            junction = min(self.street.junctions, key=lambda j: min(abs(j.y0 - y), abs(j.y1 - y)))
            if junction.signals:
                add_traffic_light(mesh, rng, at.point(0.45, y + sign * 0.6, 0), -1, self.metal)
                if rng.random() < 0.5:
                    add_traffic_light(mesh, rng, at.point(0.45, y + sign * 0.2, 0), 1, self.metal)
            if rng.random() < frequencies.guard_rail:
                a = y + sign * 2.5
                add_railing(
                    mesh,
                    at,
                    (0.3, a),
                    (0.3, a + sign * rng.uniform(5, 12)),
                    KERB_HEIGHT,
                    1.05,
                    self.metal,
                )
        if rng.random() < frequencies.bicycle_racks and near_end > y0 + 12:
            y = rng.uniform(y0, near_end - 10)
            for k in range(int(rng.integers(3, 9))):
                spot = at.point(front.width - 0.9, y + 0.6 * k, KERB_HEIGHT)
                yaw = np.pi / 2 + rng.normal(0, 0.2) if rng.random() < 0.8 else rng.normal(0, 0.2)
                add_bicycle(mesh, rng, pose(*spot, yaw=yaw), ridden=False)
        if rng.random() < frequencies.bus_stop and near_end > y0 + 20 and front.width > 2.2:
            y = rng.uniform(max(y0, 8), near_end - 8) if near_end - 8 > max(y0, 8) else y0
            add_bus_shelter(mesh, rng, at, front.width - 1.6, y)
            spot = at.point(0.6, y - 1.0, 0)
            mesh.cylinder(spot, np.add(spot, (0, 0, 2.9)), 0.05, 0.05, 6, POLE, m.FLAT, self.metal)
            mesh.box(
                np.add(spot, (-0.25, -0.04, 2.2)),
                np.add(spot, (0.25, 0.04, 2.9)),
                SIGN,
                m.SIGN,
                hsv(rng.random(), 0.8, 0.6),
                params=mesh.params(3, 0.2, 2.6),
            )
            for _ in range(int(rng.integers(0, 4))):
                spot = at.point(
                    front.width - rng.uniform(0.4, 1.5), y + rng.uniform(0, 3.5), KERB_HEIGHT
                )
                add_person(mesh, rng, pose(*spot, yaw=rng.uniform(0, 6.3)))

    def _furniture(self, front: _Frontage, y: float) -> None:
        """Adds one piece of street furniture at ``y``."""
        rng, mesh, at = self.rng, self.mesh, front.at
        kind = choose(rng, self.frequencies.furniture)
        x = rng.uniform(0.35, 0.7)
        spot = at.point(x, y, KERB_HEIGHT)
        if spot[1] < 3 and abs(spot[0] - self.camera_x) < 3:
            return
        if kind == "sign":
            add_traffic_sign(mesh, rng, spot, self.metal)
        elif kind == "bollards":
            colour = grey(0.02) if rng.random() < 0.7 else grey(0.35)
            for k in range(int(rng.integers(3, 9))):
                foot = (0.4, y + 1.5 * k)
                mesh.cylinder(
                    (*foot, 0), (*foot, 1.05), 0.075, 0.06, 7, POLE, m.FLAT, colour, at=at
                )
        elif kind == "bin":
            colour = rng.choice([0.02, 0.05, 0.15])
            mesh.cylinder(
                spot, np.add(spot, (0, 0, 0.95)), 0.24, 0.27, 9, VOID, m.FLAT, grey(colour)
            )
        elif kind == "box":
            size = [rng.uniform(0.4, 0.6), rng.uniform(0.6, 1.4), rng.uniform(0.9, 1.5)]
            colour = hsv(rng.choice([0.0, 0.36, 0.6]), rng.uniform(0.1, 0.8), 0.4)
            low = (front.width - 0.9, y, KERB_HEIGHT)
            mesh.box(low, np.add(low, size), VOID, m.PAINT, colour, at=at)
        elif kind == "post":
            mesh.cylinder(
                spot,
                np.add(spot, (0, 0, rng.uniform(2.4, 3.6))),
                0.06,
                0.05,
                6,
                POLE,
                m.FLAT,
                self.metal,
            )
        elif front.main:
            board = hsv(rng.choice([0.33, 0.6, 0.0]), rng.uniform(0.4, 0.9), 0.4)
            for dx in (-0.5, 0.5):
                mesh.cylinder(
                    np.add(spot, (dx, 0, 0)),
                    np.add(spot, (dx, 0, 1.9)),
                    0.05,
                    0.05,
                    5,
                    POLE,
                    m.FLAT,
                    self.metal,
                )
            mesh.box(
                np.add(spot, (-0.9, -0.06, 1.5)),
                np.add(spot, (0.9, -0.02, 2.7)),
                SIGN,
                m.SIGN,
                board,
                params=mesh.params(rng.integers(1, 9999), 0.28, 2.1),
            )

    def _people(self, front: _Frontage, y0: float, y1: float) -> None:
        """Adds groups of pedestrians on the pavement between ``y0`` and ``y1``."""
        rng = self.rng
        y0, y1 = max(y0, 3.0 if front.main else 0.0), min(y1, 95)
        if y1 <= y0:
            return
        groups = rng.poisson(
            self.frequencies.people[front.kind] * (y1 - y0) / 60 * (1 if front.main else 0.6)
        )
        for _ in range(groups):
            # prefer places near the camera, since far people cover few pixels
            y = y0 + (y1 - y0) * rng.random() ** 1.6
            x = rng.uniform(0.3, max(front.width - 0.3, 0.5))
            heading = rng.choice([0, np.pi])
            for _ in range(int(rng.choice([1, 2, 3], p=[0.6, 0.3, 0.1]))):
                spot = front.at.point(
                    x + rng.uniform(-0.4, 0.4), y + rng.uniform(-0.6, 0.6), KERB_HEIGHT
                )
                if spot[1] > 2.5 or abs(spot[0] - self.camera_x) > 2.5:
                    yaw = heading + rng.normal(0, 0.35) + (0 if front.main else np.pi / 2)
                    add_person(self.mesh, rng, pose(*spot, yaw=yaw))

    def _claim(self, x: float, y: float, half_width: float, half_length: float) -> bool:
        """Occupies a rectangle of the carriageway if it is free; returns whether it was."""
        for other_x, other_y, other_half_width, other_half_length in self.occupied:
            if (
                abs(x - other_x) < half_width + other_half_width
                and abs(y - other_y) < half_length + other_half_length
            ):
                return False
        self.occupied.append((x, y, half_width, half_length))
        return True

    def _clear_of_camera(self, x: float, y: float, half_length: float) -> bool:
        """Whether a vehicle at (x, y) leaves the camera a free view."""
        beside = abs(x - self.camera_x)
        return not (beside < 1.9 and -8 < y < 7 + half_length) and not (
            beside < 2.6 and -4 < y < 2.5 + half_length
        )

    def _vehicle(self, x: float, y: float, yaw: float, kind: str) -> None:
        """Adds a vehicle at (x, y) unless it would cover the camera or another vehicle."""
        half_length = {"bus": 5.6, "lorry": 4.2, "motorcycle": 1.2}.get(kind, 2.4)
        half_width = {"bus": 1.3, "lorry": 1.2, "motorcycle": 0.5}.get(kind, 0.95)
        if abs(np.sin(yaw)) > 0.7:
            half_width, half_length = half_length, half_width
        if self._clear_of_camera(x, y, half_length) and self._claim(x, y, half_width, half_length):
            at = pose(x, y, yaw=yaw)
            add_vehicle(self.mesh, self.rng, at, kind, self.look.paint_colour)

    def _parked(self, side: int, y0: float, y1: float) -> None:
        """Adds a row of parked vehicles along one side of a block."""
        rng, w = self.rng, self.street.half_width
        density = rng.uniform(0.3, 0.95)
        half_on_kerb = rng.random() < self.frequencies.pavement_parking
        with_traffic = 0.0 if side == self.street.near_side else np.pi
        y = max(y0 + 6, -6)
        while y < min(y1 - 6, 105):
            kind = parked_kind(rng, self.frequencies.vehicles)
            if rng.random() < density and rng.random() < self.frequencies.parked_motorcycles:
                self._parked_motorcycles(side, y)
            elif rng.random() < density:
                x = side * (w - 1.05 + rng.normal(0, 0.08) + 0.8 * half_on_kerb)
                yaw = with_traffic + rng.normal(0, 0.025) + (np.pi if rng.random() < 0.1 else 0)
                self._vehicle(x, y, yaw, kind)
            y += rng.uniform(5.4, 7.2)

    def _parked_motorcycles(self, side: int, y: float) -> None:
        """Adds two or three motorcycles that face the kerb, in the space of one car."""
        rng = self.rng
        for k in range(int(rng.integers(2, 4))):
            x = side * (self.street.half_width - 1.2)
            if self._clear_of_camera(x, y + 1.1 * k, 1.0) and self._claim(x, y + 1.1 * k, 1.0, 0.4):
                yaw = -side * np.pi / 2 + rng.normal(0, 0.15)
                add_motorcycle(self.mesh, rng, pose(x, y + 1.1 * k, yaw=yaw), ridden=False)

    def _traffic(self) -> None:
        """Adds moving vehicles, cyclists, and pedestrians who cross at junctions."""
        rng, w, frequencies = self.rng, self.street.half_width, self.frequencies
        near = self.street.near_side
        for side, yaw, start in ((near, 0.0, 11.0), (-near, np.pi, 6.0)):
            y = start + rng.uniform(0, frequencies.traffic_gap[1])
            while y < 130:
                kind = choose(rng, frequencies.vehicles)
                self._vehicle(
                    side * self._lane(side) * rng.uniform(0.9, 1.1),
                    y,
                    yaw + rng.normal(0, 0.02),
                    kind,
                )
                y += rng.uniform(*frequencies.traffic_gap) + (8 if kind in ("bus", "lorry") else 3)
        for _ in range(rng.poisson(frequencies.cyclists)):
            side = rng.choice([near, -near], p=[0.6, 0.4])
            kerb = w - 2.4 if self.parked[side] else w
            x, y = side * kerb * rng.uniform(0.68, 0.88), rng.uniform(5, 60)
            if (abs(x - self.camera_x) > 1.2 or y > 7) and self._claim(x, y, 0.4, 1.0):
                yaw = (0 if side == near else np.pi) + rng.normal(0, 0.06)
                add_bicycle(self.mesh, rng, pose(x, y, yaw=yaw), ridden=True)
        for junction in self.street.junctions:
            if rng.random() < frequencies.crossing_people:
                for _ in range(int(rng.integers(1, 4))):
                    x, y = rng.uniform(-w, w), junction.y0 - rng.uniform(1.2, 3.6)
                    if y > 5 and self._claim(x, y, 0.3, 0.3):
                        yaw = rng.choice([-1, 1]) * np.pi / 2 + rng.normal(0, 0.2)
                        add_person(self.mesh, rng, pose(x, y, yaw=yaw))

    def _side_traffic(self, side: int, junction: Junction) -> None:
        """Adds vehicles that wait at the mouth of a side street or park along it."""
        rng, w = self.rng, self.street.half_width
        middle, width = (junction.y0 + junction.y1) / 2, junction.y1 - junction.y0
        if rng.random() < self.frequencies.waiting_at_junction:
            y = middle + side * self.street.near_side * -0.25 * width
            x = side * (w + rng.uniform(3.0, 5.0))
            self._vehicle(x, y, side * np.pi / 2, parked_kind(rng, self.frequencies.vehicles))
        if rng.random() < self.frequencies.parked[self.street_kind]:
            for space in np.arange(w + 12, w + SIDE_STREET_LENGTH, 6.3):
                if rng.random() < 0.6:
                    kind = parked_kind(rng, self.frequencies.vehicles)
                    yaw = side * np.pi / 2 + rng.normal(0, 0.03)
                    self._vehicle(side * float(space), junction.y1 - 1.1, yaw, kind)

    def _far_end(self) -> None:
        """Adds buildings and trees across the end of the street, to close the view."""
        rng = self.rng
        rotation = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]], np.float32)
        at = Pose(rotation, np.array([0, STREET_END + 14, 0], np.float32))
        y = -80.0
        while y < 80:
            length = rng.uniform(9, 18)
            if rng.random() < 0.6:
                add_building(
                    self.mesh,
                    rng,
                    self.look,
                    at,
                    0,
                    y,
                    length,
                    int(rng.integers(2, 4)),
                    city=True,
                    shop=False,
                    detailed=False,
                )
            else:
                spot = np.array([y, STREET_END + rng.uniform(4, 12), 0], np.float32)
                self._tree(spot, rng.uniform(9, 15))
            y += length
        self.mesh.ground(
            -150,
            150,
            STREET_END + 8,
            STREET_END + 150,
            KERB_HEIGHT,
            TERRAIN,
            m.GRASS,
            hsv(0.24, 0.5, 0.4),
        )


def build_scene(rng: np.random.Generator, look: Look) -> Scene:
    """Draws a street from the ranges and frequencies of ``look``."""
    return _Builder(rng, look).build()
