"""Loads pretrained weights of a trunk: from a file, a URL whose SHA-256 is verified, or the hub."""

import hashlib
import re
import sys
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from urllib.parse import unquote
from urllib.request import Request

import torch
from torch import Tensor

from ..config import ModelConfig
from ..errors import InputError
from ..models.trunks import Trunk, trunk_class
from ..models.trunks.hugging_face import HuggingFaceTrunk
from ..models.trunks.timm import TimmTrunk
from . import hub
from .checkpoint import first_of, load_pickle_free, load_safetensors

CACHE = "~/.cache/gioada_fast/weights"
"""Folder of downloaded files."""

_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})$")


def load_trunk(trunk: Trunk, model: ModelConfig) -> None:
    """Load the weights that ``model.pretrained`` names into a trunk."""
    assert model.pretrained is not None
    if isinstance(trunk, HuggingFaceTrunk):
        hub.load_weights(trunk, model.pretrained)
    elif isinstance(trunk, TimmTrunk):
        own = model.pretrained == "imagenet"  # timm downloads its own
        state = None if own else _state(pretrained_file(model.pretrained, model.backbone))
        trunk.load(state, f"model.pretrained: {model.pretrained}")
    else:
        load_pretrained(trunk, pretrained_file(model.pretrained, model.backbone))
    _check_finite(trunk, model.pretrained)
    trunk.scale_to_unit_variance()


def _check_finite(trunk: Trunk, pretrained: str) -> None:
    """Refuse weights that are not finite; training would only say that a loss is not."""
    for key, value in trunk.state_dict().items():
        if not torch.isfinite(value).all():
            raise InputError(
                f"model.pretrained: {pretrained}: {key} has values that are not finite"
            )


def pretrained_file(pretrained: str, backbone: str) -> Path:
    """The file that ``model.pretrained`` names, downloaded if necessary.

    Several processes may call this at the same time, but then each downloads the file; a call
    inside ``distributed.writer_first`` avoids that.

    Args:
        pretrained: a path; an https, http or file URL with the SHA-256 of its content, whole
            (``URL#sha256=...``) or its first 8 or more digits in the file's name
            (``vgg16-397923af.pth``); or ``imagenet``, the file of the trunk's ``IMAGENET_URL``.
        backbone: a key of ``models.trunks.TRUNKS``.
    """
    if pretrained == "imagenet":
        url = trunk_class(backbone).IMAGENET_URL
        if url is None:
            raise InputError(
                f"model.pretrained is imagenet, but {backbone} names no file of ImageNet weights: "
                "give a path, or a URL with a SHA-256"
            )
        return _download(url)
    if "://" in pretrained:
        return _download(pretrained)
    path = Path(pretrained).expanduser()
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; model.pretrained is a path, a URL with a SHA-256, or imagenet"
        )
    return path


def load_pretrained(trunk: Trunk, path: Path) -> None:
    """Load ImageNet weights into a trunk; keys that it does not have (classifiers) are ignored.

    Args:
        trunk: the trunk, of width 1.
        path: ``.pth`` or ``.safetensors`` with torchvision's key names, any floating dtype.
    """
    state = _state(path)
    own, needed = trunk.state_dict(), trunk.pretrained_keys()
    # in the trunk's order, because the keys of the first layer identify a wrong file best
    keys = [key for key in own if key in needed]
    missing = [f"{key} is missing" for key in keys if key not in state]
    misfits = [
        f"{key} is {misfit}, expected {list(own[key].shape)}"
        for key in keys
        if key in state and (misfit := _misfit(state[key], own[key])) is not None
    ]
    if missing or misfits:
        problems = "; ".join(first_of(listed) for listed in (missing, misfits) if listed)
        raise InputError(
            f"{path}: not weights of {type(trunk).__name__} with torchvision's key names: "
            f"{problems}; the file has {first_of([str(key) for key in state]) or 'no keys'}"
        )
    trunk.load_state_dict({key: state[key].float() for key in keys}, strict=False)


def _state(path: Path) -> dict[str, Tensor]:
    state = load_safetensors(path)[0] if path.suffix == ".safetensors" else load_pickle_free(path)
    if not isinstance(state, dict):
        raise InputError(f"{path}: has a {type(state).__name__}, expected a dict of weights")
    return state


def _misfit(value: object, own: Tensor) -> str | None:
    """A description of ``value`` if it cannot replace ``own``, otherwise None."""
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    if not value.is_floating_point():
        return f"of {value.dtype}"
    return None if value.shape == own.shape else str(list(value.shape))


def _download(url: str) -> Path:
    """Download ``url`` to ``CACHE`` unless an undamaged file is there; returns the file."""
    location, _, fragment = url.partition("#")
    if location.partition("://")[0].lower() not in ("https", "http", "file"):
        raise InputError(f"{url}: expected an https, http or file URL")
    name = PurePosixPath(unquote(location.partition("?")[0].rpartition("/")[2]))
    sha256 = _sha256_of_url(url, fragment, name.stem)
    stem = _HASH_IN_NAME.sub("", name.stem)
    # the hash in the name separates files of different URLs
    path = Path(CACHE).expanduser() / f"{stem}-{sha256[:8]}{name.suffix}"
    by_hand = "download it by hand and set model.pretrained to its path"
    try:
        # raises for invalid URLs, where torch.hub would fail and leave its temporary file behind
        Request(location)
        if not (path.is_file() and _sha256_of_file(path).startswith(sha256)):
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(location, str(path), sha256, sys.stderr.isatty())
    except RuntimeError as error:
        raise InputError(
            f"{url}: the file does not have this SHA-256: {error}; try again, correct the hash if "
            f"it is wrong, or {by_hand}"
        ) from error
    except (OSError, HTTPException, ValueError) as error:
        raise InputError(f"{url}: cannot be downloaded to {path}: {error}; {by_hand}") from error
    return path


def _sha256_of_url(url: str, fragment: str, stem: str) -> str:
    """The SHA-256 in a URL, or its first digits."""
    if fragment:
        whole = re.fullmatch(r"sha256=([0-9a-f]{64})", fragment, re.IGNORECASE)
        if whole is None:
            raise InputError(f"{url}: ends in #{fragment}, expected #sha256=<64 hex digits>")
        return whole[1].lower()
    prefix = _HASH_IN_NAME.search(stem)
    if prefix is None:
        raise InputError(
            f"{url}: has no SHA-256 to verify the download: add #sha256=<64 hex digits> "
            "(sha256sum FILE prints them)"
        )
    return prefix[1]


def _sha256_of_file(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
