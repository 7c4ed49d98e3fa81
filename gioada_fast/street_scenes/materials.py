"""Albedo, gloss and cut-outs of every material, by world position.

All patterns are functions of the hit point and of the parameters in the face's item row, so no
texture coordinates are stored. Arrays are float32, one entry for each hit of the material.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .geometry import Triangles
from .textures import VOLUME, Cards, branch_cards, leaf_cards

(
    FLAT,
    ROAD,
    PAVING,
    KERB,
    GRASS,
    FACADE,
    MASONRY,
    ROOF,
    LEAVES,
    BRANCHES,
    HEDGE,
    BARK,
    PLANKS,
    PICKET,
    RAILING,
    CHAIN_LINK,
    PAINT,
    GLASS,
    SIGN,
    CLOTH,
    SPOKES,
    STONE,
    LAMP,
    AWNING,
) = range(24)
CUT_OUTS = np.zeros(256, bool)
CUT_OUTS[[LEAVES, BRANCHES, PICKET, RAILING, CHAIN_LINK, SPOKES]] = True

JOINERY = np.array(
    [
        [0.02, 0.02, 0.022],
        [0.5, 0.48, 0.44],
        [0.3, 0.25, 0.17],
        [0.1, 0.05, 0.025],
        [0.015, 0.06, 0.03],
        [0.012, 0.025, 0.09],
        [0.14, 0.015, 0.015],
        [0.2, 0.22, 0.23],
        [0.03, 0.1, 0.13],
        [0.4, 0.06, 0.04],
    ],
    np.float32,
)
"""Linear RGB of painted doors and shop fronts: black, cream, oak, greens, blues, reds, grey."""


@dataclass
class Junction:
    """A crossing street between y0 and y1 on the given sides (-1 left, 1 right, 0 both)."""

    y0: float
    y1: float
    side: int
    zebra: bool
    signals: bool
    box: bool
    """Yellow box marking."""


@dataclass
class Street:
    """What the ground's materials must know of the layout; metres."""

    seed: int
    half_width: float
    junctions: list[Junction]
    near_side: int
    """-1 where traffic keeps left."""
    bend: float
    """x += bend * y ** 2 ahead of the camera."""
    slope: float
    """z += slope * y ** 2 ahead of the camera."""
    paint: float
    """Albedo of road marks."""
    dash: tuple[float, float]
    """Period and painted share of the centre line."""
    centre: int
    """0 no centre line, 1 dashed, 2 solid."""
    edge: bool
    yellow: bool
    cobbles: bool
    patches: float
    wetness: float

    def straighten(self, points: np.ndarray) -> np.ndarray:
        """World points [N, 3] of the bent street back to the straight one the patterns live in."""
        ahead = np.maximum(points[:, 1], 0) ** 2
        out = points.copy()
        out[:, 0] -= np.float32(self.bend) * ahead
        out[:, 2] -= np.float32(self.slope) * ahead
        return out

    def bend_vertices(self, vertices: np.ndarray) -> np.ndarray:
        """The inverse of ``straighten``."""
        ahead = np.maximum(vertices[:, 1], 0) ** 2
        out = vertices.copy()
        out[:, 0] += np.float32(self.bend) * ahead
        out[:, 2] += np.float32(self.slope) * ahead
        return out


class Hits(NamedTuple):
    """Visible surface points, straightened."""

    face: np.ndarray
    """int32 [N]."""
    point: np.ndarray
    """float32 [N, 3] in the straight street's frame."""
    direction: np.ndarray
    """float32 [N, 3] unit, from the camera."""
    normal: np.ndarray
    """float32 [N, 3] geometric, towards the camera."""
    distance: np.ndarray
    """float32 [N] metres along the ray."""
    uv: np.ndarray
    """float32 [2, N] on textured quads."""
    pixel_angle: float
    """Radians between neighbouring rays."""

    def take(self, index: np.ndarray) -> "Hits":
        """The hits at ``index``."""
        point, direction, normal = (
            None if field is None else field[index]
            for field in (self.point, self.direction, self.normal)
        )
        return Hits(
            self.face[index],
            point,
            direction,
            normal,
            self.distance[index],
            self.uv[:, index],
            self.pixel_angle,
        )


