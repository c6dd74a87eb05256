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
        precision: with its interval; None where no sample is said to have it.
        recall: the same; None where no sample has it.
        f1: the same; None where both.
    """

    name: str
    support: int
    answered: int
    precision: Interval | None
    recall: Interval | None
    f1: Interval | None


def class_scores(
    task: Task, true: Labels, decided: Labels, groups: NDArray[np.int64], *, seed: int
) -> list[ClassScores]:
    """The scores of each class, in the order of the classes.

    A resample that has nothing to make a score of, such as the recall of a class that none of its samples has, says
    nothing of it and is left out of its interval.

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
    return [
        ClassScores(
            name,
            int(real[0, k]),
            int(answered[0, k]),
            _interval(right[:, k], answered[:, k]),
            _interval(right[:, k], real[:, k]),
            _interval(2 * right[:, k], real[:, k] + answered[:, k]),
        )
        for k, name in enumerate(task.classes)
    ]


def _interval(part: NDArray[np.float64], whole: NDArray[np.float64]) -> Interval | None:
    """Of a share, (1 + R,) on the test set and on its resamples; None where the test set has nothing to share."""
    if not whole[0]:
        return None
    shares = part[whole > 0] / whole[whole > 0]
    low, high = np.quantile(shares[1:], [0.025, 0.975])
    return Interval(float(shares[0]), float(low), float(high))


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
