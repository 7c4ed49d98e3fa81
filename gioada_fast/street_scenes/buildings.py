"""Buildings, churches, garden boundaries and bus shelters.

All coordinates are those of a frontage: x is the distance from the kerb into the block, y runs
along the street, so that façades face -x. Lengths are in metres.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ..labels import STREET_IDS
from . import materials as m
from .colours import grey, hsv
from .frequencies import choose
from .geometry import Mesh, Point2, Pose
from .looks import Look

BUILDING, WALL, FENCE = STREET_IDS["building"], STREET_IDS["wall"], STREET_IDS["fence"]
TREE = STREET_IDS["tree"]


@dataclass
class FacadeStyle:
    """Style that all walls of a building share."""

    seed: int
    cladding: str
    colour: np.ndarray
    """Linear RGB [3] of the wall."""
    trim: np.ndarray
    """Linear RGB [3] of cornices, string courses and surrounds."""
    storey: float
    """Height of an upper storey, metres."""
    ground: float
    """Height of the ground floor, metres."""
    bay: float
    """Distance between window axes, metres."""
    window_width: float
    """As a fraction of the bay."""
    window_height: float
    """As a fraction of the storey."""
    frame: float
    """Albedo of the window frames."""
    surround: float
    """Width of the windows' surrounds, metres; 0 for none."""
    panes: int
    """0 one pane, 1 sash, 2 casement with a cross."""

    @property
    def trim_albedo(self) -> float:
        """Albedo of the trim."""
        return float(self.trim.mean())


def draw_style(rng: np.random.Generator, look: Look, city: bool) -> FacadeStyle:
    """Draws a style from the ranges of ``look``, for a town house or a suburban house."""
    cladding = choose(rng, look.cladding)
    if cladding == "panel" and not city:
        cladding = "plaster"
    colour = {
        "plaster": lambda: hsv(
            rng.choice([0.09, 0.11, 0.13, 0.13, 0.04, 0.55]) + rng.normal(0, 0.01),
            rng.uniform(*look.plaster_saturation),
            rng.uniform(0.6, 0.92),
        ),
        "brick": lambda: hsv(
            rng.uniform(*look.brick_hue), rng.uniform(0.3, 0.62), rng.uniform(0.34, 0.64)
        ),
        "stone": lambda: hsv(
            rng.uniform(0.08, 0.13), rng.uniform(0.06, 0.28), rng.uniform(0.42, 0.7)
        ),
        "panel": lambda: hsv(rng.uniform(0.5, 0.65), rng.uniform(0.02, 0.2), rng.uniform(0.3, 0.7)),
    }[cladding]()
    pale = hsv(0.11, rng.uniform(0.03, 0.2), rng.uniform(0.62, 0.9))
    panel = cladding == "panel"
    return FacadeStyle(
        seed=int(rng.integers(1, 30000)),
        cladding=cladding,
        colour=colour,
        trim=pale if rng.random() < 0.7 else colour * 0.75,
        storey=rng.uniform(2.7, 3.4) if city else rng.uniform(2.5, 2.8),
        ground=rng.uniform(3.2, 4.2) if city else rng.uniform(2.6, 2.9),
        bay=rng.uniform(1.5, 2.2) if panel else rng.uniform(1.7, 3.3),
        window_width=rng.uniform(0.7, 0.92) if panel else rng.uniform(0.34, 0.58),
        window_height=rng.uniform(0.45, 0.68),
        frame=float(rng.choice([0.75, 0.65, 0.05, 0.12])),
        surround=rng.uniform(0.08, 0.18) if rng.random() < 0.5 and not panel else 0.0,
        panes=int(rng.integers(0, 3)),
    )


