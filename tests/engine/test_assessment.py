"""Label-free scores against plain formulas in float64, correlations, and runs that use them."""

import itertools
import json
import math
import shutil
import signal
from typing import get_args
from unittest import mock

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from gioada_fast.config import LabelFreeScore
from gioada_fast.engine.assessment import (
    SCORES,
    assess,
    check_defined,
    correlate,
    mean_score,
    pearson,
    photometric_changes,
    soft_neighbourhood_density,
    spearman,
)
from gioada_fast.engine.candidates import find_candidates
from gioada_fast.engine.checkpoint import load_checkpoint
from gioada_fast.engine.step import Step
from gioada_fast.errors import InputError
from gioada_fast.labels import label_space

from ..commands import command
from ..miniature import flags, write_camvid, write_street_scenes
from .test_trainer import assert_equal

SPACE = label_space("camvid11")
SKY, ROAD = SPACE.classes.index("sky"), SPACE.classes.index("road")
SIZE = (24, 32)


class Linear(nn.Module):
    """A task network whose outputs are linear in the colours of every eighth pixel."""

    def __init__(self, seed, scale=3.0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        weight = scale * torch.randn(SPACE.num_classes + 1, 3, 1, 1, generator=generator)
        self.weight = nn.Parameter(weight)

    def forward(self, image):
        out = F.conv2d(image[:, :, ::8, ::8], self.weight.to(image.dtype))
        return out[:, :-1], out[:, -1:]

    def exact(self, image):
        """Logits and depth in float64 of an image uint8 [H, W, 3]."""
        x = torch.from_numpy(image.astype(np.float64) / 127.5 - 1).permute(2, 0, 1)[None]
        logits, depth = self(x)
        return logits.detach(), depth.detach()


class Painted(nn.Module):
    """A task network that predicts given labels and encoded depth, whatever it sees."""

    def __init__(self, labels, depth):
        super().__init__()
        one_hot = F.one_hot(torch.tensor(labels), SPACE.num_classes).permute(2, 0, 1).float()
        self.logits = nn.Parameter(9 * one_hot[None])
        self.nearness = nn.Parameter(torch.tensor(depth, dtype=torch.float32)[None, None])

    def forward(self, image):
        n = len(image)
        return self.logits.expand(n, -1, -1, -1), self.nearness.expand(n, -1, -1, -1)


def pictures(count=3):
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (count, 6, 8, 3), np.uint8)
    return [cv2.resize(picture, SIZE[::-1], interpolation=cv2.INTER_LINEAR) for picture in small]


def full(logits):
    return F.interpolate(logits, SIZE, mode="bilinear", align_corners=True)[0]


def plain_scores(task, teacher, image):
    """Every score but depth by its formula, in float64."""
    p = full(task.exact(image)[0]).softmax(0).numpy()
    h = lambda q: -(q * np.log(q)).sum(0) / math.log(len(q))  # noqa: E731
    labels = p.argmax(0)

    def invariance(picture, back=1):
        q = full(task.exact(picture)[0]).softmax(0).numpy()[:, :, ::back]
        return np.where(q.argmax(0) == labels, np.sqrt(p.max(0) * q.max(0)), 0).mean()

    x = image.astype(np.float64)
    mean, grey = x.mean(), x.mean(2, keepdims=True)
    changed = [0.7 * x, 1.3 * x, mean + 0.6 * (x - mean), grey + 0.5 * (x - grey)]
    changed = [np.rint(y).clip(0, 255).astype(np.uint8) for y in changed]
    small = task.exact(image)[0][0].softmax(0).flatten(1).T.numpy()
    return {
        "entropy": h(p).mean(),
        "confidence": p.max(0).mean(),
        "information": h(p.mean((1, 2))) - h(p).mean(),
        "nuclear": np.linalg.svd(small)[1].sum() / math.sqrt(len(small) * min(small.shape)),
        "flip": invariance(image[:, ::-1], back=-1),
        "photometric": np.mean([invariance(picture) for picture in changed]),
        "snd": plain_snd(small),
        "teacher": (full(teacher.exact(image)[0]).numpy().argmax(0) == labels).mean(),
    }


def plain_snd(p):
    total = 0.0
    f = p / np.sqrt((p * p).sum(1, keepdims=True))
    for i in range(len(f)):
        weights = [math.exp(f[i] @ f[j] / 0.05) for j in range(len(f)) if j != i]
        total -= sum(w / sum(weights) * math.log(w / sum(weights)) for w in weights)
    return total / len(f)


def test_the_names_of_the_settings_are_those_of_the_scores():
    assert set(get_args(LabelFreeScore)) == set(SCORES)


