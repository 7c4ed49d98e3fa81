"""Trunks of the task network; ``model.backbone`` is a key of ``TRUNKS``.

To add a trunk, write its class in a file of this folder and its name in ``TRUNKS``. A program that
uses the package can also add its own trunk to ``TRUNKS`` before it builds a network.
"""

from ...errors import InputError
from .base import Trunk
from .resnet import ResNet101
from .vgg import VGG16

TRUNKS: dict[str, type[Trunk]] = {"vgg16": VGG16, "resnet101": ResNet101}


def trunk_class(backbone: str) -> type[Trunk]:
    """Class of the trunk with this name; the error for an unknown name lists all names."""
    if backbone not in TRUNKS:
        raise InputError(f"model.backbone is {backbone!r}, expected one of {', '.join(TRUNKS)}")
    return TRUNKS[backbone]


__all__ = ["TRUNKS", "Trunk", "trunk_class"]