def add_facade(
    mesh: Mesh, at: Pose, style: FacadeStyle, p: Point2, q: Point2, z1: float, ground_floor: int
) -> None:
    """Adds a façade from ``p`` to ``q`` (x, y), ``z1`` high; its material draws the windows.

    ``ground_floor`` is WINDOWS, SHOP or BLANK of ``materials``.
    """
    ends = at.apply([(*p, 0), (*q, 0)]).tolist()
    # the material needs the world axis along which the wall runs, and its start on that axis
    axis = 0 if abs(ends[1][0] - ends[0][0]) > abs(ends[1][1] - ends[0][1]) else 1
    start, stop = sorted((ends[0][axis], ends[1][axis]))
    length = stop - start
    bays = max(1, round(length / style.bay))
    params = m.FacadeParams(
        seed=style.seed,
        cladding=m.CLADDING[style.cladding],
        start=start,
        length=length,
        bays=bays,
        storey=style.storey,
        ground=style.ground,
        top=z1,
        window_width=style.window_width,
        window_height=style.window_height,
        ground_floor=ground_floor,
        frame=style.frame,
        surround=style.surround,
        panes=style.panes,
        trim=style.trim_albedo,
    )
    mesh.panel(p, q, 0, z1, BUILDING, m.FACADE, style.colour, at=at, params=mesh.params(*params))


def _roof(
    mesh: Mesh,
    rng: np.random.Generator,
    look: Look,
    at: Pose,
    style: FacadeStyle,
    x0: float,
    x1: float,
    y0: float,
    y1: float,
    z: float,
) -> None:
    """Adds a pitched roof, its ridge along or across the street, with chimneys and dormers."""
    colour = hsv(rng.uniform(*look.roof_hue), rng.uniform(0.1, 0.5), rng.uniform(0.22, 0.42))
    rise = rng.uniform(0.24, 0.42) * min(x1 - x0, 10)
    over, xm, ym = 0.35, (x0 + x1) / 2, (y0 + y1) / 2
    front, back = x0 - over, x1 + over
    slate = (BUILDING, m.ROOF, colour)
    across = rng.random() < 0.22
    hip = 0.0 if rng.random() < 0.7 else (y1 - y0) * 0.25
    if across:
        mesh.quad(
            (front, ym, z + rise),
            (back, ym, z + rise),
            (back, y0 - 0.2, z - 0.1),
            (front, y0 - 0.2, z - 0.1),
            *slate,
            at=at,
        )
        mesh.quad(
            (front, ym, z + rise),
            (back, ym, z + rise),
            (back, y1 + 0.2, z - 0.1),
            (front, y1 + 0.2, z - 0.1),
            *slate,
            at=at,
        )
        for x in (x0, x1):
            mesh.triangle(
                (x, y0, z),
                (x, y1, z),
                (x, ym, z + rise),
                BUILDING,
                m.MASONRY,
                style.colour,
                at=at,
                params=mesh.params(m.CLADDING[style.cladding]),
            )
    else:
        ridge = [(xm, y0 + hip, z + rise), (xm, y1 - hip, z + rise)]
        for x in (front, back):
            mesh.quad((x, y0, z - 0.12), (x, y1, z - 0.12), ridge[1], ridge[0], *slate, at=at)
        gable = slate if hip else (BUILDING, m.MASONRY, style.colour)
        for y, top in ((y0, ridge[0]), (y1, ridge[1])):
            mesh.triangle(
                (front, y, z - 0.12),
                (back, y, z - 0.12),
                top,
                *gable,
                at=at,
                params=mesh.params(m.CLADDING[style.cladding]),
            )
        if rng.random() < 0.4 and y1 - y0 > 4 and not hip:
            count = max(1, int((y1 - y0) / 4))
            for y in y0 + (np.arange(count) + 0.5) * (y1 - y0) / count:
                _dormer(mesh, at, style, x0 + 0.5, xm, y, z + 0.15, colour)
    if rng.random() < 0.7:
        for y in [y0 + 0.4] + ([y1 - 1.2] if rng.random() < 0.4 else []):
            x = xm + rng.uniform(-0.3, 0.6)
            chimney = z + rise + rng.uniform(0.7, 1.5)
            masonry = mesh.params(m.CLADDING["brick"])
            mesh.box(
                (x - 0.35, y, z),
                (x + 0.35, y + 0.9, chimney),
                BUILDING,
                m.MASONRY,
                style.colour * 0.9,
                at=at,
                params=masonry,
            )
            mesh.box(
                (x - 0.42, y - 0.07, chimney - 0.2),
                (x + 0.42, y + 0.97, chimney - 0.05),
                BUILDING,
                m.STONE,
                style.trim * 0.7,
                at=at,
            )
            for pot in (y + 0.22, y + 0.66):
                mesh.cylinder(
                    (x, pot, chimney),
                    (x, pot, chimney + 0.4),
                    0.12,
                    0.1,
                    5,
                    BUILDING,
                    m.FLAT,
                    (0.3, 0.13, 0.07),
                    at=at,
                )


