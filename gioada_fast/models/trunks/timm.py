"""Any backbone of timm as a trunk: ``--model.backbone timm:convnext_tiny``.

timm is imported when such a trunk is built.
"""

import importlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import InputError
from .base import Trunk
from .scales import choose_scales, keep_statistics


class TimmTrunk(Trunk):
    """A model of timm, by ``timm.create_model(name, features_only=True)``.

    Batch norms stay at their statistics, as in ``HuggingFaceTrunk``.

    Args:
        name: of the model, with or without the tag of its weights (convnext_tiny.fb_in22k).

    Raises:
        InputError: timm is missing, or has no such model, or it gives no feature maps.
    """

    NORMS = ("none",)
    TAKES_NAME = True

    def __init__(self, name: str):
        super().__init__(norm="none")
        self.name = name
        probe = self._create()
        self._taps = choose_scales([entry["reduction"] for entry in probe.feature_info.info])
        self.model = self._create(out_indices=self._taps)
        info = self.model.feature_info
        self._scales = tuple(zip(info.reduction(), info.channels(), strict=True))
        self.size_multiple = math.lcm(*info.reduction())
        settings = getattr(probe, "pretrained_cfg", None) or {}
        self.mean = tuple(settings.get("mean", self.mean))
        self.std = tuple(settings.get("std", self.std))
        self.train()

    def _create(self, **options: Any) -> Any:
        try:
            timm = importlib.import_module("timm")
        except ImportError as error:
            raise InputError(
                f"model.backbone timm:{self.name} needs timm, which cannot be imported ({error}): "
                "pip install timm"
            ) from error
        try:
            return timm.create_model(self.name, features_only=True, **options)
        except Exception as error:  # RuntimeError for unknown names, or whatever the model raises
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise InputError(f"model.backbone is timm:{self.name}: {lines[0]}") from error

    @classmethod
    def build(
        cls, name: str, width: float, norm: str, config: Mapping[str, Any] | None = None
    ) -> "TimmTrunk":
        """See ``Trunk.build``; there is no width, and the norm is the model's own."""
        if width != 1:
            raise InputError(f"model.width is {width}, but a trunk of timm has its own")
        if norm not in cls.NORMS:
            raise InputError(f"model.norm is {norm!r}, but a trunk of timm has its own")
        return cls(name.partition(":")[2])

    def load(self, state: Mapping[str, Tensor] | None) -> None:
        """Load weights with timm's key names, or for None those that timm has for the name."""
        options: dict[str, Any] = {} if state is None else {"state_dict": dict(state)}
        donor = self._create(
            out_indices=self._taps, pretrained=True, pretrained_cfg_overlay=options
        )
        self.model.load_state_dict(donor.state_dict())

    @property
    def scales(self) -> tuple[tuple[int, int], ...]:
        """(stride, channels) of each feature map, finest first."""
        return self._scales

    def pyramid(self, x: Tensor) -> tuple[Tensor, ...]:
        """See ``Trunk.pyramid``."""
        return tuple(x.contiguous(memory_format=torch.channels_last) for x in self.model(x))

    def train(self, mode: bool = True) -> "TimmTrunk":
        """Set the mode of the model, except for batch norms, which stay in evaluation mode."""
        super().train(mode)
        keep_statistics(self)
        return self

    def blocks(self) -> Sequence[Sequence[nn.Module]]:
        """Not known.

        Raises:
            InputError: always.
        """
        raise InputError(
            "model.task_checkpointing and optimiser.layer_decay are not available for trunks of "
            "timm: leave them out, or use the same model from transformers (model.backbone hf)"
        )
