"""Builds networks from settings, and saves and loads their weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..adaptation import TwoLevelAdaptation
from ..config import Config, ModelConfig, config_of, rename_old_settings
from ..errors import InputError
from ..labels import BUILT_IN_SPACES, LabelSpace, label_space
from ..models import TaskNet, TranslationNet
from ..models.trunks.hugging_face import import_transformers
from .checkpoint import first_of, load_checkpoint, load_state, load_weights, save_weights
from .hub import read_trunk_config
from .pretrained import load_trunk

Network = TypeVar("Network", bound=nn.Module)
Built = TypeVar("Built")


def build_adaptation(config: Config, from_files: bool = True) -> TwoLevelAdaptation:
    """Build the networks of a run with initial weights that depend on the seed.

    Args:
        config: all settings.
        from_files: whether to read ``model.init_from`` or ``model.pretrained``; not needed if a
            checkpoint is loaded afterwards.
    """
    keep_trunk_config(config.model)
    torch.manual_seed(config.seed)
    space = label_space(config.data.label_space)
    adaptation = TwoLevelAdaptation(
        space.num_classes,
        config.adaptation,
        config.model,
        relative_target_depth=config.data.target.depth_kind == "relative",
    )
    if config.optimiser.layer_decay is not None:
        adaptation.task.trunk.blocks()  # says so if the trunk has none
    if from_files and config.model.init_from:
        _load_initial_task(Path(config.model.init_from).expanduser(), adaptation.task, config)
    elif from_files and config.model.pretrained:
        load_trunk(adaptation.task.trunk, config.model)
    return _channels_last(adaptation)


def keep_trunk_config(model: ModelConfig) -> None:
    """Let the settings say what the trunk is, so that a run needs its folder only at the start.

    Sets ``trunk_config`` of a trunk from transformers, unless it is set already.
    """
    if model.backbone != "hf" or model.trunk_config is not None:
        return
    if model.pretrained:
        model.trunk_config = read_trunk_config(model.pretrained)
    elif model.init_from:
        model.trunk_config = _load(Path(model.init_from).expanduser(), "task")[1].get(
            "trunk_config"
        )


def _load_initial_task(path: Path, task: TaskNet, config: Config) -> None:
    """Load a task network from a file, whose architecture must be the one in the settings."""
    initial, space, theirs = load_task(path)
    ours = _task_metadata(config, task.head)
    names = ("backbone", "width", "norm", "head", "head_channels")
    pairs = {f"model.{name}": (theirs.get(name), ours.get(name)) for name in names}
    own = label_space(config.data.label_space)
    if space.classes != own.classes:  # colours, ids and 'of' may differ
        pairs = {"data.label_space": (_described(space), _described(own)), **pairs}
    for setting, (their_value, our_value) in pairs.items():
        if their_value != our_value:
            raise InputError(
                f"model.init_from: {path} was trained with {setting} = {their_value}, here it is "
                f"{our_value}: change it, or start from other weights"
            )
    if _architecture(theirs) != _architecture(ours):
        raise InputError(
            f"model.init_from: {path} has another trunk than model.pretrained: leave out "
            "model.pretrained, or start from other weights"
        )
    task.load_state_dict(initial.state_dict())


def _architecture(metadata: dict[str, Any]) -> dict[str, Any] | None:
    """Content of the config.json of a trunk from transformers."""
    return (metadata.get("trunk_config") or {}).get("config")


def _described(space: LabelSpace) -> str:
    if space.name in BUILT_IN_SPACES:
        return space.name
    return f"{space.name} ({first_of(list(space.classes), 20)})"


def _task_metadata(config: Config, head: str | None) -> dict[str, Any]:
    """Metadata from which a task network can be built; ``head`` None: as for ``TaskNet``."""
    metadata = {
        "network": "task",
        "label_space": label_space(config.data.label_space).setting,
        "backbone": config.model.backbone,
        "width": config.model.trunk_width,
        "norm": config.model.trunk_norm,
        **_input(config),
    }
    if head != "deeplab":
        metadata |= {"head": head, "head_channels": config.model.head_channels}
    if config.model.trunk_config is not None:
        metadata["trunk_config"] = config.model.trunk_config
    return metadata


def save_task(path: Path, task: TaskNet, config: Config) -> None:
    """Write the task network's weights, with metadata from which it can be built."""
    save_weights(path, task, _task_metadata(config, task.head))


