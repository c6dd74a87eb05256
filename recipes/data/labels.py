"""From names of labels to numbers, and the label columns that nothing can be learned from."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mi2p_inject.recipes.errors import RecipeError

__all__ = ["check_seen_in_training", "classes_of", "note_capitals", "number_labels"]

_FLOAT = re.compile(r"[+-]?(\d+\.\d*|\.\d+|\d+(\.\d*)?[eE][+-]?\d+|inf|nan)", re.IGNORECASE)
_INTEGER = re.compile(r"[+-]?\d{1,100}")  # Python reads no more than 4,300 digits
_MANY_CLASSES = 20  # from here on, a class for every second sample is no class


def classes_of(labels: Sequence[tuple[str, ...]], name: str) -> tuple[str, ...]:
    """The labels that occur, sorted: whole numbers by value, names by alphabet.

    Args:
        labels: of each sample.
        name: of the data set, for messages.

    Raises:
        RecipeError: they are floats; there is one class; there is one for every second sample.
    """
    found = {label for row in labels for label in row}
    if any(map(_FLOAT.fullmatch, found)) and all(_FLOAT.fullmatch(one) or _INTEGER.fullmatch(one) for one in found):
        raise RecipeError(
            f"{name}: the labels are floats: classification needs classes",
            expected="names or whole numbers",
            given=", ".join(sorted(found)[:5]),
            fix="whole numbers that a missing value turned into floats: df[label].astype('Int64'); measurements: bin "
            "them; version-like names: write them as v1.5",
        )
    if len(found) < 2:
        raise RecipeError(
            f"{name}: {_one_class(found)}",
            expected="two classes or more",
            fix="add samples of another class, or name the label column: --label-col",
        )
    if len(found) > max(_MANY_CLASSES, len(labels) / 2):
        raise RecipeError(
            f"{name}: {len(found)} different labels in {len(labels)} samples: is this the label column?",
            given=", ".join(repr(one[:40]) for one in sorted(found)[:3]),
            fix="give the column of the class in --label-col",
        )
    whole = all(map(_INTEGER.fullmatch, found))
    return tuple(sorted(found, key=lambda one: (int(one), one) if whole else (0, one)))


def note_capitals(classes: Sequence[str], notes: list[str]) -> None:
    """A note where classes differ in capitals alone, as of two people who wrote them.

    Args:
        classes: names.
        notes: appended to.

    Examples:
        >>> notes = []
        >>> note_capitals(["Cat", "cat", "dog"], notes)
        >>> notes
        ["classes that differ in capitals alone: 'Cat', 'cat'; are they one?"]
    """
    counts = Counter(one.casefold() for one in classes)
    if alike := sorted((one for one in classes if counts[one.casefold()] > 1), key=lambda one: (one.casefold(), one)):
        shown = ", ".join(map(repr, alike[:8])) + (", ..." if len(alike) > 8 else "")
        notes.append(f"classes that differ in capitals alone: {shown}; are they one?")


def number_labels(
    labels: Sequence[tuple[str, ...]], ids: Sequence[str], classes: tuple[str, ...], multi_label: bool, name: str
) -> list[int] | list[list[int]]:
    """Each sample's class number, or sorted class numbers.

    Raises:
        RecipeError: a sample has no label or several where it must have one; a label is none of the classes.
    """
    number = {label: i for i, label in enumerate(classes)}
    if unknown := Counter(label for row in labels for label in row if label not in number):
        raise RecipeError(
            f"{name}: labels that are none of the {len(classes)} classes: {_counted(unknown)}",
            expected=", ".join(classes[:30]) + (", ..." if len(classes) > 30 else ""),
            fix="correct them, or train with them",
        )
    if multi_label:
        return [sorted({number[label] for label in row}) for row in labels]
    for what, wrong in (("no label", 0), ("several labels", 2)):
        bad = [i for i, row in enumerate(labels) if min(len(row), 2) == wrong]
        if bad:
            raise RecipeError(
                f"{name}: {len(bad)} of {len(labels)} samples have {what}: {', '.join(ids[i] for i in bad[:5])}",
                fix="give each one label, or take these rows out",
            )
    return [number[row[0]] for row in labels]


def check_seen_in_training(
    labels: Sequence[tuple[str, ...]],
    splits: dict[str, NDArray[np.int64]],
    classes: tuple[str, ...],
    name: str,
    dropped: int = 0,
) -> None:
    """A label that training never saw cannot be predicted.

    Args:
        labels: of all samples.
        splits: name -> rows; nothing is checked without a "train".
        classes: all labels.
        name: of the data set, for messages.
        dropped: training samples that ``dedupe`` left out, because other splits have them.

    Raises:
        RecipeError: a label is in validation or test only; there is one class in training.
    """
    if "train" not in splits:
        return
    left_out = f"; dedupe dropped {dropped} training samples that other splits have too" if dropped else ""
    otherwise = ", or leave dedupe out" if dropped else ""
    if dropped and not len(splits["train"]):
        raise RecipeError(
            f"{name}: no training sample is left: dedupe dropped all {dropped}, which other splits have too",
            fix="take the duplicates out of validation and test, or leave dedupe out",
        )
    seen = {split: Counter(label for i in rows for label in labels[i]) for split, rows in splits.items()}
    for split, counts in seen.items():
        unseen = Counter({label: count for label, count in counts.items() if label not in seen["train"]})
        if unseen:
            raise RecipeError(
                f"{name}: labels in {split} that no training sample has: {_counted(unseen)}",
                given=f"in training: {_counted(seen['train']) or 'no labels'}{left_out}",
                fix=f"correct the labels, move samples to the training split, or take these out{otherwise}",
            )
    if len(seen["train"]) < 2:
        raise RecipeError(
            f"{name}: training: {_one_class(set(seen['train']))}{left_out}",
            expected="two classes or more",
            fix=f"check the split column: training needs samples of two classes{otherwise}",
        )


def _counted(counts: Counter[str], most: int = 8) -> str:
    shown = ", ".join(f"{label!r} ({count})" for label, count in counts.most_common(most))
    return shown + (f" and {len(counts) - most} more" if len(counts) > most else "")


def _one_class(found: set[str]) -> str:
    return f"one class only, {next(iter(found))!r}" if found else "no sample has a label"
