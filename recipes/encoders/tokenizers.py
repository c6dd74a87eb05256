"""Tokenizers from checked folders, and whether they can read anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mi2p_inject.core.model_folder.stage import DATA_FILES
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["check_reads", "load_tokenizer", "longest", "require_vocabulary"]

_MOST_GROWTH, _MOST_ADDED = 256, 4096
#: letters of several scripts, digits, the four bases: a vocabulary of any kind knows some of them
_PROBES = ("the quick brown fox jumps over a lazy dog", "0 1 2 3 4 5 6 7 8 9", "ACGT MKTV", "Привет", "你好", "مرحبا")


def load_tokenizer(staged: Path, name: str) -> Any:
    """transformers' tokenizer in a checked folder, with a padding token.

    Args:
        staged: by `mi2p_inject.core.model_folder.checked_folder`.
        name: of the encoder, for messages.

    Raises:
        RecipeError: there is no vocabulary, or one that knows nothing.
    """
    import transformers

    require_vocabulary(staged, name)
    tokenizer = transformers.AutoTokenizer.from_pretrained(staged, trust_remote_code=False, local_files_only=True)
    if tokenizer.pad_token is None:  # decoders' tokenizers have none; masked positions may hold any
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    check_reads(tokenizer, name)
    return tokenizer


def require_vocabulary(staged: Path, name: str) -> None:
    """Without a vocabulary file transformers makes a tokenizer that knows its special tokens only.

    Raises:
        RecipeError: there is neither a vocabulary nor a tokenizer_config.json (some classes need no vocabulary).
    """
    if any((staged / file).is_file() for file in (*DATA_FILES, "tokenizer_config.json")):
        return
    raise RecipeError(
        f"{name} has no tokenizer",
        expected="tokenizer.json, or vocab.txt, ... beside the weights",
        given=", ".join(sorted(path.name for path in staged.iterdir())),
        fix="save the tokenizer that the model was trained with into its folder: tokenizer.save_pretrained(folder)",
    )


def check_reads(tokenizer: Any, name: str) -> None:
    """Refuse a tokenizer for which every text is unknown: a model cannot learn from that, and nothing would say so.

    Raises:
        RecipeError: no letter, digit or sign of several scripts has a token of its own.
    """
    _check_growth(tokenizer, name)
    unknown = tokenizer.unk_token_id
    for probe in _PROBES:
        if any(one != unknown for one in tokenizer(probe, add_special_tokens=False)["input_ids"]):
            return
    raise RecipeError(
        f"the tokenizer of {name} knows no word: every text becomes {tokenizer.unk_token or 'nothing'}",
        expected="the vocabulary that the model was trained with",
        given=f"{len(tokenizer)} tokens",
        fix="save the right tokenizer into the model's folder: tokenizer.save_pretrained(folder)",
    )


def _check_growth(tokenizer: Any, name: str) -> None:
    """Refuse a tokenizer.json whose replacements, one after the other, make a book of each letter.

    Raises:
        RecipeError: it is such a one.
    """
    backend = getattr(getattr(tokenizer, "backend_tokenizer", None), "normalizer", None)
    if backend is None:
        return
    grows, adds = _growth(json.loads(backend.__getstate__()))
    if grows > _MOST_GROWTH or adds > _MOST_ADDED:
        raise RecipeError(
            f"the tokenizer of {name} makes texts grow beyond reason",
            expected=f"at most {_MOST_GROWTH} times as long, and {_MOST_ADDED} characters before them",
            given=f"{grows:g} times as long, {adds:g} characters before them",
            fix="save the tokenizer that the model was trained with into its folder",
        )


def _growth(normalizer: Any) -> tuple[float, float]:
    """By how much a normaliser of a tokenizer.json makes a text longer: times, and characters added once."""
    kind = normalizer.get("type") if isinstance(normalizer, dict) else None
    if kind == "Sequence":
        grows, adds = 1.0, 0.0
        for times, more in map(_growth, normalizer.get("normalizers") or ()):
            grows, adds = grows * times, adds * times + more
        return grows, adds
    if kind == "Prepend":
        return 1.0, float(len(normalizer.get("prepend") or ""))
    if kind == "Replace":
        replaced, content = (normalizer.get("pattern") or {}).get("String"), len(normalizer.get("content") or "")
        # an expression, or nothing, is found between any two characters
        return (max(1.0, content / len(replaced)) if replaced else 1.0 + content), 0.0
    return 1.0, 0.0


def longest(tokenizer: Any, model: Any) -> int:
    """The model's limit in tokens; RoBERTa and its kin count their positions from the padding id on."""
    positions = getattr(model.config, "max_position_embeddings", None) or 1_000_000
    table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    offset = 0 if padding is None else padding + 1
    return int(min(tokenizer.model_max_length, positions - offset if positions > 0 else 1_000_000))
