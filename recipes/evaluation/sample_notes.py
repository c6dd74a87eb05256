"""What a user should know of one sample that a run answered."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mi2p_inject.recipes.encoders.preprocess import TextSpec
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.evaluation.mean import Answering, cells_of_runs, models_of, notes_of, runs_of
from mi2p_inject.recipes.evaluation.scores import for_answers
from mi2p_inject.recipes.explain.words import words_of
from mi2p_inject.recipes.saving.saved import SavedRun
from mi2p_inject.recipes.systems.columns import unusual_cells

__all__ = ["notes_on_sample"]


def notes_on_sample(
    run: Answering, image: Path | None, text: str | None, columns: Mapping[str, Any] | None = None
) -> list[str]:
    """What the model did not read, unusual cells, and a precision that this machine does not have.

    Args:
        run: the model, or the mean of several.
        image: the sample, as `mi2p_inject.recipes.evaluation.evaluate.predict_one` read it.
        text: the same.
        columns: the same.
    """
    notes = list(notes_of(run))
    given = {"image": image is not None, "text": bool(text and text.strip())}
    read = {modality for one in runs_of(run) for modality in one.config.model.system.modalities}
    unread = [one for one, here in given.items() if here and one not in read]
    notes += [f"model {models_of(runs_of(run))} reads no {one}s: the {one} was left out" for one in unread]
    for one, cells in cells_of_runs(run, columns):
        if text and given["text"] and "text" in one.config.model.system.modalities:
            notes += _cut(one, text)
        known = one.columns()
        if known is not None and cells is not None:
            notes += [f"{what}: {cell}" for what, cell in unusual_cells(known, cells)]
        notes += for_answers(one.config)[1]
    return list(dict.fromkeys(notes))


def _cut(run: SavedRun, text: str) -> list[str]:
    """A note where the text is longer than what the model reads of it."""
    spec = run.model()[1]["text"].spec
    if not isinstance(spec, TextSpec):
        return []
    try:
        read = len(words_of(text, spec).words)
    except RecipeError:  # a tokenizer that does not tell which words its tokens are of
        return []
    words = len(text.split())
    return [f"the model reads the first {read} of the text's {words} words"] if read < words else []
