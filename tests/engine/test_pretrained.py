import hashlib
import os
import pickle
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file

from gioada_fast.config import Config, ModelConfig
from gioada_fast.engine.networks import build_adaptation
from gioada_fast.engine.pretrained import load_pretrained, pretrained_file
from gioada_fast.errors import InputError
from gioada_fast.models.trunks.resnet import ResNet101
from gioada_fast.models.trunks.vgg import VGG16
from tests.engine.test_checkpoint import Bomb

CONTENT = b"weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """The folder of downloads, inside a temporary home directory."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home" / ".cache" / "gioada_fast" / "weights"


def served(folder: Path, name: str, content: bytes = CONTENT) -> tuple[Path, str]:
    """(file, URL) of something to download."""
    path = folder / name
    path.write_bytes(content)
    return path, path.as_uri()


def refused(url: str, *words: str) -> None:
    with pytest.raises(InputError) as error:
        pretrained_file(url, "vgg16")
    for word in (url, *words):
        assert word in str(error.value)


def small_trunk() -> VGG16:
    return VGG16(width=0.125, norm="none")


@pytest.mark.parametrize(
    ("name", "fragment"),
    [
        ("vgg.pth", f"#sha256={SHA256}"),
        ("vgg.pth", f"#sha256={SHA256.upper()}"),
        ("my vgg.safetensors", f"#sha256={SHA256}"),
        ("vgg-00000000.pth", f"#sha256={SHA256}"),
        (f"vgg-{SHA256[:8]}.pth", ""),
        (f"vgg-{SHA256[:12]}.pth", ""),
        (f"vgg-{SHA256}.pth", ""),
    ],
)
def test_a_url_with_the_right_hash_is_downloaded(tmp_path, cache, name, fragment):
    original, url = served(tmp_path, name)
    path = pretrained_file(url + fragment, "vgg16")
    assert path.parent == cache and os.listdir(cache) == [path.name]
    assert path.stem.endswith(f"-{SHA256[:8]}") and path.suffix == original.suffix
    assert path.read_bytes() == CONTENT


def test_files_of_the_same_name_are_kept_apart(tmp_path, cache):
    (tmp_path / "other").mkdir()
    _, first = served(tmp_path, "vgg.pth")
    _, second = served(tmp_path / "other", "vgg.pth", b"others")
    second += f"#sha256={hashlib.sha256(b'others').hexdigest()}"
    assert pretrained_file(f"{first}#sha256={SHA256}", "vgg16").read_bytes() == CONTENT
    assert pretrained_file(second, "vgg16").read_bytes() == b"others"


@pytest.mark.parametrize(
    ("name", "fragment"),
    [("vgg.pth", f"#sha256={'0' * 64}"), ("vgg-0123abcd.pth", ""), (f"v-{SHA256[:8]}0.pth", "")],
)
def test_a_url_with_a_wrong_hash_is_refused(tmp_path, cache, name, fragment):
    _, url = served(tmp_path, name)
    refused(url + fragment, SHA256, "correct the hash", "by hand")
    assert os.listdir(cache) == []


@pytest.mark.parametrize(
    "end",
    ["vgg16.pth", "vgg16-397923.pth", "vgg16.pth#sha256=397923af", f"vgg16.pth#md5={SHA256}", ""],
)
def test_a_url_without_a_hash_is_refused(cache, end):
    refused(f"https://example.invalid/{end}", "#sha256=<64 hex digits>")
    assert not cache.exists()


def test_a_url_of_another_scheme_is_refused():
    refused(f"ftp://example.invalid/vgg.pth#sha256={SHA256}", "https, http or file")


def test_a_url_of_a_missing_file_is_reported(tmp_path, cache):
    refused(f"{(tmp_path / 'none.pth').as_uri()}#sha256={SHA256}", "none.pth", "by hand")
    assert os.listdir(cache) == []


def test_an_invalid_url_is_reported(cache):
    refused("https://[/vgg16-397923af.pth", "Invalid IPv6", "by hand")
    refused("http://exam ple/vgg16-397923af.pth", "by hand")
    assert not list(cache.glob("*"))


def test_an_unwritable_cache_is_reported(tmp_path, cache):
    _, url = served(tmp_path, "vgg.pth")
    cache.parent.mkdir(parents=True)
    cache.touch()
    refused(f"{url}#sha256={SHA256}", str(cache))


def test_an_interrupted_download_leaves_nothing(tmp_path, cache, monkeypatch):
    _, url = served(tmp_path, "vgg.pth")

    def interrupt(*_):
        assert len(os.listdir(cache)) == 1
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.move", interrupt)
    with pytest.raises(KeyboardInterrupt):
        pretrained_file(f"{url}#sha256={SHA256}", "vgg16")
    assert os.listdir(cache) == []


def test_a_download_is_reused(tmp_path):
    original, url = served(tmp_path, f"vgg-{SHA256[:8]}.pth")
    path = pretrained_file(url, "vgg16")
    original.unlink()
    assert pretrained_file(url, "vgg16") == path
    # the complete hash leads to the same file
    assert pretrained_file(f"{url}#sha256={SHA256}", "vgg16") == path


def test_a_damaged_download_is_replaced(tmp_path):
    original, url = served(tmp_path, f"vgg-{SHA256[:8]}.pth")
    path = pretrained_file(url, "vgg16")
    path.write_bytes(CONTENT[:-1])
    assert pretrained_file(url, "vgg16").read_bytes() == CONTENT
    path.write_bytes(CONTENT[:-1])
    original.unlink()
    refused(url, str(path), "by hand")


