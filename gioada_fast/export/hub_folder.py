"""Writes a folder for the Hugging Face hub: weights, configuration and a model card.

model.safetensors   the weights file of the run, unchanged; ``predict`` and ``evaluate`` take it
config.json         what it was built from, its classes and their colours
README.md           the model card, see ``model_card``
"""

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from .. import __version__, cli
from ..engine.checkpoint import load_weights
from ..errors import InputError
from ..labels import LabelSpace
from .graphs import Graph, TaskGraph
from .model_card import model_card
from .origin import Origin

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"


def write_folder(
    origin: Origin, graph: Graph, space: LabelSpace, trained: tuple[int, int], folder: Path
) -> None:
    """Write the folder, which must not exist; nothing of it stays if that fails.

    Args:
        origin: weights of a run.
        graph: the network.
        space: its classes.
        trained: (H, W) that it was trained at.
        folder: the folder.

    Raises:
        InputError: the weights belong to no run, the run has no scores, or the folder cannot be
            written to.
    """
    card = model_card(origin, isinstance(graph, TaskGraph), space, trained)
    content = _config(origin, space)
    cli.output_folder(str(folder), new=True)
    try:
        shutil.copyfile(origin.weights, folder / WEIGHTS)
        for name, text in ((CONFIG, json.dumps(content, indent=1)), (CARD, card)):
            (folder / name).write_text(text + "\n", encoding="utf-8")
    except BaseException as error:
        remove_folder(folder)
        if isinstance(error, OSError):
            raise InputError(f"{folder}: cannot be written to: {error.strerror}") from error
        raise


def remove_folder(folder: Path) -> None:
    """Remove the files that ``write_folder`` writes, and the folder."""
    for name in (WEIGHTS, CONFIG, CARD):
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def _config(origin: Origin, space: LabelSpace) -> dict[str, Any]:
    """The network's metadata, and names and colours of its classes by train id."""
    _, metadata = load_weights(origin.weights)
    return {
        "library_name": "gioada_fast",
        "gioada_fast_version": __version__,
        **metadata,
        "num_labels": space.num_classes,
        "id2label": {str(index): name for index, name in enumerate(space.classes)},
        "label2id": {name: index for index, name in enumerate(space.classes)},
        "id2color": {str(index): list(colour) for index, colour in enumerate(space.colours)},
        "ignore_index": 255,
    }
