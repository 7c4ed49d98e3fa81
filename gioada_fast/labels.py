"""Label spaces and labellings: from a data set's own classes to train ids.

A ``Labelling`` maps a data set's own classes to common names, a ``LabelSpace`` maps common names to
train ids. The common names are the names of Cityscapes' 19 classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from .errors import InputError

IGNORE = 255
"""Train id of pixels that are neither trained nor scored."""

FAR = 655.34
"""Largest valid depth in metres: 65534 of 16-bit centimetres. Pixels beyond it have no depth."""

COMMON_CLASSES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign",
    "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train",
    "motorcycle", "bicycle",
)  # fmt: skip
"""Cityscapes' classes in the order of their train ids: the names that labellings and label spaces
share."""

BUILT_IN_SPACES = {
    file.stem: file for file in sorted(Path(__file__).with_name("label_spaces").glob("*.yaml"))
}
"""Name and file of each label space that comes with the package."""

_MAX_CLASSES = 254
"""Train ids are bytes, and 255 is ``IGNORE``."""


@dataclass(frozen=True)
class LabelSpace:
    """Classes that are trained and scored, in the order of their train ids.

    All fields are immutable, so that a space can be hashed.
    """

    name: str
    classes: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    """RGB, one for each class."""
    ids: tuple[int, ...]
    """Ids that the official evaluators use for the classes."""
    of: tuple[tuple[str, ...], ...] = ()
    """For each class, the common classes that it consists of. A class without any gets pixels only
    from class maps."""
    also_scored: str | None = None
    """Name of a built-in label space with some of these classes; their mean IoU is reported too."""

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def train_id(self, common: str | None) -> int:
        """Train id of a common class; IGNORE if it is part of no class."""
        for train_id, names in enumerate(self.of):
            if common in names:
                return train_id
        return IGNORE

    def colourise(self, labels: np.ndarray) -> np.ndarray:
        """Train ids [H, W] to RGB uint8 [H, W, 3]; ignored pixels are black."""
        palette = np.zeros((256, 3), np.uint8)
        palette[: self.num_classes] = self.colours
        return palette[labels]

    def official_ids(self, labels: np.ndarray) -> np.ndarray:
        """Train ids [H, W] to the ids [H, W] uint8 that the official evaluators take."""
        table = np.zeros(256, np.uint8)
        table[: self.num_classes] = self.ids
        return table[labels]


@dataclass(frozen=True)
class Labelling:
    """The classes in the label maps of a data set."""

    name: str
    classes: Mapping[str, str | None]
    """From the data set's name of each class to the common name, or to None if the class is never
    trained or scored."""
    spaces: tuple[str, ...] | None = None
    """Built-in label spaces that the data set is used with. None: all for whose classes it has
    labels."""
    numbers: tuple[int, ...] | None = None
    """Id in label maps of each class. None: the position in ``classes``."""

    @property
    def ids(self) -> dict[str, int]:
        """Id of each of the data set's own names."""
        return dict(zip(self.classes, self.numbers or range(len(self.classes)), strict=True))

    def train_ids(self, space: LabelSpace) -> dict[int, int]:
        """Train id of ``space``, or IGNORE, for each of the data set's ids."""
        return {number: space.train_id(self.classes[name]) for name, number in self.ids.items()}

    def undrawn(self, space: LabelSpace) -> tuple[str, ...]:
        """Classes of ``space`` that the data set has no labels for.

        Classes without common classes do not count, because they get pixels from class maps. If
        there are no others, all classes are returned, because no pixel would have a label.
        """
        drawn = {space.train_id(name) for name in self.classes.values()}
        expected = [i for i, names in enumerate(space.of) if names] or range(space.num_classes)
        return tuple(space.classes[i] for i in expected if i not in drawn)

    def serves(self, space: LabelSpace) -> bool:
        """Whether the data set's labels can be mapped to ``space``."""
        if self.spaces is not None and space.name in BUILT_IN_SPACES:
            return space.name in self.spaces
        return not self.undrawn(space)


