"""YAML with the place of every value: the user's files are refused with file and line."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .errors import InputError

MAX_BYTES = 1 << 20
"""Maximum size of a label space or class map. A label space of 254 classes has some 30 kB."""
MAX_CONFIGURATION = 16 * MAX_BYTES
"""The same of a configuration, which may contain several class maps."""
_MAX_DEPTH = 50
"""Maximum nesting, because PyYAML recurses without a limit."""
_MAX_SHOWN = 200
"""Maximum number of characters of a value in a message."""
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_PLAIN = ("str", "int", "float", "bool", "null", "seq", "map")
_KINDS = {
    "bool": "a truth value, as it reads yes, no, on, off, true and false",
    "null": "nothing, as it reads null and ~",
    "int": "a number",
    "float": "a number",
    "timestamp": "a date",
    "merge": "an instruction to merge",
}


@dataclass(frozen=True)
class Node:
    """A value and where it comes from: a file, or a setting whose value is a mapping."""

    node: yaml.Node
    origin: str
    """Path of the file, or name of the setting."""

    @property
    def where(self) -> str:
        """Origin, and the line if it is a file."""
        mark = self.node.start_mark
        return self.origin if mark is None else f"{self.origin}, line {mark.line + 1}"

    @property
    def text(self) -> str | None:
        """The text of a scalar as it was written; None for lists and mappings."""
        return self.node.value if isinstance(self.node, yaml.ScalarNode) else None

    @property
    def kind(self) -> str:
        """What YAML reads: str, int, float, bool, null, timestamp, seq, map, ..."""
        return str(self.node.tag).removeprefix(_TAG)

    @property
    def value(self) -> Any:
        """The value as Python has it."""
        try:
            return yaml.constructor.SafeConstructor().construct_object(self.node, deep=True)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise InputError(f"{self.where}: {' '.join(str(error).split())}") from error

    @property
    def shown(self) -> str:
        """The value in messages, in Python's notation, shortened."""
        return _shortened(repr(self.value))

    @property
    def written(self) -> str:
        """The value in messages, as it was written if it is a scalar, shortened."""
        return self.shown if self.text is None else _shortened(self.text)

    def name(self, owner: str) -> str:
        """The value as a text, such as a class's name.

        Raises:
            InputError: YAML reads something else, such as a truth value for ``yes``.
        """
        if self.kind == "str" and self.text and self.text.strip() and self.text.isprintable():
            return self.text
        if self.text is None or self.kind == "str":
            raise InputError(
                f"{self.where}: {owner} is {self.shown}, expected a text, in quotes if need be"
            )
        raise InputError(
            f"{self.where}: YAML reads the {owner} {self.text or 'without text'} as "
            f'{_KINDS.get(self.kind, self.kind)}: write "{self.text}" in quotes'
        )

    def items(self, owner: str) -> list[tuple["Node", "Node"]]:
        """Keys and values of a mapping; null is an empty mapping."""
        if self.kind == "null":
            return []
        if not isinstance(self.node, yaml.MappingNode):
            raise InputError(f"{self.where}: {owner}: expected 'name: value' lines")
        return self.pairs()

    def pairs(self) -> list[tuple["Node", "Node"]]:
        """Keys and values of a mapping; none for other values."""
        pairs = self.node.value if isinstance(self.node, yaml.MappingNode) else ()
        return [(Node(key, self.origin), Node(value, self.origin)) for key, value in pairs]

    def children(self) -> list["Node"]:
        """Values of a mapping or list; none for scalars."""
        if isinstance(self.node, yaml.ScalarNode):
            return []
        is_mapping = isinstance(self.node, yaml.MappingNode)
        return [Node(child[1] if is_mapping else child, self.origin) for child in self.node.value]


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def read_text(path: Path, what: str, max_bytes: int = MAX_BYTES) -> str:
    """The text of a YAML file; ``what`` it is stands in messages."""
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise InputError(
                f"{path}: {what} has {size / 1e6:.1f} MB, expected a YAML file of at most "
                f"{max_bytes / 1e6:.1f} MB"
            )
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: {what}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: {what} is not readable as YAML: byte {error.start} is not UTF-8: save it as "
            "UTF-8"
        ) from error


def parse(text: str, origin: str, what: str, aliases: bool = False) -> Node:
    """The value of a YAML text; null if it is empty.

    Args:
        text: YAML.
        origin: its file.
        what: what the file is, for messages.
        aliases: whether values may refer to others (``&name`` and ``*name``).

    Raises:
        InputError: the text is no YAML, uses tags of other programs, or is nested too deeply.
    """
    try:
        depth = 0
        for event in yaml.parse(text, Loader=_LOADER):
            line = 0 if event.start_mark is None else event.start_mark.line
            place = f"{origin}, line {line + 1}"
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:
                raise InputError(f"{place}: {what} is nested more than {_MAX_DEPTH} levels deep")
            if isinstance(event, yaml.AliasEvent) and not aliases:
                raise InputError(f"{place}: {what} refers to another value (*): write it out")
            tag = getattr(event, "tag", None)
            if tag not in (None, "!") and tag.removeprefix(_TAG) not in _PLAIN:
                raise InputError(f"{place}: {what} has the tag {tag}: leave it out")
        node = yaml.compose(text, Loader=_LOADER)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a surrogate
        place, mark = origin, getattr(error, "problem_mark", None)
        if mark is not None:  # of the parser; at the end of the text it is past the last line
            place = f"{origin}, line {min(mark.line + 1, len(text.splitlines()))}"
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise InputError(f"{place}: {what} is not readable as YAML: {problem}") from error
    return Node(yaml.ScalarNode(f"{_TAG}null", "") if node is None else node, origin)


def of_mapping(mapping: Mapping[Any, Any], setting: str) -> Node:
    """The value of a setting that is a mapping, such as a label space in a configuration."""
    try:
        # sorted keys would change the train ids
        node = yaml.representer.SafeRepresenter(sort_keys=False).represent_data(dict(mapping))
    except yaml.YAMLError as error:
        raise InputError(f"{setting}: {error}") from error
    return Node(node, setting)
