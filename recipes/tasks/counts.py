"""Right answers, true labels and predicted labels of each sample: what F1 scores of resampled test sets are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["LabelCounts"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LabelCounts:
    """Zeros and ones, or sums of them.

    Attributes:
        right: (N, K) labels that are true and predicted.
        true, predicted: (N, K).
    """

    right: Floats
    true: Floats
    predicted: Floats

    @classmethod
    def of(cls, true: NDArray[np.int64], predicted: NDArray[np.int64]) -> LabelCounts:
        """Of (N, K) zeros and ones."""
        there, found = true.astype(np.float64), predicted.astype(np.float64)
        return cls(there * found, there, found)

    def weighted(self, weights: Floats) -> LabelCounts:
        """(R, K) sums over the samples, each counted ``weights`` (R, N) times."""
        return LabelCounts(weights @ self.right, weights @ self.true, weights @ self.predicted)

    def sums(self, axis: int) -> LabelCounts:
        """Summed over samples (0) or classes (1)."""
        return LabelCounts(*(one.sum(axis=axis) for one in (self.right, self.true, self.predicted)))

    def f1(self) -> Floats:
        """2 right / (true + predicted); 0 where nothing is true or predicted, as scikit-learn with zero_division=0."""
        return np.asarray(2 * self.right / np.maximum(self.true + self.predicted, 1e-12))

    def f1_by_name(self, names: Sequence[str]) -> dict[str, float]:
        """`f1` of each class of (K,) sums; one that is neither true nor predicted has none.

        Args:
            names: of the K classes.

        Examples:
            >>> LabelCounts.of(np.array([[1, 0, 0]]), np.array([[0, 1, 0]])).sums(0).f1_by_name("abc")
            {'a': 0.0, 'b': 0.0}
        """
        values = zip(names, self.f1().tolist(), self.true + self.predicted, strict=True)
        return {name: f1 for name, f1, there in values if there}

    def macro_f1(self) -> Floats:
        """The mean over classes of `f1`; one that is neither true nor predicted is left out, as scikit-learn does.

        Examples:
            >>> LabelCounts.of(np.array([[1, 0, 0], [0, 1, 0]]), np.array([[1, 0, 0], [1, 0, 0]])).sums(0).macro_f1()
            array(0.33333333)
        """
        there = (self.true + self.predicted > 0).sum(axis=-1)
        return np.asarray(self.f1().sum(axis=-1) / np.maximum(there, 1))
