"""Trunks of the task network, by the name that ``model.backbone`` gives them.

To add one, write its class in a file of this folder and its name in ``TRUNKS``; a program that uses
the package can add its own trunk to ``TRUNKS`` before it builds a network.
"""

from ...errors import InputError
from .base import Trunk
from .resnet import ResNet101
from .vgg import VGG16

TRUNKS: dict[str, type[Trunk]] = {"vgg16": VGG16, "resnet101": ResNet101}


def trunk_class(backbone: str) -> type[Trunk]:
    """The trunk that ``model.backbone`` names."""
    if backbone not in TRUNKS:
        raise InputError(f"model.backbone is {backbone!r}, expected one of {', '.join(TRUNKS)}")
    return TRUNKS[backbone]


__all__ = ["TRUNKS", "Trunk", "trunk_class"]
