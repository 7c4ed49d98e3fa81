"""The four networks of GIO-Ada, in the names that the code uses everywhere."""

from .discriminators import OutputDiscriminator, PatchDiscriminator
from .task import TaskNet
from .translation import TranslationNet
from .trunks import TRUNKS, Trunk

__all__ = [
    "TRUNKS",
    "OutputDiscriminator",
    "PatchDiscriminator",
    "TaskNet",
    "TranslationNet",
    "Trunk",
]
