"""Label spaces and class maps from YAML: the built-in ones, the user's own, and errors in them."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from gioada_fast.config import DataConfig, SourceConfig, TargetConfig
from gioada_fast.data import sets
from gioada_fast.errors import InputError
from gioada_fast.labels import (
    BUILT_IN_SPACES,
    COMMON_CLASSES,
    IGNORE,
    class_map_content,
    label_space,
    read_class_map,
)

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
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
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
        ("name: own\nclasses: {a: [", "line 2: label space is not readable as YAML"),
        ("", "a label space has no 'name', expected name, classes"),
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
        (
            entries(ROAD, "sky: {colour: [1, 2, 3], color: 1}"),
            "'color', expected colour.*did you mean colour",
        ),
        (entries(ROAD, "sky: {colour: [1, 2]}"), r"line 4: class 'sky': colour is \[1, 2\]"),
        (entries(ROAD, "sky: {colour: blue}"), r"colour is 'blue', expected \[R, G, B\]"),
        (
            entries(ROAD, "sky: {colour: [1, 2, 256]}"),
            r"colour is \[1, 2, 256\], expected \[R, G, B\]",
        ),
        (entries(ROAD, "sky: {colour: [1, 2, 0.5]}"), r"colour is \[1, 2, 0.5\]"),
        (entries(ROAD, "sky: {colour: [1, 2, true]}"), r"colour is \[1, 2, True\]"),
        (entries(ROAD, "sky: {colour: [1, 2, 3], of: sky}"), "of is 'sky', expected a list"),
        (entries(ROAD, "sky: {colour: [1, 2, 3], of: [heaven]}"), "of names 'heaven'.* vegetation"),
        (
            entries(ROAD, "sky: {colour: [1, 2, 3], of: [sky, road]}"),
            "line 4: class 'sky': 'road' is part of 'road' already",
        ),
        (
            entries(ROAD, "sky: {colour: [1, 2, 3], id: 300}"),
            "class 'sky': id is 300, expected a whole",
        ),
        (
            entries(ROAD, "sky: {colour: [1, 2, 3], id: 0}"),
            "line 4: class 'sky': two classes .* id 0, the",
        ),
        (entries(ROAD, "sky: {colour: '#12345'}"), "colour is '#12345'"),
        (entries(ROAD, "sky: {colour: 1 2 3 4}"), "colour is '1 2 3 4'"),
        (entries(ROAD, "sky: {colour:\n #112233\n }"), "colour is None, expected"),
        (entries(ROAD, "sky: {of: [trafficlight]}"), "did you mean traffic light"),
        (entries(ROAD, "Road: {}"), "line 4: classes has 'Road' and 'road', the same name"),
        (entries("traffic light: {}", "traffic  light: {}"), "line 4: .* the same name"),
        (entries(ROAD, "yes: {}"), 'line 4: YAML reads the class name yes .*: write "yes" in quo'),
        (entries(ROAD, "null: {}"), "line 4: YAML reads the class name null as nothing"),
        (entries(ROAD, "~: {}"), "line 4: YAML reads the class name ~ as nothing"),
        (entries("1: {}", "2: {}"), "line 3: YAML reads the class name 1 as a number"),
        (entries("0: road", "1: sky"), "line 3: classes has '0: road', expected 'road: {}'"),
        (entries(ROAD, "2024-01-01: {}"), "line 4: YAML reads the class name 2024-01-01 as a date"),
        (entries(ROAD, "'': {}"), "line 4: class name is '', expected a text"),
        (entries(ROAD, "' ': {}"), "line 4: class name is ' ', expected a text"),
        (entries(ROAD, '"a\\nb": {}'), "line 4: class name is 'a.nb', expected a text"),
        (entries(ROAD, "[a, b]: {}"), r"line 4: class name is \['a', 'b'\], expected a text"),
        ("name: no\nclasses: {a: , b: }\n", "line 1: YAML reads the name no as a truth value"),
        ("name: t\nclasses: [a, b]\n", "line 2: classes: expected 'name: value' lines"),
        (entries("&x a: {}", "b: {of: *x}"), r"line 4: label space refers to another value"),
        (entries(ROAD, "b: !!python/name:os.system"), "line 4: label space has the tag .*python"),
        (entries(ROAD, "b: !colour [1, 2, 3]"), "line 4: label space has the tag !colour"),
        ("[" * 90, "line 1: label space is nested more than 50 levels deep"),
        ("- " * 100_000, "line 1: label space is nested more than 50 levels deep"),
        ("name: a\n---\nname: b\n", "line 2: label space is not readable as YAML"),
        ("\x00", "label space is not readable as YAML"),
        (b"\xff\xfea\x00", "label space is not readable as YAML: byte 0 is not UTF-8"),
        (b"\x89PNG\r\n\x1a\n", "label space is not readable as YAML: byte 0 is not UTF-8"),
        (entries(*(f"c{i}: {{}}" for i in range(90_000))), "has 1.. MB, expected a YAML file"),
        ("also_scored: own\n" + entries(ROAD, SKY), "line 1: also_scored is 'own'"),
        ("also_scored: kitti10\n" + entries(ROAD, SKY), "also_scored is 'kitti10'"),
    ],
)
def test_an_invalid_label_space_is_refused(tmp_path, text, words):
    with pytest.raises(InputError, match=words) as error:
        label_space(write(tmp_path, text))
    assert str(error.value).startswith(str(tmp_path / "warehouse.yaml"))
    assert len(str(error.value)) < 600


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ({"a": {}, "b": {"colour": [1]}}, r"data.label_space: class 'b': colour is \[1\]"),
        ({"a": {}, True: {}}, "data.label_space: YAML reads the class name true as a truth value"),
        ({"a": {}, 1: {}}, "data.label_space: YAML reads the class name 1 as a number"),
        ({"a": {}, None: {}}, "data.label_space: YAML reads the class name null as nothing"),
        ({"a": {}, "B": {}, "b": {}}, "data.label_space: classes has 'b' and 'B', the same name"),
        ({"a": {"of": ["road"]}, "b": {"of": ["road"]}}, "class 'b': 'road' is part of 'a'"),
        ({"a": {}}, "data.label_space: a label space has 2 to 254 classes, found 1"),
        (["a", "b"], "data.label_space: classes: expected 'name: value' lines"),
        (None, "data.label_space: a label space has 2 to 254 classes, found 0"),
        ({"a": object(), "b": {}}, "data.label_space: "),
    ],
)
def test_an_invalid_mapping_is_refused(classes, words):
    with pytest.raises(InputError, match=f"^{words}" if "data." in words else words):
        label_space({"name": "own", "classes": classes})


def test_a_mapping_is_the_same_space_as_its_file(tmp_path):
    space = label_space(write(tmp_path))
    assert label_space(yaml.safe_load(WAREHOUSE)) == space
    assert label_space(space.content()) == label_space(space.setting) == space
    # the order of the classes is the order of the train ids
    assert list(space.content()["classes"]) == ["floor", "person", "forklift"]
    for name in BUILT_IN_SPACES:
        built_in = label_space(name)
        assert label_space(built_in.content()) == built_in and built_in.setting == name


@pytest.mark.parametrize("count", [2, 19, 254])
def test_content_is_exact_for_any_space(count):
    """Names of any letters, all keys or none of them."""
    rng = np.random.default_rng(count)
    classes = {}
    for index in range(count):
        names = (
            f"yes{index}",
            f"c {index}: [x]",
            f"Straße {index}",
            f"'{index}\"",
            f"# {index} 車",
        )
        entry = {"colour": [int(v) for v in rng.integers(0, 256, 3)], "id": count - 1 - index}
        if index < len(COMMON_CLASSES):
            entry["of"] = [COMMON_CLASSES[index]]
        if index % 3:
            del entry["colour"]
        classes[names[index % 5]] = entry
    space = label_space({"name": "any: thing", "classes": classes})
    assert space.num_classes == count and space.classes == tuple(classes)
    assert label_space(space.content()) == space
    text = yaml.safe_dump(space.content(), sort_keys=False)
    assert label_space(yaml.safe_load(text)) == space
    ids = np.arange(count, dtype=np.uint8)[None]
    np.testing.assert_array_equal(space.colourise(ids)[0], space.colours)
    np.testing.assert_array_equal(space.official_ids(ids)[0], count - 1 - np.arange(count))


def test_colours_are_optional_and_differ():
    space = label_space({"name": "t", "classes": {f"c{i}": None for i in range(254)}})
    assert len({(0, 0, 0), *space.colours}) == 255 and space.ids == tuple(range(254))
    assert space == label_space({"name": "t", "classes": {f"c{i}": {} for i in range(254)}})
    classes = {
        "a": {}, "b": {"colour": "#800000"}, "c": {"of": ["road"]}, "d": {"of": ["sky"]},
        "e": {"colour": "70 130 180"}, "f": {"of": ["car", "bus"]}, "g": {"colour": "[1, 2, 3]"},
    }  # fmt: skip
    colours = label_space({"name": "t", "classes": classes}).colours
    # of PASCAL VOC: (0, 128, 0), (128, 128, 0), ...; of Cityscapes: road, while e has the sky's
    assert colours == (
        (0, 128, 0), (128, 0, 0), (128, 64, 128), (128, 128, 0), (70, 130, 180), (0, 0, 128),
        (1, 2, 3),
    )  # fmt: skip


SPACE = label_space(yaml.safe_load(WAREHOUSE))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0: floor\n1: null\n-1: ~\n70000: person\n", {0: 0, 1: 255, -1: 255, 70000: 1}),
        ("'7': floor\n", {7: 0}),
        ("7: sidewalk\n8: rider\n", {7: 0, 8: 1}),  # common classes of the space's classes
        ('"128 64 128": floor\n"#00FF0a": null', {(128, 64, 128): 0, (0, 255, 10): 255}),
        ('"[1, 2, 3]": floor\n[4, 5, 6]: person\n', {(1, 2, 3): 0, (4, 5, 6): 1}),
        ('"(1,2,3)": floor\n"4, 5, 6": person\n', {(1, 2, 3): 0, (4, 5, 6): 1}),
        ("{0: floor, 255: forklift}", {0: 0, 255: 2}),
        ("\ufeff0: floor\n# 1: no\n", {0: 0}),
    ],
)
def test_a_class_map(tmp_path, text, expected):
    path = tmp_path / "map.yaml"
    path.write_text(text)
    assert read_class_map(path, SPACE, "data.source.classes") == expected
    content = class_map_content(str(path), SPACE, "data.source.classes")
    assert read_class_map(content, SPACE, "x") == expected
    assert class_map_content(content, SPACE, "x") == content
    assert read_class_map(yaml.safe_load(yaml.safe_dump(content)), SPACE, "x") == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0: floor\n7: truck\n", r"line 2: 7: 'truck' is not a class of warehouse \(floor, per"),
        ("0: florr\n", "line 1: 0: 'florr'.*did you mean floor"),
        ("0: Floor\n", "line 1: 0: 'Floor'.*did you mean floor"),
        ("0: no\n", "line 1: 0: False is not a class"),
        ("0: 1\n", "line 1: 0: 1 is not a class"),
        ("0: [floor]\n", r"line 1: 0: \['floor'\] is not a class"),
        ("0: floor\n0: person\n", "line 2: 0: class map has this id twice"),
        ("0: floor\n'0': person\n", "line 2: 0: class map has this id twice"),
        ("'1 2 3': floor\n'#010203': floor\n", "line 2: #010203: class map has this colour twice"),
        ("0: floor\n'1 2 3': person\n", "line 2: 1 2 3: class map mixes ids and colours"),
        ("0: floor\n010: person\n", "line 2: '010' is neither an id"),
        ("1_000: person\n", "line 1: '1_000' is neither an id"),
        ("1.0: person\n", "line 1: '1.0' is neither an id"),
        ("yes: person\n", "line 1: 'yes' is neither an id"),
        ("road: 7\n", "line 1: 'road' is neither an id"),
        ("floor: 7\n", "line 1: 'floor' is neither an id.*write 'id: class', not"),
        ("~: person\n", "line 1: '~' is neither an id"),
        ("'1 2 256': person\n", "line 1: '1 2 256' is neither an id"),
        ("'1 2': person\n", "line 1: '1 2' is neither an id"),
        ("9" * 900 + ": person\n", "line 1: '9*...' is neither an id"),
        ("'1 2 " + "9" * 900 + "': person\n", "line 1: '1 2 9*...' is neither an id"),
        ("[1, 2, x]: person\n", r"line 1: .*1, 2, 'x'.* is neither an id"),
        ("0: floor\n#804080: person\n", "line 2: YAML reads '#804080: person' as a comment"),
        ("", "class map has no entries such as '7: floor'"),
        ("floor\n", "line 1: class map has no entries"),
        ("- floor\n", "line 1: class map has no entries"),
        ("0: &a floor\n1: *a\n", "line 2: class map refers to another value"),
        ("0: {", "line 1: class map is not readable as YAML"),
        (b"\xff", "class map is not readable as YAML: byte 0 is not UTF-8"),
        (None, "class map: No such file"),
    ],
)
def test_an_invalid_class_map_is_refused(tmp_path, text, words):
    path = Path(write(tmp_path, text)) if text is not None else tmp_path / "nowhere.yaml"
    with pytest.raises(InputError, match=words) as error:
        read_class_map(path, SPACE, "data.source.classes")
    assert str(error.value).startswith(str(path)) and len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({0: "floor", 7: "truck"}, "7: 'truck' is not a class of warehouse"),
        ({0: "floor", True: "person"}, "'true' is neither an id"),
        ({0: "floor", "0": "person"}, "0: class map has this id twice"),
        ({}, "class map has no entries"),
    ],
)
def test_an_invalid_class_map_in_the_settings_is_refused(content, words):
    with pytest.raises(InputError, match=f"^data.target.classes: {words}"):
        read_class_map(content, SPACE, "data.target.classes")


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
