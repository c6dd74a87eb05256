"""What an explanation holds: arrays, and a figure of them."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mi2p_inject.core.files.atomic_write import write_file
from mi2p_inject.recipes.characters import as_written
from mi2p_inject.recipes.errors import RecipeError

__all__ = [
    "FIGURE_ENDINGS",
    "BranchExplanation",
    "ChannelGroup",
    "Explanation",
    "check_figure_file",
    "figure_bytes",
    "save_figure",
]

Floats = NDArray[np.float64]

FIGURE_ENDINGS = (".png", ".pdf", ".svg")


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Channels of a picture model that attend to the same words.

    Attributes:
        channels: how many.
        words: (W,) the share of their attention that each word gets.
        rest: the share of tokens of no word, such as [CLS] and [SEP].
        map: (h, w) where they are active, as shares.
    """

    channels: int
    words: Floats
    rest: float
    map: Floats


@dataclass(frozen=True, eq=False)
class BranchExplanation:
    """What one expanded model of a run took from the other modality. None where a kind of unit has no such thing.

    Attributes:
        modality: what its backbone reads.
        unit: kind of its units.
        site: the last one that attends: attention is shown there, evidence is of all sites.
        spread: over how many of `keys` its attention is spread, on average over heads and queries: e to the entropy.
        keys: words' tokens, channels or pixels that it can attend to.
        word_attention: (W,) of a picture model, the share of attention that each word gets; of a text model None.
        rest_attention: the share of tokens of no word.
        word_maps: (W, h, w) of a text model: the channels that a word attends to more than evenly, over the picture; of
            a picture model: the channels that attend to a word more than evenly.
        word_evidence: (W,) to first order, in logits of the class: what each word takes from the picture (text model;
            gradient × attention), or what is taken from it (picture model; gradient × attention, or gradient × features
            where units do not attend).
        rest_evidence: the same of tokens of no word.
        evidence_map: (h, w) to first order, by place, in logits of the class: gradient × features of the source map
            (text model), the channels' gradient × attention spread over where they are active (picture model), or
            gradient × residual at the last site (picture model whose units do not attend).
        word_loss: (W,) of a picture model: logits of the class that are lost when it reads the text without this word:
            measured, one word at a time; None for more than 64 words, and for a text model.
        place_loss: (h, w) of a text model: logits of the class that are lost when this window of the picture that it
            reads is blurred: measured, one window at a time; None for a picture model.
        groups: of a picture model's channels.
    """

    modality: Literal["image", "text"]
    unit: str
    site: str | None
    spread: float | None
    keys: int | None
    word_attention: Floats | None
    rest_attention: float
    word_maps: Floats | None
    word_evidence: Floats | None
    rest_evidence: float
    evidence_map: Floats | None
    word_loss: Floats | None
    place_loss: Floats | None
    groups: tuple[ChannelGroup, ...] = ()


@dataclass(frozen=True, eq=False)
class Explanation:
    """One sample's answer, and what the expanded models in it took from the other modality.

    Attributes:
        image: (H, W, 3) uint8, the picture as the model sees it: resized and cropped.
        words: of the text, as far as the model reads it.
        target: the class that the evidence is about.
        probabilities: of each class.
        without: probability of `target` without the text, without the image and without columns, where the model
            allows it.
        branches: one for each expanded model.
        column_loss: column -> logits of the class that are lost where its cell is missing: measured, one column at a
            time; {} where no columns are read.
        cells: column -> its cell as it is written, "" for a missing one; {} where no columns are read.
        unseen: columns whose category training did not have.
    """

    image: NDArray[np.uint8]
    words: tuple[str, ...]
    target: str
    probabilities: dict[str, float]
    without: dict[str, float]
    branches: tuple[BranchExplanation, ...]
    column_loss: Mapping[str, float] = field(default_factory=dict)
    cells: Mapping[str, str] = field(default_factory=dict)
    unseen: tuple[str, ...] = ()

    def __repr__(self) -> str:
        share, words = self.probabilities[self.target], " ".join(self.words)
        return f"Explanation({self.target!r} at {share:.3f}, of a picture and {words!r}; save(path), figure())"

    def figure(self) -> Any:
        """A `matplotlib.figure.Figure`."""
        from mi2p_inject.recipes.explain.draw import draw_explanation

        return draw_explanation(self)

    def _repr_png_(self) -> bytes:
        """The figure, for notebooks."""
        return figure_bytes(self.figure())

    def save(self, file: str | Path) -> None:
        """Write the figure: .png, .pdf or .svg.

        Raises:
            RecipeError: another ending, or the file cannot be written.
        """
        check_figure_file(Path(file))
        save_figure(self.figure(), Path(file))

    def to_json(self) -> dict[str, Any]:
        """The numbers by word, as JSON."""
        return {
            "target": self.target,
            "probability": self.probabilities[self.target],
            "without": self.without,
            "words": list(self.words),
            **({"cells": dict(self.cells), "unseen": list(self.unseen)} if self.cells else {}),
            **({"column_loss": dict(self.column_loss)} if self.column_loss else {}),
            "branches": [
                {
                    "modality": one.modality,
                    "unit": one.unit,
                    "site": one.site,
                    "spread": one.spread,
                    "keys": one.keys,
                    "word_attention": _list(one.word_attention),
                    "word_evidence": _list(one.word_evidence),
                    "rest_evidence": one.rest_evidence,
                    "evidence_map": _list(one.evidence_map),
                    "word_loss": _list(one.word_loss),
                    "place_loss": _list(one.place_loss),
                }
                for one in self.branches
            ],
        }


def check_figure_file(file: Path, read: Path | None = None) -> None:
    """Refuse a figure's file before anything is computed.

    Args:
        file: where it will be.
        read: the picture that is explained, which stays as it is.

    Raises:
        RecipeError: an ending that is none of a figure, a folder, no folder to write into, or the picture itself.
    """
    if read is not None and file.exists() and read.exists() and os.path.samefile(file, read):
        raise RecipeError(f"{file} is what is read", expected="another file", given=str(read), fix="name another")
    if file.suffix.lower() not in FIGURE_ENDINGS:
        raise RecipeError(
            f"{file} is no name of a figure",
            expected=" or ".join(FIGURE_ENDINGS),
            given=file.name,
            fix=f"such as {file.with_suffix('.png') if file.stem else 'fig.png'}",
        )
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise RecipeError(
            f"{file} cannot be written", expected="a file in a folder that exists", given=str(file), fix="name another"
        )


def save_figure(figure: Any, file: Path) -> None:
    """Write a figure.

    Raises:
        RecipeError: the file cannot be written.
    """
    try:
        with as_written():
            write_file(file, lambda made: figure.savefig(made, format=file.suffix[1:].lower()))
    except OSError as error:
        raise RecipeError(
            f"{file} cannot be written: {error}", expected="a place to write to", given=str(file), fix="another --out"
        ) from error


def figure_bytes(figure: Any) -> bytes:
    """A figure as a PNG in memory, as a notebook shows it."""
    buffer = io.BytesIO()
    with as_written():
        figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _list(array: Floats | None) -> Any:
    return None if array is None else np.round(array, 6).tolist()