def _dormer(
    mesh: Mesh,
    at: Pose,
    style: FacadeStyle,
    x0: float,
    x1: float,
    y: float,
    z: float,
    colour: np.ndarray,
) -> None:
    """Adds a dormer with a window at ``y``, from ``x0`` back to ``x1``."""
    half, height = 0.75, 1.25
    low, high = (x0, y - half, z), (x1, y + half, z + height)
    mesh.box(low, high, BUILDING, m.STONE, style.trim * 0.85, at=at)
    x = x0 - 0.02
    glazed = [(x, y - 0.55, z + 0.3), (x, y + 0.55, z + 0.3), (x, y + 0.55, z + 1.15)]
    mesh.quad(*glazed, (x, y - 0.55, z + 1.15), BUILDING, m.GLASS, grey(0.02), at=at)
    mesh.box(
        (x - 0.02, y - 0.03, z + 0.3),
        (x, y + 0.03, z + 1.15),
        BUILDING,
        m.FLAT,
        grey(style.frame),
        at=at,
    )
    for side in (-1, 1):
        mesh.quad(
            (x0 - 0.2, y + side * (half + 0.15), z + height - 0.02),
            (x1, y + side * (half + 0.15), z + height - 0.02),
            (x1, y, z + height + 0.5),
            (x0 - 0.2, y, z + height + 0.5),
            BUILDING,
            m.ROOF,
            colour,
            at=at,
        )
    mesh.triangle(
        (x0, y - half, z + height),
        (x0, y + half, z + height),
        (x0, y, z + height + 0.5),
        BUILDING,
        m.STONE,
        style.trim * 0.8,
        at=at,
    )


