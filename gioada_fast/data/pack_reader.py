"""Packs: decoded, resized and mapped frames in arrays that training reads from disk.

    <packs>/source/images.npy      uint8 [N, H, W, 3] RGB
    <packs>/source/labels.npy      uint8 [N, H, W] train ids
    <packs>/source/depth.npy       uint16 [N, H, W] counts, or float32 [N, H, W] metres; a source
                                   without depth has none
    <packs>/target/images.npy      uint8 [N, H, W, 3] RGB; packs never hold target labels
    <packs>/target/depth.npy       as the source's, or float32 [N, H, W] relative depth; only if the
                                   settings have data.target.depth
    <packs>/source_<i>/            the same for data.sources[i]
    <packs>/<side>/checksums.npy   uint32 [N, arrays]: CRC-32 of each frame's bytes in each array
    <packs>/<side>/manifest.json   settings, frame names, shapes, checksums of itself and of
                                   checksums.npy

A pack returns the same values as the files. Depth is stored as the counts of the data set's 16-bit
maps, which convert to the same metres; CARLA's 24 bits do not fit and are stored as metres.

``pack_writer`` writes packs. Reading one does not need the data set.
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
from ..json_files import read_json
from .depth_maps import metres
from .files import LabelledFrame
from .pack_settings import Settings, differences

FORMAT = 1
MANIFEST, CHECKSUMS = "manifest.json", "checksums.npy"


class ArrayFile(NamedTuple):
    """An array of a pack, in ``<name>.npy``."""

    shape: tuple[int, ...]
    """The first dimension is the number of frames."""
    dtype: str
    """As ``numpy.dtype.str``."""
    bytes: int
    """Size of the whole file."""

    @property
    def frame_bytes(self) -> int:
        return math.prod(self.shape[1:]) * np.dtype(self.dtype).itemsize

    @property
    def offset(self) -> int:
        """Offset of the first frame in the file."""
        return self.bytes - self.shape[0] * self.frame_bytes


@dataclass(frozen=True)
class Manifest:
    """Contents of a pack."""

    settings: Settings
    frames: tuple[str, ...]
    """Paths of the images under the data set's folder, in the order of the arrays."""
    arrays: Mapping[str, ArrayFile]
    depth_per_metre: float | None = None
    """Depth counts per metre; None if depth is stored in metres or missing."""
    checksums: str | None = None
    """SHA-256 of ``checksums.npy``; None until every frame is packed."""

    def finished(self, checksums: bytes) -> "Manifest":
        """The manifest once all frames are packed."""
        return replace(self, checksums=hashlib.sha256(checksums).hexdigest())

    def to_json(self) -> str:
        """JSON that includes its own SHA-256."""
        content = {
            "format": FORMAT,
            **asdict(self),
            "arrays": {name: array._asdict() for name, array in self.arrays.items()},
        }
        return json.dumps({**content, "sha256": _sha256(content)}, indent=1) + "\n"

    @classmethod
    def read(cls, path: Path) -> "Manifest":
        """Read the output of ``to_json``.

        Raises:
            InputError: the file is missing, changed, or of another format.
        """
        content = read_json(path)
        if not isinstance(content, dict) or not content.keys() >= {"sha256", "format"}:
            raise InputError(f"{path}: not the manifest of a pack")
        expected, version = content.pop("sha256"), content.pop("format")
        if version != FORMAT:
            raise InputError(f"{path}: pack of format {version}, expected {FORMAT}")
        checksum = _sha256({"format": version, **content})
        if checksum != expected:
            raise InputError(
                f"{path}: was changed: its checksum is {checksum}, recorded was {expected}"
            )
        arrays = {
            name: ArrayFile(**{**array, "shape": tuple(array["shape"])})
            for name, array in content.pop("arrays").items()
        }
        return cls(frames=tuple(content.pop("frames")), arrays=arrays, **content)


def folder_of(config: DataConfig, setting: str) -> Path:
    """Folder of the pack of ``data.source``, ``data.sources[0]``, ... or ``data.target``.

    ``packs`` must be set.
    """
    assert config.packs is not None
    name = setting.removeprefix("data.").replace("sources[", "source_").removesuffix("]")
    return Path(config.packs).expanduser() / name


def unfinished(folder: Path) -> Path:
    """Folder of a pack while it is being written."""
    return folder.with_name(f"{folder.name}.partial")


