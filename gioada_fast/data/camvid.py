"""CamVid as packed in the SegNet tutorial: 480x360 PNG, label values 0 to 11.

    <root>/train/*.png  <root>/val/*.png  <root>/val + annot/*.png  ...

The label map of ``val/name.png`` is ``valannot/name.png``.
"""

from pathlib import Path

from ..errors import InputError
from .frames import list_images

LAYOUT = "a CamVid folder holds train/, val/ and valannot/: PNG files, as in SegNet's tutorial"


def images(root: str | None, split: str) -> list[Path]:
    """Images of a split."""
    return list_images(_folder(root, split))


def labelled_images(root: str | None, split: str) -> list[tuple[Path, Path]]:
    """(image, label map) of a split, in the order of the names."""
    folder = _folder(root, f"{split}annot")
    pairs = [(image, folder / f"{image.stem}.png") for image in images(root, split)]
    missing = [label.name for _, label in pairs if not label.is_file()]
    if missing:
        raise InputError(f"{folder}: {len(missing)} label maps are missing, first {missing[0]}")
    return pairs


def _folder(root: str | None, name: str) -> Path:
    if root is None:
        raise InputError(f"data.target.root is not set: {LAYOUT}")
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; set data.target.root: {LAYOUT}")
    if not (folder / name).is_dir():
        raise InputError(f"{folder / name}: no such folder; {LAYOUT}")
    return folder / name
