"""Shared by all command lines: settings from YAML files and flags, and errors in one line."""

import os
import re
import signal
import sys
from argparse import Action
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

from jsonargparse import (
    ActionConfigFile,
    ArgumentParser,
    Namespace,
    get_loader,
    set_dumper,
    set_parsing_settings,
)
from rich.console import Console

from . import yaml_nodes
from .config import (
    RENAMED,
    Config,
    DataConfig,
    SourceConfig,
    TargetConfig,
    dump_settings,
    find_config,
    find_preset,
    may_be_unset,
    rename_old_settings,
)
from .errors import InputError, RunStopped
from .labels import BUILT_IN_SPACES, class_map_content, label_space

set_parsing_settings(docstring_parse_attribute_docstrings=True)
set_dumper("yaml", dump_settings)


class Parser(ArgumentParser):
    """An argument parser that reports an error as one message instead of a page of usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise InputError(f"{_one_line(message.strip())}\nsee {self.prog} --help")


# jsonargparse's message for a value that fits none of several types
_WRONG_TYPE = re.compile(
    r"""Parser\ key\ "(?P<key>.+)":\s+Does\ not\ validate\ against\ any\ of\ the\ Union\ subtypes
    \s+Subtypes:[^\n]*\s+Errors:(?P<errors>.*)
    \n\s+Given\ value\ type:[^\n]*\s+Given\ value:\ (?P<value>.*)""",
    re.VERBOSE | re.DOTALL,
)
_TYPES = {
    "str": "a text",
    "dict": "a mapping",
    "list": "a list",
    "NoneType": "null",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
}


# and for one that is none of the texts that a setting may be
_WRONG_CHOICE = re.compile(
    r"""Parser\ key\ "(?P<key>.+)":\s+(?P<expected>Expected\ a\ typing\.Literal\[.*\])\.
    \s+Got\ value:\ (?P<value>.*)""",
    re.VERBOSE | re.DOTALL,
)


def _one_line(message: str) -> str:
    found = _WRONG_CHOICE.fullmatch(message)
    if found is not None:
        return f"{found['key']} is {found['value']}, expected {_expected(found['expected'])}"
    found = _WRONG_TYPE.fullmatch(message)
    if found is None:
        return message
    errors = [error.strip() for error in re.split(r"\n\s+- ", found["errors"])[1:]]
    expected = [_expected(error) for error in errors]
    if None not in expected:
        return f"{found['key']} is {found['value']}, expected {' or '.join(map(str, expected))}"
    # an error in an entry of a list
    error = re.sub(r"\n\s+see \S+.* --help", "", errors[expected.index(None)])
    return f"{found['key']}: {' '.join(error.replace('Parser key ', '').split())}"


def _expected(error: str) -> str | None:
    """The type or texts that an error of jsonargparse asks for; None for other errors."""
    found = re.fullmatch(r"Expected (?:a )?(?:<class '(\w+)'>|typing\.Literal\[(.*)\])\.?", error)
    if found is None:
        return None
    name, choices = found.groups()
    return _TYPES.get(name, name) if name else f"one of {choices.replace(chr(39), '')}"


class ConfigParser(Parser):
    """A parser of settings that also accepts the names of version 0.1.0.

    Args:
        hints: whether to print the present name of a setting when its old name is used.
    """

    def __init__(self, *args: Any, hints: bool = True, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._hints = hints

    # jsonargparse replaces the overloads of argparse's method, so that no override can match both
    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, *others: Any, **kwargs: Any
    ) -> Namespace:
        """Parse flags, translating old names of settings."""
        for arg in args or ():
            _check_value(arg)
        return super().parse_args([self._flag(arg) for arg in args or ()], *others, **kwargs)

    def parse_path(self, path: Any, *args: Any, **kwargs: Any) -> Namespace:
        """Parse a YAML file. Paths in it are relative to the working directory."""
        text = yaml_nodes.read_text(Path(path), "configuration", yaml_nodes.MAX_CONFIGURATION)
        return self.parse_string(text, str(path), *args, **kwargs)

    def parse_string(
        self, content: str, path: str = "configuration", *args: Any, **kwargs: Any
    ) -> Namespace:
        """Parse the content of a YAML file, translating old names of settings."""
        node = yaml_nodes.parse(content, path, "configuration", aliases=True)
        _check_keys(node)
        _check_sections(node, Config)
        try:
            settings = get_loader("yaml")(content)
        except ValueError as error:  # a number of thousands of digits, or a date that is none
            raise InputError(f"{path}: configuration is not readable: {error}") from error
        if isinstance(settings, dict):
            renamed = rename_old_settings(settings)
            for old, new in renamed.items():
                self.hint(old, new)
            _check_sources(settings, path)
            if _find_beside(Path(path).parent, settings.get("data")) or renamed:
                content = dump_settings(settings)
        return super().parse_string(content, path, *args, **kwargs)

    def hint(self, old: str, new: str) -> None:
        """Print that a name which the user gave has changed."""
        if self._hints:
            print(f"hint: {old} is now called {new}", file=sys.stderr)

    def _flag(self, arg: str) -> str:
        name, equals, value = arg.removeprefix("--").partition("=")
        if not arg.startswith("--") or name not in RENAMED:
            return arg
        self.hint(name, RENAMED[name])
        return f"--{RENAMED[name]}{equals}{value}"


def _check_value(arg: str) -> None:
    """Refuse a mapping on the command line that has a key twice: the parser would keep the last."""
    name, _, text = arg.partition("=") if arg.startswith("--") else ("", "", arg)
    if not text.startswith(("{", "[")):
        return
    try:
        node = yaml_nodes.parse(text, name.removeprefix("--") or "the command line", "value")
    except InputError:  # a pattern such as {split}/*
        return
    _check_keys(node)


def _check_sources(settings: dict[str, Any], path: str) -> None:
    """Refuse wrong entries of ``data.sources`` by their number, which the parser does not name."""
    from .data import registry

    data = settings.get("data")
    sources = data.get("sources") if isinstance(data, dict) else None
    known = [field.name for field in fields(SourceConfig)]
    for index, source in enumerate(sources if isinstance(sources, list) else ()):
        where = f"{path}: data.sources[{index}]"
        if not isinstance(source, dict):
            raise InputError(f"{where} is {source!r}, expected a mapping with name, root, ...")
        for name, value in source.items():
            if name not in known:
                raise InputError(f"{where} has {name!r}, expected some of {', '.join(known)}")
            if value is None and not may_be_unset(get_type_hints(SourceConfig)[name]):
                raise InputError(f"{where}.{name} is empty: give it a value, or leave it out")
        choice(f"{where}.name", source.get("name", SourceConfig.name), registry.names("source"))


def _check_sections(node: yaml_nodes.Node, section: Any, prefix: str = "") -> None:
    """Refuse settings without a value, and values in place of a section of settings.

    The parser would take them for defaults, or for the name of a file.
    """
    if node.kind != "map":
        found = "empty" if node.kind == "null" else node.shown
        owner = prefix.removesuffix(".") or "configuration"
        raise InputError(
            f"{node.where}: {owner} is {found}, expected 'name: value' lines: give it settings, or "
            "leave it out"
        )
    types = get_type_hints(section)
    for key, value in node.pairs():
        if key.kind not in ("str", "merge"):
            raise InputError(f"{key.where}: {key.written} is not the name of a setting")
        kind, name = types.get(str(key.text)), f"{prefix}{key.text}"
        if is_dataclass(kind):
            _check_sections(value, kind, f"{name}.")
        elif value.kind == "null" and kind is not None and not may_be_unset(kind):
            raise InputError(f"{value.where}: {name} is empty: give it a value, or leave it out")


def _check_keys(node: yaml_nodes.Node) -> None:
    """Refuse keys that YAML would drop or change without a word: repeated ones and ``yes: ...``."""
    left, seen = [node], set()
    while left:
        node = left.pop()
        if id(node.node) in seen:  # an alias of a value
            continue
        seen.add(id(node.node))
        left += node.children()
        keys: set[str | None] = set()
        for key, _ in node.pairs():
            if key.kind not in ("int", "merge"):
                key.name("name")
            if key.text in keys:
                raise InputError(f"{key.where}: {key.text} is given twice")
            keys.add(key.text)


def _find_beside(folder: Path, data: Any) -> bool:
    """Let label space and class maps name files beside the configuration.

    Files in the working directory come first; values without a suffix are names. Changes ``data``
    in place; returns whether it did.
    """
    if not isinstance(data, dict):
        return False
    sources = data.get("sources")
    sections: list[Any] = [data, data.get("source"), data.get("target")]
    sections += sources if isinstance(sources, list) else []
    changed = False
    for section in sections:
        for name in ("label_space", "classes"):
            value = section.get(name) if isinstance(section, dict) else None
            if not isinstance(value, str) or not Path(value).suffix:
                continue
            if not Path(value).expanduser().is_file() and (folder / value).is_file():
                section[name] = str(folder / value)
                changed = True
    return changed


def config_parser(prog: str, hints: bool = True) -> ConfigParser:
    """Make a parser with ``--config NAME_OR_FILE``, ``--print_config`` and a flag per setting."""
    from .data import registry  # imported here because commands without settings need no data sets

    parser = ConfigParser(prog=prog, hints=hints)
    parser.add_argument(
        "--config",
        action=_ConfigFile,
        help="a YAML file, or the name of a configuration shipped with the package",
    )
    parser.add_class_arguments(Config)
    for action in parser._actions:
        if action.dest in ("data.source.name", "data.target.name"):
            action.choices = registry.names(action.dest.split(".")[1])
        elif action.dest == "data.label_space":
            action.metavar = f"{{{','.join(BUILT_IN_SPACES)},FILE.yaml}}"
    return parser


def read_config(path: Path, prog: str) -> Config:
    """Read settings from a YAML file, such as the one in a run's folder."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; is {path.parent} the folder of a run?")
    parser = config_parser(prog, hints=False)
    return instantiate(parser, parser.parse_args(["--config", str(path)]))


