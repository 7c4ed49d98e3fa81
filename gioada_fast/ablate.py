"""Ablate: ``python -m gioada_fast.ablate --config street_to_camvid --preset small --seeds 0 1 2``.

Trains every row of the ablation with every seed, all from the same initial weights and on the same
pairs. Prints tables and writes ``ablation.json`` and ``report.html`` to runs/NAME. The same command
continues an ablation that was stopped; finished rows are kept.

--config NAME_OR_FILE      settings; flags after it override single settings
--preset NAME              networks and optimisers: small (from scratch) and pretrained (VGG-16 with
                           ImageNet weights) for two CPU cores, paper for a GPU
--seeds 0 1 2              seeds of each row's runs; default: the seed of the settings
--rows source_only both    rows to run, default: all but variants; all others start from
                           the weights of source_only
--name NAME                default: the names of the configuration and the preset
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from . import cli
from .config import shipped_presets

PROG = "python -m gioada_fast.ablate"
DEFAULT_CONFIG = "street_scenes"


def main(arguments: Sequence[str]) -> None:
    """Run the unfinished rows and show all finished ones."""
    # imported here because the processes that render frames import this module but need no torch
    from .engine.ablation import ORACLE, ROWS, ablate, default_rows
    from .engine.run import command_line

    arguments = list(arguments)
    variants = {name for name, row in ROWS.items() if row.variant}
    parser = cli.config_parser(PROG)
    parser.add_argument(
        "--preset",
        action=cli.PresetFile,
        help=f"networks and optimisers: a YAML file, or one of {', '.join(shipped_presets())}",
    )
    parser.add_argument("--seeds", type=int, nargs="+", help="default: the seed of the settings")
    parser.add_argument(
        "--rows",
        type=str,
        nargs="+",
        help=f"of {', '.join(ROWS)}; default: all that are no variants: "
        f"{', '.join(sorted(variants)) or 'there are none'}",
    )
    if not any(a == "--config" or a.startswith("--config=") for a in arguments):
        arguments = ["--config", DEFAULT_CONFIG, *arguments]
    namespace = parser.parse_args(arguments)
    _, seeds, rows = (namespace.pop(name, None) for name in ("preset", "seeds", "rows"))
    names = [Path(str(path)).stem for path in namespace.config]
    config = cli.instantiate(parser, namespace)
    config.name = config.name or "-".join(names)
    for seed in seeds or ():
        replace(config, seed=seed)  # refuses a seed that is none, before any run
    chosen = {cli.choice("--rows", row, list(ROWS)) for row in rows or ()} or default_rows(config)
    if not rows and ORACLE not in chosen:
        print(f"without the row {ORACLE}: the target's training images have no labels")
    ablate(config, seeds or [config.seed], chosen, command_line())


if __name__ == "__main__":
    cli.run(main)
