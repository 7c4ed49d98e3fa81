"""The one error that stands for bad input: what was found, where, and what to do."""


class InputError(ValueError):
    """Something the user can put right: a path, a setting, a file's content.

    The command lines print its message and exit with status 2; a program that imports the package
    catches it as a ``ValueError``.
    """
