"""Looks: the materials, light, camera and layout statistics of a rendered city."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from ..config import camera_range
from .frequencies import FREQUENCIES, Frequencies

Range = tuple[float, float]
"""(low, high) of a uniform distribution."""


@dataclass(frozen=True)
class Look:
    """Parameters of one domain. Each frame draws its own values from the ranges."""

    frequencies: Frequencies
    """Layout statistics."""
    texture_exponent: float
    """Exponent with which the surface noise's spectrum falls off; smaller is grainier."""
    texture_contrast: float
    """Strength of the surface noise, 1 is neutral."""
    cladding: dict[str, float]
    """Weights of plaster, brick, stone and panel façades."""
    plaster_saturation: Range
    """Saturation (HSV) of plaster colours."""
    brick_hue: Range
    """Hue of bricks, in turns."""
    roof_hue: Range
    """Hue of roof tiles, in turns."""
    road_albedo: Range
    """Albedo of the carriageway."""
    cobbles: float
    """Probability that the carriageway is cobbled."""
    wetness: Range
    """Wetness of the carriageway: 0 is dry, more reflects more."""
    leaf_hue: Range
    """Hue of leaves, in turns."""
    leaf_value: Range
    """Brightness (HSV value) of leaves."""
    yellow_lines: float
    """Probability of yellow lines along the kerb."""
    paint_colour: float
    """Probability that a vehicle has a bright colour, not black, grey or white."""
    sunny: float
    """Probability of sunshine."""
    sun_elevation: Range
    """Degrees above the horizon."""
    sun_strength: Range
    """Irradiance of the sun relative to ``sky_brightness``."""
    cloud: Range
    """Cloud cover of frames without sun. Sunny frames take 30 to 60 per cent of it."""
    sky_brightness: Range
    """Radiance of the sky relative to the exposure's white point."""
    haze: Range
    """Extinction coefficient, 1 / metres."""
    exposure: Range
    """Exposure compensation, stops."""
    dusk: float
    """Probability that a frame is one to two stops darker."""
    white_balance: tuple[Range, Range, Range]
    """Gains of the red, green and blue channels."""
    contrast: Range
    """Slope of the tone curve about middle grey."""
    black_level: Range
    """Output for black: positive values lift the shadows, negative values crush them."""
    saturation: Range
    """1 keeps the colours, 0 makes the image grey."""
    noise: Range
    """Standard deviation of the sensor noise, in units of full scale."""
    blur: Range
    """Standard deviation of the optical blur, in pixels of a frame 240 pixels wide."""
    vignette: Range
    """Fraction of the light that is lost in the corners."""
    field_of_view: Range
    """Horizontal field of view, degrees."""
    camera_height: Range
    """Metres above the road."""
    camera_pitch: Range
    """Degrees above the horizontal."""


class CameraRanges(NamedTuple):
    """Ranges of the camera that replace a look's; None keeps the look's.

    Every camera draws as often, so that the frames of a seed show the same street.
    """

    field_of_view: Range | None = None
    """Horizontal field of view, degrees."""
    camera_height: Range | None = None
    """Metres above the road."""
    camera_pitch: Range | None = None
    """Degrees above the horizontal."""

    @classmethod
    def read(
        cls, settings: Mapping[str, float | Sequence[float] | None], prefix: str = ""
    ) -> "CameraRanges":
        """The ranges that settings give, each as one number or as the lowest and the highest.

        Args:
            settings: by name; None keeps the look's.
            prefix: of the names in messages.

        Raises:
            InputError: see ``config.camera_range``.
        """
        return cls(
            **{
                name: None if value is None else camera_range(prefix + name, value)
                for name, value in settings.items()
            }
        )

    def replaced(self, look: Look) -> dict[str, Range]:
        """The ranges that differ from those of a look, by name.

        Raises:
            InputError: a range falls, or is out of the bounds of ``config.CAMERA_BOUNDS``.
        """
        ranges = CameraRanges.read(self._asdict())._asdict()
        return {
            name: limits
            for name, limits in ranges.items()
            if limits is not None and limits != getattr(look, name)
        }

    def apply(self, look: Look) -> Look:
        """The look with this camera."""
        # mypy takes the values for those of every field
        return replace(look, **self.replaced(look))  # type: ignore[arg-type]


