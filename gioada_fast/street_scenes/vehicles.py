"""Vehicles, pedestrians and riders.

Each is a cached template in its own frame: origin on the ground, y forward, lengths in metres.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..labels import STREET_IDS
from . import materials as m
from .colours import grey, hsv
from .frequencies import choose
from .geometry import Mesh, Point, Pose, Template

CAR, BUS, LORRY = STREET_IDS["car"], STREET_IDS["bus"], STREET_IDS["lorry"]
BICYCLE, MOTORCYCLE = STREET_IDS["bicycle"], STREET_IDS["motorcycle"]
PERSON, RIDER = STREET_IDS["pedestrian"], STREET_IDS["rider"]

BODY, TRIM, GLASS, RIM, HEADLIGHT, TAIL_LIGHT, FRONT_PLATE, REAR_PLATE, CARGO = range(9)
"""Rows of a vehicle's palette."""
TOP, LEGS, SKIN, HAIR, SHOES, BAG = range(6)
"""Rows of a person's palette."""


def slot(index: int) -> tuple[float, float, float]:
    """The colour that ``Mesh.template`` reads as a row of the palette."""
    return (float(index), 0.0, 0.0)


class CarShape(NamedTuple):
    """Side profile of a car. Horizontal measures below are fractions of the length."""

    length: float
    """Metres."""
    width: float
    """Metres."""
    height: float
    """Metres."""
    belt: float
    """Height of the lower edge of the windows, metres."""
    bonnet: float
    """From the front to the foot of the windscreen."""
    boot: float
    """From the rear to the foot of the rear window."""
    windscreen: float
    """Horizontal run of the windscreen."""
    rear_window: float
    """Horizontal run of the rear window."""
    side_windows: bool = True


CAR_SHAPES: dict[str, CarShape] = {
    "hatchback": CarShape(3.95, 1.72, 1.47, 0.9, 0.26, 0.01, 0.17, 0.08),
    "saloon": CarShape(4.6, 1.78, 1.42, 0.9, 0.27, 0.15, 0.15, 0.13),
    "estate": CarShape(4.65, 1.8, 1.5, 0.92, 0.26, 0.01, 0.15, 0.07),
    "suv": CarShape(4.6, 1.88, 1.76, 1.06, 0.25, 0.01, 0.12, 0.06),
    "van": CarShape(5.2, 1.96, 2.15, 1.15, 0.15, 0.0, 0.13, 0.01, side_windows=False),
}


def _part_of_quad(
    corners: np.ndarray, u0: float, u1: float, v0: float, v1: float, offset: np.ndarray
) -> np.ndarray:
    """Part of a quad, moved by ``offset``: corners float32 [4, 3].

    Args:
        corners: [4, 3] corners a, b, c, d of the whole quad.
        u0: start along ab, 0 .. 1.
        u1: end along ab.
        v0: start along ad, 0 .. 1.
        v1: end along ad.
        offset: [3] metres.
    """
    a, b, c, d = corners
    out = []
    for u, v in ((u0, v0), (u1, v0), (u1, v1), (u0, v1)):
        out.append((a * (1 - u) + b * u) * (1 - v) + (d * (1 - u) + c * u) * v + offset)
    return np.array(out, np.float32)


def _wheels(
    mesh: Mesh,
    label: int,
    axles: list[float],
    half_width: float,
    radius: float,
    detailed: bool = True,
) -> None:
    for y in axles:
        for side in (-1, 1):
            x = side * half_width
            if not detailed:
                ends = [x - side * 0.1, y, radius], [x + side * 0.02, y, radius]
                mesh.cylinder(*ends, radius, radius, 7, label, m.FLAT, slot(TRIM))
                continue
            arch = [x - side * 0.1, y, radius], [x + side * 0.004, y, radius]
            mesh.cylinder(*arch, radius * 1.2, radius * 1.2, 14, label, m.FLAT, slot(TRIM))
            tyre = [x - side * 0.1, y, radius], [x + side * 0.02, y, radius]
            mesh.cylinder(*tyre, radius, radius, 14, label, m.FLAT, slot(TRIM))
            rim = [x, y, radius], [x + side * 0.03, y, radius]
            mesh.cylinder(*rim, radius * 0.62, radius * 0.55, 10, label, m.PAINT, slot(RIM))


