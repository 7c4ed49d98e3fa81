"""Tests of the street scenes: reproducible frames, consistent depth and labels, the cache."""

import math
import sys

import cv2
import numpy as np
import pytest

from gioada_fast.errors import InputError
from gioada_fast.labels import STREET, STREET_IDS, label_space

pytest.importorskip("embreex")

from gioada_fast import street_scenes
from gioada_fast.street_scenes import CameraRanges
from gioada_fast.street_scenes.__main__ import main

SIZE = (60, 80)
SKY = STREET_IDS["sky"]


@pytest.fixture(scope="module", params=list(street_scenes.LOOKS))
def look(request):
    return request.param


@pytest.fixture(scope="module")
def frames(look):
    return [street_scenes.render(seed, look, SIZE) for seed in range(6)]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    root = tmp_path_factory.mktemp("cache")
    return root, street_scenes.ensure(root, "day", [1, 0, 1], SIZE, workers=1)


def test_shapes_dtypes_and_ranges(frames):
    for frame in frames:
        assert frame.image.shape == (*SIZE, 3)
        assert frame.image.dtype == np.uint8
        assert frame.depth.shape == frame.labels.shape == SIZE
        assert frame.depth.dtype == np.float32
        assert frame.labels.dtype == np.uint8
        assert np.isfinite(frame.depth).all()
        assert frame.depth.min() >= 0
        assert frame.depth.max() < 655.35


def test_images_are_well_exposed(frames):
    for frame in frames:
        assert frame.image.std() > 8
    assert 40 < np.mean([frame.image.mean() for frame in frames]) < 200


def test_depth_is_zero_exactly_in_the_sky(frames):
    for frame in frames:
        np.testing.assert_array_equal(frame.labels == SKY, frame.depth == 0)


def test_labels_are_street_ids_and_map_to_every_label_space(frames):
    ids = np.unique(np.concatenate([np.unique(frame.labels) for frame in frames]))
    assert set(ids) <= set(STREET_IDS.values())
    assert {STREET_IDS[name] for name in ("sky", "building", "road", "pavement", "car")} <= set(ids)
    for space in map(label_space, STREET.spaces):
        train_ids = {STREET.train_ids(space)[street_id] for street_id in ids.tolist()}
        assert train_ids <= {255, *range(space.num_classes)}


def test_road_at_the_lower_edge_is_a_few_metres_away(frames):
    bottom = np.concatenate([frame.depth[-1] for frame in frames])
    road = np.concatenate([frame.labels[-1] for frame in frames]) == STREET_IDS["road"]
    assert road.mean() > 0.4
    assert 1.5 < np.median(bottom[road]) < 6


def test_same_seed_gives_same_bytes(look, frames):
    again = street_scenes.render(3, look, SIZE)
    for first, second in zip(frames[3], again, strict=True):
        np.testing.assert_array_equal(first, second)


def test_other_seed_or_look_gives_another_scene():
    day, other, overcast = (
        street_scenes.render(seed, look, SIZE)
        for seed, look in ((3, "day"), (4, "day"), (3, "overcast"))
    )
    assert (day.labels != other.labels).mean() > 0.05
    assert (day.labels != overcast.labels).mean() > 0.05


def test_global_random_state_is_not_used(frames, look):
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    again = street_scenes.render(0, look, SIZE)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    np.testing.assert_array_equal(again.image, frames[0].image)


@pytest.mark.parametrize("size", [(37, 53), (1, 1), (50, 20)])
def test_odd_sizes_render(size):
    frame = street_scenes.render(5, "day", size)
    assert frame.image.shape == (*size, 3)
    assert frame.depth.shape == frame.labels.shape == size


def test_cached_files_equal_the_rendered_frame(cache):
    root, paths = cache
    assert paths == [street_scenes.frame_paths(root, "day", SIZE, seed) for seed in (1, 0, 1)]
    folder = root / "street_scenes" / f"v{street_scenes.VERSION}" / "day_80x60"
    assert paths[0].image == folder / "0000001_image.png"
    frame = street_scenes.render(1, "day", SIZE)
    image, labels, depth = (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in paths[0])
    np.testing.assert_array_equal(image[..., ::-1], frame.image)
    np.testing.assert_array_equal(labels, frame.labels)
    assert depth.dtype == np.uint16
    np.testing.assert_allclose(depth / 100, frame.depth, atol=0.0051)
    np.testing.assert_array_equal(depth == 0, labels == SKY)
    assert not [file for file in folder.iterdir() if file.suffix != ".png"]


