"""Finds the images and videos that the arguments name, and where their predictions go."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..data import tree
from ..data.files import IMAGE_SUFFIXES, expand
from ..data.videos import VIDEO_SUFFIXES
from ..errors import InputError
from .outputs import VIDEO_KINDS, metres_file, outputs, video_file

_FIRST = outputs(Path("_"))[0].name[1:]
_VIDEO_ENDINGS = tuple(video_file(Path("_"), kind).name[1:] for kind in VIDEO_KINDS)


@dataclass
class Inputs:
    """What to predict, by the paths of the predictions without ``_KIND.SUFFIX``."""

    images: dict[Path, Path] = field(default_factory=dict)
    videos: dict[Path, Path] = field(default_factory=dict)
    left: Counter[str] = field(default_factory=Counter)
    """Numbers of other files, by kind."""

    def add(self, file: Path, name: Path, *, video: bool) -> None:
        """Add a file.

        Raises:
            InputError: another file would be written to the same paths.
        """
        other = (self.videos if video else self.images).setdefault(name, file)
        if other != file:
            written = video_file(name, VIDEO_KINDS[0]) if video else outputs(name)[0]
            raise InputError(
                f"{other} and {file} would both be written to {written}: rename one, or predict "
                "them into two folders"
            )


def find_inputs(names: Sequence[str], output: Path) -> Inputs:
    """Find all images and videos.

    Args:
        names: files, folders and zip archives, whose subfolders the output repeats.
        output: the folder to write to.

    Raises:
        InputError: there is no such file, nothing in a folder, or an input would be overwritten.
    """
    inputs = Inputs()
    for name in names:
        path = expand(name, "the input")
        if tree.is_folder(path):
            _add_folder(inputs, path, output)
        elif tree.is_file(path):
            inputs.add(path, output / path.stem, video=_is_video(path))
        else:
            raise InputError(f"{path}: no such file or folder")
    _check_outputs(inputs)
    return inputs


def other_files(left: Counter[str]) -> str:
    """What was left, for messages."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in left.items() if count)
    return f", left {plural(left.total(), 'file')}: {kinds}" if kinds else ""


def plural(number: int, noun: str) -> str:
    """``1 image``, ``2 images``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def _add_folder(inputs: Inputs, folder: Path, output: Path) -> None:
    written = output.resolve()
    if folder.resolve() == written:
        raise InputError(
            f"{folder} is an input: its images could be overwritten, and pictures in it would be "
            "predicted the next time: change --output"
        )
    left = Counter({"hidden": tree.hidden_under(folder)})
    count = 0
    files = tree.files_under(folder)
    earlier = _predictions(files)
    for file in files:
        suffix, video = file.suffix.lower(), _is_video(file)
        if written in file.resolve().parents:
            left["in the output folder"] += 1
        elif file in earlier:
            left["earlier predictions"] += 1
        elif video and not file.is_file():
            left["videos in archives, which must be unpacked"] += 1
        elif video or suffix in IMAGE_SUFFIXES:
            name = output / file.relative_to(folder).with_suffix("")
            inputs.add(file, name, video=video)
            count += 1
        else:
            kind = suffix if suffix.isprintable() else ascii(suffix)
            left[kind or "without a suffix"] += 1
    if not count:
        raise InputError(f"{folder}: no image or video in it{other_files(left)}")
    inputs.left.update(left)


def _predictions(files: Sequence[Path]) -> set[Path]:
    """Files that this command wrote: all kinds of pictures of an image are there, or a video has
    the ending of a prediction.
    """
    images = {
        file.with_name(file.name.removesuffix(_FIRST))
        for file in files
        if file.name.endswith(_FIRST)
    }
    existing = set(files)
    written = [pictures for image in images if existing.issuperset(pictures := outputs(image))]
    metres = {metres_file(image) for image in images} & existing
    videos = {file for file in files if file.name.endswith(_VIDEO_ENDINGS)}
    return {file for pictures in written for file in pictures} | metres | videos


def _check_outputs(inputs: Inputs) -> None:
    """Refuse outputs that overwrite an input."""
    given = {path.resolve() for path in (*inputs.images.values(), *inputs.videos.values())}
    written = [file for name in inputs.images for file in (*outputs(name), metres_file(name))]
    written += [video_file(name, kind) for name in inputs.videos for kind in VIDEO_KINDS]
    for file in written:
        if file.resolve() in given:
            raise InputError(f"{file} is an input and would be overwritten: change --output")