@lru_cache
def car(kind: str, detailed: bool) -> Template:
    """A car or van. ``kind`` is a key of ``CAR_SHAPES``; ``detailed`` adds parts for near views."""
    k = CAR_SHAPES[kind]
    mesh = Mesh()
    length, half, belt = k.length, k.width / 2, k.belt
    rear, front = -length / 2, length / 2
    scuttle, boot = front - k.bonnet * length, rear + max(k.boot * length, 0.05)
    # (y, height of the top, fraction of the width, height of the underside) from rear to front
    stations = [
        (rear, belt * 0.72, 0.9, 0.34),
        (rear + 0.05, belt * 0.97, 0.95, 0.24),
        (boot + 0.02, belt, 0.99, 0.19),
        (0.0, belt, 1.0, 0.19),
        (scuttle, belt, 1.0, 0.19),
        (front - 0.35, belt * 0.86, 0.97, 0.2),
        (front - 0.06, belt * 0.74, 0.9, 0.24),
        (front, belt * 0.6, 0.86, 0.32),
    ]
    rings = []
    for y, top, fraction, under in stations:
        w = half * fraction
        outline = [
            (w * 0.9, under),
            (w, (under + top) * 0.5),
            (w * 0.97, top * 0.9),
            (w * 0.86, top),
        ]
        outline += [(-x, z) for x, z in reversed(outline)]
        rings.append([(x, y, z) for x, z in outline])
    count = len(rings[0])
    faces = []
    for i in range(len(rings) - 1):
        for j in range(count):
            a, b = i * count + j, i * count + (j + 1) % count
            faces += [(a, b, b + count), (a, b + count, a + count)]
    for start in (0, (len(rings) - 1) * count):
        faces += [(start, start + j, start + j + 1) for j in range(1, count - 1)]
    mesh.add(np.array(rings).reshape(-1, 3), np.array(faces), CAR, m.PAINT, slot(BODY))

    y0, y1 = boot, scuttle
    r0, r1 = y0 + k.rear_window * length, y1 - k.windscreen * length
    low, high = half * 0.93, half * (0.76 if k.side_windows else 0.86)
    base, roof = belt - 0.02, k.height
    left = np.array([[-low, y0, base], [-low, y1, base], [-high, r1, roof], [-high, r0, roof]])
    right = left * [-1, 1, 1]
    windscreen = np.array([left[1], right[1], right[2], left[2]])
    rear_window = np.array([left[0], right[0], right[3], left[3]])
    crown = np.array([left[3], right[3], right[2], left[2]])
    for quad in (left, right, windscreen, rear_window, crown):
        mesh.quad(*quad, CAR, m.PAINT, slot(BODY))
    mesh.quad(
        *_part_of_quad(crown, 0.08, 0.92, 0.12, 0.88, np.array([0, 0, 0.035])),
        CAR,
        m.PAINT,
        slot(BODY),
    )
    glass = (CAR, m.GLASS, slot(GLASS))
    out = np.array([0, 0.012, 0.012])
    mesh.quad(*_part_of_quad(windscreen, 0.06, 0.94, 0.08, 0.92, out), *glass)
    if k.side_windows:
        mesh.quad(*_part_of_quad(rear_window, 0.08, 0.92, 0.15, 0.88, out * [1, -1, 1]), *glass)
    for side, quad in ((-1, left), (1, right)):
        out = np.array([side * 0.012, 0, 0.004])
        windows = [(0.53, 0.95), (0.05, 0.29), (0.31, 0.51)] if k.side_windows else [(0.76, 0.97)]
        for u0, u1 in windows:
            mesh.quad(*_part_of_quad(quad, u0, u1, 0.1, 0.88, out), *glass)
        lamp = (
            [side * half * 0.52, front - 0.09, belt * 0.58],
            [side * half * 0.86, front + 0.012, belt * 0.76],
        )
        mesh.box(*lamp, CAR, m.GLASS, slot(HEADLIGHT))
        tall = 0.5 if kind == "saloon" else 0.75
        lamp = (
            [side * half * 0.62, rear - 0.012, belt * 0.66],
            [side * half * 0.9, rear + 0.12, belt * (0.45 + tall)],
        )
        mesh.box(*lamp, CAR, m.LAMP, slot(TAIL_LIGHT))
        if not detailed:
            continue
        # shut lines and a sill suggest doors
        x = side * (half + 0.004)
        for y in (r1 + 0.15, (r0 + r1) / 2 - 0.1):
            mesh.box([x, y, 0.3], [x - side * 0.01, y + 0.025, belt * 0.9], CAR, m.FLAT, slot(TRIM))
        sill = [x - side * 0.06, y0 + 0.75, 0.2], [x, y1 - 0.1, 0.3]
        mesh.box(*sill, CAR, m.FLAT, slot(TRIM))
        mirror = (
            [side * half * 0.98, y1 - 0.42, belt],
            [side * (half + 0.16), y1 - 0.3, belt + 0.16],
        )
        mesh.box(*mirror, CAR, m.PAINT, slot(BODY))
    for y, plate in ((front, FRONT_PLATE), (rear, REAR_PLATE)):
        sign = 1 if y > 0 else -1
        bumper = [-half * 0.84, y - sign * 0.1, 0.24], [half * 0.84, y + sign * 0.03, 0.4]
        mesh.box(*bumper, CAR, m.FLAT, slot(TRIM))
        z = 0.42 if sign > 0 else belt * 0.62
        mesh.box([-0.26, y, z], [0.26, y + sign * 0.045, z + 0.12], CAR, m.FLAT, slot(plate))
    grille = [-half * 0.46, front - 0.05, belt * 0.56], [half * 0.46, front + 0.012, belt * 0.72]
    mesh.box(*grille, CAR, m.FLAT, slot(TRIM))
    _wheels(mesh, CAR, [rear + length * 0.18, front - length * 0.19], half - 0.01, 0.32, detailed)
    return mesh.template()


