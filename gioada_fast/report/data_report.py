"""Reports on data sets from the results of ``data.check``: tables, a contact sheet, JSON, HTML."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from ..data.check import MAX_SHOWN, PERCENTILES, FileError, SetReport
from ..data.plausibility import PlausibilityWarning
from ..data.rasters import read_image
from ..data.transforms import kept_share, resize_image, resize_nearest
from ..depth import NEAR
from ..errors import InputError
from ..labels import LabelSpace
from .formatting import NO_VALUE, percent
from .page import Panel, embed, render
from .panels import colour_depth, grid

SHEET_ROWS = 4
"""Maximum number of frames of each set on a contact sheet."""
SHEET_WIDTH = 256
"""Width of each picture on a contact sheet, in pixels."""

_MAX_SIZES = 3
_PAPER = 255


def tables(reports: Mapping[str, SetReport], space: LabelSpace) -> Iterator[Table]:
    """One table of all sets' contents, and one of their classes if any set has labels.

    Args:
        reports: reports by the set's name, at least one.
        space: classes of the label maps' train ids.
    """
    summary = Table("", *reports, show_edge=False)
    for name, cells in _contents(reports).items():
        summary.add_row(name, *(Text(cell, overflow="fold") for cell in cells))
    yield summary

    labelled = [name for name, report in reports.items() if report.labels]
    if not labelled:
        return
    classes = Table("", show_edge=False)
    classes.add_column(Text(space.name))
    for name in labelled:
        classes.add_column(f"{name}, %", justify="right")
        classes.add_column("frames", justify="right")
    for name, colour, cells in _classes(reports, space):
        classes.add_row(Text("  ", style="on rgb({},{},{})".format(*colour)), Text(name), *cells)
    yield classes


def _contents(reports: Mapping[str, SetReport]) -> dict[str, list[str]]:
    """A row of each quantity that any set has, with a cell for each set."""
    sets = [_summary(report) for report in reports.values()]
    rows = {name: [cells[name] for cells in sets] for name in (sets[0] if sets else ())}
    return {name: cells for name, cells in rows.items() if set(cells) != {NO_VALUE}}


def _classes(
    reports: Mapping[str, SetReport], space: LabelSpace
) -> Iterator[tuple[str, tuple[int, int, int], list[str]]]:
    """Name and colour of each class; its share in % and its frames in each set with labels."""
    for index, (name, colour) in enumerate(zip(space.classes, space.colours, strict=True)):
        cells = []
        for labels in filter(None, (report.labels for report in reports.values())):
            share = labels.pixels[index] / max(1, labels.labelled)
            seen = bool(labels.frames[index])
            cells += [_share(share) if seen else NO_VALUE, str(labels.frames[index])]
        yield name, colour, cells


def as_dict(
    report: SetReport, space: LabelSpace, warnings: Sequence[PlausibilityWarning] = ()
) -> dict[str, Any]:
    """A report as JSON with all errors; shares are fractions, depth is in metres."""
    labels, depth = report.labels, report.depth
    return {
        "data_set": report.data.name,
        "root": str(report.data.root),
        "frames": len(report.data.frames),
        "sound": len(report.sound),
        "sizes": [
            {"width": width, "height": height, "images": count}
            for (height, width), count in report.sizes.items()
        ],
        "labels": labels
        and {
            "ignored_share": labels.ignored_share,
            "classes": {
                name: {
                    "pixels": int(labels.pixels[index]),
                    "share": float(labels.pixels[index] / max(1, labels.labelled)),
                    "frames": int(labels.frames[index]),
                }
                for index, name in enumerate(space.classes)
            },
        },
        "depth": depth
        and {
            "share": depth.share,
            "nearest": depth.nearest,
            "percentiles": {str(p): metres for p, metres in depth.percentiles.items()},
            "farthest": depth.farthest,
        },
        "hidden": report.hidden,
        "images": [
            {"bits": bits, "bits_used": used, "orientation": orientation, "images": count}
            for (bits, used, orientation), count in _image_kinds(report).items()
        ],
        "unknown_labels": [unknown._asdict() for unknown in report.unknown],
        "warnings": [
            {
                "rule": warning.rule,
                "message": warning.message,
                "advice": warning.advice,
                "files": [str(report.data.frames[index].image) for index in warning.frames],
            }
            for warning in warnings
        ],
        "errors": [
            {"file": str(error.file), "kind": error.kind, "message": error.message}
            for error in report.errors
        ],
    }


def contact_sheet(reports: Mapping[str, SetReport], space: LabelSpace) -> np.ndarray | None:
    """A picture of a few sound frames of each set, evenly spaced, with the sets side by side.

    Each frame is shown as its image, and as coloured labels and depth if the set has them. Pixels
    that are ignored or have no depth are black; pictures of another aspect ratio get white margins.

    Args:
        reports: reports by the set's name, which is the caption.
        space: classes of the label maps' train ids.

    Returns:
        RGB uint8 [height, width, 3], or None if no frame is sound.

    Raises:
        InputError: a file has become unreadable since the check.
    """
    reports = {name: report for name, report in reports.items() if report.sound}
    if not reports:
        return None
    height = max(map(_sheet_height, reports.values()))
    rows: list[dict[str, np.ndarray]] = [
        {} for _ in range(max(min(SHEET_ROWS, len(report.sound)) for report in reports.values()))
    ]
    groups = []
    for name, report in reports.items():
        columns = {f"{name} image": f"{name}: image"}
        columns |= {f"{name} labels": "labels"} if report.data.read_labels else {}
        columns |= {f"{name} depth": "depth"} if report.data.depth else {}
        groups.append(columns)
        samples = _samples(report, (height, SHEET_WIDTH), space)
        blank = [np.full((height, SHEET_WIDTH, 3), _PAPER, np.uint8)] * len(columns)
        samples += [blank] * (len(rows) - len(samples))
        for row, pictures in zip(rows, samples, strict=True):
            row.update(zip(columns, pictures, strict=True))
    return grid(rows, *groups)


def _samples(report: SetReport, size: tuple[int, int], space: LabelSpace) -> list[list[np.ndarray]]:
    """Pictures of a few sound frames, evenly spaced: image, and labels and depth if it has them."""
    count = min(SHEET_ROWS, len(report.sound))
    chosen = np.linspace(0, len(report.sound) - 1, count).round().astype(int)
    return [[*_pictures(report, report.sound[i], size, space)] for i in chosen]


def _sheet_height(report: SetReport) -> int:
    """Height of pictures that are ``SHEET_WIDTH`` wide, in the shape of the set's first image."""
    height, width = next(iter(report.sizes), (1, 1))
    return max(1, min(SHEET_WIDTH, round(SHEET_WIDTH * height / width)))


