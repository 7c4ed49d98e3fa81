"""Writes files completely or not at all."""

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError

from .errors import InputError


def write_atomically(
    path: Path, write: Callable[[Path], object], before_replacing: Callable[[], object] = int
) -> None:
    """Write a temporary file beside ``path`` and rename it to ``path`` when it is complete.

    Args:
        path: the file; an existing one is replaced.
        write: called with the path of the temporary file, which it must create.
        before_replacing: called when the temporary file is complete.

    Raises:
        InputError: the file cannot be written; the temporary file is removed.
    """
    # processes of two machines may have one number
    temporary = path.with_name(f".{path.name}.{os.getpid()}{secrets.randbelow(10**6):06d}")
    try:
        write(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        before_replacing()
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        # torch.save reports a full disk or missing folder as RuntimeError, safetensors as its own
        if isinstance(error, OSError | RuntimeError | SafetensorError):
            raise InputError(f"{path}: cannot be written: {error}") from error
        raise


def remove_unfinished(folder: Path) -> None:
    """Remove temporary files of killed processes; nobody may be writing to the folder."""
    for path in folder.glob(".*.*"):
        if path.suffix[1:].isdigit():
            path.unlink(missing_ok=True)
