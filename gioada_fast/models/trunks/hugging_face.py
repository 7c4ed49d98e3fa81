"""Any backbone of Hugging Face transformers as a trunk.

The features are the ``feature_maps`` of the model's Backbone class, such as ``Dinov2Backbone``, or,
for models that have none (SegFormer), those hidden states that are maps [N, C, h, w].

transformers is imported when such a trunk is built. Nothing here reads a file or the network:
``engine/hub.py`` does.
"""

import contextlib
import functools
import importlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...errors import InputError
from ..layers import recomputed
from .base import Trunk
from .scales import choose_scales, keep_statistics

_PROBE = 448
"""Side in pixels of the image that strides are measured on: a multiple of patches of 14 and 16
pixels and of strides up to 64."""


def import_transformers() -> ModuleType:
    """The package transformers; an ``InputError`` says how to install it."""
    try:
        return importlib.import_module("transformers")
    except Exception as error:  # an installation that does not fit together may raise any
        raise InputError(
            "model.backbone hf needs transformers, which cannot be imported "
            f'({error}): pip install "gioada_fast[transformers]"'
        ) from error


class HuggingFaceTrunk(Trunk):
    """A model of transformers.

    The batch norms of ResNet stay at their statistics: those of small batches are too noisy, and
    the loss of a pair would depend on the rest of its batch. Weights that the features do not
    depend on, such as DINOv2's mask token, are not trained.

    Args:
        config: ``model.trunk_config``: ``config``, the content of a config.json; ``mean`` and
            ``std``, see ``Trunk``.

    Raises:
        InputError: transformers is missing, or has no such model, or it gives no feature maps.
    """

    NORMS = ("none",)

    def __init__(self, config: Mapping[str, Any]):
        super().__init__(norm="none")
        transformers = import_transformers()
        self.mean, self.std = tuple(config["mean"]), tuple(config["std"])
        model_config = read_model_config(config["config"])
        kind = model_config.model_type
        with _clear_errors(f"transformers {transformers.__version__}, model type {kind!r}"):
            probe = _probe(json.dumps(config["config"], sort_keys=True))
            if _has_backbone_class(model_config):
                model_config.out_indices = list(probe.states)
            self.model = _new_model(model_config)
            if not _has_backbone_class(model_config):
                # installs hooks for the hidden states, which torch.compile cannot trace
                image = torch.zeros(1, 3, probe.multiple, probe.multiple)
                with torch.no_grad():
                    _maps(self.model.eval(), image, None)
        self._states, self._scales, self.size_multiple = probe.states, probe.scales, probe.multiple
        # Swin's windows: torch.export has not come to an end after minutes for images of any size,
        # and code of inductor (torch 2.13, CPU) gives no gradient to three of four feature maps
        has_windows = hasattr(model_config, "window_size")
        self.traces_any_size = self.compiles = not has_windows
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name in probe.used)
        self.train()

    @classmethod
    def build(
        cls, name: str, width: float, norm: str, config: Mapping[str, Any] | None = None
    ) -> "HuggingFaceTrunk":
        """See ``Trunk.build``; there is no width, and the norm is the model's own."""
        if width != 1:
            raise InputError(f"model.width is {width}, but a trunk of transformers has its own")
        if norm not in cls.NORMS:
            raise InputError(f"model.norm is {norm!r}, but a trunk of transformers has its own")
        if config is None:
            raise InputError(
                "model.backbone hf needs model.pretrained: a folder with config.json and "
                "*.safetensors, or a name on the hub"
            )
        if not config.keys() >= {"config", "mean", "std"}:
            raise InputError(
                "model.trunk_config is not what a run writes (config, mean, std): leave it out"
            )
        return cls(config)

    @property
    def scales(self) -> tuple[tuple[int, int], ...]:
        """(stride, channels) of each feature map, finest first."""
        return self._scales

    def pyramid(self, x: Tensor) -> tuple[Tensor, ...]:
        """See ``Trunk.pyramid``."""
        return tuple(
            maps.contiguous(memory_format=torch.channels_last)
            for maps in _maps(self.model, x, self._states)
        )

    def train(self, mode: bool = True) -> "HuggingFaceTrunk":
        """Set the mode of the model, except for batch norms, which stay in evaluation mode."""
        super().train(mode)
        keep_statistics(self)
        return self

    def blocks(self) -> Sequence[Sequence[nn.Module]]:
        """The innermost layers that transformers can compute again in the backward pass.

        Raises:
            InputError: the model has none.
        """
        layer = importlib.import_module("transformers.modeling_layers").GradientCheckpointingLayer
        layers = [module for module in self.modules() if isinstance(module, layer)]
        innermost = [
            module
            for module in layers
            if not any(isinstance(child, layer) for child in list(module.modules())[1:])
        ]
        if not innermost:
            raise InputError(
                f"{type(self.model).__name__} of transformers has no layers that "
                "model.task_checkpointing and optimiser.layer_decay could use: leave them out"
            )
        return [[module] for module in innermost]

    def enable_checkpointing(self) -> None:
        """Let transformers compute each block again in the backward pass."""
        for (block,) in self.blocks():
            block.gradient_checkpointing = True  # type: ignore[assignment]
            block._gradient_checkpointing_func = recomputed  # type: ignore[assignment]
        self.checkpointing = True


