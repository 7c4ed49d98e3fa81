"""Packs: frames once decoded, resized and mapped, in arrays that training reads from disk.

    <packs>/source/images.npy      uint8 [N, H, W, 3] RGB
    <packs>/source/labels.npy      uint8 [N, H, W] train ids
    <packs>/source/depth.npy       uint16 [N, H, W] counts, or float32 [N, H, W] metres
    <packs>/target/images.npy      uint8 [N, H, W, 3] RGB, and nothing else: no target label
    <packs>/<side>/checksums.npy   uint32 [N, arrays]: CRC-32 of a frame's bytes in each array
    <packs>/<side>/manifest.json   settings, names of the frames, shapes, checksums of itself and of
                                   checksums.npy

A pack gives what the files give, value for value. Depth is kept in the counts of the data set's
16-bit maps, of which a reader makes the same metres; CARLA's 24 bits, which count 0.06 mm, do not
fit into 16 and are kept as the metres that the reader gives.

``pack_writer`` writes packs. Reading one needs neither the data set nor its folder.
"""

import hashlib
import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..config import DataConfig
from ..errors import InputError
from .files import LabelledFrame, metres
from .pack_settings import Settings, differences

FORMAT = 1
MANIFEST, CHECKSUMS = "manifest.json", "checksums.npy"


class ArrayFile(NamedTuple):
    """An array of a pack, in ``<name>.npy``."""

    shape: tuple[int, ...]
    """The number of frames first."""
    dtype: str
    """As ``numpy.dtype.str``."""
    bytes: int
    """Of the whole file."""

    @property
    def frame_bytes(self) -> int:
        return math.prod(self.shape[1:]) * np.dtype(self.dtype).itemsize

    @property
    def offset(self) -> int:
        """Where the first frame begins in the file."""
        return self.bytes - self.shape[0] * self.frame_bytes


