"""The words of a text, and which tokens are whose: numbers of word pieces are joined to numbers of words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mi2p_inject.recipes.characters import decodable
from mi2p_inject.recipes.encoders.preprocess import TextSpec
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["Words", "words_of"]

Floats = NDArray[np.float64]
NOBODY = -1


@dataclass(frozen=True)
class Words:
    """Words between blanks, those that were not cut off.

    Attributes:
        words: as written.
        of_token: for each token that the encoder reads, the number of its word; -1 for tokens of no word, such as
            [CLS] and [SEP].

    Examples:
        >>> joined, others = Words(("a", "cat"), (-1, 0, 1, 1, -1)).summed(np.array([9.0, 1.0, 2.0, 3.0, 9.0]))
        >>> joined.tolist(), float(others)
        ([1.0, 5.0], 18.0)
    """

    words: tuple[str, ...]
    of_token: tuple[int, ...]

    def summed(self, of_tokens: NDArray[Any]) -> tuple[Floats, Floats]:
        """Sums over each word's tokens, along the first axis, and the sum over tokens of no word."""
        numbers = np.asarray(of_tokens, dtype=np.float64)
        joined = np.zeros((len(self.words) + 1, *numbers.shape[1:]))
        np.add.at(joined, list(self.of_token), numbers)  # -1 is the last one
        return joined[:-1], joined[-1]

    def averaged(self, of_tokens: NDArray[Any]) -> Floats:
        """Means over each word's tokens, along the first axis."""
        count = np.bincount([one for one in self.of_token if one != NOBODY], minlength=len(self.words))
        sums = self.summed(of_tokens)[0]
        return np.asarray(sums / count.reshape(-1, *[1] * (sums.ndim - 1)))


def words_of(text: str, spec: TextSpec) -> Words:
    """The words of one text as an encoder reads it.

    Raises:
        RecipeError: there is none, or this tokenizer does not tell which characters a token stands for.
    """
    text = decodable(text).strip()
    ids = [int(one) for one in spec([text])["input_ids"][0]]
    inner = getattr(spec.tokenizer, "tokenizer", spec.tokenizer)
    if getattr(inner, "is_fast", False):
        spans, owner = _by_offsets(text, spec, inner, ids)
    elif hasattr(spec.tokenizer, "encode") and spec.fixed:
        spans, owner = _by_counts(text, spec)
    else:
        raise RecipeError(
            "this tokenizer does not tell which characters a token stands for",
            expected="a fast tokenizer of transformers, or open_clip's own",
            given=type(inner).__name__,
            fix="save the text model's fast tokenizer (tokenizer.json) beside it and train again",
        )
    owner = [*owner, *[NOBODY] * (len(ids) - len(owner))][: len(ids)]
    kept = sorted(set(owner) - {NOBODY})
    if not kept:
        raise RecipeError(
            "the text has no word that the model reads", expected="a word", given=repr(text), fix="give another text"
        )
    place = {old: new for new, old in enumerate(kept)}
    return Words(tuple(spans[one] for one in kept), tuple(place.get(one, NOBODY) for one in owner))


def _by_offsets(text: str, spec: TextSpec, tokenizer: Any, ids: list[int]) -> tuple[list[str], list[int]]:
    clean = getattr(spec.tokenizer, "clean_fn", None)  # open_clip's wrapper cleans first
    text = clean(text) if spec.fixed and callable(clean) else text
    encoded = tokenizer(text, truncation=True, max_length=spec.max_length, return_offsets_mapping=True)
    if list(encoded["input_ids"]) != ids[: len(encoded["input_ids"])]:
        raise RecipeError(
            "the text's tokens cannot be matched with its characters",
            expected="the tokens that the encoder reads",
            given=type(spec.tokenizer).__name__,
            fix="explain with another text encoder",
        )
    chunks = [(one.start(), one.end()) for one in re.finditer(r"\S+", text)]
    owner = []
    for start, end in encoded["offset_mapping"]:
        overlap = [min(end, last) - max(start, first) for first, last in chunks]
        best = int(np.argmax(overlap)) if overlap else NOBODY
        owner.append(best if best != NOBODY and overlap[best] > 0 else NOBODY)
    return [text[first:last] for first, last in chunks], owner


def _by_counts(text: str, spec: TextSpec) -> tuple[list[str], list[int]]:
    """open_clip's own tokenizer reads words one by one, after one token that starts the text; one more ends it."""
    words, owner = text.split(), [NOBODY]
    for number, word in enumerate(words):
        owner += [number] * len(spec.tokenizer.encode(word))
    return words, owner[: spec.max_length - 1]
