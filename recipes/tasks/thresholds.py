"""From which probability on a label holds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["tune_thresholds"]

Floats = NDArray[np.float64]


def tune_thresholds(probabilities: Floats, true: NDArray[np.int64]) -> Floats:
    """(K,) the threshold of each class with the highest F1 on these samples: the validation split, never the test one.

    Args:
        probabilities, true: (N, K). A class without samples keeps 0.5. Of equal thresholds the one closest to 0.5 is
            taken.

    Example:
        >>> tune_thresholds(np.array([[0.9], [0.3], [0.1]]), np.array([[1], [1], [0]])).round(2).tolist()
        [0.2]
    """
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
