"""Imports run one way, from the command lines down to the ops; csrc knows no torch."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import gioada_fast

PACKAGE = Path(gioada_fast.__file__).parent
LEAVES = {"labels", "config", "errors", "atomic_files", "json_files", "memory"}
LEAVES |= {"processes", "depth"}
# Parts of the package that each part may import, besides itself. A command line may import all.
ALLOWED = {
    "cli": {"data", "labels", "config", "yaml_nodes", "errors"},
    "engine": {
        *("report", "adaptation", "self_training", "models", "ops", "data", "yaml_nodes"),
        *LEAVES,
    },
    "report": {"data", *LEAVES},
    "inference_flags": {"engine", "errors"},
    "adaptation": {"self_training", "models", "ops", "labels", "config", "depth"},
    "self_training": {"models", "ops", "labels", "config", "depth"},
    "models": {"ops", "errors"},
    "integrations": {"ops"},
    "ops": set(),
    "data": {"street_scenes", *LEAVES},
    "street_scenes": LEAVES,
    "depth": {"labels"},
    "processes": {"errors"},
    "config": {"labels", "errors"},
    "labels": {"yaml_nodes", "errors"},
    "yaml_nodes": {"errors"},
    "atomic_files": {"errors"},
    "json_files": {"errors"},
    "memory": {"errors"},
    "errors": set(),
}
COMMAND_LINES = {
    "train",
    "ablate",
    "evaluate",
    "assess",
    "predict",
    "export",
    "translate",
    "info",
    "smoke",  # tests of the installed package
    "__main__",
}


def modules():
    return [
        path for path in PACKAGE.rglob("*.py") if path.stem != "__init__" or path.parent != PACKAGE
    ]


def imported(path: Path) -> set[str]:
    """First-level modules of the package that a file imports, anywhere in it."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    package = parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            base += node.module.split(".") if node.module else []
            names = [[*base, alias.name] for alias in node.names]
        else:
            continue
        found |= {name[1] for name in names if name[0] == "gioada_fast" and len(name) > 1}
    return found & (ALLOWED.keys() | COMMAND_LINES)


def owner(path: Path) -> str:
    """The part that a file belongs to; the ``__main__`` of any package is a command line."""
    if path.stem == "__main__":
        return path.stem
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def test_every_module_belongs_to_a_part():
    unplaced = {owner(path) for path in modules()} - ALLOWED.keys() - COMMAND_LINES
    assert not unplaced, unplaced


def test_allowed_imports_form_no_cycle():
    order = list(TopologicalSorter(ALLOWED).static_order())
    assert order.index("ops") < order.index("models") < order.index("adaptation")
    assert order.index("adaptation") < order.index("engine")


def test_every_import_is_allowed():
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in modules()
        if owner(path) not in COMMAND_LINES
        for name in imported(path) - {owner(path)} - ALLOWED[owner(path)]
    ]
    assert not wrong, wrong


def test_csrc_knows_no_torch():
    csrc = PACKAGE.parent / "csrc"
    for path in [p for p in csrc.rglob("*") if p.is_file()]:
        includes = [line for line in path.read_text().splitlines() if line.startswith("#include")]
        assert not [line for line in includes if "torch" in line or "ATen" in line], path
