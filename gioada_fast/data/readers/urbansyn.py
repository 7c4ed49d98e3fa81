"""UrbanSyn (Gómez et al., Neurocomputing 2025): 7,539 frames of 2048x1024.

<root>/rgb/rgb_0001.png
<root>/ss/ss_0001.png          Cityscapes' train ids, 19 is unlabelled
<root>/depth/depth_0001.exr    units of 100 km, floating point; the sky is beyond all depths
"""

from collections.abc import Sequence

import numpy as np

from ...errors import InputError
from ...labels import COMMON_CLASSES, Labelling
from ..depth_maps import depth_reader
from ..files import DataSet, FrameFiles, find_images
from ..label_maps import id_labels
from ..rasters import read_values
from ..registry import Reader, Request
from ..tree import is_folder
from .cityscapes import CITYSCAPES

URBANSYN = Labelling(
    "UrbanSyn", {**{name: name for name in COMMON_CLASSES}, "unlabelled": None}, CITYSCAPES.spaces
)

_UNITS = {"100 km": 1e-5, "metres": 1.0}
"""Number that stands for one metre, by the units that depth maps may have."""
_MEDIANS = 1, 200
"""Range of the median depth of a street in metres."""


def data_set(request: Request) -> DataSet:
    """All frames; without depth if there is no folder of depth maps."""
    reader, root = request.reader, request.root()
    images = find_images(root, "rgb/rgb_*", reader.layout)
    numbers = [image.stem.removeprefix("rgb_") for image in images]
    has_depth = is_folder(root / "depth")
    frames = [
        FrameFiles(
            image,
            root / "ss" / f"ss_{number}.png",
            root / "depth" / f"depth_{number}.exr" if has_depth else None,
        )
        for image, number in zip(images, numbers, strict=True)
    ]
    read_labels = id_labels(URBANSYN.train_ids(request.space))
    if not has_depth:
        return DataSet(reader.title, root, frames, read_labels)
    unit = _unit_of_depth(frames)
    name = f"{reader.title} (depth in {unit})"
    return DataSet(name, root, frames, read_labels, depth_reader(per_metre=_UNITS[unit]))


def _unit_of_depth(frames: Sequence[FrameFiles]) -> str:
    """The unit in which the median depth of some frames is one of a street."""
    medians = []
    for files in frames[:: max(1, len(frames) // 2)]:
        assert files.depth is not None
        try:
            values = read_values(files.depth)
        except InputError:
            continue  # check and training report it
        known = values[np.isfinite(values) & (values > 0)]
        medians += [float(np.median(known))] if known.size else []
    if not medians:
        return next(iter(_UNITS))
    median = float(np.median(medians))
    for unit, per_metre in _UNITS.items():
        if _MEDIANS[0] <= median / per_metre <= _MEDIANS[1]:
            return unit
    raise InputError(
        f"{files.depth}: the median of this and other depth maps is {median:g}, which is no depth "
        f"of a street in units of {' or '.join(_UNITS)}: are they of another data set?"
    )


READER = Reader(
    name="urbansyn",
    title="UrbanSyn",
    licence="CC BY-SA 4.0",
    files="`rgb/rgb_0001.png`, `ss/ss_0001.png`, `depth/depth_0001.exr`",
    layout=(
        "download the folders rgb, ss and depth of UrbanSyn into one folder, which then holds "
        "rgb/rgb_0001.png, ss/ss_0001.png and depth/depth_0001.exr"
    ),
    data_set=data_set,
    labelling=URBANSYN,
    sides=("source",),
)
