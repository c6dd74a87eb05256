"""Classification metrics with bootstrap intervals, for one label a sample or several."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.evaluation.resampling import RESAMPLES, Interval, Resampled, group_weights

__all__ = [
    "METRICS",
    "METRICS_OF_SEVERAL",
    "Interval",
    "bootstrap_difference",
    "bootstrap_metrics",
    "decide",
    "f1_of_classes",
    "measure",
    "resampled_metrics",
    "tune_thresholds",
]

Labels = NDArray[np.int64]
Floats = NDArray[np.float64]

#: of one label a sample
METRICS = ("accuracy", "macro_f1", "weighted_f1")
#: of several labels a sample
METRICS_OF_SEVERAL = ("micro_f1", "macro_f1", "samples_f1")


def measure(true: Labels, predicted: Labels, classes: int) -> dict[str, float]:
    """The metrics by scikit-learn, without intervals.

    Args:
        true, predicted: (N,) class numbers, or (N, K) zeros and ones where a sample has several labels.
        classes: K. A class without true and predicted samples scores F1 0.

    Example:
        >>> measure(np.array([0, 1, 1, 1]), np.array([0, 1, 1, 0]), 2)["accuracy"]
        0.75
    """
    from sklearn.metrics import accuracy_score, f1_score

    if true.ndim == 2:
        return {
            name: float(f1_score(true, predicted, average=name.removesuffix("_f1"), zero_division=0))
            for name in METRICS_OF_SEVERAL
        }
    every = list(range(classes))
    found = {"accuracy": float(accuracy_score(true, predicted))}
    for name in METRICS[1:]:
        average = name.removesuffix("_f1")
        found[name] = float(f1_score(true, predicted, labels=every, average=average, zero_division=0))
    return found


def f1_of_classes(true: Labels, predicted: Labels, classes: int) -> Floats:
    """(K,) the F1 of each class, arguments as in `measure`."""
    hits, found, told = (one.sum(axis=0) for one in _statistics(true, predicted, classes))
    f1: Floats = 2 * hits / np.maximum(found + told, 1e-12)
    return f1


def decide(logits: NDArray[np.float32], thresholds: Floats | None = None) -> Labels:
    """From (N, K) logits to predictions: (N,) the likeliest class, or (N, K) of those above their thresholds.

    Args:
        logits: of a softmax, or of sigmoids where there are thresholds.
        thresholds: (K,) probabilities; None: one label a sample.
    """
    if thresholds is None:
        return np.asarray(logits.argmax(axis=1), dtype=np.int64)
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    return (probabilities >= thresholds).astype(np.int64)


def tune_thresholds(logits: NDArray[np.float32], true: Labels) -> Floats:
    """(K,) the threshold of each class with the highest F1 on these samples: the validation part, never the test part.

    Args:
        logits, true: (N, K). A class without samples keeps 0.5. Of equal thresholds the one closest to 0.5 is taken.
    """
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    thresholds = np.full(true.shape[1], 0.5)
    for k in np.flatnonzero(true.sum(axis=0)):
        order = np.argsort(-probabilities[:, k], kind="stable")
        ranked = probabilities[order, k]
        f1 = 2 * np.cumsum(true[order, k]) / (np.arange(1, len(order) + 1) + true[:, k].sum())
        last = np.append(ranked[:-1] > ranked[1:], True)  # samples of equal probability go together
        below = np.append(ranked[1:], 0.0)
        middle = (ranked + below) / 2
        best = np.flatnonzero(last & np.isclose(f1, f1[last].max()))
        thresholds[k] = middle[best[np.argmin(np.abs(middle[best] - 0.5))]]
    return thresholds


def bootstrap_metrics(
    true: Labels,
    predicted: Labels | Sequence[Labels],
    groups: Labels,
    classes: int,
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> dict[str, Interval]:
    """The metrics with intervals. Whole groups are resampled: variants of one picture are not independent.

    Args:
        true, predicted: (N,) class numbers, or (N, K) zeros and ones. Several predictions, such as those of models
            trained with several seeds: the mean of their metrics.
        groups: (N,) group of each test sample.
        classes: K.
        seed: the same seed gives the same intervals.

    Raises:
        RecipeError: the arrays are empty or of different lengths.

    Example:
        >>> y = np.array([0, 1, 1]); g = np.arange(3)
        >>> bootstrap_metrics(y, y, g, 2, seed=0)["accuracy"]
        Interval(value=1.0, low=1.0, high=1.0)
    """
    return _mean(true, predicted, groups, classes, seed, resamples).intervals()


def bootstrap_difference(
    true: Labels,
    first: Labels | Sequence[Labels],
    second: Labels | Sequence[Labels],
    groups: Labels,
    classes: int,
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> dict[str, Interval]:
    """``metric(first) - metric(second)`` on the same resamples (paired), arguments as in `bootstrap_metrics`."""
    measured = [_mean(true, predicted, groups, classes, seed, resamples) for predicted in (first, second)]
    return (measured[0] - measured[1]).intervals()


def resampled_metrics(
    true: Labels, predicted: Labels, groups: Labels, classes: int, *, seed: int, resamples: int = RESAMPLES
) -> Resampled:
    """The metrics of one prediction on the test set and on its resamples, arguments as in `bootstrap_metrics`."""
    if len(true) == 0 or len({len(true), len(predicted), len(groups)}) > 1:
        raise RecipeError(
            f"labels, predictions and groups must have one length > 0, got {[len(true), len(predicted), len(groups)]}"
        )
    statistics, several = _statistics(true, predicted, classes), true.ndim == 2
    chunks = group_weights(groups, seed=seed, resamples=resamples)
    values = np.concatenate([_measured(weights, statistics, several) for weights in chunks])
    return Resampled(METRICS_OF_SEVERAL if several else METRICS, values)


def _mean(
    true: Labels, predicted: Labels | Sequence[Labels], groups: Labels, classes: int, seed: int, resamples: int
) -> Resampled:
    several = [predicted] if isinstance(predicted, np.ndarray) else predicted
    return Resampled.mean(
        [resampled_metrics(true, one, groups, classes, seed=seed, resamples=resamples) for one in several]
    )


def _statistics(true: Labels, predicted: Labels, classes: int) -> tuple[Floats, Floats, Floats]:
    """(N, K) zeros and ones: right answers, true labels, predicted labels."""
    if true.ndim == 1:
        true, predicted = (np.eye(classes, dtype=np.int64)[labels] for labels in (true, predicted))
    told, found = true.astype(np.float64), predicted.astype(np.float64)
    return told * found, told, found


def _measured(weights: Floats, per_sample: tuple[Floats, Floats, Floats], several: bool) -> Floats:
    """(R, 3) metrics of samples that count ``weights`` (R, N) times, as scikit-learn defines them."""
    hits, true, predicted = (weights @ one for one in per_sample)
    f1 = 2 * hits / np.maximum(true + predicted, 1e-12)
    if several:
        micro = 2 * hits.sum(axis=1) / np.maximum((true + predicted).sum(axis=1), 1e-12)
        own = 2 * per_sample[0].sum(axis=1) / np.maximum((per_sample[1] + per_sample[2]).sum(axis=1), 1e-12)
        return np.stack([micro, f1.mean(axis=1), weights @ own / weights.sum(axis=1)], axis=1)
    total = true.sum(axis=1)
    return np.stack([hits.sum(axis=1) / total, f1.mean(axis=1), (f1 * true).sum(axis=1) / total], axis=1)
