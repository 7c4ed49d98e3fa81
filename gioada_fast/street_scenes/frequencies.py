"""How often each object and each kind of street occurs. All such numbers stand in this file.

The numbers are guesses of what a walk through a city centre, a residential street and along a park
would show. They must never be fitted to the labels of a target data set: a source that borrows the
target's class frequencies would already be adapted.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Frequencies:
    """Layout statistics of one city.

    A range is (low, high) of a uniform distribution. Dictionaries are either probabilities by kind
    of street (city, suburb, park) or weights of ``choose``, as their fields say.
    """

    street_kinds: dict[str, float]
    """Weights of city, suburb and park streets."""
    left_hand_traffic: bool
    """Whether vehicles keep to the left."""
    carriageway_half_width: tuple[float, float]
    """Distance from the centre line to the kerb, metres, range."""
    pavement_width: tuple[float, float]
    """Metres from the kerb to the plots or the verge, range."""
    storeys: tuple[float, float]
    """Range of a street's mean number of storeys of city buildings."""
    gap_between_junctions: tuple[float, float]
    """Metres from one junction to the next, range."""
    zebra: float
    """Probability of zebra crossings at a junction."""
    signals: float
    """Probability that a junction has traffic lights."""
    street_trees: dict[str, float]
    """Probability that trees line the kerb of a block, by kind of street."""
    bare_trees: float
    """Probability that most trees of a street have no leaves."""
    shops: dict[str, float]
    """Probability that a building has shops on its ground floor, by kind of street."""
    built: dict[str, float]
    """Probability that a plot has a building, not trees or a car park, by kind of street."""
    churches: float
    """Probability that a large plot has a church."""
    parked: dict[str, float]
    """Probability that vehicles park along one side of a street, by kind of street."""
    parked_motorcycles: float
    """Probability that motorcycles fill a parking space."""
    pavement_parking: float
    """Probability that a row of vehicles parks half on the pavement."""
    waiting_at_junction: float
    """Probability that a car waits at the mouth of a side street."""
    traffic_gap: tuple[float, float]
    """Metres between moving vehicles in one lane, range."""
    vehicles: dict[str, float]
    """Weights of moving vehicles. Parked vehicles take those of cars and vans."""
    cyclists: float
    """Mean number of ridden bicycles on the carriageway, up to 60 m ahead."""
    bicycle_racks: float
    """Probability of a row of parked bicycles along a block."""
    people: dict[str, float]
    """Mean number of groups of pedestrians per 60 m of pavement, by kind of street."""
    crossing_people: float
    """Probability that pedestrians cross the carriageway at a junction."""
    lamp_gap: tuple[float, float]
    """Metres between the street lamps of one side, range."""
    furniture_gap: tuple[float, float]
    """Metres between the pieces of ``furniture`` of one side, range."""
    furniture: dict[str, float]
    """Weights of traffic sign, bollards, bin, utility box, post and direction board."""
    guard_rail: float
    """Probability of a guard rail along the kerb at a corner of a junction."""
    boundaries: dict[str, float]
    """Weights of the boundaries of gardens: wall, hedge, railing, picket, chain-link, open."""
    bus_stop: float
    """Probability of a bus stop along a block."""


def choose(rng: np.random.Generator, weights: dict[str, float]) -> str:
    """Draws a key of ``weights`` with a probability proportional to its value."""
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
