"""Average precision of each class, as scikit-learn defines it, for every resample of a test set at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["macro_average_precision"]

Floats = NDArray[np.float64]


def macro_average_precision(true: NDArray[np.int64], scores: Floats) -> Callable[[Floats], Floats]:
    """How often each sample counts, (R, N) -> (R,) the mean average precision of the classes.

    A class's is the sum of its precisions, each weighed by how much of the recall is new there; no threshold is chosen.
    A class that no counted sample has is left out; 0 where none has any.

    Args:
        true: (N, K) zeros and ones.
        scores: (N, K), such as probabilities; only their order in each class counts.

    Examples:
        >>> macro_average_precision(np.array([[1, 0], [0, 0], [1, 0]]), np.eye(3, 2))(np.ones((1, 3))).round(4)
        array([0.8333])
    """
    classes = [_ranked(true[:, k], scores[:, k]) for k in np.flatnonzero(true.any(axis=0))]

    def measured(weights: Floats) -> Floats:
        total, counted = np.zeros(len(weights)), np.zeros(len(weights))
        for order, positive, last in classes:
            drawn = weights[:, order]
            right, every = (np.cumsum(one, axis=1)[:, last] for one in (drawn * positive, drawn))
            new = np.diff(right, axis=1, prepend=0)
            precision = (new * right / np.maximum(every, 1e-12)).sum(axis=1)
            total += precision / np.maximum(right[:, -1], 1e-12)
            counted += right[:, -1] > 0
        return np.asarray(total / np.maximum(counted, 1))

    return measured


def _ranked(positive: NDArray[np.int64], scores: Floats) -> tuple[NDArray[np.int64], Floats, NDArray[np.int64]]:
    """Samples from the highest score down, which of them are positive, and where a run of equal scores ends."""
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    return order, positive[order].astype(np.float64), last
