"""The fused cross-entropy in the segmentation models of Hugging Face transformers.

    from gioada_fast.integrations.transformers import fuse_loss, unfuse_loss

    fuse_loss(model)    # model(pixel_values, labels=labels) computes its loss by the fused op
    unfuse_loss(model)  # the model computes its loss itself again

With labels, these models compute

    z    = bilinear(logits, size of labels, align_corners=False)                  [N, C, H, W]
    loss = cross_entropy(z, labels) + auxiliary_loss_weight * (the same for the auxiliary head)

``ops.upsample_cross_entropy`` gives the same loss and gradients without a full-size tensor. A fused
model runs its own ``forward`` without labels, and adds the loss to the output.

``fuse_loss`` gives the model another class: a subclass of its own that overrides ``forward``, as
FSDP2 does. The subclass has the same name and signature, so ``save_pretrained``, ``Trainer`` and
auto classes see no difference. Copies and pickles of a fused model are fused.

Source: ``modeling_*.py`` of the models in transformers 5.24.
"""

import functools
import inspect
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from gioada_fast.ops import upsample_cross_entropy

MODELS = {
    "BeitForSemanticSegmentation": "semantic_loss_ignore_index",
    "DPTForSemanticSegmentation": "semantic_loss_ignore_index",
    "Data2VecVisionForSemanticSegmentation": "semantic_loss_ignore_index",
    "MobileNetV2ForSemanticSegmentation": "semantic_loss_ignore_index",
    "MobileViTForSemanticSegmentation": "semantic_loss_ignore_index",
    "MobileViTV2ForSemanticSegmentation": "semantic_loss_ignore_index",
    "Sapiens2ForSemanticSegmentation": "semantic_loss_ignore_index",
    "SegformerForSemanticSegmentation": "semantic_loss_ignore_index",
    "Tipsv2DptForSemanticSegmentation": "semantic_loss_ignore_index",
    "UperNetForSemanticSegmentation": "loss_ignore_index",
}
"""Models with this loss, and the name of ``ignore_index`` in the configuration of each."""

# Returns logits of the image's size; the loss needs the small ones of its decode_head.
_UPERNET = "UperNetForSemanticSegmentation"
# PyTorch's cross_entropy takes int64, and on CUDA uint8.
_LABELS = (torch.int64, torch.int32, torch.uint8)

Model = TypeVar("Model", bound=nn.Module)


class _Override(nn.Module):
    """Base of the mixins that override ``forward`` of a class of another package."""

    _theirs: Any

    def __reduce_ex__(self, protocol: Any) -> tuple:
        # Pickle finds a class by its name, and the name of the subclass leads to theirs.
        state = super().__reduce_ex__(protocol)[2:]
        return _new, (type(self).__bases__[0], self._theirs), *state


@functools.cache
def _subclass(mixin: Any, theirs: Any) -> Any:
    """Subclass of both with the name of ``theirs`` and the signature of its ``forward``."""

    @functools.wraps(theirs.forward)
    def forward(self, *args, **kwargs):
        return mixin.forward(self, *args, **kwargs)

    members = {name: getattr(theirs, name) for name in ("__module__", "__qualname__", "__doc__")}
    members |= {"_theirs": theirs, "forward": forward}
    return type(theirs.__name__, (mixin, theirs), members)


def _new(mixin: Any, theirs: Any) -> _Override:
    cls = _subclass(mixin, theirs)
    return cls.__new__(cls)


class _Head(_Override):
    """Head that keeps its logits for the loss, if ``_kept`` is a list."""

    _kept: list[Tensor] | None
    _is_auxiliary: bool

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        logits = super().forward(*args, **kwargs)
        if self._kept is None:
            return logits
        self._kept.append(logits)
        # The model does not use auxiliary logits without labels, but UperNet upsamples them: one
        # channel takes less time.
        return logits[:, :1] if self._is_auxiliary else logits


