"""The documentation: every command and example in it runs, on miniatures, and says what is true.

``make docs`` builds the site strictly: links, anchors, docstrings.
"""

import ast
import contextlib
import importlib.util
import os
import re
import shlex
import shutil
import sys
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import cv2
import numpy as np
import pytest
import torch
import yaml

from gioada_fast import ops, street_scenes
from gioada_fast.config import Config
from gioada_fast.labels import BUILT_IN_SPACES, STREET_IDS, label_space

from .commands import command
from .data import formats
from .miniature import SMALL_MODEL, flags, street_frame, write_camvid, write_street_scenes
from .models.trunk_folders import write_backbone
from .video_files import write_video

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "examples/README.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))

PLACEHOLDERS = {
    "runs/<name>": "runs/mini",
    "runs/<other>": "runs/mini",
    "runs/<ablation>": "runs/ablation",
    "--config NAME ...": "--config street_to_camvid --data.target.root ~/data/CamVid",
    "train ...": "train --config street_to_camvid --data.target.root ~/data/CamVid",
    "=N ": "=2 ",
    # files of half a gigabyte, and downloads
    "--model.pretrained imagenet": "",
    "--preset pretrained": "--preset small",
    "--model.pretrained ~/weights/vgg16.pth": "",
    "nvidia/mit-b2": "~/models/segformer",
    # nine rows of three seeds
    "--seeds 0 1 2": "--seeds 0 --rows source_only",
    "--schedule.keep_evaluated true --name": "--seeds 0 --rows source_only both "
    "--schedule.keep_evaluated true --name",
}
"""What the tests type instead of a part of a command."""

NEEDED = {"hf": "transformers", "onnx": "onnxruntime"}
"""Packages of extras, by the word in a command that needs them."""

OF_OTHERS = {"preperation/createLabels.py"}
"""Scripts of other repositories."""

TINY = {
    "precision": "fp32",
    "data.height": 64,
    "data.width": 64,
    "data.workers": 0,
    "schedule.source_only_steps": 1,
    "schedule.adaptation_steps": 1,
    "schedule.batch_size": 2,
    **{f"model.{name}": value for name, value in SMALL_MODEL.items()},
}
"""Settings of commands that train."""

STREETS = {
    "data.source.root": "scenes",
    "data.source.frames": 6,
    "data.source.height": 64,
    "data.source.width": 96,
    "data.source.field_of_view": "null",
    "data.source.camera_height": "null",
    "data.source.camera_pitch": "null",
}
"""Settings that find the miniature street scenes."""


class Block(NamedTuple):
    """A code block of a page."""

    language: str
    """Empty for an indented block."""
    content: str


class Command(NamedTuple):
    """A command line of a page, or flags alone."""

    text: str


def blocks(text: str) -> list[Block]:
    """The code blocks of a page, in their order."""
    fenced, indented = r"^```(\w*)\n(.*?)^```$", r"(?<=\n\n)((?: {4}[^\n]*\n|\n(?= {4}))+)"
    found = re.finditer(f"{fenced}|{indented}", text, re.DOTALL | re.MULTILINE)
    return [Block(b[1] or "", b[2] or re.sub(r"(?m)^ {4}", "", b[3])) for b in found]


def runnable(text: str) -> list[Block | Command]:
    """The commands and the Python code of a page, in their order."""
    start = re.compile(r"(\w+=\S+ )*(python|pytest|make|pip|torchrun|--\w)")
    found: list[Block | Command] = []
    for block in blocks(text):
        if block.language == "python":
            found.append(block)
        elif block.language in ("", "sh", "bash"):
            for line in block.content.replace("\\\n", " ").splitlines():
                typed = " ".join(line.partition(" #")[0].split())
                if start.match(typed):
                    found.append(Command(typed))
    return found


