"""Classes of your own: a label space and class maps in own_classes.yaml, training, and scores.

    python examples/own_classes.py --output workbench

Draws screws and washers on a table into the folder, trains, and prints the IoU of these classes.
docs/label_spaces.md explains label spaces and class maps.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
from safetensors import safe_open

SETTINGS = Path(__file__).resolve().with_name("own_classes.yaml")
IDS = np.array([0, 300, 301, 999], np.uint16)  # of the drawn label maps: see own_classes.yaml
COLOURS = np.array([(200, 200, 200), (0, 0, 255), (255, 0, 0), (0, 0, 0)], np.uint8)  # RGB


def draw(seed, photo):
    """A picture [H, W, 3], and for each pixel 0 table, 1 screw, 2 washer or 3 unknown."""
    rng = np.random.default_rng([seed, photo])
    kinds = np.zeros((64, 96), np.uint8)
    for kind in rng.integers(1, 3, 6):
        x, y = (int(v) for v in rng.integers(10, (86, 54)))
        if kind == 1:
            cv2.rectangle(kinds, (x - 8, y - 2), (x + 8, y + 2), 1, -1)
        else:
            cv2.circle(kinds, (x, y), 7, 2, 4)  # a ring
    image = np.array([(130, 160, 190), (150, 140, 70), (70, 70, 200)])[kinds]  # BGR
    kinds[:3] = 3  # the edge of the table is not labelled
    image = image * (0.8, 0.9, 1.0) - 20 if photo else image
    return (image + rng.normal(0, 12, image.shape)).clip(0, 255).astype(np.uint8), kinds


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), array)


def run(command, *words):
    """Run a command of the package; its message says what is wrong if it fails."""
    words = [f"gioada_fast.{command}", *map(str, words)]
    print("\n$ python -m", *words, flush=True)
    if status := subprocess.run([sys.executable, "-m", *words]).returncode:
        sys.exit(status)


parser = argparse.ArgumentParser()
parser.add_argument("--output", type=Path, required=True, help="folder for pictures and results")
parser.add_argument("--steps", type=int, default=150, help="updates before adaptation, and with it")
options = parser.parse_args()
if options.output.is_file():
    parser.error(f"--output {options.output} is a file, expected a folder")
options.output.mkdir(parents=True, exist_ok=True)
os.chdir(options.output)
for seed in range(24):
    image, kinds = draw(seed, photo=0)
    write(Path(f"drawn/rgb/{seed:03}.png"), image)
    write(Path(f"drawn/ids/{seed:03}.png"), IDS[kinds])  # 16 bits
    write(Path(f"photos/train/{seed:03}.png"), draw(seed, photo=1)[0])  # without labels
    image, kinds = draw(100 + seed, photo=1)
    write(Path(f"photos/val/{seed:03}.png"), image)
    write(Path(f"photos/val_colours/{seed:03}.png"), COLOURS[kinds][..., ::-1])

steps = [f"--schedule.{name}_steps={options.steps}" for name in ("source_only", "adaptation")]
run("train", "--config", SETTINGS, *steps, "--runs_dir", ".", "--name", "run")
run("evaluate", "run", "--save-predictions", "ids")  # PNGs of the ids 1, 10 and 20
with safe_open("run/task.safetensors", "pt") as weights:
    about = json.loads(weights.metadata()["gioada_fast"])
print("the weights know their classes:", ", ".join(about["label_space"]["classes"]))
