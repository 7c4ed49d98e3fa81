"""How often things occur in a street: the one table of class and object frequencies.

The numbers are set from plausibility: what somebody who walks through a city centre, a residential
street and along a park expects to meet. No label of any target data set was looked at to set them,
and none may be: a source that borrows the target's class frequencies would already be adapted.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Frequencies:
    """Layout statistics of one city."""

    street_kinds: dict[str, float]
    """Share of city, suburb and park streets."""
    left_hand_traffic: bool
    """Whether vehicles keep to the left."""
    carriageway_half_width: tuple[float, float]
    """Half of the carriageway, metres, range."""
    pavement_width: tuple[float, float]
    """Metres, range."""
    storeys: tuple[float, float]
    """Storeys of a city building, range of the street's mean."""
    gap_between_junctions: tuple[float, float]
    """Metres from one junction to the next, range."""
    zebra: float
    """Chance of a zebra crossing at a junction's mouth."""
    signals: float
    """Chance that a junction has traffic lights."""
    street_trees: dict[str, float]
    """Chance that the kerb along a block is planted with trees, by street kind."""
    bare_trees: float
    """Share of streets whose trees have no leaves."""
    shops: dict[str, float]
    """Chance that a building has shops on its ground floor, by street kind."""
    built: dict[str, float]
    """Chance that a plot holds a building and not a garden, a car park or trees, by street kind."""
    churches: float
    """Chance that a large plot holds a church with its tower."""
    parked: dict[str, float]
    """Chance that one side of the street is parked on, by street kind."""
    parked_motorcycles: float
    """Share of parking spaces that motorcycles fill."""
    pavement_parking: float
    """Chance that a row parks half on the pavement."""
    waiting_at_junction: float
    """Chance of a car at the mouth of a side street."""
    traffic_gap: tuple[float, float]
    """Metres between moving vehicles in one lane, range."""
    vehicles: dict[str, float]
    """Share of each kind among moving vehicles; parked ones have no bus."""
    cyclists: float
    """Mean number of moving bicycles within 60 m."""
    bicycle_racks: float
    """Chance of parked bicycles along one side of a block."""
    people: dict[str, float]
    """Mean number of groups of pedestrians for every 60 m of pavement, by street kind."""
    crossing_people: float
    """Chance of somebody on the carriageway at a junction."""
    lamp_gap: tuple[float, float]
    """Metres between street lamps on one side, range."""
    furniture_gap: tuple[float, float]
    """Metres between signs, bollards, bins and the like on one side, range."""
    furniture: dict[str, float]
    """Share of each kind: sign, bollards, bin, utility box, post, direction board."""
    guard_rail: float
    """Chance of a railing along the kerb near a junction."""
    boundaries: dict[str, float]
    """Share of what closes a front garden: wall, hedge, railing, picket, chain-link, open."""
    bus_stop: float
    """Chance of a bus stop along one side of a block."""


def choose(rng: np.random.Generator, weights: dict[str, float]) -> str:
    """A key of ``weights``, drawn with a probability in proportion to its value."""
    names = list(weights)
    cumulative = np.cumsum(list(weights.values()))
    return names[int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))]


FREQUENCIES: dict[str, Frequencies] = {
    "day": Frequencies(
        street_kinds={"city": 0.55, "suburb": 0.27, "park": 0.18},
        left_hand_traffic=True,
        carriageway_half_width=(3.2, 5.2),
        pavement_width=(1.8, 3.4),
        storeys=(2.3, 4.4),
        gap_between_junctions=(28.0, 75.0),
        zebra=0.2,
        signals=0.35,
        street_trees={"city": 0.35, "suburb": 0.7, "park": 0.95},
        bare_trees=0.35,
        shops={"city": 0.6, "suburb": 0.08, "park": 0.1},
        built={"city": 0.95, "suburb": 0.82, "park": 0.2},
        churches=0.04,
        parked_motorcycles=0.06,
        pavement_parking=0.15,
        waiting_at_junction=0.45,
        furniture={"sign": 0.41, "bollards": 0.19, "bin": 0.14, "box": 0.12,
                   "post": 0.1, "board": 0.04},
        parked={"city": 0.5, "suburb": 0.65, "park": 0.4},
        traffic_gap=(10.0, 50.0),
        vehicles={"hatchback": 0.3, "saloon": 0.2, "estate": 0.14, "suv": 0.13, "van": 0.1,
                  "lorry": 0.04, "bus": 0.05, "motorcycle": 0.04},
        cyclists=1.6,
        bicycle_racks=0.2,
        people={"city": 5.0, "suburb": 1.3, "park": 1.6},
        crossing_people=0.3,
        lamp_gap=(20.0, 34.0),
        furniture_gap=(5.0, 16.0),
        guard_rail=0.25,
        boundaries={"wall": 0.24, "hedge": 0.2, "railing": 0.2, "picket": 0.16, "chain-link": 0.06,
                    "open": 0.14},
        bus_stop=0.15,
    ),
    "overcast": Frequencies(
        street_kinds={"city": 0.68, "suburb": 0.14, "park": 0.18},
        left_hand_traffic=False,
        carriageway_half_width=(3.6, 7.0),
        pavement_width=(2.4, 5.0),
        storeys=(3.4, 5.6),
        gap_between_junctions=(40.0, 95.0),
        zebra=0.45,
        signals=0.45,
        street_trees={"city": 0.6, "suburb": 0.8, "park": 1.0},
        bare_trees=0.55,
        shops={"city": 0.5, "suburb": 0.1, "park": 0.15},
        built={"city": 0.94, "suburb": 0.75, "park": 0.2},
        churches=0.05,
        parked_motorcycles=0.06,
        pavement_parking=0.25,
        waiting_at_junction=0.4,
        furniture={"sign": 0.36, "bollards": 0.24, "bin": 0.14, "box": 0.12,
                   "post": 0.11, "board": 0.03},
        parked={"city": 0.65, "suburb": 0.5, "park": 0.5},
        traffic_gap=(14.0, 60.0),
        vehicles={"hatchback": 0.22, "saloon": 0.22, "estate": 0.24, "suv": 0.12, "van": 0.08,
                  "lorry": 0.04, "bus": 0.05, "motorcycle": 0.03},
        cyclists=2.0,
        bicycle_racks=0.3,
        people={"city": 4.0, "suburb": 1.0, "park": 2.0},
        crossing_people=0.35,
        lamp_gap=(24.0, 40.0),
        furniture_gap=(6.0, 18.0),
        guard_rail=0.1,
        boundaries={"wall": 0.2, "hedge": 0.26, "railing": 0.26, "picket": 0.04, "chain-link": 0.1,
                    "open": 0.14},
        bus_stop=0.2,
    ),
}  # fmt: skip
