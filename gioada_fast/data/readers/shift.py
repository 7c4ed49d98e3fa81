"""SHIFT (Sun et al., CVPR 2022): frames of CARLA, 1280x800, in discrete and changing conditions.

    <root>/discrete/images/<split>/front/img.zip       <sequence>/00000100_img_front.jpg
    <root>/discrete/images/<split>/front/semseg.zip    <sequence>/00000100_semseg_front.png
    <root>/discrete/images/<split>/front/depth.zip     <sequence>/00000100_depth_front.png

or the archives unpacked, into ``front/`` or into ``front/img/`` and so on. Tags are in R, depth has
24 bits, both as CARLA has them.
"""

from collections.abc import Sequence
from pathlib import Path

from ..depth_maps import CARLA_DEPTH
from ..files import DataSet, FrameFiles, find_images
from ..label_maps import id_labels
from ..registry import Reader, Request, Splits
from ..tree import is_file
from .carla import SHIFT


def data_set(request: Request) -> DataSet:
    """The front camera's frames of a split; without depth if there are no depth maps."""
    reader, root = request.reader, request.root()
    folder = f"discrete/images/{request.split}/front"
    images = find_images(root, f"{folder}/**_img_front", reader.layout)
    labels = _maps(root / folder, "semseg", images)
    depth: Sequence[Path | None] = _maps(root / folder, "depth", images)
    has_depth = any(path is not None and is_file(path) for path in depth)
    if not has_depth:
        depth = [None] * len(images)
    frames = [FrameFiles(*files) for files in zip(images, labels, depth, strict=True)]
    read_labels = id_labels(SHIFT.train_ids(request.space), in_red=True)
    return DataSet(reader.title, root, frames, read_labels, CARLA_DEPTH if has_depth else None)


def _maps(front: Path, kind: str, images: Sequence[Path]) -> list[Path]:
    """Label or depth maps of the images, in the folder that has them."""
    names = [
        f"{image.parent.name}/{image.stem.removesuffix('_img_front')}_{kind}_front.png"
        for image in images
    ]
    own = [front / kind / name for name in names]
    return own if any(map(is_file, own)) else [front / name for name in names]


READER = Reader(
    name="shift",
    title="SHIFT",
    files="`discrete/images/<split>/front/{img,semseg,depth}.zip`, which may be unpacked",
    layout=(
        "download img.zip, semseg.zip and depth.zip of SHIFT's front camera as "
        "discrete/images/<split>/front/{img,semseg,depth}.zip; unpacked, they hold "
        "<sequence>/00000100_img_front.jpg, 00000100_semseg_front.png and 00000100_depth_front.png"
    ),
    data_set=data_set,
    labelling=SHIFT,
    sides=("source",),
    splits=Splits(train="train", evaluation="val"),
)
