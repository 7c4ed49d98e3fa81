"""Data sets: ``python -m gioada_fast.data check --config NAME``, ``... pack --config NAME ...``.

check   read every file of the source, the target's images and the evaluation frames: errors, sizes,
        classes, depth, and a contact sheet; exit status 1 if a file is missing or wrong
        --only source|target|evaluation, --sheet FILE.png, --json
pack    decode, resize and map the training frames once into a folder of packs, which training with
        the same --data.packs reads; the same command resumes an unfinished pack

--config NAME_OR_FILE      settings, as for training; flags after it override single settings
--data.target.root FOLDER  for example: every setting has a flag with its dotted name
--print_config             print all settings and exit
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path

from rich.console import Console

from .. import cli
from ..config import Config
from ..errors import InputError
from ..labels import label_space
from .check import PARTS, SetReport, check_set, list_set
from .sets import check_label_space

PROG = "python -m gioada_fast.data"
MAX_SHOWN = 20
"""Number of files shown for each kind of error; --json shows all."""


def main(arguments: Sequence[str]) -> None:
    """Run the command that the first argument names."""
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help"):
        print(__doc__)
        return
    COMMANDS[cli.choice("command", name, tuple(COMMANDS))](rest)


def _check(arguments: Sequence[str]) -> None:
    parser = cli.config_parser(f"{PROG} check")
    parser.add_argument("--only", choices=PARTS, help="one set (unset: all three)")
    parser.add_argument(
        "--sheet", default="data_check.png", metavar="FILE", help="contact sheet (.png or .jpg)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    options = parser.parse_args(list(arguments))
    only, sheet, as_json = (options.pop(name) for name in ("only", "sheet", "json"))
    config = cli.instantiate(parser, options).data
    sheet = Path(sheet).expanduser()
    if sheet.suffix.lower() not in (".png", ".jpg", ".jpeg") or not sheet.parent.is_dir():
        raise InputError(f"--sheet is {sheet}, expected a .png or .jpg in a folder that exists")
    if only is None:
        check_label_space(config)
    space = label_space(config.label_space)

    reports, not_listed = {}, {}
    # keep progress bars out of the JSON
    with redirect_stdout(sys.stderr if as_json else sys.stdout):
        for part in PARTS if only is None else (only,):
            try:
                data = list_set(config, part)
            except (InputError, OSError) as error:
                not_listed[part] = str(error)
                continue
            reports[part] = check_set(data, part)

    # imported here because these import torch
    from ..report.data_report import as_dict, contact_sheet, tables
    from ..report.panels import save_image

    picture = contact_sheet(reports, space)
    if picture is not None:
        save_image(sheet, picture)
    errors = sum(len(report.errors) for report in reports.values())
    if as_json:
        parts = {part: as_dict(report, space) for part, report in reports.items()}
        parts |= {part: {"error": message} for part, message in not_listed.items()}
        document = {
            "label_space": space.name,
            "sound": not errors and not not_listed,
            "sheet": None if picture is None else str(sheet),
            "sets": {part: parts[part] for part in PARTS if part in parts},
        }
        print(json.dumps(document, indent=1))
    elif reports:
        console = Console()
        for table in tables(reports, space):
            console.print(table, "")
        if picture is not None:
            console.print(f"pictures: {sheet}", highlight=False, soft_wrap=True)
    _print_errors(reports, not_listed)
    wrong = [f"{part} cannot be read" for part in not_listed]
    wrong += [f"{errors} files are missing or wrong"] if errors else []
    if wrong:
        cli.fail(", ".join(wrong), status=1)


def _print_errors(reports: Mapping[str, SetReport], not_listed: Mapping[str, str]) -> None:
    """Print errors to standard error, ``MAX_SHOWN`` files of each kind."""
    console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    for part, message in not_listed.items():
        console.print(f"{part}: {message}")
    for part, report in reports.items():
        for kind in dict.fromkeys(error.kind for error in report.errors):
            errors = [error for error in report.errors if error.kind == kind]
            for error in errors[:MAX_SHOWN]:
                console.print(f"{part}: {error.file}: {error.message}")
            if len(errors) > MAX_SHOWN:
                console.print(
                    f"{part}: and {len(errors) - MAX_SHOWN} more of this kind ({kind}); --json "
                    "shows them all"
                )


def _pack(arguments: Sequence[str]) -> None:
    from .pack_writer import pack

    pack(_config("pack", arguments).data)


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {"check": _check, "pack": _pack}


def _config(command: str, arguments: Sequence[str]) -> Config:
    parser = cli.config_parser(f"{PROG} {command}")
    return cli.instantiate(parser, parser.parse_args(list(arguments)))


if __name__ == "__main__":
    cli.run(main)
