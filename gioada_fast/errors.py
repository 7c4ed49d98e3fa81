"""Errors that are for the user: what was found, where, and what to do."""


class InputError(ValueError):
    """Something the user can put right: a path, a setting, a file's content.

    The command lines print its message and exit with status 2; a program that imports the package
    catches it as a ``ValueError``.
    """


class RunStopped(RuntimeError):
    """Training ended before its last step; the command lines exit with ``status``."""

    status = 1


class NonFiniteLoss(RunStopped):
    """A loss became infinite or not a number."""


class Interrupted(RunStopped):
    """The user asked to stop; a checkpoint was written."""

    status = 130