def add_building(
    mesh: Mesh,
    rng: np.random.Generator,
    look: Look,
    at: Pose,
    x0: float,
    y0: float,
    length: float,
    storeys: int,
    *,
    city: bool,
    shop: bool,
    detailed: bool,
) -> None:
    """Adds a building.

    Args:
        mesh: receives the building.
        rng: draws its style and parts.
        look: ranges of colours and materials.
        at: pose of the frontage.
        x0: distance of the façade from the kerb, metres.
        y0: start of the façade along the frontage, metres.
        length: length of the façade, metres.
        storeys: number of storeys, at least 1.
        city: a town house, not a suburban house.
        shop: shops on the ground floor.
        detailed: add the relief that is visible only from near.
    """
    style = draw_style(rng, look, city)
    depth = rng.uniform(8, 13)
    x1, y1 = x0 + depth, y0 + length
    z = style.ground + (storeys - 1) * style.storey + (0.35 if storeys > 1 else 0.0)
    ground = m.SHOP if shop else m.WINDOWS
    add_facade(mesh, at, style, (x0, y0), (x0, y1), z, ground)
    add_facade(mesh, at, style, (x1, y0), (x1, y1), z, m.WINDOWS)
    for y in (y0, y1):
        side = m.WINDOWS if rng.random() < (0.65 if city else 0.35) else m.BLANK
        add_facade(mesh, at, style, (x0, y), (x1, y), z, side)
    stone = (BUILDING, m.STONE)
    pitched = not city or (style.cladding != "panel" and rng.random() < 0.55)
    if pitched:
        _roof(mesh, rng, look, at, style, x0, x1, y0, y1, z)
        mesh.box(
            (x0 - 0.45, y0, z - 0.2),
            (x0, y1, z - 0.06),
            BUILDING,
            m.FLAT,
            grey(rng.choice([0.03, 0.6])),
            at=at,
        )
    else:
        rise = rng.uniform(0.4, 1.1)
        mesh.box(
            (x0, y0, z),
            (x1, y1, z + rise),
            BUILDING,
            m.MASONRY,
            style.colour,
            at=at,
            params=mesh.params(m.CLADDING[style.cladding]),
        )
        mesh.box((x0 - 0.32, y0, z - 0.1), (x0, y1, z + 0.18), *stone, style.trim, at=at)
        mesh.box((x0 - 0.12, y0, z - 0.35), (x0, y1, z - 0.1), *stone, style.trim * 0.9, at=at)
        mesh.box((x0 - 0.1, y0, z + rise), (x1, y1, z + rise + 0.12), *stone, style.trim, at=at)
        if rng.random() < 0.4:
            mesh.box(
                (x0 + 3, y0 + length * 0.3, z),
                (x0 + 6, y0 + length * 0.6, z + 2.6),
                BUILDING,
                m.FLAT,
                grey(0.2),
                at=at,
            )
    if not detailed:
        return
    if city and style.cladding != "panel" and rng.random() < 0.6:
        for level in range(1, storeys):
            band = style.ground + (level - 1) * style.storey - 0.08
            if level == 1 or rng.random() < 0.25:
                mesh.box((x0 - 0.1, y0, band), (x0, y1, band + 0.2), *stone, style.trim, at=at)
    if rng.random() < 0.5:
        y = y0 + 0.12
        mesh.cylinder(
            (x0 - 0.07, y, 0.1),
            (x0 - 0.07, y, z - 0.1),
            0.05,
            0.05,
            4,
            BUILDING,
            m.FLAT,
            grey(rng.choice([0.03, 0.4])),
            at=at,
        )
    if shop:
        _shop_front(mesh, rng, at, style, x0, y0, y1)
    elif city and storeys > 2 and rng.random() < 0.3:
        _balconies(mesh, at, style, x0, y0, length, storeys)
    if not shop and (rng.random() < (0.15 if city else 0.6)):
        _bay_window(mesh, rng, at, style, x0, y0, length, z if city else style.ground)
    if not city and rng.random() < 0.6:
        y = y0 + length * rng.uniform(0.6, 0.75)
        mesh.box((x0 - 1.0, y - 0.8, 2.35), (x0, y + 0.8, 2.5), *stone, style.trim, at=at)
        mesh.box((x0 - 1.0, y - 0.8, 0), (x0, y + 0.8, 0.25), *stone, grey(0.25), at=at)
        for dy in (-0.7, 0.7):
            mesh.cylinder(
                (x0 - 0.9, y + dy, 0),
                (x0 - 0.9, y + dy, 2.4),
                0.06,
                0.06,
                5,
                BUILDING,
                m.FLAT,
                style.trim,
                at=at,
            )


def _shop_front(
    mesh: Mesh,
    rng: np.random.Generator,
    at: Pose,
    style: FacadeStyle,
    x0: float,
    y0: float,
    y1: float,
) -> None:
    """Adds shops of 4.5 to 7 m: fascia boards, pilasters, awnings and hanging signs."""
    count = max(1, round((y1 - y0) / rng.uniform(4.5, 7)))
    edges = np.linspace(y0, y1, count + 1)
    for a, b in pairwise(edges):
        board = hsv(rng.random(), rng.uniform(0.1, 0.8), rng.uniform(0.15, 0.65))
        board = grey(rng.choice([0.02, 0.6])) if rng.random() < 0.3 else board
        top = style.ground - 0.12
        mesh.box(
            (x0 - 0.18, a + 0.15, top - 0.62),
            (x0, b - 0.15, top),
            BUILDING,
            m.SIGN,
            board,
            at=at,
            params=mesh.params(rng.integers(1, 9999), 0.36, top - 0.31),
        )
        mesh.box((x0 - 0.26, a, top), (x0, b, top + 0.1), BUILDING, m.STONE, style.trim, at=at)
        mesh.box(
            (x0 - 0.12, a - 0.16, 0), (x0, a + 0.16, top), BUILDING, m.FLAT, board * 0.6, at=at
        )
        if rng.random() < 0.3:
            out, drop = rng.uniform(1.0, 1.8), rng.uniform(0.4, 0.8)
            cloth = hsv(rng.random(), rng.uniform(0.3, 0.9), rng.uniform(0.35, 0.85))
            corners = [(x0 - 0.2, a + 0.3, top - 0.5), (x0 - 0.2, b - 0.3, top - 0.5)]
            corners += [
                (x0 - out, b - 0.3, top - 0.5 - drop),
                (x0 - out, a + 0.3, top - 0.5 - drop),
            ]
            mesh.quad(*corners, BUILDING, m.AWNING, cloth, at=at)
        if rng.random() < 0.4:
            y, low = rng.uniform(a + 0.3, b - 0.3), style.ground + rng.uniform(-0.1, 0.5)
            mesh.box(
                (x0 - 0.95, y, low),
                (x0 - 0.15, y + 0.1, low + rng.uniform(0.5, 0.9)),
                BUILDING,
                m.SIGN,
                hsv(rng.random(), 0.7, 0.6),
                at=at,
                params=mesh.params(rng.integers(1, 9999), 0.2, low + 0.3),
            )


