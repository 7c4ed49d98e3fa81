"""Reads backbones of Hugging Face transformers from a folder or the hub.

Only config.json, preprocessor_config.json and safetensors are read; code of a model's folder is
never run and pickled weights are never loaded.
"""

import contextlib
import importlib
import json
import logging
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError
from ..json_files import read_json
from ..models.trunks.base import IMAGENET_MEAN, IMAGENET_STD
from ..models.trunks.hugging_face import (
    HuggingFaceTrunk,
    import_transformers,
    read_model_config,
)
from .checkpoint import first_of

_HEADS = re.compile(
    r"^(\w+\.)?(classifier|cls_classifier|distillation_classifier|head|decode_head|auxiliary_head"
    r"|decoder|pooler|fc|layernorm|layer_norm|norm)\.|(^|\.)mask_token$"
)
"""Keys of weights that a trunk does not need: heads, the norm before them, and what only
pre-training uses."""

_NEW = re.compile(r"(^|\.)hidden_states_norms\.")
"""Keys of the norms that the Backbone classes of ConvNeXt and Swin add; they start as identity."""

_NOT_NEEDED = ("id2label", "label2id", "dtype", "torch_dtype", "_name_or_path", "architectures")
"""Entries of config.json that say nothing about the trunk."""

_CONVERT = (
    'python -c "import torch; from safetensors.torch import save_file; '
    "save_file({{k: v.contiguous() for f in {files} for k, v in torch.load(f, weights_only=True)"
    ".items()}}, 'model.safetensors', metadata={{'format': 'pt'}})\""
)
"""Command that converts pickled weights, the list ``files``."""


def read_trunk_config(pretrained: str) -> dict[str, Any]:
    """Read ``model.trunk_config`` of a backbone: everything that is needed to build it again.

    Args:
        pretrained: a folder with config.json, or the name of a model on the hub.

    Returns:
        ``config``: content of config.json; ``mean`` and ``std`` of the images that the model was
        trained with, from preprocessor_config.json, or ImageNet's if it names none, or 0 and 1 if
        it says ``do_normalize: false``;
        ``transformers``: the version that reads it.
    """
    transformers = import_transformers()
    content = _read_json(pretrained, "config.json")
    if content is None:
        raise InputError(f"model.pretrained: {pretrained} has no config.json")
    try:
        config = read_model_config(content)
    except InputError as error:
        raise InputError(f"model.pretrained: {pretrained}: {error}") from error
    settings = _read_json(pretrained, "preprocessor_config.json") or {}
    mean = _three(settings, "image_mean", pretrained) or IMAGENET_MEAN
    std = _three(settings, "image_std", pretrained) or IMAGENET_STD
    if settings.get("do_normalize") is False:
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    entries = config.to_dict()
    kept = {key: value for key, value in entries.items() if key not in _NOT_NEEDED}
    return {
        # as JSON has it, so that it is the same after a file
        "config": json.loads(json.dumps(kept)),
        "mean": list(mean),
        "std": list(std),
        "transformers": transformers.__version__,
    }


def load_weights(trunk: HuggingFaceTrunk, pretrained: str) -> None:
    """Load the weights of a folder or a model on the hub, and account for every key.

    Raises:
        InputError: weights are missing, have another shape, or belong to no part of the trunk and
            to no head; or there are only pickled weights.
    """
    folder = Path(pretrained).expanduser()
    source = str(folder) if folder.is_dir() else pretrained
    if folder.is_dir():
        _check_weights(folder)
    with _quiet(), _hub_errors(pretrained):
        donor, report = type(trunk.model).from_pretrained(
            source,
            config=trunk.model.config,
            use_safetensors=True,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,  # they are reported below, all at once
            output_loading_info=True,
        )
    missing = sorted(key for key in report["missing_keys"] if not _NEW.search(key))
    unexpected = sorted(key for key in report["unexpected_keys"] if not _HEADS.search(key))
    problems = [
        f"{key} is {list(theirs)}, expected {list(ours)}"
        for key, theirs, ours in sorted(report["mismatched_keys"])
    ]
    misshaped = {key for key, *_ in report["mismatched_keys"]}
    groups = [
        [f"{key} is missing" for key in missing if key not in misshaped],
        [f"{key} belongs to no part of the model" for key in unexpected],
        problems,
        list(report["error_msgs"]),
    ]
    listed = "; ".join(first_of(group) for group in groups if group)
    if listed:
        raise InputError(
            f"model.pretrained: the weights of {pretrained} do not fit its config.json "
            f"({type(trunk.model).__name__}): {listed}"
        )
    trunk.model.load_state_dict(donor.state_dict())