@lru_cache
def bus(double: bool) -> Template:
    """A single- or double-decker bus, 10.8 m long."""
    mesh = Mesh()
    length, half, height = 10.8, 1.25, 4.3 if double else 3.05
    rear, front = -length / 2, length / 2
    mesh.box([-half, rear, 0.35], [half, front, height], BUS, m.PAINT, slot(BODY))
    mesh.box(
        [-half - 0.01, rear - 0.01, 0.36],
        [half + 0.01, front + 0.01, 0.95],
        BUS,
        m.PAINT,
        slot(CARGO),
    )
    decks = [(1.15, 2.35)] + ([(2.75, 3.85)] if double else [])
    for low, high in decks:
        for side in (-1, 1):
            x = side * (half + 0.015)
            for y in np.arange(rear + 0.4, front - 1.6, 1.35):
                mesh.panel((x, y), (x, y + 1.25), low, high, BUS, m.GLASS, slot(GLASS))
        for end, fraction in ((front + 0.02, 0.94), (rear - 0.02, 0.8)):
            x = half * fraction
            extra = 0.25 if end > 0 and low < 2 else 0.0
            mesh.panel((-x, end), (x, end), low - extra, high, BUS, m.GLASS, slot(GLASS))
    for side in (-1, 1):
        x = side * (half + 0.015)
        mesh.panel((x, front - 1.5), (x, front - 0.3), 0.4, 2.4, BUS, m.GLASS, slot(GLASS))
        lamp = [side * 0.8, front - 0.1, 0.6], [side * 1.15, front + 0.03, 0.8]
        mesh.box(*lamp, BUS, m.GLASS, slot(HEADLIGHT))
        lamp = [side * 0.95, rear - 0.03, 0.7], [side * 1.18, rear + 0.1, 1.3]
        mesh.box(*lamp, BUS, m.LAMP, slot(TAIL_LIGHT))
        mirror = [side * 1.3, front - 0.05, 1.7], [side * 1.5, front + 0.2, 2.2]
        mesh.box(*mirror, BUS, m.FLAT, slot(TRIM))
    z = 2.42
    mesh.box([-0.8, front, z], [0.8, front + 0.03, z + 0.28], BUS, m.LAMP, slot(REAR_PLATE))
    mesh.box([-0.26, rear - 0.03, 0.5], [0.26, rear, 0.62], BUS, m.FLAT, slot(REAR_PLATE))
    _wheels(mesh, BUS, [rear + 2.6, front - 2.5], half, 0.48)
    return mesh.template()


