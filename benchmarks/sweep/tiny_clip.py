"""Tiny towers of open_clip: one for each combination of options in its packaged configurations."""

from __future__ import annotations

import dataclasses
import re
import tempfile
from typing import Any

from torch import nn

__all__ = ["build", "tower_names"]

EMBEDDING = 32
VISION = {"layers": 3, "width": 32, "head_width": 8, "image_size": 32, "patch_size": 8}
RESNET = {"layers": [1, 1, 1, 1], "width": 16, "image_size": 64}
TEXT = {"layers": 3, "width": 32, "heads": 4, "vocab_size": 99, "context_length": 16}
HF_CLASSES = {"roberta": "RobertaModel", "xlm-roberta": "XLMRobertaModel", "mt5": "MT5Model", "nllb": "M2M100Model"}
"""By how the hub names of the packaged text towers begin."""
NOT_STRUCTURE = ("pretrained", "tokenizer", "timm_drop", "eos_id")
"""Options that say nothing of a tower's structure."""
SIZES = ("mci0", "tiny", "small", "medium", "base")
"""How timm calls the smaller ones of its models; the others are larger."""


def tower_names() -> list[str]:
    """`configuration/tower`, one for each kind of tower, the smallest of its kind."""
    from open_clip import get_model_config, list_models

    kinds: dict[tuple[str, str], str] = {}
    for name in sorted(list_models(), key=_size):
        config: dict[str, Any] = get_model_config(name)
        for tower in ("visual", "text"):
            kinds.setdefault((tower, _kind(config[f"{_section(tower)}_cfg"])), f"{name}/{tower}")
    return sorted(kinds.values())


def build(name: str) -> nn.Module:
    """A tower of a packaged configuration, its sizes shrunk; timm's trunks keep theirs."""
    from open_clip import get_model_config
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg, _build_text_tower, _build_vision_tower

    configuration, tower = name.rsplit("/", 1)
    given: dict[str, Any] = get_model_config(configuration)[f"{_section(tower)}_cfg"]
    cls = CLIPVisionCfg if tower == "visual" else CLIPTextCfg
    known = {field.name for field in dataclasses.fields(cls)}
    options = {key: value for key, value in given.items() if key in known}
    if "hf_model_name" in options:
        return _text_of_transformers(options)
    if "timm_model_name" not in options:
        small = TEXT if tower == "text" else RESNET if isinstance(options["layers"], list) else VISION
        options |= small
    build_tower = _build_vision_tower if tower == "visual" else _build_text_tower
    model: nn.Module = build_tower(EMBEDDING, cls(**options))
    return model


def _text_of_transformers(options: dict[str, Any]) -> nn.Module:
    """open_clip's wrapper around a text model of transformers, built from a folder that holds a configuration."""
    import transformers
    from open_clip.hf_model import HFTextEncoder

    from benchmarks.sweep.tiny_hf import shrunk

    hub_name = options["hf_model_name"].rsplit("/", 1)[-1]
    name = next(found for start, found in HF_CLASSES.items() if hub_name.startswith(start))
    config_class = getattr(transformers, name).config_class
    with tempfile.TemporaryDirectory() as folder:
        config_class(**shrunk(config_class, name)).save_pretrained(folder)
        model: nn.Module = HFTextEncoder(
            folder,
            output_dim=EMBEDDING,
            pooler_type=options.get("hf_pooler_type"),
            proj_type=options.get("hf_proj_type"),
            pretrained=False,
            output_tokens=options.get("output_tokens", False),
        )
    return model


def _section(tower: str) -> str:
    return "vision" if tower == "visual" else "text"


def _kind(config: dict[str, Any]) -> str:
    """Its options without sizes; of a timm or transformers model the family of its name."""
    kept: dict[str, Any] = {}
    for key, value in config.items():
        if any(word in key for word in NOT_STRUCTURE):
            continue
        if key in ("timm_model_name", "hf_model_name"):
            kept[key] = re.sub(r"[\W\d].*|_.*", "", value.rsplit("/", 1)[-1])
        elif key == "layers":
            kept[key] = isinstance(value, list)
        elif not isinstance(value, (int, float, list)) or isinstance(value, bool):
            kept[key] = value
        elif key not in ("width", "heads", "head_width", "vocab_size", "context_length", "image_size", "patch_size"):
            kept[key] = True
    return str(sorted(kept.items(), key=str))


def _size(name: str) -> tuple[int, str]:
    from open_clip import get_model_config

    trunk = str(get_model_config(name)["vision_cfg"].get("timm_model_name", SIZES[0]))
    return next((place for place, word in enumerate(SIZES) if word in trunk), len(SIZES)), name
