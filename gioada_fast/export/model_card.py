"""The model card of an exported network, written from the files of its run.

The spread of the scores comes from runs beside it that differ by the seed alone: other folders in
the same one, or the same row of an ablation with other seeds.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..config import CONTROL, Config, changed_setting
from ..data import registry
from ..depth import NEAR
from ..engine.run_folder import TASK_BEST, TASK_CONTROL, TASK_SOURCE_ONLY, RunFolder
from ..errors import InputError
from ..labels import FAR, LabelSpace
from ..report.formatting import NO_VALUE, percent, points, settings_by_section
from .origin import Origin

_COLUMNS = {TASK_SOURCE_ONLY: "source only", TASK_CONTROL: CONTROL}
"""Columns of the result by the weights that they score; the last one scores all other weights."""
_WEAK = 0.2
"""IoU below which the card names a class among the limits."""
_PRIVATE = (
    "name",
    "runs_dir",
    "device",
    "seed",
    "data.workers",
    "data.packs",
    "model.trunk_config",
)
"""Settings that say nothing about the network, or that the card has elsewhere."""
_PATHS = ("root", "images", "labels", "depth", "pretrained", "init_from")
"""Settings with paths, of which the card shows the last part alone."""


def model_card(origin: Origin, is_task: bool, space: LabelSpace, trained: tuple[int, int]) -> str:
    """The card as Markdown with the hub's metadata.

    Args:
        origin: weights of a run.
        is_task: whether they belong to the task network, otherwise to the translation network.
        space: classes of the network.
        trained: (H, W) that it was trained at.

    Raises:
        InputError: the weights belong to no run, or the run has no scores.
    """
    if origin.run is None or origin.config is None:
        raise InputError(
            f"--format folder writes a card with the scores of a run, but {origin.weights} is a "
            "file: give the folder of the run"
        )
    result = origin.run.read_result()
    if result is None:
        raise InputError(f"{origin.run.result}: no such file, so the card would have no scores")
    others = list(_other_seeds(origin.run, origin.config))
    name = origin.run.path.resolve().name
    parts = [
        _metadata(is_task),
        f"# {name}",
        _summary(is_task, result, space, trained),
        _loading(is_task, trained),
        _classes(space),
        _data(result),
        _scores(origin, is_task, result, others),
        _limits(origin, is_task, result, others, trained),
        _licence(origin.config),
        _settings(origin.config, result),
    ]
    return "\n\n".join(parts)


def _metadata(is_task: bool) -> str:
    kind = "image-segmentation" if is_task else "image-to-image"
    tags = ["semantic-segmentation", "depth-estimation", "domain-adaptation", "pytorch"]
    lines = ["---", "library_name: gioada_fast", f"pipeline_tag: {kind}", "license: other"]
    return "\n".join([*lines, "license_name: see-below", "tags:", *(f"- {t}" for t in tags), "---"])


def _summary(
    is_task: bool, result: Mapping[str, Any], space: LabelSpace, trained: tuple[int, int]
) -> str:
    method = (
        "It was trained with [GIO-Ada](https://arxiv.org/abs/1812.05040), which adapts a network "
        "from synthetic images with labels to real images without, in the package gioada_fast."
    )
    if is_task:
        return (
            f"Semantic segmentation into {space.num_classes} classes ({space.name}) and depth in "
            f"metres from one RGB image. {method} Images were {trained[1]}x{trained[0]} pixels."
        )
    return (
        "Translates synthetic images, with their depth and labels, to the look of "
        f"{result['target']}. {method}"
    )


def _loading(is_task: bool, trained: tuple[int, int]) -> str:
    height, width = trained
    task = f"""\
import numpy as np
from PIL import Image
from huggingface_hub import snapshot_download
from pathlib import Path
from gioada_fast.engine.inference import image_tensor, predict_maps
from gioada_fast.engine.networks import load_task
folder = Path(snapshot_download("NAME/OF-THIS-REPOSITORY"))  # or a folder on disk
task, space, metadata = load_task(folder / "model.safetensors")
image = np.array(Image.open("street.jpg").convert("RGB").resize(({width}, {height})))
labels, depth = predict_maps(task, image_tensor(image[None]))  # train ids, encoded depth
Image.fromarray(space.colourise(labels[0])).save("segmentation.png")"""
    translation = """\
