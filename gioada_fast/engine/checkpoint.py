"""Checkpoints and weights on disk: written completely or not at all, read without running code.

A checkpoint (``.pt``) contains the state of a run and is read with ``weights_only=True``. A weights
file (``.safetensors``) contains one network; its header has the metadata to build the network from.
Both contain a checksum of their content. Files of version 0.1.0 have none.
"""

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..atomic_files import write_atomically
from ..errors import InputError
from ..json_files import parse_json

FORMAT = 1


def checksum(content: Any) -> str:
    """SHA-256 of the values of tensors, numbers, strings, and lists and mappings of them."""
    digest = hashlib.sha256()
    _add_to(digest, content)
    return digest.hexdigest()


def _add_to(digest: Any, content: Any) -> None:
    if isinstance(content, Tensor):
        values = content.detach().cpu().contiguous()
        digest.update(f"{values.dtype}{list(values.shape)}".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy())
    elif isinstance(content, Mapping):
        digest.update(f"mapping {len(content)}".encode())
        for key in sorted(content, key=str):  # safetensors keeps no order
            digest.update(f"{key!r}".encode())
            _add_to(digest, content[key])
    elif isinstance(content, list | tuple):
        digest.update(f"list {len(content)}".encode())
        for item in content:
            _add_to(digest, item)
    else:
        digest.update(f"{content!r};".encode())


def save_checkpoint(path: Path, state: dict[str, Any], previous: Path | None = None) -> None:
    """Write a state of tensors, numbers, strings, and lists and dicts of them.

    Args:
        path: the file.
        state: its content.
        previous: where a file that exists at ``path`` is kept; None replaces it.
    """
    content = {"format": FORMAT, **state}
    content["checksum"] = checksum(content)

    def keep() -> None:
        if previous is not None and path.exists():
            os.replace(path, previous)

    write_atomically(path, lambda temporary: torch.save(content, temporary), keep)


def load_checkpoint(path: Path, keys: Set[str] = frozenset()) -> dict[str, Any]:
    """Load a file that ``save_checkpoint`` wrote to the CPU; it must have ``keys``."""
    state = load_pickle_free(path)
    if not isinstance(state, dict) or state.get("format") != FORMAT or not state.keys() >= keys:
        raise InputError(f"{path}: not a checkpoint of gioada_fast (format {FORMAT})")
    _verify(path, state.pop("checksum", None), state)
    return state


def load_newest(
    paths: Sequence[Path], keys: Set[str] = frozenset()
) -> tuple[Path, dict[str, Any], list[str]] | None:
    """Load the first checkpoint that is sound.

    Args:
        paths: checkpoints, the newest first; some may not exist.
        keys: what they must have.

    Returns:
        (its path, its state, why newer ones cannot be used), or None if no file exists.

    Raises:
        InputError: there are checkpoints, and none can be used.
    """
    problems: list[str] = []
    for path in paths:
        if not path.exists():
            continue
        try:
            return path, load_checkpoint(path, keys), problems
        except InputError as error:
            problems.append(str(error))
    if problems:
        raise InputError("\n".join(problems))
    return None


def _verify(path: Path, expected: object, content: Any) -> None:
    """Refuse content that is not what was written; files of version 0.1.0 have no checksum."""
    if expected is not None and checksum(content) != expected:
        raise InputError(
            f"{path}: is damaged: its content does not have the checksum that was written with it"
        )


def save_weights(path: Path, network: nn.Module, metadata: Mapping[str, Any]) -> None:
    """Write a network's weights and the metadata from which to build it, which must fit JSON."""
    tensors = {key: value.detach().contiguous() for key, value in network.state_dict().items()}
    # not json's sort_keys, which would also sort the classes of a label space
    content = dict(sorted({"format": FORMAT, **metadata}.items()))
    content["checksum"] = checksum([json.dumps(content), tensors])
    header = {"gioada_fast": json.dumps(content)}
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata=header))


def load_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Load (state dict, metadata) from a file that ``save_weights`` wrote."""
    tensors, header = load_safetensors(path)
    if "gioada_fast" not in header:
        raise InputError(f"{path}: has no metadata of gioada_fast to build its network from")
    metadata = parse_json(header["gioada_fast"], f"{path}: metadata")
    version = metadata.get("format") if isinstance(metadata, dict) else None
    if version != FORMAT:
        raise InputError(f"{path}: format {version}, expected {FORMAT}")
    expected = metadata.pop("checksum", None)
    _verify(path, expected, [json.dumps(metadata), tensors])
    return tensors, metadata


def load_state(network: nn.Module, state: Mapping[str, Tensor], origin: Path, name: str) -> None:
    """Load a state dict that must fit the network exactly.

    Args:
        network: receives the weights.
        state: the state dict.
        origin: file of the state dict, for the message.
        name: the network's name, for the message.

    Raises:
        InputError: the architectures differ; the message names the first keys that are missing,
            unknown or of another shape.
    """
    own = network.state_dict()
    problems = [f"{key} is missing" for key in own if key not in state]
    problems += [f"{key} is unknown" for key in state if key not in own]
    problems += [
        f"{key} is {list(state[key].shape)}, expected {list(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    if problems:
        raise InputError(
            f"{origin}: comes from another architecture of the {name} network: "
            f"{first_of(problems)}; use the model settings that it was trained with"
        )
    network.load_state_dict(state)


def load_pickle_free(path: Path) -> Any:
    """Load a file of ``torch.save`` to the CPU; a file that would run code is refused."""
    _check_file(path)
    try:
        # torch does not verify the archive's checksums
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                broken = archive.testzip()
            if broken is not None:
                raise ValueError(f"checksum of {broken} is wrong")
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler can raise any exception on invalid bytes
        raise InputError(
            f"{path}: not a file of plain tensors and numbers: it is damaged, or it contains "
            "objects that would run code and are not loaded"
        ) from error


def load_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Load (tensors, header) from any safetensors file."""
    _check_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable safetensors file: {error}") from error


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"{path}: no such file")


def first_of(items: list[str], count: int = 3) -> str:
    """List the first items and the number of further ones."""
    more = f" and {len(items) - count} more" if len(items) > count else ""
    return ", ".join(items[:count]) + more
