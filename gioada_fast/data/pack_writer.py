"""Writes packs in processes, under a temporary name until they are complete.

A frame in ``<packs>/<side>.partial`` counts as packed once its bytes match its checksums in
``checksums.npy``. So packing may be killed at any time, even by a power failure, and the same
command resumes it.
"""

import fcntl
import io
import math
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from ..config import DataConfig
from ..errors import InputError
from ..processes import run_in_processes
from .depth_maps import DepthReader, counts, metres
from .pack_reader import (
    CHECKSUMS,
    MANIFEST,
    ArrayFile,
    Manifest,
    PackedSource,
    PackedTarget,
    folder_of,
    unfinished,
)
from .pack_settings import differences, pack_command, source_settings, target_settings
from .sets import (
    SourceFrames,
    TargetImages,
    source_files,
    target_files,
    target_set,
    trains_with_depth,
)

_LOCK = "lock"
_RESUME = "the same command resumes packing"


def pack(
    config: DataConfig, report: Callable[[str], None] = print, workers: int | None = None
) -> None:
    """Pack the training frames of source and target into ``config.packs``.

    A finished pack is kept, an unfinished pack is resumed.

    Args:
        config: settings; ``packs`` must be set.
        report: called with each line of progress.
        workers: number of processes; 0 runs in this one, None takes one for each usable core.

    Raises:
        InputError: settings or data sets are not usable; a finished pack was made with other
            settings; the pack cannot be written or the disk is full; or frames cannot be read: then
            all others are packed, but the pack stays unfinished.
    """
    if config.packs is None:
        raise InputError("data.packs is not set: the folder to write packs to")
    jobs, command = [], pack_command(config)
    depth = trains_with_depth(config)
    for setting in (*config.named_sources(), "data.target"):
        folder, is_target = folder_of(config, setting), setting == "data.target"
        if not folder.exists():
            frames, manifest = _target(config, depth) if is_target else _source(config, setting)
            jobs.append(_Job(folder, frames, manifest))
            continue
        packed = (
            PackedTarget(folder, target_settings(config, depth), command, depth)
            if is_target
            else PackedSource(folder, source_settings(config, setting), command)
        )
        report(f"{folder}: {len(packed)} frames are packed already")
    _check_room(jobs)
    errors = [error for job in jobs for error in _write(job, report, workers)]
    if errors:
        noun = "frame" if len(errors) == 1 else "frames"
        raise InputError(
            "\n".join(errors)
            + f"\n{len(errors)} {noun} cannot be read, the others are packed: {_RESUME}"
        )


@dataclass(frozen=True)
class _Job:
    """A pack to write."""

    folder: Path
    frames: SourceFrames | TargetImages
    manifest: Manifest

    @property
    def partial(self) -> Path:
        """Its folder while it is written."""
        return unfinished(self.folder)

    @property
    def bytes(self) -> int:
        return sum(array.bytes for array in self.manifest.arrays.values())

    @property
    def tasks(self) -> Iterator["_Task"]:
        """One task per frame, with only the data that a process needs for it."""
        for index, name in enumerate(self.manifest.frames):
            one = slice(index, index + 1)
            if isinstance(self.frames, SourceFrames):
                data = replace(self.frames.data, frames=self.frames.data.frames[one])
                yield _Task(index, name, replace(self.frames, data=data))
            else:
                maps = self.frames.depth_paths and self.frames.depth_paths[one]
                paths = self.frames.paths[one]
                yield _Task(index, name, replace(self.frames, paths=paths, depth_paths=maps))


@dataclass(frozen=True)
class _Task:
    """A frame to pack."""

    index: int
    name: str
    frames: SourceFrames | TargetImages
    """Only this frame."""
    written: tuple[int, ...] | None = None
    """Checksums if the frame was packed before."""


def _source(config: DataConfig, setting: str) -> tuple[SourceFrames, Manifest]:
    frames = source_files(config, setting)
    data, n, (h, w) = frames.data, len(frames), frames.size
    arrays = {
        "images": _array_file((n, h, w, 3), np.uint8),
        "labels": _array_file((n, h, w), np.uint8),
    }
    per_metre = _add_depth(arrays, (n, h, w), data.depth)
    names = _names([files.image for files in data.frames], data.root)
    return frames, Manifest(source_settings(config, setting), names, arrays, per_metre)


