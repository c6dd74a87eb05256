"""How each library builds an encoder from a name, and again from a run folder: a function each, gathered in tables."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mi2p_inject.adapters.adapter import Modality
from mi2p_inject.recipes.encoders.encoder import Encoder, row_of
from mi2p_inject.recipes.encoders.preprocess import ImageSpec, TextSpec
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["LOADERS", "REBUILDERS", "TOWERS", "saved_tokenizer"]

#: of open_clip
TOWERS: dict[Modality, str] = {"image": "visual", "text": "text"}
_HF_TOWERS: dict[Modality, str] = {"image": "VisionModel", "text": "TextModel"}
_PIL_MODES = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


def _timm(identifier: str, modality: Modality, pretrained: bool, image_size: int | None) -> Encoder:
    import timm
    from timm.data import resolve_model_data_config

    kwargs: dict[str, Any] = {}
    name = identifier
    if Path(identifier).is_dir():
        told = json.loads((Path(identifier) / "config.json").read_text(encoding="utf-8"))
        kwargs = {key: value for key, value in (told.get("model_args") or {}).items() if key != "num_classes"}
        name, identifier = told["architecture"], f"local-dir:{identifier}"
    elif "/" in identifier:
        identifier = f"hf-hub:{identifier}"
    if image_size and "img_size" in _settable(name if timm.is_model(name) else identifier):
        kwargs["img_size"] = image_size
    sized = {key: value for key, value in kwargs.items() if key == "img_size" or not pretrained}
    model: Any = timm.create_model(identifier, pretrained=pretrained, num_classes=0, **sized)
    told = resolve_model_data_config(model)
    size = (image_size, image_size) if image_size else tuple(told["input_size"][1:])
    spec = ImageSpec(
        size, tuple(told["mean"]), tuple(told["std"]), told["interpolation"], told["crop_pct"], told["crop_mode"]
    )
    architecture = model.pretrained_cfg.get("architecture", name)
    origin = {"library": "timm", "name": architecture, "kwargs": kwargs}
    return Encoder(model, modality, spec, origin, random=not pretrained)


def _settable(architecture: str) -> set[str]:
    """Whether a timm architecture has a fixed image size that can be set."""
    import timm

    with torch.device("meta"):
        model = timm.create_model(architecture, pretrained=False)
    return {"img_size"} if getattr(getattr(model, "patch_embed", None), "img_size", None) is not None else set()


def _transformers(identifier: str, modality: Modality, pretrained: bool, image_size: int | None) -> Encoder:
    import transformers

    config = transformers.AutoConfig.from_pretrained(identifier, trust_remote_code=False)
    cls: Any = transformers.AutoModel
    if hasattr(config, "text_config") and hasattr(config, "vision_config"):  # two towers: take the one that is meant
        cls = getattr(transformers, type(config).__name__.removesuffix("Config") + _HF_TOWERS[modality])
        config = config.vision_config if modality == "image" else config.text_config
    if pretrained:
        model = cls.from_pretrained(identifier, trust_remote_code=False)
    elif cls is transformers.AutoModel:
        model = cls.from_config(config, trust_remote_code=False)
    else:
        model = cls(config)
    row_of(model, modality, identifier)
    origin = {
        "library": "transformers",
        "name": identifier.rstrip("/").rpartition("/")[2],
        "class": type(model).__name__,
    }
    spec: ImageSpec | TextSpec
    if modality == "image":
        spec = _processor_spec(transformers.AutoImageProcessor.from_pretrained(identifier), image_size)
    else:
        tokenizer = transformers.AutoTokenizer.from_pretrained(identifier, trust_remote_code=False)
        spec = TextSpec(_padding(tokenizer), _longest(tokenizer, model))
    return Encoder(model, modality, spec, origin, random=not pretrained)


def _processor_spec(processor: Any, image_size: int | None) -> ImageSpec:
    """transformers' image processor as timm's data configuration: the same steps in other words."""
    size: Any = processor.size or {}
    crop: Any = processor.crop_size if getattr(processor, "do_center_crop", False) else None
    if edge := size.get("shortest_edge"):
        height = width = edge
    else:
        height, width = size.get("height", 224), size.get("width", 224)
    mode, crop_pct = ("center", 1.0) if edge else ("squash", 1.0)
    if crop and edge:
        cropped = crop.get("height", edge)
        crop_pct, height, width = cropped / edge, cropped, crop.get("width", cropped)
    if image_size:
        height = width = image_size
    if not getattr(processor, "do_rescale", True):
        raise RecipeError(
            f"{type(processor).__name__} does not scale pixels to 0..1, which this recipe does",
            fix="name an encoder of timm's or open_clip's",
        )
    scaled = getattr(processor, "do_normalize", True)
    mean, std = (tuple(processor.image_mean), tuple(processor.image_std)) if scaled else ((0.0,) * 3, (1.0,) * 3)
    interpolation = _PIL_MODES.get(int(getattr(processor, "resample", 3) or 3), "bicubic")
    return ImageSpec((height, width), mean, std, interpolation, crop_pct, mode)


def _open_clip(identifier: str, modality: Modality, pretrained: bool, image_size: int | None) -> Encoder:
    import open_clip

    name, _, tag = identifier.partition("@")
    source = f"local-dir:{name}" if Path(name).is_dir() else f"hf-hub:{name}" if "/" in name else name
    if pretrained and source == name and not tag:
        tags = open_clip.list_pretrained_tags_by_model(name)
        if not tags:
            raise RecipeError(f"open_clip lists no weights for {name}", fix="--set pretrained=false, or another model")
        tag = tags[0]
    sized = {"force_image_size": image_size} if image_size else {}
    clip: Any = open_clip.create_model(
        source,
        pretrained=tag or None if pretrained else None,
        load_weights=pretrained,
        pretrained_text=False,
        force_custom_text=True,
        **sized,
    )
    model_cfg = dict(open_clip.get_model_config(name) or {})
    if Path(name).is_dir():
        model_cfg = json.loads((Path(name) / "open_clip_config.json").read_text(encoding="utf-8"))["model_cfg"]
    elif not model_cfg:
        from open_clip.factory import _get_hf_config

        model_cfg = _get_hf_config(name)["model_cfg"]
    origin = {
        "library": "open_clip",
        "name": f"{Path(name).name}/{TOWERS[modality]}",
        "tower": TOWERS[modality],
        "model_cfg": model_cfg,
        "image_size": image_size,
    }
    spec: ImageSpec | TextSpec
    if modality == "image":
        told = clip.visual.preprocess_cfg
        size = told["size"] if isinstance(told["size"], (tuple, list)) else (told["size"],) * 2
        mode = {"squash": "squash", "longest": "border"}.get(told["resize_mode"], "center")
        spec = ImageSpec(tuple(size), tuple(told["mean"]), tuple(told["std"]), told["interpolation"], 1.0, mode)
    else:
        spec = TextSpec(open_clip.get_tokenizer(source), int(clip.text.context_length), fixed=True)
    model: nn.Module = getattr(clip, TOWERS[modality])
    return Encoder(model, modality, spec, origin, random=not pretrained)


def _demo(identifier: str, modality: Modality, pretrained: bool, image_size: int | None) -> Encoder:
    from mi2p_inject.recipes.encoders import demo_wheels as weights

    origin: dict[str, Any]
    if modality == "text":
        model, tokenizer = weights.minilm()
        origin = {
            "library": "transformers",
            "name": "all-MiniLM-L6-v2",
            "class": "BertModel",
            "kwargs": {"add_pooling_layer": False},
        }
        encoder = Encoder(model, modality, TextSpec(tokenizer, _longest(tokenizer, model)), origin, pooling="mean")
    else:
        network: Any = weights.efficientnet_lite0()
        network.reset_classifier(0)
        size = (image_size or 224,) * 2
        spec = ImageSpec(size, (weights.MEAN / 255,) * 3, (weights.STD / 255,) * 3, "bicubic")
        origin = {"library": "timm", "name": "tf_efficientnet_lite0", "kwargs": {}}
        encoder = Encoder(network, modality, spec, origin)
    return encoder


def _tiny(identifier: str, modality: Modality, pretrained: bool, image_size: int | None) -> Encoder:
    from mi2p_inject.recipes.encoders.tiny import tiny_encoder

    return tiny_encoder(identifier, modality, image_size)


#: library -> (name, modality, pretrained, image size) -> encoder
LOADERS = {"timm": _timm, "transformers": _transformers, "open_clip": _open_clip, "demo": _demo, "tiny": _tiny}


def _rebuild_timm(origin: dict[str, Any], folder: Path) -> nn.Module:
    import timm

    model: nn.Module = timm.create_model(origin["name"], pretrained=False, num_classes=0, **origin["kwargs"])
    return model


def _rebuild_transformers(origin: dict[str, Any], folder: Path) -> nn.Module:
    import transformers

    cls: Any = getattr(transformers, origin["class"])
    if not issubclass(cls, transformers.PreTrainedModel):
        raise RecipeError(f"{origin['class']} is no model class of transformers")
    config = cls.config_class.from_pretrained(folder)
    model: nn.Module = cls(config, **origin.get("kwargs", {}))
    return model


def _rebuild_open_clip(origin: dict[str, Any], folder: Path) -> nn.Module:
    import open_clip

    with tempfile.TemporaryDirectory() as local:
        Path(local, "open_clip_config.json").write_text(json.dumps({"model_cfg": origin["model_cfg"]}))
        sized = {"force_image_size": origin["image_size"]} if origin["image_size"] else {}
        clip = open_clip.create_model(
            f"local-dir:{local}", load_weights=False, pretrained_text=False, force_custom_text=True, **sized
        )
    model: nn.Module = getattr(clip, origin["tower"])
    return model


#: library -> (origin, folder) -> model with random weights
REBUILDERS = {"timm": _rebuild_timm, "transformers": _rebuild_transformers, "open_clip": _rebuild_open_clip}


def saved_tokenizer(origin: dict[str, Any], folder: Path) -> Any:
    """The tokenizer that `save_encoder` wrote."""
    if origin["library"] == "open_clip":
        from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

        if (folder / "tokenizer_config.json").is_file():
            return HFTokenizer(str(folder), **origin["model_cfg"]["text_cfg"].get("tokenizer_kwargs", {}))
        return SimpleTokenizer(**origin["model_cfg"]["text_cfg"].get("tokenizer_kwargs", {}))
    import transformers

    return _padding(transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True))


def _padding(tokenizer: Any) -> Any:
    """Decoders' tokenizers have no padding token; masked positions may hold any."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


def _longest(tokenizer: Any, model: Any) -> int:
    """The model's limit; RoBERTa counts its positions from the padding id on."""
    positions = getattr(model.config, "max_position_embeddings", None) or 1_000_000
    offset = (model.config.pad_token_id or 0) + 1 if "roberta" in type(model).__module__ else 0
    return int(min(tokenizer.model_max_length, positions - offset if positions > 0 else 1_000_000))
