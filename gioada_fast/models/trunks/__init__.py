"""Trunks of the task network; ``model.backbone`` is a key of ``TRUNKS``.

To add a trunk, write its class in a file of this folder and its name in ``TRUNKS``. A program that
uses the package can also add its own trunk to ``TRUNKS`` before it builds a network.
"""

from ...errors import InputError
from .base import Trunk
from .hugging_face import HuggingFaceTrunk
from .resnet import ResNet101
from .timm import TimmTrunk
from .vgg import VGG16

TRUNKS: dict[str, type[Trunk]] = {
    "vgg16": VGG16,
    "resnet101": ResNet101,
    "hf": HuggingFaceTrunk,
    "timm": TimmTrunk,
}


def trunk_class(backbone: str) -> type[Trunk]:
    """Class of the trunk with this name; the error for an unknown name lists all names.

    What stands behind a colon, as in ``timm:convnext_tiny``, is the name that the class gets.
    """
    family, colon, name = backbone.partition(":")
    if family not in TRUNKS or bool(colon) != TRUNKS[family].TAKES_NAME or bool(colon) > bool(name):
        names = [f"{name}:NAME" if cls.TAKES_NAME else name for name, cls in TRUNKS.items()]
        raise InputError(f"model.backbone is {backbone!r}, expected one of {', '.join(names)}")
    return TRUNKS[family]


__all__ = ["TRUNKS", "Trunk", "trunk_class"]
