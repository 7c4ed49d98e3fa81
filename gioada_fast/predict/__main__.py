"""Predict: ``python -m gioada_fast.predict runs/NAME INPUT ... --output FOLDER``.

Inputs are images, videos, folders and zip archives of images. Writes four pictures per image, at
the image's size: NAME_ids.png (train ids), NAME_colour.png, NAME_overlay.png and NAME_depth.png
(near is bright); with --metres also NAME_metres.png, depth in centimetres as 16 bits, which
data.target.depth takes. Of a video it writes NAME_overlay.mp4, or NAME_side-by-side.mp4 with
--video side-by-side. Folders and zip archives are searched with all their subfolders, which the
output folder repeats.

--window makes the network see images in parts, so that its memory does not grow with their size.
"""

from collections.abc import Sequence
from pathlib import Path

from .. import cli
from ..data.files import expand
from ..engine.device import choose_device
from ..engine.networks import load_task
from ..engine.run_folder import find_weights
from ..inference_flags import add_flags, read_flags
from .inputs import find_inputs, other_files, plural
from .outputs import VIDEO_KINDS
from .predictor import Done, Predictor, progress_bars

PROG = "python -m gioada_fast.predict"


def main(arguments: Sequence[str]) -> None:
    """Write pictures of the task network's predictions."""
    parser = cli.Parser(prog=PROG)
    parser.add_argument("model", type=str, help="folder of a run, or a task.safetensors")
    parser.add_argument(
        "inputs", nargs="+", help="images, videos, folders or zip archives of images"
    )
    parser.add_argument("--output", required=True, help="folder to write to")
    parser.add_argument(
        "--weights", default="task", help="weights of a run: task, task_control, task_source_only"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto")
    parser.add_argument(
        "--metres", action="store_true", help="also write NAME_metres.png: depth in centimetres"
    )
    parser.add_argument(
        "--video",
        choices=VIDEO_KINDS,
        default=VIDEO_KINDS[0],
        help="what videos show: an overlay, or frame, classes and depth side by side",
    )
    add_flags(parser)
    options = parser.parse_args(list(arguments))

    task, space, metadata = load_task(
        find_weights(Path(options.model).expanduser(), options.weights)
    )
    inference = read_flags(options, (metadata["size"][0], metadata["size"][1]))
    task = task.to(choose_device(options.device))
    output = expand(options.output, "--output")
    inputs = find_inputs(options.inputs, output)
    cli.output_folder(options.output)
    predictor = Predictor(task, space, options.precision, inference)
    done = Done()
    with progress_bars() as progress:
        encoding = metadata["depth_encoding"] if options.metres else None
        predictor.images(inputs.images, encoding, progress, done)
        predictor.videos(inputs.videos, options.video, progress, done)

    unreadable = done.unreadable_images + done.unreadable_videos
    if unreadable:
        inputs.left["unreadable"] = len(unreadable)
    print(f"{output}: took {_taken(done)}{other_files(inputs.left)}")
    failures = {
        "image": ("cannot be read", done.unreadable_images),
        "video": ("cannot be read", done.unreadable_videos),
        "damaged video": ("read in part", done.damaged_videos),
    }
    lines = [
        line
        for noun, (problem, messages) in failures.items()
        if messages
        for line in (f"{plural(len(messages), noun)} {problem}", *messages)
    ]
    if lines:
        cli.fail("\n".join(lines), status=1)


def _taken(done: Done) -> str:
    taken = []
    if done.images or not done.videos:
        turned = f" ({done.turned} turned as their EXIF data says)" if done.turned else ""
        taken.append(plural(done.images, "image") + turned)
    if done.videos:
        frames, rate = plural(done.frames, "frame"), done.frames / done.seconds
        taken.append(f"{plural(done.videos, 'video')} ({frames}, {rate:.2g} per second)")
    return " and ".join(taken)


if __name__ == "__main__":
    cli.run(main)
