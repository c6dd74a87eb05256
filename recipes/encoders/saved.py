"""An encoder in a run folder, without its weights, and back: nothing executes from what is read here."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from torch import nn

from mi2p_inject.adapters.adapter import Modality, Pooling
from mi2p_inject.core.errors import Mi2pError
from mi2p_inject.core.model_folder import bounded, check_size, checked_fields, checked_folder, own_file, read_json
from mi2p_inject.core.model_folder.transformers import model_config, tokenizer_config
from mi2p_inject.recipes.encoders.encoder import Encoder, Expansion
from mi2p_inject.recipes.encoders.libraries import REBUILDERS
from mi2p_inject.recipes.encoders.load import finished
from mi2p_inject.recipes.encoders.open_clip_encoder import check_context, open_clip_tokenizer
from mi2p_inject.recipes.encoders.preprocess import ImageSpec, TextSpec
from mi2p_inject.recipes.encoders.tokenizers import load_tokenizer, longest
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.units import UNITS
from mi2p_inject.units.base import options_as_saved

__all__ = ["rebuild_encoder", "save_encoder"]

_DESCRIPTION = "encoder.json"
_MOST_SITES = 10_000
_MAX_BYTES = 2**37  # of an encoder's weights: 128 GiB


def save_encoder(encoder: Encoder, folder: Path, expansion: Expansion | None = None) -> None:
    """Write what `rebuild_encoder` needs, all but the weights: JSON and the tokenizer's own files.

    Args:
        encoder: as it was trained.
        folder: a new one.
        expansion: how it was expanded; None: it was not.
    """
    folder.mkdir(parents=True)
    description: dict[str, Any] = {"origin": encoder.origin, "pooling": encoder.pooling, "random": encoder.random}
    description["expansion"] = None if expansion is None else asdict(expansion)
    if isinstance(encoder.spec, ImageSpec):
        description["image"] = encoder.spec.to_json()
    else:
        description["text"] = {"max_length": encoder.spec.max_length, "fixed": encoder.spec.fixed}
        tokenizer = getattr(encoder.spec.tokenizer, "tokenizer", encoder.spec.tokenizer)
        if hasattr(tokenizer, "save_pretrained"):  # open_clip's own one has no files
            tokenizer.save_pretrained(folder)
            _rewrite(folder / "tokenizer_config.json", tokenizer_config)
    config: Any = getattr(encoder.model, "config", None)
    if hasattr(config, "to_json_string"):
        (folder / "config.json").write_text(config.to_json_string(use_diff=False), encoding="utf-8")
        _rewrite(folder / "config.json", model_config)
    (folder / _DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def _rewrite(path: Path, keep: Any) -> None:
    """A file with what `checked_folder` lets through."""
    kept = keep(json.loads(path.read_text(encoding="utf-8")), str(path), [])
    path.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


def rebuild_encoder(folder: Path, modality: Modality, *, max_bytes: int = _MAX_BYTES) -> Encoder:
    """The encoder that `save_encoder` described, with random weights.

    Args:
        folder: may come from a stranger: what names code, other files or repositories is refused.
        modality: "image" or "text".
        max_bytes: of its parameters in float32, such as the size of the files that hold the weights.

    Raises:
        RecipeError: the folder is damaged, names what it must not, is larger than it says, or the installed libraries
            cannot build the model.
    """
    try:
        description = _description(folder, modality)
        origin = description["origin"]
        with checked_folder(
            folder, "open_clip" if origin["library"] == "open_clip" else "transformers", weights=False, strict=True
        ) as staged:
            rebuild = REBUILDERS[origin["library"]]
            with bounded(max_bytes):
                empty = rebuild(origin, staged, "meta")
            check_size(empty, max_bytes)
            model = rebuild(origin, staged, "cpu")
            spec: ImageSpec | TextSpec
            if modality == "image":
                spec = ImageSpec.from_json(description["image"])
            else:
                tokenizer = (
                    open_clip_tokenizer(origin["model_cfg"], staged, origin["name"])
                    if origin["library"] == "open_clip"
                    else load_tokenizer(staged, origin["name"])
                )
                spec = TextSpec(tokenizer, **description["text"])
                _check_text(spec, model, origin["library"])
        return finished(
            Encoder(
                model,
                modality,
                spec,
                origin,
                description["pooling"],
                random=description["random"],
                expansion=_expansion(description["expansion"]),
            ),
            origin["name"],
        )
    except Exception as error:
        shown = str(error) if isinstance(error, Mi2pError) else f"{type(error).__name__}: {error}"
        raise RecipeError(
            f"cannot rebuild the {modality} encoder from {folder}: {shown}",
            expected="the files that `mi2p train` wrote",
            fix="copy the run folder again; install the library versions that its run.json names",
        ) from error


def _check_text(spec: TextSpec, model: nn.Module, library: str) -> None:
    """That ids are made as the library makes them, and never more than the model has positions for."""
    if spec.fixed != (library == "open_clip"):
        raise RecipeError(
            "the description's texts are those of another library",
            expected=f"fixed: {str(library == 'open_clip').lower()}",
            given=f"fixed: {str(spec.fixed).lower()}",
            fix="copy the run folder again",
        )
    if spec.fixed:
        check_context(model, spec.max_length)
    elif spec.max_length > (most := longest(spec.tokenizer, model)):
        raise RecipeError(
            "the description's text length is beyond what its model reads",
            expected=f"at most {most:,} tokens",
            given=f"{spec.max_length:,}",
            fix="copy the run folder again",
        )


def _description(folder: Path, modality: Modality) -> dict[str, Any]:
    """``encoder.json``, every field checked but those that the libraries' own checks know: kwargs and model_cfg."""
    value = read_json(own_file(folder, _DESCRIPTION))
    kind = "image" if modality == "image" else "text"
    fields = {
        "origin": lambda one: isinstance(one, dict),
        "pooling": lambda one: one is None or one in get_args(Pooling),
        "random": lambda one: isinstance(one, bool),
        "expansion": lambda one: one is None or isinstance(one, dict),
        kind: lambda one: isinstance(one, dict),
    }
    where = str(folder / _DESCRIPTION)
    checked_fields(value, fields, where, needed=fields)
    library = value["origin"].get("library")
    if library not in _ORIGINS:
        raise RecipeError(
            f"{str(library)[:80]!r} is no library of encoders",
            expected=", ".join(_ORIGINS),
            fix="copy the run folder again",
        )
    checked_fields(value["origin"], _ORIGINS[library], f"{where}: origin", needed={*_ORIGINS[library]} - {"kwargs"})
    if (expansion := value["expansion"]) is not None:
        checked_fields(expansion, _EXPANSION, f"{where}: expansion", needed=_EXPANSION)
    sizes = _IMAGE if kind == "image" else _TEXT
    checked_fields(value[kind], sizes, f"{where}: {kind}", needed=sizes)
    return value


