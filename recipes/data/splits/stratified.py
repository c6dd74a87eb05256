"""Train / validation / test: stratified by label, whole groups only, seeded."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mi2p_inject.recipes.errors import RecipeError

__all__ = ["LEAST", "Split", "filled", "split_rows", "take_validation"]

#: independent samples of a class that is split in three
LEAST = 3
_TENTHS_TEST, _TENTHS_VALIDATION, _TENTHS_TRAIN = 3, 1, 6
_FOLDS = _TENTHS_TEST + _TENTHS_VALIDATION + _TENTHS_TRAIN
_MANY = 2_000  # rows
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Row numbers of each split, ascending.

    Attributes:
        train, validation, test: (n,) int64; disjoint, together every row.
    """

    train: Rows
    validation: Rows
    test: Rows

    def splits(self) -> dict[str, Rows]:
        """The three splits by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


def split_rows(labels: Rows, groups: Rows, seed: int, classes: tuple[str, ...] | None = None) -> Split:
    """60 / 10 / 30: ten stratified folds of whole groups, three of them for the test and one for validation.

    A class too rare to be in every fold keeps at least one of its groups in training. Where every class has fewer than
    ten groups, those of each class are dealt out: at least one for each split. No split is left empty.

    Args:
        labels: (N,) class of each row.
        groups: (N,) rows of one group end in one split.
        seed: the same seed gives the same split.
        classes: their names, for the message.

    Raises:
        RecipeError: a class has fewer than three groups, one for each split.
    """
    for label in np.unique(labels):
        if (found := len(np.unique(groups[labels == label]))) < LEAST:
            raise RecipeError(
                f"class {repr(classes[label]) if classes else label} has {found} independent samples; to split them in "
                f"train, validation and test takes {LEAST} or more",
                given=f"{np.sum(labels == label)} samples; those of one image, text or group count as one",
                fix="join rare classes or take them out, or give the splits yourself in a column 'split'",
            )
    where = np.empty(len(labels), dtype=np.int64)
    if _has_folds(labels, groups):
        folds = _folds(labels, groups, seed)
        tested, rest = folds[:_TENTHS_TEST], folds[_TENTHS_TEST:]
        for number, rows in enumerate((np.concatenate(rest[1:]), rest[0], np.concatenate(tested))):
            where[rows] = number
        for label in np.setdiff1d(labels, labels[where == 0]):
            where[groups == groups[labels == label][0]] = 0
    else:
        where[:] = _dealt(labels, groups, seed, (_TENTHS_VALIDATION, _TENTHS_TEST))
    where = filled(where, labels, groups, seed)
    train, validation, test = (np.flatnonzero(where == number) for number in range(3))
    return Split(train, validation, test)


def take_validation(train: Rows, labels: Rows, groups: Rows, seed: int) -> tuple[Rows, Rows]:
    """Nine tenths and one tenth of a training split, stratified, whole groups, seeded.

    Where every class has fewer than ten groups, one of each class that has two or more.

    Args:
        train: row numbers.
        labels: (N,) of all rows.
        groups: (N,) of all rows.
        seed: the same seed gives the same rows.

    Raises:
        RecipeError: no class has two groups.
    """
    own_labels, own_groups = labels[train], groups[train]
    if _has_folds(own_labels, own_groups):
        where = np.zeros(len(train), dtype=np.int64)
        where[_folds(own_labels, own_groups, seed)[0]] = 1
        for label in np.setdiff1d(own_labels, own_labels[where == 0]):
            where[own_groups == own_groups[own_labels == label][0]] = 0
    else:
        where = _dealt(own_labels, own_groups, seed, (_TENTHS_VALIDATION,))
    taken = filled(where, own_labels, own_groups, seed, (_TENTHS_VALIDATION,)) == 1
    if not taken.any():
        raise RecipeError(
            "no class has two independent training samples, one of them for validation",
            given=f"{len(train)} training samples; those of one image, text or group count as one",
            fix="give the validation split yourself in the column 'split'",
        )
    return train[~taken], train[taken]


def _has_folds(labels: Rows, groups: Rows) -> bool:
    """Whether at least one class has a group for each of ten folds."""
    _, first = np.unique(groups, return_index=True)
    return bool(np.bincount(labels[first]).max(initial=0) >= _FOLDS)


def _dealt(labels: Rows, groups: Rows, seed: int, tenths: tuple[int, ...]) -> Rows:
    """(N,) 0 for training, 1, 2 ... for the others: of each class's groups that share, at least one, while one stays.

    A group of several classes counts for the rarest.
    """
    random = np.random.default_rng(seed)
    names, inverse = np.unique(groups, return_inverse=True)
    rarity = np.bincount(labels)
    first = np.full(len(names), -1)
    for row in np.lexsort((labels, -rarity[labels])):  # the rarest comes last and stays
        first[inverse[row]] = labels[row]
    place = np.zeros(len(names), dtype=np.int64)
    for label in np.unique(first):
        own = random.permutation(np.flatnonzero(first == label))
        start = 0
        for number, share in enumerate(tenths, 1):
            count = min(max(1, round(len(own) * share / _FOLDS)), len(own) - 1 - start)
            place[own[start : start + max(count, 0)]] = number
            start += max(count, 0)
    return place[inverse]


def filled(
    where: Rows,
    labels: Rows,
    groups: Rows,
    seed: int,
    tenths: tuple[int, ...] = (_TENTHS_VALIDATION, _TENTHS_TEST),
) -> Rows:
    """The same places, with a group moved to each of the other splits that has none, where one can be spared.

    It is the group whose size is nearest to what the split should have, of a split that has several; each class stays
    in training.

    Args:
        where: (N,) 0 for training, 1, 2 ... for the others.
        labels: (N,) classes.
        groups: (N,) rows of one group are in one split.
        seed: of the choice among groups of one size.
        tenths: what each of the other splits should have.
    """
    where = where.copy()
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    sizes, order = np.bincount(inverse), np.random.default_rng(seed).permutation(len(first))
    for number in range(len(tenths), 0, -1):
        if (where == number).any():
            continue
        place = where[first]
        spared = [
            one
            for one in order
            if np.sum(place == place[one]) > 1
            and (place[one] > 0 or np.isin(labels[inverse == one], labels[(where == 0) & (inverse != one)]).all())
        ]
        if spared:
            wanted = len(labels) * tenths[number - 1] / _FOLDS
            where[inverse == min(spared, key=lambda one: abs(sizes[one] - wanted))] = number
    return where


def _folds(labels: Rows, groups: Rows, seed: int) -> list[Rows]:
    """Ten stratified folds of whole groups."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")  # it stays in training, see above
        if len(labels) <= _MANY:
            splitter = StratifiedGroupKFold(n_splits=_FOLDS, shuffle=True, random_state=seed)
            return [rows for _, rows in splitter.split(labels, labels, groups)]
        # That takes milliseconds a group; where there are many, each can count as one sample of its first class.
        _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
        splitter = StratifiedKFold(n_splits=_FOLDS, shuffle=True, random_state=seed)
        fold = np.empty(len(first), dtype=np.int64)
        for number, (_, chosen) in enumerate(splitter.split(first, labels[first])):
            fold[chosen] = number
        return [np.flatnonzero(fold[inverse] == number) for number in range(_FOLDS)]
