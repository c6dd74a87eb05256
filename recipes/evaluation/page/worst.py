"""The test samples that a model is most certainly wrong about, with picture and text, and why where it is expanded."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from mi2p_inject.recipes.data import Samples, open_image
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.evaluation.page.classes import as_flags
from mi2p_inject.recipes.explain.overlay import overlay
from mi2p_inject.recipes.explain.result import Explanation
from mi2p_inject.recipes.systems.columns import cells_of, shown_cells
from mi2p_inject.recipes.tasks import Floats, Labels, Task

__all__ = ["Explain", "Mistake", "Reason", "worst_mistakes"]

_SIDE = 176
_EXPLAINED = 6
_MOST_WORDS = 40
_READS = {
    "words": "words: what the picture model loses without each",
    "first-order": "words: what is taken from each, to first order",
    "places": "picture: what the text model loses where a window is blurred",
    "columns": "columns: what is lost where the cell is missing",
    "evidence": "picture: where what the text adds counts, to first order",
}

Explain = Callable[[Any, str, str, Mapping[str, Any]], Explanation]
"""(image, text, class, row) -> what the model takes for this class from the other modality"""


@dataclass(frozen=True)
class Reason:
    """What counts for a wrong answer in the other modality.

    Attributes:
        of: the class that it is about.
        words: each word, with its worth from -1 (against the class) to 1; () where the text is not read.
        picture: as an URL with the content inside; "" for none.
        captions: what words and picture show.
        columns: each column, with its worth from -1 to 1; () where none are read.
    """

    of: str
    words: tuple[tuple[str, float], ...]
    picture: str
    captions: tuple[str, ...]
    columns: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Mistake:
    """One sample with a wrong answer.

    Attributes:
        id: of the sample.
        text: of the sample; "" if it has none.
        picture: as an URL with the content inside; "" if it has none that can be opened.
        true, answer: in words.
        probability: of the answer; of several labels, the mean surprise over all of them.
        reason: for the answer; None where it is not known.
        cells: of the columns that the model reads, as (column, cell); "" for a missing one.
    """

    id: str
    text: str
    picture: str
    true: str
    answer: str
    probability: float
    reason: Reason | None = None
    cells: tuple[tuple[str, str], ...] = ()


def worst_mistakes(
    task: Task,
    samples: Samples,
    split: str,
    true: Labels,
    decided: Labels,
    probabilities: Floats,
    count: int = 12,
    explain: Explain | None = None,
    columns: Sequence[str] = (),
) -> list[Mistake]:
    """The worst first.

    Args:
        task: says what an answer is in words.
        samples: the data of the run.
        split: of which the other arguments are.
        true: N targets.
        decided: N answers.
        probabilities: (N, K).
        count: how many at most.
        explain: explains the first six of those with a picture and a text; None: no explanations.
        columns: names of those that the model reads.
    """
    wrong = np.flatnonzero((true != decided).reshape(len(true), -1).any(axis=1))
    if task.multi_label:
        there = as_flags(task, true)
        shown = -np.log(np.clip(np.where(there == 1, probabilities, 1 - probabilities), 1e-12, None)).mean(axis=1)
    else:
        shown = probabilities[np.arange(len(decided)), decided]
    worst = wrong[np.argsort(-shown[wrong], kind="stable")][:count]
    rows, found = samples.splits[split], list[Mistake]()
    for row in worst:
        image, text = rows[int(row)]["image"], rows[int(row)]["text"] or ""
        picture, reason = open_image(image, on_bad="missing"), None
        if explain is not None and picture is not None and sum(one.reason is not None for one in found) < _EXPLAINED:
            target = _wrong_class(task, true[row], decided[row], probabilities[row])
            reason = _reason(explain, picture, text, target, rows[int(row)])
        answers = task.text(true[row]), task.text(decided[row])
        cells = shown_cells(columns, cells_of(rows[int(row)]))
        found.append(
            Mistake(str(rows[int(row)]["id"]), text, _url(picture), *answers, float(shown[row]), reason, cells)
        )
    return found


def _wrong_class(task: Task, true: Any, decided: Any, probabilities: Floats) -> str:
    """The class that is wrongly named; of several labels the one whose decision is wrong with most certainty."""
    if not task.multi_label:
        return task.classes[int(decided)]
    certain = np.where(decided == 1, probabilities, 1 - probabilities)
    return task.classes[int(np.argmax(np.where(true != decided, certain, -1)))]


def _reason(explain: Explain, picture: Image.Image, text: str, target: str, row: Mapping[str, Any]) -> Reason | None:
    if not text.strip():
        return None
    try:
        found = explain(picture, text, target, row)
    except RecipeError:  # a text without a word that the tokenizer knows
        return None
    words: tuple[tuple[str, float], ...] = ()
    heat, captions = "", dict[str, str]()
    for branch in found.branches:
        worth = branch.word_evidence if branch.word_loss is None else branch.word_loss
        if branch.modality == "image" and worth is not None:
            largest = float(np.abs(worth).max()) or 1.0
            words = tuple(zip(found.words, (worth / largest).tolist(), strict=True))[:_MOST_WORDS]
            captions["words"] = _READS["words" if branch.word_loss is not None else "first-order"]
        if branch.place_loss is not None:
            heat = _url(overlay(found.image, branch.place_loss, smooth=False))
            captions["picture"] = _READS["places"]
        elif branch.evidence_map is not None and not heat:
            heat = _url(overlay(found.image, branch.evidence_map, smooth=True))
            captions["picture"] = _READS["evidence"]
    lost = found.column_loss
    largest = max(map(abs, lost.values()), default=0.0) or 1.0
    if lost:
        captions["columns"] = _READS["columns"]
    columns = tuple((name, one / largest) for name, one in lost.items())
    return Reason(found.target, words, heat, tuple(captions.values()), columns)


def _url(picture: Image.Image | None) -> str:
    if picture is None:
        return ""
    picture = picture.convert("RGB")
    picture.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