@pytest.mark.parametrize(
    ("backbone", "url"),
    [
        ("vgg16", "https://download.pytorch.org/models/vgg16-397923af.pth"),
        ("resnet101", "https://download.pytorch.org/models/resnet101-63fe2227.pth"),
    ],
)
def test_imagenet_names_the_file_of_the_backbone(cache, monkeypatch, backbone, url):
    asked = []

    def offline(*arguments):
        asked.append(arguments[:3])
        raise URLError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    with pytest.raises(InputError, match=rf"{url}.*no network.*by hand"):
        build_adaptation(Config(model=ModelConfig(backbone=backbone, pretrained="imagenet")))
    name = url.rpartition("/")[2]
    assert asked == [(url, str(cache / name), name[-12:-4])]


def test_a_path_is_returned_unchanged(cache):
    cache.mkdir(parents=True)
    (cache / "vgg.pth").touch()
    assert pretrained_file("~/.cache/gioada_fast/weights/vgg.pth", "vgg16") == cache / "vgg.pth"
    with pytest.raises(InputError, match=r"imagenett: no such file.*a URL.*imagenet"):
        pretrained_file("imagenett", "vgg16")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_vgg_loads_torchvision_keys(tmp_path, suffix, dtype):
    donor, trunk = VGG16(width=1, norm="none"), VGG16(width=1, norm="none")
    state = {key: donor.state_dict()[key].to(dtype) for key in donor.pretrained_keys()}
    state["classifier.0.weight"] = torch.zeros(2, 2)
    path = tmp_path / f"vgg16{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(state, path)
    fc_before = trunk.fc[0].weight.clone()
    load_pretrained(trunk, path)
    for key in donor.pretrained_keys():
        assert torch.equal(trunk.state_dict()[key], state[key].float())
    assert torch.equal(trunk.fc[0].weight, fc_before)


def test_resnet_loads_torchvision_keys_from_a_url(tmp_path):
    donor, trunk = (ResNet101(width=0.125, norm="none") for _ in range(2))
    state = donor.state_dict()
    state["bn1.num_batches_tracked"] = torch.tensor(7)
    state["fc.weight"] = torch.zeros(2, 2)
    torch.save(state, tmp_path / "r.pth")
    sha256 = hashlib.sha256((tmp_path / "r.pth").read_bytes()).hexdigest()
    url = f"{(tmp_path / 'r.pth').as_uri()}#sha256={sha256}"
    load_pretrained(trunk, pretrained_file(url, "resnet101"))
    for key, value in trunk.state_dict().items():
        assert torch.equal(value, state[key])


def unfit(path: Path, trunk: torch.nn.Module, *words: str) -> None:
    with pytest.raises(InputError) as error:
        load_pretrained(trunk, path)
    for word in (str(path), *words):
        assert word in str(error.value)


def test_keys_that_do_not_fit_are_named(tmp_path):
    state = small_trunk().state_dict()
    del state["features.28.bias"]
    state["features.0.weight"] = torch.zeros(32, 3, 3, 3)
    state["features.2.bias"] = 3.5
    state["features.5.bias"] = torch.zeros(16, dtype=torch.int64)
    torch.save(state, tmp_path / "v.pth")
    unfit(
        tmp_path / "v.pth",
        small_trunk(),
        "not weights of VGG16",
        "features.28.bias is missing",
        "features.0.weight is [32, 3, 3, 3], expected [8, 3, 3, 3]",
        "features.2.bias is a float, expected [8]",
        "features.5.bias is of torch.int64, expected [16]",
    )


def test_weights_of_the_other_backbone_are_refused(tmp_path):
    vgg, resnet = small_trunk(), ResNet101(width=0.125, norm="none")
    torch.save(vgg.state_dict(), tmp_path / "v.pth")
    save_file(resnet.state_dict(), tmp_path / "r.safetensors")
    unfit(tmp_path / "v.pth", resnet, "ResNet101", "conv1.weight is missing", "features.0.weight")
    unfit(tmp_path / "r.safetensors", vgg, "VGG16", "features.0.weight is missing", "the file has")


def test_a_file_without_weights_is_refused(tmp_path):
    path = tmp_path / "v.pth"
    torch.save({"state_dict": small_trunk().state_dict()}, path)
    unfit(path, small_trunk(), "features.0.weight is missing", "the file has state_dict")
    torch.save({}, path)
    unfit(path, small_trunk(), "the file has no keys")
    torch.save([torch.zeros(1)], path)
    unfit(path, small_trunk(), "has a list")


@pytest.mark.parametrize(
    "content",
    [b"", b"<!DOCTYPE html>\n<html>", b"\x89PNG\r\n\x1a\n", b"abc\n", bytes(99), b"\x80\x02a"],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_of_another_format_is_refused(tmp_path, content, suffix):
    path = tmp_path / f"v{suffix}"
    path.write_bytes(content)
    unfit(path, small_trunk(), "not a")


@pytest.mark.parametrize("writer", [torch.save, lambda o, p: p.write_bytes(pickle.dumps(o))])
def test_malicious_pickle_code_is_not_run(tmp_path, writer):
    trigger = tmp_path / "exploded"
    writer({"features.0.weight": Bomb(trigger)}, tmp_path / "v.pth")
    unfit(tmp_path / "v.pth", small_trunk(), "not loaded")
    assert not trigger.exists()