def label_space(name_or_path: str | Mapping[str, Any]) -> LabelSpace:
    """The built-in label space of that name, or the one that a YAML file or its content describes.

    Raises:
        InputError: there is neither, or the file is not a label space.
    """
    if isinstance(name_or_path, Mapping):
        return _read_space(Path("data.label_space"), yaml.safe_dump(dict(name_or_path)))
    if name_or_path in BUILT_IN_SPACES:
        return _built_in_space(name_or_path)
    path = Path(name_or_path).expanduser()
    if not path.is_file():
        raise InputError(
            f"no label space {name_or_path!r}: neither a YAML file nor one of "
            f"{', '.join(BUILT_IN_SPACES)}"
        )
    space = _read_space(path)
    if space.name in BUILT_IN_SPACES:
        raise InputError(f"{path}: name is {space.name}, which is a built-in label space")
    return space


@lru_cache
def _built_in_space(name: str) -> LabelSpace:
    return _read_space(BUILT_IN_SPACES[name])


def _read_space(path: Path, text: str | None = None) -> LabelSpace:
    """Read a label space from YAML; ``of``, ``id`` and ``also_scored`` are optional::

    name: warehouse
    classes:
      floor:    {colour: [128, 64, 128], of: [road, sidewalk]}
      forklift: {colour: [0, 0, 142]}
    """
    try:
        text = path.read_text(encoding="utf-8") if text is None else text
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except OSError as error:
        raise InputError(f"{path}: label space: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: label space is not readable as YAML: {error}") from error
    fields = _fields(root, path, "a label space", ("name", "classes"), ("also_scored",))
    name = _value(fields["name"], path)
    if not isinstance(name, str) or not name:
        raise InputError(f"{_line(fields['name'], path)}: name is {name!r}, expected a text")
    entries = _entries(fields["classes"], path, "classes")
    if not 2 <= len(entries) <= _MAX_CLASSES:
        raise InputError(
            f"{_line(fields['classes'], path)}: a label space has 2 to {_MAX_CLASSES} classes, "
            f"found {len(entries)}"
        )
    colours, of, ids = [], [], []
    owner: dict[str, str] = {}
    for index, (class_name, node) in enumerate(entries.items()):
        where = f"{_line(node, path)}: class {class_name!r}"
        nodes = _fields(node, path, f"class {class_name!r}", ("colour",), ("of", "id"))
        values = {key: _value(node, path) for key, node in nodes.items()}
        colours.append(_colour(values["colour"], where))
        of.append(_common_classes(values.get("of", []), where))
        ids.append(_byte(values.get("id", index), f"{where}: id"))
        for common in of[-1]:
            if common in owner:
                raise InputError(f"{where}: {common!r} is part of {owner[common]!r} already")
            owner[common] = class_name
    if len(set(ids)) < len(ids):
        raise InputError(f"{path}: two classes have the same id; classes without one count from 0")
    space = LabelSpace(name, tuple(entries), tuple(colours), tuple(ids), tuple(of))
    if "also_scored" not in fields:
        return space
    other = _value(fields["also_scored"], path)
    if other not in BUILT_IN_SPACES or not set(_built_in_space(other).classes) <= set(entries):
        raise InputError(
            f"{_line(fields['also_scored'], path)}: also_scored is {other!r}, expected a built-in "
            "label space that has some of these classes"
        )
    return replace(space, also_scored=other)


def _colour(value: Any, where: str) -> tuple[int, int, int]:
    if not isinstance(value, list) or len(value) != 3:
        raise InputError(f"{where}: colour is {value!r}, expected [R, G, B]")
    r, g, b = (_byte(part, f"{where}: colour") for part in value)
    return r, g, b


def _byte(value: Any, where: str) -> int:
    if type(value) is not int or not 0 <= value <= 255:
        raise InputError(f"{where} has {value!r}, expected a whole number from 0 to 255")
    return value


