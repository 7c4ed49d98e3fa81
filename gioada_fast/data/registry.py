"""The registry of data sets, which settings, messages, packs and docs/data.md use.

Each data set is one file in ``readers/`` that defines ``READER``; ``register`` adds a reader that
is defined outside the package.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from ..config import SourceConfig, TargetConfig
from ..errors import InputError
from ..labels import Labelling, LabelSpace
from .files import DataSet, find_root

SIDES = ("source", "target")
SPLIT_SETTINGS = {"source": "split", "target": "train_split", "evaluation": "evaluation_split"}
"""The setting that names the split, by what its frames are used for."""


class Splits(NamedTuple):
    """Default splits of a data set, by what they are used for."""

    train: str
    evaluation: str


@dataclass(frozen=True)
class Reader:
    """A data set: all that the package needs to list, read, describe and pack it."""

    name: str
    """Value of ``data.source.name`` or ``data.target.name``."""
    title: str
    """Name in messages and tables."""
    files: str
    """Files under the root, in Markdown for the table in docs/data.md."""
    layout: str
    """What to download and which folders are expected, for messages."""
    data_set: Callable[["Request"], DataSet]
    """Lists the frames of a request. A source's frames must have label maps. Evaluation frames must
    have them too; without ``read_labels`` there are no evaluation frames."""
    labelling: Labelling | Callable[[SourceConfig | TargetConfig], Labelling | None] | None = None
    """The classes in its label maps, or a function that returns them for given settings. None: the
    user's class map (setting ``classes``) maps ids or colours to classes of the label space, or the
    files that would decide are gone."""
    sides: tuple[str, ...] = SIDES
    """Whether it can be a source, a target or both. A source needs labels."""
    splits: Splits | None = None
    """None: the data set has none, or the user names them."""
    pack_settings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """For each side, the names of settings that change the frames. A pack also records name, size,
    the split if ``splits`` is given, and for a source include and the train ids. Training refuses a
    pack if one of these differs. The target's labels are not in packs."""
    pack_version: Mapping[str, int] = field(default_factory=dict)
    """Name and number of a version that changes the frames; packs record it, too."""
    pairs_depth: bool = False
    """Whether its ``data_set`` reads a target's setting ``depth`` itself. Otherwise its pattern is
    matched with the paths of the images."""
    licence: str = "terms of its own, which its site has"
    """Under which terms the data may be used, for the model cards of exported networks."""
    description: Callable[[TargetConfig], str] | None = None
    """Describes the target in captions. None: "real frames" and the name of the split."""

    def labelling_of(self, config: SourceConfig | TargetConfig) -> Labelling | None:
        """The classes in its label maps with these settings."""
        return self.labelling(config) if callable(self.labelling) else self.labelling

    def has_splits(self, side: str) -> bool:
        """Whether the settings may name a split: its own, or one that changes the frames."""
        return self.splits is not None or SPLIT_SETTINGS[side] in self.pack_settings.get(side, ())

    def split(self, config: SourceConfig | TargetConfig, part: str) -> str:
        """The split that the settings name, or the default."""
        if isinstance(config, SourceConfig):
            chosen = config.split
        else:
            chosen = config.train_split if part == "target" else config.evaluation_split
        if chosen or self.splits is None:
            return chosen or ""
        return self.splits.evaluation if part == "evaluation" else self.splits.train


@dataclass(frozen=True)
class Request:
    """The frames of a data set that a run asks for."""

    reader: Reader
    part: str
    """``source``, ``target`` (unlabelled images to train on) or ``evaluation`` (target frames to
    score on)."""
    config: SourceConfig | TargetConfig
    split: str
    """Empty if neither the settings nor the data set names one."""
    size: tuple[int, int]
    """(H, W) that frames will be resized to."""
    space: LabelSpace
    setting: str = "data.source"
    """Prefix of the settings in ``config``, for messages."""

    def root(self) -> Path:
        """The data set's folder, which must exist."""
        return find_root(self.config.root, f"{self.setting}.root", self.reader.layout)


_REGISTERED: dict[str, Reader] = {}


def register(reader: Reader) -> None:
    """Add a data set that is not in ``readers/``, before settings are parsed."""
    if reader.name in readers():
        raise ValueError(f"there is a data set {reader.name!r} already")
    _REGISTERED[reader.name] = reader


def readers() -> dict[str, Reader]:
    """All data sets by name: first the package's, then the registered ones."""
    return {**_package_readers(), **_REGISTERED}


@lru_cache(maxsize=1)
def _package_readers() -> dict[str, Reader]:
    # imported on first use, because readers import this module
    package = importlib.import_module(f"{__package__}.readers")
    modules = (
        importlib.import_module(f"{package.__name__}.{module.name}")
        for module in pkgutil.iter_modules(package.__path__)
    )
    return {module.READER.name: module.READER for module in modules}


def names(side: str) -> tuple[str, ...]:
    """Names of the data sets that can be on a side, ``source`` or ``target``."""
    return tuple(name for name, reader in readers().items() if side in reader.sides)


def find(name: str, side: str) -> Reader:
    """The data set that the settings name for a side.

    Raises:
        InputError: no data set of that name can be on that side; the message lists those that can.
    """
    if name not in names(side):
        raise InputError(f"data.{side}.name is {name!r}, expected one of {', '.join(names(side))}")
    return readers()[name]


def docs_table() -> str:
    """The table of data sets in docs/data.md."""
    rows = [
        f"| `{reader.name}` | {reader.title} | {' or '.join(reader.sides)} | {reader.files} |"
        for reader in readers().values()
    ]
    head = "| `name` | data set | can be | under `data.source.root` or `data.target.root` |"
    return "\n".join([head, "|---|---|---|---|", *rows])
