"""Materials: albedo, gloss, emission and alpha cut-outs at the points that rays hit.

Patterns are functions of the hit point and of the face's row of parameters, so only cut-outs need
texture coordinates. Arrays are float32 with one entry a hit unless stated otherwise. Lengths are in
metres.

Rows of ``Triangles.params``:
    FACADE: the fields of ``FacadeParams``.
    MASONRY: a value of ``CLADDING``.
    PAVING: size of a slab, 1 for tarmac.
    SIGN: seed, height of a letter, height of the lettering's middle above the ground.
    LEAVES, BRANCHES: number of the card, its side.
    RAILING, CHAIN_LINK, PICKET: height of the foot, height, length.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np

from .geometry import Triangles
from .textures import NOISE_SIDE, Cards, branch_cards, leaf_cards

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
"""Ids of the materials."""
IS_CUT_OUT = np.zeros(256, bool)
"""bool [256]: whether a material, by its id, is an alpha cut-out."""
IS_CUT_OUT[[LEAVES, BRANCHES, PICKET, RAILING, CHAIN_LINK, SPOKES]] = True

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
"""float32 [10, 3] linear RGB of painted doors and shop fronts."""


CLADDING = {"plaster": 0, "brick": 1, "stone": 2, "panel": 3}
"""Ids of the wall coverings of façades and masonry."""
WINDOWS, SHOP, BLANK = range(3)
"""What the ground floor of a façade shows. BLANK has no windows on any floor."""


class FacadeParams(NamedTuple):
    """Columns of the parameters of FACADE.

    Fields are numbers for ``Mesh.params`` and float32 [N], one entry a hit, in shaders.
    """

    seed: Any
    cladding: Any
    """A value of ``CLADDING``."""
    start: Any
    """Lower end of the wall on the world axis that it runs along, metres."""
    length: Any
    """Metres."""
    bays: Any
    """Number of window axes."""
    storey: Any
    """Height of an upper storey, metres."""
    ground: Any
    """Height of the ground floor, metres."""
    top: Any
    """Height of the wall, metres."""
    window_width: Any
    """As a fraction of the bay."""
    window_height: Any
    """As a fraction of the storey."""
    ground_floor: Any
    """WINDOWS, SHOP or BLANK."""
    frame: Any
    """Albedo of the window frames."""
    surround: Any
    """Width of the windows' surrounds, metres; 0 for none."""
    panes: Any
    """0 one pane, 1 sash, 2 casement with a cross."""
    trim: Any
    """Albedo of sills, lintels and surrounds."""


@dataclass
class Junction:
    """A side street that meets the main street."""

    y0: float
    """Start along the main street, metres."""
    y1: float
    """End along the main street, metres."""
    side: int
    """-1 left, 1 right, 0 both."""
    zebra: bool
    """Whether it has zebra crossings."""
    signals: bool
    """Whether it has traffic lights."""
    box_marking: bool
    """Whether a yellow box is marked on the carriageway."""


@dataclass
class Street:
    """Layout and surface of the main street, as far as materials depend on them."""

    seed: int
    half_width: float
    """Distance from the centre line to the kerb, metres."""
    junctions: list[Junction]
    near_side: int
    """Side on which traffic drives: -1 left, 1 right."""
    bend: float
    """x += bend * y ** 2 ahead of the camera."""
    slope: float
    """z += slope * y ** 2 ahead of the camera."""
    marking_albedo: float
    """Albedo of road markings."""
    dash: tuple[float, float]
    """Period in metres and painted fraction of a dashed centre line."""
    centre_line: int
    """0 none, 1 dashed, 2 solid."""
    edge_lines: bool
    """Whether white lines mark the edges of the carriageway."""
    yellow_lines: bool
    """Whether double yellow lines run along the kerbs."""
    cobbles: bool
    patches: float
    """Fraction of the carriageway that is patched."""
    wetness: float
    """0 is dry, more reflects more."""

    def straighten(self, points: np.ndarray) -> np.ndarray:
        """Maps world points [N, 3] of the bent street to the straight street that patterns use."""
        ahead = np.maximum(points[:, 1], 0) ** 2
        out = points.copy()
        out[:, 0] -= np.float32(self.bend) * ahead
        out[:, 2] -= np.float32(self.slope) * ahead
        return out

    def bend_vertices(self, vertices: np.ndarray) -> np.ndarray:
        """Bends vertices [V, 3] of the straight street; the inverse of ``straighten``."""
        ahead = np.maximum(vertices[:, 1], 0) ** 2
        out = vertices.copy()
        out[:, 0] += np.float32(self.bend) * ahead
        out[:, 2] += np.float32(self.slope) * ahead
        return out


