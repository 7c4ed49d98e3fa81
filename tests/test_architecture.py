"""Arrows run one way: command lines, engine, adaptation, models and losses, ops."""

import ast
from pathlib import Path

import gioada_fast

PACKAGE = Path(gioada_fast.__file__).parent
# Each layer may import itself and what stands below it.
LAYERS = (
    {"train", "ablate", "evaluate", "predict", "translate", "info", "__main__"},
    {"cli"},
    {"engine"},
    {"adaptation"},
    {"self_training"},
    {"losses"},
    {"models"},
    {"ops"},
    {"depth"},
    {"data"},
    {"config"},
    {"errors"},
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def imported(path: Path) -> set[str]:
    """First-level modules of the package that a file imports."""
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
    return {name for name in found if name in LEVEL}


def owner(path: Path) -> str:
    """A file's layer; a package's ``__main__`` is a command line, wherever it lies."""
    if path.stem == "__main__":
        return path.stem
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def test_every_module_has_a_layer():
    modules = {owner(path) for path in PACKAGE.rglob("*.py")} - {"__init__", "configs"}
    assert modules <= LEVEL.keys(), modules - LEVEL.keys()


def test_no_import_runs_upwards():
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in PACKAGE.rglob("*.py")
        if owner(path) in LEVEL
        for name in imported(path)
        if LEVEL[name] < LEVEL[owner(path)]
    ]
    assert not wrong, wrong


def test_ops_and_data_know_nothing_of_each_other():
    for path in (PACKAGE / "ops").rglob("*.py"):
        assert imported(path) <= {"ops", "errors"}, path
    for path in (PACKAGE / "data").rglob("*.py"):
        if owner(path) == "data":
            assert imported(path) <= {"data", "config", "errors"}, path


def test_csrc_knows_no_torch():
    csrc = PACKAGE.parent / "csrc"
    for path in [p for p in csrc.rglob("*") if p.is_file()]:
        includes = [line for line in path.read_text().splitlines() if line.startswith("#include")]
        assert not [line for line in includes if "torch" in line or "ATen" in line], path
