"""From which probability on a label holds: one threshold for all classes, and a class's own one as far as it is known.

A class's own threshold, found on few samples, is mostly noise. So a class with n positive samples moves only the share
n / (n + 50) of the way from the common threshold to its own, and one with fewer than 20 not at all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["MIN_POSITIVES", "SHRINKAGE", "TunedThresholds", "best_threshold", "tune_thresholds"]

Floats = NDArray[np.float64]

MIN_POSITIVES = 20
"""With fewer positive samples a class takes the common threshold."""
SHRINKAGE = 50
"""Positive samples with which a class's own threshold weighs half."""


@dataclass(frozen=True, eq=False)
class TunedThresholds:
    """What `tune_thresholds` found.

    Attributes:
        common: the one for all classes.
        of_classes: (K,) of each class, the common one where it has no own.
    """

    common: float
    of_classes: Floats


def tune_thresholds(probabilities: Floats, true: NDArray[np.int64]) -> TunedThresholds:
    """The thresholds to answer by, from these samples: the validation split, never the test one.

    The common threshold has the highest micro-F1 over all classes, a class's own one its highest F1.

    Args:
        probabilities: (N, K).
        true: (N, K), 0 or 1.

    Examples:
        >>> tune_thresholds(np.array([[0.9, 0.2], [0.3, 0.1]]), np.array([[1, 0], [1, 0]])).of_classes.round(2).tolist()
        [0.25, 0.25]
    """
    common = best_threshold(probabilities.ravel(), true.ravel())
    thresholds = np.full(true.shape[1], common)
    for k, positives in enumerate(true.sum(axis=0)):
        if positives >= MIN_POSITIVES:
            own = best_threshold(probabilities[:, k], true[:, k])
            thresholds[k] += positives / (positives + SHRINKAGE) * (own - common)
    return TunedThresholds(common, thresholds)


def best_threshold(probabilities: Floats, true: NDArray[np.int64]) -> float:
    """The threshold with the highest F1 of one yes-or-no question; of equal ones the closest to 0.5.

    Args:
        probabilities: (N,).
        true: (N,), 0 or 1. Without a positive sample: 0.5.

    Examples:
        >>> round(best_threshold(np.array([0.9, 0.3, 0.1]), np.array([1, 1, 0])), 2)
        0.2
    """
    if not true.any():
        return 0.5
    order = np.argsort(-probabilities, kind="stable")
    ranked = probabilities[order]
    f1 = 2 * np.cumsum(true[order]) / (np.arange(1, len(order) + 1) + true.sum())
    last = np.append(ranked[:-1] > ranked[1:], True)  # samples of equal probability go together
    middle = (ranked + np.append(ranked[1:], 0.0)) / 2
    best = np.flatnonzero(last & np.isclose(f1, f1[last].max()))
    return float(middle[best[np.argmin(np.abs(middle[best] - 0.5))]])
