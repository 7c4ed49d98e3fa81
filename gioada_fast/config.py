"""Every setting of a run, as dataclasses; YAML files and command lines use the same names.

The defaults suit a small machine with two CPU cores. All of them were chosen for this project,
including the weights of the losses: the paper does not publish its own.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import yaml

from .errors import InputError
from .labels import label_space, read_class_map

_MAX_SIDE = 16384
"""Largest height and width of images in pixels: more is a slip of the keyboard, not a picture."""
_MAX_COUNT = 2**31 - 1
_MAXIMA: Mapping[str, float] = {
    "workers": 256,
    "frames": 1_000_000,  # so that the seeds of no two sets meet
    "evaluation_frames": 1_000_000,
    "labelled": 1_000_000,
    "share": 1e6,
    "width": 64,
    "translation_width": 64,
    "translation_blocks": 256,
    "discriminator_width": 64,
    "head_channels": 16384,
    "mask_patch": _MAX_SIDE,
    "poly_power": 1000,
    "batch_size": 4096,
    "micro_batch": 4096,
    "accumulate": 65536,
    "seed": 2**32 - 1,
}
"""Largest value of numbers by the name of their setting: more would hang or exhaust any machine.
Other whole numbers have ``_MAX_COUNT``."""


def may_be_unset(kind: Any) -> bool:
    """Whether a setting of this type may be null."""
    return type(None) in get_args(kind)


def _check_values(owner: str, settings: Any) -> None:
    """Refuse settings without a value, and numbers beyond their maximum.

    Args:
        owner: prefix of the settings in messages, with its dot.
        settings: a dataclass; its sections check themselves.
    """
    for name, kind in get_type_hints(type(settings)).items():
        value = getattr(settings, name)
        if value is None and not may_be_unset(kind):
            raise InputError(f"{owner}{name} is empty: give it a value, or leave it out")
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        limit = _MAXIMA.get(name, math.inf if isinstance(value, float) else _MAX_COUNT)
        # height and width of images have a message of their own
        if value > limit and not (name == "width" and owner != "model."):
            raise InputError(f"{owner}{name} is {_short(value)}, must be at most {limit:g}")


def _short(value: float) -> str:
    return f"{value}" if -1e15 < value < 1e15 else f"{float(value):.3g}"


def _positive(owner: str, **values: float) -> None:
    for name, value in values.items():
        if not 0 < value < math.inf:  # nan is neither
            finite = "" if math.isfinite(value) else " and finite"
            raise InputError(f"{owner}.{name} is {value}, must be above 0{finite}")


def _not_negative(owner: str, **values: float) -> None:
    for name, value in values.items():
        if not 0 <= value < math.inf:
            rule = "not be negative" if math.isfinite(value) else "be a finite number"
            raise InputError(f"{owner}.{name} is {value}, must {rule}")


CAMERA_BOUNDS = {
    "field_of_view": (5.0, 150.0, "degrees"),
    "camera_height": (0.3, 4.0, "metres"),
    "camera_pitch": (-30.0, 30.0, "degrees"),
}
"""Lowest and highest value of each camera setting of the street scenes, and its unit. A camera
above 4 m looks from among the crowns of trees, one outside the other bounds at no street."""


def camera_range(setting: str, value: float | Sequence[float]) -> tuple[float, float]:
    """Lowest and highest value of a camera setting, which has one number or two.

    Args:
        setting: its name in messages, which ends in a key of ``CAMERA_BOUNDS``.
        value: one number, a sequence of one, or (lowest, highest).

    Raises:
        InputError: not one or two numbers, in falling order, or beyond the bounds.
    """
    numbers = [value] if isinstance(value, int | float) else list(value)
    low, high, unit = CAMERA_BOUNDS[re.split(r"\W+", setting)[-1]]
    if not 1 <= len(numbers) <= 2 or numbers[0] > numbers[-1]:
        raise InputError(
            f"{setting} is {value}, expected one number or the lowest and the highest, in {unit}"
        )
    if not all(low <= number <= high for number in numbers):  # nan is not
        raise InputError(f"{setting} is {value}, must be {low:g} to {high:g} {unit}")
    return float(numbers[0]), float(numbers[-1])


CACHE = "~/.cache/gioada_fast"
"""Folder for what can be made again: street scenes if no root is set, and counts of classes."""

OWN_DEPTH = "own"
"""Value of data.target.depth that stands for the data set's own depth maps."""

TARGET_SEED, EVALUATION_SEED = 1_000_000, 2_000_000
"""First seeds of the target's street scenes for training and for scoring. The source's seeds start
from 0, so no two sets share a frame."""


