"""Shows that a refactoring changes no bit: hashes the artefacts of tiny runs.

    python tests/fingerprint.py                  SHA-256 of every artefact of this checkout
    python tests/fingerprint.py --against REV    the same, compared with another commit

The runs cover every row of the ablation, both phases with settings other than the defaults, packs,
a ResNet trunk, predictions, translations and scores. Their frames come from the street-scene
renderer and from this file; seeds are fixed, and each run has one thread. Weights are hashed by
name, dtype, shape and bytes; scores and metrics without times, versions and paths; pictures and
packs as files.

Only command lines are used, with settings that both commits know, so the modules of the two may be
laid out differently. Compare on one machine: another processor or PyTorch rounds differently.
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
    """One commit's package, and the folder that its commands write to.

    Args:
        root: folder that has the package ``gioada_fast``.
        folder: working directory of every command. Paths are relative to it, because results
            contain paths and must not depend on the folder's name.
    """

    def __init__(self, root: Path, folder: Path):
        self.root, self.folder = root, folder

    def run(self, module: str, *arguments: object, **settings: object) -> str:
        """Run ``python -m gioada_fast.<module>`` with one thread and return what it prints.

        Raises:
            SystemExit: the command failed; the message has all of its output.
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
    """Write frames in CamVid's layout: coloured stripes with noise, one class per stripe."""
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
    """Run the commands; path → SHA-256 of each artefact."""
    folder = checkout.folder
    write_camvid(folder / "camvid")
    # not the shipped one of each commit, which may have other settings
    (folder / "tiny.yaml").write_text("schedule: {source_only_steps: 4}\n")
    tiny = ("--config", "tiny.yaml")
    scenes = {"data.source.root": "scenes", "data.target.root": "scenes"}
    camvid = {
        "data.source.root": "scenes",
        "data.target.name": "camvid",
        "data.target.root": "camvid",
    }
    precise = {"precision": "fp32", "data.workers": 0}
    checkout.run("ablate", *tiny, "--seeds", 0, **SMALL, **camvid, **precise, name="ablation")
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
    checkout.run("train", *tiny, **SMALL, **scenes, **other, name="other")
    checkout.run("data", "pack", **SMALL, **camvid, **{"data.packs": "packs"})
    checkout.run(
        "train", *tiny, **SMALL, **camvid, **precise, **{"data.packs": "packs"}, name="packed"
    )
    checkout.run(
        "train",
        *tiny,
        **SMALL,
        **camvid,
        **precise,
        **{"model.backbone": "resnet101"},
        name="resnet",
    )
    checkout.run("predict", "runs/other", "camvid/val", "--output", "predictions")
    checkout.run("translate", "runs/other", "--output", "translations")
    saved = ("--save-predictions", "official")
    scores = checkout.run("evaluate", "runs/other", "--json", *saved)
    (folder / "scores.json").write_text(scores)
    return dict(sorted(artefacts(folder)))


def artefacts(folder: Path) -> Iterator[tuple[str, str]]:
    """(path, SHA-256) of each file whose content does not depend on time or commit."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".safetensors":
            yield name, weights_hash(path)
        elif path.name in ("result.json", "metrics.jsonl", "ablation.json", "scores.json"):
            yield name, records_hash(path)
        elif path.suffix in (".png", ".jpg", ".npy", ".bin"):
            yield name, hashlib.sha256(path.read_bytes()).hexdigest()


def weights_hash(path: Path) -> str:
    """SHA-256 over name, dtype, shape and bytes of a file's tensors, without its header."""
    digest = hashlib.sha256()
    with safe_open(path, framework="np") as file:
        for name in sorted(file.keys()):
            tensor = file.get_tensor(name)
            digest.update(f"{name} {tensor.dtype} {tensor.shape}".encode())
            digest.update(tensor.tobytes())
    return digest.hexdigest()


def records_hash(path: Path) -> str:
    """SHA-256 of JSON records without the fields in ``VOLATILE``."""
    text = path.read_text()
    records = [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else text
    records = json.loads(records) if isinstance(records, str) else records
    return hashlib.sha256(json.dumps(_stable(records), sort_keys=True).encode()).hexdigest()


def _stable(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _stable(v) for k, v in value.items() if k not in VOLATILE}
    return [_stable(v) for v in value] if isinstance(value, list) else value


def of_commit(revision: str, folder: Path) -> dict[str, str]:
    """The fingerprint of another commit: check it out in a git worktree, install it, run it.

    It is built as ``make venv`` builds this checkout, and its kernels are required if this checkout
    has them, so that both run on the same back end.
    """
    worktree, installed = folder / "worktree", folder / "installed"
    native = any((ROOT / "gioada_fast").glob("_C*.so"))
    environment = {**os.environ, "GIOADA_REQUIRE_NATIVE": "1"} if native else None
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--detach", "--quiet", worktree, revision], check=True)
    try:
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
        subprocess.run([*install, installed, worktree], check=True, env=environment)
    finally:
        subprocess.run([*git, "remove", "--force", worktree], check=True)
    return fingerprint(Checkout(installed, new_folder(folder / "then")))


def new_folder(path: Path) -> Path:
    """Make a folder and return it."""
    path.mkdir()
    return path


def main() -> None:
    """Print the hashes; with ``--against``, mark those that differ and exit with status 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", metavar="REV", help="compare with this commit")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        now = fingerprint(Checkout(ROOT, new_folder(folder / "now")))
        then = of_commit(options.against, folder) if options.against else now
    for path in sorted(now.keys() | then.keys()):
        same = now.get(path) == then.get(path)
        mark = "" if same else f"   DIFFERS: {then.get(path, 'missing there')}"
        print(f"{now.get(path, 'missing here'):64}  {path}{mark}")
    changed = sum(now.get(path) != then.get(path) for path in now.keys() | then.keys())
    whole = hashlib.sha256(json.dumps(now, sort_keys=True).encode()).hexdigest()
    print(f"{len(now)} artefacts, {changed} differ; SHA-256 of all: {whole}")
    if changed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