ALL = {page: runnable(page.read_text(encoding="utf-8")) for page in PAGES}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A home with miniatures of the data sets in it, and a working directory with one run."""
    folder = tmp_path_factory.mktemp("docs")
    home, work = folder / "home", folder / "work"
    data = home / "data"
    write_camvid(data / "CamVid")
    formats.write_synthia(data / "RAND_CITYSCAPES")
    formats.write_cityscapes(data / "cityscapes")
    formats.write_kitti(data / "kitti")
    write_backbone(home / "models", "segformer")
    write_backbone(home / "models", "dinov2").rename(home / "models" / "dinov2-base")
    write_folders(home)
    write_street_scenes(work / "scenes")
    write_video(work / "drive.mp4", codec="mp4v")
    write_video(work / "more_videos" / "short.avi", count=3)
    write_pictures(work / "images")
    write_pictures(home / "photos" / "images")
    shutil.make_archive(str(home / "more"), "zip", work / "images")
    for name in ("one.tif", "large.tif", "street.jpg"):
        cv2.imwrite(str(work / name), street_frame(0)[0])
    (work / "CamVid").symlink_to(data / "CamVid")
    write_configurations(work)
    done = command("train", *flags(work / "scenes", work / "runs", **CONTROL), cwd=work)
    assert done.returncode == 0, done.stderr
    shutil.copytree(work / "runs/mini", work / "runs/ablation/seed0/both")
    return folder


CONTROL = {"schedule.control": "true", "schedule.source_only_steps": 1}


def write_pictures(folder: Path) -> None:
    folder.mkdir(parents=True)
    for seed in range(2):
        cv2.imwrite(str(folder / f"{seed}.jpg"), street_frame(seed)[0])


def write_folders(home: Path) -> None:
    """The folders of docs/own_data.md, by its own script, and those of docs/data.md."""
    text = (ROOT / "docs/own_data.md").read_text(encoding="utf-8")
    code = next(block.content for block in blocks(text) if block.language == "python")
    with in_home(home):
        run_python(code, {})
    shutil.copytree(home / "data/renders", home / "data/mine")
    warehouse = home / "warehouse"
    for folder in ("renders/rgb", "photos/train", "photos/val"):
        write_pictures(warehouse / folder)
    for folder, values in (("renders/ids", (1, 2, 3)), ("photos/val_ids", (0, 1, 2))):
        (warehouse / folder).mkdir()
        for seed in range(2):
            ids = np.repeat(np.array(values, np.uint8), 32)[None].repeat(64, 0)
            cv2.imwrite(str(warehouse / folder / f"{seed}.png"), ids)
    (warehouse / "renders/depth").mkdir()
    for seed in range(2):
        depth = np.linspace(40_000, 3_000, 64).astype(np.uint16)[:, None].repeat(96, 1)
        cv2.imwrite(str(warehouse / f"renders/depth/{seed}.png"), depth)
    write_pictures(home / "data/photos/val")
    (home / "data/pseudo").mkdir()
    for image in (home / "data/CamVid/train").iterdir():
        cv2.imwrite(str(home / "data/pseudo" / image.name), np.full((96, 128), 500, np.uint16))


def write_configurations(work: Path) -> None:
    """The YAML blocks of the pages, under the names that their commands use."""
    mine, ids = yaml_blocks("own_data.md")
    (work / "mine.yaml").write_text(mine)
    for name in ("ids.yaml", "classes.yaml"):
        (work / name).write_text(ids)
    warehouse, _ = yaml_blocks("data.md")
    (work / "warehouse.yaml").write_text(warehouse.replace("~/data/", "~/warehouse/"))
    (work / "my_run.yaml").write_text("data: {}\n")


def yaml_blocks(page: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return [block for language, block in blocks(text) if language == "yaml"]


@contextlib.contextmanager
def in_home(home: Path):
    """``~`` is the miniature home, nothing is rendered, and reports have no charts."""
    with pytest.MonkeyPatch.context() as patches:
        patches.setenv("HOME", str(home))
        patches.setattr(street_scenes, "render", miniature_frame)
        patches.setattr("gioada_fast.report.run_report.charts", lambda *_: [])
        yield


def miniature_frame(seed, look="day", size=None):
    image, labels, depth = street_frame(seed, dark=look != "day")
    return street_scenes.Frame(image, depth / np.float32(100), labels)


@pytest.mark.parametrize("page", [pytest.param(p, id=p.name) for p, code in ALL.items() if code])
def test_commands_and_code(page, world, tmp_path, monkeypatch):
    """All that a page says to run, in its order, in one folder."""
    work = tmp_path / "work"
    shutil.copytree(world / "work", work, symlinks=True)
    monkeypatch.chdir(work)
    scope = example_names()
    with in_home(world / "home"):
        for item in ALL[page]:
            if isinstance(item, Block):
                run_python(item.content, scope)
            else:
                check(words_of(item), work)


def words_of(typed: Command) -> list[str]:
    """What a shell makes of a command, with a value for each placeholder."""
    text = typed.text
    for placeholder, value in PLACEHOLDERS.items():
        text = text.replace(placeholder, value)
    unknown = re.search(r"<\w+>|\s\.\.\.(\s|$)|\bNAME\b", text)
    assert not unknown, f"{typed.text}: no value for {unknown[0]} in PLACEHOLDERS"
    return [os.path.expanduser(word) for word in shlex.split(text)]


def example_names() -> dict:
    """What the pages' Python code takes for granted."""
    return {
        "torch": torch,
        "ops": ops,
        "logits": torch.randn(1, 4, 6, 8, requires_grad=True),
        "labels": torch.randint(0, 4, (1, 32, 48)),
    }


