"""Tiny random backbones of transformers, saved as folders; and a stand-in for timm."""

import json
import types
from pathlib import Path

import torch
from torch import nn

SIZES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
VIT = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2}

BACKBONES: dict[str, tuple[str, str, dict]] = {
    "segformer": (
        "SegformerConfig",
        "SegformerForImageClassification",
        SIZES | {"num_attention_heads": [1, 2, 2, 4], "drop_path_rate": 0.5},
    ),
    "convnext": ("ConvNextConfig", "ConvNextForImageClassification", SIZES),
    "convnextv2": ("ConvNextV2Config", "ConvNextV2Model", SIZES),
    "swin": (
        "SwinConfig",
        "SwinForImageClassification",
        {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 2], "window_size": 4},
    ),
    "dinov2": ("Dinov2Config", "Dinov2Model", VIT | {"image_size": 70, "patch_size": 14}),
    "dinov3": (
        "DINOv3ViTConfig",
        "DINOv3ViTModel",
        VIT | {"intermediate_size": 32, "num_register_tokens": 2},
    ),
    "resnet": ("ResNetConfig", "ResNetForImageClassification", SIZES | {"embedding_size": 8}),
}
"""Configuration, saved class (some with a classification head) and sizes of each architecture."""

OTHERS: dict[str, tuple[str, str, dict]] = {
    "dinov3_convnext": ("DINOv3ConvNextConfig", "DINOv3ConvNextModel", SIZES),
    "pvt_v2": (
        "PvtV2Config",
        "PvtV2ForImageClassification",
        SIZES | {"num_attention_heads": [1, 2, 2, 4]},
    ),
    "dinov2_tokens": (
        "Dinov2Config",
        "Dinov2Backbone",
        VIT | {"image_size": 64, "patch_size": 8, "reshape_hidden_states": False},
    ),
    "beit": ("BeitConfig", "BeitModel", VIT | {"intermediate_size": 32, "image_size": 32}),
    "maskformer_swin": (
        "MaskFormerSwinConfig",
        "MaskFormerSwinBackbone",
        {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 2], "window_size": 4},
    ),
}
"""Architectures that are not promised, and differ from the others in their heads or stages."""


def write_backbone(folder: Path, name: str, **save) -> Path:
    """Save a backbone with random weights as users get them: config.json and safetensors."""
    import transformers

    config, model, sizes = (BACKBONES | OTHERS)[name]
    torch.manual_seed(len(name))
    made = getattr(transformers, model)(getattr(transformers, config)(**sizes))
    made.save_pretrained(folder / name, **save)
    return folder / name


def write_preprocessor(folder: Path, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)) -> None:
    settings = {"image_mean": list(mean), "image_std": list(std), "do_resize": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))


class _Stages(nn.Module):
    """A network with the interface of ``timm.create_model(..., features_only=True)``."""

    def __init__(self, out_indices=(0, 1, 2, 3, 4)):
        super().__init__()
        info = [{"reduction": 2 ** (i + 1), "num_chs": 8 * (i + 1)} for i in range(5)]
        self.out_indices = out_indices
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c_in, c_out, 3, 2, 1), nn.BatchNorm2d(c_out), nn.ReLU())
            for c_in, c_out in zip((3, 8, 16, 24, 32), (8, 16, 24, 32, 40), strict=True)
        )
        chosen = [info[i] for i in out_indices]
        self.feature_info = types.SimpleNamespace(
            info=info,
            reduction=lambda: [entry["reduction"] for entry in chosen],
            channels=lambda: [entry["num_chs"] for entry in chosen],
        )
        self.pretrained_cfg = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.2, 0.2)}

    def forward(self, x):
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return [maps[i] for i in self.out_indices]


class _Windows(_Stages):
    """As timm's Swin: channels come last, and images have one size unless it is asked for."""

    output_fmt = "NHWC"

    def __init__(self, out_indices=(0, 1, 2, 3, 4), dynamic_img_size=False):
        super().__init__(out_indices)
        self.dynamic = dynamic_img_size

    def forward(self, x):
        assert self.dynamic or x.shape[2:] == (224, 224), "Input doesn't match model (224)."
        return [maps.permute(0, 2, 3, 1) for maps in super().forward(x)]


class _Fixed(_Windows):
    """Takes images of one size alone."""

    def __init__(self, out_indices=(0, 1, 2, 3, 4)):
        super().__init__(out_indices)


def fake_timm() -> types.ModuleType:
    """A module with timm's ``create_model``, which says nothing of missing weights."""
    models = {"tiny": _Stages, "windows": _Windows, "fixed": _Fixed}

    def create_model(
        name, pretrained=False, features_only=False, pretrained_cfg_overlay=None, **options
    ):
        assert features_only
        if name not in models:
            raise RuntimeError(f"Unknown model ({name})")
        network = models[name](**options)
        if pretrained:
            state = (pretrained_cfg_overlay or {}).get("state_dict")
            if state is None:
                state = {key: torch.full_like(x, 0.5) for key, x in network.state_dict().items()}
            network.load_state_dict(state, strict=False)
        return network

    module = types.ModuleType("timm")
    module.create_model = create_model  # type: ignore[attr-defined]
    return module
