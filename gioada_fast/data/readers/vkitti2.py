"""Virtual KITTI 2 (Cabon, Murray, Humenberger, arXiv 2001.10773).

    <root>/<Scene>/<variation>/frames/rgb/Camera_0/rgb_00000.jpg
    <root>/<Scene>/<variation>/frames/classSegmentation/Camera_0/classgt_00000.png
    <root>/<Scene>/<variation>/frames/depth/Camera_0/depth_00000.png
    <root>/<Scene>/<variation>/colors.txt

Each class has one colour; ``colors.txt``, a separate download, lists the same colours and is
optional. Depth is 16-bit centimetres; 655.35 m means no depth.
"""

from pathlib import Path

from ...labels import LabelSpace
from .. import tree
from ..depth_maps import CENTIMETRES
from ..files import DataSet, FrameFiles, find_images
from ..label_maps import Colours, colour_labels
from ..registry import Reader, Request
from .vkitti import VKITTI, read_colours

_PALETTE = dict(
    zip(
        VKITTI.classes,
        ((210, 0, 200), (90, 200, 255), (0, 199, 0), (90, 240, 0), (140, 140, 140), (100, 60, 100),
         (250, 100, 255), (255, 255, 0), (200, 200, 0), (255, 130, 0), (80, 80, 80), (160, 60, 60),
         (255, 127, 80), (0, 139, 139), (0, 0, 0)),
        strict=True,
    )
)  # fmt: skip


def data_set(request: Request) -> DataSet:
    """All scenes, variations and cameras; ``include`` selects among them."""
    reader, root = request.reader, request.root()
    images = find_images(root, "*/*/frames/rgb/*/rgb_*", reader.layout)
    frames = [
        FrameFiles(i, _beside(i, "classSegmentation", "classgt"), _beside(i, "depth", "depth"))
        for i in images
    ]
    read_labels = colour_labels(_Palette(request.space))
    return DataSet(reader.title, root, frames, read_labels, CENTIMETRES)


def _beside(image: Path, folder: str, prefix: str) -> Path:
    camera, number = image.parent.name, image.stem.removeprefix("rgb_")
    return image.parents[2] / folder / camera / f"{prefix}_{number}.png"


class _Palette:
    """Colours of a label map: from the ``colors.txt`` of its variation, or else ``_PALETTE``."""

    def __init__(self, space: LabelSpace):
        self.space = space
        self.published = {
            colour: space.train_id(VKITTI.classes[name]) for name, colour in _PALETTE.items()
        }

    def __call__(self, labels: Path) -> Colours:
        declared = labels.parents[3] / "colors.txt"
        if not tree.is_file(declared):
            return self.published
        undefined = _PALETTE["Undefined"]
        return {undefined: self.published[undefined], **read_colours(declared, self.space)}


READER = Reader(
    name="vkitti2",
    title="Virtual KITTI 2",
    files="`Scene01/clone/frames/{rgb,classSegmentation,depth}/Camera_0/…`",
    layout=(
        "download vkitti_2.0.3_rgb.tar, vkitti_2.0.3_classSegmentation.tar and "
        "vkitti_2.0.3_depth.tar of Virtual KITTI 2 and unpack them into one folder, which then "
        "holds Scene01/clone/frames/{rgb,classSegmentation,depth}/Camera_0/"
        "{rgb_00000.jpg,classgt_00000.png,depth_00000.png}"
    ),
    data_set=data_set,
    labelling=VKITTI,
    sides=("source",),
)