def run_python(code: str, scope: dict) -> None:
    """Run code of a page; code for packages that are not installed has tests of its own."""
    tree = ast.parse(code)
    if (other := re.match(r"# ([\w.]+)", code)) is not None:
        tests = (ROOT / "tests/integrations/test_other_packages.py").read_text(encoding="utf-8")
        assert f"def test_{other[1].replace('.', '_')}(" in tests, code
        return
    imports = [
        name.name for node in tree.body if isinstance(node, ast.Import) for name in node.names
    ]
    if not all(importlib.util.find_spec(name.partition(".")[0]) for name in imports):
        return  # an extra that is not installed
    if "fuse_loss" in code:
        transformers = pytest.importorskip("transformers")
        sizes = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
        config = transformers.SegformerConfig(**sizes, num_attention_heads=[1, 2, 2, 4])
        scope["model"] = transformers.SegformerForSemanticSegmentation(config)
    small = code.replace("512, 1024", "64, 96").replace("range(80)", "range(10)")
    exec(compile(small, "example", "exec"), scope)


def check(words: list[str], work: Path) -> None:
    """Run one command, or see that what it names exists."""
    while re.fullmatch(r"[A-Z_]+=\S+", words[0]):
        words = words[1:]
    if not all(importlib.util.find_spec(NEEDED[word]) for word in words if word in NEEDED):
        return
    if words[0] == "make":
        assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text(), words
    elif words[0] == "pip":
        check_extras(words)
    elif "--pyargs" in words:
        assert importlib.util.find_spec(words[-1]), words
    elif words[0] == "pytest":
        assert (ROOT / words[1]).exists(), words
    elif words[0].startswith("--"):  # flags alone
        run("train", [*words, "--print_config"], work)
    elif words[1] in OF_OTHERS:
        pass
    elif words[1].startswith("examples/"):  # tests/test_examples.py runs each with few steps
        check_example(words[1], words[2:])
    elif "benchmarks.report" in words:
        run_report(words[words.index("benchmarks.report") + 1 :])
    elif "benchmarks.scaling" in words:  # takes minutes; it has a test of its own with tiny sizes
        source = (ROOT / "benchmarks/scaling.py").read_text()
        assert all(f'"{flag}"' in source for flag in words if flag.startswith("--")), words
    else:  # python -m, or torchrun -m, as a single process
        module, *arguments = words[words.index("-m") + 1 :]
        run(module.removeprefix("gioada_fast."), arguments, work)


def check_example(program: str, words: list[str]) -> None:
    """See that an example, which has a test of its own, takes these flags."""
    source = (ROOT / program).read_text(encoding="utf-8")
    assert all(f'"{word}"' in source for word in words if word.startswith("--")), words


def check_extras(words: list[str]) -> None:
    extras = re.search(r"\[([\w,]+)\]", " ".join(words))
    project = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2]
    for extra in extras[1].split(",") if extras else ():
        assert f"\n{extra} = [" in project, words


def run_report(arguments: list[str]) -> None:
    from benchmarks import report

    with mock.patch.object(sys, "argv", ["report", *arguments]):
        report.main()


def run(module: str, arguments: list[str], work: Path) -> None:
    trains = module in ("train", "ablate") or (module, *arguments[:1]) == ("data", "pack")
    if (trains or (module, *arguments[:1]) == ("data", "check")) and "--resume" not in arguments:
        arguments = [*arguments, *tiny(arguments)]
    done = command(module, *arguments, cwd=work)
    assert done.returncode == 0, (module, arguments, done.stderr)


