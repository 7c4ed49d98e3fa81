"""Built-in street scenes, which are rendered into a cache on first use."""

from pathlib import Path

from ... import street_scenes
from ...config import (
    CACHE,
    CAMERA_BOUNDS,
    EVALUATION_SEED,
    TARGET_SEED,
    SourceConfig,
    TargetConfig,
)
from ...labels import STREET
from ..depth_maps import CENTIMETRES
from ..files import DataSet, FrameFiles
from ..label_maps import id_labels
from ..registry import Reader, Request


def data_set(request: Request) -> DataSet:
    """The frames of a range of seeds, rendered if they are missing."""
    config = request.config
    camera = {}
    if isinstance(config, SourceConfig):
        first, count = config.first_seed, config.frames
        camera = {name: getattr(config, name) for name in CAMERA_BOUNDS}
    elif request.part == "target":
        first, count = TARGET_SEED, config.frames
    else:
        first, count = EVALUATION_SEED, config.evaluation_frames
    root = Path(config.root or CACHE).expanduser()
    ranges = street_scenes.CameraRanges.read(camera, f"{request.setting}.")
    seeds = range(first, first + count)
    paths = street_scenes.ensure(root, config.look, seeds, request.size, camera=ranges)
    frames = [FrameFiles(*files) for files in paths]
    read_labels = id_labels(STREET.train_ids(request.space))
    return DataSet(request.reader.title, root, frames, read_labels, CENTIMETRES)


def _description(target: TargetConfig) -> str:
    return f"street scenes in the look {target.look!r}: rendered, a stand-in for real images"


READER = Reader(
    name="street_scenes",
    title="street scenes",
    licence="none needed: gioada_fast (Apache-2.0) rendered them",
    files="nothing: frames are rendered there, or in a cache if the root is unset",
    layout="",
    data_set=data_set,
    labelling=STREET,
    pack_settings={
        "source": ("look", "frames", "first_seed", *CAMERA_BOUNDS),
        "target": ("look", "frames"),
    },
    pack_version={"version of street scenes": street_scenes.VERSION},
    description=_description,
)