@dataclass
class FramesConfig:
    """Settings that sources and targets share."""

    root: str | None = None
    """Folder of the data set, or a zip archive, or a folder in one. Unset: ~/.cache/gioada_fast for
    street scenes, which are rendered there once."""
    height: int | None = None
    """Height in pixels that images are resized to before a random crop of data.height. Unset:
    data.height, without a random crop."""
    width: int | None = None
    """Width in pixels that images are resized to before a random crop of data.width. Unset:
    data.width, without a random crop. Images of another shape than width to height are first
    cropped to it, at their centre: nothing is squeezed."""
    images: str | None = None
    """folder, carla: pattern of the images under the root, with one * for the frame's name. Unset:
    images/* (folder), rgb/* (carla)."""
    labels: str | None = None
    """folder, carla: pattern of the label maps. Unset: none (folder), semantic/* (carla)."""
    depth: str | None = None
    """folder, carla: pattern of the depth maps. Unset: none (folder), depth/* if there is that
    folder (carla)."""
    classes: str | dict | None = None
    """folder: the class map of the labels, a YAML file or the mapping itself, from ids (7: road) or
    colours ("128 64 128": road) to classes of data.label_space; null ignores an id. carla: the
    same, or a table of tags: carla_0_9_10 (0.9.10 to 0.9.13), carla_0_9_14 (0.9.14 and later) or
    shift. Unset (carla): the table that fits what the tags draw."""
    unknown_labels: Literal["error", "ignore"] = "error"
    """What to do with ids and colours that the data set or the class map does not define: error, or
    ignore their pixels."""
    exif_orientation: Literal["ignore", "apply"] = "ignore"
    """Whether to turn images as their EXIF data says: ignore reads them as stored, like their label
    and depth maps; apply turns the images alone."""
    depth_kind: Literal["metres", "disparity", "inverse", "carla", "relative"] = "metres"
    """folder, and the target's maps to train with: what depth maps contain: metres, disparity (in
    pixels; depth is depth_focal_baseline / disparity), inverse (1 / metres), carla (the 24 bits of
    CARLA's depth camera in R, G and B), or for the target alone relative (larger is nearer, in
    unknown scale and shift, as most monocular depth networks give it; 0 and nan: unknown)."""
    depth_per_metre: float | None = None
    """folder: number that stands for one metre in depth maps (disparity: for one pixel; inverse:
    for 1 / metre). Unset: 100 for whole numbers that are metres, so centimetres, and 1 for floating
    point. 0 and the largest whole number (65535 in 16 bits) mean no depth."""
    depth_focal_baseline: float | None = None
    """folder: focal length in pixels times baseline in metres, for depth_kind disparity."""
    depth_along: Literal["axis", "ray"] = "axis"
    """folder: whether depth is measured along the camera's axis, or is the distance along each
    pixel's ray, which needs depth_fov."""
    depth_fov: float | None = None
    """folder: horizontal field of view of the camera in degrees, for depth_along ray."""

    def check(self, owner: str) -> None:
        """Refuse settings that contradict each other; ``owner`` is their prefix in messages."""
        _check_values(f"{owner}.", self)
        for name in ("height", "width"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= _MAX_SIDE:
                raise InputError(
                    f"{owner}.{name} is {_short(value)}, must be at least data.{name} and at most "
                    f"{_MAX_SIDE}"
                )
        for name in ("depth_per_metre", "depth_focal_baseline"):
            if getattr(self, name) is not None:
                _positive(owner, **{name: getattr(self, name)})
        if self.depth_kind == "disparity" and self.depth_focal_baseline is None:
            raise InputError(
                f"{owner}.depth_kind is disparity, which needs {owner}.depth_focal_baseline: focal "
                "length in pixels times baseline in metres"
            )
        if self.depth_kind == "relative" and (
            self.depth_per_metre or self.depth_focal_baseline or self.depth_along == "ray"
        ):
            raise InputError(
                f"{owner}.depth_kind is relative, which has no unit: leave out "
                f"{owner}.depth_per_metre, depth_focal_baseline and depth_along"
            )
        if self.depth_along == "ray" and self.depth_fov is None:
            raise InputError(
                f"{owner}.depth_along is ray, which needs {owner}.depth_fov: the camera's "
                "horizontal field of view in degrees"
            )
        if self.depth_fov is not None and not 0 < self.depth_fov < 180:
            raise InputError(
                f"{owner}.depth_fov is {self.depth_fov}, must be above 0 and below 180 degrees"
            )


@dataclass
class SourceConfig(FramesConfig):
    """Where images with labels and depth come from."""

    name: str = "street_scenes"
    """Data set. A real one, which has no depth, gives an upper bound to compare with."""
    split: str | None = None
    """Split of a data set that has several. Unset: its training split. folder: replaces {split} in
    the patterns."""
    include: str = "*"
    """Use only frames whose image path under the root matches this pattern, such as */clone/*."""
    look: str = "day"
    """street_scenes: look."""
    frames: int = 320
    """street_scenes: number of frames."""
    first_seed: int = 0
    """street_scenes: seed of the first frame; the others count up from it. The target's training
    frames start from seed 1000000, its evaluation frames from 2000000."""
    field_of_view: float | list[float] | None = None
    """street_scenes: horizontal field of view of the camera in degrees: one number, or the lowest
    and the highest, [80, 83], from which each frame draws its own. Unset: the look's."""
    camera_height: float | list[float] | None = None
    """street_scenes: height of the camera above the road in metres, one number or the lowest and
    the highest. Unset: the look's."""
    camera_pitch: float | list[float] | None = None
    """street_scenes: angle of the camera above the horizontal in degrees, one number or the lowest
    and the highest; below 0 it looks down. Unset: the look's."""
    share: float = 1.0
    """In data.sources: share of the training pairs, relative to the other sources' shares."""

    def __post_init__(self):
        self.check("data.source")
        if self.depth_kind == "relative":
            raise InputError(
                "data.source.depth_kind is relative, which only depth maps of the target may be: a "
                "source needs metres"
            )
        _positive("data.source", frames=self.frames, share=self.share)
        _not_negative("data.source", first_seed=self.first_seed)
        for name in CAMERA_BOUNDS:
            if (value := getattr(self, name)) is not None:
                # one number and twice the same mean the same, also to a resumed run and to packs
                setattr(self, name, list(camera_range(f"data.source.{name}", value)))


@dataclass
class TargetConfig(FramesConfig):
    """Where target images come from, and the labelled frames that score the result."""

    name: str = "street_scenes"
    """Data set. street_scenes in a second look is a stand-in for real images."""
    train_split: str | None = None
    """Images to train on; labels are read of those in labelled alone. Unset: the data set's own,
    such as train (cityscapes, camvid) or testing (kitti). folder: replaces {split} in the
    patterns."""
    evaluation_split: str | None = None
    """Labelled images to score on. Unset: the data set's own, such as val (cityscapes, camvid) or
    training (kitti). folder: replaces {split} in the patterns."""
    look: str = "evening"
    """street_scenes: look."""
    frames: int = 200
    """street_scenes: number of frames to train on, without labels."""
    evaluation_frames: int = 60
    """street_scenes: number of other frames to score on, with labels."""
    depth: str | None = None
    """Pattern of depth maps of the images to train on, from any monocular depth network, under the
    root or absolute, with one * for the image's path without suffix, with or without its folders;
    or own: the data set's own depth maps. Read if adaptation.lambda_target_depth or depth_agreement
    asks for it. folder: the pattern is that of the scored images, too, unless depth_kind is
    relative."""
    labelled: int | list[str] | None = None
    """Images to train on whose labels are used, during adaptation: their number, taken at even
    intervals, or a list of their names (paths under the root, or file names with or without
    suffix). Unset: none. Their files are read even if data.packs is set."""

    def __post_init__(self):
        self.check("data.target")
        if isinstance(self.labelled, int):
            _positive("data.target", labelled=self.labelled)
        elif self.labelled is not None and not self.labelled:
            raise InputError("data.target.labelled is empty: leave it out, or name an image")
        if self.depth == OWN_DEPTH and self.depth_kind != "metres":
            raise InputError(
                f"data.target.depth is own, whose kind is known: leave out data.target.depth_kind, "
                f"which is {self.depth_kind}"
            )
        _positive("data.target", frames=self.frames, evaluation_frames=self.evaluation_frames)


@dataclass
class DataConfig:
    """Data sets, classes and image sizes."""

    source: SourceConfig = field(default_factory=SourceConfig)
    target: TargetConfig = field(default_factory=TargetConfig)
    sources: list[SourceConfig] | None = None
    """Several sources instead of data.source: a list of the same settings, each with a share."""
    label_space: str | dict = "camvid11"
    """Classes that are trained and scored: a built-in label space, a YAML file of your own, or its
    content."""
    height: int = 180
    """Height of the training images in pixels."""
    width: int = 240
    """Width of the training images in pixels."""
    flip: bool = True
    """Mirror half of the training images."""
    class_weights: Literal["none", "sqrt_inverse"] = "sqrt_inverse"
    """Weights of the cross-entropy: none, or 1 / sqrt(frequency of the class in all of the source's
    label maps), scaled to mean 1, so that rare classes are not forgotten."""
    packs: str | None = None
    """Folder of packs that python -m gioada_fast.data pack wrote with these settings. Training
    reads them instead of the data sets' files."""
    workers: int = 1
    """Processes that load images; with 0 the training process loads them."""
    max_unreadable: int = 10
    """Maximum number of files that cannot be read in training: each is reported and another frame
    is used instead; one more ends the run."""

    def __post_init__(self):
        _check_values("data.", self)
        _not_negative("data", workers=self.workers, max_unreadable=self.max_unreadable)
        if self.sources is not None and not self.sources:
            raise InputError("data.sources is empty: leave it out, or list at least one source")
        for name, value in (("height", self.height), ("width", self.width)):
            if not 64 <= value <= _MAX_SIDE:
                raise InputError(f"data.{name} is {value}, must be 64 to {_MAX_SIDE} pixels")
            for setting, frames in {**self.named_sources(), "data.target": self.target}.items():
                resized = getattr(frames, name)
                if resized is None:
                    continue
                if resized < value:
                    raise InputError(
                        f"{setting}.{name} is {resized}, must be at least data.{name}, {value}, "
                        "the size of the crops"
                    )

    def named_sources(self) -> dict[str, SourceConfig]:
        """The sources by the prefix of their settings: data.source, or data.sources[0], ..."""
        if self.sources is None:
            return {"data.source": self.source}
        return {f"data.sources[{index}]": source for index, source in enumerate(self.sources)}

    def size_of(self, frames: FramesConfig) -> tuple[int, int]:
        """(H, W) that the frames of a source or the target are resized to."""
        return frames.height or self.height, frames.width or self.width

    @property
    def target_size(self) -> tuple[int, int]:
        """(H, W) that the target's images are resized to for training."""
        return self.size_of(self.target)


def _frozen_norm(backbone: str) -> Literal["none", "frozen_batch"]:
    """Name of a norm without trained parameters; version 0.1.0 called both of them none."""
    return "frozen_batch" if backbone == "resnet101" else "none"


@dataclass
class ModelConfig:
    """Architecture and size of the four networks."""

    backbone: str = "vgg16"
    """Trunk of the task network: vgg16, resnet101, hf (any backbone of Hugging Face transformers,
    which pretrained names), timm:NAME (a model of timm), or another name in
    models.trunks.TRUNKS."""
    pretrained: str | None = None
    """vgg16, resnet101: ImageNet weights of the trunk with torchvision's key names: a file (.pth or
    .safetensors), a URL with its SHA-256 (URL#sha256=..., or in the file name as in
    vgg16-397923af.pth), or imagenet for torchvision's weights. timm:NAME: such a file with timm's
    key names, or imagenet for timm's weights. hf: a folder with config.json and *.safetensors, or a
    name on the hub, such as nvidia/mit-b5."""
    trunk_config: dict | None = None
    """hf: the architecture of the trunk. A run takes it from pretrained and keeps it, so that it
    can be resumed without that folder."""
    task_checkpointing: bool = False
    """Store only the inputs of the stages of the task network's trunk, and of its heads, and
    recompute them in the backward pass: less memory, more time, the same gradients."""
    head: Literal["deeplab", "segformer", "daformer"] | None = None
    """Heads of the task network: deeplab (for a trunk with features of stride 8 alone), segformer
    (all-MLP decoder), or daformer (context-aware fusion by dilated convolutions). Unset: deeplab
    for vgg16 and resnet101, otherwise segformer."""
    head_channels: int = 256
    """segformer, daformer: channels of the decoder, a multiple of 8 (DAFormer: 256; SegFormer: 256
    for B0 and B1, otherwise 768)."""
    init_from: str | None = None
    """Weights of the whole task network to start from: the task.safetensors of another run with the
    same model and classes. They replace the pretrained weights."""
    width: float | None = None
    """vgg16, resnet101: factor on the trunk's number of channels. Unset: 1 with pretrained weights,
    otherwise 0.25."""
    norm: Literal["group", "none", "frozen_batch"] | None = None
    """Normalisation in the trunk: group (group norm), none (vgg16), or frozen_batch (resnet101:
    batch norm frozen at the pretrained statistics). Unset: group without pretrained weights; with
    them, none or frozen_batch, whichever the trunk has."""
    translation_width: float = 0.25
    """Factor on the translation network's number of channels (paper: 1)."""
    translation_blocks: int = 9
    """Number of residual blocks in the translation network."""
    translation_change: Literal["logit", "fraction"] = "logit"
    """How the translation network changes a colour channel: logit (adds to the channel's logit, so
    that pixels near white and black hardly change), or fraction (moves it by a fraction of its
    distance to white or black, so that a white sky can take any colour)."""
    translation_checkpointing: bool = False
    """Store only the input of each residual block and recompute the block in the backward pass:
    less memory, more time, the same gradients."""
    discriminator_width: float = 0.25
    """Factor on the number of channels in both discriminators (paper: 1)."""

    @property
    def trunk_width(self) -> float:
        """``width`` or its default."""
        if self.width is not None:
            return self.width
        return 1.0 if self.pretrained or self._has_own_size else 0.25

    @property
    def trunk_norm(self) -> str:
        """``norm`` or its default."""
        if self.norm is not None:
            return self.norm
        is_frozen = self.pretrained or self._has_own_size
        return _frozen_norm(self.backbone) if is_frozen else "group"

    @property
    def _has_own_size(self) -> bool:
        """Whether the trunk's width and norm come from another package."""
        return self.backbone.partition(":")[0] in ("hf", "timm")

    def __post_init__(self):
        _check_values("model.", self)
        if self.norm == "none":
            self.norm = _frozen_norm(self.backbone)
        _positive(
            "model",
            width=self.trunk_width,
            translation_width=self.translation_width,
            discriminator_width=self.discriminator_width,
        )
        _not_negative("model", translation_blocks=self.translation_blocks)
        if self.head_channels < 8 or self.head_channels % 8:
            raise InputError(
                f"model.head_channels is {self.head_channels}, must be a multiple of 8"
            )
        if self.trunk_config is not None and self.backbone != "hf":
            raise InputError(
                f"model.trunk_config is set, but model.backbone is {self.backbone}, not hf: leave "
                "it out"
            )
        if self.pretrained and self.backbone == "resnet101" and self.trunk_norm == "group":
            raise InputError(
                "model.norm is group, but ResNet's pretrained weights need batch norm: leave out "
                "model.norm or model.pretrained"
            )
        if self.pretrained and self.trunk_width != 1:
            raise InputError(
                f"model.width is {self.width}, but pretrained weights fit width 1 only: "
                "leave out model.width or model.pretrained"
            )


_SELF_TRAINING = (
    "mix_classes",
    "mix_order",
    "mask_ratio",
    "rare_class_temperature",
    "depth_agreement",
    "self_train_half",
)
"""Settings of adaptation that do nothing without self-training."""


@dataclass
class AdaptationConfig:
    """The adaptation levels, self-training, and the kinds and weights of the losses."""

    input_level: Literal["none", "image", "geometry", "normals"] = "geometry"
    """Translation of source images to the target's style: none, image (from the image alone),
    geometry (guided by depth and semantic labels), or normals (by surface normals, too)."""
    image_discriminator_input: Literal["image", "depth"] = "image"
    """What the image discriminator sees: the image, or the image with the depth that the task
    network predicts for it."""
    output_level: Literal["none", "semantics", "joint", "product"] = "joint"
    """Input of the output discriminator: none (no discriminator), semantics (the predicted
    segmentation), joint (segmentation and depth), or product (DADA: the segmentation's information
    times the depth)."""
    keep_half_untranslated: bool = True
    """Translate every other source image of a batch and train on the rest as rendered (paper:
    translate all). The untranslated half keeps what the translation loses: without it, bare trees
    were segmented as buildings. A batch of one image is translated."""
    lambda_depth: float = 1.0
    """Weight of the depth loss. With 0.1 it was too weak against the output discriminator, which
    then pushed the predicted target depth to arbitrary values."""
    lambda_img: float = 3.0
    """Weight of the image GAN loss in the generators' loss. If it is too small (0.3), the
    translation network encodes the labels that it sees as colours, one per class; with 10, both
    levels gain nothing on KITTI (docs/adaptation.md)."""
    lambda_out: float = 0.03
    """Weight of the output GAN loss in the generators' loss. With 0.3 and 1, roads, cars and
    cyclists lost what trees gained; 0.1 gained over 600 updates but cost 0.8 points over 1200
    (docs/adaptation.md)."""
    depth_encoding: Literal["inverse", "log", "linear"] = "log"
    """How metres are encoded for the networks. inverse spends nearly all of its range on the first
    few metres."""
    depth_loss: Literal["l1", "berhu", "l2"] = "l1"
    """Kind of the loss on the encoded depth."""
    gan_loss: Literal["lsgan", "bce", "hinge"] = "lsgan"
    """Kind of the adversarial loss of both discriminators."""
    self_training: bool = False
    """Beyond the paper: also train on target images with a teacher's pseudo-labels, mixed with
    source images."""
    lambda_self: float = 1.0
    """Weight of the self-training loss (DACS: 1)."""
    self_train_half: bool = True
    """Self-training on every other pair of a batch (DACS: on all). It costs half as much and gains
    as much (docs/experiments/street_to_kitti.md). A batch of one pair is used."""
    teacher_decay: float = 0.99
    """Decay of the teacher's moving average of the weights per update (DACS: 0.99)."""
    confidence: float = 0.968
    """Minimum probability for the teacher to count as confident at a pixel (DACS: 0.968). The
    fraction of confident pixels is the weight of the pseudo-labels."""
    mix_classes: Literal["random", "depth"] = "random"
    """Which half of a source image's classes self-training pastes over the target image: random
    (DACS), or depth: those whose depth agrees best with the depth that the teacher sees there."""
    mix_order: Literal["paste", "depth"] = "paste"
    """Which pixels of a pasted class cover the target image: paste (all of them), or depth: only
    those that are nearer than what the teacher sees there."""
    mask_ratio: float = 0.0
    """Fraction of the patches of a target image that masked consistency hides: the task network
    learns the teacher's labels of the whole image from the rest (MIC: 0.7). 0: no masked
    consistency. Needs self_training."""
    mask_patch: int = 64
    """Side in pixels of the patches that are hidden (MIC: 64)."""
    lambda_mask: float = 1.0
    """Weight of the masked consistency loss (MIC: 1)."""
    rare_class_temperature: float | None = None
    """Rare-class sampling: draw a class with probability softmax((1 - frequency) / temperature),
    then a source frame that has it, during adaptation with self_training (DAFormer: 0.01). Unset:
    every frame once per epoch."""
    lambda_target_depth: float = 0.0
    """Weight of the depth loss on target images, against the depth maps of data.target.depth, which
    any monocular depth network may have made. 0: they are not read for it."""
    depth_agreement: bool = False
    """Weight pseudo-labels by how well the teacher's depth agrees with the depth maps of
    data.target.depth. Needs self_training."""
    lambda_labelled: float = 1.0
    """Weight of the segmentation loss on the labelled target images of data.target.labelled."""

    @property
    def learns_from_target(self) -> bool:
        """Whether a level, self-training or a loss on the target is on."""
        return (
            (self.input_level, self.output_level) != ("none", "none")
            or self.self_training
            or self.lambda_target_depth > 0
        )

    def without_effect(self) -> dict[str, str]:
        """Settings that were changed but do nothing, and the setting that would let them."""
        needed = dict.fromkeys(_SELF_TRAINING, "self_training") | {
            "image_discriminator_input": "input_level"
        }
        return {
            name: other
            for name, other in needed.items()
            if getattr(self, name) != getattr(type(self), name)
            and getattr(self, other) in (False, "none")
        }

    @property
    def reads_target_depth(self) -> bool:
        """Whether training needs depth maps of the target images."""
        return self.lambda_target_depth > 0 or (self.self_training and self.depth_agreement)

    def __post_init__(self):
        _check_values("adaptation.", self)
        _not_negative(
            "adaptation",
            lambda_mask=self.lambda_mask,
            lambda_target_depth=self.lambda_target_depth,
            lambda_labelled=self.lambda_labelled,
            lambda_depth=self.lambda_depth,
            lambda_img=self.lambda_img,
            lambda_out=self.lambda_out,
            lambda_self=self.lambda_self,
        )
        _positive("adaptation", mask_patch=self.mask_patch)
        if self.rare_class_temperature is not None:
            _positive("adaptation", rare_class_temperature=self.rare_class_temperature)
        for name in ("teacher_decay", "confidence", "mask_ratio"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(
                    f"adaptation.{name} is {getattr(self, name)}, must be between 0 and 1"
                )


@dataclass
class OptimiserConfig:
    """Optimisers and learning rates.

    In each phase the rates fall as (1 - update / updates) ** poly_power.
    """

    task: Literal["adamw", "sgd"] = "adamw"
    """Optimiser of the task network (sgd: with momentum 0.9)."""
    task_lr: float = 1e-3
    """Learning rate of the task network's heads in the source-only phase. From scratch, 4e-3 made
    one of two seeds much worse (docs/adaptation.md)."""
    adaptation_lr: float | None = None
    """Learning rate of the task network's heads in the adaptation phase. Unset: task_lr."""
    trunk_lr_factor: float | None = None
    """Factor on both rates for the trunk. Unset: 0.1 with pretrained weights, otherwise 1."""
    layer_decay: float | None = None
    """Layer-wise rates of the trunk: the last block has the trunk's rate, and each block before it
    the rate of its successor times this (VFM-UDA++: 0.9). Unset: the same rate for all blocks. Not
    for trunks from timm, and from transformers only for those that are made of transformer
    blocks."""
    weight_decay: float = 5e-4
    """Weight decay of the task network."""
    decay_norms: bool = True
    """Whether the weight decay includes vectors: the weights of norms, and biases (DAFormer, Rein:
    not those of norms)."""
    clip_norm: float | None = None
    """Maximum norm of the task network's gradient, all its weights taken together; a longer
    gradient is scaled down. The other networks are not clipped. Unset: no clipping."""
    translation_lr: float = 2e-4
    """Learning rate of the translation network, Adam (0.5, 0.999), as in CycleGAN. With 1e-3 the
    translated images changed faster than the task network could follow (docs/adaptation.md)."""
    image_discriminator_lr: float = 2e-4
    """Learning rate of the image discriminator, Adam (0.5, 0.999), as in CycleGAN."""
    output_discriminator_lr: float = 1e-3
    """Learning rate of the output discriminator, Adam (0.9, 0.99). With AdaptSegNet's 1e-4 it never
    learned to distinguish source from target, and its gradient was noise (docs/adaptation.md)."""
    poly_power: float = 0.9
    """Exponent of the learning rates' decay."""
    warmup_steps: int = 50
    """Number of updates at the start of each phase in which the learning rates rise linearly from
    zero."""

    def __post_init__(self):
        _check_values("optimiser.", self)
        _positive(
            "optimiser",
            task_lr=self.task_lr,
            adaptation_lr=1 if self.adaptation_lr is None else self.adaptation_lr,
            translation_lr=self.translation_lr,
            image_discriminator_lr=self.image_discriminator_lr,
            output_discriminator_lr=self.output_discriminator_lr,
        )
        _not_negative(
            "optimiser",
            weight_decay=self.weight_decay,
            poly_power=self.poly_power,
            warmup_steps=self.warmup_steps,
            trunk_lr_factor=self.trunk_lr_factor or 0,
        )
        if self.clip_norm is not None:
            _positive("optimiser", clip_norm=self.clip_norm)
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise InputError(
                f"optimiser.layer_decay is {self.layer_decay}, must be above 0 and at most 1"
            )


LabelFreeScore = Literal[
    "entropy",
    "confidence",
    "information",
    "nuclear",
    "flip",
    "photometric",
    "snd",
    "teacher",
    "depth",
]
"""Names of the scores that need no labels; engine/assessment.py defines them."""

CONTROL = "control"
"""Name of the control: its phase in the logs, and its column in the result."""


@dataclass
class ScheduleConfig:
    """Length of training and intervals between events, all in updates of the task network."""

    source_only_steps: int = 500
    """Updates of the source-only phase, which comes first."""
    adaptation_steps: int = 220
    """Updates of the adaptation phase, which follows."""
    control: bool = False
    """Whether to train a control, too: from the weights that the source-only phase ends with, as
    many updates as the adaptation phase on the source alone, from the same pairs. The gain of
    adaptation is the difference to it, which longer training does not explain. Without a level or
    self-training, the run is such a control itself and trains no other."""
    batch_size: int = 4
    """Number of image pairs (one source, one target) in a batch."""
    accumulate: int = 1
    """Number of batches whose gradients an update accumulates: the effect of a large batch with the
    memory of a small one. Each process sees batch_size * accumulate pairs per update."""
    micro_batch: int | None = None
    """Number of pairs that are in memory at once: batches are cut into micro-batches of this many
    pairs, whose gradients are accumulated. The same pairs are translated and self-trained as
    without it, and the gradient is the same up to rounding. (berhu: each micro-batch has its own
    threshold.) Unset: whole batches."""
    log_every: int = 20
    """Interval for fetching, checking and logging the losses. Between two log points, the host does
    not wait for the device."""
    evaluate_every: int = 200
    """Interval for scoring on the evaluation frames, which also happens at the end of a phase."""
    panel_every: int = 100
    """Interval for writing a panel of pictures."""
    checkpoint_every: int = 100
    """Interval for writing a checkpoint, which also happens at the end of a phase."""
    keep_best: LabelFreeScore | Literal["none"] = "none"
    """Label-free score (docs/judging.md) that chooses among the evaluations of the last phase: the
    preferred weights are kept as task_best. It is computed on training images of the target."""
    keep_evaluated: bool = False
    """Keep the task network's weights, and the teacher's, of every evaluation in the folder kept/,
    for python -m gioada_fast.assess."""

    def __post_init__(self):
        _check_values("schedule.", self)
        _not_negative(
            "schedule",
            source_only_steps=self.source_only_steps,
            adaptation_steps=self.adaptation_steps,
        )
        _positive(
            "schedule",
            batch_size=self.batch_size,
            accumulate=self.accumulate,
            micro_batch=1 if self.micro_batch is None else self.micro_batch,
            log_every=self.log_every,
            evaluate_every=self.evaluate_every,
            panel_every=self.panel_every,
            checkpoint_every=self.checkpoint_every,
        )
        if self.source_only_steps + self.adaptation_steps == 0:
            raise InputError("schedule has no steps: set source_only_steps or adaptation_steps")


@dataclass
class Config:
    """All settings of a run."""

    name: str | None = None
    """Name of the run's folder in runs_dir. Unset: the configuration's name with date and time."""
    runs_dir: str = "runs"
    """Folder that holds all runs."""
    seed: int = 0
    """Random seed of the initial weights, the data order and the augmentation."""
    device: str = "auto"
    """Device: cpu, cuda, cuda:1, ..., or auto: a GPU if there is one."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of the networks: fp32, bf16 autocast, or auto: bf16 if the hardware multiplies it
    faster."""
    compile: bool = False
    """Compile the update with torch.compile, which takes a minute or two at the start."""
    cuda_graphs: bool = False
    """Replay the whole update as one CUDA graph. Needs a single process on a GPU."""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    adaptation: AdaptationConfig = field(default_factory=AdaptationConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)

    def __post_init__(self):
        _check_values("", self)
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed is {self.seed}, must be at least 0 and below 2**32")

    @property
    def learns_from_target(self) -> bool:
        """Whether adaptation uses the target: a level, self-training, its depth or labels."""
        return self.adaptation.learns_from_target or self.data.target.labelled is not None

    @property
    def adaptation_lr(self) -> float:
        """``optimiser.adaptation_lr`` or its default."""
        settings = self.optimiser
        return settings.task_lr if settings.adaptation_lr is None else settings.adaptation_lr

    @property
    def trunk_lr_factor(self) -> float:
        """``optimiser.trunk_lr_factor`` or its default."""
        factor = self.optimiser.trunk_lr_factor
        return (0.1 if self.model.pretrained else 1.0) if factor is None else factor


def config_of(settings: Mapping[str, Any]) -> Config:
    """Build the settings from ``dataclasses.asdict``, as checkpoints contain them.

    Raises:
        TypeError: there are unknown settings.
        InputError: a value is not allowed.
    """
    data = settings.get("data", {})
    sources = data.get("sources")
    return Config(
        **{
            **settings,
            "data": DataConfig(
                **{
                    **data,
                    "source": SourceConfig(**data.get("source", {})),
                    "target": TargetConfig(**data.get("target", {})),
                    "sources": sources and [SourceConfig(**source) for source in sources],
                }
            ),
            "model": ModelConfig(**settings.get("model", {})),
            "adaptation": AdaptationConfig(**settings.get("adaptation", {})),
            "optimiser": OptimiserConfig(**settings.get("optimiser", {})),
            "schedule": ScheduleConfig(**settings.get("schedule", {})),
        }
    )


def shipped_configs() -> dict[str, Path]:
    """Names and files of the configurations that are shipped with the package."""
    return _shipped("configs")


def shipped_presets() -> dict[str, Path]:
    """Names and files of the shipped presets: networks and optimisers for a kind of machine."""
    return _shipped("configs/presets")


def find_config(name: str) -> Path:
    """The YAML file for a value of ``--config``: a path or a name from ``shipped_configs``."""
    return _find("configuration", name, shipped_configs())


def find_preset(name: str) -> Path:
    """The YAML file for a value of ``--preset``: a path or a name from ``shipped_presets``."""
    return _find("preset", name, shipped_presets())


def _shipped(folder: str) -> dict[str, Path]:
    path = Path(str(resources.files("gioada_fast"))) / folder
    return {file.stem: file for file in sorted(path.glob("*.yaml"))}


def _find(kind: str, name: str, shipped: dict[str, Path]) -> Path:
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if name in shipped:
        return shipped[name]
    raise InputError(f"no {kind} {name!r}: neither a file nor one of {', '.join(shipped)}")


class _Dumper(yaml.SafeDumper):
    """Quotes texts such as 1e3, which PyYAML reads as a text, but jsonargparse as a number."""


_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d[\d_]*|\d[\d_]*\.[\d_]*|\.[\d_]+)[eE][-+]?\d+"),
    list("-+.0123456789"),
)


