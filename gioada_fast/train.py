"""Train: ``python -m gioada_fast.train --config street_scenes``.

--config NAME_OR_FILE      settings; flags after it override single settings
--data.target.root FOLDER  for example: every setting has a flag with its dotted name
--print_config             print all settings and exit
--resume runs/NAME         continue a run from its last checkpoint
--profile                  measure a few updates, print where their time goes, and exit

On several devices: ``torchrun --nproc-per-node=N -m gioada_fast.train ...``
"""

from collections.abc import Sequence
from pathlib import Path

from . import cli
from .errors import InputError

PROG = "python -m gioada_fast.train"
DEFAULT_CONFIG = "street_scenes"


def main(arguments: Sequence[str]) -> None:
    """Start or resume a run."""
    # imported here because the processes that render frames import this module but need no torch
    from .engine.run import command_line, resume, start
    from .engine.run_folder import RunFolder

    arguments = list(arguments)
    parser = cli.config_parser(PROG)
    parser.add_argument("--resume", type=str, metavar="RUN", help="folder of a run to continue")
    parser.add_argument(
        "--profile",
        action="store_true",
        help="measure a few updates, print where their time goes, and exit",
    )
    if not any(a == "--config" or a.startswith(("--config=", "--resume")) for a in arguments):
        arguments = ["--config", DEFAULT_CONFIG, *arguments]
    namespace = parser.parse_args(arguments)
    run_folder = namespace.pop("resume")
    profile = namespace.pop("profile")
    if run_folder is not None:
        if len(arguments) > (1 if "=" in arguments[0] else 2):
            raise InputError("--resume uses the run's saved settings: leave out all other flags")
        run = RunFolder(Path(run_folder).expanduser())
        resume(cli.read_config(run.config, PROG), run, command_line())
        return
    config = cli.instantiate(parser, namespace)
    files = namespace.config
    default_name = Path(str(files[-1])).stem if files else "run"
    start(config, default_name, command_line(), profile)


if __name__ == "__main__":
    cli.run(main)
