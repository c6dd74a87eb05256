"""Train, validation and test: as given, or made; and what they share."""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mi2p_inject.recipes.data.row_index import RowIndex
from mi2p_inject.recipes.data.samples import SPLITS
from mi2p_inject.recipes.data.source_table import is_split
from mi2p_inject.recipes.data.splits.rare import note_absent, rare_labels
from mi2p_inject.recipes.data.splits.stratified import LEAST, filled, split_rows, take_validation
from mi2p_inject.recipes.errors import RecipeError

__all__ = [
    "Rows",
    "assign_splits",
    "duplicates_across",
    "given_splits",
    "groups_across",
    "report_sizes",
    "without_duplicates",
]

_CLEARLY = 0.05  # of the samples
_LATER_EARLIER = (("validation", "train"), ("test", "train"), ("test", "validation"))
#: numbers of samples, ascending
Rows = NDArray[np.int64]


def given_splits(index: RowIndex) -> dict[str, Rows]:
    """The splits that the data set gives, in the order of `SPLITS`; none: empty."""
    where = np.array([split or "" for split in index.splits])
    return {split: np.flatnonzero(where == split) for split in SPLITS if (where == split).any()}


def assign_splits(
    index: RowIndex,
    numbers: list[Any],
    classes: tuple[str, ...],
    complete: NDArray[np.bool_],
    least: int,
    seed: int,
    notes: list[str],
) -> dict[str, Rows]:
    """The splits that the data set gives; else stratified ones of whole groups. A missing validation split is made.

    Args:
        index: with merged groups.
        numbers: class number or numbers of each sample.
        classes: names.
        complete: (N,) which samples stay: of these, made splits leave at least one of each class in training.
        least: classes with fewer independent samples are not split: they stay in training.
        seed: of splits that are made.
        notes: what was made is appended.

    Raises:
        RecipeError: the given splits have no "train"; no class has enough samples to be split; a split
            would be empty.
    """
    given = given_splits(index)
    strata, groups = _strata(numbers, len(classes)), np.asarray(index.groups, dtype=np.int64)
    if not given:
        _note_folders(index, notes)
        return _made(index, strata, groups, classes, complete, least, seed, notes)
    if "train" not in given:
        raise RecipeError(
            f"there is no training split, only {', '.join(given)}",
            fix="call a split train, or leave the split column out: a split is then made",
        )
    if "validation" not in given:
        every = len(given["train"])
        given["train"], given["validation"] = take_validation(given["train"], strata, groups, seed)
        notes.append(
            f"validation: a tenth of the training split, by class, duplicates together, seed {seed}"
            + _came_out([len(given["train"]) / every, len(given["validation"]) / every], (0.9, 0.1))
        )
    if "test" not in given:
        notes.append("there is no test split")
    return {split: given[split] for split in SPLITS if split in given}


def _made(
    index: RowIndex,
    strata: Rows,
    groups: Rows,
    classes: tuple[str, ...],
    complete: NDArray[np.bool_],
    least: int,
    seed: int,
    notes: list[str],
) -> dict[str, Rows]:
    rare = rare_labels(index.labels, groups, np.flatnonzero(complete), least)
    stay = np.array([not rare.keys().isdisjoint(labels) for labels in index.labels])
    stay = np.isin(groups, groups[stay])  # whole groups
    split = np.flatnonzero(~stay)
    if not len(split):
        raise RecipeError(
            f"no class has {least} independent samples: they cannot be split in train, validation and test",
            given=", ".join(f"{label!r} {count}" for label, count in list(rare.items())[:8]),
            fix="give the splits yourself in a column 'split'; samples of one image, text or group count as one",
        )
    if rare:
        shown = ", ".join(f"{label!r} ({count})" for label, count in list(rare.items())[:8])
        notes.append(
            f"classes with fewer than {least} independent samples stay in training: {shown}"
            + (f" and {len(rare) - 8} more" if len(rare) > 8 else "")
            + "; macro-F1 leaves out a class that a split neither has nor is answered with; "
            "--set rare_classes=drop leaves them out of the data"
        )
    own = _enough(strata[split], groups[split])
    where = np.zeros(len(groups), dtype=np.int64)
    for number, rows in enumerate(split_rows(own, groups[split], seed, (*classes, "no label")).splits().values()):
        where[split[rows]] = number
    rows = np.flatnonzero(complete & ~stay)  # what is left out fills no split
    places = filled(where[rows], strata[rows], groups[rows], seed)
    for number in (1, 2):
        where[np.isin(groups, groups[rows[places == number]])] = number
    seen = {label for row in np.flatnonzero(complete & (where == 0)).tolist() for label in index.labels[row]}
    for row in np.flatnonzero(complete).tolist():
        if not seen.issuperset(index.labels[row]):  # those in training have neither image nor text
            where[groups == groups[row]] = 0
            seen.update(index.labels[row])
    counts = np.bincount(where[complete], minlength=len(SPLITS))
    if not counts.all():
        empty = " and ".join(name for name, count in zip(SPLITS, counts, strict=True) if not count)
        raise RecipeError(
            f"there are too few independent samples for train, validation and test: none is left for {empty}",
            given=f"{counts.sum()} samples in {len(np.unique(groups[complete]))} groups; those of one image, text or "
            "group count as one",
            fix="give the splits yourself in a column 'split'",
        )
    notes.append(
        f"split 60/10/30 by class, duplicates together ({len(np.unique(groups[complete]))} groups), seed {seed}"
        + _came_out((counts / counts.sum()).tolist(), (0.6, 0.1, 0.3))
    )
    note_absent(
        index.labels, {name: np.flatnonzero(complete & (where == i)) for i, name in enumerate(SPLITS)}, rare, notes
    )
    return {name: np.flatnonzero(where == number) for number, name in enumerate(SPLITS)}