def _check_weights(folder: Path) -> None:
    """Refuse a folder without safetensors."""
    if any(folder.glob("*.safetensors")):
        return
    pickled = sorted(
        path.name for suffix in ("bin", "pth", "pt", "ckpt") for path in folder.glob(f"*.{suffix}")
    )
    if pickled:
        raise InputError(
            f"model.pretrained: {folder} has pickled weights alone ({first_of(pickled)}), which "
            "could run code and are not loaded; convert them in that folder: "
            + _CONVERT.format(files=pickled)
        )
    raise InputError(f"model.pretrained: {folder} has no *.safetensors")


def _read_json(pretrained: str, name: str) -> dict[str, Any] | None:
    """The content of a file in a folder or of a model on the hub; None if it is not there."""
    folder = Path(pretrained).expanduser()
    if folder.is_file():
        raise InputError(f"model.pretrained: {folder} is a file: give the folder that it is in")
    if folder.is_dir():
        path = folder / name
    elif re.fullmatch(r"[\w.-]+(/[\w.-]+)?", pretrained) and pretrained[0] not in "./":
        found = _from_hub(pretrained, name)
        if found is None:
            return None
        path = found
    else:
        raise InputError(
            f"model.pretrained: {pretrained}: no such folder; with model.backbone hf it is a "
            "folder with config.json and *.safetensors, or a name on the hub (nvidia/mit-b5)"
        )
    if not path.is_file():
        return None
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: has a {type(content).__name__}, expected a mapping")
    return content


def _from_hub(model: str, name: str) -> Path | None:
    hub = importlib.import_module("huggingface_hub")
    with _quiet(), _hub_errors(model):
        try:
            return Path(hub.hf_hub_download(model, name))
        except hub.errors.LocalEntryNotFoundError:  # no network
            raise
        except hub.errors.EntryNotFoundError:
            return None


def _three(settings: Mapping[str, Any], key: str, pretrained: str) -> list[float] | None:
    value = settings.get(key)
    if value is None:
        return None
    if not (
        isinstance(value, list)
        and len(value) == 3
        and all(isinstance(number, int | float) and math.isfinite(number) for number in value)
        and (key == "image_mean" or min(value) > 0)
    ):
        raise InputError(
            f"model.pretrained: preprocessor_config.json of {pretrained} has {key} = {value}, "
            "expected three numbers"
        )
    return [float(number) for number in value]


@contextlib.contextmanager
def _hub_errors(pretrained: str) -> Iterator[None]:
    """One line for what transformers and its hub raise, with what to do without a network."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        hint = ""
        if not Path(pretrained).expanduser().is_dir():
            hint = (
                "; it is no folder here, so it was looked up on the hub: check the name and the "
                "network, or download the model (hf download NAME --local-dir FOLDER) and give "
                "the folder"
            )
        reason = lines[0].strip() if lines else type(error).__name__
        message = f"model.pretrained: {pretrained} cannot be read: {reason}{hint}"
        raise InputError(message) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bars and reports of transformers, and the retries of its hub."""
    theirs = importlib.import_module("transformers.utils.logging")
    hub = logging.getLogger("huggingface_hub")
    level, bars, hub_level = theirs.get_verbosity(), theirs.is_progress_bar_enabled(), hub.level
    theirs.set_verbosity_error()
    theirs.disable_progress_bar()
    hub.setLevel(logging.ERROR)
    try:
        yield
    finally:
        hub.setLevel(hub_level)
        theirs.set_verbosity(level)
        if bars:
            theirs.enable_progress_bar()