class Hits(NamedTuple):
    """Surface points that rays hit."""

    face: np.ndarray
    """int32 [N]."""
    point: np.ndarray
    """float32 [N, 3] in the coordinates of the straight street."""
    direction: np.ndarray
    """float32 [N, 3] unit vectors away from the camera."""
    normal: np.ndarray
    """float32 [N, 3] geometric normals on the camera's side."""
    distance: np.ndarray
    """float32 [N] metres along the ray."""
    uv: np.ndarray
    """float32 [2, N] texture coordinates, 0 except on cut-outs."""
    footprint: np.ndarray
    """float32 [N] width of a pixel at the hit, metres."""

    def take(self, index: np.ndarray) -> "Hits":
        """The hits at ``index``."""
        return Hits(
            self.face[index],
            self.point[index],
            self.direction[index],
            self.normal[index],
            self.distance[index],
            self.uv[:, index],
            self.footprint[index],
        )


def hash01(*keys: np.ndarray | float) -> np.ndarray:
    """Hashes whole numbers, stored as ints or floats, to float32 in 0 .. 1; keys broadcast."""
    state: Any = np.uint32(0x9E3779B9)
    for key in keys:
        bits = np.asarray(key).astype(np.int32).view(np.uint32)
        state = (bits ^ state) * np.uint32(0x85EBCA6B)
        state ^= state >> np.uint32(15)
        state *= np.uint32(0xC2B2AE35)
        state ^= state >> np.uint32(13)
    return (state >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def noise(volume: np.ndarray, points: np.ndarray, cell: float, offset: int = 0) -> np.ndarray:
    """Looks up noise at points [N, 3] without interpolation.

    Args:
        volume: float32 [NOISE_SIDE ** 3].
        points: float32 [N, 3] metres.
        cell: size of a voxel, metres.
        offset: shift in voxels, so that look-ups of one point differ.
    """
    index = ((points * np.float32(1 / cell)) + np.float32(4096 + offset)).astype(np.int32)
    index &= NOISE_SIDE - 1
    return volume[(index[:, 0] * NOISE_SIDE + index[:, 1]) * NOISE_SIDE + index[:, 2]]


def quad_uv(quads: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Texture coordinates float32 [2, N] of hits on quads.

    Args:
        quads: uint8 [N], 1 or 2: which half of its quad was hit.
        u: float32 [N] barycentric coordinate.
        v: float32 [N] barycentric coordinate.
    """
    both = u + v
    return np.stack([np.where(quads == 1, both, u), np.where(quads == 1, v, both)])


def _where32(condition: np.ndarray, yes: np.ndarray | float, no: np.ndarray | float) -> np.ndarray:
    """``np.where`` in float32, also when both choices are Python numbers."""
    return np.where(condition, yes, no).astype(np.float32, copy=False)


def _fraction(x: np.ndarray) -> np.ndarray:
    return x - np.floor(x)


def _by_mip_level(
    cards: Cards, uv: np.ndarray, footprint: np.ndarray, params: np.ndarray
) -> Iterator[tuple[np.ndarray, int, np.ndarray, np.ndarray, np.ndarray]]:
    """Yields (members, level, card, row, column) for each mip level that the hits need.

    ``members`` are indices of hits; card, row and column int32 are their texels at that level.
    """
    texel = params[:, 1] / cards.coverage[0].shape[1]
    level = np.log2(np.maximum(footprint / texel, 1e-3)) + 0.25
    level = np.clip(level, 0, len(cards.coverage) - 1).astype(np.int32)
    for k in np.unique(level):
        members = np.flatnonzero(level == k)
        side = cards.coverage[k].shape[1]
        column, row = np.clip(uv[:, members] * side, 0, side - 1).astype(np.int32)
        yield members, k, params[members, 0].astype(np.int32), row, column


def opaque(
    scene: Triangles,
    face: np.ndarray,
    uv: np.ndarray,
    footprint: np.ndarray,
    dither: np.ndarray,
    filled: bool,
) -> np.ndarray:
    """Alpha test: whether each hit on a cut-out is opaque, bool [N].

    Args:
        scene: attributes of the faces.
        face: int32 [N], faces of cut-out materials.
        uv: float32 [2, N] texture coordinates.
        footprint: float32 [N] width of a pixel at the hit, metres.
        dither: float32 [N] in 0 .. 1, thresholds for partial coverage.
        filled: close the holes of plants and fences, as annotators of labels do.
    """
    material = scene.materials[face]
    params = scene.params[scene.param_row[face]]
    stop = np.ones(len(material), bool)
    for kind, cards in ((LEAVES, leaf_cards), (BRANCHES, branch_cards)):
        index = np.flatnonzero(material == kind)
        if not len(index):
            continue
        if filled:
            side = cards().silhouette.shape[1]
            column, row = np.clip(uv[:, index] * side, 0, side - 1).astype(np.int32)
            stop[index] = cards().silhouette[params[index, 0].astype(np.int32), row, column]
            continue
        coverage = np.empty(len(index), np.float32)
        for members, level, card, row, column in _by_mip_level(
            cards(), uv[:, index], footprint[index], params[index]
        ):
            coverage[members] = cards().coverage[level][card, row, column]
        stop[index] = coverage > np.clip(dither[index], 0.08, 0.92)
    index = np.flatnonzero(material == SPOKES)
    if len(index):
        u, v = uv[:, index] * 2 - 1
        radius = np.sqrt(u * u + v * v)
        spokes = (_fraction(np.arctan2(v, u) * np.float32(9 / np.pi)) < 0.16) & (radius < 0.9)
        rim = (radius < 1) & (radius > 0.86)
        stop[index] = radius < 1 if filled else rim | spokes | (radius < 0.1)
    if filled:
        return stop
    for kind, pitch, fraction in (
        (RAILING, 0.13, 0.24),
        (CHAIN_LINK, 0.07, 0.15),
        (PICKET, 0.14, 0.72),
    ):
        index = np.flatnonzero(material == kind)
        if not len(index):
            continue
        height, length = params[index, 1], params[index, 2]
        s = uv[0, index] * length
        z = uv[1, index] * height
        far = footprint[index] > pitch * 0.5
        if kind == CHAIN_LINK:
            wire = np.minimum(_fraction((s + z) / pitch), _fraction((s - z) / pitch)) < fraction
            rail = z > height - 0.05
            mean = 2 * fraction
        else:
            wire = _fraction(s / pitch) < fraction
            rail = np.abs(z - 0.12) < 0.025
            rail |= np.abs(z - height + 0.06) < 0.03
            if kind == PICKET:
                rail |= np.abs(z - height * 0.5) < 0.08
                wire &= z < height - 0.5 * np.abs(_fraction(s / pitch) - fraction / 2)
            mean = fraction
        stop[index] = np.where(far, dither[index] < mean, wire) | rail
    return stop


class Surface(NamedTuple):
    """Reflectance and emission of the visible points."""

    albedo: np.ndarray
    """float32 [N, 3] linear RGB."""
    gloss: np.ndarray
    """float32 [N] reflectance at normal incidence, 0 for matt."""
    glow: np.ndarray
    """float32 [N] emitted radiance as a multiple of the albedo."""


class _Inputs(NamedTuple):
    """The hits on one material, as its shader receives them."""

    hits: Hits
    params: np.ndarray
    """float32 [N, NUM_PARAMS]."""
    colour: np.ndarray
    """float32 [N, 3] linear RGB of the face."""
    fine: np.ndarray
    """float32 [N] surface noise in cells of 3.5 cm."""
    coarse: np.ndarray
    """float32 [N] surface noise in cells of 50 cm."""
    street: Street
    volume: np.ndarray
    """float32 [NOISE_SIDE ** 3] noise for further look-ups."""


class _Shading(NamedTuple):
    """What a shader returns. The fields are those of ``Surface``."""

    albedo: np.ndarray
    gloss: np.ndarray | float = 0.0
    glow: np.ndarray | float = 0.0


def shade(
    scene: Triangles, street: Street, volume: np.ndarray, contrast: float, hits: Hits
) -> Surface:
    """Evaluates the materials at the hits.

    Args:
        scene: attributes of the faces.
        street: layout of the street.
        volume: float32 [NOISE_SIDE ** 3] surface noise.
        contrast: strength of the surface noise, 1 is neutral.
        hits: what the rays hit.
    """
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
        inputs = _Inputs(
            hits.take(index),
            scene.params[scene.param_row[hits.face[index]]],
            albedo[index],
            fine[index],
            coarse[index],
            street,
            volume,
        )
        albedo[index], gloss[index], glow[index] = function(inputs)
    return Surface(np.clip(albedo, 0.004, 1.0), gloss, glow)


def _mottled(inputs: _Inputs, fine: float = 0.3, coarse: float = 0.4) -> np.ndarray:
    """Colour float32 [N, 3], varied by fine and coarse noise with the given strengths."""
    variation = (
        1 + np.float32(fine) * (inputs.fine - 0.5) + np.float32(coarse) * (inputs.coarse - 0.5)
    )
    return inputs.colour * variation[:, None]


def _faces_x(normal: np.ndarray) -> np.ndarray:
    """Whether a wall faces along x rather than y, bool [N]."""
    return np.abs(normal[:, 0]) > np.abs(normal[:, 1])


def _along_wall(hits: Hits) -> np.ndarray:
    """Position along a wall: y where it faces along x, x elsewhere, float32 [N]."""
    return np.where(_faces_x(hits.normal), hits.point[:, 1], hits.point[:, 0])


def _in_junction(y: np.ndarray, street: Street) -> np.ndarray:
    """Whether points lie between the corners of a junction, bool [N]."""
    inside = np.zeros(len(y), bool)
    for j in street.junctions:
        inside |= (y > j.y0) & (y < j.y1)
    return inside


def _road(inputs: _Inputs) -> _Shading:
    """The carriageway with its markings, patches and manholes."""
    hits, street, coarse, fine = inputs.hits, inputs.street, inputs.coarse, inputs.fine
    x, y = hits.point[:, 0], hits.point[:, 1]
    w = street.half_width
    grain = 0.75 + 0.5 * coarse + 0.28 * (fine - 0.5)
    track = (np.abs(np.abs(x) - w * 0.5) - 0.75) * np.float32(1 / 0.3)
    grain = grain * (1 - 0.13 * np.exp(-track * track))
    lane = np.floor(x * np.float32(1 / 2.3))
    patch = hash01(lane, np.floor(y / 9 + 5 * hash01(lane, street.seed)), street.seed)
    grain = grain * _where32(patch > 1 - street.patches, 0.8, _where32(patch < 0.04, 1.15, 1.0))
    if street.cobbles:
        row = np.floor(y * np.float32(1 / 0.16))
        along = x * np.float32(1 / 0.2) + 0.5 * (row % 2)
        stone = 0.65 + 0.6 * hash01(row, np.floor(along))
        joint = (_fraction(y * np.float32(1 / 0.16)) < 0.16) | (_fraction(along) < 0.12)
        near = hits.distance < 14
        grain = grain * _where32(near, _where32(joint, 0.5, stone), 0.9)
    albedo = inputs.colour * grain[:, None]

    crossing = _in_junction(y, street)
    ax = np.abs(x)
    white = np.zeros(len(x), bool)
    yellow = np.zeros(len(x), bool)
    on_main = ax < w
    if street.centre_line:
        solid = street.centre_line == 2
        dashed = solid | (_fraction(y * np.float32(1 / street.dash[0])) < street.dash[1])
        white |= (ax < 0.065) & dashed & ~crossing
    if street.edge_lines:
        white |= (np.abs(ax - w + 0.55) < 0.06) & ~crossing
    if street.yellow_lines:
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
        # the side street gives way: a broken line along the kerb, behind it a centre line
        inside = (y > j.y0) & (y < j.y1) & (ax > w) & ((j.side == 0) | (x * j.side > 0))
        middle = 0.5 * (j.y0 + j.y1)
        give_way = (np.abs(ax - w - 0.4) < 0.12) & (_fraction(y) < 0.6)
        white |= inside & give_way
        white |= inside & (np.abs(y - middle) < 0.06) & (_fraction(x / 4) < 0.5) & (ax > w + 1)
        if j.box_marking:
            grid = (_fraction((x + y) / 1.7) < 0.08) | (_fraction((x - y) / 1.7) < 0.08)
            yellow |= (y > j.y0) & (y < j.y1) & on_main & grid
    worn = noise(inputs.volume, hits.point, 0.06, 5) > 0.3
    paint = np.float32(street.marking_albedo)
    albedo[white & worn] = paint
    albedo[yellow & worn] = np.array([1.0, 0.68, 0.12], np.float32) * paint * 0.85
    manhole = hash01(np.floor(x / 1.8), np.floor(y / 7), street.seed) > 0.94
    u, v = _fraction(x / 1.8) - 0.5, (_fraction(y / 7) - 0.5) * np.float32(7 / 1.8)
    albedo[manhole & (u * u + v * v < 0.03)] *= 0.55
    gloss: np.ndarray = np.zeros(len(x), np.float32)
    if street.wetness:
        # wet asphalt is darker, and its roughness varies the reflection
        gloss = np.float32(0.12 * street.wetness) * (0.3 + fine)
        albedo *= np.float32(1 - 0.5 * street.wetness)
    return _Shading(albedo, gloss)


def _paving(inputs: _Inputs) -> _Shading:
    """Slabs in courses, or tarmac."""
    x, y = inputs.hits.point[:, 0], inputs.hits.point[:, 1]
    size, tarmac = np.maximum(inputs.params[:, 0], 0.2), inputs.params[:, 1] > 0
    u = x / size
    row = np.floor(u)
    v = y / size * 0.8 + 0.5 * (row % 2)
    slab = 0.8 + 0.35 * hash01(row, np.floor(v), inputs.street.seed)
    joint = (_fraction(u) < 0.05) | (_fraction(v) < 0.05)
    pattern = np.where(tarmac, 1.0, np.where(joint & (inputs.hits.distance < 25), 0.68, slab))
    tone = pattern * (0.72 + 0.55 * inputs.coarse + 0.25 * (inputs.fine - 0.5))
    return _Shading(inputs.colour * tone[:, None])


def _kerb(inputs: _Inputs) -> _Shading:
    point, normal = inputs.hits.point, inputs.hits.normal
    along = np.where(np.abs(normal[:, 0]) > 0.6, point[:, 1], point[:, 0])
    joint = _fraction(along * np.float32(1 / 0.9)) < 0.03
    return _Shading(_mottled(inputs, 0.3, 0.5) * _where32(joint, 0.6, 1.0)[:, None])


def _grass(inputs: _Inputs) -> _Shading:
    tint = 0.45 + 1.0 * inputs.fine + 0.5 * (inputs.coarse - 0.5)
    dry = np.clip(inputs.coarse - 0.55, 0, 1)[:, None] * np.array([0.5, 0.2, 0.0], np.float32)
    return _Shading(inputs.colour * tint[:, None] * (1 + dry))


def _cladding(
    inputs: _Inputs, kind: np.ndarray, seed: np.ndarray, s: np.ndarray, z: np.ndarray
) -> np.ndarray:
    """Albedo float32 [N, 3] of a wall.

    Args:
        inputs: the hits.
        kind: [N] values of ``CLADDING``.
        seed: [N] seed of the building.
        s: [N] metres along the wall.
        z: [N] metres above the ground.
    """
    out = _mottled(inputs, 0.16, 0.45)
    index = np.flatnonzero(kind == CLADDING["brick"])
    if len(index):
        row = np.floor(z[index] * np.float32(1 / 0.08))
        along = s[index] * np.float32(1 / 0.23) + 0.5 * (row % 2)
        brick = 0.72 + 0.56 * hash01(np.floor(along), row, seed[index])
        mortar = (_fraction(z[index] * np.float32(1 / 0.08)) < 0.14) | (_fraction(along) < 0.06)
        out[index] *= np.where(mortar, 1.3, brick)[:, None]
    index = np.flatnonzero(kind == CLADDING["stone"])
    if len(index):
        row = np.floor(z[index] * np.float32(1 / 0.36))
        along = s[index] * np.float32(1 / 0.75) + hash01(row, seed[index])
        stone = 0.82 + 0.34 * hash01(np.floor(along), row, seed[index])
        joint = (_fraction(z[index] * np.float32(1 / 0.36)) < 0.05) | (_fraction(along) < 0.03)
        out[index] *= np.where(joint, 0.66, stone)[:, None]
    # rain leaves streaks on the whole wall and splashes its foot
    streak = hash01(np.floor(s * 3), seed) * 0.14
    splash = 0.25 * np.exp(-z * 2.0)
    return out * (1 - streak * inputs.coarse - splash)[:, None]


class _Bays(NamedTuple):
    """Positions of hits in the grid of window bays and storeys, metres."""

    bay: np.ndarray
    """Number of the bay along the wall."""
    level: np.ndarray
    """Number of the upper storey, -1 for the ground floor."""
    a: np.ndarray
    """Offset along the wall from the bay's centre."""
    b: np.ndarray
    """Height above the storey's floor."""
    half: np.ndarray
    """Half of the opening's width."""
    low: np.ndarray
    """Lower edge of the opening above the storey's floor."""
    high: np.ndarray
    """Upper edge of the opening."""
    is_door: np.ndarray
    slide_a: np.ndarray
    """Metres that the ray moves along the wall for each metre that it goes into the wall."""
    slide_b: np.ndarray
    """The same, upwards."""


Fields = TypeVar("Fields", FacadeParams, _Bays)


def _take(fields: Fields, index: np.ndarray) -> Fields:
    return type(fields)(*(field[index] for field in fields))


def _bays(hits: Hits, params: FacadeParams, s: np.ndarray) -> _Bays:
    """Finds each hit's bay; ``s`` [N] is the distance from the wall's lower end in metres."""
    direction, z = hits.direction, hits.point[:, 2]
    faces_x = _faces_x(hits.normal)
    into_wall = np.maximum(np.abs(np.where(faces_x, direction[:, 0], direction[:, 1])), 0.05)
    bay_width = params.length / params.bays
    bay = np.floor(s / bay_width)
    upper = z > params.ground
    level = np.where(upper, np.floor((z - params.ground) / params.storey), -1.0)
    half = 0.5 * params.window_width * bay_width
    low = np.where(upper, 0.28 * params.storey, 0.3 * params.ground)
    storey = np.where(upper, params.storey, params.ground)
    high = low + params.window_height * storey * _where32(upper, 1.0, 0.92)
    door_bay = np.floor(hash01(params.seed, 5) * params.bays)
    is_door = ~upper & (params.ground_floor == WINDOWS)
    is_door &= (bay == door_bay) | (hash01(params.seed, bay, 8) > 0.85)
    return _Bays(
        bay=bay,
        level=level,
        a=s - (bay + 0.5) * bay_width,
        b=np.where(upper, z - params.ground - level * params.storey, z),
        half=np.where(is_door, np.minimum(0.5, bay_width * 0.42), half),
        low=np.where(is_door, 0.12, low),
        high=np.where(is_door, 2.25, high),
        is_door=is_door,
        slide_a=np.where(faces_x, direction[:, 1], direction[:, 0]) / into_wall,
        slide_b=direction[:, 2] / into_wall,
    )


def _facade(inputs: _Inputs) -> _Shading:
    """A wall with windows, doors and shop fronts."""
    hits, params = inputs.hits, FacadeParams(*inputs.params.T)
    s, z = _along_wall(hits) - params.start, hits.point[:, 2]
    bays = _bays(hits, params, s)
    a, b, half, low, high = bays.a, bays.b, bays.half, bays.low, bays.high
    upper = z > params.ground
    ceiling = np.where(upper, params.ground + (bays.level + 1) * params.storey, params.ground)
    has_windows = params.ground_floor == WINDOWS
    has_windows |= upper & (params.ground_floor == SHOP)
    # a storey that the roof cuts off has no windows
    has_windows &= ceiling < params.top + 0.45
    window = has_windows & (np.abs(a) < half) & (b > low) & (b < high)
    walled_up = hash01(params.seed, bays.bay, bays.level, 3) > 0.96
    window &= ~(walled_up & ~bays.is_door)

    out = _cladding(inputs, params.cladding, params.seed, s, z)
    trim, edge = params.trim, np.maximum(params.surround, 0.0)
    framed = has_windows & ~window & (np.abs(a) < half + edge)
    framed &= (b > low - edge) & (b < high + edge) & (params.surround > 0)
    out[framed] = (trim * 0.95)[framed, None]
    has_sill = has_windows & ~bays.is_door
    sill = has_sill & (np.abs(a) < half + 0.1) & (b <= low) & (b > low - 0.1)
    out[sill] = (trim * 1.05)[sill, None]
    shadow = has_sill & (np.abs(a) < half + 0.06) & (b <= low - 0.1) & (b > low - 0.22)
    out[shadow] *= 0.72
    lintel = has_windows & ~window & (params.surround == 0) & (np.abs(a) < half + 0.12)
    lintel &= (b >= high) & (b < high + 0.2)
    out[lintel] = 0.5 * out[lintel] + (0.35 * trim)[lintel, None]

    gloss = np.zeros(len(s), np.float32)
    glow = np.zeros(len(s), np.float32)
    index = np.flatnonzero(window)
    if len(index):
        out[index], gloss[index], glow[index] = _window(
            _take(params, index), _take(bays, index), out[index]
        )
    index = np.flatnonzero((params.ground_floor == SHOP) & ~upper & (z < params.ground - 0.7))
    if len(index):
        out[index], gloss[index], glow[index] = _shop_front(
            _take(params, index), _take(bays, index), s[index], z[index]
        )
    return _Shading(out, gloss, glow)


def _window(params: FacadeParams, bays: _Bays, wall: np.ndarray) -> _Shading:
    """Windows and doors, recessed behind the wall's surface of albedo ``wall`` [N, 3]."""
    reveal = np.float32(0.15)
    a, b = bays.a + reveal * bays.slide_a, bays.b + reveal * bays.slide_b
    half, low, high = bays.half, bays.low, bays.high
    pane = (np.abs(a) < half) & (b > low) & (b < high)
    middle = 0.5 * (low + high)
    bars = np.minimum(np.minimum(half - np.abs(a), b - low), high - b) < 0.06
    bars |= (params.panes == 1) & (np.abs(b - middle) < 0.035)
    cross = (np.abs(a) < 0.03) | (np.abs(b - high + 0.35 * (high - low)) < 0.03)
    bars |= (params.panes == 2) & cross
    room = hash01(params.seed, bays.bay, bays.level)
    drawn = half * (0.35 + 0.6 * hash01(bays.bay, bays.level))
    curtain = (room > 0.55) & (np.abs(a) > drawn)
    blind = (room < 0.2) & (b > middle + (high - low) * (room * 2))
    cloth = curtain | blind
    inside = (0.012 + 0.07 * room**2)[:, None] * np.array([0.9, 1.0, 1.08], np.float32)
    inside[cloth] = (0.2 + 0.3 * room)[cloth, None] * 0.7
    inside[bars] = params.frame[bars, None]
    leaf = bays.is_door & (b < high - 0.35)
    paint = JOINERY[(hash01(params.seed, 31) * len(JOINERY)).astype(np.int32)]
    panel = _fraction(b * 1.05) < 0.12
    inside[leaf] = (paint * _where32(panel, 0.6, 1.0)[:, None])[leaf]
    inside[~pane] = wall[~pane] * 0.62
    glass = pane & ~bars & ~leaf
    lit = glass & (hash01(params.seed, bays.bay, bays.level, 4) > 0.94)
    return _Shading(
        inside, np.where(glass, np.where(cloth, 0.1, 0.3), 0.02), np.where(lit, 3.0, 0.0)
    )


def _shop_front(params: FacadeParams, bays: _Bays, s: np.ndarray, z: np.ndarray) -> _Shading:
    """Shop windows with goods and doors; ``s`` and ``z`` [N] are metres along and up the wall."""
    shops = np.maximum(np.round(params.length / 2.6), 1)
    unit = s / params.length * shops
    shop, along = np.floor(unit), (_fraction(unit) - 0.5) * params.length / shops
    reveal = np.float32(0.3)
    along_pane, z_pane = along + reveal * bays.slide_a, z + reveal * bays.slide_b
    door = hash01(shop, params.seed) > 0.66
    half = 0.5 * params.length / shops - 0.12
    low = np.where(door, 0.06, 0.5)
    opening = (np.abs(along) < half) & (z > low)
    pane = (np.abs(along_pane) < half) & (z_pane > low)
    cell = np.floor(s * 4), np.floor(z * 5)
    goods = hash01(*cell, params.seed)
    tint = np.stack([hash01(*cell, params.seed, channel) for channel in range(3)], 1)
    brightness = 0.02 + 0.09 * goods * goods * (z < 1.7)
    inside = brightness[:, None] * (0.75 + 0.35 * tint)
    mullion = (np.abs(np.abs(along_pane) - half) < 0.07) | (np.abs(z_pane - 2.2) < 0.04)
    mullion |= door & (np.abs(along_pane) < 0.04)
    joinery = JOINERY[(hash01(params.seed, 41) * len(JOINERY)).astype(np.int32)]
    inside[mullion] = joinery[mullion]
    inside[~pane] = joinery[~pane] * 0.6
    poster = (hash01(shop, params.seed, 6) > 0.75) & ~door & (np.abs(along_pane) < half * 0.6)
    poster &= (z_pane > 0.9) & (z_pane < 1.9) & pane
    inside[poster] = 0.1 + 0.6 * tint[poster]
    glass = opening & pane & ~mullion
    return _Shading(
        np.where(opening[:, None], inside, joinery * 0.7),
        np.where(glass, 0.22, 0.03),
        np.where(glass, 1.6 * hash01(params.seed, 9), 0),
    )


def _masonry(inputs: _Inputs) -> _Shading:
    kind = inputs.params[:, 0]
    s, z = _along_wall(inputs.hits), inputs.hits.point[:, 2]
    return _Shading(_cladding(inputs, kind, kind, s, z))


def _roof(inputs: _Inputs) -> _Shading:
    z = inputs.hits.point[:, 2]
    row = np.floor(z * np.float32(1 / 0.17))
    along = _along_wall(inputs.hits) * np.float32(1 / 0.26) + 0.5 * (row % 2)
    tile = 0.7 + 0.5 * hash01(np.floor(along), row)
    lap = _fraction(z * np.float32(1 / 0.17)) < 0.2
    tone = np.where(lap, 0.66, tile) * (0.7 + 0.6 * inputs.coarse)
    return _Shading(inputs.colour * tone[:, None], 0.02)


def _leaves(inputs: _Inputs) -> _Shading:
    shade_of = np.ones(len(inputs.colour), np.float32)
    cards = leaf_cards()
    for members, level, card, row, column in _by_mip_level(
        cards, inputs.hits.uv, inputs.hits.footprint, inputs.params
    ):
        shade_of[members] = cards.shade[level][card, row, column]
    return _Shading(inputs.colour * shade_of[:, None], 0.015)


def _hedge(inputs: _Inputs) -> _Shading:
    leaf = noise(inputs.volume, inputs.hits.point, 0.05, 3)
    tone = np.clip((leaf - 0.22) * 2.3 + 0.3 * (inputs.fine - 0.5), 0.1, 1.8)
    return _Shading(inputs.colour * tone[:, None])


def _bark(inputs: _Inputs) -> _Shading:
    stretched = inputs.hits.point * np.array([1, 1, 0.3], np.float32)
    return _Shading(inputs.colour * (0.5 + noise(inputs.volume, stretched, 0.03, 9))[:, None])


def _planks(inputs: _Inputs) -> _Shading:
    s = _along_wall(inputs.hits) * np.float32(1 / 0.14)
    plank = 0.7 + 0.5 * hash01(np.floor(s))
    gap = (_fraction(s) < 0.1) & (inputs.hits.distance < 30)
    return _Shading(_mottled(inputs) * np.where(gap, 0.25, plank)[:, None])


def _paint(inputs: _Inputs) -> _Shading:
    dirt = 1 - 0.35 * np.exp(-np.maximum(inputs.hits.point[:, 2] - 0.25, 0) * 5)
    return _Shading(inputs.colour * dirt[:, None], 0.07)


def _glass(inputs: _Inputs) -> _Shading:
    return _Shading(inputs.colour, 0.13)


def _sign(inputs: _Inputs) -> _Shading:
    """Rows of random blocks that look like lettering from afar."""
    seed = inputs.params[:, 0]
    s = _along_wall(inputs.hits)
    size = np.maximum(inputs.params[:, 1], 0.08)
    z = (inputs.hits.point[:, 2] - inputs.params[:, 2]) / size
    row = np.floor(z + 0.5)
    letter = s / (size * 0.55)
    strokes = hash01(np.floor(letter * 3), np.floor(z * 5), seed) > 0.42
    word = hash01(np.floor(letter / 4), row, seed) > 0.35
    ink = strokes & word & (_fraction(letter) > 0.2) & (np.abs(z - row) < 0.36)
    dark = inputs.colour.mean(1) < 0.28
    ink_colour = _where32(dark, 0.75, 0.03)
    return _Shading(np.where(ink[:, None], ink_colour[:, None], inputs.colour), 0.04)


def _cloth(inputs: _Inputs) -> _Shading:
    folds = noise(inputs.volume, inputs.hits.point, 0.05, 9)
    return _Shading(inputs.colour * (0.55 + 0.9 * folds)[:, None])


def _stone(inputs: _Inputs) -> _Shading:
    return _Shading(_mottled(inputs, 0.2, 0.5))


def _lamp(inputs: _Inputs) -> _Shading:
    return _Shading(inputs.colour, 0.05, 0.9)


def _awning(inputs: _Inputs) -> _Shading:
    s = _along_wall(inputs.hits)
    stripe = (_fraction(s * np.float32(1 / 0.5)) < 0.5) & (inputs.colour[:, 0] > 0.15)
    return _Shading(_where32(stripe[:, None], 0.7, inputs.colour))


_SHADERS: dict[int, Callable[[_Inputs], _Shading]] = {
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