_SECTIONS = ("data", "data.source", "data.target", "model", "adaptation", "optimiser", "schedule")


def instantiate(parser: ConfigParser, namespace: Namespace) -> Config:
    """Build the settings from parsed arguments."""
    for section in _SECTIONS:
        value = namespace.get(section)
        if not isinstance(value, Namespace):
            found = "empty" if value is None else f"{value!r}"
            raise InputError(f"{section} is {found}: give it settings, or leave it out")
    values = parser.instantiate(namespace)
    values.pop("config", None)
    config = Config(**vars(values))
    _read_own_classes(config.data)
    typed, norm = namespace["model.norm"], config.model.norm
    if typed != norm:
        parser.hint(f"model.norm={typed} of {config.model.backbone}", f"model.norm={norm}")
    return config


def _read_own_classes(data: DataConfig) -> None:
    """Replace files of label space and class maps by their content, which a run then keeps.

    Fails before anything is written or rendered.
    """
    from .data import registry

    space = label_space(data.label_space)
    data.label_space = space.setting
    sides: dict[str, SourceConfig | TargetConfig] = {"data.target": data.target}
    if data.sources:
        sides |= {f"data.sources[{i}]": source for i, source in enumerate(data.sources)}
    else:
        sides["data.source"] = data.source
    for where, settings in sides.items():
        classes, side = settings.classes, "target" if where == "data.target" else "source"
        if classes is None or registry.find(settings.name, side).labelling_of(settings) is not None:
            continue  # no class map, or the name of a data set's own table
        if isinstance(classes, dict) or Path(classes).expanduser().is_file():
            settings.classes = class_map_content(classes, space, f"{where}.classes")


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Run a command line; exits with 2 and a message on bad input, 130 on Ctrl-C or SIGTERM."""
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # of | head, which has read enough
        _drop_output()
        raise SystemExit(1) from None
    except OSError as error:
        if not error.filename:  # the output itself
            _drop_output()
        fail(f"{error.filename or 'standard output'}: {error.strerror or error}", status=2)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RunStopped):
            fail(str(error), error.status)
        if not isinstance(error, MemoryError) and not _OUT_OF_MEMORY.search(str(error)):
            raise
        fail("memory ran out: choose smaller images, batches or networks", status=1)
    except InputError as error:
        fail(str(error), status=2)
    except KeyboardInterrupt:
        fail("interrupted", status=130)
    finally:
        signal.signal(signal.SIGTERM, previous)


_OUT_OF_MEMORY = re.compile("can't allocate memory|out of memory")
"""PyTorch's messages."""


