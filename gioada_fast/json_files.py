"""JSON that others may have written or damaged: refused with the place."""

import json
from pathlib import Path
from typing import Any

from .errors import InputError


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        InputError: the file is missing or not readable as JSON.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    return parse_json(content, str(path))


def parse_json(content: bytes | str, origin: str) -> Any:
    """The value of a JSON text, in UTF-8 if it is bytes; ``origin`` says where it is from.

    Raises:
        InputError: it is not readable as JSON.
    """
    try:
        return json.loads(content if isinstance(content, str) else content.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # also of texts that are not UTF-8, cut or deep
        raise InputError(f"{origin}: not readable as JSON: {error}") from error
