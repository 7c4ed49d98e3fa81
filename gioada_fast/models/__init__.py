"""The four networks of GIO-Ada, and the trunks of the task network."""

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