@dataclass(frozen=True)
class Manifest:
    """What is in a pack."""

    settings: Settings
    frames: tuple[str, ...]
    """Paths of the images under the data set's folder, in the order of the arrays."""
    arrays: Mapping[str, ArrayFile]
    depth_per_metre: float | None = None
    """What depth counts in a metre; None where it is kept in metres, or there is none."""
    checksums: str | None = None
    """SHA-256 of ``checksums.npy``; None until every frame is there."""

    def finished(self, checksums: bytes) -> "Manifest":
        """The same for a pack that has all its frames."""
        return replace(self, checksums=hashlib.sha256(checksums).hexdigest())

    def to_json(self) -> str:
        """Text, with its own SHA-256 among it."""
        content = {
            "format": FORMAT,
            **asdict(self),
            "arrays": {name: array._asdict() for name, array in self.arrays.items()},
        }
        return json.dumps({**content, "sha256": _sha256(content)}, indent=1) + "\n"

    @classmethod
    def read(cls, path: Path) -> "Manifest":
        """What ``to_json`` made.

        Raises:
            InputError: the file is missing, changed, or of another format.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            expected = content.pop("sha256")
            version = content.pop("format")
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from error
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            raise InputError(f"{path}: not the manifest of a pack") from error
        if version != FORMAT:
            raise InputError(f"{path}: pack of format {version}, expected {FORMAT}")
        found = _sha256({"format": version, **content})
        if found != expected:
            raise InputError(f"{path}: was changed: its checksum is {found}, it says {expected}")
        arrays = {
            name: ArrayFile(**{**array, "shape": tuple(array["shape"])})
            for name, array in content.pop("arrays").items()
        }
        return cls(frames=tuple(content.pop("frames")), arrays=arrays, **content)


def folder_of(config: DataConfig, side: str) -> Path:
    """Folder of the pack of ``source`` or ``target``; ``packs`` has to be set."""
    assert config.packs is not None
    return Path(config.packs).expanduser() / side


def unfinished(folder: Path) -> Path:
    """Where a pack is while it is written."""
    return folder.with_name(f"{folder.name}.partial")


class _Pack:
    """Frames of a finished pack, mapped into memory by each process that reads some."""

    _ARRAYS: tuple[str, ...]

    def __init__(self, folder: Path, settings: Settings, command: str):
        """Check the pack, but for the frames, which are checked as they are read.

        Args:
            folder: of the pack.
            settings: that it has to be made with.
            command: that makes it, for messages.

        Raises:
            InputError: there is no such pack, it was made with other settings, or one of its files
                is missing, cut short or changed.
        """
        self.folder, self._command = folder, command
        if not folder.is_dir():
            why = "not finished; go on" if unfinished(folder).exists() else "no such pack; make it"
            raise InputError(f"{folder}: {why} with\n{command}")
        try:
            self.manifest = Manifest.read(folder / MANIFEST)
        except InputError as error:
            raise InputError(f"{error}; {self._again}") from error
        others = list(differences(self.manifest.settings, settings))
        if others:
            more = f"; and {len(others) - 3} more" if len(others) > 3 else ""
            raise self._unusable(MANIFEST, f"the pack was made with {'; '.join(others[:3])}{more}")
        if set(self.manifest.arrays) != set(self._ARRAYS) or self.manifest.checksums is None:
            raise self._unusable(MANIFEST, f"not of a finished pack of {', '.join(self._ARRAYS)}")
        for name, array in self.manifest.arrays.items():
            self._check_size(f"{name}.npy", array.bytes)
        self._checksums = self._read_checksums()
        self._start()

    def _start(self) -> None:
        self._maps: dict[str, np.ndarray] = {}
        self._checked = {name: np.zeros(len(self), bool) for name in self._ARRAYS}

    def __getstate__(self) -> dict[str, Any]:
        """Without the maps: another process makes its own."""
        return {k: v for k, v in self.__dict__.items() if k not in ("_maps", "_checked")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def __len__(self) -> int:
        return len(self.manifest.frames)

    def _read(self, name: str, index: int) -> np.ndarray:
        """A frame of an array, read-only, on the file itself.

        Raises:
            InputError: its bytes are not those that were packed, when this process first reads it.
        """
        if name not in self._maps:
            self._maps[name] = self._map(name)
        frame = self._maps[name][index]
        if not self._checked[name][index]:
            found = zlib.crc32(frame)
            expected = int(self._checksums[index, list(self.manifest.arrays).index(name)])
            if found != expected:
                raise InputError(
                    f"{self.folder / name}.npy: frame {index} ({self.manifest.frames[index]}) is "
                    f"damaged: its checksum is {found:08x}, packed was {expected:08x}; remove "
                    f"{self.folder} and pack again"
                )
            self._checked[name][index] = True
        return frame

    def _map(self, name: str) -> np.ndarray:
        array, path = self.manifest.arrays[name], self.folder / f"{name}.npy"
        try:
            mapped = np.memmap(path, array.dtype, "r", array.offset, array.shape)
        except (OSError, ValueError) as error:
            raise self._unusable(path.name, f"cannot be read: {error}") from error
        # a view of a memmap is made slower than one of an array
        return mapped.view(np.ndarray)

    def _read_checksums(self) -> np.ndarray:
        path = self.folder / CHECKSUMS
        try:
            content = path.read_bytes()
        except OSError as error:
            raise self._unusable(CHECKSUMS, f"cannot be read: {error.strerror}") from error
        if self.manifest.finished(content) != self.manifest:
            raise self._unusable(CHECKSUMS, "was changed since the pack was made")
        return np.load(path)

    def _check_size(self, name: str, expected: int) -> None:
        try:
            found = (self.folder / name).stat().st_size
        except OSError as error:
            raise self._unusable(name, f"cannot be read: {error.strerror}") from error
        if found != expected:
            what = "cut short" if found < expected else "not what was packed"
            raise self._unusable(
                name, f"{what}: it has {found} bytes, the manifest says {expected}"
            )

    def _unusable(self, name: str, why: str) -> InputError:
        return InputError(f"{self.folder / name}: {why}; {self._again}")

    @property
    def _again(self) -> str:
        return f"remove {self.folder} and pack again with\n{self._command}"


class PackedSource(_Pack):
    """As ``sets.SourceFrames``: synthetic frames with labels and depth."""

    _ARRAYS = ("images", "labels", "depth")
    has_depth = True

    def __getitem__(self, index: int) -> LabelledFrame:
        depth, per_metre = self._read("depth", index), self.manifest.depth_per_metre
        return LabelledFrame(
            self._read("images", index),
            self._read("labels", index),
            depth if per_metre is None else metres(depth, per_metre),
        )

    def labels(self, index: int) -> np.ndarray:
        """Labels alone, uint8 [H, W] train ids."""
        return self._read("labels", index)


class PackedTarget(_Pack):
    """As ``sets.TargetImages``: unlabelled images."""

    _ARRAYS = ("images",)

    def __getitem__(self, index: int) -> np.ndarray:
        """uint8 [H, W, 3] RGB."""
        return self._read("images", index)


def _sha256(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