def load_task(path: Path) -> tuple[TaskNet, LabelSpace, dict[str, Any]]:
    """Load a file that ``save_task`` wrote.

    Returns:
        (network in evaluation mode, its classes, metadata). The metadata has the network's input
        ``size`` (H, W), its ``label_space`` (a name or the space's content), its
        ``depth_encoding`` and its architecture.
    """
    state, metadata = _load(path, "task")
    rename_old_settings({"model": metadata})
    return _built_task(path, state, metadata)


def load_checkpointed_task(
    path: Path,
) -> tuple[TaskNet, TaskNet | None, LabelSpace, dict[str, Any]]:
    """Load the task network and its teacher from a run's checkpoint.

    Returns:
        (network, teacher or None without self-training, classes, metadata), see ``load_task``; the
        metadata also has the ``step`` of the checkpoint.
    """
    checkpoint = load_checkpoint(path, {"config", "networks", "step"})
    settings, networks = checkpoint["config"], checkpoint["networks"]
    rename_old_settings(settings)
    config = _build(path, lambda: config_of(settings))
    loaded = {}
    for name in ("task", "teacher"):
        prefix = f"{name}."
        state = {k.removeprefix(prefix): v for k, v in networks.items() if k.startswith(prefix)}
        if state or name == "task":
            loaded[name] = _built_task(path, state, _task_metadata(config, config.model.head))
    task, space, metadata = loaded["task"]
    teacher = loaded["teacher"][0] if "teacher" in loaded else None
    return task, teacher, space, {**metadata, "step": checkpoint["step"]}


def _built_task(
    path: Path, state: dict[str, Tensor], metadata: dict[str, Any]
) -> tuple[TaskNet, LabelSpace, dict[str, Any]]:
    space = _space(path, metadata)
    task = _build(
        path,
        lambda: TaskNet(
            space.num_classes,
            metadata["backbone"],
            metadata["width"],
            metadata["norm"],
            metadata.get("trunk_config"),
            metadata.get("head", "deeplab"),
            metadata.get("head_channels", 256),
        ),
    )
    try:
        load_state(task, state, path, "task")
    except InputError as error:
        raise InputError(f"{error}{_version_hint(metadata)}") from error
    return _channels_last(task).eval(), space, metadata


def _version_hint(metadata: dict[str, Any]) -> str:
    """What else may be wrong if weights of a trunk from transformers do not fit."""
    written = (metadata.get("trunk_config") or {}).get("transformers")
    installed = import_transformers().__version__ if written else None
    if written == installed:
        return ""
    return (
        f"; they were written with transformers {written}, here it is {installed}, which may name "
        "weights differently"
    )


def save_translation(path: Path, translation: TranslationNet, config: Config) -> None:
    """Write the translation network's weights, with metadata from which it can be built."""
    save_weights(
        path,
        translation,
        {
            "network": "translation",
            "label_space": label_space(config.data.label_space).setting,
            "geometry": translation.geometry,
            "normals": translation.normals,
            "width": config.model.translation_width,
            "blocks": config.model.translation_blocks,
            "change": translation.change,
            **_input(config),
        },
    )


def load_translation(path: Path) -> tuple[TranslationNet, dict[str, Any]]:
    """Load a file that ``save_translation`` wrote: (network in evaluation mode, metadata).

    The metadata has the ``depth_encoding`` of the network's input, and its architecture.
    """
    state, metadata = _load(path, "translation")
    space = _space(path, metadata)
    translation = _build(
        path,
        lambda: TranslationNet(
            space.num_classes,
            metadata["geometry"],
            metadata["width"],
            metadata["blocks"],
            normals=metadata.get("normals", False),  # version 0.1.0 had none,
            change=metadata.get("change", "logit"),  # and this change alone
        ),
    )
    load_state(translation, state, path, "translation")
    return _channels_last(translation).eval(), metadata


def _input(config: Config) -> dict[str, Any]:
    return {
        "size": list(config.data.target_size),
        "depth_encoding": config.adaptation.depth_encoding,
    }


def _load(path: Path, network: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    state, metadata = load_weights(path)
    if metadata.get("network") != network:
        raise InputError(
            f"{path}: has weights of the {metadata.get('network')} network, expected {network}"
        )
    return state, metadata


def _space(path: Path, metadata: dict[str, Any]) -> LabelSpace:
    """The network's classes. Version 0.1.0 wrote the path of a file instead of its content."""
    try:
        return label_space(metadata["label_space"])
    except (InputError, KeyError, TypeError) as error:
        raise InputError(f"{path}: the label space of the network: {error}") from error


def _channels_last(network: Network) -> Network:
    # PyTorch's stubs lack this form of the call
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _build(path: Path, build: Callable[[], Built]) -> Built:
    try:
        return build()
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: the metadata of the network is invalid: {error}") from error
