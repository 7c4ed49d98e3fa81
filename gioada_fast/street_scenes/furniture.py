"""Street lamps, traffic signs and traffic lights."""

import numpy as np

from ..labels import STREET_IDS
from . import materials as m
from .colours import grey, hsv
from .geometry import Mesh, Pose

POLE, SIGN, LIGHT = STREET_IDS["pole"], STREET_IDS["traffic sign"], STREET_IDS["traffic light"]


def add_lamp(mesh: Mesh, at: Pose, y: float, height: float, metal: np.ndarray) -> None:
    """Adds a street lamp, with a globe where ``height`` is below 6.8 m and an arm above.

    Args:
        mesh: receives the lamp.
        at: pose of the frontage.
        y: position along the frontage, metres.
        height: metres.
        metal: linear RGB [3] of the post.
    """
    x = 0.5
    mesh.cylinder((x, y, 0), (x, y, 1.2), 0.1, 0.09, 8, POLE, m.FLAT, metal, at=at)
    mesh.cylinder((x, y, 1.2), (x, y, height), 0.075, 0.05, 6, POLE, m.FLAT, metal, at=at)
    if height < 6.8:
        mesh.ellipsoid((x, y, height + 0.2), (0.22, 0.22, 0.3), 1, POLE, m.GLASS, grey(0.5), at=at)
    else:
        arm = (x - 1.5, y, height + 0.4)
        mesh.cylinder((x, y, height), arm, 0.045, 0.035, 5, POLE, m.FLAT, metal, at=at)
        mesh.box(
            (x - 2.1, y - 0.14, height + 0.34),
            (x - 1.4, y + 0.14, height + 0.48),
            POLE,
            m.FLAT,
            metal * 1.5,
            at=at,
        )


def add_traffic_sign(
    mesh: Mesh, rng: np.random.Generator, spot: np.ndarray, metal: np.ndarray
) -> None:
    """Adds a post with one or two signs that face -y.

    Args:
        mesh: receives the sign.
        rng: draws height, kinds and sizes.
        spot: float32 [3] foot of the post in world coordinates, metres.
        metal: linear RGB [3] of the post.
    """
    height = rng.uniform(2.2, 3.1)
    mesh.cylinder(spot, np.add(spot, (0, 0, height + 0.3)), 0.045, 0.045, 6, POLE, m.FLAT, metal)
    plates = 1 if rng.random() < 0.7 else 2
    for k in range(plates):
        size = rng.uniform(0.27, 0.42)
        centre = np.add(spot, (0, -0.07, height - 0.75 * k))
        red, blue, white = hsv(0.99, 0.9, 0.75), hsv(0.6, 0.85, 0.6), grey(0.7)
        kind = rng.integers(0, 5)
        back = np.add(centre, (0, 0.03, 0))
        if kind == 0:  # prohibition: a red ring
            mesh.cylinder(back, centre, size, size, 14, SIGN, m.FLAT, red)
            mesh.cylinder(
                centre,
                np.subtract(centre, (0, 0.01, 0)),
                size * 0.75,
                size * 0.75,
                14,
                SIGN,
                m.FLAT,
                white,
            )
            mesh.box(
                np.add(centre, (-0.09, -0.02, -0.1)),
                np.add(centre, (0.09, -0.012, 0.1)),
                SIGN,
                m.FLAT,
                grey(0.03),
            )
        elif kind == 1:  # warning: a triangle
            for scale, colour, out in ((1.25, red, 0.0), (0.85, white, 0.012)):
                r = size * scale
                triangle = [
                    np.add(centre, (-r, -out, -r * 0.6)),
                    np.add(centre, (r, -out, -r * 0.6)),
                    np.add(centre, (0, -out, r * 1.05)),
                ]
                mesh.add(np.array(triangle), [[0, 1, 2]], SIGN, m.FLAT, colour)
            mesh.box(
                np.add(centre, (-0.04, -0.03, -0.12)),
                np.add(centre, (0.04, -0.02, 0.14)),
                SIGN,
                m.FLAT,
                grey(0.03),
            )
        elif kind == 2:  # mandatory: a blue disc with an arrow
            mesh.cylinder(back, centre, size, size, 14, SIGN, m.FLAT, blue)
            mesh.box(
                np.add(centre, (-0.05, -0.02, -0.18)),
                np.add(centre, (0.05, -0.012, 0.2)),
                SIGN,
                m.FLAT,
                white,
            )
        else:  # information: lettering on a panel
            if kind == 3:
                wide = tall = size
                colour, letter = blue, 0.4
            else:
                wide, tall = rng.uniform(0.3, 0.7), rng.uniform(0.15, 0.35)
                colour = [white, hsv(0.38, 0.8, 0.4), hsv(0.13, 0.85, 0.8)][int(rng.integers(0, 3))]
                letter = 0.16
            mesh.box(
                np.subtract(centre, (wide, 0.02, tall)),
                np.add(back, (wide, 0, tall)),
                SIGN,
                m.SIGN,
                colour,
                params=mesh.params(rng.integers(1, 9999), letter, centre[2]),
            )


def add_traffic_light(
    mesh: Mesh, rng: np.random.Generator, spot: np.ndarray, facing: int, metal: np.ndarray
) -> None:
    """Adds a post with one or two traffic lights, each with one lit lamp.

    Args:
        mesh: receives the lights.
        rng: draws the number of lights and the lit lamp.
        spot: float32 [3] foot of the post in world coordinates, metres.
        facing: 1 to face +y, -1 to face -y.
        metal: linear RGB [3] of the post before it is darkened.
    """
    mesh.cylinder(spot, np.add(spot, (0, 0, 3.3)), 0.06, 0.06, 7, POLE, m.FLAT, metal * 0.6)
    heads = [2.35] + ([4.6] if rng.random() < 0.25 else [])
    state = rng.integers(0, 3)
    for low in heads:
        if low > 4:
            mesh.cylinder(
                np.add(spot, (0, 0, 3.3)),
                np.add(spot, (0, 0, 5.6)),
                0.06,
                0.05,
                7,
                POLE,
                m.FLAT,
                metal * 0.6,
            )
        front = facing * 0.12
        centre = np.add(spot, (0, facing * 0.1, low))
        mesh.box(
            np.subtract(centre, (0.17, 0.1, 0)),
            np.add(centre, (0.17, 0.1, 1.0)),
            LIGHT,
            m.FLAT,
            grey(0.01),
        )
        lamps = [(0.01, 0.6, 0.2), (0.8, 0.4, 0.02), (0.8, 0.03, 0.02)]
        for k, colour in enumerate(lamps):
            lit = k == state
            mesh.ellipsoid(
                np.add(centre, (0, front, 0.2 + 0.3 * k)),
                (0.11, 0.03, 0.11),
                1,
                LIGHT,
                m.LAMP if lit else m.FLAT,
                np.array(colour) * (1.0 if lit else 0.04),
            )