@lru_cache
def lorry(length: float) -> Template:
    """A rigid lorry with a box body; ``length`` in metres."""
    mesh = Mesh()
    half, rear, front = 1.15, -length / 2, length / 2
    cab = front - 1.7
    mesh.box([-half, rear, 1.0], [half, cab - 0.15, 3.2], LORRY, m.PAINT, slot(CARGO))
    mesh.box([-half * 0.9, rear, 0.6], [half * 0.9, cab, 1.0], LORRY, m.FLAT, slot(TRIM))
    mesh.box([-half + 0.05, cab, 0.5], [half - 0.05, front, 2.4], LORRY, m.PAINT, slot(BODY))
    mesh.box([-half + 0.2, cab, 2.4], [half - 0.2, front - 0.5, 2.9], LORRY, m.PAINT, slot(BODY))
    x, y = half * 0.88, front + 0.012
    mesh.panel((-x, y), (x, y), 1.45, 2.25, LORRY, m.GLASS, slot(GLASS))
    for side in (-1, 1):
        x = side * (half - 0.04)
        mesh.quad(
            [x, cab + 0.5, 1.5],
            [x, front - 0.15, 1.5],
            [x, front - 0.25, 2.2],
            [x, cab + 0.5, 2.2],
            LORRY,
            m.GLASS,
            slot(GLASS),
        )
        lamp = [side * 0.7, front - 0.1, 0.62], [side * 1.05, front + 0.03, 0.82]
        mesh.box(*lamp, LORRY, m.GLASS, slot(HEADLIGHT))
        lamp = [side * 0.8, rear - 0.03, 0.7], [side * 1.1, rear + 0.1, 0.9]
        mesh.box(*lamp, LORRY, m.LAMP, slot(TAIL_LIGHT))
        mirror = [side * 1.12, front - 0.1, 1.6], [side * 1.3, front + 0.05, 2.1]
        mesh.box(*mirror, LORRY, m.FLAT, slot(TRIM))
    mesh.box([-0.02, rear - 0.01, 1.05], [0.02, rear, 3.15], LORRY, m.FLAT, slot(TRIM))
    mesh.box([-0.9, front - 0.02, 0.85], [0.9, front + 0.015, 1.3], LORRY, m.FLAT, slot(TRIM))
    mesh.box([-0.26, rear - 0.04, 0.7], [0.26, rear, 0.82], LORRY, m.FLAT, slot(REAR_PLATE))
    mesh.box([-half, front - 0.3, 0.3], [half, front + 0.03, 0.6], LORRY, m.FLAT, slot(TRIM))
    _wheels(mesh, LORRY, [rear + 1.7, front - 1.0], half - 0.05, 0.46)
    return mesh.template()


