"""Towers of open_clip: by name, from a folder or the hub, and again from a run folder."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from torch import nn

from mi2p_inject.adapters.adapter import Modality
from mi2p_inject.core.model_folder import check_buildable, checked_folder, checked_model_cfg, hub_folder
from mi2p_inject.recipes.encoders.encoder import Encoder
from mi2p_inject.recipes.encoders.preprocess import ImageSpec, TextSpec
from mi2p_inject.recipes.encoders.tokenizers import check_reads, require_vocabulary
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["TOWERS", "check_context", "load_open_clip", "open_clip_tokenizer", "rebuild_open_clip"]

_MOST_POSITIONS = 2**16
#: of open_clip
TOWERS: dict[Modality, str] = {"image": "visual", "text": "text"}
#: tower -> a small other one, which is built beside it and left
_OTHER: dict[str, dict[str, Any]] = {
    "visual": {"text_cfg": {"layers": 1, "width": 8, "heads": 1, "vocab_size": 8, "context_length": 8}},
    "text": {"vision_cfg": {"layers": 1, "width": 8, "head_width": 8, "patch_size": 8, "image_size": 8}},
}


def load_open_clip(identifier: str, modality: Modality, pretrained: bool, image_size: int | None) -> Encoder:
    """One tower of a model by name, or of that in a folder or hub repository.

    Args:
        identifier: ``name``, ``name@tag``, a folder or a hub id.
        modality: "image" or "text".
        pretrained: load its weights.
        image_size: side in pixels; None: its own.
    """
    import open_clip

    name, _, tag = identifier.partition("@")
    if name in open_clip.list_models() and not Path(name).is_dir():
        if pretrained and not tag:
            tags = open_clip.list_pretrained_tags_by_model(name)
            if not tags:
                raise RecipeError(
                    f"open_clip lists no weights for {name}", fix="--set pretrained=false, or another model"
                )
            tag = tags[0]
        model_cfg = dict(open_clip.get_model_config(name))
        clip = _create(name, image_size, pretrained, tag=tag)
        return _encoder(clip, name, modality, pretrained, image_size, model_cfg, lambda: open_clip.get_tokenizer(name))
    folder = Path(name) if Path(name).is_dir() else hub_folder(name, weights=pretrained)
    with checked_folder(folder, "open_clip", weights=pretrained) as staged:
        model_cfg = json.loads((staged / "open_clip_config.json").read_text(encoding="utf-8"))["model_cfg"]
        check_buildable(lambda: _create(f"local-dir:{staged}", image_size, False, device="meta"), staged)
        clip = _create(f"local-dir:{staged}", image_size, pretrained)
        tokenizer = lambda: open_clip_tokenizer(model_cfg, staged, name)  # noqa: E731
        return _encoder(clip, Path(name).name, modality, pretrained, image_size, model_cfg, tokenizer)


def _create(source: str, image_size: int | None, pretrained: bool, *, tag: str = "", device: str = "cpu") -> Any:
    import open_clip

    return open_clip.create_model(
        source,
        pretrained=tag or None if pretrained else None,
        load_weights=pretrained,
        pretrained_text=False,
        force_custom_text=True,
        device=device,
        **({"force_image_size": image_size} if image_size else {}),
    )


def _encoder(
    clip: Any,
    name: str,
    modality: Modality,
    pretrained: bool,
    image_size: int | None,
    model_cfg: dict[str, Any],
    tokenizer: Any,
) -> Encoder:
    from open_clip.tokenizer import SigLipTokenizer

    spec: ImageSpec | TextSpec
    if modality == "image":
        given = clip.visual.preprocess_cfg
        size = given["size"] if isinstance(given["size"], (tuple, list)) else (given["size"],) * 2
        mode = {"squash": "squash", "longest": "border"}.get(given["resize_mode"], "center")
        spec = ImageSpec(tuple(size), tuple(given["mean"]), tuple(given["std"]), given["interpolation"], 1.0, mode)
    else:
        spec = TextSpec(tokenizer(), int(clip.text.context_length), fixed=True)
        if isinstance(spec.tokenizer, SigLipTokenizer):  # what it does to a text, for `open_clip_tokenizer`
            kwargs = {"clean": "canonicalize"}
            model_cfg = {**model_cfg, "text_cfg": {**model_cfg["text_cfg"], "tokenizer_kwargs": kwargs}}
    origin = {
        "library": "open_clip",
        "name": f"{name}/{TOWERS[modality]}",
        "tower": TOWERS[modality],
        "model_cfg": model_cfg,
        "image_size": image_size,
    }
    model: nn.Module = getattr(clip, TOWERS[modality])
    return Encoder(model, modality, spec, origin, random=not pretrained)


def rebuild_open_clip(origin: dict[str, Any], staged: Path, device: str) -> nn.Module:
    """The tower that a run folder describes, with random weights.

    Args:
        origin: its description; checked here.
        staged: a checked folder; with a config.json, if the text tower is a model of transformers.
        device: where to build it.

    Raises:
        ZooError: an unknown key, or one that names another repository.
        RecipeError: no such tower.
    """
    text_model = str(staged) if (staged / "config.json").is_file() else None
    tower, image_size = origin["tower"], origin["image_size"]
    if tower not in TOWERS.values():
        raise RecipeError(
            f"{str(tower)[:80]!r} is no tower", expected=", ".join(TOWERS.values()), fix="copy the run folder again"
        )
    if not (image_size is None or (type(image_size) is int and 0 < image_size <= 8192)):
        raise RecipeError(
            f"an image size of {str(image_size)[:80]}",
            expected="1 to 8192 pixels, or null",
            fix="copy the run folder again",
        )
    if not isinstance(origin["model_cfg"], dict):
        raise RecipeError("the description of the encoder has no model_cfg", fix="copy the run folder again")
    model_cfg = {name: one for name, one in origin["model_cfg"].items() if name != "multimodal_cfg"}
    model_cfg |= _OTHER[tower]
    model_cfg = checked_model_cfg(model_cfg, "encoder.json", text_model)
    with tempfile.TemporaryDirectory() as local:
        Path(local, "open_clip_config.json").write_text(json.dumps({"model_cfg": model_cfg}), encoding="utf-8")
        with _meta(device):
            clip = _create(f"local-dir:{local}", image_size if tower == "visual" else None, False, device=device)
    model: nn.Module = getattr(clip, tower)
    return model


def _meta(device: str) -> Any:
    import torch

    return torch.device(device) if device != "cpu" else nullcontext()


def check_context(model: nn.Module, max_length: int) -> None:
    """Texts become as many ids as the text tower has positions.

    Raises:
        RecipeError: the description says otherwise, or of positions beyond reason.
    """
    context: Any = getattr(model, "context_length", None)
    if max_length != context or not 0 < max_length <= _MOST_POSITIONS:
        raise RecipeError(
            "the description's text length is not that of its model",
            expected=str(context),
            given=str(max_length),
            fix="copy the run folder again",
        )


def open_clip_tokenizer(model_cfg: Mapping[str, Any], staged: Path, name: str) -> Any:
    """The tokenizer of a checked folder: transformers' in open_clip's wrapper, or open_clip's own.

    Args:
        model_cfg: checked.
        staged: may hold the files of a tokenizer of transformers.
        name: of the encoder, for messages.

    Raises:
        RecipeError: a tokenizer of transformers is meant, and has no vocabulary.
    """
    from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

    text = model_cfg["text_cfg"]
    kwargs = dict(text.get("tokenizer_kwargs") or {})
    if not (staged / "tokenizer_config.json").is_file() and not text.get("hf_tokenizer_name"):
        kwargs = {key: one for key, one in kwargs.items() if key in ("clean", "context_length")}
        return SimpleTokenizer(**kwargs)
    require_vocabulary(staged, name)
    tokenizer = HFTokenizer(
        str(staged),
        tokenizer_mode=text.get("tokenizer_mode") or None,
        trust_remote_code=False,
        local_files_only=True,
        **kwargs,
    )
    check_reads(tokenizer.tokenizer, name)
    return tokenizer
