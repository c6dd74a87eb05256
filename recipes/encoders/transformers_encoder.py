"""Encoders of transformers: from a folder or the hub, and again from a run folder."""

from __future__ import annotations

import json
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mi2p_inject.adapters.adapter import Modality
from mi2p_inject.core.model_folder import check_buildable, checked_folder, hub_folder
from mi2p_inject.recipes.encoders.encoder import Encoder, adapter_of
from mi2p_inject.recipes.encoders.preprocess import ImageSpec, TextSpec
from mi2p_inject.recipes.encoders.tokenizers import load_tokenizer, longest
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["load_transformers", "processor_spec", "rebuild_transformers"]

_TOWERS: dict[Modality, str] = {"image": "VisionModel", "text": "TextModel"}
_PIL_MODES = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


def load_transformers(identifier: str, modality: Modality, pretrained: bool, image_size: int | None) -> Encoder:
    """The model in a folder or hub repository; of two towers the one that is meant. Always in float32.

    Args:
        identifier: a folder or a hub id.
        modality: "image" or "text".
        pretrained: load its weights.
        image_size: side in pixels; None: its own.
    """
    folder = Path(identifier) if Path(identifier).is_dir() else hub_folder(identifier, weights=pretrained)
    with checked_folder(folder, "transformers", weights=pretrained) as staged:
        if not (staged / "config.json").is_file():
            raise RecipeError(f"{identifier} has no config.json", fix="name the folder that save_pretrained wrote")
        model, kwargs = _model(staged, modality, pretrained)
        adapter_of(model, modality, identifier)
        origin = {
            "library": "transformers",
            "name": identifier.rstrip("/").rpartition("/")[2],
            "class": type(model).__name__,
            **({"kwargs": kwargs} if kwargs else {}),
        }
        spec: ImageSpec | TextSpec
        if modality == "image":
            spec = processor_spec(_processor(staged, identifier), image_size)
        else:
            tokenizer = load_tokenizer(staged, identifier)
            spec = TextSpec(tokenizer, longest(tokenizer, model))
        return Encoder(model, modality, spec, origin, random=not pretrained)


def _model(staged: Path, modality: Modality, pretrained: bool) -> tuple[nn.Module, dict[str, bool]]:
    """The model, and what its class was given beside the configuration."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(staged, trust_remote_code=False, local_files_only=True)
    cls: Any = transformers.AutoModel
    if hasattr(config, "text_config") and hasattr(config, "vision_config"):  # two towers: take the one that is meant
        cls = getattr(transformers, type(config).__name__.removesuffix("Config") + _TOWERS[modality])
        config = config.vision_config if modality == "image" else config.text_config
    build = cls if cls is not transformers.AutoModel else transformers.AutoModel.from_config
    check_buildable(lambda: build(config), staged)
    if not pretrained:
        return build(config).float(), {}
    kwargs: dict[str, bool] = {}
    model, missing = _read(cls, staged, kwargs)
    if any(_of_pooler(key) for key in missing) and "add_pooling_layer" in signature(type(model)).parameters:
        # one at random is worse than none, and would train at the encoder's rate, or be frozen with it
        kwargs = {"add_pooling_layer": False}
        model, missing = _read(cls, staged, kwargs)
    return model.float(), kwargs


def _read(cls: Any, staged: Path, kwargs: dict[str, bool]) -> tuple[nn.Module, list[str]]:
    """A model with its stored weights, and which ones the files lack: nothing but a pooler's."""
    # `precision` of the training decides, not the file
    model, report = cls.from_pretrained(
        staged,
        dtype=torch.float32,
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
        output_loading_info=True,
        **kwargs,
    )
    missing = sorted(report["missing_keys"])
    needed = [key for key in missing if not _of_pooler(key)]
    if needed:
        raise RecipeError(
            f"the weights lack {len(needed)} tensors of {type(model).__name__}, such as {', '.join(needed[:3])}",
            expected="the weights of this model: else it would start at random there",
            given=f"others, such as {', '.join(sorted(report['unexpected_keys'])[:3]) or 'none'}",
            fix="put the config.json beside the weights that it was saved with",
        )
    return model, missing


def _of_pooler(key: str) -> bool:
    return "pooler" in key


def _processor(staged: Path, identifier: str) -> Any:
    import transformers

    if not any((staged / f"{kind}_config.json").is_file() for kind in ("preprocessor", "processor")):
        raise RecipeError(
            f"{identifier} does not say how pictures are prepared",
            expected="preprocessor_config.json",
            given=", ".join(sorted(path.name for path in staged.iterdir())),
            fix="save the model's image processor into its folder: AutoImageProcessor...save_pretrained(folder)",
        )
    return transformers.AutoImageProcessor.from_pretrained(staged, trust_remote_code=False, local_files_only=True)


def processor_spec(processor: Any, image_size: int | None) -> ImageSpec:
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


def rebuild_transformers(origin: dict[str, Any], staged: Path, device: str) -> nn.Module:
    """The model that a run folder describes, with random weights.

    Args:
        origin: its description; checked here.
        staged: a checked folder with its config.json.
        device: where to build it.

    Raises:
        RecipeError: the class is none of transformers' models.
    """
    import transformers

    cls: Any = getattr(transformers, str(origin["class"]), None)
    is_model = isinstance(cls, type) and issubclass(cls, transformers.PreTrainedModel)
    if not is_model or cls.config_class is None:
        raise RecipeError(
            f"{str(origin['class'])[:80]} is no model class of transformers",
            fix="install the version of transformers that run.json names",
        )
    kwargs = origin.get("kwargs", {})
    if not set(kwargs) <= {"add_pooling_layer"} or not all(isinstance(one, bool) for one in kwargs.values()):
        raise RecipeError(
            f"unknown arguments of {cls.__name__}: {str(kwargs)[:100]}",
            expected="add_pooling_layer",
            fix="copy the run folder again",
        )
    config = cls.config_class.from_dict(json.loads((staged / "config.json").read_text(encoding="utf-8")))
    with torch.device(device):
        model: nn.Module = cls(config, **kwargs)
    return model