def _common_classes(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise InputError(f"{where}: of is {value!r}, expected a list such as [road, sidewalk]")
    for name in value:
        if name not in COMMON_CLASSES:
            raise InputError(
                f"{where}: of names {name!r}, expected some of {', '.join(COMMON_CLASSES)}"
            )
    return tuple(value)


def _fields(
    node: yaml.Node | None,
    path: Path,
    owner: str,
    required: tuple[str, ...],
    optional: tuple[str, ...],
) -> dict[str, yaml.Node]:
    fields = _entries(node, path, owner)
    expected = ", ".join((*required, *optional))
    for name in fields:
        if name not in (*required, *optional):
            raise InputError(f"{_line(node, path)}: {owner} has {name!r}, expected {expected}")
    for name in required:
        if name not in fields:
            raise InputError(f"{_line(node, path)}: {owner} has no {name!r}, expected {expected}")
    return fields


def _entries(node: yaml.Node | None, path: Path, owner: str) -> dict[str, yaml.Node]:
    """Entries of a YAML mapping. Refuses a name given twice, where YAML would keep the last one."""
    if not isinstance(node, yaml.MappingNode):
        raise InputError(f"{_line(node, path)}: {owner}: expected 'name: value' lines")
    entries: dict[str, yaml.Node] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.value in entries:
            raise InputError(f"{_line(key, path)}: {owner} has {key.value!r} twice")
        entries[key.value] = value
    return entries


def _value(node: yaml.Node, path: Path) -> Any:
    try:
        return yaml.constructor.SafeConstructor().construct_object(node, deep=True)
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{_line(node, path)}: {error}") from error


def _line(node: yaml.Node | None, path: Path) -> str:
    return f"{path}" if node is None else f"{path}, line {node.start_mark.line + 1}"


# Ids in the label maps that the street-scene renderer writes.
STREET = Labelling(
    "street scenes",
    {
        "sky": "sky",
        "building": "building",
        "wall": "wall",
        "pole": "pole",
        "road": "road",
        "pavement": "sidewalk",
        "tree": "vegetation",
        "terrain": "terrain",
        "traffic light": "traffic light",
        "traffic sign": "traffic sign",
        "fence": "fence",
        "car": "car",
        "bus": "bus",
        "lorry": "truck",
        "pedestrian": "person",
        "rider": "rider",
        "bicycle": "bicycle",
        "motorcycle": "motorcycle",
        "void": None,
    },
    spaces=("camvid11", "cityscapes16", "cityscapes13", "kitti10"),
)
STREET_IDS = STREET.ids


def read_class_map(path: Path, space: LabelSpace) -> dict[int | tuple[int, int, int], int]:
    """Read the user's YAML file that maps ids or colours to classes, as train ids.

    Keys are ids from 0 to 255, or colours as ``"R G B"``; values are classes of ``space``, or null
    to ignore the pixels::

        0: road
        1: building
        255: null

    Raises:
        InputError: the file is not such a map; the message names the wrong entry.
    """
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: class map: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: class map is not readable as YAML: {error}") from error
    if not isinstance(entries, dict) or not entries:
        raise InputError(f"{path}: class map has no entries such as '7: road'")
    train_ids: dict[int | tuple[int, int, int], int] = {}
    for key, name in entries.items():
        if name is not None and name not in space.classes:
            raise InputError(
                f"{path}: {key}: {name!r} is not a class of {space.name} "
                f"({', '.join(space.classes)}); null ignores an id"
            )
        train_ids[_id_or_colour(key, path)] = IGNORE if name is None else space.classes.index(name)
    if len({type(key) for key in train_ids}) > 1:
        raise InputError(f"{path}: class map mixes ids and colours")
    return train_ids


def _id_or_colour(key: object, path: Path) -> int | tuple[int, int, int]:
    parts = str(key).split()
    if len(parts) in (1, 3) and all(part.isdecimal() and int(part) < 256 for part in parts):
        numbers = tuple(map(int, parts))
        return numbers if len(numbers) == 3 else numbers[0]
    raise InputError(
        f"{path}: {key!r} is neither an id from 0 to 255 nor a colour such as '128 64 128'"
    )
