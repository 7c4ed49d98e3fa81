"""Trees and bushes, built from cards: textured quads that show many leaves or branches each."""

import numpy as np

from ..labels import STREET_IDS
from . import materials as m
from .geometry import QUAD_FACES, QUAD_HALVES, Mesh
from .textures import NUM_BRANCH_CARDS, NUM_LEAF_CARDS

TREE = STREET_IDS["tree"]


def _cards(
    mesh: Mesh,
    centres: np.ndarray,
    right: np.ndarray,
    up: np.ndarray,
    material: int,
    colours: np.ndarray,
    params: np.ndarray,
    normals: np.ndarray,
) -> None:
    """Adds quads [N], each with a centre and two half axes.

    Args:
        mesh: receives the quads.
        centres: [N, 3] world coordinates, metres.
        right: [N, 3] half of each quad's horizontal side.
        up: [N, 3] half of each quad's vertical side.
        material: LEAVES or BRANCHES of ``materials``.
        colours: [N, 3] linear RGB.
        params: int [N] rows of material parameters.
        normals: [N, 3] shading normals.
    """
    corners = np.stack(
        [centres - right - up, centres + right - up, centres + right + up, centres - right + up], 1
    )
    count = len(centres)
    faces = (QUAD_FACES[None] + 4 * np.arange(count)[:, None, None]).reshape(-1, 3)
    mesh.add(
        corners.reshape(-1, 3),
        faces,
        TREE,
        material,
        np.repeat(colours, 2, 0),
        params=np.repeat(params, 2),
        normals=np.repeat(normals, 2, 0),
        quads=np.tile(QUAD_HALVES, count),
    )


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors [N, 3] scaled to length 1."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)


def add_leafy_tree(
    mesh: Mesh,
    rng: np.random.Generator,
    foot: np.ndarray,
    height: float,
    colour: np.ndarray,
    cards: int,
) -> None:
    """Adds a tree in leaf.

    Args:
        mesh: receives the tree.
        rng: draws its shape.
        foot: float32 [3] world coordinates, metres.
        height: metres.
        colour: float32 [3] linear RGB of the leaves.
        cards: number of leaf cards.
    """
    trunk = height * rng.uniform(0.2, 0.32)
    bark = np.array([0.12, 0.1, 0.08]) * rng.uniform(0.5, 1.4)
    radius = height * rng.uniform(0.22, 0.34)
    tall = (height - trunk) / 2
    centre = np.add(foot, (0, 0, trunk + tall * 0.95))
    top = np.add(foot, (rng.normal(0, 0.15), rng.normal(0, 0.15), trunk + tall * 0.6))
    mesh.cylinder(foot, top, 0.022 * height, 0.013 * height, 7, TREE, m.BARK, bark)
    for _ in range(3):
        end = centre + rng.normal(0, 0.4, 3) * [radius, radius, tall * 0.7]
        mesh.cylinder(
            np.subtract(top, (0, 0, tall * 0.4)),
            end,
            0.01 * height,
            0.003 * height,
            4,
            TREE,
            m.BARK,
            bark,
        )
    # several lobes make the crown's outline irregular
    lobes = np.clip(rng.normal(0, 0.42, (int(rng.integers(4, 7)), 3)), -0.6, 0.6)
    for lobe in lobes:
        mesh.ellipsoid(
            centre + lobe * [radius, radius, tall],
            np.array([radius, radius, tall]) * rng.uniform(0.14, 0.22),
            1 if cards > 40 else 0,
            TREE,
            m.HEDGE,
            colour * 0.35,
        )
    outward = _unit(rng.normal(size=(cards, 3)))
    reach = rng.uniform(0.3, 0.62, (cards, 1)) * [radius, radius, tall]
    local = lobes[rng.integers(0, len(lobes), cards)] * [radius, radius, tall] + outward * reach
    right = _unit(np.cross(outward, rng.normal(size=(cards, 3))))
    up = np.cross(outward, right)
    half = radius * rng.uniform(0.34, 0.56, (cards, 1)) * (1.0 if cards > 40 else 1.3)
    shades = rng.uniform(0.75, 1.3, (cards, 1)) * (0.8 + 0.25 * local[:, 2:] / tall)
    first = [mesh.params(k, 2 * float(radius * 0.4)) for k in range(NUM_LEAF_CARDS)]
    params = np.array(first)[rng.integers(0, NUM_LEAF_CARDS, cards)]
    normals = _unit(_unit(local / [radius, radius, tall]) + 0.5 * np.add(outward, (0, 0, 0.3)))
    _cards(
        mesh,
        centre + local,
        right * half,
        up * half,
        m.LEAVES,
        (colour * shades).astype(np.float32),
        params,
        normals,
    )