def _expansion(stored: dict[str, Any] | None) -> Expansion | None:
    """As it was; options that came after it was saved as they were before."""
    if stored is None:
        return None
    kind, options = stored["kind"], stored["options"]
    return Expansion(
        tuple(stored["layers"]), kind, options_as_saved(UNITS[kind], options) if kind in UNITS else options
    )


def _text(one: Any) -> bool:
    return isinstance(one, str) and 0 < len(one) <= 200 and one.isprintable()


def _is_option(one: Any) -> bool:
    return one is None or isinstance(one, (bool, int, str)) or (isinstance(one, float) and math.isfinite(one))


def _object(one: Any) -> bool:
    return isinstance(one, dict)


def _three(least: float) -> Any:
    return lambda one: (
        isinstance(one, list)
        and len(one) == 3
        and all(isinstance(x, (int, float)) and math.isfinite(x) and least <= x <= 255 for x in one)
    )


_NAMED: dict[str, Any] = {"library": _text, "name": _text}
_ORIGINS: dict[str, dict[str, Any]] = {
    "timm": {**_NAMED, "kwargs": _object},
    "transformers": {**_NAMED, "class": _text, "kwargs": _object},
    "open_clip": {
        **_NAMED,
        "tower": _text,
        "model_cfg": _object,
        "image_size": lambda one: one is None or type(one) is int,
    },
}
_EXPANSION: dict[str, Any] = {
    "layers": lambda one: isinstance(one, list) and 0 < len(one) <= _MOST_SITES and all(map(_text, one)),
    "kind": _text,
    "options": lambda one: isinstance(one, dict) and all(map(_is_option, one.values())),
}
_IMAGE: dict[str, Any] = {
    "size": lambda one: isinstance(one, list) and len(one) == 2 and all(type(x) is int and 1 <= x <= 8192 for x in one),
    "mean": _three(-255),
    "std": _three(1e-6),
    "interpolation": lambda one: one in ("bicubic", "bilinear", "nearest", "lanczos", "random"),
    "crop_pct": lambda one: isinstance(one, (int, float)) and 0.01 <= one <= 2,
    "crop_mode": lambda one: one in ("center", "squash", "border"),
}
_TEXT: dict[str, Any] = {
    "max_length": lambda one: type(one) is int and 1 <= one <= 2**40,
    "fixed": lambda one: isinstance(one, bool),
}