def _balconies(
    mesh: Mesh, at: Pose, style: FacadeStyle, x0: float, y0: float, length: float, storeys: int
) -> None:
    """Adds balconies to every second bay of the upper storeys."""
    bays = max(1, round(length / style.bay))
    for level in range(1, storeys):
        z = style.ground + (level - 1) * style.storey + 0.12
        for bay in range(1, bays, 2):
            y = y0 + (bay + 0.5) * length / bays
            mesh.box(
                (x0 - 1.0, y - 1.1, z),
                (x0, y + 1.1, z + 0.14),
                BUILDING,
                m.STONE,
                style.trim,
                at=at,
            )
            add_railing(
                mesh,
                at,
                (x0 - 0.96, y - 1.05),
                (x0 - 0.96, y + 1.05),
                z + 0.14,
                0.95,
                grey(0.03),
                label=BUILDING,
            )


def _bay_window(
    mesh: Mesh,
    rng: np.random.Generator,
    at: Pose,
    style: FacadeStyle,
    x0: float,
    y0: float,
    length: float,
    top: float,
) -> None:
    """Adds a bay window on the ground floor, with its walls up to ``top`` or two storeys."""
    width, out = min(2.6, length * 0.45), 0.8
    a = y0 + length * rng.uniform(0.08, 0.2)
    b = a + width
    plan = [(x0, a), (x0 - out, a + 0.6), (x0 - out, b - 0.6), (x0, b)]
    bay_top = min(top, style.ground + 2 * style.storey)
    for z0, z1 in ((0.0, 0.7), (2.25, bay_top)):
        for p, q in pairwise(plan):
            mesh.panel(p, q, z0, z1, BUILDING, m.STONE, style.trim, at=at)
    for p, q in pairwise(plan):
        mesh.panel(p, q, 0.7, 2.25, BUILDING, m.GLASS, grey(0.03), at=at)
        mesh.cylinder(
            (*p, 0), (*p, bay_top), 0.07, 0.07, 4, BUILDING, m.FLAT, grey(style.frame), at=at
        )
        middle = (np.array(p) + np.array(q)) / 2
        mesh.cylinder(
            (*middle, 0.7),
            (*middle, 2.25),
            0.04,
            0.04,
            4,
            BUILDING,
            m.FLAT,
            grey(style.frame),
            at=at,
        )
    lid = np.array([(x, y, bay_top) for x, y in plan])
    mesh.quad(*lid, BUILDING, m.FLAT, grey(0.1), at=at)


