"""Train, validation and test: as given, or made; and what they share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mi2p_inject.recipes.data.row_index import RowIndex
from mi2p_inject.recipes.data.samples import SPLITS
from mi2p_inject.recipes.data.splits import split_rows, take_validation
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["Rows", "assign_splits", "duplicates_across", "report_sizes", "without_duplicates"]

#: numbers of samples, ascending
Rows = NDArray[np.int64]


def assign_splits(
    index: RowIndex, numbers: list[Any], classes: tuple[str, ...], seed: int, training: bool, notes: list[str]
) -> dict[str, Rows]:
    """The splits that the data set gives; else stratified ones of whole groups. A missing validation split is made.

    Args:
        index: with merged groups.
        numbers: class number or numbers of each sample.
        classes: names.
        seed: of splits that are made.
        training: else nothing is made, and samples without a split are the test.
        notes: what was made is appended.

    Raises:
        RecipeError: the given splits have no "train"; a class is too rare to be split.
    """
    where = np.array([split or "" for split in index.splits])
    given = {split: np.flatnonzero(where == split) for split in SPLITS if (where == split).any()}
    if not training:
        return given or {"test": np.arange(len(where))}
    strata, groups = _strata(numbers, len(classes)), np.asarray(index.groups, dtype=np.int64)
    if not given:
        notes.append(f"split 60/10/30 by class, duplicates together ({groups.max() + 1} groups), seed {seed}")
        return split_rows(strata, groups, seed, (*classes, "no label")).splits()
    if "train" not in given:
        raise RecipeError(f"there is no training split, only {', '.join(given)}")
    if "validation" not in given:
        given["train"], given["validation"] = take_validation(given["train"], strata, groups, seed)
        notes.append(f"validation: a tenth of the training split, by class, duplicates together, seed {seed}")
    if "test" not in given:
        notes.append("there is no test split")
    return {split: given[split] for split in SPLITS if split in given}


def report_sizes(splits: dict[str, Rows], published: dict[str, int], notes: list[str]) -> None:
    """A note on each split whose size is not the published one, or one that all are."""
    if not published:
        return
    sizes = {names: sum(len(splits.get(split, ())) for split in names.split("+")) for names in published}
    differ = [
        f"{split} {sizes[split]} (published: {count})" for split, count in published.items() if sizes[split] != count
    ]
    shown = "/".join(map(str, sizes.values()))
    notes.append(
        "sizes differ from the published ones: " + ", ".join(differ) if differ else f"sizes as published: {shown}"
    )


def duplicates_across(index: RowIndex, splits: dict[str, Rows], notes: list[str]) -> None:
    """Notes how many samples of a split have their text or image in an earlier one, too."""
    for later, earlier in (("validation", "train"), ("test", "train"), ("test", "validation")):
        if not {later, earlier} <= splits.keys():
            continue
        counts = [
            f"{count} by {what}"
            for what, keys in (("text", index.text_keys), ("image", index.image_keys))
            if (count := int(_shared(keys, splits[later], splits[earlier]).sum()))
        ]
        if counts:
            notes.append(f"duplicates: of {len(splits[later])} {later} samples, {earlier} has {' and '.join(counts)}")


def without_duplicates(index: RowIndex, splits: dict[str, Rows], notes: list[str]) -> dict[str, Rows]:
    """Training without what validation or test have, validation without what the test has. The test stays whole."""
    kept = dict(splits)
    for split, others in (("train", ("validation", "test")), ("validation", ("test",))):
        if split not in kept:
            continue
        rows = kept[split]
        double = np.zeros(len(rows), dtype=bool)
        for other in others:
            for keys in (index.text_keys, index.image_keys):
                double |= _shared(keys, rows, splits.get(other, rows[:0]))
        kept[split] = rows[~double]
        notes.append(
            f"dedupe: {int(double.sum())} of {len(rows)} {split} samples dropped: {' or '.join(others)} has them"
        )
    return kept


def _shared(keys: Any, rows: Rows, others: Rows) -> NDArray[np.bool_]:
    known = {keys[row] for row in others} - {None}
    return np.array([keys[row] in known for row in rows], dtype=bool)


def _strata(numbers: list[Any], classes: int) -> Rows:
    """(N,) what a split keeps even: the class; of several labels the rarest; a stratum of its own for no label."""
    if not numbers or isinstance(numbers[0], int):
        return np.asarray(numbers, dtype=np.int64)
    counts = np.bincount([one for row in numbers for one in row], minlength=classes)
    return np.array([min(row, key=lambda one: counts[one]) if row else classes for row in numbers], dtype=np.int64)
