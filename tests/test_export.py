"""``export`` writes networks that other programs run without this package."""

import json
import re
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
import yaml

from gioada_fast.engine import hub
from gioada_fast.engine.networks import load_task
from gioada_fast.export import files
from gioada_fast.export.check import Difference, compare
from gioada_fast.export.graphs import TaskGraph, TranslationGraph, size_multiple, trace
from gioada_fast.export.hub_folder import CARD, CONFIG, WEIGHTS
from gioada_fast.models import TaskNet, TranslationNet
from gioada_fast.models.layers import upsample

from .commands import command
from .miniature import SIZE, flags, write_street_scenes
from .models.trunk_folders import write_backbone

BOUND = 1e-4
ALONE = "import sys; sys.modules.update(dict.fromkeys(sys.argv[1].split(',')));"
"""Makes imports of some packages fail, as if they were not installed."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with street scenes and a finished run of two updates."""
    folder = tmp_path_factory.mktemp("trained")
    write_street_scenes(folder / "scenes")
    settings = {
        "schedule.source_only_steps": 1,
        "schedule.adaptation_steps": 1,
        "schedule.control": "true",
        "schedule.batch_size": 1,
    }
    done = command("train", *flags(folder / "scenes", folder / "runs", **settings), cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def export(folder, *arguments):
    done = command("export", *arguments, cwd=folder)
    assert "Traceback" not in done.stderr
    return done


def alone(without, code, folder):
    """Run code in a process that cannot import some packages; returns what it saves in out.npz."""
    code = f"{ALONE} import numpy as np; image = np.load('image.npy'); {code}"
    done = subprocess.run(
        [sys.executable, "-c", code, without], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return np.load(folder / "out.npz")


def pictures(folder, size=(70, 101)):
    """Noise [2, 3, H, W] in image.npy."""
    image = np.random.default_rng(0).integers(0, 256, (2, 3, *size), np.uint8)
    np.save(folder / "image.npy", image)
    return torch.from_numpy(image)


def test_onnx_with_onnxruntime_alone(trained):
    done = export(trained, "runs/mini", "--format=onnx", "--output=out/task.onnx")
    assert done.returncode == 0, done.stderr
    assert "opset 20, images of any size as uint8" in done.stdout and "onnxruntime" in done.stdout
    image = pictures(trained)
    found = alone(
        "gioada_fast,torch",
        "import onnxruntime, json; s = onnxruntime.InferenceSession('out/task.onnx');"
        "about = s.get_modelmeta().custom_metadata_map['gioada_fast'];"
        "assert s.get_inputs()[0].shape == ['batch', 3, 'height', 'width'];"
        "out = dict(zip([o.name for o in s.get_outputs()], s.run(None, {'image': image})));"
        "np.savez('out.npz', about=about, **out)",
        trained,
    )
    task, space, metadata = load_task(trained / "runs/mini/task.safetensors")
    graph = TaskGraph(task, metadata["depth_encoding"], "uint8", "labels")
    tensors = {name: torch.from_numpy(found[name]) for name in ("labels", "depth")}
    assert tensors["labels"].dtype == torch.uint8 and tensors["depth"].shape == (2, 70, 101)
    assert max(d.value for d in compare(graph, {"image": image}, lambda _: tensors)) < BOUND
    about = json.loads(str(found["about"]))
    assert about["classes"] == list(space.classes) and about["trained_size"] == list(SIZE)
    # a file that exists is not overwritten
    again = export(trained, "runs/mini", "--format=onnx", "--output=out/task.onnx")
    assert again.returncode == 2 and "exists already" in again.stderr


def test_program_with_torch_alone(trained):
    done = export(
        trained,
        "runs/mini/task_control.safetensors",
        *("--format=pt2", "--output=control.pt2", "--predict=logits", "--input=float"),
        f"--images={write_image(trained)}",
    )
    assert done.returncode == 0, done.stderr
    image = pictures(trained)
    found = alone(
        "gioada_fast,onnx,safetensors",
        "import torch; about = {'gioada_fast.json': ''};"
        "network = torch.export.load('control.pt2', extra_files=about).module();"
        "out = network(torch.from_numpy(image[:1]).float() / 255);"
        "out = {k: v.detach() for k, v in out.items()};"
        "np.savez('out.npz', about=about['gioada_fast.json'], **out)",
        trained,
    )
    task, _, metadata = load_task(trained / "runs/mini/task_control.safetensors")
    graph = TaskGraph(task, metadata["depth_encoding"], "float", "logits")
    tensors = {name: torch.from_numpy(found[name]) for name in ("logits", "depth")}
    assert max(d.value for d in compare(graph, {"image": image[:1]}, lambda _: tensors)) < BOUND
    assert json.loads(str(found["about"]))["image"] == "RGB float32, 0 to 1"


def write_image(folder):
    cv2.imwrite(str(folder / "own.png"), pictures(folder)[0].permute(1, 2, 0).numpy())
    return "own.png"


def test_translation_of_a_run(trained):
    done = export(
        trained, "runs/mini", "--weights=translation", "--format=onnx", "--output=translation.onnx"
    )
    assert done.returncode == 0, done.stderr
    assert "translated" in done.stdout


@pytest.mark.parametrize("kind", ["uint8", "float"])
@pytest.mark.parametrize("options", [{"normals": True, "change": "fraction"}, {"geometry": False}])
def test_translation_networks(kind, options):
    network = TranslationNet(3, width=0.125, blocks=1, **options).eval()
    torch.nn.init.normal_(network.to_image.weight, std=0.1)
    graph = TranslationGraph(network, "inverse", kind).eval()

    def frames(n, height, width):
        frames = {"image": torch.randint(0, 256, (n, 3, height, width), dtype=torch.uint8)}
        if network.geometry:
            frames["depth"] = torch.rand(n, height, width) * 100
            frames["labels"] = torch.randint(0, 4, (n, height, width), dtype=torch.uint8)
        return frames

    def example(frames):
        image = frames["image"] if kind == "uint8" else frames["image"].float() / 255
        return {**frames, "image": image}

    program, _ = trace(graph, example(frames(2, 64, 80)), fixed_size=False)
    assert not files.foreign_operators(program)
    module = program.module()
    for size in ((1, 51, 90), (3, 64, 80)):
        (difference,) = compare(graph, frames(*size), lambda x: module(*x.values()))
        assert difference.value < BOUND


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    ("backbone", "head", "size"),
    [("convnextv2", "daformer", None), ("swin", "segformer", (40, 72)), ("vgg16", "deeplab", None)],
)
def test_trunks_and_heads(tmp_path, backbone, head, size):
    config = None
    if backbone != "vgg16":
        pytest.importorskip("transformers")
        config = hub.read_trunk_config(str(write_backbone(tmp_path, backbone)))
    name, width = ("hf", 1.0) if config else (backbone, 0.125)
    norm = "none" if config else "group"
    task = TaskNet(5, name, width, norm, config, head, 16).eval()
    graph = TaskGraph(task, "inverse", "uint8", "logits").eval()
    multiple = size_multiple(graph)

    def frames(n, height, width):
        return {"image": torch.randint(0, 256, (n, 3, height, width), dtype=torch.uint8)}

    if size is not None:
        with pytest.raises(ValueError, match="set --size"):
            trace(graph, frames(2, 64, 96), fixed_size=False)
    program, _ = trace(graph, frames(2, *(size or (64, 96))), fixed_size=size is not None)
    assert not files.foreign_operators(program)
    module = program.module()
    for n, height, width in [(1, *size)] if size else [(1, 64, 96), (3, 64, 160), (2, 96, 64)]:
        assert (height % multiple, width % multiple) == (0, 0) or size
        differences = compare(graph, frames(n, height, width), lambda x: module(*x.values()))
        assert max(d.value for d in differences) < BOUND


def test_differences_are_measured():
    task = TaskNet(4, "vgg16", 0.125).eval()
    graph = TaskGraph(task, "log", "uint8", "labels")
    frames = {"image": torch.randint(0, 256, (2, 3, 48, 64), dtype=torch.uint8)}
    with torch.no_grad():
        good = graph(**frames)
        logits = upsample(task(frames["image"] / 127.5 - 1)[0], (48, 64))
    labels, depth = compare(graph, frames, lambda _: good)
    assert labels.value < 1e-6 and depth.value < 1e-6
    wrong = good["labels"].clone()
    wrong[1, 5, 7] = second = int(logits[1, :, 5, 7].topk(2).indices[1])
    expected = logits[1, :, 5, 7].max() - logits[1, second, 5, 7]
    labels, _ = compare(graph, frames, lambda _: {**good, "labels": wrong})
    scale = max(1.0, float(logits.abs().max()))
    assert labels.value == pytest.approx(float(expected) / scale, rel=0.05)
    wrong[0, 0, 0] = 9  # no class
    labels, _ = compare(graph, frames, lambda _: {**good, "labels": wrong})
    assert labels.value == float("inf")
    _, depth = compare(graph, frames, lambda _: {**good, "depth": good["depth"] * 1.01})
    assert 1e-3 < depth.value < 3e-3


def test_nothing_is_kept_if_it_differs(trained, monkeypatch):
    wrong = [Difference("labels", 0.25, "of the largest logit")]
    monkeypatch.setattr("gioada_fast.export.__main__.compare", lambda *_: wrong)
    monkeypatch.setattr("gioada_fast.export.__main__.trace", lambda *_: (None, None))
    monkeypatch.setattr(files, "write_program", lambda program, about, path: path.write_text(""))
    monkeypatch.setattr(files, "program_runner", lambda path: None)
    before = set(trained.iterdir())
    done = export(trained, "runs/mini", "--format=pt2", "--output=wrong")
    assert done.returncode == 2 and "labels by 2.5e-01 of the largest logit" in done.stderr
    monkeypatch.setattr(
        "gioada_fast.export.__main__._reloaded",
        lambda network, path: TaskGraph(
            load_task(trained / "runs/mini/task_source_only.safetensors")[0],
            *("log", "uint8", "labels"),
        ),
    )
    done = export(trained, "runs/mini", "--format=folder", "--output=wrong")
    assert done.returncode == 2 and "nothing was written" in done.stderr
    assert set(trained.iterdir()) == before


def test_folder_for_the_hub(trained, tmp_path):
    # another seed beside the run gives the spread
    other = trained / "runs" / "other"
    shutil.copytree(trained / "runs/mini", other)
    settings = yaml.safe_load((other / "config.yaml").read_text())
    (other / "config.yaml").write_text(yaml.dump({**settings, "seed": 1}))
    result = json.loads((other / "result.json").read_text())
    for column in result["columns"]:
        column["miou"] += 0.02
    (other / "result.json").write_text(json.dumps(result))

    done = export(trained, "runs/mini", "--format=folder", f"--output={tmp_path}/hub")
    shutil.rmtree(other)
    assert done.returncode == 0, done.stderr
    assert {file.name for file in (tmp_path / "hub").iterdir()} == {WEIGHTS, CONFIG, CARD}
    config = json.loads((tmp_path / "hub" / CONFIG).read_text())
    assert config["id2label"]["3"] == "road" and config["id2color"]["3"] == [128, 64, 128]
    card = (tmp_path / "hub" / CARD).read_text()
    for words in (
        "license: other",
        "±1.4 |\n\nPixel accuracy",  # 2 points apart
        "Means over 2 runs",
        "Gain over a control",
        "stand-in for real images",
        "gioada_fast (Apache-2.0) rendered them",
        "data.source.root: scenes",
    ):
        assert words in card, card
    assert str(trained) not in card
    # the lines that load it
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]
    code = re.sub(r"snapshot_download\(.*?\)", repr(f"{tmp_path}/hub"), code)
    write_image(tmp_path)
    code = re.sub(r".*huggingface_hub.*\n", "", code).replace("street.jpg", f"{tmp_path}/own.png")
    exec(code.replace("segmentation.png", f"{tmp_path}/segmentation.png"), {})
    assert cv2.imread(f"{tmp_path}/segmentation.png").shape == (*SIZE, 3)


