"""Data sets: ``python -m gioada_fast.data check --config NAME``, ``... pack --config NAME ...``.

check   read every file of the source, the target's images and the evaluation frames: errors, sizes,
        classes, depth, warnings of what is not plausible, and contact sheets; exit status 1 if a
        file is missing or wrong
        --only source|target|evaluation, --sheet FILE.png, --report FILE.html: all of it as a page,
        --json, --strict: warnings are errors
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
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from .. import cli
from ..atomic_files import write_atomically
from ..config import Config, DataConfig
from ..errors import InputError
from ..labels import label_space
from .check import MAX_SHOWN, PARTS, SetReport, all_warnings, check_set, list_set, part_names
from .label_maps import LabelReader
from .plausibility import PlausibilityWarning
from .sets import check_label_space

PROG = "python -m gioada_fast.data"


def main(arguments: Sequence[str]) -> None:
    """Run the command that the first argument names."""
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help"):
        print(__doc__)
        return
    COMMANDS[cli.choice("command", name, tuple(COMMANDS))](rest)


def _check(arguments: Sequence[str]) -> None:
    parser = cli.config_parser(f"{PROG} check")
    parser.add_argument("--only", choices=PARTS, help="one kind of set (unset: all three)")
    parser.add_argument(
        "--sheet", default="data_check.png", metavar="FILE", help="contact sheet (.png or .jpg)"
    )
    parser.add_argument("--report", metavar="FILE", help="a page with all of it (.html)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--strict", action="store_true", help="take warnings as errors")
    options = parser.parse_args(list(arguments))
    only, sheet, page, as_json, strict = (
        options.pop(name) for name in ("only", "sheet", "report", "json", "strict")
    )
    config = cli.instantiate(parser, options).data
    sheet = Path(sheet).expanduser()
    if sheet.suffix.lower() not in (".png", ".jpg", ".jpeg") or not sheet.parent.is_dir():
        raise InputError(f"--sheet is {sheet}, expected a .png or .jpg in a folder that exists")
    page = page and Path(page).expanduser()
    if page and (page.suffix.lower() not in (".html", ".htm") or not page.parent.is_dir()):
        raise InputError(f"--report is {page}, expected a .html in a folder that exists")
    if only is None:
        check_label_space(config)
    space = label_space(config.label_space)

    names = [name for name in part_names(config) if only in (None, name.partition(" ")[0])]
    reports, not_listed = {}, {}
    # keep progress bars out of the JSON
    with redirect_stdout(sys.stderr if as_json else sys.stdout):
        for name in names:
            try:
                data, strict_labels = list_set(config, name), _strict_labels(config, name)
            except (InputError, OSError) as error:
                not_listed[name] = str(error)
                continue
            reports[name] = check_set(data, name, space, strict_labels=strict_labels)
    warnings = all_warnings(reports)

    # imported here because these import torch
    from ..report.data_report import as_dict, contact_sheet, data_page, tables, warning_sheet
    from ..report.panels import save_image

    warnings_file = sheet.with_stem(f"{sheet.stem}_warnings")
    pictures = {
        sheet: contact_sheet(reports, space),
        warnings_file: warning_sheet(reports, warnings, space),
    }
    for file, picture in pictures.items():
        if picture is not None:
            save_image(file, picture)
        elif file == warnings_file:
            file.unlink(missing_ok=True)  # of an earlier check
    if page:
        html = data_page(reports, warnings, not_listed, space)
        write_atomically(page, lambda temporary: temporary.write_text(html, encoding="utf-8"))
    errors = sum(len(report.errors) for report in reports.values())
    implausible = sum(map(len, warnings.values()))
    if as_json:
        parts = {name: as_dict(r, space, warnings[name]) for name, r in reports.items()}
        parts |= {name: {"error": message} for name, message in not_listed.items()}
        document = {
            "label_space": space.name,
            "sound": not errors and not not_listed and not (strict and implausible),
            "sheet": None if pictures[sheet] is None else str(sheet),
            "warnings_sheet": None if pictures[warnings_file] is None else str(warnings_file),
            "sets": {name: parts[name] for name in names if name in parts},
        }
        print(json.dumps(document, indent=1))
    elif reports:
        console = Console()
        for table in tables(reports, space):
            console.print(table, "")
        _print_warnings(warnings)
        for file, picture in pictures.items():
            if picture is not None:
                console.print(f"pictures: {file}", highlight=False, soft_wrap=True)
        if page:
            console.print(f"report: {page}", highlight=False, soft_wrap=True)
    _print_errors(reports, not_listed)
    wrong = [f"{name} cannot be read" for name in not_listed]
    wrong += [f"{errors} files are missing or wrong"] if errors else []
    wrong += [f"{implausible} warnings with --strict"] if strict and implausible else []
    if wrong:
        cli.fail(", ".join(wrong), status=1)


def _strict_labels(config: DataConfig, name: str) -> LabelReader | None:
    """Reader that refuses unknown values, if the settings ignore them: ``check`` counts them."""

    def refuse(settings: Any) -> Any:
        return replace(settings, unknown_labels="error")

    strict = replace(
        config,
        source=refuse(config.source),
        target=refuse(config.target),
        sources=config.sources and [refuse(settings) for settings in config.sources],
    )
    return None if strict == config else list_set(strict, name).read_labels


def _print_warnings(warnings: Mapping[str, Sequence[PlausibilityWarning]]) -> None:
    console = Console(soft_wrap=True, highlight=False, markup=False)
    for name, found in warnings.items():
        for warning in found:
            console.print(f"warning: {name}: {warning.rule}: {warning.message}: {warning.advice}")


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
        if report.unknown:
            console.print(f"{part}: unknown label values: {_unknown_values(report)}")


def _unknown_values(report: SetReport) -> str:
    values = [
        f"{unknown.value} ({unknown.pixels} pixels in {unknown.files} files)"
        for unknown in report.unknown[:MAX_SHOWN]
    ]
    more = len(report.unknown) - MAX_SHOWN
    return ", ".join(values) + (f" and {more} more" if more > 0 else "")


def _pack(arguments: Sequence[str]) -> None:
    from .pack_writer import pack

    pack(_config("pack", arguments).data)


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {"check": _check, "pack": _pack}


def _config(command: str, arguments: Sequence[str]) -> Config:
    parser = cli.config_parser(f"{PROG} {command}")
    return cli.instantiate(parser, parser.parse_args(list(arguments)))


if __name__ == "__main__":
    cli.run(main)
