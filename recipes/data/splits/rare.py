"""Classes with too few samples to be in each split."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mi2p_inject.recipes.data.row_index import RowIndex
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["drop_rare", "note_absent", "rare_labels"]


def rare_labels(
    labels: Sequence[tuple[str, ...]], groups: NDArray[np.int64], rows: NDArray[np.int64], least: int
) -> dict[str, int]:
    """The labels with fewer than ``least`` groups, and how many they have, the rarest first.

    Args:
        labels: of all samples.
        groups: (N,) samples of one group count as one.
        rows: numbers of the samples that are counted.
        least: groups that a label must have.

    Examples:
        >>> rare_labels([("a",), ("b",), ("a",)], np.array([0, 1, 2]), np.array([0, 1, 2]), 2)
        {'b': 1}
    """
    found: dict[str, set[int]] = {}
    for row in rows.tolist():
        for label in labels[row]:
            found.setdefault(label, set()).add(int(groups[row]))
    counts = sorted((len(own), label) for label, own in found.items() if len(own) < least)
    return {label: count for count, label in counts}


def drop_rare(index: RowIndex, complete: NDArray[np.bool_], least: int, notes: list[str]) -> NDArray[np.bool_]:
    """(N,) which samples stay when rare labels are left out: all but those that had no other label.

    Args:
        index: its labels lose the rare ones.
        complete: (N,) the samples that are counted.
        least: independent samples that a label must have.
        notes: what was left out is appended.
    """
    groups = np.asarray(index.groups, dtype=np.int64)
    rare = rare_labels(index.labels, groups, np.flatnonzero(complete), least)
    stay = np.ones(len(complete), dtype=bool)
    if not rare:
        return stay
    for row, found in enumerate(index.labels):
        left = tuple(label for label in found if label not in rare)
        stay[row] = bool(left) or not found
        index.labels[row] = left or found
    if not any(index.labels[row] for row in np.flatnonzero(complete & stay)):
        raise RecipeError(
            f"rare_classes=drop leaves no class: none has {least} independent samples",
            expected=f"classes with {least} independent samples or more",
            given=", ".join(f"{label!r} {count}" for label, count in list(rare.items())[:8]),
            fix="lower min_class_samples, or add samples",
        )
    _forget(index, stay)
    shown = ", ".join(f"{label!r} ({count})" for label, count in list(rare.items())[:8])
    notes.append(
        f"left out: classes with fewer than {least} independent samples: {shown}"
        + (f" and {len(rare) - 8} more" if len(rare) > 8 else "")
        + f"; {int((~stay).sum())} samples had no other label"
    )
    return stay


def note_absent(
    labels: Sequence[tuple[str, ...]],
    splits: Mapping[str, NDArray[np.int64]],
    rare: Container[str],
    notes: list[str],
) -> None:
    """A note on each split that was made without a sample of some class: its figures say nothing of that class.

    Args:
        labels: of all samples.
        splits: name -> rows.
        rare: labels that another note tells of.
        notes: appended to.
    """
    found = {split: {label for row in rows.tolist() for label in labels[row]} for split, rows in splits.items()}
    for split, own in found.items():
        if absent := sorted(one for one in set().union(*found.values()) - own if one not in rare):
            shown = ", ".join(map(repr, absent[:8])) + (f" and {len(absent) - 8} more" if len(absent) > 8 else "")
            notes.append(f"{split} has no sample of {shown}")


def _forget(index: RowIndex, stay: NDArray[np.bool_]) -> None:
    """Samples that are left out get a label that others have, so that it makes no class of its own."""
    some = next((index.labels[row] for row in np.flatnonzero(stay) if index.labels[row]), ())
    for row in np.flatnonzero(~stay).tolist():
        index.labels[row] = some[:1]
