"""Any backbone of timm as a trunk: ``--model.backbone timm:convnext_tiny``.

timm is imported when such a trunk is built.
"""

import contextlib
import importlib
import logging
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import InputError
from .base import Trunk
from .scales import choose_scales, keep_statistics

_OF_ANY_SIZE: tuple[dict[str, bool], ...] = (
    {"dynamic_img_size": True},
    {"strict_img_size": False},
    {},
)
"""Options that let a model take images of any size, tried in this order: vision transformers have
the first, Swin in older versions of timm the second, convolutional networks need none."""


class TimmTrunk(Trunk):
    """A model of timm, by ``timm.create_model(name, features_only=True)``.

    Batch norms stay at their statistics, as in ``HuggingFaceTrunk``.

    Args:
        name: of the model, with or without the tag of its weights (convnext_tiny.fb_in22k).

    Raises:
        InputError: timm is missing, or has no such model, or it gives no feature maps, or takes
            only images of one size.
    """

    NORMS = ("none",)
    TAKES_NAME = True

    def __init__(self, name: str):
        super().__init__(norm="none")
        self.name = name
        backbone = f"model.backbone is timm:{name}"
        with _one_line(backbone):
            probe = self._create()
            self._taps = choose_scales([entry["reduction"] for entry in probe.feature_info.info])
            self.model = self._create(out_indices=self._taps)
        info = self.model.feature_info
        self._scales = tuple(zip(info.reduction(), info.channels(), strict=True))
        self._channels_come_last = getattr(self.model, "output_fmt", None) == "NHWC"
        self.size_multiple = math.lcm(*info.reduction())
        settings = getattr(probe, "pretrained_cfg", None) or {}
        self.mean = tuple(settings.get("mean", self.mean))
        self.std = tuple(settings.get("std", self.std))
        size = 2 * self.size_multiple, 3 * self.size_multiple
        with _one_line(f"{backbone}, which does not take images of any size"):
            self._check_maps(size)
        self.train()

    def _create(self, **options: Any) -> Any:
        timm = _import_timm(self.name)
        for of_any_size in _OF_ANY_SIZE:
            try:
                return timm.create_model(self.name, features_only=True, **of_any_size, **options)
            except TypeError:  # the model has no such option
                if not of_any_size:
                    raise
        raise AssertionError("the last options are none")

    @torch.no_grad()
    def _check_maps(self, size: tuple[int, int]) -> None:
        """Apply the model to an image [H, W] that is not the one it was trained on."""
        self.eval()
        for x, (stride, channels) in zip(
            self.pyramid(torch.zeros(1, 3, *size)), self._scales, strict=True
        ):
            expected = [1, channels, *(side // stride for side in size)]
            if list(x.shape) != expected:
                raise ValueError(f"a feature map is {list(x.shape)}, expected {expected}")

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

    def load(self, state: Mapping[str, Tensor] | None, origin: str) -> None:
        """Load weights with timm's key names, or for None those that timm has for the name.

        Args:
            state: the weights, perhaps with those of a classifier.
            origin: where they come from, for messages.

        Raises:
            InputError: weights are missing or have another shape, or timm has none for the name.
                More than a trunk needs are fine.
        """
        with _one_line(f"{origin} cannot be loaded into timm:{self.name}"):
            if state is not None:
                self._check_complete(state)
            donor = self._donor({} if state is None else {"state_dict": dict(state)})
        self.model.load_state_dict(donor.state_dict())

    def _donor(self, overlay: Mapping[str, Any]) -> Any:
        return self._create(
            out_indices=self._taps, pretrained=True, pretrained_cfg_overlay=dict(overlay)
        )

    def _check_complete(self, state: Mapping[str, Tensor]) -> None:
        """Refuse weights that leave a part of the trunk as it was initialised.

        timm renames and resizes weights for many models, and says nothing of missing ones. Weights
        that are all nan show which parts of the trunk it fills.
        """
        others = [str(key) for key, value in state.items() if not isinstance(value, Tensor)]
        if others:
            raise ValueError(f"expected a dict of weights by name, but {others[0]} is none")
        marked = {
            key: torch.full_like(value, math.nan) if value.is_floating_point() else value
            for key, value in state.items()
        }
        with _quiet():
            filled = self._donor({"state_dict": marked}).state_dict()
        missing = [
            key for key, x in filled.items() if x.is_floating_point() and not x.isnan().all()
        ]
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise ValueError(f"missing: {', '.join(missing[:3])}{more}")

    @property
    def scales(self) -> tuple[tuple[int, int], ...]:
        """(stride, channels) of each feature map, finest first."""
        return self._scales

    def pyramid(self, x: Tensor) -> tuple[Tensor, ...]:
        """See ``Trunk.pyramid``."""
        maps = self.model(x)
        if self._channels_come_last:
            maps = [x.permute(0, 3, 1, 2) for x in maps]
        return tuple(x.contiguous(memory_format=torch.channels_last) for x in maps)

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


def _import_timm(name: str) -> ModuleType:
    try:
        return importlib.import_module("timm")
    except Exception as error:  # a torchvision for another torch raises RuntimeError, for instance
        raise InputError(
            f"model.backbone timm:{name} needs timm, which cannot be imported ({error}): pip "
            "install timm, with the torchvision that fits torch"
        ) from error


@contextlib.contextmanager
def _one_line(what: str) -> Iterator[None]:
    """Turn an exception of timm, which may have any type, into one line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        text = textwrap.shorten(str(error), 300, placeholder=" ...") or type(error).__name__
        raise InputError(f"{what}: {text}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without timm's warnings of weights that it does not use."""
    logger = logging.getLogger("timm")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
