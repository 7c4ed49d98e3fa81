"""Two folders of pictures to a trained network, its predictions, and a file for other programs.

    python examples/own_folder.py --output demo      # draws its pictures itself

For yours (--data), change SETTINGS: {renders,labelled}/{rgb,ids}, renders/depth, photos/rgb.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

IDS = "{0: sky, 7: ground, 9: box}"  # what the values in the label maps mean
SETTINGS = f"""
data:
  label_space: {{name: boxes, classes: {{sky: {{}}, ground: {{}}, box: {{}}}}}}
  source: {{name: folder, images: rgb/*, labels: ids/*, depth: depth/*, depth_per_metre: 100,
           classes: {IDS}}}
  target: {{name: folder, images: rgb/*}}
  height: 64
  width: 96
model: {{width: 0.125, translation_width: 0.125, translation_blocks: 1, discriminator_width: 0.125}}
schedule: {{control: true}}   # trains as long without photos, too: what adaptation must beat
"""


def draw(folder, seed, look):
    """A box on the ground. Photographs (look 1) have other colours than renders (look 0)."""
    rng = np.random.default_rng([seed, look])
    ids, depth = np.zeros((64, 96), np.uint8), np.full((64, 96), 65535, np.uint16)  # 65535: sky
    horizon, x, size = rng.integers(20, 36), rng.integers(0, 66), rng.integers(14, 30)
    ids[horizon:], bottom = 7, min(horizon + size // 2, 63)
    depth[horizon:] = (9000 // (np.arange(64 - horizon) + 3))[:, None]  # centimetres
    ids[bottom - size : bottom, x : x + size] = 9
    depth[bottom - size : bottom, x : x + size] = depth[bottom, 0]
    colours = np.array([(230, 180, 120), (90, 90, 90), (60, 60, 200)])  # BGR
    image = colours[np.searchsorted([0, 7, 9], ids)] + rng.normal(0, 12, (64, 96, 3))
    image = (image * ((0.55, 0.75, 0.95) if look else 1) + 40 * look).clip(0, 255).astype("uint8")
    for name, array in {"rgb": image, "ids": ids, "depth": depth}.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name / f"{seed:04}.png"), array)


def run(command, *words):
    """Run a command of the package; its message says what is wrong if it fails."""
    words = [f"gioada_fast.{command}", *map(str, words)]
    print("\n$ python -m", *words, flush=True)
    if status := subprocess.run([sys.executable, "-m", *words]).returncode:
        sys.exit(status)


parser = argparse.ArgumentParser()
parser.add_argument("--output", type=Path, required=True, help="folder for results")
parser.add_argument("--data", type=Path, help="folder with renders and photos; unset: drawn")
parser.add_argument("--steps", type=int, default=120, help="updates before adaptation, and with it")
parser.add_argument("--format", default="pt2", help="of the file: pt2, onnx or folder")
options = parser.parse_args()
if options.output.is_file():
    parser.error(f"--output {options.output} is a file, expected a folder")
out, data = options.output, options.data or options.output / "data"
out.mkdir(parents=True, exist_ok=True)
(out / "settings.yaml").write_text(SETTINGS)
(out / "ids.yaml").write_text(IDS)
for seed in range(24) if options.data is None else ():
    draw(data / "renders", seed, 0)
    draw(data / "photos", 100 + seed, 1)  # only rgb is used
    draw(data / "labelled", 200 + seed, 1)  # to score on: training never sees them
folders = "--data.source.root", data / "renders", "--data.target.root", data / "photos"
folders += "--runs_dir", out, "--name", "run", "--data.workers", 0  # small files load fast
steps = [f"--schedule.{name}_steps={options.steps}" for name in ("source_only", "adaptation")]
run("train", "--config", out / "settings.yaml", *folders, *steps)
scored = "--target", "folder", "--root", data / "labelled", "--images", "rgb/*"
scored += "--labels", "ids/*", "--classes", out / "ids.yaml", "--weights"
for weights in ("task_control", "task") if (data / "labelled").exists() else ():
    run("evaluate", out / "run", *scored, weights)  # without the photos, then with them
run("predict", out / "run", data / "photos/rgb", "--output", out / "predictions")
run("export", out / "run", "--format", options.format, "--output", out / "network")
