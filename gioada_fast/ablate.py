"""Ablate: ``python -m gioada_fast.ablate --config street_to_camvid --preset small --seeds 0 1 2``.

Trains every row of the ablation with every seed, from the same start and on the same pairs, and
writes a table, ``ablation.json`` and ``report.html`` to runs/NAME. The same command again goes on
where it was stopped; finished rows are kept.

--config NAME_OR_FILE      settings; the flags after it override single ones
--preset small|paper       sizes and schedule: small for two CPU cores, paper for a GPU
--seeds 0 1 2              a run of each row with each of them; unset: the settings' seed
--rows source_only both    some of the rows; all others start from source_only
--name NAME                unset: the names of the configuration and the preset
"""

from collections.abc import Sequence
from pathlib import Path

from . import cli
from .config import shipped_presets

PROG = "python -m gioada_fast.ablate"
DEFAULT_CONFIG = "street_scenes"


def main(arguments: Sequence[str]) -> None:
    """Run the rows that are not finished, and show all that are there."""
    # here, so that the processes that render frames, which import this module again, do without
    from .engine.ablation import ROWS, ablate
    from .engine.run import command_line

    arguments = list(arguments)
    parser = cli.config_parser(PROG)
    parser.add_argument(
        "--preset",
        action=cli.PresetFile,
        help=f"sizes and schedule: a YAML file, or one of {', '.join(shipped_presets())}",
    )
    parser.add_argument("--seeds", type=int, nargs="+", help="unset: the settings' seed")
    parser.add_argument("--rows", type=str, nargs="+", help=f"of {', '.join(ROWS)}; unset: all")
    if not any(a == "--config" or a.startswith("--config=") for a in arguments):
        arguments = ["--config", DEFAULT_CONFIG, *arguments]
    namespace = parser.parse_args(arguments)
    _, seeds, rows = (namespace.pop(name, None) for name in ("preset", "seeds", "rows"))
    names = [Path(str(path)).stem for path in namespace.config]
    config = cli.instantiate(parser, namespace)
    config.name = config.name or "-".join(names)
    chosen = {cli.choice("--rows", row, list(ROWS)) for row in rows or ROWS}
    ablate(config, seeds or [config.seed], chosen, command_line())


if __name__ == "__main__":
    cli.run(main)
