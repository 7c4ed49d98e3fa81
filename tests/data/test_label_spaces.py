"""Label spaces from YAML: the built-in ones, the user's own, and errors in the user's files."""

import pytest

from gioada_fast.config import DataConfig, SourceConfig, TargetConfig
from gioada_fast.data import sets
from gioada_fast.errors import InputError
from gioada_fast.labels import BUILT_IN_SPACES, COMMON_CLASSES, IGNORE, label_space

# Ids and colours as in cityscapesscripts.helpers.labels.
CITYSCAPES = {
    "road": (7, (128, 64, 128)),
    "sidewalk": (8, (244, 35, 232)),
    "building": (11, (70, 70, 70)),
    "wall": (12, (102, 102, 156)),
    "fence": (13, (190, 153, 153)),
    "pole": (17, (153, 153, 153)),
    "traffic light": (19, (250, 170, 30)),
    "traffic sign": (20, (220, 220, 0)),
    "vegetation": (21, (107, 142, 35)),
    "terrain": (22, (152, 251, 152)),
    "sky": (23, (70, 130, 180)),
    "person": (24, (220, 20, 60)),
    "rider": (25, (255, 0, 0)),
    "car": (26, (0, 0, 142)),
    "truck": (27, (0, 0, 70)),
    "bus": (28, (0, 60, 100)),
    "train": (31, (0, 80, 100)),
    "motorcycle": (32, (0, 0, 230)),
    "bicycle": (33, (119, 11, 32)),
}
LEFT_OUT = {
    "cityscapes19": (),
    "cityscapes16": ("terrain", "truck", "train"),
    "cityscapes13": ("terrain", "truck", "train", "wall", "fence", "pole"),
    "kitti10": (
        *("sidewalk", "wall", "fence", "person", "rider", "bus", "train", "motorcycle"),
        "bicycle",
    ),
}
CAMVID_CLASSES = (
    *("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian"),
    "bicyclist",
)
CAMVID_COLOURS = (
    *((128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222)),
    *((128, 128, 0), (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192)),
)
CAMVID_OF = {
    "wall": "building", "sidewalk": "pavement", "vegetation": "tree", "terrain": "tree",
    "traffic sign": "sign", "traffic light": "sign", "truck": "car", "bus": "car",
    "person": "pedestrian", "rider": "bicyclist", "bicycle": "bicyclist",
    "motorcycle": "bicyclist", "sky": "sky", "building": "building", "pole": "pole",
    "road": "road", "fence": "fence", "car": "car",
}  # fmt: skip


def test_the_built_in_spaces():
    assert set(BUILT_IN_SPACES) == {"camvid11", *LEFT_OUT}
    assert tuple(CITYSCAPES) == COMMON_CLASSES
    for name, left_out in LEFT_OUT.items():
        space = label_space(name)
        classes = tuple(c for c in CITYSCAPES if c not in left_out)
        assert (space.name, space.classes) == (name, classes)
        assert space.ids == tuple(CITYSCAPES[c][0] for c in classes)
        assert space.colours == tuple(CITYSCAPES[c][1] for c in classes)
        assert space.also_scored == ("cityscapes13" if name == "cityscapes16" else None)
        for common in CITYSCAPES:
            expected = classes.index(common) if common in classes else IGNORE
            assert space.train_id(common) == expected
        assert space.train_id(None) == IGNORE


def test_the_built_in_space_of_camvid():
    space = label_space("camvid11")
    assert (space.name, space.classes) == ("camvid11", CAMVID_CLASSES)
    assert (space.colours, space.ids) == (CAMVID_COLOURS, tuple(range(11)))
    assert space.also_scored is None
    for common in CITYSCAPES:
        name = CAMVID_OF.get(common)
        expected = IGNORE if name is None else CAMVID_CLASSES.index(name)
        assert space.train_id(common) == expected, common


WAREHOUSE = """\
name: warehouse
classes:
  floor:    {colour: [128, 64, 128], of: [road, sidewalk]}
  person:   {colour: [220, 20, 60],  of: [person, rider]}
  forklift: {colour: [0, 0, 142]}
"""


def write(folder, text=WAREHOUSE):
    path = folder / "warehouse.yaml"
    path.write_text(text)
    return str(path)


def test_a_label_space_of_the_user(tmp_path):
    space = label_space(write(tmp_path))
    assert space.name == "warehouse" and space.classes == ("floor", "person", "forklift")
    assert space.colours == ((128, 64, 128), (220, 20, 60), (0, 0, 142))
    assert space.ids == (0, 1, 2) and space.also_scored is None
    train_ids = {"road": 0, "sidewalk": 0, "person": 1, "rider": 1}
    for common in COMMON_CLASSES:
        assert space.train_id(common) == train_ids.get(common, IGNORE)
    assert hash(space) == hash(label_space(write(tmp_path)))


def test_only_of_decides_which_common_classes_belong_to_a_class(tmp_path):
    """A class with the name of a common class does not get that class's pixels by its name."""
    text = "name: t\nclasses:\n  car: {colour: [0, 0, 1]}\n  truck: {colour: [0, 0, 2], of: [car]}"
    space = label_space(write(tmp_path, text))
    assert space.train_id("car") == 1 and space.train_id("truck") == IGNORE