def add_bare_tree(mesh: Mesh, rng: np.random.Generator, foot: np.ndarray, height: float) -> None:
    """Adds a tree without leaves: trunk and limbs as geometry, thin branches on crossed cards.

    Args:
        mesh: receives the tree.
        rng: draws its shape.
        foot: float32 [3] world coordinates, metres.
        height: metres.
    """
    bark = np.array([0.11, 0.095, 0.08]) * rng.uniform(0.4, 1.3)
    trunk = height * rng.uniform(0.2, 0.3)
    top = np.add(foot, (rng.normal(0, 0.12), rng.normal(0, 0.12), trunk))
    mesh.cylinder(foot, top, 0.02 * height, 0.015 * height, 7, TREE, m.BARK, bark)
    spread = height * rng.uniform(0.27, 0.42)
    count = 5
    for k in range(count):
        angle = k * 2 * np.pi / count + rng.uniform(-0.4, 0.4)
        along = np.array([np.cos(angle), np.sin(angle), 0]) * spread * rng.uniform(0.35, 0.7)
        end = top + np.add(along, (0, 0, (height - trunk) * rng.uniform(0.5, 0.8)))
        middle = top + along * 0.4 + [0, 0, (height - trunk) * 0.3]
        mesh.cylinder(
            np.subtract(top, (0, 0, 0.1)),
            middle,
            0.012 * height,
            0.007 * height,
            4,
            TREE,
            m.BARK,
            bark,
        )
        mesh.cylinder(middle, end, 0.007 * height, 0.002 * height, 3, TREE, m.BARK, bark)
    planes = 3
    angles = rng.uniform(0, np.pi) + np.arange(planes) * np.pi / planes
    right = np.stack([np.cos(angles), np.sin(angles), 0 * angles], 1) * spread
    tall = (height - trunk * 0.75) / 2
    up = np.tile([0, 0, tall], (planes, 1)) + rng.normal(0, 0.06, (planes, 3)) * tall
    centres = np.add(foot, (0, 0, trunk * 0.75 + tall)) + rng.normal(0, 0.05, (planes, 3)) * spread
    params = np.array(
        [mesh.params(rng.integers(0, NUM_BRANCH_CARDS), 2 * tall) for _ in range(planes)]
    )
    normals = np.tile([0.0, 0.0, 0.7], (planes, 1))
    colours = np.tile(bark.astype(np.float32), (planes, 1))
    _cards(mesh, centres, right, up, m.BRANCHES, colours, params, normals)


def add_bush(
    mesh: Mesh, rng: np.random.Generator, foot: np.ndarray, size: float, colour: np.ndarray
) -> None:
    """Adds a shrub of leaf cards around a dark core.

    Args:
        mesh: receives the shrub.
        rng: draws its shape.
        foot: float32 [3] world coordinates, metres.
        size: diameter, metres.
        colour: float32 [3] linear RGB of the leaves.
    """
    centre = np.add(foot, (0, 0, size * 0.4))
    mesh.ellipsoid(centre, (size * 0.55, size * 0.55, size * 0.42), 1, TREE, m.HEDGE, colour * 0.6)
    cards = 14
    outward = _unit(
        np.abs(rng.normal(size=(cards, 3))) * [[1, 1, 1]] * rng.choice([-1, 1], (cards, 3))
    )
    outward[:, 2] = np.abs(outward[:, 2])
    right = _unit(np.cross(outward, rng.normal(size=(cards, 3))))
    up = np.cross(outward, right)
    half = size * rng.uniform(0.3, 0.45, (cards, 1))
    params = np.full(cards, mesh.params(rng.integers(0, NUM_LEAF_CARDS), size * 0.75))
    shades = rng.uniform(0.75, 1.25, (cards, 1))
    _cards(
        mesh,
        centre + outward * size * 0.45,
        right * half,
        up * half,
        m.LEAVES,
        (colour * shades).astype(np.float32),
        params,
        _unit(np.add(outward, (0, 0, 0.4))),
    )
