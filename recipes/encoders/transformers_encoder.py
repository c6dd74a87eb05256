"""Encoders of transformers: from a folder or the hub, and again from a run folder."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from PIL import Image
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
_WHOLE = 384  # pixels of a side: from here on ConvNeXt takes the whole picture
_Colour = tuple[float, float, float]
_SEEN = 0.01  # of the range of a colour: what is no rounding


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
    """transformers' image processor as timm's data configuration: the same steps in other words.

    Args:
        processor: of transformers.
        image_size: side in pixels; None: its own.

    Raises:
        RecipeError: it gives other colours than any data configuration does, such as blue in the place of red.
    """
    height, width, crop_pct, mode = _geometry(processor)
    if image_size:
        height = width = image_size
    resample = getattr(processor, "resample", None)
    interpolation = "bicubic" if resample is None else _PIL_MODES.get(int(resample), "bicubic")
    spec = ImageSpec((height, width), *_colours(processor), interpolation, crop_pct, mode)
    _check_colours(processor, spec)
    return spec


def _geometry(processor: Any) -> tuple[int, int, float, str]:
    """Height and width of what the model reads, and how a picture gets there: `crop_pct` and `crop_mode`."""
    size: Any = processor.size or {}
    crop: Any = processor.crop_size if getattr(processor, "do_center_crop", False) else None
    edge = size.get("shortest_edge")
    if not edge:
        height, width = size.get("height", 224), size.get("width", 224)
        cropped = crop.get("height", height) if crop else height
        if not crop or cropped > height:  # Perceiver's crops before it resizes
            return height, width, 1.0, "squash"
        return cropped, crop.get("width", width), _part(cropped, height), "squash"
    share = getattr(processor, "crop_pct", None)  # of ConvNeXt, ResNet, PoolFormer: a picture is first made larger
    if share and not crop and edge >= _WHOLE:
        return edge, edge, 1.0, "squash"
    resized = int(256 / 224 * edge) if "Levit" in type(processor).__name__ else int(edge / (share or 1.0))
    height = crop.get("height", edge) if crop else edge
    return height, crop.get("width", height) if crop else edge, _part(height, resized), "center"


def _part(cropped: int, resized: int) -> float:
    """The `crop_pct` of which timm, which rounds down, makes just this size.

    Examples:
        >>> [int(cropped / _part(cropped, 235)) for cropped in (224, 225, 235)]
        [235, 235, 235]
    """
    part = cropped / resized
    return part if int(cropped / part) == resized else math.nextafter(part, 0)


def _colours(processor: Any) -> tuple[_Colour, _Colour]:
    """Mean and std on a scale of 0 to 1, whatever scale the processor has between."""
    if not getattr(processor, "do_rescale", True):
        raise RecipeError(
            f"{type(processor).__name__} does not scale pixels to 0..1, which this recipe does",
            fix="name an encoder of timm's or open_clip's",
        )
    twice = getattr(processor, "include_top", False)  # of EfficientNet, which divides by the std once more
    normalised = getattr(processor, "do_normalize", True)
    mean = _each(processor.image_mean) if normalised else (0.0, 0.0, 0.0)
    std = _each(processor.image_std) if normalised or twice else (1.0, 1.0, 1.0)
    if twice and normalised:
        std = _each([one * one for one in std])
    factor, offset = getattr(processor, "rescale_factor", None) or 1 / 255, getattr(processor, "rescale_offset", False)
    if not offset and math.isclose(factor, 1 / 255, rel_tol=1e-4):  # some files have 0.00392157
        return mean, std
    scale = 255 * factor
    return _each([(one + bool(offset)) / scale for one in mean]), _each([one / scale for one in std])


def _each(value: Any) -> _Colour:
    """A number for each colour; one stands for all three."""
    if not isinstance(value, Sequence) or len(value) != 3:
        value = (value[0] if isinstance(value, Sequence) and value else value,) * 3
    return value[0], value[1], value[2]


def _check_colours(processor: Any, spec: ImageSpec) -> None:
    """Refuse a processor that makes other numbers of a colour, whatever it is that it does."""
    colour, (height, width) = (200, 120, 40), spec.size
    try:
        given = processor(Image.new("RGB", (width, height), colour), return_tensors="pt")["pixel_values"]
    except Exception:  # one that asks for more than a picture says nothing here
        return
    if given.dim() != 4 or given.shape[1] != 3:
        return
    theirs = given[0, :, given.shape[2] // 2, given.shape[3] // 2].double().tolist()
    ours = [(one / 255 - mean) / std for one, mean, std in zip(colour, spec.mean, spec.std, strict=True)]
    if any(abs(one - other) * std > _SEEN for one, other, std in zip(ours, theirs, spec.std, strict=True)):
        raise RecipeError(
            f"{type(processor).__name__} prepares colours in a way that this recipe does not",
            expected=f"red, green, blue {colour} as {[round(one, 3) for one in ours]}",
            given=str([round(one, 3) for one in theirs]),
            fix="name an encoder of timm's or open_clip's",
        )


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