def test_scores_agree_with_their_formulas_in_float64():
    task, teacher, images = Linear(0), Linear(1), pictures()
    # a teacher that agrees with half of what the student says
    teacher.weight.data = 0.7 * task.weight.data + 0.3 * teacher.weight.data
    task.train()
    found = assess(task, images, SPACE, "fp32", teacher)
    assert task.training and all(values.dtype == np.float64 for values in found.values())
    for index, image in enumerate(images):
        for name, value in plain_scores(task, teacher, image).items():
            assert found[name][index] == pytest.approx(value, abs=1e-5), name
    assert 0.2 < found["teacher"].mean() < 1 and 0.2 < found["photometric"].mean() < 1
    alone = assess(task, images, SPACE, "fp32", names=["flip", "teacher"])
    assert list(alone) == ["flip", "teacher"] and np.isnan(alone["teacher"]).all()
    np.testing.assert_array_equal(alone["flip"], found["flip"])
    assert math.isnan(mean_score(alone["teacher"]))


def test_soft_neighbourhood_density_is_highest_where_all_pixels_are_alike():
    alike = torch.full((50, 4), 0.25)
    assert float(soft_neighbourhood_density(alike)) == pytest.approx(math.log(49), abs=1e-5)
    apart = torch.eye(4).repeat_interleave(2, 0)  # every pixel has one neighbour
    assert float(soft_neighbourhood_density(apart)) < 1e-4


def test_photometric_changes_keep_grey_and_are_whole_numbers():
    image = torch.full((1, 3, 2, 2), 100, dtype=torch.uint8)
    darker, brighter, contrast, colour = (int(c[0, 0, 0, 0]) for c in photometric_changes(image))
    assert (darker, brighter, contrast, colour) == (70, 130, 100, 100)


N = -1  # another class
DEPTH_CASES = {
    # sky at nearness 0.1 is farther than half of the others, sky at 0.9 is not
    "sky": ([[SKY, SKY], [N, N]], [[0.1, 0.9], [0.5, 0.6]], 1 / 2),
    # two pairs of road, of which one falls
    "road": ([[N, N], [ROAD, ROAD], [ROAD, ROAD]], [[0, 0], [0.4, 0.4], [0.5, 0.3]], 1 / 2),
    "both": ([[SKY, SKY], [ROAD, N], [ROAD, N]], [[0, 0], [0.4, 0.4], [0.5, 0.3]], 3 / 3),
    "neither": ([[N, N], [N, ROAD]], [[0, 0], [0, 0]], math.nan),
    "sky alone": ([[SKY, SKY], [SKY, SKY]], [[0, 0], [0, 0]], 0.0),
    "flat road": ([[ROAD, N], [ROAD, N]], [[0.4, 0], [0.4, 0]], 0.0),
}


@pytest.mark.parametrize("case", DEPTH_CASES)
def test_sky_is_far_and_road_falls(case):
    labels, depth, expected = DEPTH_CASES[case]
    task = Painted(np.where(np.asarray(labels) == N, SKY + 1, labels), depth)
    (found,) = assess(task, pictures(1), SPACE, "fp32", names=["depth"])["depth"]
    assert found == pytest.approx(expected, nan_ok=True)


def test_correlations_are_those_of_values_and_ranks():
    x, y = np.array([1.0, 2.0, 2.0, 10.0]), np.array([0.1, 0.3, 0.2, 0.25])
    assert pearson(x, y) == pytest.approx(np.corrcoef(x, y)[0, 1])
    # ranks 0, 1.5, 1.5, 3 and 0, 3, 1, 2
    assert spearman(x, y) == pytest.approx(np.corrcoef([0, 1.5, 1.5, 3], [0, 3, 1, 2])[0, 1])
    assert pearson(x, np.ones(4)) is None and spearman(x[:1], y[:1]) is None

    runs = ["a", "a", "a", "b", "b", "b"]
    mious = [0.1, 0.2, 0.3, 0.7, 0.6, math.nan]
    found = correlate("entropy", [0.9, 0.8, 0.7, 0.2, math.nan, 0.1], mious, runs)
    assert found.networks == 4 and found.spearman == found.spearman_within == pytest.approx(1)
    assert found.preferred_miou == 0.7
    assert correlate("confidence", [math.nan] * 6, mious, runs).preferred_miou is None