def add_church(
    mesh: Mesh, rng: np.random.Generator, at: Pose, x0: float, y0: float, length: float
) -> None:
    """Adds a church along the street: a nave with lancet windows and buttresses, and a tower.

    Args:
        mesh: receives the church.
        rng: draws its colours and heights.
        at: pose of the frontage.
        x0: distance from the kerb, metres.
        y0: start along the frontage, metres.
        length: tower and nave, metres.
    """
    stone = hsv(rng.uniform(0.08, 0.12), rng.uniform(0.1, 0.3), rng.uniform(0.35, 0.6))
    slate = hsv(0.6, 0.15, rng.uniform(0.2, 0.35))
    masonry: dict[str, Any] = {"at": at, "params": mesh.params(m.CLADDING["stone"])}
    tower, height = 5.0, rng.uniform(15, 24)
    a, b, eaves = y0 + tower, y0 + length, rng.uniform(6, 9)
    x1, xm = x0 + 9, x0 + 4.5
    mesh.box((x0, a, 0), (x1, b, eaves), BUILDING, m.MASONRY, stone, **masonry)
    for x in (x0 - 0.3, x1 + 0.3):
        ridge = (xm, b, eaves + 4.5), (xm, a, eaves + 4.5)
        mesh.quad((x, a, eaves), (x, b, eaves), *ridge, BUILDING, m.ROOF, slate, at=at)
    gable = [(x0, b, eaves), (x1, b, eaves), (xm, b, eaves + 4.5)]
    mesh.triangle(*gable, BUILDING, m.MASONRY, stone, **masonry)
    for y in np.arange(a + 1.4, b - 0.8, 2.8):
        x, top = x0 - 0.02, eaves * 0.75
        lancet = [(x, y - 0.4, 2), (x, y + 0.4, 2), (x, y + 0.4, top), (x, y - 0.4, top)]
        mesh.add(
            np.array([*lancet, (x, y, top + 0.7)]), [[0, 1, 2], [0, 2, 3], [3, 2, 4]],
            BUILDING, m.GLASS, grey(0.02), at=at,
        )  # fmt: skip
        low, high = (x0 - 0.6, y + 1.1, 0), (x0, y + 1.6, eaves * 0.8)
        mesh.box(low, high, BUILDING, m.MASONRY, stone * 0.95, **masonry)
    mesh.box((x0 + 1, y0, 0), (x0 + 6, a, height), BUILDING, m.MASONRY, stone, **masonry)
    for dx, dy in ((0, 0), (4.3, 0), (0, 4.3), (4.3, 4.3)):
        foot = (x0 + 1 + dx, y0 + dy, height)
        mesh.box(foot, np.add(foot, (0.7, 0.7, 1.8)), BUILDING, m.STONE, stone, at=at)
    opening = (x0 + 0.98, y0 + 1.7, height - 4), (x0 + 1.1, y0 + 3.3, height - 1.2)
    mesh.box(*opening, BUILDING, m.FLAT, grey(0.02), at=at)
    if rng.random() < 0.5:
        base = [
            (x0 + 1, y0, height),
            (x0 + 6, y0, height),
            (x0 + 6, a, height),
            (x0 + 1, a, height),
        ]
        spire = np.array([*base, (x0 + 3.5, y0 + 2.5, height + rng.uniform(6, 12))])
        faces = [[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]]
        mesh.add(spire, faces, BUILDING, m.ROOF, slate, at=at)


def add_railing(
    mesh: Mesh,
    at: Pose,
    p: Point2,
    q: Point2,
    z: float,
    height: float,
    colour: np.ndarray,
    label: int = FENCE,
    material: int = m.RAILING,
) -> None:
    """Adds a fence: an alpha cut-out panel from ``p`` to ``q`` (x, y) between solid posts.

    Args:
        mesh: receives the fence.
        at: pose of the frontage.
        p: one end.
        q: the other end.
        z: height of the lower edge, metres.
        height: height of the panel, metres.
        colour: linear RGB [3].
        label: id of ``STREET_IDS``.
        material: RAILING or CHAIN_LINK of ``materials``.
    """
    start, end = np.asarray(p, np.float32), np.asarray(q, np.float32)
    length = float(np.linalg.norm(end - start))
    params = mesh.params(z, height, length)
    mesh.panel(p, q, z, z + height, label, material, colour, at=at, params=params, textured=True)
    posts = max(1, round(length / 2.4))
    for fraction in np.linspace(0, 1, posts + 1):
        x, y = start + (end - start) * fraction
        mesh.box(
            (x - 0.035, y - 0.035, z - 0.02),
            (x + 0.035, y + 0.035, z + height + 0.06),
            label,
            m.FLAT,
            colour,
            at=at,
        )