def vehicle_palette(rng: np.random.Generator, colourful: float) -> np.ndarray:
    """Draws linear RGB float32 [9, 3]; ``colourful`` is the probability of a bright colour."""
    if rng.random() < colourful:
        hue = rng.choice([0.0, 0.0, 0.0, 0.6, 0.62, 0.58, 0.61, 0.45, 0.1])
        body = hsv(hue + rng.normal(0, 0.015), rng.uniform(0.5, 0.9), rng.uniform(0.22, 0.62))
    else:
        body = hsv(0.6, rng.uniform(0, 0.08), rng.choice([0.12, 0.2, 0.4, 0.62, 0.72, 0.92]))
    stripe = hsv(rng.random(), rng.uniform(0, 0.8), rng.uniform(0.3, 0.9))
    plates = grey(0.7), np.array([0.6, 0.45, 0.05], np.float32)
    tail = np.array([0.42, 0.012, 0.008], np.float32)
    return np.stack(
        [
            body,
            grey(0.014),
            grey(0.02),
            grey(rng.uniform(0.08, 0.4)),
            grey(0.75),
            tail,
            *plates,
            stripe,
        ]
    )


def _limb(
    mesh: Mesh, label: int, a: Point, b: Point, ra: float, rb: float, index: int, sides: int = 6
) -> None:
    mesh.cylinder(a, b, ra, rb, sides, label, m.CLOTH, slot(index))


@lru_cache
def person(stride: int, coat: bool, bag: bool, detailed: bool) -> Template:
    """A pedestrian, 1.75 m tall.

    Args:
        stride: 0 stands, 4 takes the longest steps.
        coat: whether the top reaches to the thighs.
        bag: whether the pedestrian carries a bag.
        detailed: use finer primitives, for near views.
    """
    mesh = Mesh()
    sides, rounds = (6, 1) if detailed else (4, 0)
    q = 0.09 * stride
    for side, step in ((-1, q), (1, -q)):
        hip, foot = [side * 0.09, 0, 0.9], [side * 0.1, step, 0.07]
        knee = [side * 0.1, step * 0.5 + 0.05 * (stride > 0), 0.48]
        _limb(mesh, PERSON, hip, knee, 0.095, 0.07, LEGS, sides)
        _limb(mesh, PERSON, knee, foot, 0.07, 0.05, LEGS, sides)
        shoe = [side * 0.1 - 0.045, step - 0.08, 0.0], [side * 0.1 + 0.045, step + 0.17, 0.09]
        mesh.box(*shoe, PERSON, m.FLAT, slot(SHOES))
        shoulder, hand = [side * 0.2, 0, 1.42], [side * 0.26, -step * 0.8 + 0.06, 0.86]
        elbow = [side * 0.27, -step * 0.4 - 0.02, 1.12]
        _limb(mesh, PERSON, shoulder, elbow, 0.065, 0.052, TOP, sides)
        _limb(mesh, PERSON, elbow, hand, 0.052, 0.04, TOP, sides)
        mesh.ellipsoid(hand, (0.04, 0.04, 0.06), 0, PERSON, m.FLAT, slot(SKIN))
    _limb(
        mesh,
        PERSON,
        [0, 0, 0.62 if coat else 0.86],
        [0, 0, 1.1],
        0.2 if coat else 0.16,
        0.155,
        TOP,
        sides,
    )
    _limb(mesh, PERSON, [0, 0, 1.1], [0, 0, 1.4], 0.155, 0.19, TOP, sides)
    mesh.ellipsoid([0, 0, 1.4], (0.215, 0.13, 0.09), rounds, PERSON, m.CLOTH, slot(TOP))
    _limb(mesh, PERSON, [0, 0, 1.42], [0, 0.01, 1.56], 0.06, 0.055, SKIN, sides)
    mesh.ellipsoid([0, 0.02, 1.63], (0.082, 0.1, 0.12), rounds, PERSON, m.FLAT, slot(SKIN))
    mesh.ellipsoid([0, -0.012, 1.665], (0.09, 0.102, 0.1), rounds, PERSON, m.FLAT, slot(HAIR))
    if bag:
        mesh.box([0.2, -0.12, 0.72], [0.34, 0.16, 1.0], PERSON, m.FLAT, slot(BAG))
    return mesh.template()