def read_model_config(content: Mapping[str, Any]) -> Any:
    """The configuration object of a config.json's content.

    Raises:
        InputError: it names no model type, or transformers has no such type.
    """
    transformers = import_transformers()
    content = dict(content)
    kind = content.pop("model_type", None)
    if kind is None:
        hint = ""
        if "architecture" in content:  # timm's
            hint = f"; for a model of timm: model.backbone timm:{content['architecture']}"
        raise InputError(f"config.json has no model_type: not a model of transformers{hint}")
    if kind not in transformers.CONFIG_MAPPING:
        raise InputError(
            f"config.json has model_type {kind!r}, which transformers {transformers.__version__} "
            "does not have: update transformers, or choose another model"
        )
    with _clear_errors(f"config.json of a {kind!r}"):
        config = transformers.CONFIG_MAPPING[kind].from_dict(content)
    for name in ("reshape_hidden_states", "reshape_last_stage"):
        if hasattr(config, name):
            setattr(config, name, True)  # maps, not tokens
    return config


def _has_backbone_class(config: Any) -> bool:
    """Whether the model has a Backbone class."""
    transformers = import_transformers()
    return type(config) in transformers.AutoBackbone._model_mapping


def _new_model(config: Any) -> Any:
    transformers = import_transformers()
    auto = transformers.AutoBackbone if _has_backbone_class(config) else transformers.AutoModel
    return auto.from_config(config, dtype=torch.float32, trust_remote_code=False)


def _maps(model: Any, x: Tensor, states: Sequence[int] | None) -> tuple[Tensor, ...]:
    """Feature maps of a Backbone, or hidden states of another model; None: all of them."""
    if hasattr(model, "out_features"):
        return tuple(model(pixel_values=x).feature_maps)
    hidden = model(pixel_values=x, output_hidden_states=True).hidden_states
    return tuple(hidden if states is None else (hidden[index] for index in states))


class _Probe(NamedTuple):
    """What the features of a model look like."""

    states: tuple[int, ...]
    """The stages or hidden states to use."""
    scales: tuple[tuple[int, int], ...]
    """(stride, channels) of each."""
    multiple: int
    """All strides divide it."""
    used: frozenset[str]
    """Names of the weights that the features depend on."""


@functools.lru_cache(maxsize=8)
def _probe(content: str) -> _Probe:
    """Run a model, given by its config.json, on the meta device, which computes no numbers."""
    config = read_model_config(json.loads(content))
    kind, first = config.model_type, 0
    if _has_backbone_class(config):
        first = int(config.stage_names[0] == "stem")
        config.out_indices = list(range(first, len(config.stage_names)))
    with torch.device("meta"):
        model = _new_model(config).eval()
        image = torch.zeros(1, 3, _PROBE, _PROBE)
    if getattr(model, "main_input_name", "") != "pixel_values":
        raise InputError(f"model type {kind!r} takes no images: it is no backbone")
    maps = _maps(model, image, None)
    if not maps or any(x.dim() != 4 or x.shape[2] < 2 for x in maps):
        raise InputError(f"model type {kind!r} gives no feature maps: it is no backbone")
    strides = [round(_PROBE / x.shape[2]) for x in maps]
    chosen = choose_scales(strides)
    weights = dict(model.named_parameters())
    gradients = torch.autograd.grad(
        [maps[index].sum() for index in chosen], list(weights.values()), allow_unused=True
    )
    return _Probe(
        tuple(first + index for index in chosen),
        tuple((strides[index], maps[index].shape[1]) for index in chosen),
        math.lcm(*(strides[index] for index in chosen)),
        frozenset(name for name, grad in zip(weights, gradients, strict=True) if grad is not None),
    )


@contextlib.contextmanager
def _clear_errors(what: str) -> Iterator[None]:
    """Turn an exception of transformers into one line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # whatever the model's code raises for a configuration
        # an import that fails only says so; its cause says why
        cause = (error.__cause__ or error) if isinstance(error, ImportError) else error
        lines = str(cause).strip().splitlines() or [type(cause).__name__]
        raise InputError(f"{what}: cannot be used as a trunk: {lines[0]}") from error
