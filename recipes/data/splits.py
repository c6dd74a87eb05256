"""Train / validation / test: stratified by label, whole groups only, seeded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mi2p_inject.recipes.errors import RecipeError

__all__ = ["Split", "split_rows"]

_TENTHS_TEST, _TENTHS_VALIDATION = 3, 1


@dataclass(frozen=True)
class Split:
    """Row numbers of each part, ascending.

    Attributes:
        train, validation, test: (n,) int64; disjoint, together every row.
    """

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]

    def parts(self) -> dict[str, NDArray[np.int64]]:
        """The three parts by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


def split_rows(labels: NDArray[np.int64], groups: NDArray[np.int64], seed: int) -> Split:
    """60 / 10 / 30: ten stratified folds of whole groups, three of them for the test and one for validation.

    Args:
        labels: (N,) class of each row.
        groups: (N,) rows of one group end in one part.
        seed: the same seed gives the same split.

    Raises:
        RecipeError: a class has fewer groups than there are folds, so that a part could miss it.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    folds = _TENTHS_TEST + _TENTHS_VALIDATION + 6
    for label in np.unique(labels):
        if (found := len(np.unique(groups[labels == label]))) < folds:
            raise RecipeError(f"class {label} has {found} independent samples; a 60/10/30 split needs {folds} or more")
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    parts = [rows for _, rows in splitter.split(np.zeros(len(labels)), labels, groups)]
    tested, rest = parts[:_TENTHS_TEST], parts[_TENTHS_TEST:]
    return Split(
        train=np.sort(np.concatenate(rest[_TENTHS_VALIDATION:])).astype(np.int64),
        validation=np.sort(np.concatenate(rest[:_TENTHS_VALIDATION])).astype(np.int64),
        test=np.sort(np.concatenate(tested)).astype(np.int64),
    )