def warning_sheet(
    reports: Mapping[str, SetReport],
    warnings: Mapping[str, Sequence[PlausibilityWarning]],
    space: LabelSpace,
) -> np.ndarray | None:
    """A picture of the frame that shows each warning best, with the warning's name above it.

    Args:
        reports: reports by the set's name.
        warnings: warnings by the set's name.
        space: classes of the label maps' train ids.

    Returns:
        RGB uint8 [height, width, 3], or None if no warning has a frame.
    """
    strips = []
    for name, found in warnings.items():
        for warning in found:
            if warning.frames:
                strips.append(_warning_strip(reports[name], f"{name}: {warning.rule}",
                                             warning.frames[0], space))  # fmt: skip
    if not strips:
        return None
    width = max(strip.shape[1] for strip in strips)
    margins = [((0, 0), (0, width - strip.shape[1]), (0, 0)) for strip in strips]
    return np.concatenate(
        [np.pad(s, m, constant_values=_PAPER) for s, m in zip(strips, margins, strict=True)]
    )


def _warning_strip(report: SetReport, caption: str, index: int, space: LabelSpace) -> np.ndarray:
    """Image, labels and depth of a frame side by side, the image under the caption."""
    row = {
        caption if kind == "image" else kind: picture
        for kind, picture in _warning_pictures(report, index, space).items()
    }
    return grid([row], {kind: kind for kind in row})


