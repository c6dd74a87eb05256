"""How much of a split's texts the text encoder reads."""

from __future__ import annotations

from collections.abc import Mapping

from mi2p_inject.adapters.adapter import Modality
from mi2p_inject.recipes.data import Samples
from mi2p_inject.recipes.encoders.encoder import Encoder
from mi2p_inject.recipes.encoders.preprocess import TextSpec

__all__ = ["text_notes"]

#: texts that are looked at
_MOST = 256
_NAMES = {"train": "training"}


def text_notes(encoders: Mapping[Modality, Encoder], samples: Samples, split: str = "train") -> tuple[str, ...]:
    """A line where some of a split's first texts are cut, for they have more tokens than ``max_length``.

    Args:
        encoders: modality -> encoder, of what is trained.
        samples: the data.
        split: which one.
    """
    spec = encoders["text"].spec if "text" in encoders else None
    if not isinstance(spec, TextSpec):
        return ()
    rows = samples.splits[split]
    texts = [text for text in rows.select_columns("text")[:_MOST]["text"] if text and text.strip()]
    cut = sum(spec.cuts(texts)) if texts else 0
    if not cut:
        return ()
    looked = f"{cut} of {'the first ' if len(rows) > _MOST else ''}{len(texts)} {_NAMES.get(split, split)} texts"
    return (f"{looked} have more than max_length={spec.max_length} tokens: what is beyond is not read",)
