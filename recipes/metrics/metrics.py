"""A task's metrics with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.metrics.probability_metrics import resampled_probability_metrics
from mi2p_inject.recipes.metrics.resampling import RESAMPLES, Interval, Resampled, group_weights
from mi2p_inject.recipes.tasks import Floats, Labels, Scorer, Task

__all__ = ["Interval", "bootstrap_difference", "bootstrap_metrics", "resampled_answers", "resampled_metrics"]


def bootstrap_metrics(
    task: Task,
    true: Labels,
    predicted: Labels | Sequence[Labels],
    groups: NDArray[np.int64],
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> dict[str, Interval]:
    """The metrics with intervals. Whole groups are resampled: variants of one picture are not independent.

    Args:
        task: says which metrics.
        true: N targets.
        predicted: N answers. Several predictions, such as those of models trained with several seeds: the mean of
            their metrics.
        groups: (N,) group of each test sample.
        seed: the same seed gives the same intervals.
        resamples: how many.

    Raises:
        RecipeError: the arrays are empty or of different lengths.

    Examples:
        >>> from mi2p_inject.recipes.tasks import SingleLabel
        >>> y = np.array([0, 1, 1]); g = np.arange(3)
        >>> bootstrap_metrics(SingleLabel(("a", "b")), y, y, g, seed=0)["accuracy"]
        Interval(value=1.0, low=1.0, high=1.0)
    """
    return _mean(task, true, predicted, groups, seed, resamples).intervals()


def bootstrap_difference(
    task: Task,
    true: Labels,
    first: Labels | Sequence[Labels],
    second: Labels | Sequence[Labels],
    groups: NDArray[np.int64],
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> dict[str, Interval]:
    """``metric(first) - metric(second)`` on the same resamples (paired), arguments as in `bootstrap_metrics`."""
    measured = [_mean(task, true, predicted, groups, seed, resamples) for predicted in (first, second)]
    return (measured[0] - measured[1]).intervals()


def resampled_metrics(
    task: Task, true: Labels, predicted: Labels, groups: NDArray[np.int64], *, seed: int, resamples: int = RESAMPLES
) -> Resampled:
    """The metrics of one prediction on the test set and on its resamples, arguments as in `bootstrap_metrics`."""
    return _resampled(task.metrics, task.scorer(true, predicted), true, predicted, groups, seed, resamples)


def resampled_answers(
    task: Task,
    true: Labels,
    predicted: Labels,
    probabilities: Floats,
    groups: NDArray[np.int64],
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> Resampled:
    """Everything that is reported of one prediction, on the same resamples: of answers, rankings and probabilities.

    Args:
        task: as in `bootstrap_metrics`.
        true: as in `bootstrap_metrics`.
        predicted: as in `bootstrap_metrics`.
        groups: as in `bootstrap_metrics`.
        seed: as in `bootstrap_metrics`.
        resamples: as in `bootstrap_metrics`.
        probabilities: (N, classes).
    """
    found = resampled_metrics(task, true, predicted, groups, seed=seed, resamples=resamples)
    if task.ranking_metrics:
        scorer = task.ranking_scorer(true, probabilities)
        found |= _resampled(task.ranking_metrics, scorer, true, probabilities, groups, seed, resamples)
    return found | resampled_probability_metrics(true, probabilities, groups, seed=seed, resamples=resamples)


def _resampled(
    names: tuple[str, ...],
    measured: Scorer,
    true: Labels,
    predicted: Labels | Floats,
    groups: NDArray[np.int64],
    seed: int,
    resamples: int,
) -> Resampled:
    if len(true) == 0 or len({len(true), len(predicted), len(groups)}) > 1:
        raise RecipeError(
            f"labels, predictions and groups must have one length > 0, got {[len(true), len(predicted), len(groups)]}",
            fix="give one of each a sample",
        )
    chunks = group_weights(groups, seed=seed, resamples=resamples)
    return Resampled(names, np.concatenate([measured(weights) for weights in chunks]))


def _mean(
    task: Task,
    true: Labels,
    predicted: Labels | Sequence[Labels],
    groups: NDArray[np.int64],
    seed: int,
    resamples: int,
) -> Resampled:
    several = [predicted] if isinstance(predicted, np.ndarray) else predicted
    return Resampled.mean(
        [resampled_metrics(task, true, one, groups, seed=seed, resamples=resamples) for one in several]
    )