def _warning_pictures(report: SetReport, index: int, space: LabelSpace) -> dict[str, np.ndarray]:
    """Image, labels and depth of a frame; files with errors are left out, the image is white."""
    size = _sheet_height(report), SHEET_WIDTH
    row: dict[str, np.ndarray] = {}
    pictures = _pictures(report, index, size, space)
    try:
        for kind in ("image", "labels", "depth"):
            row[kind] = next(pictures)
    except (StopIteration, InputError):
        row.setdefault("image", np.full((*size, 3), _PAPER, np.uint8))
    return row


def data_page(
    reports: Mapping[str, SetReport],
    warnings: Mapping[str, Sequence[PlausibilityWarning]],
    not_listed: Mapping[str, str],
    space: LabelSpace,
) -> str:
    """HTML page in a single file: contents, classes, errors, warnings and pictures of all sets.

    Args:
        reports: reports by the set's name.
        warnings: warnings by the set's name.
        not_listed: messages by the name of each set that cannot be read.
        space: classes of the label maps' train ids.

    Raises:
        InputError: a file has become unreadable since the check.
    """
    return render(
        "data_report.html",
        verdict=_verdict(reports, warnings, not_listed),
        sets=list(reports),
        contents=_contents(reports),
        space=space.name,
        classes=_classes(reports, space),
        labelled=[name for name, report in reports.items() if report.labels],
        not_listed=not_listed,
        errors=[
            (name, error) for name, report in reports.items() for error in _shown_errors(report)
        ],
        hidden_errors=sum(
            len(report.errors) - len(_shown_errors(report)) for report in reports.values()
        ),
        warnings=[
            (name, warning, _warning_panel(reports[name], warning, space))
            for name, found in warnings.items()
            for warning in found
        ],
        panels=[
            embed(name, [dict(zip(_kinds(report), pictures, strict=True)) for pictures in samples])
            for name, report in reports.items()
            if (samples := _samples(report, (_sheet_height(report), SHEET_WIDTH), space))
        ],
    )


def _verdict(
    reports: Mapping[str, SetReport],
    warnings: Mapping[str, Sequence[PlausibilityWarning]],
    not_listed: Mapping[str, str],
) -> str:
    errors = sum(len(report.errors) for report in reports.values())
    implausible = sum(map(len, warnings.values()))
    found = [f"{name} cannot be read" for name in not_listed]
    found += [f"missing or wrong files: {errors}"] if errors else []
    found += [f"warnings: {implausible}"] if implausible else []
    text = "; ".join(found) or "every file is sound, and nothing is implausible"
    return f"{text[0].upper()}{text[1:]}."


def _kinds(report: SetReport) -> list[str]:
    """Names of the pictures of a frame of the set."""
    has = {"image": True, "labels": report.data.read_labels, "depth": report.data.depth}
    return [kind for kind, value in has.items() if value]


def _shown_errors(report: SetReport) -> list[FileError]:
    """``MAX_SHOWN`` errors of each kind."""
    kinds = dict.fromkeys(error.kind for error in report.errors)
    return [
        error
        for kind in kinds
        for error in [error for error in report.errors if error.kind == kind][:MAX_SHOWN]
    ]


def _warning_panel(
    report: SetReport, warning: PlausibilityWarning, space: LabelSpace
) -> Panel | None:
    if not warning.frames:
        return None
    file = report.data.frames[warning.frames[0]].image
    return embed(str(file), [_warning_pictures(report, warning.frames[0], space)])


def _image_kinds(report: SetReport) -> dict[tuple[int, int, int], int]:
    """Images by bits per channel, bits that their values use, and EXIF orientation."""
    images = [frame.image for frame in report.facts.frames.values() if frame.image is not None]
    kinds = Counter((i.bits_stored, i.bits_held, i.orientation) for i in images)
    return dict(sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0])))


