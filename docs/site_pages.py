"""Pages of the site that are not files in ``docs/``: a hook of MkDocs, see mkdocs.yml.

The README, CONTRIBUTING.md, CHANGELOG.md and the examples are pages, too; the settings come from
the dataclasses of ``gioada_fast.config``, and the messages from the source of the package.
"""

import ast
import functools
import posixpath
import re
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import docstring_parser

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "gioada_fast"
OF_ROOT = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "examples/README.md": "examples.md",
}
"""Files beside ``docs/``, and the pages that show them."""


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages."""
    from mkdocs.structure.files import File

    for path, content in generated_pages().items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let links of the pages in ``docs/`` lead to the pages of files beside that folder."""
    if page.file.src_path in generated_pages():
        return markdown
    folder = posixpath.dirname(page.file.src_path) or "."
    for name, page_path in OF_ROOT.items():
        link = posixpath.relpath(f"../{name}", folder)
        markdown = markdown.replace(f"]({link}", f"]({posixpath.relpath(page_path, folder)}")
    return markdown


@functools.cache
def generated_pages() -> dict[str, str]:
    """Markdown of each page by its path under ``docs/``."""
    pages = {"all_settings.md": settings_page(), "messages.md": messages_page()}
    for name, path in OF_ROOT.items():
        content = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
        content = content.replace("](../docs/", "](")
        for other, other_path in OF_ROOT.items():
            content = content.replace(f"]({other}", f"]({other_path}")
        pages[path] = content
    pages["examples.md"] += _programs()
    return pages


def _programs() -> str:
    """The source of each example, under its name."""
    found = sorted([*(ROOT / "examples").glob("*.py"), *(ROOT / "examples").glob("*.yaml")])
    languages = {".py": "python", ".yaml": "yaml"}
    return "".join(
        f"\n## {path.name}\n\n```{languages[path.suffix]}\n{path.read_text('utf-8')}```\n"
        for path in found
    )


def _escaped(text: str) -> str:
    """Text in which Markdown finds no markup."""
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", re.sub(r"\s+", " ", text))


# --- settings


_SETTINGS = """# All settings

Generated from `gioada_fast/config.py`. A flag is the name after two hyphens, such as
`--schedule.batch_size 2`; in YAML files, the dots are levels. [Settings and commands](settings.md)
has the overview.
"""


def settings_page() -> str:
    """Every setting with its type, default and explanation."""
    from gioada_fast.config import Config

    lines = [_SETTINGS]
    for section, config in _sections(Config):
        prefix = f"{section}." if section else ""
        explained = {name: text for base in reversed(config.__mro__) for name, text in _docs(base)}
        hints = get_type_hints(config)
        lines += [f"## {section or 'The run'}", "", _escaped(config.__doc__ or ""), ""]
        for field in fields(config):
            if is_dataclass(hints[field.name]):
                continue
            name = prefix + field.name
            default = "" if field.default is MISSING else _default(field.default)
            lines += [
                f"### `{name}` {{ #{name} }}",
                "",
                f"{_escaped(_type(hints[field.name]))}{default}",
                "",
                _escaped(explained[field.name]),
                "",
            ]
    return "\n".join(lines)


def _sections(config: type, name: str = "") -> Iterator[tuple[str, type]]:
    """The dataclass of all settings, and those of its sections, by dotted name."""
    yield name, config
    for key, hint in get_type_hints(config).items():
        if is_dataclass(hint):
            yield from _sections(hint, f"{name}.{key}".lstrip("."))


def _docs(config: type) -> list[tuple[str, str]]:
    """Names and texts of the settings that a class itself defines."""
    if not is_dataclass(config):
        return []
    params = docstring_parser.parse_from_object(config).params
    return [(param.arg_name, param.description or "") for param in params]


_WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false", dict: "mapping"}


def _type(hint: Any) -> str:
    """A type in words."""
    kinds = list(dict.fromkeys(_kinds(hint)))
    return ", ".join(kinds[:-1]) + " or " * (len(kinds) > 1) + kinds[-1]


def _kinds(hint: Any) -> Iterator[str]:
    if get_origin(hint) in (Union, UnionType):
        for arg in get_args(hint):
            if arg is not NoneType:
                yield from _kinds(arg)
    elif get_origin(hint) is Literal:
        yield from get_args(hint)
    elif get_origin(hint) is list:
        (of,) = get_args(hint)
        yield "list of mappings" if is_dataclass(of) else f"list of {_type(of)}s"
    else:
        yield _WORDS[hint]


def _default(value: Any) -> str:
    if value is None:
        return "; unset by default"
    return f"; default `{str(value).lower() if isinstance(value, bool) else value}`"


# --- messages

_ERRORS = {"InputError", "RunStopped", "NonFiniteLoss", "Interrupted", "NoCompiler"}
_PARTS: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("Settings and command lines", lambda path: "/" not in path or path.startswith("predict/")),
    ("Data", lambda path: path.startswith("data/")),
    ("Built-in street scenes", lambda path: path.startswith("street_scenes/")),
    ("Networks and pretrained weights", lambda path: path.startswith("models/")),
    ("Training, runs and scores", lambda path: path.startswith("engine/")),
    ("Pictures, videos and others", lambda path: True),
)


_MESSAGES = """# All messages

Generated from the source: what the commands print after `error:`, without a traceback, with exit
status 2 (or 1, if training stops). Words in *italics* stand for the values found. A message names
the file or the setting, what was found, and what to do. [Messages and
remedies](troubleshooting.md) has the frequent ones.
"""


def messages_page() -> str:
    """Every message for the user that the package's source contains, by part and module."""
    lines = [_MESSAGES]
    modules = {str(path.relative_to(PACKAGE)): path for path in sorted(PACKAGE.rglob("*.py"))}
    left = dict.fromkeys(modules)
    for title, belongs in _PARTS:
        lines += [f"## {title}", ""]
        for name in [name for name in left if belongs(name)]:
            del left[name]
            tree = ast.parse(modules[name].read_text(encoding="utf-8"))
            if messages := list(dict.fromkeys(_messages(tree))):
                purpose = re.split(r"\n|: ``", ast.get_docstring(tree) or name)[0].rstrip(".")
                lines += [f"### {purpose}", "", f"`gioada_fast/{name}`", ""]
                lines += [f"- {message}" for message in messages] + [""]
    return "\n".join(lines)


def _messages(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            text = template(node.args[0]) if name in _ERRORS and node.args else ""
            if re.search(r"\w{2}", re.sub(r"\*[^*]+\*", "", text)):  # not values alone
                yield text.strip(" ;")


def template(node: ast.AST) -> str:
    """A message in Markdown, with its values in italics."""
    if isinstance(node, ast.Constant):
        return _escaped(str(node.value))
    if isinstance(node, ast.JoinedStr):
        return "".join(map(template, node.values))
    if isinstance(node, ast.BinOp):
        return template(node.left) + template(node.right)
    if isinstance(node, ast.FormattedValue):
        value = node.value.value if isinstance(node.value, ast.Subscript) else node.value
        name = {ast.Name: "id", ast.Attribute: "attr"}.get(type(value))
        return f"*{_escaped(getattr(value, name).strip('_'))}*" if name else "*…*"
    return "*…*"