def people_palette(rng: np.random.Generator) -> np.ndarray:
    """Draws linear RGB float [6, 3]: mostly dark or muted clothes, sometimes a bright top."""
    bright = rng.random() < 0.2
    top = hsv(
        rng.random(),
        rng.uniform(0.35, 0.75) if bright else rng.uniform(0, 0.35),
        rng.uniform(0.5, 0.9) if bright else rng.choice([0.12, 0.2, 0.35, 0.55, 0.85]),
    )
    legs = hsv(rng.choice([0.6, 0.62, 0.08]), rng.uniform(0, 0.5), rng.uniform(0.12, 0.5))
    skin = np.array([0.5, 0.3, 0.22], np.float32) * rng.uniform(0.3, 1.05)
    hair = np.array([0.05, 0.03, 0.02], np.float32) * rng.choice([0.5, 1, 2, 5])
    return np.stack([top, legs, skin, hair, grey(0.03), hsv(rng.random(), 0.5, 0.4)])


def add_person(mesh: Mesh, rng: np.random.Generator, at: Pose) -> None:
    """Adds an adult or a child on foot; distant people have less detail."""
    template = person(
        int(rng.integers(0, 5)),
        bool(rng.random() < 0.4),
        bool(rng.random() < 0.35),
        bool(at.origin[1] < 25),
    )
    height = rng.uniform(1.1, 1.4) if rng.random() < 0.08 else rng.normal(1.71, 0.08)
    scale = np.diag([height / 1.75 * rng.uniform(0.92, 1.15), height / 1.75, height / 1.75])
    mesh.stamp(
        template, people_palette(rng), Pose((at.rotation @ scale).astype(np.float32), at.origin)
    )


def _wheel(mesh: Mesh, label: int, y: float, radius: float, thickness: float, spokes: bool) -> None:
    """Adds a wheel: a spoked alpha cut-out with a rim, or a solid disc with a hub.

    The rim is solid because a cut-out vanishes when seen edge on.
    """
    r = radius
    if spokes:
        mesh.panel((0, y - r), (0, y + r), 0, 2 * r, label, m.SPOKES, slot(TRIM), textured=True)
        for angle in np.arange(8) * np.pi / 4 + 0.2:
            a = [0, y + 0.96 * r * np.cos(angle), r + 0.96 * r * np.sin(angle)]
            b = [
                0,
                y + 0.96 * r * np.cos(angle + np.pi / 4),
                r + 0.96 * r * np.sin(angle + np.pi / 4),
            ]
            mesh.cylinder(a, b, thickness, thickness, 3, label, m.FLAT, slot(TRIM))
    else:
        ends = [-thickness, y, r], [thickness, y, r]
        mesh.cylinder(*ends, r, r, 12, label, m.FLAT, slot(TRIM))
        ends = [-thickness - 0.01, y, r], [thickness + 0.01, y, r]
        mesh.cylinder(*ends, r * 0.5, r * 0.5, 8, label, m.PAINT, slot(RIM))


