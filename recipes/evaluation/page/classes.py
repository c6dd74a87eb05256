"""Precision, recall and F1 of each class with bootstrap intervals, and how often classes are taken for others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mi2p_inject.recipes.metrics.resampling import Interval, group_weights
from mi2p_inject.recipes.tasks import Labels, Task
from mi2p_inject.recipes.tasks.counts import LabelCounts

__all__ = ["ClassScores", "as_flags", "class_scores", "confusion"]


@dataclass(frozen=True)
class ClassScores:
    """How well one class is found.

    Attributes:
        name: of the class.
        support: samples that have it.
        answered: samples that are said to have it.
        precision, recall, f1: with intervals; 0 where nothing is true or answered.
    """

    name: str
    support: int
    answered: int
    precision: Interval
    recall: Interval
    f1: Interval

    @property
    def there(self) -> bool:
        """Whether a sample has it or is said to have it: else there is nothing to score."""
        return self.support + self.answered > 0


def class_scores(
    task: Task, true: Labels, decided: Labels, groups: NDArray[np.int64], *, seed: int
) -> list[ClassScores]:
    """The scores of each class, in the order of the classes.

    Args:
        task: says whether a sample has one label or several.
        true: N targets.
        decided: N answers.
        groups: (N,) group of each sample; whole groups are resampled.
        seed: of the bootstrap.

    Examples:
        >>> from mi2p_inject.recipes.tasks import SingleLabel
        >>> y = np.array([0, 1, 1, 1]); guess = np.array([0, 0, 1, 1])
        >>> found = class_scores(SingleLabel(("a", "b")), y, guess, np.arange(4), seed=0)
        >>> [(one.name, one.support, one.precision.value, round(one.recall.value, 2)) for one in found]
        [('a', 1, 0.5, 1.0), ('b', 3, 1.0, 0.67)]
    """
    there, said = as_flags(task, true), as_flags(task, decided)
    counts = LabelCounts.of(there, said)
    chunks = [counts.weighted(weights) for weights in group_weights(groups, seed=seed)]
    right, real, answered = (
        np.concatenate([getattr(one, kind) for one in chunks]) for kind in ("right", "true", "predicted")
    )
    values = {
        "precision": right / np.maximum(answered, 1e-12),
        "recall": right / np.maximum(real, 1e-12),
        "f1": LabelCounts(right, real, answered).f1(),
    }
    bounds = {name: np.quantile(one[1:], [0.025, 0.975], axis=0) for name, one in values.items()}
    return [
        ClassScores(
            name,
            int(there[:, k].sum()),
            int(said[:, k].sum()),
            *(
                Interval(float(values[kind][0, k]), float(bounds[kind][0, k]), float(bounds[kind][1, k]))
                for kind in ("precision", "recall", "f1")
            ),
        )
        for k, name in enumerate(task.classes)
    ]


def as_flags(task: Task, labels: Labels) -> NDArray[np.int64]:
    """(N, K) zeros and ones of targets or answers of any shape."""
    if labels.ndim == 2:
        return labels
    return np.eye(len(task.classes), dtype=np.int64)[labels]


def confusion(true: Labels, decided: Labels, classes: Sequence[str]) -> NDArray[np.int64]:
    """(K, K) samples of a true class (row) with an answer (column), where a sample has one label."""
    found = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(found, (true, decided), 1)
    return found