def test_another_camera_sees_the_same_street():
    """The middle of a frame with a shorter lens and twice the sides has the same rays."""
    wide = math.degrees(2 * math.atan(2 * math.tan(math.radians(25))))
    near = street_scenes.render(2, "day", SIZE, CameraRanges((50, 50), (1.4, 1.4), (0, 0)))
    size = (2 * SIZE[0], 2 * SIZE[1])
    far = street_scenes.render(2, "day", size, CameraRanges((wide, wide), (1.4, 1.4), (0, 0)))
    middle = np.s_[SIZE[0] // 2 : -SIZE[0] // 2, SIZE[1] // 2 : -SIZE[1] // 2]
    assert (far.labels[middle] == near.labels).mean() > 0.99
    close = np.isclose(far.depth[middle], near.depth, rtol=1e-3, atol=0.01)
    assert close.mean() > 0.99
    # what differs is the camera, not the numbers drawn for exposure and colour
    assert abs(float(far.image[middle].mean()) - float(near.image.mean())) < 6


@pytest.mark.parametrize("height", [1.0, 2.0])
def test_depth_of_the_road_follows_from_height_and_pitch(height):
    camera = CameraRanges((60.0, 60.0), (height, height), (-6.0, -6.0))
    frames = [street_scenes.render(seed, "day", SIZE, camera) for seed in range(2)]
    road = np.concatenate([f.depth[-1][f.labels[-1] == STREET_IDS["road"]] for f in frames])
    focal = SIZE[1] / 2 / math.tan(math.radians(30))
    down = math.atan((SIZE[0] - 1) / 2 / focal)
    expected = height / math.sin(down + math.radians(6)) * math.cos(down)
    assert np.median(road) == pytest.approx(expected, rel=0.05)


def test_the_cache_keeps_frames_of_each_camera(tmp_path):
    own = street_scenes.frame_paths(tmp_path, "day", SIZE, 0)
    look = street_scenes.LOOKS["day"]
    same = CameraRanges(look.field_of_view, look.camera_height, look.camera_pitch)
    assert street_scenes.frame_paths(tmp_path, "day", SIZE, 0, same) == own
    camera = CameraRanges(field_of_view=(80, 81.5), camera_pitch=(-1, 0))
    (paths,) = street_scenes.ensure(tmp_path, "day", [0], SIZE, workers=0, camera=camera)
    assert paths == street_scenes.frame_paths(tmp_path, "day", SIZE, 0, camera)
    name = "day_80x60_field_of_view_80_to_81.5_camera_pitch_-1_to_0"
    assert paths.image.parent.name == name and not own.image.exists()
    frame = street_scenes.render(0, "day", SIZE, camera)
    assert np.array_equal(cv2.imread(str(paths.image))[..., ::-1], frame.image)


def test_the_command_line_draws_a_sheet_of_another_camera(tmp_path, monkeypatch, capsys):
    def drawn(*flags):
        sheet = tmp_path / "sheet.png"
        typed = ["x", "--sheet", str(sheet), "--size", "60", "80", "--seeds", "3", *flags]
        monkeypatch.setattr(sys, "argv", [*typed, "--columns", "1", "--images-only"])
        return main(), cv2.imread(str(sheet))

    status, sheet = drawn("--field_of_view", "80", "--camera_pitch", "-2", "-1")
    camera = CameraRanges(field_of_view=(80, 80), camera_pitch=(-2, -1))
    assert status == 0
    assert np.array_equal(sheet[..., ::-1], street_scenes.render(3, "day", SIZE, camera).image)
    assert drawn("--camera_height", "40")[0] == 2
    assert "--camera_height is [40.0], must be 0.3 to 4 metres" in capsys.readouterr().err


def test_only_missing_frames_are_rendered(cache, capsys):
    root, paths = cache
    street_scenes.ensure(root, "day", [0, 1], SIZE)
    assert capsys.readouterr() == ("", "")
    before = paths[0].image.read_bytes()
    untouched = paths[1].image.stat().st_mtime_ns
    paths[0].depth.unlink()
    # a temporary file that a killed process left must not count as a frame
    leftover = paths[0].depth.with_name(f".{paths[0].depth.name}.1")
    leftover.write_bytes(before[:100])
    street_scenes.ensure(root, "day", [0, 1], SIZE, workers=1)
    assert cv2.imread(str(paths[0].depth), cv2.IMREAD_UNCHANGED).shape == SIZE
    assert paths[0].image.read_bytes() == before
    assert paths[1].image.stat().st_mtime_ns == untouched
    leftover.unlink()


def test_error_names_a_root_that_cannot_be_written(tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(InputError, match="file"):
        street_scenes.ensure(file, "day", [0], SIZE)


def test_bad_look_size_or_seed_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"dusk.*day, overcast, evening"):
        street_scenes.render(0, "dusk", SIZE)
    with pytest.raises(InputError, match="dusk"):
        street_scenes.ensure(tmp_path, "dusk", [0], SIZE)
    with pytest.raises(InputError, match="size"):
        street_scenes.render(0, "day", (0, 80))
    with pytest.raises(InputError, match="seed"):
        street_scenes.render(-1, "day", SIZE)
    with pytest.raises(InputError, match="field_of_view"):
        street_scenes.ensure(tmp_path, "day", [0], SIZE, camera=CameraRanges((90, 200)))


def test_error_without_embreex_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "embreex.mesh_construction", None)
    with pytest.raises(InputError, match=r"gioada_fast\[scenes\]"):
        street_scenes.render(0, "day", SIZE)
