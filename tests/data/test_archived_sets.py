"""Every data set reads the same from zip archives as unpacked."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from gioada_fast.config import DataConfig, SourceConfig, TargetConfig
from gioada_fast.data import pack_writer, sets, tree
from gioada_fast.data.pack_reader import MANIFEST
from gioada_fast.processes import run_in_processes

from .. import miniature
from . import formats

SOURCES = {
    "vkitti": ("kitti10", formats.write_vkitti),
    "vkitti2": ("kitti10", formats.write_vkitti2),
    "synthia": ("cityscapes16", formats.write_synthia),
    "carla": ("cityscapes19", formats.write_carla),
    "folder": ("cityscapes16", formats.write_folder),
}
TARGETS = {
    "cityscapes": ("cityscapes16", formats.write_cityscapes),
    "kitti": ("kitti10", formats.write_kitti),
    "camvid": ("camvid11", miniature.write_camvid),
}


def zip_folder(folder: Path, archive: Path, top: str = "") -> None:
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as writer:
        for path in sorted(folder.rglob("*")):
            writer.write(path, f"{top}{path.relative_to(folder).as_posix()}")


def one_archive(files: Path, root: Path) -> Path:
    """The root holds one archive."""
    zip_folder(files, root / "all.zip")
    return root


def the_root(files: Path, root: Path) -> Path:
    """The root is an archive."""
    zip_folder(files, root / "set.zip")
    return root / "set.zip"


def top_folder(files: Path, root: Path) -> Path:
    """The root is an archive with one folder, which is not part of the setting."""
    zip_folder(files, root / "set.zip", "RAND/")
    return root / "set.zip"


def inside(files: Path, root: Path) -> Path:
    """The root is a folder in an archive."""
    zip_folder(files, root / "set.zip", "data/mine/")
    return root / "set.zip" / "data" / "mine"


def by_folder(files: Path, root: Path) -> Path:
    """One archive for each folder of the set, with and without the folder in it."""
    for index, path in enumerate(sorted(files.iterdir())):
        if path.is_dir():
            zip_folder(path, root / f"{path.name}.zip", f"{path.name}/" if index % 2 else "")
        else:
            root.mkdir(exist_ok=True)
            path.rename(root / path.name)
    return root


LAYOUTS = (one_archive, the_root, top_folder, inside, by_folder)


def config(kind, name, space, root, **settings):
    side = {"source": SourceConfig, "target": TargetConfig}[kind](
        name=name, root=str(root), **settings
    )
    return DataConfig(label_space=space, height=64, width=64, **{kind: side})


def names(paths, root):
    return [path.relative_to(root).as_posix() for path in paths]


def arrays(frames):
    return [array for index in range(len(frames)) for array in frames[index] if array is not None]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", SOURCES)
def test_a_source_in_archives(tmp_path, name, layout):
    space, write = SOURCES[name]
    write(tmp_path / "files")
    settings = {}
    if name == "folder":
        (tmp_path / "classes.yaml").write_text("{0: road, 1: sky, 2: null, 7: car}")
        settings = {
            "labels": "labels/*",
            "depth": "depth/*",
            "classes": str(tmp_path / "classes.yaml"),
        }
    expected = sets.source_frames(config("source", name, space, tmp_path / "files", **settings))
    ordered, pixels = (
        names([f.image for f in expected.data.frames], tmp_path / "files"),
        arrays(expected),
    )
    root = layout(tmp_path / "files", tmp_path / "root")
    frames = sets.source_frames(config("source", name, space, root, **settings))
    assert names([files.image for files in frames.data.frames], root) == ordered
    for array, other in zip(arrays(frames), pixels, strict=True):
        np.testing.assert_array_equal(array, other)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", TARGETS)
def test_a_target_in_archives(tmp_path, name, layout):
    space, write = TARGETS[name]
    write(tmp_path / "files")
    unpacked = config("target", name, space, tmp_path / "files")
    expected = sets.target_images(unpacked)
    ordered = names(expected.paths, tmp_path / "files")
    pixels = [*expected, *arrays(sets.evaluation_frames(unpacked))]
    root = layout(tmp_path / "files", tmp_path / "root")
    zipped = config("target", name, space, root)
    images = sets.target_images(zipped)
    assert names(images.paths, root) == ordered
    found = [*images, *arrays(sets.evaluation_frames(zipped))]
    for array, other in zip(found, pixels, strict=True):
        np.testing.assert_array_equal(array, other)


def test_packs_of_archives_are_those_of_files(tmp_path):
    formats.write_synthia(tmp_path / "s")
    formats.write_cityscapes(tmp_path / "t")
    roots = {"files": (tmp_path / "s", tmp_path / "t")}
    roots["zip"] = (
        top_folder(tmp_path / "s", tmp_path / "u"),
        one_archive(tmp_path / "t", tmp_path / "v"),
    )
    manifests = {}
    for kind, (source, target) in roots.items():
        data = DataConfig(
            SourceConfig(name="synthia", root=str(source)),
            TargetConfig(name="cityscapes", root=str(target)),
            label_space="cityscapes16", height=64, width=96, packs=str(tmp_path / f"packs {kind}"),
        )  # fmt: skip
        pack_writer.pack(data, lambda line: None, workers=0)
        manifests[kind] = [
            (tmp_path / f"packs {kind}" / side / MANIFEST).read_text()
            for side in ("source", "target")
        ]
    assert manifests["zip"] == manifests["files"]


def test_new_processes_read_an_archive(tmp_path):
    formats.write_synthia(tmp_path / "files")
    files = tree.files_under(the_root(tmp_path / "files", tmp_path))
    read = run_in_processes(tree.read_bytes, files, "read", 2)
    assert sorted(read) == sorted(map(tree.read_bytes, files)) and len(files) == 9