def _target(config: DataConfig, depth: bool) -> tuple[TargetImages, Manifest]:
    root, frames = target_set(config, "target").root, target_files(config, depth)
    n, (h, w) = len(frames), frames.size
    arrays = {"images": _array_file((n, h, w, 3), np.uint8)}
    per_metre = _add_depth(arrays, (n, h, w), frames.depth)
    names, settings = _names(frames.paths, root), target_settings(config, depth)
    return frames, Manifest(settings, names, arrays, per_metre)


def _add_depth(
    arrays: dict[str, ArrayFile], shape: tuple[int, ...], depth: DepthReader | None
) -> float | None:
    """Add the array of depth, if there is any; returns counts per metre, or None for float32."""
    if depth is None:
        return None
    arrays["depth"] = _array_file(shape, np.float32 if depth.per_metre is None else np.uint16)
    return depth.per_metre


def _names(images: Sequence[Path], root: Path) -> tuple[str, ...]:
    return tuple(image.relative_to(root).as_posix() for image in images)


def _array_file(shape: tuple[int, ...], kind: type) -> ArrayFile:
    dtype = np.dtype(kind)
    data = math.prod(shape) * dtype.itemsize
    return ArrayFile(shape, dtype.str, len(_header(shape, dtype.str)) + data)


def _header(shape: tuple[int, ...], dtype: str) -> bytes:
    buffer = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue()


def _check_room(jobs: Sequence[_Job]) -> None:
    """Refuse jobs that do not fit on the disk."""
    if not jobs:
        return
    needed = sum(job.bytes for job in jobs)
    for job in jobs:
        for path in job.partial.glob("*.npy"):
            needed -= min(needed, path.stat().st_blocks * 512)
    packs = jobs[0].folder.absolute().parent
    free = shutil.disk_usage(next(p for p in (packs, *packs.parents) if p.exists())).free
    if needed > free:
        raise InputError(
            f"{packs}: packing needs {_size(needed)} there, {_size(free)} are free: make room, or "
            "set data.packs to a folder on another disk"
        )


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def _write(job: _Job, report: Callable[[str], None], workers: int | None) -> list[str]:
    """Write a pack and rename it when it is complete; returns errors of unreadable frames.

    Raises:
        InputError: the pack cannot be written, or another process is writing it.
    """
    try:
        with _locked(job.partial):
            if job.folder.exists():  # another process finished it before this one had the lock
                shutil.rmtree(job.partial)
                report(f"{job.folder}: {len(job.manifest.frames)} frames are packed already")
                return []
            checksums = _begin(job, report)
            errors = _fill(job, checksums, workers)
            if not errors:
                _finish(job)
                _, h, w, _ = job.manifest.arrays["images"].shape
                report(f"{job.folder}: {len(checksums)} frames of {w}x{h}, {_size(job.bytes)}")
            return errors
    except OSError as error:
        raise InputError(
            f"{job.partial}: cannot be written: {error.strerror}; {_RESUME}"
        ) from error
    except BrokenProcessPool as error:
        raise InputError(
            f"{job.partial}: a packing process was killed, perhaps out of memory; {_RESUME}"
        ) from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Make a folder and lock it until this process ends or leaves the context."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"{folder} is in use: another process is packing") from error
        yield


def _begin(job: _Job, report: Callable[[str], None]) -> np.ndarray:
    """Create the files, or open those of an unfinished pack.

    Returns:
        Checksums uint32 [N, arrays], mapped from disk; 0 for frames that are not packed yet.
    """
    manifest, total = job.manifest, len(job.manifest.frames)
    path = job.partial / MANIFEST
    if path.exists():
        before = _read_manifest(path)
        if before == manifest and _has_files(job):
            checksums = np.lib.format.open_memmap(job.partial / CHECKSUMS, "r+")
            packed = checksums.any(1).sum()
            report(f"{job.partial}: resumes, {packed} of {total} frames are packed")
            return checksums
        why = before and next(differences(before.settings, manifest.settings), None)
        report(f"{job.partial}: was begun with {why or 'other files'}: starts again")
        path.unlink()
    for name, array in manifest.arrays.items():
        with (job.partial / f"{name}.npy").open("wb") as file:
            file.write(_header(array.shape, array.dtype))
            file.truncate(array.bytes)
    np.save(job.partial / CHECKSUMS, np.zeros((total, len(manifest.arrays)), np.uint32))
    # written last, because a folder that has a manifest is resumed
    _write_manifest(path, manifest)
    return np.lib.format.open_memmap(job.partial / CHECKSUMS, "r+")