class _FusedModel(_Override):
    """Model that runs ``theirs`` without labels, and computes the loss of the logits."""

    _name: str  # its name in MODELS
    _labels_at: int  # position of labels in the arguments of forward
    config: Any

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        known = _known(cls)
        cls._name = known.__name__
        cls._labels_at = list(inspect.signature(known.forward).parameters).index("labels") - 1

    def _loss_heads(self) -> list[_Head]:
        """Heads whose logits the loss needs, unless ``forward`` returns these logits."""
        main = [self.decode_head] if self._name == _UPERNET else []
        auxiliary = getattr(self, "auxiliary_head", None)
        heads: list = main if auxiliary is None else [*main, auxiliary]
        for head in heads:
            if not isinstance(head, _Head):
                head._kept = None
                head._is_auxiliary = head is auxiliary
                theirs: Any = type(head)
                head.__class__ = _subclass(_Head, theirs)
        return heads

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As ``theirs``, with the loss computed by ``upsample_cross_entropy``."""
        at = self._labels_at
        labels = args[at] if len(args) > at else kwargs.get("labels")
        if (
            labels is None
            or labels.dtype not in _LABELS
            or self.config.num_labels == 1  # Segformer's binary loss; the other models refuse it
            or hasattr(self, "_loss_function")  # set by the user
        ):
            return super().forward(*args, **kwargs)
        if len(args) > at:
            args = (*args[:at], None, *args[at + 1 :])
        else:
            kwargs["labels"] = None

        heads = self._loss_heads()
        for head in heads:
            head._kept = []
        try:
            output = super().forward(*args, **kwargs)
            logits = [head._kept[0] for head in heads if head._kept is not None]
        finally:
            for head in heads:
                head._kept = None
        if self._name != _UPERNET:
            logits = [output[0], *logits]
        elif labels.shape[-2:] != output[0].shape[-2:]:
            raise ValueError(
                f"labels: {list(labels.shape)}, expected {list(output[0].shape[-2:])}, the height "
                "and width of pixel_values"
            )
        loss = self._cross_entropy(logits[0], labels)
        for auxiliary in logits[1:]:
            loss = loss + self.config.auxiliary_loss_weight * self._cross_entropy(auxiliary, labels)
        return (loss, *output) if isinstance(output, tuple) else type(output)(loss=loss, **output)

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        ignore_index = getattr(self.config, MODELS[self._name])
        return upsample_cross_entropy(logits, labels, ignore_index, align_corners=False)


def _known(cls: type) -> Any:
    """The class of ``MODELS`` from which ``cls`` inherits, or None."""
    for base in cls.__mro__:
        listed = base.__name__ in MODELS and base.__module__.startswith("transformers.")
        if listed and not issubclass(base, _Override):
            return base
    return None


def fuse_loss(model: Model) -> Model:
    """Make a segmentation model of transformers compute its loss by ``upsample_cross_entropy``.

    Logits and other outputs stay the same; loss and gradients agree within rounding. Fuse before
    the model is wrapped (DistributedDataParallel, PEFT, Accelerator.prepare). A second call does
    nothing.

    Differences to the model's own loss: it is float32 also for a model in bfloat16 or float16; it
    is 0, and not NaN, if all labels are ignored; a label that is out of range raises ValueError,
    and makes the loss NaN on a GPU; labels may also be int32 or uint8; DPT needs no auxiliary head.
    A model with one label, labels of another dtype or a ``loss_function`` of the user are computed
    by the model itself.

    Args:
        model: instance of a class in ``MODELS``, or of a subclass that computes the loss alike.

    Returns:
        ``model``, changed in place.

    Raises:
        TypeError: the model is not in ``MODELS``, or overrides the methods that compute the loss.
    """
    if isinstance(model, _FusedModel):
        return model
    cls: Any = type(model)
    known = _known(cls)
    if known is None:
        raise TypeError(
            f"fuse_loss: {cls.__name__} is not one of {', '.join(MODELS)}; if it contains one, "
            "fuse that before it is wrapped"
        )
    own = [
        name
        for name in ("forward", "compute_loss", "loss_function")
        if name in vars(model) or getattr(cls, name, None) is not getattr(known, name, None)
    ]
    if hasattr(model, "_loss_function"):
        own.append("loss_function")
    if own:
        raise TypeError(
            f"fuse_loss: this {cls.__name__} has its own {own[0]}, so its loss may not be the "
            f"loss of {known.__name__}; if a wrapper replaced it, fuse the model before you wrap it"
        )
    fused: Any = model
    fused.__class__ = _subclass(_FusedModel, cls)
    fused._loss_heads()  # before torch.compile, which cannot trace the change of their class
    return model


def unfuse_loss(model: Model) -> Model:
    """Undo ``fuse_loss``, also within a wrapper. Does nothing to a model that is not fused.

    Returns:
        ``model``, changed in place.

    Raises:
        TypeError: something has replaced the class or ``forward`` of the model since.
    """
    fused = [module for module in model.modules() if isinstance(module, _Override)]
    for module in fused:
        if "_theirs" not in vars(type(module)) or "forward" in vars(module):
            raise TypeError(
                f"unfuse_loss: the class or forward of this {type(module).__name__} was replaced "
                "after fuse_loss; undo that before"
            )
    for module in fused:
        module.__class__ = module._theirs
        for name in ("_kept", "_is_auxiliary"):
            vars(module).pop(name, None)
    return model