def damaged(folder):
    (folder / "bad").mkdir(exist_ok=True)
    content = (folder / "runs/mini/task.safetensors").read_bytes()
    (folder / "bad/task.safetensors").write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("runs/mini", "--format=tflite", "--output=x"), "--format is 'tflite', expected one of"),
        (("runs/mini", "--format=pt2", "--output=x", "--input=int"), "--input is 'int'"),
        (("runs/mini", "--format=pt2", "--output=x", "--predict=ids"), "--predict is 'ids'"),
        (("runs/mini", "--format=pt2", "--output=x", "--size=0"), "--size is 0, expected pixels"),
        (("runs/mini", "--format=pt2", "--output=x", "--bound=-1"), "--bound is -1"),
        (("runs/mini", "--format=onnx", "--output=x", "--opset=9"), "--opset is 9, must be 18 to"),
        (("runs/mini", "--format=pt2", "--output=runs"), "runs exists already"),
        (("runs/mini", "--format=pt2", "--output=own.npy/x"), "own.npy is a file"),
        (("runs/none", "--format=pt2", "--output=x"), "runs/none: neither the folder of a run"),
        (("runs", "--format=pt2", "--output=x"), "config.yaml: no such file"),
        (("runs/mini", "--format=pt2", "--output=x", "--weights=best"), "no such weights"),
        (("bad/task.safetensors", "--format=pt2", "--output=x"), "not a readable safetensors"),
        (("runs/mini/task.safetensors", "--format=pt2", "--output=x"), "with --images"),
        (
            ("runs/mini", "--format=pt2", "--output=x", "--weights=translation", "--images=."),
            "--images: the translation network also needs depth",
        ),
        (
            ("runs/mini/task.safetensors", "--format=folder", "--output=x", "--images=own.png"),
            "give the folder of the run",
        ),
        (("runs/first", "--format=pt2", "--output=x"), "--weights task_source_only exports that"),
        (("runs/half", "--format=pt2", "--output=x"), "is not finished (step "),
        (("runs/moved", "--format=pt2", "--output=x"), "to check on other images, give --images"),
    ],
)
def test_refused(trained, arguments, words):
    damaged(trained)
    write_image(trained)
    (trained / "own.npy").write_text("")
    runs = {
        "first": ({"schedule.adaptation_steps": 0}, "task"),
        "half": ({}, "task"),
        "moved": ({"data.target.name": "camvid", "data.target.root": "gone"}, ""),
    }
    for name, (changes, without) in runs.items():
        run = trained / "runs" / name
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(trained / "runs/mini", run)
        settings = yaml.safe_load((run / "config.yaml").read_text())
        for setting, value in changes.items():
            *sections, last = setting.split(".")
            section = settings
            for key in sections:
                section = section[key]
            section[last] = value
        (run / "config.yaml").write_text(yaml.dump(settings))
        if without:
            (run / f"{without}.safetensors").unlink()
            result = json.loads((run / "result.json").read_text())
            result["columns"] = result["columns"][:1]
            (run / "result.json").write_text(json.dumps(result))
    try:
        done = export(trained, *arguments)
    finally:
        for name in runs:
            shutil.rmtree(trained / "runs" / name)
    assert done.returncode == 2 and words in done.stderr, done.stderr
    assert not (trained / "x").exists()


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_onnx_is_not_installed(trained, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    done = export(trained, "runs/mini", "--format=onnx", "--output=x")
    assert done.returncode == 2
    assert f"needs {package}, which cannot be imported" in done.stderr
    assert 'pip install "gioada_fast[export]"' in done.stderr