def entries(*lines):
    return "name: own\nclasses:\n" + "".join(f"  {line}\n" for line in lines)


ROAD, SKY = "road: {colour: [1, 2, 3], of: [road]}", "sky: {colour: [4, 5, 6], of: [sky]}"
MANY = [f"c{i}: {{colour: [{i}, 0, 0]}}" for i in range(255)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: own\nclasses: {a: [", "(?s)not readable as YAML.*line 2"),
        ("", "label space: expected"),
        ("- 1\n", "line 1: a label space: expected 'name: value' lines"),
        ("name: own\n", "line 1: a label space has no 'classes', expected name, classes"),
        ("classes: {}\n", "has no 'name'"),
        ("name: [1]\nclasses: {}\n", r"line 1: name is \[1\]"),
        ("colours: 1\n", "a label space has 'colours', expected name, classes, also_scored"),
        ("name: camvid11\n" + entries(ROAD, SKY).partition("\n")[2], "built-in label space"),
        (entries(ROAD), "line 3: a label space has 2 to 254 classes, found 1"),
        (entries(*MANY), "2 to 254 classes, found 255"),
        (entries(ROAD, SKY, "road: {colour: [0, 0, 0]}"), "line 5: classes has 'road' twice"),
        (entries(ROAD, "sky: blue"), "line 4: class 'sky': expected 'name: value' lines"),
        (entries(ROAD, "sky: {of: [sky]}"), "line 4: class 'sky' has no 'colour'"),
        (entries(ROAD, "sky: {colour: [1, 2, 3], color: 1}"), "class 'sky' has 'color', expected"),
        (entries(ROAD, "sky: {colour: [1, 2]}"), r"line 4: class 'sky': colour is \[1, 2\]"),
        (entries(ROAD, "sky: {colour: blue}"), r"colour is 'blue', expected \[R, G, B\]"),
        (entries(ROAD, "sky: {colour: [1, 2, 256]}"), "colour has 256, expected a whole number"),
        (entries(ROAD, "sky: {colour: [1, 2, 0.5]}"), "colour has 0.5"),
        (entries(ROAD, "sky: {colour: [1, 2, true]}"), "colour has True"),
        (entries(ROAD, "sky: {colour: [1, 2, 3], of: sky}"), "of is 'sky', expected a list"),
        (entries(ROAD, "sky: {colour: [1, 2, 3], of: [heaven]}"), "of names 'heaven'.* vegetation"),
        (
            entries(ROAD, "sky: {colour: [1, 2, 3], of: [sky, road]}"),
            "line 4: class 'sky': 'road' is part of 'road' already",
        ),
        (entries(ROAD, "sky: {colour: [1, 2, 3], id: 300}"), "class 'sky': id has 300"),
        (entries(ROAD, "sky: {colour: [1, 2, 3], id: 0}"), "two classes have the same id"),
        ("also_scored: own\n" + entries(ROAD, SKY), "line 1: also_scored is 'own'"),
        ("also_scored: kitti10\n" + entries(ROAD, SKY), "also_scored is 'kitti10'"),
    ],
)
def test_an_invalid_label_space_is_refused(tmp_path, text, words):
    with pytest.raises(InputError, match=words) as error:
        label_space(write(tmp_path, text))
    assert str(error.value).startswith(str(tmp_path / "warehouse.yaml"))


def test_the_error_for_an_unknown_name_lists_the_built_in_spaces(tmp_path):
    with pytest.raises(InputError, match=r"no label space 'ade20k'.*camvid11, cityscapes13"):
        label_space("ade20k")


def test_a_data_set_serves_the_spaces_for_whose_classes_it_has_labels(tmp_path):
    config = DataConfig(
        source=SourceConfig(name="vkitti2"),
        target=TargetConfig(name="kitti"),
        label_space=write(tmp_path),
    )
    # Virtual KITTI has labels for road, a part of floor, but none for person
    with pytest.raises(InputError, match="vkitti2 has no labels for person of label space war"):
        sets.check_label_space(config)
    with pytest.raises(InputError, match="vkitti2 has no labels for person"):
        sets.source_set(config)
    config.source.name = "carla"
    sets.check_label_space(config)
    # SYNTHIA has labels for all classes of camvid11, but does not list it among its spaces
    config.source.name, config.label_space = "synthia", "camvid11"
    with pytest.raises(InputError, match="synthia can be labelled in cityscapes16, cityscapes13"):
        sets.check_label_space(config)


def test_a_space_without_common_classes_needs_class_maps(tmp_path):
    text = "name: own\nclasses: {a: {colour: [0, 0, 0]}, b: {colour: [1, 1, 1]}}\n"
    config = DataConfig(label_space=write(tmp_path, text), target=TargetConfig(name="folder"))
    with pytest.raises(InputError, match="street_scenes has no labels for a, b of label space own"):
        sets.check_label_space(config)
    config.source.name = "folder"
    sets.check_label_space(config)
