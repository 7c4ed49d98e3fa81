"""Synscapes (Wrenninge and Unger, arXiv 1810.08705): 25,000 frames of 1440x720.

    <root>/img/rgb/1.png
    <root>/img/class/1.png    Cityscapes' ids
    <root>/img/depth/1.exr    metres along the camera's axis, floating point

``img/rgb-2k`` has the images at 2048x1024; they are read if ``img/rgb`` is missing, and then need
label and depth maps of their size.
"""

from ..depth_maps import depth_reader
from ..files import DataSet, FrameFiles, find_images
from ..label_maps import id_labels
from ..registry import Reader, Request
from ..tree import is_folder
from .cityscapes import CITYSCAPES


def data_set(request: Request) -> DataSet:
    """All frames; without depth if there is no folder of depth maps."""
    reader, root = request.reader, request.root()
    folder = root / "img"
    native = is_folder(folder / "rgb") or not is_folder(folder / "rgb-2k")
    images = find_images(root, f"img/{'rgb' if native else 'rgb-2k'}/*", reader.layout)
    has_depth = is_folder(folder / "depth")
    frames = [
        FrameFiles(
            image,
            folder / "class" / f"{image.stem}.png",
            folder / "depth" / f"{image.stem}.exr" if has_depth else None,
        )
        for image in images
    ]
    read_labels = id_labels(CITYSCAPES.train_ids(request.space))
    return DataSet(reader.title, root, frames, read_labels, depth_reader() if has_depth else None)


READER = Reader(
    name="synscapes",
    title="Synscapes",
    files="`img/{rgb,class,depth}/`",
    layout=(
        "download Synscapes and unpack it; its folder holds img/rgb/1.png, img/class/1.png and "
        "img/depth/1.exr"
    ),
    data_set=data_set,
    labelling=CITYSCAPES,
    sides=("source",),
)
