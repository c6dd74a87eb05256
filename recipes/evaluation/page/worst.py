"""The test samples that a model is most certainly wrong about, with picture and text."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from mi2p_inject.recipes.data import Samples, open_image
from mi2p_inject.recipes.evaluation.page.classes import as_flags
from mi2p_inject.recipes.tasks import Floats, Labels, Task

__all__ = ["Mistake", "worst_mistakes"]

_SIDE = 176


@dataclass(frozen=True)
class Mistake:
    """One sample with a wrong answer.

    Attributes:
        id: of the sample.
        text: of the sample; "" if it has none.
        picture: as an URL with the content inside; "" if it has none that can be opened.
        true, answer: in words.
        probability: of the answer; of several labels, the mean surprise over all of them.
    """

    id: str
    text: str
    picture: str
    true: str
    answer: str
    probability: float


def worst_mistakes(
    task: Task, samples: Samples, split: str, true: Labels, decided: Labels, probabilities: Floats, count: int = 12
) -> list[Mistake]:
    """The worst first.

    Args:
        task: says what an answer is in words.
        samples: the data of the run.
        split: of which the other arguments are.
        true, decided: N targets and answers.
        probabilities: (N, K).
        count: how many at most.
    """
    wrong = np.flatnonzero((true != decided).reshape(len(true), -1).any(axis=1))
    if task.multi_label:
        there = as_flags(task, true)
        shown = -np.log(np.clip(np.where(there == 1, probabilities, 1 - probabilities), 1e-12, None)).mean(axis=1)
    else:
        shown = probabilities[np.arange(len(decided)), decided]
    worst = wrong[np.argsort(-shown[wrong], kind="stable")][:count]
    rows = samples.splits[split]
    return [
        Mistake(
            str(rows[int(row)]["id"]),
            rows[int(row)]["text"] or "",
            _picture(rows[int(row)]["image"]),
            task.text(true[row]),
            task.text(decided[row]),
            float(shown[row]),
        )
        for row in worst
    ]


def _picture(image: Any) -> str:
    picture = open_image(image, on_bad="missing")
    if picture is None:
        return ""
    picture.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
