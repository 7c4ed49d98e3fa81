"""Formats numbers, names and settings for reports and tables."""

import math
from collections.abc import Mapping
from typing import Any

import yaml

NO_VALUE = "–"
"""Shown for an undefined number, for example the IoU of a class that occurs nowhere."""


def percent(fraction: float | None) -> str:
    """0.3141 as ``31.4``; a dash for None or NaN."""
    return NO_VALUE if fraction is None or math.isnan(fraction) else f"{100 * fraction:.1f}"


def points(difference: float | None) -> str:
    """A difference of fractions in percentage points with its sign: 0.0314 as ``+3.1``."""
    if difference is None or math.isnan(difference):
        return NO_VALUE
    rounded = round(100 * difference, 1)
    return f"{rounded:+.1f}".replace("-", "−") if rounded else "0.0"


def duration(seconds: float) -> str:
    """571.3 as ``9 min 31 s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def spaced(name: object) -> str:
    """``source_only`` as ``source only``."""
    return str(name).replace("_", " ")


def settings_by_section(settings: Mapping[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """Dotted names and values by section; settings outside any section come first, as ``run``.

    Label spaces and class maps are one value each, in YAML.
    """

    def flatten(prefix: str, value: Any) -> list[tuple[str, str]]:
        if isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
            return [
                line
                for index, inner in enumerate(value)
                for line in flatten(f"{prefix}[{index}]", inner)
            ]
        if isinstance(value, dict) and prefix.rpartition(".")[2] in ("label_space", "classes"):
            text = yaml.safe_dump(
                value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=math.inf
            )
            return [(prefix, text.strip())]
        if not isinstance(value, dict):
            return [(prefix, "unset" if value is None else str(value))]
        return [line for key, inner in value.items() for line in flatten(f"{prefix}.{key}", inner)]

    top = [
        line for key, v in settings.items() if not isinstance(v, dict) for line in flatten(key, v)
    ]
    sections = {
        str(key): [line for inner, v in value.items() for line in flatten(str(inner), v)]
        for key, value in settings.items()
        if isinstance(value, dict)
    }
    return {"run": top, **sections} if top else sections