LOOK_CAMERA = CameraRanges()
"""Keeps the camera of every look."""

DAY = Look(
    frequencies=FREQUENCIES["day"],
    texture_exponent=1.3,
    texture_contrast=1.0,
    cladding={"plaster": 0.3, "brick": 0.52, "stone": 0.12, "panel": 0.06},
    plaster_saturation=(0.03, 0.25),
    brick_hue=(0.02, 0.11),
    roof_hue=(0.0, 0.08),
    road_albedo=(0.09, 0.19),
    cobbles=0.02,
    wetness=(0.0, 0.0),
    leaf_hue=(0.17, 0.33),
    leaf_value=(0.42, 0.6),
    yellow_lines=0.5,
    paint_colour=0.4,
    sunny=0.6,
    sun_elevation=(14.0, 50.0),
    sun_strength=(1.3, 2.8),
    cloud=(0.6, 1.0),
    sky_brightness=(0.9, 1.6),
    haze=(0.0, 0.0012),
    exposure=(-0.4, 0.4),
    dusk=0.15,
    white_balance=((0.97, 1.04), (0.98, 1.02), (0.96, 1.03)),
    contrast=(0.95, 1.2),
    black_level=(-0.06, 0.0),
    saturation=(0.85, 1.1),
    noise=(0.004, 0.014),
    blur=(0.25, 0.5),
    vignette=(0.0, 0.12),
    field_of_view=(52.0, 64.0),
    camera_height=(1.2, 1.6),
    camera_pitch=(-2.5, 1.0),
)

LOOKS: dict[str, Look] = {
    "day": DAY,
    "overcast": Look(
        frequencies=FREQUENCIES["overcast"],
        texture_exponent=0.85,
        texture_contrast=1.35,
        cladding={"plaster": 0.55, "brick": 0.08, "stone": 0.25, "panel": 0.12},
        plaster_saturation=(0.1, 0.42),
        brick_hue=(0.0, 0.06),
        roof_hue=(0.55, 0.65),
        road_albedo=(0.07, 0.24),
        cobbles=0.25,
        wetness=(0.0, 0.45),
        leaf_hue=(0.09, 0.24),
        leaf_value=(0.32, 0.55),
        yellow_lines=0.0,
        paint_colour=0.25,
        sunny=0.0,
        sun_elevation=(14.0, 50.0),
        sun_strength=(0.0, 0.0),
        cloud=(0.85, 1.25),
        sky_brightness=(0.75, 1.15),
        haze=(0.0006, 0.0045),
        exposure=(-0.9, 0.1),
        dusk=0.06,
        white_balance=((0.78, 0.92), (0.97, 1.05), (1.05, 1.22)),
        contrast=(0.75, 0.95),
        black_level=(0.02, 0.1),
        saturation=(0.5, 0.85),
        noise=(0.010, 0.026),
        blur=(0.6, 1.0),
        vignette=(0.3, 0.55),
        field_of_view=(58.0, 74.0),
        camera_height=(1.15, 1.9),
        camera_pitch=(-4.5, 0.5),
    ),
    # the streets of the day in low, reddish light and haze, photographed with a poor camera
    "evening": replace(
        DAY,
        sunny=0.6,
        sun_elevation=(8.0, 16.0),
        sky_brightness=(0.35, 0.7),
        haze=(0.004, 0.012),
        exposure=(-0.8, 0.0),
        dusk=0.0,
        white_balance=((1.35, 1.6), (0.8, 0.92), (0.4, 0.55)),
        contrast=(0.7, 0.95),
        black_level=(0.03, 0.1),
        saturation=(0.7, 1.0),
        noise=(0.012, 0.025),
        blur=(0.5, 0.9),
        vignette=(0.3, 0.5),
    ),
}
