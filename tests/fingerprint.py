"""Shows that a refactoring changes no bit: hashes what tiny runs leave behind.

    python tests/fingerprint.py                  SHA-256 of every artefact of this checkout
    python tests/fingerprint.py --against REV    the same for another commit, and what differs

Every row of the ablation, a run with both phases and other settings, one that is interrupted and
resumed, packs, predictions, translations and scores: all on frames that the street-scene renderer
and this file make, with fixed seeds and one thread. Weights are hashed by name, dtype, shape and
bytes; scores and metrics without times, versions and paths; pictures and packs as files.

Only the command lines are used, so that both commits may have any inner layout. Bits are compared
between two commits on one machine; another processor or PyTorch rounds differently.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from safetensors import safe_open

ROOT = Path(__file__).resolve().parent.parent
HEIGHT, WIDTH = 64, 96
SMALL = {
    "data.height": HEIGHT,
    "data.width": WIDTH,
    "data.source.frames": 6,
    "data.target.frames": 5,
    "data.target.evaluation_frames": 3,
    "model.width": 0.125,
    "model.translation_width": 0.125,
    "model.translation_blocks": 1,
    "model.discriminator_width": 0.125,
    "schedule.source_only_steps": 4,
    "schedule.adaptation_steps": 4,
    "schedule.batch_size": 2,
    "schedule.log_every": 1,
    "schedule.evaluate_every": 2,
    "schedule.panel_every": 4,
    "schedule.checkpoint_every": 2,
}
VOLATILE = {"seconds", "pairs_per_second", "command", "versions", "settings"}


class Checkout:
    """A working copy of the project and the folder that its commands write to.

    Args:
        root: of the working copy.
        folder: every command starts here; relative paths keep it out of the results.
    """

    def __init__(self, root: Path, folder: Path):
        self.root, self.folder = root, folder

    def run(self, module: str, *arguments: object, **settings: object) -> str:
        """What ``python -m gioada_fast.<module>`` prints, run with one thread.

        Raises:
            SystemExit: it failed; with everything that it printed.
        """
        flags = [f"--{name}={value}" for name, value in settings.items()]
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        environment = {**os.environ, **threads, "PYTHONPATH": str(self.root)}
        command = [sys.executable, "-m", f"gioada_fast.{module}", *map(str, arguments), *flags]
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True
        )
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
        return done.stdout


def write_camvid(root: Path, count: int = 4) -> None:
    """Frames in CamVid's layout: coloured stripes with noise, one class a stripe."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        (root / split).mkdir(parents=True)
        (root / f"{split}annot").mkdir()
        for index in range(count):
            rows = np.sort(rng.integers(0, 96, 8))
            labels = np.searchsorted(rows, np.arange(96)).astype(np.uint8)[:, None].repeat(128, 1)
            colours = rng.integers(0, 255, (12, 3))
            image = colours[labels] + rng.normal(0, 20, (96, 128, 3))
            name = f"{index:03d}.png"
            cv2.imwrite(str(root / split / name), image.clip(0, 255).astype(np.uint8))
            cv2.imwrite(str(root / f"{split}annot" / name), labels)


def fingerprint(checkout: Checkout) -> dict[str, str]:
    """SHA-256 of everything that the commands leave behind, by a name."""
    folder = checkout.folder
    write_camvid(folder / "camvid")
    scenes = {"data.source.root": "scenes", "data.target.root": "scenes"}
    camvid = {
        "data.source.root": "scenes",
        "data.target.name": "camvid",
        "data.target.root": "camvid",
    }
    precise = {"precision": "fp32", "data.workers": 0}
    checkout.run("ablate", "--seeds", 0, **SMALL, **camvid, **precise, name="ablation")
    other: dict[str, object] = {
        "adaptation.depth_encoding": "inverse",
        "adaptation.depth_loss": "berhu",
        "adaptation.gan_loss": "hinge",
        "adaptation.self_training": "true",
        "adaptation.half_rendered": "false",
        "data.source.height": 72,
        "data.source.width": 112,
        "schedule.accumulate": 2,
    }
    checkout.run("train", **SMALL, **scenes, **other, name="other")
    checkout.run("data", "pack", **SMALL, **camvid, **{"data.packs": "packs"})
    checkout.run("train", **SMALL, **camvid, **precise, **{"data.packs": "packs"}, name="packed")
    checkout.run(
        "train", **SMALL, **camvid, **precise, **{"model.backbone": "resnet101"}, name="resnet"
    )
    checkout.run("predict", "runs/other", "camvid/val", "--output", "predictions")
    checkout.run("translate", "runs/other", "--output", "translations")
    saved = ("--save-predictions", "official")
    scores = checkout.run("evaluate", "runs/other", "--json", *saved)
    (folder / "scores.json").write_text(scores)
    return dict(sorted(artefacts(folder)))


def artefacts(folder: Path) -> Iterator[tuple[str, str]]:
    """(path, SHA-256) of each file whose content does not depend on the time or the commit."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".safetensors":
            yield name, weights_hash(path)
        elif path.name in ("result.json", "metrics.jsonl", "ablation.json", "scores.json"):
            yield name, records_hash(path)
        elif path.suffix in (".png", ".jpg", ".npy", ".bin"):
            yield name, hashlib.sha256(path.read_bytes()).hexdigest()


def weights_hash(path: Path) -> str:
    """Of all tensors of a file: name, dtype, shape and bytes; not of the header's settings."""
    found = hashlib.sha256()
    with safe_open(path, framework="np") as file:
        for name in sorted(file.keys()):
            tensor = file.get_tensor(name)
            found.update(f"{name} {tensor.dtype} {tensor.shape}".encode())
            found.update(tensor.tobytes())
    return found.hexdigest()


def records_hash(path: Path) -> str:
    """Of JSON records without their volatile fields."""
    text = path.read_text()
    records = [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else text
    records = json.loads(records) if isinstance(records, str) else records
    return hashlib.sha256(json.dumps(_lasting(records), sort_keys=True).encode()).hexdigest()


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _lasting(v) for k, v in value.items() if k not in VOLATILE}
    return [_lasting(v) for v in value] if isinstance(value, list) else value


def of_commit(revision: str, folder: Path) -> dict[str, str]:
    """The fingerprint of another commit, which is checked out and built beside this one."""
    root = folder / "checkout"
    git = ["git", "-C", str(ROOT)]
    subprocess.run([*git, "worktree", "add", "--detach", "--quiet", root, revision], check=True)
    try:
        build = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
        subprocess.run(build, cwd=root, check=True, stdout=subprocess.DEVNULL)
        return fingerprint(Checkout(root, new_folder(folder / "then")))
    finally:
        subprocess.run([*git, "worktree", "remove", "--force", root], check=True)


def new_folder(path: Path) -> Path:
    """Make a folder and return it."""
    path.mkdir()
    return path


def main() -> None:
    """Print the hashes, or what differs from those of another commit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", metavar="REV", help="compare with this commit")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        now = fingerprint(Checkout(ROOT, new_folder(folder / "now")))
        then = of_commit(options.against, folder) if options.against else now
    for path in sorted(now.keys() | then.keys()):
        same = now.get(path) == then.get(path)
        mark = "" if same else f"   DIFFERS: {then.get(path, 'is missing there')}"
        print(f"{now.get(path, 'is missing here'):64}  {path}{mark}")
    changed = sum(now.get(path) != then.get(path) for path in now.keys() | then.keys())
    whole = hashlib.sha256(json.dumps(now, sort_keys=True).encode()).hexdigest()
    print(f"{len(now)} artefacts, {changed} differ; SHA-256 of all: {whole}")
    if changed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
