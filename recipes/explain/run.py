"""`explain_run`: what a trained run attends to for one picture and text."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mi2p_inject.adapters.adapter import Modality
from mi2p_inject.explain import effective_count, token_maps
from mi2p_inject.recipes.config.names import closest
from mi2p_inject.recipes.data import open_image
from mi2p_inject.recipes.encoders.preprocess import ImageSpec
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.explain.groups import channel_groups
from mi2p_inject.recipes.explain.loaded import Loaded, load_expanded
from mi2p_inject.recipes.explain.pieces import lost_logits, place_pieces, word_pieces
from mi2p_inject.recipes.explain.result import BranchExplanation, Explanation
from mi2p_inject.recipes.explain.sample import BranchEvidence, Sample
from mi2p_inject.recipes.explain.words import Words
from mi2p_inject.recipes.saving.saved import SavedRun
from mi2p_inject.recipes.systems.columns import COLUMNS, Cells, given_cells, shown_cells
from mi2p_inject.sources.columns import Columns

__all__ = ["explain_run"]

_MOST_PIECES = 64  # that are taken away one by one


def explain_run(
    run: SavedRun | Loaded,
    image: str | os.PathLike[str] | Image.Image,
    text: str,
    target: str | None = None,
    columns: Mapping[str, Any] | None = None,
) -> Explanation:
    """What a trained run takes from the other modality for one sample.

    Args:
        run: the run, or `load_expanded` of it.
        image: a file or an open picture.
        text: a text with a word or more.
        target: the class that the evidence is about; None: the likeliest one.
        columns: cells of the columns that the run reads, by name; those that are not named are missing. None: it is
            explained without columns.

    Raises:
        RecipeError: the run is not expanded, the image cannot be opened, the text is empty, or there is no such class
            or column.
    """
    picture = None if image is None else open_image(image, on_bad="error")
    if picture is None or not (text and text.strip()):
        raise RecipeError(
            "an explanation shows what one modality takes from the other: it needs both",
            expected="an image and a text",
            given="no image" if picture is None else "no text",
            fix="give --image and --text",
        )
    loaded = run if isinstance(run, Loaded) else load_expanded(run)
    classes = loaded.run.task.classes
    if target is not None and target not in classes:
        raise RecipeError(
            f"there is no class {target!r}",
            expected=", ".join(classes),
            given=target,
            fix=closest(target, classes),
        )
    cells = given_cells(loaded.collator.columns, columns)
    sample = Sample.of(loaded, picture, text, cells)
    given = [(sample.pixels, sample.text), (sample.pixels, ""), (None, sample.text), (sample.pixels, sample.text)]
    count = 3 if cells is None else 4  # the last is without columns
    batch = loaded.batch(given[:count], [cells, cells, cells, None][:count])
    whole, no_text, no_image, *no_columns = loaded.probabilities(batch)
    number = classes.index(target) if target is not None else int(np.argmax(whole))
    reads = loaded.run.config.model.system.modalities
    without = {"text": float(no_text[number]), "image": float(no_image[number])}
    without = {name: one for name, one in without.items() if name in reads}
    if no_columns:
        without[COLUMNS] = float(no_columns[0][number])
    return Explanation(
        image=_shown(sample.pixels, loaded.image),
        words=sample.words.words,
        target=classes[number],
        probabilities={name: float(one) for name, one in zip(classes, whole, strict=True)},
        without=without,
        column_loss={} if cells is None else _column_loss(sample, number),
        **_cells(loaded.collator.columns, cells),
        branches=tuple(_branch(sample, modality, number) for modality in loaded.expanded),
    )


def _cells(columns: Columns | None, cells: Cells | None) -> dict[str, Any]:
    """What of an explanation says which cells were read."""
    if columns is None or cells is None:
        return {}
    given = dict(zip(columns.categorical, cells[1], strict=True))
    unseen = tuple(name for name, one in given.items() if one is not None and not columns.knows(name, one))
    return {"cells": dict(shown_cells(columns.names, cells)), "unseen": unseen}


def _column_loss(sample: Sample, target: int) -> dict[str, float]:
    """Column -> logits of the class that are lost where its cell is missing: measured, one column at a time."""
    loaded, columns = sample.loaded, sample.loaded.collator.columns
    if columns is None or sample.cells is None:
        return {}
    numbers, categories = sample.cells
    rows: list[Cells] = [(numbers, categories)]
    rows += [([*numbers[:at], None, *numbers[at + 1 :]], categories) for at in range(len(numbers))]
    rows += [(numbers, [*categories[:at], None, *categories[at + 1 :]]) for at in range(len(categories))]
    with torch.no_grad():
        logits = loaded.model(**loaded.batch([(sample.pixels, sample.text)] * len(rows), rows))["logits"]
    lost = lost_logits(logits[:, target].float().cpu().numpy())
    return dict(zip(columns.names, lost.tolist(), strict=True))


def _branch(sample: Sample, modality: Modality, target: int) -> BranchExplanation:
    given = sample.evidence(modality, target)
    shown: dict[str, Any] = {"modality": modality, "site": None, "spread": None, "keys": None}
    if given.last is not None:
        weights = given.last.weights
        shown |= {"site": given.last.path, "spread": float(effective_count(weights).mean()), "keys": weights.shape[-1]}
    of_branch = _text_model if modality == "text" else _picture_model
    unit = next(iter(sample.loaded.expanded[modality].expansion_config.sources.values())).unit.kind
    return BranchExplanation(unit=unit, **shown, **of_branch(sample, given, target))


def _text_model(sample: Sample, given: BranchEvidence, target: int) -> dict[str, Any]:
    found, words = given.found, sample.words
    shown: dict[str, Any] = {"word_attention": None, "rest_attention": 0.0, "rest_evidence": 0.0}
    shown |= {"word_maps": None, "word_evidence": None, "evidence_map": None, "word_loss": None, "place_loss": None}
    if found.by_source.dim() == 3:
        shown["evidence_map"] = _array(found.by_source[0])
    places = place_pieces(sample, given, fine=True)
    shown["place_loss"] = places.lost(target).reshape(places.grid)
    if given.last is None or given.last.weights.shape[2] != len(words.of_token):
        return shown
    shown |= _by_word([one[0].sum((0, 2)) for one in found.by_attention.values()], words)
    maps = token_maps(given.last, above_even(given.last.weights), given.features.data)
    if maps is not None:
        shown["word_maps"] = words.averaged(_array(maps[0]))
    return shown


def _by_word(by_site: list[Tensor], words: Words) -> dict[str, Any]:
    """Evidence of words, where each site has a number for each of their tokens."""
    if not by_site or any(len(one) != len(words.of_token) for one in by_site):
        return {}
    evidence_of, rest = words.summed(_array(torch.stack(by_site).sum(0)))
    return {"word_evidence": evidence_of, "rest_evidence": float(rest)}


def _picture_model(sample: Sample, given: BranchEvidence, target: int) -> dict[str, Any]:
    found, words = given.found, sample.words
    shown: dict[str, Any] = {"word_attention": None, "rest_attention": 0.0, "word_maps": None, "evidence_map": None}
    shown |= {"word_evidence": None, "rest_evidence": 0.0, "word_loss": None, "place_loss": None}
    by_token = [one[0].sum((0, 1)) for one in found.by_attention.values()] or [found.by_source[0]]
    shown |= _by_word(by_token, words)
    if len(words.words) <= _MOST_PIECES:
        shown["word_loss"] = word_pieces(sample, given).lost(target)
    if given.last is None:
        added = [one[0] for one in found.by_residual.values() if one.dim() == 3]
        return shown | {"evidence_map": _array(added[-1]) if added else None}
    attention, real = given.last, len(words.of_token)
    attended, rest = words.summed(_array(attention.weights[0].mean((0, 1)))[:real])
    shown |= {"word_attention": attended, "rest_attention": float(rest)}
    maps = token_maps(attention, above_even(attention.weights), given.features.data)
    if maps is not None:
        shown["word_maps"] = words.summed(_array(maps[0])[:real])[0]
        places = token_maps(attention, found.by_attention[attention.path], given.features.data)
        if places is not None:
            shown["evidence_map"] = _array(places[0].sum(0) * attention.weights.shape[1])
    if attention.queries == "channels" and attention.view is not None and attention.view.dim() == 4:
        shown["groups"] = channel_groups(attention, words)
    return shown


def above_even(weights: Tensor) -> Tensor:
    """What of attention (B, heads, queries, keys) is more than even attention over the keys that any query reads."""
    real = (weights > 0).any(-2, keepdim=True).sum(-1, keepdim=True).clamp_min(1)
    return (weights - 1 / real).clamp_min(0)


def _shown(pixels: Tensor, spec: ImageSpec) -> NDArray[np.uint8]:
    mean, std = (torch.tensor(one).view(3, 1, 1) for one in (spec.mean, spec.std))
    shown = ((pixels * std + mean).clamp(0, 1) * 255).round().byte()
    return np.asarray(shown.permute(1, 2, 0).numpy())


def _array(tensor: Any) -> NDArray[np.float64]:
    return np.asarray(tensor.detach().double().cpu().numpy())
