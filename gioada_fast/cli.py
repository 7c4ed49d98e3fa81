"""What the command lines share: settings from YAML and flags, and errors without a traceback."""

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
    """An argument parser whose errors are one message, not a page of usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise InputError(f"{message.strip()}\nsee {self.prog} --help")


class ConfigParser(Parser):
    """A parser of settings that also takes the names they had in version 0.1.0.

    Args:
        hints: print the new name of each setting that has an old one.
    """

    def __init__(self, *args: Any, hints: bool = True, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._hints = hints

    def parse_args(self, args: Sequence[str] | None = None, *rest: Any, **kwargs: Any) -> Namespace:  # type: ignore[override]
        """Parse flags; old names become new ones."""
        return super().parse_args([self._flag(arg) for arg in args or ()], *rest, **kwargs)

    def parse_string(self, content: str, *args: Any, **kwargs: Any) -> Namespace:
        """Parse the content of a YAML file; old names become new ones."""
        try:
            settings = get_loader("yaml")(content)
        except yaml.YAMLError:
            settings = None  # jsonargparse reports it
        if isinstance(settings, dict) and (renamed := rename_old_settings(settings)):
            content = json.dumps(settings)
            for old, new in renamed.items():
                self.hint(old, new)
        return super().parse_string(content, *args, **kwargs)

    def hint(self, old: str, new: str) -> None:
        """Tell the user that what they gave has another name now."""
        if self._hints:
            print(f"hint: {old} is now called {new}", file=sys.stderr)

    def _flag(self, arg: str) -> str:
        name, equals, value = arg.removeprefix("--").partition("=")
        if not arg.startswith("--") or name not in RENAMED:
            return arg
        self.hint(name, RENAMED[name])
        return f"--{RENAMED[name]}{equals}{value}"


def config_parser(prog: str, hints: bool = True) -> ConfigParser:
    """Parser of ``--config NAME_OR_FILE``, ``--print_config`` and a flag for each setting."""
    from .data import registry  # here: commands without settings need no data sets

    parser = ConfigParser(prog=prog, hints=hints)
    parser.add_argument(
        "--config",
        action=_ConfigFile,
        help="a YAML file, or the name of a configuration that comes with the package",
    )
    parser.add_class_arguments(Config)
    for action in parser._actions:
        if action.dest in ("data.source.name", "data.target.name"):
            action.choices = registry.names(action.dest.split(".")[1])
        elif action.dest == "data.label_space":
            action.metavar = f"{{{','.join(BUILT_IN_SPACES)},FILE.yaml}}"
    return parser


def read_config(path: Path, prog: str) -> Config:
    """Settings from a YAML file alone."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; is {path.parent} the folder of a run?")
    parser = config_parser(prog, hints=False)
    return instantiate(parser, parser.parse_args(["--config", str(path)]))


def instantiate(parser: ConfigParser, namespace: Namespace) -> Config:
    """The dataclass from parsed arguments."""
    values = parser.instantiate(namespace)
    values.pop("config", None)
    config = Config(**vars(values))
    label_space(config.data.label_space)  # before anything is written or rendered
    typed, norm = namespace["model.norm"], config.model.norm
    if typed != norm:
        parser.hint(f"model.norm={typed} of {config.model.backbone}", f"model.norm={norm}")
    return config


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Run a command line: status 2 and a message for bad input, 130 for Ctrl-C or SIGTERM."""
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
    """``value``, which must be one of ``allowed``."""
    if value not in allowed:
        raise InputError(f"{flag} is {value!r}, expected one of {', '.join(allowed)}")
    return value


def output_folder(name: str, new: bool = False) -> Path:
    """Make a folder to write to; with ``new`` it must not exist yet."""
    path = Path(name).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=not new)
    except FileExistsError as error:
        raise InputError(f"{path} exists already and is not overwritten") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be made: {error.strerror}") from error
    return path


class PresetFile(Action):
    """One more configuration file, that may be named by what ``shipped_presets`` calls it.

    What comes after it overrides its settings, and it those that came before.
    """

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        """Read the file into the namespace."""
        ActionConfigFile.apply_config(parser, namespace, "config", str(find_preset(values)))


class _ConfigFile(ActionConfigFile):
    """A configuration file that may be named by what ``shipped_configs`` calls it."""

    def __call__(self, parser, cfg, values, option_string=None):
        super().__call__(parser, cfg, str(find_config(values)), option_string)