def dump_settings(settings: Mapping[str, Any]) -> str:
    """Settings nested by section as YAML that a configuration may have."""
    return yaml.dump(settings, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def save_config(config: Config, path: Path) -> None:
    """Write every setting as YAML."""
    path.write_text(dump_settings(asdict(config)), encoding="utf-8")


RENAMED = {
    "model.start": "model.init_from",
    "adaptation.half_rendered": "adaptation.keep_half_untranslated",
    "model.trunk_checkpointing": "model.task_checkpointing",
}
"""Earlier names of settings, most of them of version 0.1.0, and their present names."""


def rename_old_settings(settings: Mapping[str, Any]) -> dict[str, str]:
    """Give settings with earlier names their present names and values, in place.

    Args:
        settings: all or some settings, nested by section as in a YAML file.

    Returns:
        The renamed settings, from old to present name.
    """
    renamed = {}
    adaptation = settings.get("adaptation")
    if isinstance(adaptation, dict) and "half_rendered" in adaptation:
        adaptation.setdefault("self_train_half", False)  # as self-training was in that version
    for old, new in RENAMED.items():
        section, _, name = old.partition(".")
        values = settings.get(section)
        if isinstance(values, dict) and name in values:
            values.setdefault(new.partition(".")[2], values.pop(name))
            renamed[old] = new
    model = settings.get("model")
    if isinstance(model, dict) and model.get("norm") == "none" and "backbone" in model:
        model["norm"] = _frozen_norm(model["backbone"])
        if model["norm"] != "none":
            renamed[f"model.norm=none of {model['backbone']}"] = f"model.norm={model['norm']}"
    return renamed


MAY_CHANGE = (
    "name",
    "runs_dir",
    "device",
    "data.workers",
    "data.packs",
    "data.max_unreadable",
    "data.source.root",
    "data.target.root",
    "data.sources.root",
    "model.init_from",
)
"""Settings that may differ when a run is resumed."""


def changed_setting(
    saved: Mapping[str, Any], now: Mapping[str, Any]
) -> tuple[str, Any, Any] | None:
    """Find the first setting that has changed, except for those that may change (MAY_CHANGE).

    Settings that are missing, because an older version saved them, count as their defaults. A label
    space or class map is the same whether it is a file or its content.

    Args:
        saved: settings nested by section, as ``dataclasses.asdict`` returns them.
        now: the same.

    Returns:
        (name, saved value, present value), or None if nothing has changed.
    """
    before, after = _by_dotted_name(saved), _by_dotted_name(now)
    is_old = "depth_kind" not in saved.get("data", {}).get("source", {})  # of version 0.1.0
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if re.sub(r"\[\d+\]", "", name) in MAY_CHANGE or (isinstance(old, str) and old == new):
            continue
        if name.endswith("depth_per_metre") and {old, new} <= {None, 100} and is_old:
            continue  # unset now means what was 100 then
        if not _same(name, old, new, after["data.label_space"]):
            return name, old, new
    return None


def _same(name: str, old: Any, new: Any, space: str | dict[str, Any]) -> bool:
    """Whether two values of a setting mean the same. The order of classes counts."""
    try:
        if name == "data.label_space":
            return label_space(old) == label_space(new)
        if name.endswith(".classes") and isinstance(old, str) != isinstance(new, str):
            maps = (read_class_map(value, label_space(space), name) for value in (old, new))
            return next(maps) == next(maps)
    except (InputError, TypeError):  # a file that is gone, or no value
        return False
    return bool(old == new)


def _by_dotted_name(settings: Mapping[str, Any]) -> dict[str, Any]:
    """All settings; missing ones have their defaults."""
    return _flat(asdict(Config())) | _flat(settings)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if name == "data.sources" and value:
            for index, source in enumerate(value):
                flat |= _flat({**asdict(SourceConfig()), **source}, f"{name}[{index}].")
        elif isinstance(value, dict) and key not in ("label_space", "classes", "trunk_config"):
            flat |= _flat(value, f"{name}.")
        else:
            flat[name] = value
    return flat
