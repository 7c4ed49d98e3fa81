"""Shared by all command lines: settings from YAML files and flags, and errors in one line."""

import json
import signal
import sys
from argparse import Action
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import (
    ActionConfigFile,
    ArgumentParser,
    Namespace,
    get_loader,
    set_parsing_settings,
)
from rich.console import Console

from .config import RENAMED, Config, find_config, find_preset, rename_old_settings
from .errors import InputError, RunStopped
from .labels import BUILT_IN_SPACES, label_space

set_parsing_settings(docstring_parse_attribute_docstrings=True)


class Parser(ArgumentParser):
    """An argument parser that reports an error as one message instead of a page of usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise InputError(f"{message.strip()}\nsee {self.prog} --help")


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
        return super().parse_args([self._flag(arg) for arg in args or ()], *others, **kwargs)

    def parse_string(self, content: str, *args: Any, **kwargs: Any) -> Namespace:
        """Parse the content of a YAML file, translating old names of settings."""
        try:
            settings = get_loader("yaml")(content)
        except yaml.YAMLError:
            settings = None  # jsonargparse reports the error below
        if isinstance(settings, dict) and (renamed := rename_old_settings(settings)):
            content = json.dumps(settings)
            for old, new in renamed.items():
                self.hint(old, new)
        return super().parse_string(content, *args, **kwargs)

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


def instantiate(parser: ConfigParser, namespace: Namespace) -> Config:
    """Build the settings from parsed arguments."""
    values = parser.instantiate(namespace)
    values.pop("config", None)
    config = Config(**vars(values))
    label_space(config.data.label_space)  # fails before anything is written or rendered
    typed, norm = namespace["model.norm"], config.model.norm
    if typed != norm:
        parser.hint(f"model.norm={typed} of {config.model.backbone}", f"model.norm={norm}")
    return config


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Run a command line; exits with 2 and a message on bad input, 130 on Ctrl-C or SIGTERM."""
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main(sys.argv[1:])
    except InputError as error:
        fail(str(error), status=2)
    except RunStopped as stopped:
        fail(str(stopped), stopped.status)
    except KeyboardInterrupt:
        fail("interrupted", status=130)
    finally:
        signal.signal(signal.SIGTERM, previous)


def fail(message: str, status: int) -> NoReturn:
    """Print ``error: message`` to standard error and exit."""
    console = Console(stderr=True, soft_wrap=True, highlight=False)
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