def _read_manifest(path: Path) -> Manifest | None:
    try:
        return replace(Manifest.read(path), checksums=None)
    except InputError:
        return None


def _write_manifest(path: Path, manifest: Manifest) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(manifest.to_json(), encoding="utf-8")
    os.replace(temporary, path)


def _has_files(job: _Job) -> bool:
    sizes = {f"{name}.npy": array.bytes for name, array in job.manifest.arrays.items()}
    checksums = _array_file((len(job.manifest.frames), len(job.manifest.arrays)), np.uint32)
    sizes[CHECKSUMS] = checksums.bytes
    paths = {job.partial / name: size for name, size in sizes.items()}
    return all(path.is_file() and path.stat().st_size == size for path, size in paths.items())


def _fill(job: _Job, checksums: np.ndarray, workers: int | None) -> list[str]:
    """Pack all missing frames; returns errors of unreadable frames, in order."""
    pack_one = partial(
        _pack_frame,
        folder=job.partial,
        arrays=job.manifest.arrays,
        per_metre=job.manifest.depth_per_metre,
    )
    tasks = [
        replace(task, written=tuple(map(int, row))) if row.any() else task
        for task, row in zip(job.tasks, checksums, strict=True)
    ]
    errors = {}
    results = run_in_processes(pack_one, tasks, f"pack {job.folder.name}", workers)
    with closing(results):
        for index, outcome in results:
            if isinstance(outcome, str):
                errors[index] = outcome
            else:
                checksums[index] = outcome
    return [errors[index] for index in sorted(errors)]


def _pack_frame(
    task: _Task, folder: Path, arrays: Mapping[str, ArrayFile], per_metre: float | None
) -> tuple[int, tuple[int, ...] | str]:
    """Pack one frame; returns (index, checksums or an error message)."""
    files = {folder / f"{name}.npy": array for name, array in arrays.items()}
    if task.written is not None:
        checksums = tuple(_checksum(path, array, task.index) for path, array in files.items())
        if checksums == task.written:
            return task.index, checksums
    try:
        parts = _parts(task.frames)
        if "depth" in arrays:
            parts[-1] = _stored_depth(parts[-1], per_metre, task.name)
    except InputError as error:
        return task.index, str(error)
    except Exception as error:  # a decoder may raise any
        return task.index, f"{task.name}: {type(error).__name__}: {error}"
    content = [np.ascontiguousarray(part) for part in parts]
    for (path, array), part in zip(files.items(), content, strict=True):
        if (part.shape, part.dtype.str) != (array.shape[1:], array.dtype):
            raise ValueError(
                f"{task.name}: {part.dtype} {part.shape} is not a frame of {path.name}"
            )
        with path.open("r+b") as file:
            file.seek(array.offset + task.index * array.frame_bytes)
            file.write(part.data)
    return task.index, tuple(zlib.crc32(part.data) for part in content)


def _parts(frames: SourceFrames | TargetImages) -> list[np.ndarray]:
    """The first frame's arrays, depth last."""
    if isinstance(frames, TargetImages):
        return [*frames.with_depth(0)] if frames.has_depth else [frames[0]]
    image, labels, depth = frames[0]
    return [image, labels, depth] if frames.has_depth else [image, labels]


def _checksum(path: Path, array: ArrayFile, index: int) -> int:
    with path.open("rb") as file:
        file.seek(array.offset + index * array.frame_bytes)
        return zlib.crc32(file.read(array.frame_bytes))


def _stored_depth(depth: np.ndarray, per_metre: float | None, name: str) -> np.ndarray:
    """Metres, or counts without loss if all depth maps of the set are counts."""
    if per_metre is None:
        return depth
    stored = counts(depth, per_metre)
    if not np.array_equal(metres(stored, per_metre), depth):
        raise InputError(
            f"{name}: depth is no whole number at {per_metre} per metre, unlike in 16-bit PNGs: is "
            "the depth map of another format? Its suffix must tell which"
        )
    return stored


def _finish(job: _Job) -> None:
    """Rename a complete pack, atomically."""
    path = job.partial / MANIFEST
    _write_manifest(path, job.manifest.finished((job.partial / CHECKSUMS).read_bytes()))
    for name in (*(f"{name}.npy" for name in job.manifest.arrays), CHECKSUMS, MANIFEST, "."):
        _to_disk(job.partial / name)
    os.rename(job.partial, job.folder)
    _to_disk(job.folder.parent)
    (job.folder / _LOCK).unlink()


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
