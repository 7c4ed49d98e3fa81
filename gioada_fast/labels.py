"""Label spaces and labellings: from a data set's own classes to train ids.

A ``Labelling`` maps a data set's own classes to common names, a ``LabelSpace`` maps common names to
train ids. The common names are the names of Cityscapes' 19 classes.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from . import yaml_nodes
from .errors import InputError
from .yaml_nodes import Node

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
_MAX_NAMED = 30
"""Number of classes that a message names."""


@dataclass(frozen=True)
class LabelSpace:
    """Classes that are trained and scored, in the order of their train ids.

    All fields are immutable, so that a space can be hashed.
    """

    name: str
    classes: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    """RGB, one for each class; in a file they are optional, see ``default_colours``."""
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

    @property
    def setting(self) -> str | dict[str, Any]:
        """The value of ``data.label_space`` that gives this space without any file.

        The name of a built-in space, or else ``content()``.
        """
        return self.name if self.name in BUILT_IN_SPACES else self.content()

    def content(self) -> dict[str, Any]:
        """The space as a mapping, as in its YAML file; ``label_space`` reads it."""
        classes: dict[str, dict[str, Any]] = {}
        for index, (name, colour, number) in enumerate(
            zip(self.classes, self.colours, self.ids, strict=True)
        ):
            common = self.of[index] if self.of else ()
            classes[name] = {
                "colour": list(colour),
                **({"of": list(common)} if common else {}),
                "id": number,
            }
        also_scored = {"also_scored": self.also_scored} if self.also_scored else {}
        return {"name": self.name, "classes": classes, **also_scored}

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


def label_space(value: str | Path | Mapping[str, Any]) -> LabelSpace:
    """The label space that a value of ``data.label_space`` describes.

    Args:
        value: the name of a built-in space, a YAML file, or its content. All but ``name`` and
            ``classes`` is optional::

                name: warehouse
                classes:
                  floor:    {colour: [128, 64, 128], of: [road, sidewalk]}
                  forklift: {}

    Raises:
        InputError: there is no such space or file, or it is not a label space.
    """
    if isinstance(value, Mapping):
        space = _read_space(yaml_nodes.of_mapping(value, "data.label_space"))
    elif str(value) in BUILT_IN_SPACES:
        return _built_in_space(str(value))
    else:
        path = Path(value).expanduser()
        if not path.is_file():
            raise InputError(
                f"no label space {str(value)!r}: neither a YAML file nor one of "
                f"{', '.join(BUILT_IN_SPACES)}"
            )
        space = _read_space_file(path)
    if space.name in BUILT_IN_SPACES and space != _built_in_space(space.name):
        where = "data.label_space" if isinstance(value, Mapping) else path
        raise InputError(f"{where}: name is {space.name}, which is a built-in label space")
    return space


@lru_cache
def _built_in_space(name: str) -> LabelSpace:
    return _read_space_file(BUILT_IN_SPACES[name])


def _read_space_file(path: Path) -> LabelSpace:
    text = yaml_nodes.read_text(path, "label space")
    return _read_space(yaml_nodes.parse(text, str(path), "label space"))


def _read_space(node: Node) -> LabelSpace:
    fields = _fields(node, "a label space", ("name", "classes"), ("also_scored",))
    name = fields["name"].name("name")
    entries = fields["classes"].items("classes")
    if not 2 <= len(entries) <= _MAX_CLASSES:
        raise InputError(
            f"{fields['classes'].where}: a label space has 2 to {_MAX_CLASSES} classes, "
            f"found {len(entries)}"
        )
    for key, value in entries:
        if key.kind == "int" and value.kind == "str":
            raise InputError(
                f"{key.where}: classes has '{key.written}: {value.written}', expected "
                f"'{value.written}: {{}}': train ids count from 0 in the order of the classes"
            )
    classes = _class_names(key for key, _ in entries)
    colours: list[tuple[int, int, int] | None] = []
    of: list[tuple[str, ...]] = []
    ids: dict[int, str] = {}
    owner: dict[str, str] = {}
    for index, (key, value) in enumerate(entries):
        where = f"{key.where}: class {classes[index]!r}"
        given = _fields(value, f"class {classes[index]!r}", (), ("colour", "of", "id"))
        colours.append(_class_colour(given["colour"], where) if "colour" in given else None)
        of.append(_common_classes(given["of"], where) if "of" in given else ())
        number = _official_id(given["id"], where) if "id" in given else index
        if number in ids:
            raise InputError(
                f"{where}: two classes have the same id {number}, the other is {ids[number]!r}; "
                "classes without one count from 0"
            )
        ids[number] = classes[index]
        for common in of[-1]:
            if common in owner:
                raise InputError(f"{where}: {common!r} is part of {owner[common]!r} already")
            owner[common] = classes[index]
    space = LabelSpace(name, classes, default_colours(colours, of), tuple(ids), tuple(of))
    if "also_scored" not in fields:
        return space
    other = fields["also_scored"].value
    if other not in BUILT_IN_SPACES or not set(_built_in_space(other).classes) <= set(classes):
        raise InputError(
            f"{fields['also_scored'].where}: also_scored is {other!r}, expected a built-in "
            "label space that has some of these classes"
        )
    return replace(space, also_scored=other)


def _class_names(keys: Iterable[Node]) -> tuple[str, ...]:
    """Names of the classes; two that differ in case or blanks alone are a mistake."""
    names: dict[str, str] = {}
    for key in keys:
        name = key.name("class name")
        plain = "".join(name.casefold().split())
        if plain in names:
            twice = "twice" if names[plain] == name else f"and {names[plain]!r}, the same name"
            raise InputError(f"{key.where}: classes has {name!r} {twice}")
        names[plain] = name
    return tuple(names.values())


def default_colours(
    colours: Sequence[tuple[int, int, int] | None], of: Sequence[Sequence[str]]
) -> tuple[tuple[int, int, int], ...]:
    """Give classes without a colour one that no other class has.

    A class of one Cityscapes class gets the colour of that class if it is free. The others get the
    free colours of the palette of PASCAL VOC in their order.

    Args:
        colours: RGB of each class, or None.
        of: the Cityscapes classes of each class.
    """
    chosen, taken = list(colours), {(0, 0, 0), *colours}
    for index, common in enumerate(of):
        if chosen[index] is None and len(common) == 1:
            cityscapes = _built_in_space("cityscapes19")
            colour = cityscapes.colours[cityscapes.train_id(common[0])]
            if colour not in taken:
                chosen[index] = colour
                taken.add(colour)
    free = (colour for colour in _voc_palette() if colour not in taken)
    return tuple(next(free) if colour is None else colour for colour in chosen)


def _voc_palette() -> Iterator[tuple[int, int, int]]:
    """255 different colours: bits 0, 1 and 2 of the index are the top bits of R, G and B, bits 3, 4
    and 5 the next ones, and so on.

    Source: ``VOClabelcolormap.m`` of the PASCAL VOC development kit.
    """
    for index in range(1, 256):
        r, g, b = (
            sum((index >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3))
            for channel in range(3)
        )
        yield r, g, b


def _class_colour(node: Node, where: str) -> tuple[int, int, int]:
    colour = _colour(node)
    if colour is None:
        raise InputError(
            f"{where}: colour is {node.shown}, expected [R, G, B] with whole numbers from 0 to "
            '255, or "#rrggbb" in quotes'
        )
    return colour


def _colour(node: Node) -> tuple[int, int, int] | None:
    """A colour: a list of three numbers, or a text such as "R G B", "[R, G, B]" or "#rrggbb"."""
    if node.text is None:
        parts = node.value
        if not isinstance(parts, list) or any(type(part) is not int for part in parts):
            return None
    elif match := re.fullmatch(r"#([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})", node.text):
        parts = [int(part, 16) for part in match.groups()]
    else:
        inner = re.fullmatch(r"\s*([\[(]?)([\d\s,]*)([\])]?)\s*", node.text, re.ASCII)
        if inner is None or inner[1] + inner[3] not in ("", "[]", "()"):
            return None
        texts = re.findall(r"\d+", inner[2])
        parts = [int(text) if len(text) <= 3 else 256 for text in texts]
    if len(parts) != 3 or not all(0 <= part <= 255 for part in parts):
        return None
    r, g, b = parts
    return r, g, b


def _official_id(node: Node, where: str) -> int:
    number = node.value
    if type(number) is not int or not 0 <= number <= 255:
        raise InputError(f"{where}: id is {node.shown}, expected a whole number from 0 to 255")
    return number


def _common_classes(node: Node, where: str) -> tuple[str, ...]:
    names = node.value
    if not isinstance(names, list):
        raise InputError(f"{where}: of is {node.shown}, expected a list such as [road, sidewalk]")
    for name in names:
        if name not in COMMON_CLASSES:
            raise InputError(
                f"{where}: of names {name!r}, expected some of {', '.join(COMMON_CLASSES)}"
                f"{_meant(name, COMMON_CLASSES)}"
            )
    return tuple(names)


def _fields(
    node: Node, owner: str, required: tuple[str, ...], optional: tuple[str, ...]
) -> dict[str, Node]:
    allowed = (*required, *optional)
    fields: dict[str, Node] = {}
    for key, value in node.items(owner):
        name = key.written
        if name in fields:
            raise InputError(f"{key.where}: {owner} has {name!r} twice")
        if name not in allowed:
            raise InputError(
                f"{key.where}: {owner} has {name!r}, expected {', '.join(allowed)}"
                f"{_meant(name, allowed)}"
            )
        fields[name] = value
    for name in required:
        if name not in fields:
            raise InputError(
                f"{node.where}: {owner} has no {name!r}, expected {', '.join(allowed)}"
            )
    return fields


def _meant(name: object, known: Iterable[str]) -> str:
    """A suggestion for a name that is unknown."""
    by_plain = {"".join(other.casefold().split()): other for other in known}
    plain = "".join(str(name).casefold().split())
    close = get_close_matches(plain, by_plain, 1)
    return f"; did you mean {by_plain[close[0]]}?" if close else ""


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


def read_class_map(
    value: str | Path | Mapping[Any, Any], space: LabelSpace, where: str
) -> dict[int | tuple[int, int, int], int]:
    """Read the user's class map, from ids or colours to classes, as train ids.

    Args:
        value: a YAML file or its content. Keys are ids (any whole numbers), or colours as
            ``"R G B"``, ``"[R, G, B]"`` or ``"#rrggbb"``. Values are classes of ``space``, common
            classes that one of them consists of, or null to ignore the pixels::

                0: floor
                1: sidewalk
                255: null

        space: the label space.
        where: the setting's name, for messages.

    Raises:
        InputError: this is not such a map; the message names file and line, and the wrong entry.
    """
    train_ids: dict[int | tuple[int, int, int], int] = {}
    for key, name in _class_map(value, space, where).items():
        if name is None:
            train_ids[key] = IGNORE
        elif name in space.classes:
            train_ids[key] = space.classes.index(name)
        else:
            train_ids[key] = space.train_id(name)
    return train_ids


def class_map_content(
    value: str | Path | Mapping[Any, Any], space: LabelSpace, where: str
) -> dict[int | str, str | None]:
    """A class map as a mapping that ``read_class_map`` reads to the same train ids.

    Arguments and errors are as in ``read_class_map``. Colours are written as ``"R G B"``.
    """
    return {
        key if isinstance(key, int) else "{} {} {}".format(*key): name
        for key, name in _class_map(value, space, where).items()
    }


def _class_map(
    value: str | Path | Mapping[Any, Any], space: LabelSpace, where: str
) -> dict[int | tuple[int, int, int], str | None]:
    node = _class_map_node(value, where)
    entries = node.items("class map") if node.kind == "map" else []
    if not entries:
        raise InputError(f"{node.where}: class map has no entries such as '7: {space.classes[0]}'")
    names: dict[int | tuple[int, int, int], str | None] = {}
    for key_node, name_node in entries:
        text = key_node.written
        place = f"{key_node.where}: {text}"
        key = _id_or_colour(key_node)
        if key is None:
            order = ": write 'id: class', not 'class: id'" if text in space.classes else ""
            raise InputError(
                f"{key_node.where}: {text!r} is neither an id (a whole number such as 7) nor a "
                f"colour such as '128 64 128' or '#804080'{order}"
            )
        if key in names:
            raise InputError(f"{place}: class map has this {_kind(key)} twice")
        if names and _kind(key) != _kind(next(iter(names))):
            raise InputError(f"{place}: class map mixes ids and colours")
        names[key] = _class_of(name_node, space, place)
    return names


def _class_map_node(value: str | Path | Mapping[Any, Any], where: str) -> Node:
    if isinstance(value, Mapping):
        return yaml_nodes.of_mapping(value, where)
    path = Path(value).expanduser()
    text = yaml_nodes.read_text(path, "class map")
    for number, line in enumerate(text.splitlines(), start=1):
        if re.match(r"\s*#[0-9a-fA-F]{6}\s*:", line):
            raise InputError(
                f"{path}, line {number}: YAML reads {line.strip()!r} as a comment: write the "
                "colour in quotes"
            )
    return yaml_nodes.parse(text, str(path), "class map")


def _kind(key: int | tuple[int, int, int]) -> str:
    return "id" if isinstance(key, int) else "colour"


def _id_or_colour(node: Node) -> int | tuple[int, int, int] | None:
    # at most 18 digits fit 64 bits; 010 and 1_000 mean other numbers to YAML than to people
    if node.text is not None and re.fullmatch(r"0|-?[1-9]\d{0,17}", node.text.strip(), re.ASCII):
        return int(node.text)
    return _colour(node)


def _class_of(node: Node, space: LabelSpace, place: str) -> str | None:
    name = node.text
    if node.kind == "null":
        return None
    if node.kind == "str" and (name in space.classes or space.train_id(name) != IGNORE):
        return name
    classes, more = space.classes[:_MAX_NAMED], space.num_classes - _MAX_NAMED
    listed = ", ".join(classes) + (f" and {more} more" if more > 0 else "")
    hint = f': write "{name}" in quotes' if name in space.classes else ""
    known = (*space.classes, *(common for names in space.of for common in names))
    raise InputError(
        f"{place}: {node.shown} is not a class of {space.name} ({listed}){hint}; null ignores the "
        f"pixels{_meant(name, known) if node.kind == 'str' else ''}"
    )