def add_boundary(
    mesh: Mesh, rng: np.random.Generator, at: Pose, x: float, y0: float, y1: float, kind: str
) -> None:
    """Adds the boundary of a garden along the pavement, at ``x`` from ``y0`` to ``y1``.

    ``kind`` is a key of ``Frequencies.boundaries``; ``open`` adds nothing.
    """
    if y1 - y0 < 0.8 or kind == "open":
        return
    dark = grey(0.02) if rng.random() < 0.6 else hsv(0.38, 0.5, 0.2)
    if kind == "wall":
        height = rng.uniform(0.7, 1.9)
        colour = hsv(rng.uniform(0.03, 0.1), rng.uniform(0.2, 0.5), rng.uniform(0.35, 0.6))
        mesh.box(
            (x, y0, 0),
            (x + 0.25, y1, height),
            WALL,
            m.MASONRY,
            colour,
            at=at,
            params=mesh.params(m.CLADDING[rng.choice(["brick", "brick", "stone"])]),
        )
        mesh.box(
            (x - 0.04, y0, height), (x + 0.29, y1, height + 0.08), WALL, m.STONE, grey(0.3), at=at
        )
        for y in np.arange(y0, y1, 3.2):
            mesh.box(
                (x - 0.06, y, 0),
                (x + 0.31, y + 0.4, height + 0.15),
                WALL,
                m.MASONRY,
                colour,
                at=at,
                params=mesh.params(m.CLADDING["brick"]),
            )
    elif kind == "hedge":
        height = rng.uniform(0.9, 2.1)
        green = hsv(rng.uniform(0.22, 0.34), rng.uniform(0.35, 0.6), rng.uniform(0.26, 0.42))
        mesh.box((x, y0, 0), (x + rng.uniform(0.6, 1.1), y1, height), TREE, m.HEDGE, green, at=at)
    elif kind == "railing":
        low = rng.uniform(0.2, 0.6) if rng.random() < 0.5 else 0.0
        if low:
            mesh.box(
                (x, y0, 0),
                (x + 0.22, y1, low),
                WALL,
                m.MASONRY,
                hsv(0.06, 0.4, 0.45),
                at=at,
                params=mesh.params(m.CLADDING["brick"]),
            )
        add_railing(mesh, at, (x + 0.1, y0), (x + 0.1, y1), low + 0.02, rng.uniform(0.9, 1.3), dark)
    elif kind == "picket":
        colour = grey(0.7) if rng.random() < 0.4 else hsv(0.08, rng.uniform(0.2, 0.5), 0.4)
        height = rng.choice([0.95, 1.75])
        material = m.PICKET if height < 1 else m.PLANKS
        params = mesh.params(0, height, y1 - y0)
        mesh.panel(
            (x, y0),
            (x, y1),
            0.06,
            height,
            FENCE,
            material,
            colour,
            at=at,
            params=params,
            textured=True,
        )
        for y in np.arange(y0, y1, 2.4):
            mesh.box(
                (x - 0.05, y - 0.05, 0),
                (x + 0.05, y + 0.05, height + 0.05),
                FENCE,
                m.FLAT,
                colour * 0.8,
                at=at,
            )
    elif kind == "chain-link":
        add_railing(
            mesh,
            at,
            (x, y0),
            (x, y1),
            0.05,
            rng.uniform(1.5, 2.2),
            hsv(0.38, 0.3, 0.3),
            material=m.CHAIN_LINK,
        )


def add_bus_shelter(mesh: Mesh, rng: np.random.Generator, at: Pose, x: float, y: float) -> None:
    """Adds a glass bus shelter with its corner at (x, y). All of it is labelled as building."""
    for dy in (0, 3.6):
        for dx in (0.0, 1.3):
            mesh.box(
                (x + dx, y + dy, 0),
                (x + dx + 0.07, y + dy + 0.07, 2.4),
                BUILDING,
                m.FLAT,
                grey(0.05),
                at=at,
            )
    mesh.box(
        (x - 0.2, y - 0.2, 2.4), (x + 1.5, y + 3.85, 2.52), BUILDING, m.FLAT, grey(0.12), at=at
    )
    mesh.panel((x + 1.34, y), (x + 1.34, y + 3.6), 0.3, 2.2, BUILDING, m.GLASS, grey(0.06), at=at)
    poster = hsv(rng.random(), 0.6, 0.7)
    mesh.box(
        (x + 0.1, y + 3.62, 0.4),
        (x + 1.3, y + 3.7, 2.15),
        BUILDING,
        m.SIGN,
        poster,
        at=at,
        params=mesh.params(rng.integers(1, 9999), 0.5, 1.5),
    )
    mesh.box((x + 0.9, y + 0.4, 0.5), (x + 1.25, y + 3.2, 0.56), BUILDING, m.FLAT, grey(0.2), at=at)