def _note_folders(index: RowIndex, notes: list[str]) -> None:
    """A note where the pictures lie in folders of splits, ``test/7.png``, that nothing else gives."""
    paths = [one for one in index.images if one is not None and one != "drawn"]
    if not paths:
        return
    above = os.path.commonpath([os.path.dirname(one) for one in paths])
    folders = sorted({PurePath(one).relative_to(above).parts[0] for one in paths})
    if len(folders) > 1 and all(map(is_split, folders)):
        notes.append(
            f"the images lie in folders {', '.join(folders)}, but no column gives the split: it is made anew; to "
            "keep theirs, write them in a column 'split'"
        )


def _came_out(shares: Sequence[float], asked: Sequence[float]) -> str:
    """What to add to a note where the shares of the splits are clearly not what was asked for."""
    if all(abs(one - other) <= _CLEARLY for one, other in zip(shares, asked, strict=True)):
        return ""
    return f"; it came out as {'/'.join(f'{100 * share:.0f}' for share in shares)}"


def _enough(strata: Rows, groups: Rows) -> Rows:
    """Strata with too few groups to be split, such as the samples of which a common label is the rarest, join the
    largest."""
    counts = {int(stratum): len(np.unique(groups[strata == stratum])) for stratum in np.unique(strata)}
    largest = max(counts, key=lambda one: counts[one])
    few = [stratum for stratum, count in counts.items() if count < LEAST]
    return np.where(np.isin(strata, few), largest, strata)


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
    for later, earlier in _LATER_EARLIER:
        if not {later, earlier} <= splits.keys():
            continue
        counts = [
            f"{count} by {what}"
            for what, keys in (("text", index.text_keys), ("image", index.image_keys))
            if (count := int(_shared(keys, splits[later], splits[earlier]).sum()))
        ]
        if counts:
            notes.append(f"duplicates: of {len(splits[later])} {later} samples, {earlier} has {' and '.join(counts)}")


def groups_across(groups: Sequence[Hashable | None], splits: dict[str, Rows], notes: list[str]) -> None:
    """Notes how many samples of a split are of a group that an earlier one has, too.

    Args:
        groups: (N,) as the data set gives them; None: of none.
        splits: as they are trained on.
        notes: appended to.
    """
    for later, earlier in _LATER_EARLIER:
        if {later, earlier} <= splits.keys() and (count := int(_shared(groups, splits[later], splits[earlier]).sum())):
            notes.append(
                f"groups: of {len(splits[later])} {later} samples, {count} are of a group that {earlier} has too; "
                "dedupe does not drop them"
            )


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


def _shared(keys: Sequence[Hashable | None], rows: Rows, others: Rows) -> NDArray[np.bool_]:
    known = {keys[row] for row in others} - {None}
    return np.array([keys[row] in known for row in rows], dtype=bool)


def _strata(numbers: list[Any], classes: int) -> Rows:
    """(N,) what a split keeps even: the class; of several labels the rarest; a stratum of its own for no label."""
    if not numbers or isinstance(numbers[0], int):
        return np.asarray(numbers, dtype=np.int64)
    counts = np.bincount([one for row in numbers for one in row], minlength=classes)
    return np.array([min(row, key=lambda one: counts[one]) if row else classes for row in numbers], dtype=np.int64)
