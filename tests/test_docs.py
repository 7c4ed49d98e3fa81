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
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

PLACEHOLDERS = {
    "runs/<name>": "runs/mini",
    "runs/<other>": "runs/mini",
    "runs/<ablation>": "runs/ablation",
    "--config NAME ...": "--config street_to_camvid --data.target.root ~/data/CamVid",
    "train ...": "train --config street_to_camvid --data.target.root ~/data/CamVid",
    "=N ": "=2 ",
    # files of half a gigabyte, and downloads
    "--model.pretrained imagenet": "",
    "--model.pretrained ~/weights/vgg16.pth": "",
    "nvidia/mit-b2": "~/models/segformer",
    # nine rows of three seeds
    "--seeds 0 1 2": "--seeds 0 --rows source_only both",
    "--schedule.keep_evaluated true --name": "--rows source_only both --seeds 0 1 "
    "--schedule.keep_evaluated true --name",
}
"""What the tests type instead of a part of a command."""

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


def blocks(text: str) -> list[tuple[str, str]]:
    """(language, content) of every code block of a page; indented blocks have no language."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    rest = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    indented = re.findall(r"(?<=\n\n)(?: {4}.*\n|\n(?= {4}))+", rest)
    return fenced + [("", re.sub(r"(?m)^ {4}", "", block)) for block in indented]


def commands_of(text: str) -> list[str]:
    """Every command of a page, in one line."""
    lines = [
        line.partition(" #")[0].strip()
        for language, block in blocks(text)
        if language in ("", "sh", "bash")
        for line in block.replace("\\\n", " ").splitlines()
    ]
    start = re.compile(r"(\w+=\S+ )*(python|pytest|make|pip|torchrun|--\w)")
    return [" ".join(line.split()) for line in lines if start.match(line)]


ALL = {page: commands_of(page.read_text(encoding="utf-8")) for page in PAGES}
WITH_COMMANDS = [page for page, commands in ALL.items() if commands]


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
    for name in ("one.tif", "large.tif"):
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
    code = next(
        b for lang, b in blocks((ROOT / "docs/own_data.md").read_text()) if lang == "python"
    )
    with in_home(home):
        exec(compile(code, "docs/own_data.md", "exec"), {})
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


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=[page.name for page in WITH_COMMANDS])
def test_commands(page, world, tmp_path):
    """All commands of a page, in their order, in one folder."""
    work = tmp_path / "work"
    shutil.copytree(world / "work", work, symlinks=True)
    with in_home(world / "home"):
        for typed in ALL[page]:
            text = typed
            for placeholder, value in PLACEHOLDERS.items():
                text = text.replace(placeholder, value)
            unknown = re.search(r"<\w+>|\s\.\.\.(\s|$)|\bNAME\b", text)
            assert not unknown, f"{typed}: no value for {unknown[0]} in PLACEHOLDERS"
            check(shlex.split(text), work)


def check(words: list[str], work: Path) -> None:
    """Run one command, or see that what it names exists."""
    while re.fullmatch(r"[A-Z_]+=\S+", words[0]):
        words = words[1:]
    words = [os.path.expanduser(word) for word in words]  # as a shell does
    if words[0] == "make":
        assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text(), words
    elif words[0] == "pip":
        check_extras(words)
    elif words[0] == "pytest":
        assert (ROOT / words[1]).exists(), words
    elif words[0].startswith("--"):  # flags alone
        run("train", [*words, "--print_config"], work)
    elif words[1] in OF_OTHERS:
        pass
    elif "benchmarks.report" in words:
        run_report(words[words.index("benchmarks.report") + 1 :])
    else:  # python -m, or torchrun -m, as a single process
        module, *arguments = words[words.index("-m") + 1 :]
        run(module.removeprefix("gioada_fast."), arguments, work)


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
    for page, commands in ALL.items():
        text = page.read_text(encoding="utf-8")
        lines = re.findall(r"(?m)^ {4}(?:\w+=\S+ )?(?:python -m|torchrun|pytest|make|pip) .*", text)
        assert len(lines) <= len(commands), page
    assert sum(map(len, ALL.values())) > 70


PYTHON = [
    (page.name, block)
    for page in PAGES
    for language, block in blocks(page.read_text(encoding="utf-8"))
    if language == "python" and page.name != "own_data.md"  # whose script writes its folders
]


@pytest.mark.parametrize(("page", "block"), PYTHON)
def test_python(page, block):
    if (other := re.match(r"# ([\w.]+)", block)) is not None:  # code for a package
        tests = (ROOT / "tests/integrations/test_other_packages.py").read_text()
        assert f"def test_{other[1].replace('.', '_')}(" in tests
        ast.parse(block)
        return
    scope = {
        "torch": torch,
        "ops": ops,
        "logits": torch.randn(1, 4, 6, 8, requires_grad=True),
        "labels": torch.randint(0, 4, (1, 32, 48)),
    }
    if "fuse_loss" in block:
        transformers = pytest.importorskip("transformers")
        sizes = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
        config = transformers.SegformerConfig(**sizes, num_attention_heads=[1, 2, 2, 4])
        scope["model"] = transformers.SegformerForSemanticSegmentation(config)
    exec(compile(block.replace("512, 1024", "64, 96"), page, "exec"), scope)


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
