"""Errors for the user. Each message names the place and the wrong value, and what to do."""


class InputError(ValueError):
    """Something that the user can correct: a path, a setting, the content of a file.

    The command lines print its message and exit with status 2; a program that imports the package
    catches it as a ``ValueError``.
    """


class RunStopped(RuntimeError):
    """Training stopped before its last update; command lines exit with ``status``."""

    status = 1


class NonFiniteLoss(RunStopped):
    """A loss or a weight became infinite or NaN."""


class ProcessDied(RunStopped):
    """A process that a run needs was killed: one that loads images, or another rank."""


class Interrupted(RunStopped):
    """The user interrupted training, and a checkpoint was written."""

    status = 130