def _drop_output() -> None:
    """Let Python not try to write the rest of the output when it exits."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def fail(message: str, status: int) -> NoReturn:
    """Print ``error: message`` to standard error and exit."""
    console = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)
    console.print("[bold red]error:[/]", end=" ")
    console.print(message, markup=False)
    raise SystemExit(status)


def choice(flag: str, value: str, allowed: Sequence[str]) -> str:
    """Return ``value`` if it is allowed, otherwise raise an ``InputError``."""
    if value not in allowed:
        raise InputError(f"{flag} is {value!r}, expected one of {', '.join(allowed)}")
    return value


def output_folder(name: str, new: bool = False) -> Path:
    """Make a folder for results; with ``new`` it must not exist yet."""
    path = Path(name).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=not new)
    except FileExistsError as error:
        raise InputError(f"{path} exists already and is not overwritten") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be created: {error.strerror}") from error
    return path


class PresetFile(Action):
    """A second configuration file: a path, or a name from ``shipped_presets``.

    It overrides settings that stand before it on the command line; later ones override it.
    """

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        """Read the file into the namespace."""
        ActionConfigFile.apply_config(parser, namespace, "config", str(find_preset(values)))


class _ConfigFile(ActionConfigFile):
    """A configuration file: a path, or a name from ``shipped_configs``."""

    def __call__(self, parser, cfg, values, option_string=None):
        super().__call__(parser, cfg, str(find_config(values)), option_string)