@pytest.mark.parametrize(
    ("name", "space", "words"),
    [
        ("teacher", "camvid11", "setting is teacher, but the run has none"),
        ("depth", {"name": "two", "classes": {"rest": {"of": ["sky", "road"]}, "car": {}}},
         "label space two has neither"),
    ],
)  # fmt: skip
def test_a_score_that_a_run_cannot_have_is_refused(name, space, words):
    with pytest.raises(InputError, match=words):
        check_defined(name, label_space(space), has_teacher=False, setting="setting")
    check_defined("depth", SPACE, has_teacher=False, setting="setting")


# ---------------------------------------------------------------------------- runs

STEPS = {
    "schedule.source_only_steps": 1,
    "schedule.adaptation_steps": 2,
    "schedule.evaluate_every": 1,
    "schedule.log_every": 1,
    "schedule.panel_every": 9,
    "adaptation.self_training": "true",
    "adaptation.input_level": "none",
    "adaptation.output_level": "none",
}
KEEPING = {"schedule.keep_best": "teacher", "schedule.keep_evaluated": "true"}


def train(world, name, **settings):
    given = flags(world / "scenes", world / "runs", **{**STEPS, **settings, "name": name})
    return command("train", *given, cwd=world)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Miniature data; a run that keeps weights, one that keeps none, and a stopped one, resumed."""
    folder = tmp_path_factory.mktemp("assess")
    write_street_scenes(folder / "scenes")
    write_camvid(folder / "camvid")
    for name, settings in (("keeping", KEEPING), ("plain", {})):
        done = train(folder, name, **settings)
        assert done.returncode == 0, done.stderr
        (folder / f"{name}.log").write_text(done.stdout)
    return folder


def test_keeping_weights_changes_no_weight(world):
    keeping, plain = (world / "runs" / name for name in ("keeping", "plain"))
    for name in ("task", "task_source_only"):
        assert_equal(
            load_file(keeping / f"{name}.safetensors"),
            load_file(plain / f"{name}.safetensors"),
            name,
        )
    assert not (plain / "kept").exists() and not (plain / "task_best.safetensors").exists()
    ours, theirs = (load_checkpoint(r / "checkpoints" / "last.pt") for r in (keeping, plain))
    for part in ("networks", "optimisers", "rng", "step"):
        assert_equal(ours[part], theirs[part], part)


def test_the_best_weights_are_those_of_the_evaluation_that_the_score_prefers(world):
    run = world / "runs" / "keeping"
    records = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    values = {r["step"]: r["label_free/teacher"] for r in records if "label_free/teacher" in r}
    assert list(values) == [2, 3]  # of the last phase alone
    best = json.loads((run / "result.json").read_text())["best"]
    assert best["value"] == max(values.values()) == values[best["step"]]
    assert best["score"] == "teacher" and best["phase"] == "adaptation" and 0 <= best["miou"] <= 1
    kept = load_file(run / "kept" / f"adaptation_{best['step']:06d}.safetensors")
    assert_equal(load_file(run / "task_best.safetensors"), kept, "task_best")
    for text in ((world / "keeping.log").read_text(), (run / "report.html").read_text()):
        assert f"task_best has the weights of step {best['step']}" in text
    assert "Label-free score: teacher" in (run / "report.html").read_text()
    done = command("evaluate", run, "--weights", "task_best", "--json", cwd=world)
    assert json.loads(done.stdout)["miou"] == pytest.approx(best["miou"], abs=1e-12)


def test_a_run_stopped_after_every_update_keeps_the_same_weights(world):
    update, unbroken = Step.__call__, world / "runs" / "keeping"
    run = world / "runs" / "stopped"

    def interrupted(self, batches):
        signal.raise_signal(signal.SIGINT)
        return update(self, batches)

    with mock.patch.object(Step, "__call__", interrupted):
        assert train(world, "stopped", **KEEPING).returncode == 130
        assert command("train", "--resume", run, cwd=world).returncode == 130
    # a killed process may have written weights that its checkpoint does not know
    shutil.copy(run / "task_source_only.safetensors", run / "task_best.safetensors")
    done = command("train", "--resume", run, cwd=world)
    assert done.returncode == 0, done.stderr
    names = sorted(str(path.relative_to(unbroken)) for path in unbroken.rglob("*.safetensors"))
    assert len(names) == 3 + 3 + 2  # the phases' ends, evaluations and teachers
    for name in names:
        assert_equal(load_file(run / name), load_file(unbroken / name), name)
    bests = [json.loads((r / "result.json").read_text())["best"] for r in (run, unbroken)]
    assert bests[0] == bests[1]


def test_assess_scores_runs_files_and_checkpoints_and_correlates_them(world):
    run = world / "runs" / "keeping"
    out = world / "out"
    done = command("assess", run, "--correlate", "--json", "--output", out, cwd=world)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary == json.loads((out / "assessment.json").read_text())
    networks = summary["networks"]
    assert [(n["phase"], n["step"]) for n in networks] == [
        ("source_only", 1), ("adaptation", 2), ("adaptation", 3),
    ]  # fmt: skip
    assert [n["scores"]["teacher"] is None for n in networks] == [True, False, False]
    assert summary["images"] == 5 and len(networks[0]["least_sure"]) == 5
    records = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    evaluated = {(r["phase"], r["step"]): r for r in records if "eval/miou" in r}
    for network in networks:
        record = evaluated[network["phase"], network["step"]]
        assert network["miou"] == pytest.approx(record["eval/miou"], abs=1e-12)
        if network["phase"] == "adaptation":
            assert network["scores"]["teacher"] == pytest.approx(record["label_free/teacher"])
    found = summary["correlations"]["entropy"]
    entropies = [-n["scores"]["entropy"] for n in networks]
    mious = [n["miou"] for n in networks]
    assert found["networks"] == 3 and found["spearman"] == spearman(
        np.array(entropies), np.array(mious)
    )
    page = (out / "assessment.html").read_text()
    assert page.count("<svg") == len(SCORES) and page.count("data:image/webp") == 5 * 4
    assert "://" not in page and "Correlation with the mIoU" in page

    # the end of the run as weights, with the checkpoint's teacher, and as a checkpoint
    plain = world / "runs" / "plain"
    files = (plain / "task.safetensors", plain / "checkpoints" / "last.pt")
    images = world / "scenes"
    done = command("assess", *files, "--target", images, "--images", "3", "--json", cwd=world)
    first, second = json.loads(done.stdout)["networks"]
    assert first["scores"] == second["scores"] and first["scores"]["teacher"] is not None
    assert (first["step"], second["step"]) == (3, 3) and json.loads(done.stdout)["images"] == 3
    done = command("assess", plain, plain, cwd=world)
    assert done.returncode == 0 and "adaptation 3" in done.stdout


def test_the_runs_of_an_ablation_and_of_unfinished_runs_are_found(world, tmp_path):
    for seed, row in itertools.product((0, 1), ("both", "control")):
        shutil.copytree(world / "runs" / "plain", tmp_path / f"seed{seed}" / row)
    (tmp_path / "seed1" / "both" / "task.safetensors").unlink()
    found = find_candidates([tmp_path, tmp_path / "seed0" / "both"])
    assert [(c.run, c.path.name) for c in found] == [
        ("seed0/both", "task_source_only.safetensors"), ("seed0/both", "task.safetensors"),
        ("seed0/control", "task_source_only.safetensors"), ("seed0/control", "task.safetensors"),
        ("seed1/both", "task_source_only.safetensors"), ("seed1/both", "last.pt"),
        ("seed1/control", "task_source_only.safetensors"), ("seed1/control", "task.safetensors"),
    ]  # fmt: skip


def test_bad_input_is_reported(world, tmp_path):
    plain = world / "runs" / "plain"
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"garbage")
    lone = shutil.copy(plain / "task.safetensors", tmp_path / "lone.safetensors")
    new = tmp_path / "new"
    new.mkdir()
    shutil.copy(plain / "config.yaml", new)
    other = shutil.copytree(plain, tmp_path / "other")
    text = (other / "config.yaml").read_text().replace("look: evening", "look: overcast")
    (other / "config.yaml").write_text(text)
    cases = {
        "neither the folder of a run or an ablation, nor weights": [tmp_path / "nowhere"],
        "has no weights and no checkpoint yet": [new],
        "no image in it": [plain, "--target", tmp_path / "empty"],
        "no such file or folder": [plain, "--target", tmp_path / "nowhere"],
        "no readable image is left": [plain, "--target", tmp_path / "broken"],
        "is not in the folder of a run, which would name the target: give --target": [lone],
        "leave out --correlate": [lone, "--target", world / "scenes", "--correlate"],
        "have different targets": [plain, other],
        "--images is 0": [plain, "--images", "0"],
    }
    for words, arguments in cases.items():
        done = command("assess", *arguments, cwd=tmp_path)
        assert done.returncode == 2 and words in done.stderr, (words, done.stderr)
    for words, settings in {
        "expected one of": {"schedule.keep_best": "miou"},
        "schedule.keep_best is teacher, but the run has none": {
            "schedule.keep_best": "teacher", "adaptation.self_training": "false",
        },
    }.items():  # fmt: skip
        done = train(world, "refused", **settings)
        assert done.returncode == 2 and words in done.stderr, done.stderr
        assert not (world / "runs" / "refused").exists()
