"""What of an open_clip folder's ``open_clip_config.json`` may reach open_clip."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from mi2p_inject.core.errors import ZooError
from mi2p_inject.core.model_folder.timm import checked_architecture
from mi2p_inject.core.model_folder.values import checked_fields, clean, is_word

__all__ = ["checked_model_cfg", "open_clip_config"]

#: what stands for "the tokenizer in this folder" and "the text model in this folder"
_HERE = "here"
_TOP = ("embed_dim", "quick_gelu", "custom_text", "init_logit_scale", "init_logit_bias", "nonscalar_logit_scale")
_CONFIGS = {"vision_cfg": "CLIPVisionCfg", "text_cfg": "CLIPTextCfg", "multimodal_cfg": "MultimodalCfg"}
_TOKENIZER = {
    "clean": lambda one: one in ("canonicalize", "lower", "whitespace"),
    "strip_sep_token": lambda one: isinstance(one, bool),
    "context_length": lambda one: isinstance(one, int) and 0 < one <= 2**20,
    "language": is_word,
}
_PREPROCESS = ("size", "mode", "mean", "std", "interpolation", "resize_mode", "fill_color")


def open_clip_config(config: Mapping[str, Any], where: str, text_model: str | None) -> dict[str, Any]:
    """``open_clip_config.json`` with the model's sizes and preprocessing alone.

    Args:
        config: from JSON.
        where: for messages.
        text_model: folder of the configuration of a transformers text tower; None: there is none.

    Raises:
        ZooError: an unknown key, one that names another repository, a wrong value.
    """
    dropped: list[str] = []
    preprocess = clean(config.get("preprocess_cfg") or {}, lambda key: key in _PREPROCESS, where, dropped)
    return {
        "model_cfg": checked_model_cfg(config.get("model_cfg"), where, text_model),
        "preprocess_cfg": {key: one for key, one in preprocess.items() if key in _PREPROCESS},
    }


def checked_model_cfg(model_cfg: Any, where: str, text_model: str | None = None) -> dict[str, Any]:
    """The configuration of an open_clip model, all of its keys known.

    Args:
        model_cfg: from JSON.
        where: for messages.
        text_model: folder of the configuration of a transformers text tower; None: there is none.

    Raises:
        ZooError: an unknown key, one that names another repository, a wrong value.
    """
    import open_clip.coca_model
    import open_clip.model

    fields = {name: lambda _: True for name in _TOP} | {name: lambda one: isinstance(one, dict) for name in _CONFIGS}
    checked_fields(model_cfg, fields, f"{where}: model_cfg", needed=("embed_dim", "vision_cfg", "text_cfg"))
    dropped: list[str] = []
    kept = clean({key: model_cfg[key] for key in _TOP if key in model_cfg}, lambda _: True, where, dropped)
    for name, cls in _CONFIGS.items():
        if name in model_cfg:
            module = open_clip.coca_model if name == "multimodal_cfg" else open_clip.model
            known = {field.name for field in dataclasses.fields(getattr(module, cls))}
            kept[name] = _tower(model_cfg[name], known, f"{where}: {name}", text_model, dropped)
    if dropped:
        raise ZooError(
            f"{where} has keys that could name other code or files",
            expected="an open_clip model's configuration",
            given=", ".join(dropped)[:300],
            fix="take it from where it was written",
        )
    return kept


def _tower(
    config: Mapping[str, Any], known: set[str], where: str, text_model: str | None, dropped: list[str]
) -> dict[str, Any]:
    given = dict(config)
    tokenizer = checked_fields(given.pop("tokenizer_kwargs", None) or {}, _TOKENIZER, f"{where}: tokenizer_kwargs")
    named, tokenizer_name = given.pop("hf_model_name", None), given.pop("hf_tokenizer_name", None)
    if (trunk := given.get("timm_model_name")) is not None:
        checked_architecture(trunk)
    if unknown := [str(key) for key in given if key not in known]:
        dropped += unknown
    kept = clean({key: one for key, one in given.items() if key in known}, lambda _: True, where, dropped)
    if named and text_model is None:
        raise ZooError(
            f"{where} names a text model of transformers, {str(named)[:80]!r}, which is not in the folder",
            expected="its config.json beside open_clip_config.json",
            given="a name of another repository, which is not followed",
            fix="put the config.json of that model into the folder",
        )
    if named:
        kept |= {"hf_model_name": text_model, "hf_model_pretrained": False}
    if tokenizer_name:
        kept["hf_tokenizer_name"] = _HERE
    if tokenizer:
        kept["tokenizer_kwargs"] = tokenizer
    if "timm_model_pretrained" in kept:
        kept["timm_model_pretrained"] = False
    return kept
