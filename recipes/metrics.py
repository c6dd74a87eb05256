"""Classification metrics with bootstrap intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mi2p_inject.recipes.errors import RecipeError

__all__ = ["METRICS", "Interval", "bootstrap_difference", "bootstrap_metrics", "metrics_of_confusion"]

Labels = NDArray[np.int64]
Floats = NDArray[np.float64]

METRICS = ("accuracy", "macro_f1", "weighted_f1")
_RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A number and its 95 % bootstrap interval.

    Attributes:
        value: measured on the whole test set.
        low, high: the 2.5 % and 97.5 % quantiles over the resamples.
    """

    value: float
    low: float
    high: float


def metrics_of_confusion(confusion: Floats) -> Floats:
    """Accuracy, macro-F1 and weighted-F1 of confusion matrices, as scikit-learn defines them.

    Args:
        confusion: (..., K, K) counts, rows true, columns predicted. A class without true and predicted samples
            scores F1 0, as with scikit-learn's ``zero_division=0`` and all K labels.

    Returns:
        (..., 3) in the order of `METRICS`.
    """
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    true, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    f1 = 2 * hits / np.maximum(true + predicted, 1e-12)
    total = true.sum(axis=-1)
    accuracy = hits.sum(axis=-1) / total
    return np.stack([accuracy, f1.mean(axis=-1), (f1 * true).sum(axis=-1) / total], axis=-1)


def bootstrap_metrics(
    true: Labels, predicted: Labels, groups: Labels, classes: int, *, seed: int, resamples: int = _RESAMPLES
) -> dict[str, Interval]:
    """The three metrics with intervals. Whole groups are resampled: variants of one picture are not independent.

    Args:
        true, predicted, groups: (N,) class, predicted class and group of each test sample.
        classes: K.
        seed: the same seed gives the same intervals.

    Raises:
        RecipeError: the arrays are empty or of different lengths.

    Example:
        >>> y = np.array([0, 1, 1]); g = np.arange(3)
        >>> bootstrap_metrics(y, y, g, 2, seed=0)["accuracy"]
        Interval(value=1.0, low=1.0, high=1.0)
    """
    _check(true, predicted, groups)
    weights = _weights(groups, seed, resamples)
    return _intervals(_measure(true, predicted, weights, classes))


def bootstrap_difference(
    true: Labels, first: Labels, second: Labels, groups: Labels, classes: int, *, seed: int, resamples: int = _RESAMPLES
) -> dict[str, Interval]:
    """``metric(first) - metric(second)`` on the same resamples (paired), arguments as in `bootstrap_metrics`."""
    _check(true, first, second, groups)
    weights = _weights(groups, seed, resamples)
    return _intervals(_measure(true, first, weights, classes) - _measure(true, second, weights, classes))


def _check(*arrays: Labels) -> None:
    if len(arrays[0]) == 0 or len({len(array) for array in arrays}) > 1:
        raise RecipeError(f"labels, predictions and groups must have one length > 0, got {[len(a) for a in arrays]}")


def _weights(groups: Labels, seed: int, resamples: int) -> Floats:
    """(1 + resamples, N): how often each sample counts; the first row is the whole test set, once."""
    names, group_of_row = np.unique(groups, return_inverse=True)
    count = len(names)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    whole = np.ones((1, len(groups)))
    return np.concatenate([whole, drawn[:, group_of_row]]).astype(np.float64)


def _measure(true: Labels, predicted: Labels, weights: Floats, classes: int) -> Floats:
    """(1 + resamples, 3)."""
    cells = np.zeros((len(true), classes * classes))
    cells[np.arange(len(true)), true * classes + predicted] = 1
    return metrics_of_confusion((weights @ cells).reshape(-1, classes, classes))


def _intervals(measured: Floats) -> dict[str, Interval]:
    low, high = np.quantile(measured[1:], [0.025, 0.975], axis=0)
    return {name: Interval(float(measured[0, i]), float(low[i]), float(high[i])) for i, name in enumerate(METRICS)}
