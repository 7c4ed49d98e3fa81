import os
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gioada_fast.atomic_files import write_atomically
from gioada_fast.config import Config
from gioada_fast.engine.checkpoint import (
    load_checkpoint,
    load_newest,
    load_weights,
    save_checkpoint,
    save_weights,
)
from gioada_fast.engine.inference import translate_images
from gioada_fast.engine.networks import (
    build_adaptation,
    load_task,
    load_translation,
    save_task,
    save_translation,
)
from gioada_fast.errors import InputError
from gioada_fast.models import TaskNet


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, trigger):
        self.trigger = trigger

    def __reduce__(self):
        return os.mkdir, (str(self.trigger),)


def small_config():
    config = Config()
    config.model.width = 0.125
    return config


def test_a_checkpoint_is_loaded_as_it_was_saved(tmp_path):
    state = {"step": 7, "tensors": {"a": torch.randn(3), "b": torch.zeros(0)}, "names": ["x", None]}
    save_checkpoint(tmp_path / "c.pt", state)
    back = load_checkpoint(tmp_path / "c.pt")
    assert back["step"] == 7 and back["names"] == ["x", None]
    assert torch.equal(back["tensors"]["a"], state["tensors"]["a"])
    assert os.listdir(tmp_path) == ["c.pt"]


@pytest.mark.parametrize("writer", [torch.save, lambda o, p: p.write_bytes(pickle.dumps(o))])
def test_malicious_pickle_code_is_not_run(tmp_path, writer):
    trigger = tmp_path / "exploded"
    writer({"format": 1, "networks": Bomb(trigger)}, tmp_path / "c.pt")
    with pytest.raises(InputError, match=r"c\.pt.*not loaded"):
        load_checkpoint(tmp_path / "c.pt")
    with pytest.raises(InputError, match=r"c\.pt"):
        load_task(tmp_path / "c.pt")
    assert not trigger.exists()


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_damaged_checkpoint_is_refused(tmp_path, keep):
    path = tmp_path / "c.pt"
    save_checkpoint(path, {"weights": torch.randn(1000)})
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if keep < 1 else keep])
    with pytest.raises(InputError, match=r"c\.pt"):
        load_checkpoint(path)


def test_one_flipped_bit_is_detected(tmp_path):
    path = tmp_path / "c.pt"
    save_checkpoint(path, {"weights": torch.zeros(1000)})
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"c\.pt.*damaged"):
        load_checkpoint(path)


def test_another_file_is_refused_as_a_checkpoint(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "c.pt")
    with pytest.raises(InputError, match="not a checkpoint of gioada_fast"):
        load_checkpoint(tmp_path / "c.pt")
    with pytest.raises(InputError, match="no such file"):
        load_checkpoint(tmp_path / "missing.pt")


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "c.pt"
    save_checkpoint(path, {"step": 1})

    def fail(temporary):
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, fail)
    assert load_checkpoint(path)["step"] == 1 and os.listdir(tmp_path) == ["c.pt"]


def test_an_unwritable_path_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file/c"):
        save_checkpoint(tmp_path / "file" / "c.pt", {})


def test_task_weights_have_the_metadata_of_their_network(tmp_path):
    config = small_config()
    task = TaskNet(11, width=0.125)
    save_task(tmp_path / "task.safetensors", task, config)
    back, space, metadata = load_task(tmp_path / "task.safetensors")
    assert space.name == "camvid11" and metadata["size"] == [180, 240]
    image = torch.rand(1, 3, 64, 64)
    for ours, theirs in zip(task(image), back(image), strict=True):
        torch.testing.assert_close(ours, theirs)
    with pytest.raises(InputError, match="task network, expected translation"):
        load_translation(tmp_path / "task.safetensors")


@pytest.mark.parametrize(
    ("level", "change"), [("image", "logit"), ("geometry", "logit"), ("normals", "fraction")]
)
def test_translation_weights_have_the_metadata_of_their_network(level, change, tmp_path):
    config, path = small_config(), tmp_path / "translation.safetensors"
    config.adaptation.input_level, config.model.translation_change = level, change
    ours = build_adaptation(config).translation.eval()
    torch.nn.init.normal_(ours.to_image.weight, std=0.1)
    save_translation(path, ours, config)
    theirs, metadata = load_translation(path)
    image = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    labels = torch.randint(0, 11, (1, 64, 64), dtype=torch.uint8)
    depth = torch.rand(1, 1, 64, 64) * 90
    results = [
        translate_images(network, image, depth, labels, metadata["depth_encoding"], "fp32")
        for network in (ours, theirs)
    ]
    assert np.array_equal(*results)
    if level != "normals":  # as version 0.1.0 wrote it
        _, metadata = load_weights(path)
        del metadata["normals"], metadata["change"]
        save_weights(path, ours, metadata)
        old = load_translation(path)[0]
        assert not old.normals and old.change == "logit"


def test_weights_of_another_architecture_are_refused_naming_keys(tmp_path):
    config = small_config()
    config.model.width = 0.25
    save_task(tmp_path / "w.safetensors", TaskNet(11, width=0.125), config)
    with pytest.raises(InputError, match=r"another architecture.*features\.0\.weight is \[8, 3"):
        load_task(tmp_path / "w.safetensors")


def test_foreign_safetensors_are_refused(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="has no metadata of gioada_fast"):
        load_weights(tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(InputError, match="not a readable safetensors"):
        load_weights(tmp_path / "w.safetensors")


@pytest.mark.parametrize("content", [b"", b"PK\3\4 is no checkpoint", b"half", None])
def test_the_newest_sound_checkpoint_is_loaded(tmp_path, content):
    last, previous = tmp_path / "last.pt", tmp_path / "previous.pt"
    assert load_newest((last, previous)) is None
    for step in range(3):
        save_checkpoint(last, {"step": step, "weights": torch.randn(100)}, previous)
    assert [load_checkpoint(path)["step"] for path in (last, previous)] == [2, 1]
    assert load_newest((last, previous))[::2] == (last, [])
    if content is None:
        last.unlink()
    else:
        last.write_bytes(last.read_bytes()[:1500] if content == b"half" else content)
    path, state, problems = load_newest((last, previous), {"step"})
    assert path == previous and state["step"] == 1
    assert ["last.pt" in problem for problem in problems] == [True] * (content is not None)
    previous.write_bytes(b"damaged, too")
    with pytest.raises(InputError, match=r"previous\.pt"):
        load_newest((last, previous))


def test_content_that_changed_is_detected_where_the_archive_is_sound(tmp_path):
    """As by bits that flipped in memory, before the archive's own checksums were computed."""
    path = tmp_path / "c.pt"
    save_checkpoint(path, {"step": 1, "weights": torch.zeros(3)})
    state = torch.load(path, weights_only=True)
    state["weights"][1] = 1
    torch.save(state, path)
    with pytest.raises(InputError, match=r"c\.pt: is damaged"):
        load_checkpoint(path)
    del state["checksum"]  # as version 0.1.0 wrote it
    torch.save(state, path)
    assert load_checkpoint(path)["step"] == 1