@lru_cache
def bicycle() -> Template:
    """A bicycle without its rider; its frame has the colour BODY."""
    mesh = Mesh()
    for y in (-0.52, 0.52):
        _wheel(mesh, BICYCLE, y, 0.34, 0.018, spokes=True)
    tubes = [
        ((0, -0.52, 0.34), (0, -0.2, 0.78)),
        ((0, -0.08, 0.3), (0, -0.24, 0.92)),
        ((0, -0.08, 0.3), (0, 0.4, 0.8)),
        ((0, -0.2, 0.78), (0, 0.38, 0.85)),
        ((0, 0.52, 0.34), (0, 0.36, 1.0)),
        ((0, -0.52, 0.34), (0, -0.08, 0.3)),
    ]
    for a, b in tubes:
        mesh.cylinder(a, b, 0.02, 0.02, 4, BICYCLE, m.PAINT, slot(BODY))
    mesh.cylinder(
        (-0.27, 0.34, 1.02), (0.27, 0.34, 1.02), 0.018, 0.018, 4, BICYCLE, m.FLAT, slot(TRIM)
    )
    mesh.box([-0.07, -0.36, 0.92], [0.07, -0.12, 0.98], BICYCLE, m.FLAT, slot(TRIM))
    for y in (-0.86, -0.3):
        mesh.box([-0.02, y, 0.6], [0.02, y + 0.03, 0.72], BICYCLE, m.FLAT, slot(TRIM))
    return mesh.template()


@lru_cache
def motorcycle() -> Template:
    """A motorcycle without its rider."""
    mesh = Mesh()
    for y in (-0.68, 0.7):
        _wheel(mesh, MOTORCYCLE, y, 0.31, 0.065, spokes=False)
    mesh.ellipsoid([0, 0.02, 0.48], (0.2, 0.42, 0.24), 1, MOTORCYCLE, m.PAINT, slot(TRIM))
    mesh.ellipsoid([0, 0.2, 0.8], (0.18, 0.32, 0.15), 1, MOTORCYCLE, m.PAINT, slot(BODY))
    mesh.box([-0.14, -0.75, 0.74], [0.14, 0.02, 0.84], MOTORCYCLE, m.FLAT, slot(TRIM))
    mesh.cylinder((0, 0.7, 0.31), (0, 0.45, 0.98), 0.05, 0.05, 5, MOTORCYCLE, m.FLAT, slot(RIM))
    mesh.cylinder(
        (-0.36, 0.4, 1.02), (0.36, 0.4, 1.02), 0.02, 0.02, 4, MOTORCYCLE, m.FLAT, slot(TRIM)
    )
    mesh.ellipsoid([0, 0.56, 0.9], (0.13, 0.1, 0.13), 1, MOTORCYCLE, m.GLASS, slot(HEADLIGHT))
    mesh.box([-0.06, -0.82, 0.68], [0.06, -0.72, 0.76], MOTORCYCLE, m.LAMP, slot(TAIL_LIGHT))
    mesh.box([-0.1, -0.86, 0.42], [0.1, -0.8, 0.6], MOTORCYCLE, m.FLAT, slot(REAR_PLATE))
    return mesh.template()


@lru_cache
def rider(pedal: int, seat: float, reach: float, helmet: bool) -> Template:
    """A rider of a bicycle or motorcycle.

    Args:
        pedal: position of the pedals, 0 to 3.
        seat: height of the saddle, metres.
        reach: y of the hands, metres.
        helmet: whether the rider wears a helmet, which has the colour HAIR.
    """
    mesh = Mesh()
    swing = 0.17 * np.sin(pedal * np.pi / 2 + 0.6)
    for side, lift in ((-1, swing), (1, -swing)):
        foot = [side * 0.12, -0.02 + 0.1 * (pedal % 2), 0.3 + lift]
        knee, hip = [side * 0.13, 0.22, 0.7 + lift * 0.5], [side * 0.1, -0.18, seat]
        _limb(mesh, RIDER, hip, knee, 0.1, 0.075, LEGS)
        _limb(mesh, RIDER, knee, foot, 0.075, 0.05, LEGS)
        mesh.box(
            np.subtract(np.array(foot), (0.05, 0.08, 0.05)),
            np.add(np.array(foot), (0.05, 0.16, 0.04)),
            RIDER,
            m.FLAT,
            slot(SHOES),
        )
        shoulder, hand = [side * 0.2, 0.02, seat + 0.48], [side * 0.25, reach, 1.03]
        elbow = [side * 0.29, reach * 0.55, seat + 0.22]
        _limb(mesh, RIDER, shoulder, elbow, 0.065, 0.05, TOP)
        _limb(mesh, RIDER, elbow, hand, 0.05, 0.04, TOP)
    _limb(mesh, RIDER, [0, -0.2, seat - 0.04], [0, 0.02, seat + 0.5], 0.16, 0.19, TOP)
    mesh.ellipsoid([0, 0.02, seat + 0.5], (0.21, 0.14, 0.09), 1, RIDER, m.CLOTH, slot(TOP))
    mesh.ellipsoid([0, 0.1, seat + 0.73], (0.085, 0.1, 0.125), 1, RIDER, m.FLAT, slot(SKIN))
    size = (0.12, 0.14, 0.1) if helmet else (0.09, 0.1, 0.1)
    mesh.ellipsoid([0, 0.08, seat + 0.79], size, 1, RIDER, m.FLAT, slot(HAIR))
    return mesh.template()


