"""The four networks of GIO-Ada, in the names that the code uses everywhere."""

from .discriminators import OutputDiscriminator, PatchDiscriminator
from .task import BACKBONES, TaskNet
from .translation import TranslationNet

__all__ = [
    "BACKBONES",
    "OutputDiscriminator",
    "PatchDiscriminator",
    "TaskNet",
    "TranslationNet",
]
