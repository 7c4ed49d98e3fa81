"""Files that are written whole or not at all."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError

from .errors import InputError


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` make a file beside ``path`` and put it in its place when it is whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        # torch.save reports a full disk or a missing folder as RuntimeError, safetensors as its own
        if isinstance(error, OSError | RuntimeError | SafetensorError):
            raise InputError(f"{path}: cannot be written: {error}") from error
        raise


def remove_unfinished(folder: Path) -> None:
    """Remove what writers that were killed have left in a folder that nobody writes to."""
    for path in folder.glob(".*.*"):
        if path.suffix[1:].isdigit():
            path.unlink(missing_ok=True)