def add_bicycle(mesh: Mesh, rng: np.random.Generator, at: Pose, ridden: bool) -> None:
    """Adds a bicycle, with a rider if ``ridden``."""
    mesh.stamp(bicycle(), vehicle_palette(rng, 0.7), at)
    if ridden:
        helmet = bool(rng.random() < 0.4)
        palette = people_palette(rng)
        if helmet:
            palette[HAIR] = hsv(rng.random(), rng.uniform(0, 0.7), rng.uniform(0.3, 0.9))
        mesh.stamp(rider(int(rng.integers(0, 4)), 0.98, 0.34, helmet), palette, at)


def add_motorcycle(mesh: Mesh, rng: np.random.Generator, at: Pose, ridden: bool) -> None:
    """Adds a motorcycle, with a rider if ``ridden``."""
    mesh.stamp(motorcycle(), vehicle_palette(rng, 0.5), at)
    if ridden:
        palette = people_palette(rng)
        palette[HAIR] = grey(rng.choice([0.02, 0.3, 0.6]))
        mesh.stamp(rider(1, 0.84, 0.4, True), palette, at)


def add_vehicle(
    mesh: Mesh, rng: np.random.Generator, at: Pose, kind: str, colourful: float
) -> None:
    """Adds a vehicle.

    Args:
        mesh: receives the vehicle.
        rng: draws size and colours.
        at: placement; far vehicles have less detail.
        kind: a key of ``Frequencies.vehicles``.
        colourful: probability of a bright colour.
    """
    if kind == "motorcycle":
        add_motorcycle(mesh, rng, at, ridden=True)
        return
    palette = vehicle_palette(rng, colourful)
    if kind == "bus":
        palette[BODY] = hsv(
            rng.choice([0.0, 0.0, 0.58, 0.6, 0.12]), rng.uniform(0.3, 0.9), rng.uniform(0.5, 0.85)
        )
        mesh.stamp(bus(bool(rng.random() < 0.45)), palette, at)
    elif kind == "lorry":
        if rng.random() < 0.6:
            palette[CARGO] = grey(0.7)
        mesh.stamp(lorry(float(rng.choice([6.5, 8.0]))), palette, at)
    else:
        stretch = rng.uniform(0.97, 1.03), rng.uniform(0.94, 1.05), rng.uniform(0.96, 1.05)
        placed = Pose((at.rotation @ np.diag(stretch)).astype(np.float32), at.origin)
        mesh.stamp(car(kind, bool(at.origin[1] < 38)), palette, placed)


def parked_kind(rng: np.random.Generator, weights: dict[str, float]) -> str:
    """Draws a kind of car or van; ``weights`` may contain other vehicles, which are left out."""
    return choose(rng, {k: v for k, v in weights.items() if k in CAR_SHAPES})