def tiny(arguments: list[str]) -> list[str]:
    """Flags that make a command with settings tiny."""
    config = dict(pairwise(arguments)).get("--config", "street_scenes")
    settings = dict(TINY)
    text = " ".join(arguments)
    own_source = config in ("mine.yaml", "warehouse.yaml") or "synthia" in config
    if not own_source:
        settings |= STREETS
    if config in ("street_scenes", "my_run.yaml") and "data.target.name" not in text:
        settings |= {
            "data.target.root": "scenes",
            "data.height": 64,
            "data.width": 96,
            "data.target.frames": 5,
            "data.target.evaluation_frames": 3,
        }
    if "synthia" in config:
        for side in ("source", "target"):
            settings |= {f"data.{side}.height": 64, f"data.{side}.width": 96}
    if "--model.backbone hf" in text:
        del settings["model.width"]
        settings["model.head_channels"] = 16
    typed = {word.partition("=")[0] for word in arguments}
    shape = ("data.source.", "data.target.root")
    return [
        f"--{name}={value}"
        for name, value in settings.items()
        if f"--{name}" not in typed or not name.startswith(shape)
    ]


def test_every_command_is_found():
    """As many as a search by another pattern finds."""
    for page, code in ALL.items():
        text = page.read_text(encoding="utf-8")
        lines = re.findall(r"(?m)^ {4}(?:\w+=\S+ )?(?:python -m|torchrun|pytest|make|pip) .*", text)
        assert len(lines) <= sum(isinstance(item, Command) for item in code), page
    assert sum(len(code) for code in ALL.values()) > 90


# --- pages that are generated, or compared with the source


@pytest.fixture(scope="module")
def site_pages():
    spec = importlib.util.spec_from_file_location("site_pages", ROOT / "docs/site_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_setting_has_an_entry(site_pages):
    page = site_pages.settings_page()

    def names(config, prefix=""):
        for name, value in vars(config).items():
            if hasattr(value, "__dataclass_fields__"):
                yield from names(value, f"{prefix}{name}.")
            else:
                yield prefix + name

    for name in names(Config()):
        entry = re.search(rf"### `{re.escape(name)}` {{.*}}\n\n(.+)\n\n(.+)\n", page)
        assert entry is not None and len(entry[2]) > 10, name


def test_quoted_messages_exist(site_pages):
    """The messages of docs/troubleshooting.md are those of the source, with … for values."""
    page = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    quoted = re.findall(r"(?m)^\| `([^|]+)` \|", page)
    assert len(quoted) > 20
    sources = [*sorted((ROOT / "gioada_fast").rglob("*.py")), ROOT / "setup.py"]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in sources]
    kinds = (ast.Constant, ast.JoinedStr, ast.BinOp)
    texts = [site_pages.template(n) for t in trees for n in ast.walk(t) if isinstance(n, kinds)]
    known = "\n".join(re.sub(r"\\(.)", r"\1", re.sub(r"\*[^*\n]+\*", "…", text)) for text in texts)
    for message in quoted:
        for part in message.split("…"):
            assert part.strip() in known, (message, part)


def test_messages_have_words(site_pages):
    messages = re.findall(r"(?m)^- (.*)", site_pages.messages_page())
    assert len(messages) > 200
    assert [m for m in messages if not re.search(r"[a-z]{2}", m)] == []


def test_label_spaces_name_their_classes():
    page = (ROOT / "docs/label_spaces.md").read_text(encoding="utf-8")
    for name in BUILT_IN_SPACES:
        classes = ", ".join(label_space(name).classes)
        assert f"| `{name}` | {classes} |" in page, f"docs/label_spaces.md: {name}: {classes}"


def test_own_data_has_the_ids_of_street_scenes():
    mine, ids = (yaml.safe_load(block) for block in yaml_blocks("own_data.md"))
    assert mine["data"]["source"]["classes"] == ids and set(ids) == set(STREET_IDS.values())


def test_every_page_is_in_the_navigation(site_pages):
    """So that ``make docs`` does not fail for a new page."""
    text = (ROOT / "mkdocs.yml").read_text()
    listed = set(re.findall(r"(\S+\.md)$", text, re.MULTILINE))
    written = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert listed == written | set(site_pages.generated_pages())