class _Pack:
    """Frames of a finished pack. Each process maps the files that it reads into memory."""

    _ARRAYS: tuple[str, ...]
    _OPTIONAL: tuple[str, ...] = ()

    def __init__(self, folder: Path, settings: Settings, command: str):
        """Check the pack, except for its frames, which are checked on first read.

        Args:
            folder: folder of the pack.
            settings: present settings; the pack must have been made with the same.
            command: the command that makes the pack, shown in messages.

        Raises:
            InputError: there is no such pack, it was made with other settings, or one of its files
                is missing, truncated or changed.
        """
        self.folder, self._command = folder, command
        if not folder.is_dir():
            why = "not finished; resume" if unfinished(folder).exists() else "no such pack; make it"
            raise InputError(f"{folder}: {why} with\n{command}")
        try:
            self.manifest = Manifest.read(folder / MANIFEST)
        except InputError as error:
            raise InputError(f"{error}; {self._again}") from error
        others = list(differences(self.manifest.settings, settings))
        if others:
            more = f"; and {len(others) - 3} more" if len(others) > 3 else ""
            raise self._unusable(MANIFEST, f"the pack was made with {'; '.join(others[:3])}{more}")
        missing = set(self._ARRAYS) - set(self.manifest.arrays)
        unknown = set(self.manifest.arrays) - {*self._ARRAYS, *self._OPTIONAL}
        if missing or unknown or self.manifest.checksums is None:
            raise self._unusable(
                MANIFEST, f"not the manifest of a finished pack of {', '.join(self._ARRAYS)}"
            )
        for name, array in self.manifest.arrays.items():
            self._check_size(f"{name}.npy", array.bytes)
        self._checksums = self._read_checksums()
        self._start()

    def _start(self) -> None:
        self._maps: dict[str, np.ndarray] = {}
        self._checked = {name: np.zeros(len(self), bool) for name in self.manifest.arrays}

    def __getstate__(self) -> dict[str, Any]:
        """Drops the memory maps: each process opens its own."""
        return {k: v for k, v in self.__dict__.items() if k not in ("_maps", "_checked")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def __len__(self) -> int:
        return len(self.manifest.frames)

    def _read(self, name: str, index: int) -> np.ndarray:
        """A frame of an array, as a read-only view of the file.

        Raises:
            InputError: the frame's checksum is wrong; it is verified on this process's first read.
        """
        if name not in self._maps:
            self._maps[name] = self._map(name)
        frame = self._maps[name][index]
        if not self._checked[name][index]:
            checksum = zlib.crc32(frame)
            expected = int(self._checksums[index, list(self.manifest.arrays).index(name)])
            if checksum != expected:
                raise InputError(
                    f"{self.folder / name}.npy: frame {index} ({self.manifest.frames[index]}) is "
                    f"damaged: its checksum is {checksum:08x}, expected {expected:08x}; remove "
                    f"{self.folder} and pack again"
                )
            self._checked[name][index] = True
        return frame

    def _depth(self, index: int) -> np.ndarray:
        depth, per_metre = self._read("depth", index), self.manifest.depth_per_metre
        return depth if per_metre is None else metres(depth, per_metre)

    def _map(self, name: str) -> np.ndarray:
        array, path = self.manifest.arrays[name], self.folder / f"{name}.npy"
        try:
            mapped = np.memmap(path, array.dtype, "r", array.offset, array.shape)
        except (OSError, ValueError) as error:
            raise self._unusable(path.name, f"cannot be read: {error}") from error
        # indexing a memmap is slower than indexing an array
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
            size = (self.folder / name).stat().st_size
        except OSError as error:
            raise self._unusable(name, f"cannot be read: {error.strerror}") from error
        if size != expected:
            problem = "truncated" if size < expected else "too large"
            raise self._unusable(
                name, f"{problem}: it has {size} bytes, the manifest says {expected}"
            )

    def _unusable(self, name: str, why: str) -> InputError:
        return InputError(f"{self.folder / name}: {why}; {self._again}")

    @property
    def _again(self) -> str:
        return f"remove {self.folder} and pack again with\n{self._command}"


class PackedSource(_Pack):
    """Like ``sets.SourceFrames``: synthetic frames with labels and depth."""

    _ARRAYS = ("images", "labels")
    _OPTIONAL = ("depth",)

    @property
    def has_depth(self) -> bool:
        """Whether the data set has depth maps."""
        return "depth" in self.manifest.arrays

    def __getitem__(self, index: int) -> LabelledFrame:
        image, labels = self._read("images", index), self._read("labels", index)
        if not self.has_depth:
            return LabelledFrame(image, labels, np.zeros(labels.shape, np.float32))
        return LabelledFrame(image, labels, self._depth(index))

    def labels(self, index: int) -> np.ndarray:
        """Labels alone, uint8 [H, W] train ids."""
        return self._read("labels", index)


class PackedTarget(_Pack):
    """Like ``sets.TargetImages``: unlabelled images, perhaps with depth maps.

    Args:
        folder, settings, command: see ``_Pack``.
        depth: whether ``with_depth`` will be called.
    """

    _ARRAYS = ("images",)
    _OPTIONAL = ("depth",)

    def __init__(self, folder: Path, settings: Settings, command: str, depth: bool):
        super().__init__(folder, settings, command)
        self.has_depth = depth

    def name(self, index: int) -> str:
        """Path of an image under the data set's folder."""
        return self.manifest.frames[index]

    def with_depth(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """(uint8 [H, W, 3] RGB, float32 [H, W] metres or relative depth)."""
        return self._read("images", index), self._depth(index)

    def __getitem__(self, index: int) -> np.ndarray:
        """uint8 [H, W, 3] RGB."""
        return self._read("images", index)


def _sha256(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