def _pictures(
    report: SetReport, index: int, size: tuple[int, int], space: LabelSpace
) -> Iterator[np.ndarray]:
    """Pictures RGB uint8 [*size, 3] of a frame: image, and labels and depth if the set has them."""
    data, files = report.data, report.data.frames[index]
    image = read_image(files.image, data.upright)
    scale = min(size[0] / image.shape[0], size[1] / image.shape[1])
    shape = max(1, round(scale * image.shape[0])), max(1, round(scale * image.shape[1]))
    yield _on_paper(resize_image(image, shape), size)
    if data.read_labels is not None and files.labels is not None:
        labels = resize_nearest(data.read_labels(files.labels), shape)
        yield _on_paper(space.colourise(labels), size)
    if data.depth is not None and files.depth is not None:
        metres = resize_nearest(data.depth.about_metres(data.depth.read(files.depth)), shape)
        yield _on_paper(colour_depth(NEAR / np.maximum(metres, NEAR), metres > 0), size)


def _on_paper(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The picture centred on white of at least the same size."""
    paper = np.full((*size, 3), _PAPER, np.uint8)
    h, w = picture.shape[:2]
    top, left = (size[0] - h) // 2, (size[1] - w) // 2
    paper[top : top + h, left : left + w] = picture
    return paper


def _summary(report: SetReport) -> dict[str, str]:
    kinds, kinds_of = [error.kind for error in report.errors], _image_kinds(report)
    labels, depth = report.labels, report.depth
    sizes = [f"{w}x{h} ({count})" for (h, w), count in report.sizes.items()]
    if len(sizes) > _MAX_SIZES:
        sizes[_MAX_SIZES:] = [f"{len(sizes) - _MAX_SIZES} more"]
    rows = {
        "data set": report.data.name,
        "folder": str(report.data.root),
        "frames": str(len(report.data.frames)),
        "files missing": str(kinds.count("missing")),
        "files unreadable": str(kinds.count("unreadable")),
        "label maps with unknown values": _count(kinds.count("values")),
        "files of another size than their image": str(kinds.count("size")),
        "hidden files skipped": _count(report.hidden),
        "image sizes": "\n".join(sizes) or NO_VALUE,
        "kept by crops for training, %": _share(_kept(report)),
        "bits per channel": "\n".join(_bits(report)) or NO_VALUE,
        "turned by EXIF": _count(sum(n for (*_, turn), n in kinds_of.items() if turn != 1)),
        "ignored, %": _share(labels and labels.ignored_share),
        "with depth, %": _share(depth and depth.share),
        "nearest depth, m": _metres(depth and depth.nearest),
    }
    for percentage in PERCENTILES:
        rows[f"{percentage} % nearer than, m"] = _metres(depth and depth.percentiles[percentage])
    return rows | {"farthest depth, m": _metres(depth and depth.farthest)}


def _kept(report: SetReport) -> float | None:
    """Share of the pixels that are left of images of another shape; None if nothing is cropped."""
    size = report.data.size
    if size is None or report.facts.name == "evaluation" or not report.sizes:
        return None
    shares = [(kept_share(shape, size), count) for shape, count in report.sizes.items()]
    kept = sum(share * count for share, count in shares) / sum(count for _, count in shares)
    return kept if kept < 0.98 else None


def _bits(report: SetReport) -> list[str]:
    """Bits per channel with the number of images; nothing if all images have 8."""
    counts: Counter[str] = Counter()
    for (bits, used, _), count in _image_kinds(report).items():
        counts[f"{bits}" if bits == used else f"{bits}, {used} used"] += count
    return [] if set(counts) == {"8"} else [f"{bits} ({count})" for bits, count in counts.items()]


def _count(count: int) -> str:
    """A row of the summary is left out if its count is 0 in every set."""
    return str(count) if count else NO_VALUE


def _share(share: float | None) -> str:
    """Percent; a small fraction that would round to 0.0 becomes ``< 0.1``."""
    return "< 0.1" if share is not None and 0 < share < 5e-4 else percent(share)


def _metres(metres: float | None) -> str:
    return NO_VALUE if metres is None else f"{metres:.2f}"
