"""What of a transformers folder's JSON files may reach transformers."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

from mi2p_inject.core.errors import ZooError
from mi2p_inject.core.model_folder.timm import timm_config
from mi2p_inject.core.model_folder.values import clean, is_word

__all__ = ["model_config", "processor_config", "special_tokens", "tokenizer_config"]

#: says something about the checkpoint, nothing about the model; left out without a word
_BOOKKEEPING = frozenset(
    [
        "_name_or_path",
        "name_or_path",
        "_commit_hash",
        "transformers_version",
        "architectures",
        "dtype",
        "torch_dtype",
        "id2label",
        "label2id",
        "num_labels",
        "task_specific_params",
        "problem_type",
        "finetuning_task",
        "language",
        "tags",
        "_num_labels",
        "model_max_length",
        "tokenizer_class",
        "torchscript",
        "return_dict",
        "output_past",
        "model_type",
    ]
)
#: older names of options, which configuration classes still take
_LEGACY = frozenset(["rope_scaling", "rope_theta", "rope_type", "partial_rotary_factor", "hidden_act", "layer_types"])
_TOKEN_KEYS = frozenset(["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"])
_TOKENIZER_WORDS = frozenset(
    [
        "tokenizer_class",
        "backend",
        "padding_side",
        "truncation_side",
        "model_input_names",
        "errors",
        "src_lang",
        "tgt_lang",
        "language",
        "task",
        "target_lang",
        "word_delimiter_token",
        "truncation_strategy",
        "padding_strategy",
    ]
)
_TOKENIZER_IGNORED = frozenset(
    [
        "name_or_path",
        "special_tokens_map_file",
        "tokenizer_file",
        "chat_template",
        "processor_class",
        "is_local",
        "local_files_only",
        "model_max_length",
        "max_len",
    ]
)
_MOST_TOKENS, _LONGEST_TOKEN = 2**20, 1024
_MOST_EXTRA, _IDS = 2**13, "(^|_)(id|size|length)$"
_PROCESSOR = frozenset(
    [
        "image_processor_type",
        "feature_extractor_type",
        "size",
        "crop_size",
        "do_resize",
        "do_center_crop",
        "do_rescale",
        "do_normalize",
        "do_convert_rgb",
        "image_mean",
        "image_std",
        "resample",
        "rescale_factor",
        "crop_pct",
        "interpolation",
    ]
)


def model_config(config: Mapping[str, Any], where: str, dropped: list[str]) -> dict[str, Any]:
    """``config.json`` without what names code, files, repositories or a precision.

    Args:
        config: from JSON.
        where: for messages.
        dropped: names of keys that were left out and are no bookkeeping are appended.

    Raises:
        ZooError: no or an unknown ``model_type``; a number out of range.
    """
    import transformers

    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in transformers.CONFIG_MAPPING:
        custom = "auto_map" in config
        raise ZooError(
            f"{where}: no model of transformers is of the type {str(kind)[:80]!r}",
            expected="a model_type that the installed transformers knows",
            given="a model with code of its own, which is never run" if custom else str(kind)[:80],
            fix="build it in Python and inject() it"
            if custom
            else "install a newer transformers, or correct config.json",
        )
    return {**_by_class(config, transformers.CONFIG_MAPPING[kind], where, dropped), "model_type": kind}


def _by_class(config: Mapping[str, Any], cls: Any, where: str, dropped: list[str]) -> dict[str, Any]:
    """The keys that a configuration class takes; those of nested configurations by their own classes."""
    import transformers

    known = {name for one in cls.__mro__ if one is not object for name in inspect.signature(one.__init__).parameters}
    known |= _LEGACY | set(getattr(cls, "attribute_map", {}))
    nested: dict[str, Any] = {}
    plain = {key: one for key, one in config.items() if key not in _BOOKKEEPING}
    if "model_args" in known:  # timm's, wrapped: these reach timm's create_model
        shown = timm_config(plain, where)
        nested = {key: shown[key] for key in ("model_args", "pretrained_cfg", "architecture")}
        for key in (*nested, "num_classes", "label_names", "label_descriptions", "num_features"):
            plain.pop(key, None)
    for key in [key for key, one in plain.items() if isinstance(one, dict) and "config" in key]:
        below = plain.pop(key)
        sub = getattr(cls, "sub_configs", {}).get(key)
        kind = below.get("model_type")
        kind = kind if isinstance(kind, str) and kind in transformers.CONFIG_MAPPING else None
        sub = sub if kind is None else transformers.CONFIG_MAPPING[kind]
        if sub is None or not inspect.isclass(sub) or not issubclass(sub, transformers.PretrainedConfig):
            dropped.append(key)
        else:
            named = {} if kind is None else {"model_type": kind}
            nested[key] = {**_by_class(below, sub, f"{where}: {key}", dropped), **named}
    return {**clean(plain, known.__contains__, where, dropped), **nested}


def tokenizer_config(config: Mapping[str, Any], where: str, dropped: list[str]) -> dict[str, Any]:
    """``tokenizer_config.json`` without what names code or files.

    Args:
        config: from JSON.
        where: for messages.
        dropped: names of keys that were left out and are no bookkeeping are appended.

    Raises:
        ZooError: a token is no text, or there are too many.
    """
    tokens = special_tokens(config, where)
    rest = {key: one for key, one in config.items() if key not in tokens and key not in _TOKENIZER_IGNORED}
    kept = {**clean(rest, _TOKENIZER_WORDS.__contains__, where, dropped), **tokens}
    for key, one in kept.items():  # extra_ids, offset, num_madeup_words: so many tokens are made
        if isinstance(one, int) and abs(one) > _MOST_EXTRA and not re.search(_IDS, key):
            raise ZooError(
                f"{where}: {key} is out of range",
                expected=f"a number up to {_MOST_EXTRA:,}",
                given=str(one),
                fix="copy the folder again",
            )
    longest = config.get("model_max_length", config.get("max_len"))
    if isinstance(longest, (int, float)) and not isinstance(longest, bool) and longest > 0:
        kept["model_max_length"] = min(int(min(longest, 2.0**40)), 2**40)
    return kept


def special_tokens(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The entries that hold tokens: texts, or objects with a ``content``.

    Raises:
        ZooError: one is no text, or there are too many.
    """
    kept = {}
    for key, one in config.items():
        many = key in ("additional_special_tokens", "extra_special_tokens", "added_tokens_decoder", "never_split")
        if key not in _TOKEN_KEYS and not many and not (key.endswith("_token") and isinstance(one, (str, dict))):
            continue
        several = list(one.values()) if many and isinstance(one, dict) else one if isinstance(one, list) else [one]
        if len(several) > _MOST_TOKENS or not all(_is_token(token) for token in several):
            raise ZooError(
                f"{where}: {str(key)[:64]} holds no tokens",
                expected='"[SEP]", or {"content": "[SEP]", ...}',
                given=str(one)[:100],
                fix="copy the folder again",
            )
        kept[key] = one
    return kept


def _is_token(token: Any) -> bool:
    if isinstance(token, dict):
        flags = {key: one for key, one in token.items() if key not in ("content", "__type")}
        return (
            _is_token(token.get("content"))
            and token.get("__type", "AddedToken") == "AddedToken"
            and all(is_word(key) and (one is None or isinstance(one, (bool, int))) for key, one in flags.items())
        )
    return token is None or (isinstance(token, str) and len(token) <= _LONGEST_TOKEN)


def processor_config(config: Mapping[str, Any], where: str, dropped: list[str]) -> dict[str, Any]:
    """``preprocessor_config.json``, or ``processor_config.json`` with one inside.

    Args:
        config: from JSON.
        where: for messages.
        dropped: names of keys that were left out are appended.
    """
    if isinstance(inner := config.get("image_processor"), dict):
        return {"image_processor": processor_config(inner, where, dropped)}
    kept = clean(config, _PROCESSOR.__contains__, where, [])
    dropped += [key for key in config if key in ("auto_map", "trust_remote_code")]
    return {key: one for key, one in kept.items() if key in _PROCESSOR}
