"""Train / validation / test: stratified by label, whole groups only, seeded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mi2p_inject.recipes.errors import RecipeError

__all__ = ["Split", "split_rows", "take_validation"]

_TENTHS_TEST, _TENTHS_VALIDATION, _TENTHS_TRAIN = 3, 1, 6
_MANY = 2_000  # rows
_LEAST = 3  # independent samples of a class


@dataclass(frozen=True)
class Split:
    """Row numbers of each split, ascending.

    Attributes:
        train, validation, test: (n,) int64; disjoint, together every row.
    """

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]

    def splits(self) -> dict[str, NDArray[np.int64]]:
        """The three splits by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


def split_rows(
    labels: NDArray[np.int64], groups: NDArray[np.int64], seed: int, classes: tuple[str, ...] | None = None
) -> Split:
    """60 / 10 / 30: ten stratified folds of whole groups, three of them for the test and one for validation.

    A class too rare to be in every fold keeps at least one of its groups in training.

    Args:
        labels: (N,) class of each row.
        groups: (N,) rows of one group end in one split.
        seed: the same seed gives the same split.
        classes: their names, for the message.

    Raises:
        RecipeError: a class has fewer than three groups, one for each split.
    """
    for label in np.unique(labels):
        if (found := len(np.unique(groups[labels == label]))) < _LEAST:
            raise RecipeError(
                f"class {repr(classes[label]) if classes else label} has {found} independent samples; to split them in "
                f"train, validation and test takes {_LEAST} or more",
                given=f"{np.sum(labels == label)} samples; those of one image, text or group count as one",
                fix="join rare classes or take them out, or give the splits yourself in a column 'split'",
            )
    folds = _folds(labels, groups, seed)
    tested, rest = folds[:_TENTHS_TEST], folds[_TENTHS_TEST:]
    where = np.empty(len(labels), dtype=np.int64)
    for number, rows in enumerate((np.concatenate(rest[1:]), rest[0], np.concatenate(tested))):
        where[rows] = number
    for label in np.setdiff1d(labels, labels[where == 0]):
        where[groups == groups[labels == label][0]] = 0
    train, validation, test = (np.flatnonzero(where == number) for number in range(3))
    return Split(train, validation, test)


def take_validation(
    train: NDArray[np.int64], labels: NDArray[np.int64], groups: NDArray[np.int64], seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Nine tenths and one tenth of a training split, stratified, whole groups, seeded.

    Args:
        train: row numbers.
        labels, groups: (N,) of all rows.
        seed: the same seed gives the same rows.
    """
    fold = _folds(labels[train], groups[train], seed)[0]
    taken = np.zeros(len(train), dtype=bool)
    taken[fold] = True
    for label in np.setdiff1d(labels[train], labels[train][~taken]):
        taken[groups[train] == groups[train][labels[train] == label][0]] = False
    return train[~taken], train[taken]


def _folds(labels: NDArray[np.int64], groups: NDArray[np.int64], seed: int) -> list[NDArray[np.int64]]:
    """Ten stratified folds of whole groups."""
    import warnings

    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    folds = _TENTHS_TEST + _TENTHS_VALIDATION + _TENTHS_TRAIN
    if (found := len(np.unique(groups))) < folds:
        raise RecipeError(
            f"{found} independent samples cannot be split; {folds} or more are needed",
            given=f"{len(labels)} samples; those of one image, text or group count as one",
            fix="give the splits yourself in a column 'split'",
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")  # it stays in training, see above
        if len(labels) <= _MANY:
            splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
            return [rows for _, rows in splitter.split(labels, labels, groups)]
        # That takes milliseconds a group; where there are many, each can count as one sample of its first class.
        _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
        splitter = StratifiedKFold(n_splits=folds, shuffle=True, random_state=seed)
        fold = np.empty(len(first), dtype=np.int64)
        for number, (_, chosen) in enumerate(splitter.split(first, labels[first])):
            fold[chosen] = number
        return [np.flatnonzero(fold[inverse] == number) for number in range(folds)]