from huggingface_hub import snapshot_download
from pathlib import Path
from gioada_fast.engine.inference import translate_images
from gioada_fast.engine.networks import load_translation
folder = Path(snapshot_download("NAME/OF-THIS-REPOSITORY"))  # or a folder on disk
translation, metadata = load_translation(folder / "model.safetensors")
# images uint8 [N, 3, H, W], metres float32 [N, 1, H, W], train ids uint8 [N, H, W]
pictures = translate_images(translation, images, metres, labels, metadata["depth_encoding"])"""
    command = (
        "\n\nOr without a program: `python -m gioada_fast.predict model.safetensors street.jpg "
        "--output predictions`."
    )
    code = task if is_task else translation
    return f"## Use\n\n```python\n{code}\n```{command if is_task else ''}"


def _classes(space: LabelSpace) -> str:
    rows = [
        f"| {index} | {_cell(name)} | {', '.join(map(str, colour))} |"
        for index, (name, colour) in enumerate(zip(space.classes, space.colours, strict=True))
    ]
    return "\n".join(["## Classes", "", "| id | class | colour (RGB) |", "|---|---|---|", *rows])


def _data(result: Mapping[str, Any]) -> str:
    sources = result.get("sources") or ["not recorded by the version that trained it"]
    lines = [f"- Source, with labels: {source}" for source in sources]
    return "\n".join(["## Data", "", *lines, f"- Scored on: {result['target']}"])


def _scores(
    origin: Origin, is_task: bool, result: Mapping[str, Any], others: Sequence[Mapping[str, Any]]
) -> str:
    lines = ["## Scores", ""]
    if origin.name == TASK_BEST and "best" in result:
        best = result["best"]
        return "\n".join(
            [
                *lines,
                f"mIoU {percent(best['miou'])} %: these are the weights of step {best['step']}, "
                f"which the label-free score {best['score']} prefers.",
            ]
        )
    if not is_task:
        lines += ["Of the task network that was trained on its images:", ""]
    column = scored_column(origin, result)
    names = [each["name"] for each in result["columns"]]
    shown = names[: names.index(column["name"]) + 1]
    results = [result, *others]
    lines += [f"| IoU in % | {' | '.join(shown)} |", "|---" * (len(shown) + 1) + "|"]
    for name in result["classes"]:
        cells = [_spread([_named(r, key)["iou"][name] for r in results]) for key in shown]
        lines.append(f"| {_cell(name)} | {' | '.join(cells)} |")
    cells = [_spread([_named(r, key)["miou"] for r in results]) for key in shown]
    lines += [f"| **mIoU** | {' | '.join(cells)} |", ""]
    lines.append(f"Pixel accuracy: {percent(column['pixel_accuracy'])} %.")
    if len(shown) > 1 and shown[-2] == CONTROL:
        gains = [_gain(_named(r, shown[-1]), _named(r, CONTROL)) for r in results]
        each = ", ".join(points(gain) for gain in gains)
        lines.append(f"Gain over a control that trained as long on the source: {each} points.")
    depth = column.get("depth")
    if depth is not None:
        lines.append(
            f"Depth: mean relative error {depth['abs_rel']:.3f}, RMSE {depth['rmse']:.2f} m, "
            f"{percent(depth['delta_1_25'])} % of the pixels within 25 %."
        )
    seeds = len(results)
    lines.append(
        f"Means over {seeds} runs that differ by the seed, ± sample standard deviation."
        if seeds > 1
        else "One run: how much the scores vary from seed to seed was not measured."
    )
    return "\n".join(lines)


def scored_column(origin: Origin, result: Mapping[str, Any]) -> Mapping[str, Any]:
    """The column of a result with the scores of the exported weights."""
    columns: Sequence[Mapping[str, Any]] = result["columns"]
    name = _COLUMNS.get(origin.name)
    return next((c for c in columns if c["name"] == name), columns[-1])


def _limits(
    origin: Origin,
    is_task: bool,
    result: Mapping[str, Any],
    others: Sequence[Mapping[str, Any]],
    trained: tuple[int, int],
) -> str:
    column = scored_column(origin, result)
    weak = [name for name, iou in column["iou"].items() if iou is not None and iou < _WEAK]
    unseen = [name for name, iou in column["iou"].items() if iou is None]
    limits = [
        f"It saw images of {trained[1]}x{trained[0]} pixels; things of other sizes in pixels are "
        "recognised less well.",
        f"The scores hold for {result['target']}; other places, cameras and weather were not "
        "measured.",
    ]
    if is_task:
        limits.append(f"Depth is between {NEAR:g} and {FAR:g} m; farther and nearer is cut.")
        if column.get("depth") is None:
            limits.append("Its depth was not scored.")
    if "stand-in" in result["target"]:
        limits.append("The target is rendered, so the scores say nothing about real images.")
    if weak:
        limits.append(f"Hardly recognised (IoU below {percent(_WEAK)} %): {', '.join(weak)}.")
    if unseen:
        limits.append(f"Never scored: {', '.join(unseen)}.")
    if not others:
        limits.append("One seed only: another seed may be better or worse by a few points.")
    limits.append("It was not made for decisions on which safety depends.")
    return "\n".join(["## Limits", "", *(f"- {limit}" for limit in limits)])


def _licence(config: Config) -> str:
    data = config.data
    sources = [registry.find(source.name, "source") for source in data.named_sources().values()]
    target = registry.find(data.target.name, "target")
    used = {reader.name: (reader, "source") for reader in sources}
    used.setdefault(target.name, (target, "target"))
    lines = [f"- {reader.title} ({side}): {reader.licence}" for reader, side in used.values()]
    if config.model.pretrained:
        lines.append(f"- Pretrained trunk, {_last(config.model.pretrained)}: see its own terms")
    return "\n".join(
        [
            "## Licence",
            "",
            "The network was made from the data below. Whoever publishes it must choose a licence "
            "that their terms allow, and write it into the first lines of this file:",
            "",
            *lines,
        ]
    )


def _settings(config: Config, result: Mapping[str, Any]) -> str:
    """The settings that differ from the defaults, and versions."""
    default = _dotted(asdict(Config()))
    lines = [
        f"{name}: {_last(value) if name.rpartition('.')[2] in _PATHS else value}"
        for name, value in _dotted(asdict(config)).items()
        if value != default.get(name) and not name.startswith(_PRIVATE)
    ]
    versions = ", ".join(f"{key} {value}" for key, value in result["versions"].items())
    settings = "\n".join([f"seed: {config.seed}", *lines])
    return (
        "## Settings\n\nThose that differ from the package's defaults:\n\n"
        f"```\n{settings}\n```\n\nTrained in {result['seconds'] / 60:.0f} minutes with {versions}."
    )


def _dotted(settings: Mapping[str, Any]) -> dict[str, str]:
    return {
        name if section == "run" else f"{section}.{name}": value
        for section, pairs in settings_by_section(settings).items()
        for name, value in pairs
    }


def _other_seeds(run: RunFolder, config: Config) -> Iterator[Mapping[str, Any]]:
    """Results of finished runs beside this one with the same settings and other seeds."""
    own = run.path.resolve()
    folders = [*own.parent.iterdir(), *own.parent.parent.glob(f"seed*/{own.name}")]
    seeds = {config.seed}
    for path in sorted({folder.resolve() for folder in folders if folder.is_dir()} - {own}):
        other = RunFolder(path)
        if not other.config.is_file() or not other.report.is_file():
            continue
        try:
            settings = other.read_settings()
            seed = int(settings["seed"])
            same = changed_setting(settings, asdict(replace(config, seed=seed))) is None
            result = other.read_result()
        except (InputError, TypeError, KeyError, ValueError):
            continue  # not a run, or one of another version
        if seed in seeds or not same or result is None:
            continue
        names = [column["name"] for column in result["columns"]]
        own_result = run.read_result()
        if own_result is None or names != [column["name"] for column in own_result["columns"]]:
            continue
        seeds.add(seed)
        yield result


def _named(result: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    column: Mapping[str, Any] = next(c for c in result["columns"] if c["name"] == name)
    return column


def _spread(values: Sequence[float | None]) -> str:
    """Mean, with the sample standard deviation of several."""
    present = [value for value in values if value is not None]
    if not present:
        return NO_VALUE
    mean = percent(float(np.mean(present)))
    return mean if len(present) == 1 else f"{mean} ±{percent(float(np.std(present, ddof=1)))}"


def _gain(column: Mapping[str, Any], control: Mapping[str, Any]) -> float | None:
    if column["miou"] is None or control["miou"] is None:
        return None
    return float(column["miou"] - control["miou"])


def _last(path: str) -> str:
    """The last part of an absolute path; names on the hub and patterns stay."""
    return Path(path).name if path.startswith(("/", "~")) else path


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