def hash01(*keys: np.ndarray | float) -> np.ndarray:
    """Pseudo-random float32 in 0 .. 1 from integers held in floats or ints; broadcasts."""
    state = np.uint32(0x9E3779B9)
    for key in keys:
        bits = np.asarray(key).astype(np.int32).view(np.uint32)
        state = (bits ^ state) * np.uint32(0x85EBCA6B)
        state ^= state >> np.uint32(15)
        state *= np.uint32(0xC2B2AE35)
        state ^= state >> np.uint32(13)
    return (state >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def noise(volume: np.ndarray, points: np.ndarray, cell: float, offset: int = 0) -> np.ndarray:
    """Nearest look-up in the noise volume at points [N, 3]; ``cell`` is its pitch in metres."""
    index = ((points * np.float32(1 / cell)) + np.float32(4096 + offset)).astype(np.int32)
    index &= VOLUME - 1
    return volume[(index[:, 0] * VOLUME + index[:, 1]) * VOLUME + index[:, 2]]


def quad_uv(quads: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Barycentric coordinates of a quad's halves to texture coordinates [2, N]."""
    both = u + v
    return np.stack([np.where(quads == 1, both, u), np.where(quads == 1, v, both)])


def _pick(condition: np.ndarray, yes: np.ndarray | float, no: np.ndarray | float) -> np.ndarray:
    """``np.where`` that stays in float32 when both choices are plain numbers."""
    return np.where(condition, yes, no).astype(np.float32, copy=False)


def _fraction(x: np.ndarray) -> np.ndarray:
    return x - np.floor(x)


def _card_levels(cards: Cards, hits: Hits, item: np.ndarray):
    """Yields (members, level, card, row, column) for each mip level in use."""
    texel = item[:, 1] / cards.coverage[0].shape[1]
    level = np.log2(np.maximum(hits.distance * hits.pixel_angle / texel, 1e-3)) + 0.25
    level = np.clip(level, 0, len(cards.coverage) - 1).astype(np.int32)
    for k in np.unique(level):
        members = np.flatnonzero(level == k)
        side = cards.coverage[k].shape[1]
        place = np.clip(hits.uv[:, members] * side, 0, side - 1).astype(np.int32)
        yield members, k, item[members, 0].astype(np.int32), place[1], place[0]


def opaque(scene: Triangles, hits: Hits, dither: np.ndarray, outline: bool) -> np.ndarray:
    """Whether cut-out hits stop the ray, bool [N].

    Args:
        scene: attributes of the faces.
        hits: hits on cut-out materials; of these only face, distance and uv are read.
        dither: float32 [N] in 0 .. 1, thresholds partial coverage.
        outline: treat plants and fences as filled, as a label map draws them.
    """
    material = scene.materials[hits.face]
    item = scene.items[scene.item_of[hits.face]]
    stop = np.ones(len(material), bool)
    for kind, cards in ((LEAVES, leaf_cards), (BRANCHES, branch_cards)):
        index = np.flatnonzero(material == kind)
        if not len(index):
            continue
        part, part_item = hits.take(index), item[index]
        if outline:
            side = cards().outline.shape[1]
            column, row = np.clip(part.uv * side, 0, side - 1).astype(np.int32)
            stop[index] = cards().outline[part_item[:, 0].astype(np.int32), row, column]
            continue
        coverage = np.empty(len(index), np.float32)
        for members, level, card, row, column in _card_levels(cards(), part, part_item):
            coverage[members] = cards().coverage[level][card, row, column]
        stop[index] = coverage > np.clip(dither[index], 0.08, 0.92)
    index = np.flatnonzero(material == SPOKES)
    if len(index):
        u, v = hits.uv[:, index] * 2 - 1
        radius = np.sqrt(u * u + v * v)
        spokes = (_fraction(np.arctan2(v, u) * np.float32(9 / np.pi)) < 0.16) & (radius < 0.9)
        rim = (radius < 1) & (radius > 0.86)
        stop[index] = radius < 1 if outline else rim | spokes | (radius < 0.1)
    if outline:
        return stop
    for kind, pitch, share in (
        (RAILING, 0.13, 0.24),
        (CHAIN_LINK, 0.07, 0.15),
        (PICKET, 0.14, 0.72),
    ):
        index = np.flatnonzero(material == kind)
        if not len(index):
            continue
        s = hits.uv[0, index] * item[index, 2]
        z = hits.uv[1, index] * item[index, 1]
        far = hits.distance[index] * hits.pixel_angle > pitch * 0.5
        if kind == CHAIN_LINK:
            wire = np.minimum(_fraction((s + z) / pitch), _fraction((s - z) / pitch)) < share
            rail = z > item[index, 1] - 0.05
            mean = 2 * share
        else:
            wire = _fraction(s / pitch) < share
            rail = np.abs(z - 0.12) < 0.025
            rail |= np.abs(z - item[index, 1] + 0.06) < 0.03
            if kind == PICKET:
                rail |= np.abs(z - item[index, 1] * 0.5) < 0.08
                wire &= z < item[index, 1] - 0.5 * np.abs(_fraction(s / pitch) - share / 2)
            mean = share
        stop[index] = np.where(far, dither[index] < mean, wire) | rail
    return stop


class Surface(NamedTuple):
    """What light needs to know of the visible points."""

    albedo: np.ndarray
    """float32 [N, 3]."""
    gloss: np.ndarray
    """float32 [N] reflectance at normal incidence, 0 for matt."""
    glow: np.ndarray
    """float32 [N] radiance emitted, as a multiple of the albedo."""


def shade(
    scene: Triangles, street: Street, volume: np.ndarray, contrast: float, hits: Hits
) -> Surface:
    """Evaluates the materials at the hits."""
    material = scene.materials[hits.face]
    albedo = scene.colours[hits.face]
    gloss = np.zeros(len(material), np.float32)
    glow = np.zeros(len(material), np.float32)
    fine = noise(volume, hits.point, 0.035)
    coarse = noise(volume, hits.point, 0.5, 17)
    fine = 0.5 + (fine - 0.5) * np.float32(contrast)
    coarse = 0.5 + (coarse - 0.5) * np.float32(contrast)
    for kind, function in _SHADERS.items():
        index = np.flatnonzero(material == kind)
        if not len(index):
            continue
        part = hits.take(index)
        item = scene.items[scene.item_of[part.face]]
        result = function(part, item, albedo[index], fine[index], coarse[index], street, volume)
        albedo[index] = result[0]
        if len(result) > 1:
            gloss[index] = result[1]
        if len(result) > 2:
            glow[index] = result[2]
    return Surface(np.clip(albedo, 0.004, 1.0), gloss, glow)


def _mottled(colour: np.ndarray, fine: np.ndarray, coarse: np.ndarray, a=0.3, b=0.4) -> np.ndarray:
    return colour * (1 + np.float32(a) * (fine - 0.5) + np.float32(b) * (coarse - 0.5))[:, None]


def _side_streets(x: np.ndarray, y: np.ndarray, street: Street) -> np.ndarray:
    inside = np.zeros(len(x), bool)
    for j in street.junctions:
        inside |= (y > j.y0) & (y < j.y1)
    return inside


def _road(hits, item, colour, fine, coarse, street: Street, volume):
    x, y = hits.point[:, 0], hits.point[:, 1]
    w = street.half_width
    grain = 0.75 + 0.5 * coarse + 0.28 * (fine - 0.5)
    track = (np.abs(np.abs(x) - w * 0.5) - 0.75) * np.float32(1 / 0.3)
    grain = grain * (1 - 0.13 * np.exp(-track * track))
    lane = np.floor(x * np.float32(1 / 2.3))
    patch = hash01(lane, np.floor(y / 9 + 5 * hash01(lane, street.seed)), street.seed)
    grain = grain * _pick(patch > 1 - street.patches, 0.8, _pick(patch < 0.04, 1.15, 1.0))
    if street.cobbles:
        row = np.floor(y * np.float32(1 / 0.16))
        along = x * np.float32(1 / 0.2) + 0.5 * (row % 2)
        stone = 0.65 + 0.6 * hash01(row, np.floor(along))
        joint = (_fraction(y * np.float32(1 / 0.16)) < 0.16) | (_fraction(along) < 0.12)
        near = hits.distance < 14
        grain = grain * _pick(near, _pick(joint, 0.5, stone), 0.9)
    albedo = colour * grain[:, None]

    crossing = _side_streets(x, y, street)
    ax = np.abs(x)
    white = np.zeros(len(x), bool)
    yellow = np.zeros(len(x), bool)
    on_main = ax < w
    if street.centre:
        solid = street.centre == 2
        dashed = solid | (_fraction(y * np.float32(1 / street.dash[0])) < street.dash[1])
        white |= (ax < 0.065) & dashed & ~crossing
    if street.edge:
        white |= (np.abs(ax - w + 0.55) < 0.06) & ~crossing
    if street.yellow:
        yellow |= ((np.abs(ax - w + 0.25) < 0.045) | (np.abs(ax - w + 0.43) < 0.045)) & ~crossing
    for j in street.junctions:
        near = np.abs(y - 0.5 * (j.y0 + j.y1)) < 0.5 * (j.y1 - j.y0) + 8
        if not near.any():
            continue
        keep = street.near_side
        before, after = (j.y0, -1), (j.y1, 1)
        for edge, out in (before, after):
            lane_side = x * keep * (1 if out < 0 else -1) > 0.1
            gap = (y - edge) * out
            if j.zebra:
                bars = (gap > 1.0) & (gap < 3.8) & on_main & (_fraction(x) < 0.5)
                white = (white & ~((gap > 0.2) & (gap < 4.4))) | bars
            if j.signals or j.zebra:
                stop = 5.0 if j.zebra else 1.2
                white |= (np.abs(gap - stop) < 0.16) & lane_side & on_main & (ax < w - 0.3)
        # the side street gives way: a broken line along the kerb, its own centre line behind
        inside = (y > j.y0) & (y < j.y1) & (ax > w) & ((j.side == 0) | (x * j.side > 0))
        middle = 0.5 * (j.y0 + j.y1)
        give_way = (np.abs(ax - w - 0.4) < 0.12) & (_fraction(y) < 0.6)
        white |= inside & give_way
        white |= inside & (np.abs(y - middle) < 0.06) & (_fraction(x / 4) < 0.5) & (ax > w + 1)
        if j.box:
            grid = (_fraction((x + y) / 1.7) < 0.08) | (_fraction((x - y) / 1.7) < 0.08)
            yellow |= (y > j.y0) & (y < j.y1) & on_main & grid
    worn = noise(volume, hits.point, 0.06, 5) > 0.3
    paint = np.float32(street.paint)
    albedo[white & worn] = paint
    albedo[yellow & worn] = np.array([1.0, 0.68, 0.12], np.float32) * paint * 0.85
    manhole = hash01(np.floor(x / 1.8), np.floor(y / 7), street.seed) > 0.94
    u, v = _fraction(x / 1.8) - 0.5, (_fraction(y / 7) - 0.5) * np.float32(7 / 1.8)
    albedo[manhole & (u * u + v * v < 0.03)] *= 0.55
    gloss = np.zeros(len(x), np.float32)
    if street.wetness:
        # wet asphalt is darker, and its roughness breaks the mirror up
        gloss = np.float32(0.12 * street.wetness) * (0.3 + fine)
        albedo *= np.float32(1 - 0.5 * street.wetness)
    return albedo, gloss


def _paving(hits, item, colour, fine, coarse, street, volume):
    x, y = hits.point[:, 0], hits.point[:, 1]
    size = np.maximum(item[:, 0], 0.2)
    u = x / size
    row = np.floor(u)
    v = y / size * 0.8 + 0.5 * (row % 2)
    slab = 0.8 + 0.35 * hash01(row, np.floor(v), street.seed)
    joint = (_fraction(u) < 0.05) | (_fraction(v) < 0.05)
    tarmac = item[:, 1] > 0
    pattern = np.where(tarmac, 1.0, np.where(joint & (hits.distance < 25), 0.68, slab))
    return (colour * (pattern * (0.72 + 0.55 * coarse + 0.25 * (fine - 0.5)))[:, None],)


def _kerb(hits, item, colour, fine, coarse, street, volume):
    along = np.where(np.abs(hits.normal[:, 0]) > 0.6, hits.point[:, 1], hits.point[:, 0])
    joint = _fraction(along * np.float32(1 / 0.9)) < 0.03
    return (_mottled(colour, fine, coarse, 0.3, 0.5) * _pick(joint, 0.6, 1.0)[:, None],)


def _grass(hits, item, colour, fine, coarse, street, volume):
    tint = 0.45 + 1.0 * fine + 0.5 * (coarse - 0.5)
    dry = np.clip(coarse - 0.55, 0, 1)[:, None] * np.array([0.5, 0.2, 0.0], np.float32)
    return (colour * tint[:, None] * (1 + dry),)


def _cladding(kind, s, z, seed, colour, fine, coarse):
    """Plaster, brick, stone courses or panels; ``kind`` follows ``buildings.CLADDINGS``."""
    out = _mottled(colour, fine, coarse, 0.16, 0.45)
    index = np.flatnonzero(kind == 1)
    if len(index):
        row = np.floor(z[index] * np.float32(1 / 0.08))
        along = s[index] * np.float32(1 / 0.23) + 0.5 * (row % 2)
        brick = 0.72 + 0.56 * hash01(np.floor(along), row, seed[index])
        mortar = (_fraction(z[index] * np.float32(1 / 0.08)) < 0.14) | (_fraction(along) < 0.06)
        out[index] *= np.where(mortar, 1.3, brick)[:, None]
    index = np.flatnonzero(kind == 2)
    if len(index):
        row = np.floor(z[index] * np.float32(1 / 0.36))
        along = s[index] * np.float32(1 / 0.75) + hash01(row, seed[index])
        stone = 0.82 + 0.34 * hash01(np.floor(along), row, seed[index])
        joint = (_fraction(z[index] * np.float32(1 / 0.36)) < 0.05) | (_fraction(along) < 0.03)
        out[index] *= np.where(joint, 0.66, stone)[:, None]
    # rain streaks and soot darken walls from above and near the ground
    streak = hash01(np.floor(s * 3), seed) * 0.14
    splash = 0.25 * np.exp(-z * 2.0)
    return out * (1 - streak * coarse - splash)[:, None]


def _facade(hits, item, colour, fine, coarse, street, volume):
    (
        seed,
        kind,
        start,
        length,
        bays,
        storey,
        ground,
        top,
        width,
        height,
        floor_kind,
        frame,
        surround,
        panes,
        trim,
        _,
    ) = item.T
    point, direction = hits.point, hits.direction
    faces_x = np.abs(hits.normal[:, 0]) > np.abs(hits.normal[:, 1])
    s = np.where(faces_x, point[:, 1], point[:, 0]) - start
    z = point[:, 2]
    out_of_wall = np.maximum(np.abs(np.where(faces_x, direction[:, 0], direction[:, 1])), 0.05)
    slide_s = np.where(faces_x, direction[:, 1], direction[:, 0]) / out_of_wall
    slide_z = direction[:, 2] / out_of_wall
    bay_width = length / bays
    bay = np.floor(s / bay_width)
    a = s - (bay + 0.5) * bay_width
    upper = z > ground
    level = np.where(upper, np.floor((z - ground) / storey), -1.0)
    b = np.where(upper, z - ground - level * storey, z)
    tall = np.where(upper, storey, ground)
    half = 0.5 * width * bay_width
    low = np.where(upper, 0.28 * storey, 0.3 * ground)
    high = low + height * tall * _pick(upper, 1.0, 0.92)
    complete = np.where(upper, ground + (level + 1) * storey, ground) < top + 0.45
    house = (floor_kind == 0) | (upper & (floor_kind == 1))
    door_bay = np.floor(hash01(seed, 5) * bays)
    is_door = (~upper) & (floor_kind == 0) & ((bay == door_bay) | (hash01(seed, bay, 8) > 0.85))
    low = np.where(is_door, 0.12, low)
    high = np.where(is_door, 2.25, high)
    half = np.where(is_door, np.minimum(0.5, bay_width * 0.42), half)
    window = house & complete & (np.abs(a) < half) & (b > low) & (b < high)
    window &= ~((hash01(seed, bay, level, 3) > 0.96) & ~is_door)

    out = _cladding(kind, s, z, seed, colour, fine, coarse)
    rows = house & complete
    edge = np.maximum(surround, 0.0)
    framed = rows & ~window & (np.abs(a) < half + edge) & (b > low - edge) & (b < high + edge)
    out[framed & (surround > 0)] = (trim * 0.95)[framed & (surround > 0), None]
    sill = rows & ~is_door & (np.abs(a) < half + 0.1) & (b <= low) & (b > low - 0.1)
    out[sill] = (trim * 1.05)[sill, None]
    under = rows & ~is_door & (np.abs(a) < half + 0.06) & (b <= low - 0.1) & (b > low - 0.22)
    out[under] *= 0.72
    lintel = rows & ~window & (surround == 0) & (np.abs(a) < half + 0.12) & (b >= high)
    lintel &= b < high + 0.2
    out[lintel] = 0.5 * out[lintel] + (0.35 * trim)[lintel, None]

    gloss = np.zeros(len(s), np.float32)
    glow = np.zeros(len(s), np.float32)
    index = np.flatnonzero(window)
    if len(index):
        reveal = np.float32(0.15)
        a2, b2 = a[index] + reveal * slide_s[index], b[index] + reveal * slide_z[index]
        h, lo, hi, door = half[index], low[index], high[index], is_door[index]
        pane = (np.abs(a2) < h) & (b2 > lo) & (b2 < hi)
        edge = np.minimum(np.minimum(h - np.abs(a2), b2 - lo), hi - b2)
        bars = edge < 0.06
        middle = 0.5 * (lo + hi)
        bars |= (panes[index] == 1) & (np.abs(b2 - middle) < 0.035)
        cross = (np.abs(a2) < 0.03) | (np.abs(b2 - hi + 0.35 * (hi - lo)) < 0.03)
        bars |= (panes[index] == 2) & cross
        room = hash01(seed[index], bay[index], level[index])
        curtain = (room > 0.55) & (np.abs(a2) > h * (0.35 + 0.6 * hash01(bay[index], level[index])))
        blind = (room < 0.2) & (b2 > middle + (hi - lo) * (room * 2))
        tint = np.array([0.9, 1.0, 1.08], np.float32)
        inside = (0.012 + 0.07 * room**2)[:, None] * tint
        inside[curtain | blind] = (0.2 + 0.3 * room)[curtain | blind, None] * 0.7
        inside[bars] = frame[index][bars, None]
        leaf = door & (b2 < hi - 0.35)
        paint = JOINERY[(hash01(seed[index], 31) * len(JOINERY)).astype(np.int32)]
        panel = _fraction(b2 * 1.05) < 0.12
        inside[leaf] = (paint * _pick(panel, 0.6, 1.0)[:, None])[leaf]
        inside[~pane] = out[index][~pane] * 0.62
        out[index] = inside
        glass = pane & ~bars & ~leaf
        gloss[index] = np.where(glass, np.where(curtain | blind, 0.1, 0.3), 0.02)
        lit = glass & (hash01(seed[index], bay[index], level[index], 4) > 0.94)
        glow[index] = np.where(lit, 3.0, 0.0)

    index = np.flatnonzero((floor_kind == 1) & ~upper & (z < ground - 0.7))
    if len(index):
        shops = np.maximum(np.round(length[index] / 2.6), 1)
        unit = s[index] / length[index] * shops
        cell, along = np.floor(unit), (_fraction(unit) - 0.5) * length[index] / shops
        reveal = np.float32(0.3)
        along2 = along + reveal * slide_s[index]
        zz = z[index]
        z2 = zz + reveal * slide_z[index]
        door = hash01(cell, seed[index]) > 0.66
        limit = 0.5 * length[index] / shops - 0.12
        sillheight = np.where(door, 0.06, 0.5)
        opening = (np.abs(along) < limit) & (zz > sillheight)
        pane = (np.abs(along2) < limit) & (z2 > sillheight)
        goods = hash01(np.floor(s[index] * 4), np.floor(zz * 5), seed[index])
        shelf = np.stack(
            [hash01(np.floor(s[index] * 4), np.floor(zz * 5), seed[index], k) for k in range(3)],
            1,
        )
        depth = 0.02 + 0.09 * goods * goods * (zz < 1.7)
        inside = depth[:, None] * (0.75 + 0.35 * shelf)
        mullion = (np.abs(np.abs(along2) - limit) < 0.07) | (np.abs(z2 - 2.2) < 0.04)
        mullion |= door & (np.abs(along2) < 0.04)
        colour_front = JOINERY[(hash01(seed[index], 41) * len(JOINERY)).astype(np.int32)]
        inside[mullion] = colour_front[mullion]
        inside[~pane] = colour_front[~pane] * 0.6
        poster = (hash01(cell, seed[index], 6) > 0.75) & ~door & (np.abs(along2) < limit * 0.6)
        poster &= (z2 > 0.9) & (z2 < 1.9) & pane
        inside[poster] = 0.1 + 0.6 * shelf[poster]
        out[index] = np.where(opening[:, None], inside, colour_front * 0.7)
        gloss[index] = np.where(opening & pane & ~mullion, 0.22, 0.03)
        glow[index] = np.where(opening & pane & ~mullion, 1.6 * hash01(seed[index], 9), 0)
    return out, gloss, glow


def _masonry(hits, item, colour, fine, coarse, street, volume):
    faces_x = np.abs(hits.normal[:, 0]) > np.abs(hits.normal[:, 1])
    s = np.where(faces_x, hits.point[:, 1], hits.point[:, 0])
    return (_cladding(item[:, 0], s, hits.point[:, 2], item[:, 0], colour, fine, coarse),)


def _roof(hits, item, colour, fine, coarse, street, volume):
    x, y, z = hits.point.T
    row = np.floor(z * np.float32(1 / 0.17))
    flat = np.abs(hits.normal[:, 0]) > np.abs(hits.normal[:, 1])
    along = np.where(flat, y, x) * np.float32(1 / 0.26) + 0.5 * (row % 2)
    tile = 0.7 + 0.5 * hash01(np.floor(along), row)
    lap = _fraction(z * np.float32(1 / 0.17)) < 0.2
    return (colour * (np.where(lap, 0.66, tile) * (0.7 + 0.6 * coarse))[:, None], 0.02)


def _leaves(hits, item, colour, fine, coarse, street, volume):
    shade_of = np.ones(len(colour), np.float32)
    cards = leaf_cards()
    for members, level, card, row, column in _card_levels(cards, hits, item):
        shade_of[members] = cards.shade[level][card, row, column]
    return (colour * shade_of[:, None], 0.015)


def _hedge(hits, item, colour, fine, coarse, street, volume):
    leaf = noise(volume, hits.point, 0.05, 3)
    return (colour * np.clip((leaf - 0.22) * 2.3 + 0.3 * (fine - 0.5), 0.1, 1.8)[:, None],)


def _bark(hits, item, colour, fine, coarse, street, volume):
    stretched = hits.point * np.array([1, 1, 0.3], np.float32)
    return (colour * (0.5 + noise(volume, stretched, 0.03, 9))[:, None],)


def _planks(hits, item, colour, fine, coarse, street, volume):
    faces_x = np.abs(hits.normal[:, 0]) > np.abs(hits.normal[:, 1])
    s = np.where(faces_x, hits.point[:, 1], hits.point[:, 0]) * np.float32(1 / 0.14)
    plank = 0.7 + 0.5 * hash01(np.floor(s))
    gap = (_fraction(s) < 0.1) & (hits.distance < 30)
    return (_mottled(colour, fine, coarse) * np.where(gap, 0.25, plank)[:, None],)


def _paint(hits, item, colour, fine, coarse, street, volume):
    dirt = 1 - 0.35 * np.exp(-np.maximum(hits.point[:, 2] - 0.25, 0) * 5)
    return (colour * dirt[:, None], 0.07)


def _glass(hits, item, colour, fine, coarse, street, volume):
    return (colour, 0.13)


def _sign(hits, item, colour, fine, coarse, street, volume):
    """Lettering as rows of random blocks; items hold seed, letter height and the row's middle."""
    faces_x = np.abs(hits.normal[:, 0]) > np.abs(hits.normal[:, 1])
    s = np.where(faces_x, hits.point[:, 1], hits.point[:, 0])
    size = np.maximum(item[:, 1], 0.08)
    z = (hits.point[:, 2] - item[:, 2]) / size
    row = np.floor(z + 0.5)
    letter = s / (size * 0.55)
    strokes = hash01(np.floor(letter * 3), np.floor(z * 5), item[:, 0]) > 0.42
    word = hash01(np.floor(letter / 4), row, item[:, 0]) > 0.35
    ink = strokes & word & (_fraction(letter) > 0.2) & (np.abs(z - row) < 0.36)
    dark = colour.mean(1) < 0.28
    ink_colour = np.where(dark, 0.75, 0.03).astype(np.float32)
    return (np.where(ink[:, None], ink_colour[:, None], colour), 0.04)


def _cloth(hits, item, colour, fine, coarse, street, volume):
    folds = noise(volume, hits.point, 0.05, 9)
    return (colour * (0.55 + 0.9 * folds)[:, None],)


def _stone(hits, item, colour, fine, coarse, street, volume):
    return (_mottled(colour, fine, coarse, 0.2, 0.5),)


def _lamp(hits, item, colour, fine, coarse, street, volume):
    return (colour, 0.05, 0.9)


def _awning(hits, item, colour, fine, coarse, street, volume):
    faces_x = np.abs(hits.normal[:, 0]) > np.abs(hits.normal[:, 1])
    s = np.where(faces_x, hits.point[:, 1], hits.point[:, 0])
    stripe = (_fraction(s * np.float32(1 / 0.5)) < 0.5) & (colour[:, 0] > 0.15)
    return (np.where(stripe[:, None], 0.7, colour).astype(np.float32),)


_SHADERS = {
    ROAD: _road,
    PAVING: _paving,
    KERB: _kerb,
    GRASS: _grass,
    FACADE: _facade,
    MASONRY: _masonry,
    ROOF: _roof,
    LEAVES: _leaves,
    HEDGE: _hedge,
    BARK: _bark,
    PLANKS: _planks,
    PICKET: _planks,
    PAINT: _paint,
    GLASS: _glass,
    SIGN: _sign,
    CLOTH: _cloth,
    STONE: _stone,
    LAMP: _lamp,
    AWNING: _awning,
}
