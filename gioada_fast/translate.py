"""Translate: ``python -m gioada_fast.translate runs/NAME --output FOLDER``.

Translates the source images of a run with its translation network. Writes the folders images/,
labels/ (train ids, 255 is ignored) and depth/ (16-bit PNGs in centimetres, 0 means no depth), with
one PNG per frame in each, so that any other program can train on them.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from . import cli
from .data.files import LabelledFrame
from .data.sets import source_frames
from .engine.device import choose_device
from .engine.inference import image_tensor, translate_images
from .engine.networks import load_translation
from .engine.run_folder import TRANSLATION, RunFolder, find_weights
from .errors import InputError
from .report.panels import save_image

PROG = "python -m gioada_fast.translate"


def main(arguments: Sequence[str]) -> None:
    """Write the translated source set."""
    parser = cli.Parser(prog=PROG)
    parser.add_argument("run", type=str, help="folder of a run")
    parser.add_argument("--output", required=True, help="folder to write to; must not exist yet")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto")
    options = parser.parse_args(list(arguments))

    run = RunFolder(Path(options.run).expanduser())
    config = cli.read_config(run.config, PROG)
    translation, metadata = load_translation(find_weights(run.path, TRANSLATION))
    translation = translation.to(choose_device(options.device))
    source = source_frames(config.data)
    output = cli.output_folder(options.output, new=True)
    for kind in ("images", "labels", "depth"):
        cli.output_folder(str(output / kind))
    console = Console(stderr=True)
    indices, unreadable = range(len(source)), []
    for index in track(indices, description="translate", console=console, transient=True):
        try:
            # copies, because PyTorch warns about the read-only arrays of a pack
            frame = LabelledFrame(*map(np.array, source[index]))
        except InputError as error:
            unreadable.append(str(error))
            continue
        image = translate_images(
            translation,
            image_tensor(frame.image[np.newaxis]),
            torch.from_numpy(frame.depth)[None, None],
            torch.from_numpy(frame.labels)[None],
            metadata["depth_encoding"],
            options.precision,
        )[0]
        centimetres = (frame.depth * 100).round().astype(np.uint16)
        for kind, array in (("images", image), ("labels", frame.labels), ("depth", centimetres)):
            save_image(output / kind / f"{index:06d}.png", array)
    print(f"{len(source) - len(unreadable)} frames: {output}")
    if unreadable:
        cli.fail("\n".join([f"{len(unreadable)} frames cannot be read", *unreadable]), status=1)


if __name__ == "__main__":
    cli.run(main)
