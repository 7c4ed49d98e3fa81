"""The settings that a pack's frames depend on, and their comparison with the settings of a run."""

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..config import DataConfig, FramesConfig, SourceConfig, TargetConfig
from ..labels import label_space, read_class_map
from . import registry
from .patterns import DEPTH_SETTINGS

Settings = Mapping[str, Any]
"""Values by name; a value may itself be a mapping by name. Names are stored in packs: changing one
makes existing packs unusable."""


def source_settings(config: DataConfig, setting: str = "data.source") -> dict[str, Any]:
    """Settings that a source's frames depend on; the folder of the files is not among them.

    Their names start with data.source for each of several sources, too.
    """
    source, space = config.named_sources()[setting], label_space(config.label_space)
    reader = registry.find(source.name, "source")
    settings = {
        "data.source.name": source.name,
        "data.source.include": source.include,
        "data.label_space": space.name,
        **_size_settings("source", config.size_of(source)),
        **_own_settings("source", reader, source),
    }
    if reader.splits is not None:
        settings["data.source.split"] = reader.split(source, "source")
    labelling = reader.labelling_of(source)
    if labelling is not None:
        train_ids = {name: space.train_id(c) for name, c in labelling.classes.items()}
    elif (classes := source.classes) is not None and (
        isinstance(classes, dict) or Path(classes).expanduser().is_file()
    ):
        by_key = read_class_map(classes, space, "data.source.classes")
        train_ids = {str(key): value for key, value in by_key.items()}
    else:
        return settings  # the class map may be gone together with the data set
    return {**settings, "train id": train_ids}


def target_settings(config: DataConfig, depth: bool) -> dict[str, Any]:
    """Settings that the target's images to train on depend on, and with ``depth`` their maps."""
    target = config.target
    reader = registry.find(target.name, "target")
    settings = {
        "data.target.name": target.name,
        **_size_settings("target", config.target_size),
        **_own_settings("target", reader, target),
    }
    if reader.splits is not None:
        settings["data.target.train_split"] = reader.split(target, "target")
    if depth:
        names = ("depth", *DEPTH_SETTINGS)
        settings |= {f"data.target.{name}": getattr(target, name) for name in names}
    return settings


def _size_settings(side: str, size: tuple[int, int]) -> dict[str, int]:
    return {f"data.{side}.height": size[0], f"data.{side}.width": size[1]}


def _own_settings(
    side: str, reader: registry.Reader, config: SourceConfig | TargetConfig
) -> dict[str, Any]:
    names = reader.pack_settings.get(side, ())
    names = (*names, "exif_orientation", *(("unknown_labels",) if side == "source" else ()))
    settings = {f"data.{side}.{name}": getattr(config, name) for name in names}
    return settings | dict(reader.pack_version)


def pack_command(config: DataConfig) -> str:
    """The command that makes the packs for these settings, without ``--config``."""
    now, unset = (_packing_settings(c) for c in (config, DataConfig()))
    flags = [f"--{name}={_flag(value)}" for name, value in now.items() if value != unset[name]]
    return shlex.join(["python", "-m", "gioada_fast.data", "pack", *flags])


def _flag(value: Any) -> str:
    # JSON, because the parser does not read every mapping in Python's notation
    return json.dumps(value) if isinstance(value, dict | list) else str(value)


def _packing_settings(config: DataConfig) -> dict[str, Any]:
    settings = asdict(config)
    sides = {side: settings.pop(side) for side in ("source", "target")}
    for name in ("flip", "class_weights", "workers", "max_unreadable"):
        del settings[name]
    for name in ("evaluation_split", "evaluation_frames", "labelled"):
        del sides["target"][name]
    for side, values in sides.items():
        settings |= {f"{side}.{name}": value for name, value in values.items()}
    return {f"data.{name}": value for name, value in settings.items()}


_SINCE_0_1_0 = {
    name: getattr(FramesConfig(), name)
    for name in ("unknown_labels", "exif_orientation", "depth_kind", "depth_along")
}
"""Defaults of settings that packs of version 0.1.0 lack."""


def differences(packed: Settings, now: Settings, prefix: str = "") -> Iterator[str]:
    """Describe the settings that differ. Settings that ``now`` lacks are not compared.

    A setting that did not exist when the pack was made had its default.
    """
    is_old = not any(name.endswith("exif_orientation") for name in packed)
    for name, value in now.items():
        if is_old and name.endswith("depth_per_metre") and value is None:
            value = 100.0  # unset now means what was 100 in version 0.1.0
        before = packed.get(name, _SINCE_0_1_0.get(name.rpartition(".")[2]))
        if isinstance(value, Mapping):
            every = {**dict.fromkeys(before or {}), **value}
            yield from differences(before or {}, every, f"{name} of ")
        elif before != value:
            yield f"{prefix}{name} = {before!r}, the settings say {value!r}"
