"""Backbones of transformers and timm as trunks: training, resuming, weights and bad input."""

import importlib
import json
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from gioada_fast.config import Config, ModelConfig, OptimiserConfig
from gioada_fast.engine import hub
from gioada_fast.engine import run as run_module
from gioada_fast.engine.checkpoint import load_checkpoint
from gioada_fast.engine.networks import build_adaptation, load_task, save_task
from gioada_fast.engine.trainer import Phase, Trainer, build_optimisers
from gioada_fast.errors import InputError
from gioada_fast.models import TaskNet

from ..commands import command
from ..miniature import flags, write_street_scenes
from .trunk_folders import BACKBONES, OTHERS, fake_timm, write_backbone, write_preprocessor

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder with each backbone, and one with street scenes."""
    root = tmp_path_factory.mktemp("backbones")
    for name in BACKBONES:
        write_backbone(root, name)
    write_street_scenes(root / "scenes", source=2, target=2, evaluation=1)
    return root


def settings(folder, name, **others):
    return {
        "model.backbone": "hf",
        "model.pretrained": folder / name,
        "model.width": "null",
        "model.head_channels": 16,
        "data.source.frames": 2,
        "data.target.frames": 2,
        "data.target.evaluation_frames": 1,
        "adaptation.self_training": "true",
        "schedule.source_only_steps": 0,
        "schedule.adaptation_steps": 3,
        "schedule.log_every": 1,
        "schedule.checkpoint_every": 10,
        **others,
    }


def network(folder, name, load=True, **options):
    config = hub.read_trunk_config(str(folder / name))
    options = {"head_channels": 16, **options}
    torch.manual_seed(0)
    net = TaskNet(5, "hf", 1.0, "none", config, **options)
    if load:
        hub.load_weights(net.trunk, str(folder / name))
    return net.to(memory_format=torch.channels_last)


@pytest.fixture
def no_report(monkeypatch):
    """Runs write no panels, comparison and report, which take most of the time of a tiny run."""
    monkeypatch.setattr(run_module, "write_report", lambda run: run.report)
    for method in ("_write_comparison", "draw_panel"):
        monkeypatch.setattr(run_module._Session, method, lambda *args: None)


def interrupted_at(step):
    original = Trainer._log_losses

    def interrupted(self, *args):
        if self.step == step:
            signal.raise_signal(signal.SIGINT)
        return original(self, *args)

    return interrupted


def run(module, *arguments, cwd, status=0):
    done = command(module, *arguments, cwd=cwd)
    assert done.returncode == status, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", BACKBONES)
def test_a_run_resumes_bit_by_bit_and_needs_its_folder_no_more(
    folders, no_report, tmp_path, monkeypatch, name
):
    folder = shutil.copytree(folders / name, tmp_path / "hub" / name)
    head = "daformer" if name in ("segformer", "dinov2") else "segformer"
    chosen = settings(tmp_path / "hub", name, **{"model.head": head})
    run("train", *flags(folders / "scenes", tmp_path, **chosen), cwd=tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_log_losses", interrupted_at(2))
        stopped = flags(folders / "scenes", tmp_path, **chosen, name="stopped")
        run("train", *stopped, cwd=tmp_path, status=130)
    shutil.rmtree(folder)
    run("train", "--resume", tmp_path / "stopped", cwd=tmp_path)
    for file in ("task.safetensors", "translation.safetensors"):
        ours, theirs = (load_file(tmp_path / made / file) for made in ("mini", "stopped"))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    state = load_checkpoint(tmp_path / "mini/checkpoints/last.pt")
    assert torch.equal(
        state["rng"], load_checkpoint(tmp_path / "stopped/checkpoints/last.pt")["rng"]
    )
    trained = state["networks"]
    trunk = [key for key in trained if key.startswith("teacher.trunk.")]
    assert any(not torch.equal(trained[key], trained[f"task{key[7:]}"]) for key in trunk)

    score = json.loads(run("evaluate", tmp_path / "mini", "--json", cwd=tmp_path))["miou"]
    assert score == json.loads((tmp_path / "mini/result.json").read_text())["columns"][-1]["miou"]
    image = next((folders / "scenes").rglob("*.png"))
    weights = tmp_path / "mini/task.safetensors"
    run("predict", weights, image, "--output", tmp_path / "out", cwd=tmp_path)
    assert len(list((tmp_path / "out").iterdir())) == 4


@pytest.mark.parametrize("name", BACKBONES)
def test_the_task_network_compiles_in_one_graph(folders, name):
    torch.compiler.reset()
    # the partitioner draws the same stochastic depth again for the blocks that it recomputes, as
    # the default back end does; the back end eager, which is faster, does not
    checkpointing = name == "segformer"
    backend = "aot_eager_decomp_partition" if checkpointing else "eager"
    net = network(folders, name, checkpointing=checkpointing)
    image = torch.rand(1, 3, 64, 64) * 2 - 1
    compiled = torch.compile(net, fullgraph=True, backend=backend, dynamic=False)
    results = []
    for made in (net, compiled):  # in training mode, with the same stochastic depth
        torch.manual_seed(0)
        net.zero_grad()
        logits, depth = made(image)
        (logits.mean() + depth.mean()).backward()
        gradients = [weight.grad for weight in net.parameters() if weight.requires_grad]
        results.append([logits, depth, *gradients])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


SCALES = {
    "dinov2": [(14, 16)] * 4,
    "dinov3": [(16, 16)] * 4,
    "swin": [(4, 8), (8, 16), (16, 32), (32, 64)],
}
"""(stride, channels) of the feature maps; the other backbones have 8, 16, 24 and 32 channels."""


@pytest.mark.parametrize("name", BACKBONES)
def test_features_have_the_strides_and_channels_that_are_named(folders, name):
    trunk = network(folders, name).trunk
    expected = SCALES.get(name, [(4, 8), (8, 16), (16, 24), (32, 32)])
    assert list(trunk.scales) == expected
    side = 2 * trunk.size_multiple
    maps = trunk.pyramid(torch.rand(2, 3, side, side + trunk.size_multiple))
    for x, (stride, channels) in zip(maps, expected, strict=True):
        assert x.shape == (2, channels, side // stride, side * 3 // 2 // stride)


@pytest.mark.parametrize("name", OTHERS)
def test_other_architectures_give_all_their_scales(tmp_path, name):
    write_backbone(tmp_path, name)
    net = network(tmp_path, name)
    strides = {"beit": (16,) * 4, "dinov2_tokens": (8,) * 4}.get(name, (4, 8, 16, 32))
    assert tuple(stride for stride, _ in net.trunk.scales) == strides
    logits, _ = net(torch.rand(1, 3, 64, 96) * 2 - 1)
    assert logits.shape[2:] == ((8, 12) if name == "dinov2_tokens" else (16, 24))


@pytest.mark.parametrize(("name", "size"), [("dinov2", (50, 71)), ("convnext", (45, 100))])
def test_any_size_is_padded_and_the_output_cut(folders, name, size):
    net = network(folders, name).eval()
    image = torch.rand(1, 3, *size) * 2 - 1
    logits, depth = net(image)
    stride = 3.5 if name == "dinov2" else 4
    assert logits.shape[2:] == depth.shape[2:] == tuple(-(-side // stride) for side in size)
    multiple = net.trunk.size_multiple
    padded = net.neutral.expand(1, 3, *(side + -side % multiple for side in size)).clone()
    padded[..., : size[0], : size[1]] = image
    whole, _ = net(padded)
    assert torch.allclose(whole[..., : logits.shape[2], : logits.shape[3]], logits, atol=1e-6)


def test_checkpointing_changes_no_gradient(folders):
    for backbone, norm, config in (
        ("vgg16", "group", None),
        ("resnet101", "frozen_batch", None),
        ("hf", "none", hub.read_trunk_config(str(folders / "segformer"))),
    ):
        results = []
        for checkpointing in (False, True):
            torch.manual_seed(0)
            width = 1.0 if backbone == "hf" else 0.125
            net = TaskNet(
                5, backbone, width, norm, config, head_channels=16, checkpointing=checkpointing
            )
            logits, depth = net(torch.rand(1, 3, 64, 64) * 2 - 1)
            (logits.square().mean() + depth.mean()).backward()
            results.append([logits, *(weight.grad for weight in net.parameters())])
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True)), backbone


def test_bfloat16_trains(folders):
    net = network(folders, "swin", head="daformer")
    with torch.autocast("cpu", torch.bfloat16):
        logits, depth = net(torch.rand(1, 3, 64, 64) * 2 - 1)
    (logits.float().mean() + depth.float().mean()).backward()
    assert all(weight.grad is not None for weight in net.parameters() if weight.requires_grad)


def test_mean_and_deviation_come_from_the_preprocessor(folders, tmp_path):
    folder = shutil.copytree(folders / "swin", tmp_path / "swin")
    assert network(tmp_path, "swin").trunk.mean == (0.485, 0.456, 0.406)
    write_preprocessor(folder, (0.5, 0.4, 0.3), (0.25, 0.5, 1.0))
    net = network(tmp_path, "swin")
    assert torch.allclose(net.neutral.flatten(), torch.tensor([0.0, -0.2, -0.4]), atol=1e-6)
    assert torch.allclose(net.input_scale.flatten(), torch.tensor([2.0, 1.0, 0.5]))
    edit_json("preprocessor_config.json", do_normalize=False)(folder)
    net = network(tmp_path, "swin", load=False)
    assert net.trunk.mean == (0.0,) * 3 and net.trunk.std == (1.0,) * 3


def test_weights_are_those_of_the_folder_even_if_sharded(folders, tmp_path):
    write_backbone(tmp_path, "dinov2", max_shard_size="20KB")
    assert len(list((tmp_path / "dinov2").glob("*.safetensors"))) > 1
    whole, sharded = network(folders, "dinov2"), network(tmp_path, "dinov2")
    # the file has older names
    file = transformers.AutoModel.from_pretrained(folders / "dinov2").state_dict()
    for key, value in whole.trunk.model.state_dict().items():
        assert torch.equal(value, file[key])
        assert torch.equal(value, sharded.trunk.model.state_dict()[key])


def refused(arguments, tmp_path, *words):
    done = command("train", *arguments, cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    for word in words:
        assert word in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2
    assert not (tmp_path / "runs").exists()


def alter(key, change):
    def edit(folder):
        path = folder / "model.safetensors"
        state = load_file(path)
        change(state, key)
        save_file(state, path, metadata={"format": "pt"})

    return edit


def edit_json(name, **entries):
    def edit(folder):
        path = folder / name
        content = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps({**content, **entries}))

    return edit


def pickle_alone(folder, names=("pytorch_model.bin",)):
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    for index, name in enumerate(names):
        part = {key: value for k, (key, value) in enumerate(state.items()) if k % 2 == index % 2}
        torch.save(state if len(names) == 1 else part, folder / name)


KEY = "swin.encoder.layers.1.blocks.0.layernorm_before.weight"
WRONG = {
    "missing key": (alter(KEY, lambda s, k: s.pop(k)), "is missing", KEY),
    "unknown key": (
        alter(f"{KEY}s", lambda s, k: s.update({k: torch.zeros(2)})),
        f"{KEY}s belongs to no part",
    ),
    "shape": (
        alter(KEY, lambda s, k: s.update({k: torch.zeros(5)})), f"{KEY} is [5], expected [16]",
    ),
    "pickled": (pickle_alone, "pickled weights alone (pytorch_model.bin)", "weights_only=True"),
    "nan": (alter(KEY, lambda s, k: s[k].fill_(torch.nan)), KEY[5:], "not finite"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "has no *.safetensors"),
    "broken weights": (
        lambda f: (f / "model.safetensors").write_bytes(b"no weights"), "cannot be read",
    ),
    "no config": (lambda f: (f / "config.json").unlink(), "has no config.json"),
    "broken config": (lambda f: (f / "config.json").write_text("{"), "not readable as JSON"),
    "no model type": (lambda f: (f / "config.json").write_text("{}"), "has no model_type"),
    "timm": (
        lambda f: (f / "config.json").write_text('{"architecture": "convnext_tiny"}'),
        "model.backbone timm:convnext_tiny",
    ),
    "unknown type": (edit_json("config.json", model_type="swim"), "'swim', which transformers"),
    "no images": (
        lambda f: (f / "config.json").write_text(
            '{"model_type": "bert", "hidden_size": 12, "num_hidden_layers": 1}'
        ),
        "'bert' takes no images",
    ),
    "no maps": (
        lambda f: (f / "config.json").write_text(
            '{"model_type": "vit", "hidden_size": 16, "num_hidden_layers": 1, '
            '"num_attention_heads": 2, "intermediate_size": 16}'
        ),
        "'vit'",
    ),
    "wrong config": (edit_json("config.json", num_heads=[3, 3, 3, 3]), "cannot be used as a trunk"),
    "mean": (edit_json("preprocessor_config.json", image_mean=[1, 2]), "expected three numbers"),
    "nan as mean": (
        edit_json("preprocessor_config.json", image_mean=[1, 2, float("nan")]),
        "expected three numbers",
    ),
}  # fmt: skip


def test_the_command_for_pickled_weights_converts_them(folders, tmp_path):
    folder = shutil.copytree(folders / "swin", tmp_path / "swin")
    pickle_alone(folder, ("part-1.bin", "part-2.bin"))
    with pytest.raises(InputError, match=r"part-1\.bin, part-2\.bin") as refusal:
        network(tmp_path, "swin")
    shown = str(refusal.value).rpartition("in that folder: ")[2]
    subprocess.run(shown.replace("python", sys.executable, 1), shell=True, cwd=folder, check=True)
    ours, given = network(tmp_path, "swin").trunk, network(folders, "swin").trunk
    assert all(torch.equal(v, given.state_dict()[k]) for k, v in ours.state_dict().items())


@pytest.mark.parametrize("what", WRONG)
def test_a_folder_that_is_no_backbone_is_refused(folders, tmp_path, what):
    edit, *words = WRONG[what]
    edit(shutil.copytree(folders / "swin", tmp_path / "swin"))
    arguments = flags(folders / "scenes", tmp_path / "runs", **settings(tmp_path, "swin"))
    refused(arguments, tmp_path, *words)


SETTINGS = {
    "no folder": ({"model.pretrained": "./nowhere"}, "./nowhere: no such folder"),
    "hub without network": ({"model.pretrained": "nvidia/mit-b5"}, "nvidia/mit-b5", "the network"),
    "a file": ({"model.pretrained": "swin/config.json"}, "is a file: give the folder"),
    "nothing": ({"model.pretrained": "null"}, "needs model.pretrained"),
    "width": ({"model.width": 0.5}, "model.width is 0.5"),
    "norm": ({"model.norm": "group"}, "model.norm is 'group'"),
    "channels": ({"model.head_channels": 12}, "multiple of 8"),
    "head": ({"model.head": "deeplab"}, "strides 4, 8, 16, 32", "segformer or daformer"),
    "unknown head": ({"model.head": "fpn"}, "model.head is fpn"),
    "checkpointing": (
        {"model.pretrained": "convnext", "model.task_checkpointing": "true"},
        "ConvNextBackbone",
        "model.task_checkpointing",
    ),
    "layers": (
        {"model.pretrained": "resnet", "optimiser.layer_decay": 0.9},
        "ResNetBackbone",
        "optimiser.layer_decay",
    ),
    "compile": ({"compile": "true"}, "compile is true", "wrong gradients", "leave compile out"),
    "decay": ({"optimiser.layer_decay": 1.5}, "optimiser.layer_decay is 1.5"),
    "clip": ({"optimiser.clip_norm": 0}, "optimiser.clip_norm is 0"),
    "name": ({"model.backbone": "hff"}, "'hff', expected one of vgg16, resnet101, hf, timm:NAME"),
    "no name": ({"model.backbone": "timm"}, "timm:NAME"),
    "empty name": ({"model.backbone": "'timm:'"}, "timm:NAME"),
    "name of hf": ({"model.backbone": "hf:swin"}, "expected one of"),
    "no timm": ({"model.backbone": "timm:tiny"}, "timm:tiny needs timm", "pip install timm"),
    "no config": ({"model.trunk_config": "{a: 1}"}, "not what a run writes"),
    "config": ({"model.backbone": "vgg16", "model.trunk_config": "{a: 1}"}, "not hf: leave it out"),
}


@pytest.mark.parametrize("what", SETTINGS)
def test_wrong_settings_are_refused(folders, tmp_path, monkeypatch, what):
    changed, *words = SETTINGS[what]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setitem(sys.modules, "timm", None)
    for name in ("swin", "convnext", "resnet"):
        (tmp_path / name).symlink_to(folders / name)
    chosen = settings(tmp_path, "swin", **changed)
    refused(flags(folders / "scenes", tmp_path / "runs", **chosen), tmp_path, *words)


def test_transformers_is_needed_only_for_its_trunks(folders, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    arguments = flags(folders / "scenes", tmp_path / "runs", **settings(folders, "swin"))
    refused(arguments, tmp_path, "needs transformers", 'pip install "gioada_fast[transformers]"')
    TaskNet(5, "vgg16", 0.125)


def test_packages_that_cannot_be_imported(folders, tmp_path, monkeypatch):
    import_module = importlib.import_module

    def broken(name, *args):
        if name == "timm":
            raise RuntimeError("no operator nms")
        return import_module(name, *args)

    with monkeypatch.context() as patch:
        patch.setattr("gioada_fast.models.trunks.timm.importlib.import_module", broken)
        with pytest.raises(InputError, match=r"timm:tiny needs timm.*\(no operator nms\)"):
            TaskNet(5, "timm:tiny", 1.0, "none")


def test_a_trunk_of_timm(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "timm", fake_timm())
    config = Config(model=ModelConfig(backbone="timm:tiny", pretrained="imagenet", width=None))
    task = build_adaptation(config).task
    assert task.trunk.scales == ((4, 16), (8, 24), (16, 32), (32, 40))
    assert task.trunk.mean == (0.4, 0.5, 0.6) and task.head == "segformer"
    state = {key: value.contiguous() for key, value in task.trunk.model.state_dict().items()}
    assert all((value == 0.5).all() for value in state.values() if value.is_floating_point())
    save_file(state, tmp_path / "tiny.safetensors")
    config.model.pretrained = str(tmp_path / "tiny.safetensors")
    again = build_adaptation(config).task
    assert all(torch.equal(v, state[k]) for k, v in again.trunk.model.state_dict().items())
    logits, depth = again(torch.rand(1, 3, 70, 64) * 2 - 1)
    assert logits.shape[2:] == depth.shape[2:] == (18, 16)
    (logits.mean() + depth.mean()).backward()
    statistics = dict(again.trunk.model.named_buffers())
    assert all(torch.equal(v, state[k]) for k, v in statistics.items())
    with pytest.raises(InputError, match=r"timm:huge: Unknown model"):
        TaskNet(5, "timm:huge", 1.0, "none")


def test_trunks_of_timm_take_images_of_any_size(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", fake_timm())
    net = TaskNet(5, "timm:windows", 1.0, "none", head_channels=16)
    assert net.trunk.scales == ((4, 16), (8, 24), (16, 32), (32, 40))
    assert net(torch.rand(1, 3, 70, 64) * 2 - 1)[0].shape[2:] == (18, 16)
    with pytest.raises(InputError, match=r"timm:fixed, which does not take images of any size"):
        TaskNet(5, "timm:fixed", 1.0, "none")


def test_weights_that_do_not_fill_a_trunk_of_timm_are_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", fake_timm())
    trunk = TaskNet(5, "timm:tiny", 1.0, "none", head_channels=16).trunk
    whole = {key: torch.ones_like(value) for key, value in trunk.model.state_dict().items()}
    trunk.load({**whole, "head.weight": torch.ones(2)}, "FILE")
    key = "stages.2.0.weight"
    for spoil, words in (
        (lambda s: s.pop(key), f"FILE cannot be loaded into timm:tiny: missing: {key}"),
        (lambda s: s.clear(), "missing: .* and .* more"),
        (lambda s: s.update({key: torch.ones(3)}), f"size mismatch for {key}"),
        (lambda s: s.update(epoch=3), "expected a dict of weights by name, but epoch is none"),
    ):
        state = dict(whole)
        spoil(state)
        with pytest.raises(InputError, match=words):
            trunk.load(state, "FILE")


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "vit_tiny_patch16_dinov3"])
def test_timm_itself(name):
    timm = pytest.importorskip("timm", reason="timm is not installed", exc_type=ImportError)
    weights = timm.create_model(name).state_dict()
    trunk = TaskNet(5, f"timm:{name}", 1.0, "none", head_channels=16).trunk
    trunk.load(weights, "FILE")
    trunk.pyramid(torch.zeros(1, 3, 64, 96))
    key = next(key for key, value in weights.items() if key.startswith(("layer1", "blocks")))
    weights.pop(key)
    with pytest.raises(InputError, match=key):
        trunk.load(weights, "FILE")


def test_layers_near_the_image_have_lower_rates(folders):
    settings = OptimiserConfig(task_lr=1.0, trunk_lr_factor=0.1, layer_decay=0.5)
    model = ModelConfig(backbone="hf", pretrained=str(folders / "dinov2"), head_channels=16)
    config = Config(model=model, optimiser=settings)
    adaptation = build_adaptation(config)
    optimiser = build_optimisers(config, adaptation, Phase("source_only", 0, 1))["task"]
    rate_of = {id(w): group["lr"] for group in optimiser.param_groups for w in group["params"]}
    found = {
        name: rate_of[id(weight)]
        for name, weight in adaptation.task.named_parameters()
        if weight.requires_grad
    }
    assert found["trunk.model.embeddings.cls_token"] == pytest.approx(0.1 * 0.5**4)
    for layer in range(4):
        name = f"trunk.model.encoder.layer.{layer}.norm1.weight"
        assert found[name] == pytest.approx(0.1 * 0.5 ** (3 - layer))
    assert found["trunk.model.layernorm.weight"] == pytest.approx(0.1)
    assert found["decoder.fusion.0.weight"] == found["depth.weight"] == 1.0


def test_a_run_can_start_from_the_weights_of_another(folders, tmp_path):
    model = ModelConfig(backbone="hf", pretrained=str(folders / "convnext"), head_channels=16)
    first = Config(seed=1, model=model)
    path = tmp_path / "task.safetensors"
    save_task(path, build_adaptation(first).task, first)
    given = load_task(path)[0].state_dict()
    options = {"backbone": "hf", "init_from": str(path), "head_channels": 16}
    again = build_adaptation(Config(model=ModelConfig(**options))).task
    assert all(torch.equal(value, given[key]) for key, value in again.state_dict().items())
    for changed, words in (
        ({"head": "daformer"}, "model.head = segformer, here it is daformer"),
        ({"head_channels": 24}, "model.head_channels = 16"),
        ({"pretrained": str(folders / "resnet")}, "another trunk than model.pretrained"),
    ):
        with pytest.raises(InputError, match=words):
            build_adaptation(Config(model=ModelConfig(**{**options, **changed})))


def test_weights_of_another_version_of_transformers_say_so(folders, tmp_path):
    model = ModelConfig(backbone="hf", pretrained=str(folders / "swin"), head_channels=16)
    config = Config(model=model)
    task = build_adaptation(config).task
    config.model.trunk_config["transformers"] = "4.0"
    task.trunk.model.add_module("renamed", torch.nn.Linear(2, 2))
    save_task(tmp_path / "task.safetensors", task, config)
    with pytest.raises(InputError, match=r"renamed.* is unknown.*written with transformers 4\.0"):
        load_task(tmp_path / "task.safetensors")
