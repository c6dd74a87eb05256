"""From stored rows to `Samples`: labels numbered, missing and bad ones counted, splits made, differences reported."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mi2p_inject.recipes.characters import composed
from mi2p_inject.recipes.data.check_modalities import check_images, check_read_in_training, complete_rows
from mi2p_inject.recipes.data.duplicates import merge_groups
from mi2p_inject.recipes.data.labels import check_seen_in_training, classes_of, note_capitals, number_labels
from mi2p_inject.recipes.data.row_index import RowIndex, read_row_index
from mi2p_inject.recipes.data.samples import Samples
from mi2p_inject.recipes.data.source_table import SourceTable
from mi2p_inject.recipes.data.splits.assign import (
    Rows,
    assign_splits,
    duplicates_across,
    given_splits,
    groups_across,
    report_sizes,
    without_duplicates,
)
from mi2p_inject.recipes.data.splits.rare import drop_rare
from mi2p_inject.recipes.data.splits.stratified import LEAST
from mi2p_inject.recipes.data.tables.cells import check_labels
from mi2p_inject.recipes.data.values import visible

if TYPE_CHECKING:
    import datasets

__all__ = ["Choices", "build_samples"]


@dataclass(frozen=True)
class Choices:
    """What the user decides about the rows; `load_data` explains each."""

    missing: Literal["keep", "drop"] = "keep"
    check_images: Literal["some", "all"] = "some"
    on_bad_image: Literal["missing", "error"] = "missing"
    dedupe: Literal["none", "exact", "near"] = "none"
    seed: int = 0
    classes: tuple[str, ...] | None = None
    labelled: bool = True
    min_class_samples: int = LEAST
    rare_classes: Literal["keep", "drop"] = "keep"


def build_samples(table: SourceTable, stored: datasets.Dataset, choices: Choices) -> Samples:
    """The samples of a data set.

    Args:
        table: what the loader said about it.
        stored: its rows, by `source_table.store`.
        choices: the user's.

    Raises:
        RecipeError: there is nothing to learn from these rows; the message says why.
    """
    notes = list(table.notes)
    training = choices.classes is None and choices.labelled
    index = read_row_index(table, stored, notes)

    multi_label = table.multi_label if table.multi_label is not None else any(len(one) > 1 for one in index.labels)
    if choices.labelled:
        check_labels(index.labels, table.multi_label, table.name)
    classes, numbers = _numbered(index, table, choices, multi_label)  # before seconds of opening images

    check_images(index, choices.check_images, choices.on_bad_image, alike=choices.dedupe == "near", notes=notes)
    index.drop_common_keys(notes)
    own_groups = index.groups
    index.groups = merge_groups(own_groups, index.text_keys, index.image_keys)
    complete = complete_rows(index, table, choices.missing, training, notes)
    if not choices.labelled:
        complete[:] = True  # an answer for every row
    if training and choices.rare_classes == "drop" and table.classes is None:
        complete &= drop_rare(index, complete, max(choices.min_class_samples, LEAST), notes)
        classes, numbers = _numbered(index, table, choices, multi_label)

    if training:
        note_capitals(classes, notes)
        least = max(choices.min_class_samples, LEAST)
        splits = assign_splits(index, numbers, classes, complete, least, choices.seed, notes)
    else:
        splits = given_splits(index) or {"test": np.arange(len(index.ids))}
    report_sizes(splits, table.published, notes)
    splits = {name: rows[complete[rows]] for name, rows in splits.items()}
    duplicates_across(index, splits, notes)
    before = len(splits.get("train", ()))
    if choices.dedupe != "none":
        splits = without_duplicates(index, splits, notes)
    groups_across(own_groups, splits, notes)
    if training:
        check_seen_in_training(index.labels, splits, classes, table.name, before - len(splits["train"]))
        check_read_in_training(index, table, splits)

    data = _with_columns(stored, index, numbers, multi_label, drawn=table.drawn, cells=table.cells)
    return Samples(
        splits={name: data.select(index.stored_rows[rows]) for name, rows in splits.items() if len(rows)},
        classes=classes,
        multi_label=multi_label,
        notes=(*notes, *_contents(splits, index)),
        fingerprint=_fingerprint(index, splits, numbers, classes),
        cells_fingerprint=_cells_fingerprint(index, splits) if table.cells else "",
    )


def _numbered(
    index: RowIndex, table: SourceTable, choices: Choices, multi_label: bool
) -> tuple[tuple[str, ...], list[Any]]:
    """The classes, and the number or numbers of each sample; None where labels are not read."""
    if not choices.labelled:
        return tuple(map(_name, choices.classes or ())), [None] * len(index.ids)
    classes = tuple(map(_name, choices.classes or table.classes or classes_of(index.labels, table.name)))
    return classes, number_labels(index.labels, index.ids, classes, multi_label, table.name)


def _with_columns(
    stored: datasets.Dataset, index: RowIndex, numbers: list[Any], multi_label: bool, drawn: bool, cells: bool
) -> datasets.Dataset:
    """All stored rows, with the columns of `Samples`: the texts stay on disk, the new columns are small."""
    import datasets

    def spread(values: list[Any]) -> list[Any]:
        column: list[Any] = [None] * len(stored)
        for row, value in zip(index.stored_rows.tolist(), values, strict=True):
            column[row] = value
        return column

    number, text = datasets.Value("int64"), datasets.Value("string")
    new: dict[str, tuple[list[Any], Any]] = {
        "label": (spread(numbers), datasets.List(number) if multi_label else number),
        "group": (spread([str(group) for group in index.groups]), text),
    }
    if not drawn:
        new["image"] = (spread(index.images), text)
    further = ["numbers", "categories"] if cells else []
    data = stored.select_columns(["id", "text", *(["image"] if drawn else []), *further])
    for name, (column, feature) in new.items():
        data = data.add_column(name, column, new_fingerprint=f"{stored._fingerprint}-{name}", feature=feature)
    return data.select_columns(["id", "image", "text", "label", "group", *further])


def _contents(splits: dict[str, Rows], index: RowIndex) -> list[str]:
    lines = [", ".join(f"{len(rows)} {name}" for name, rows in splits.items()) + " samples"]
    if "train" in splits:
        counts = Counter(label for row in splits["train"] for label in index.labels[row])
        shown = ", ".join(f"{label} {count}" for label, count in counts.most_common(30))
        lines.append(f"classes in training: {shown}" + (" ..." if len(counts) > 30 else ""))
    return lines


def _name(label: str) -> str:
    """The name of a class as the rows of a table have it."""
    return visible(composed(label))


def _fingerprint(index: RowIndex, splits: dict[str, Rows], numbers: list[Any], classes: tuple[str, ...]) -> str:
    digest = hashlib.sha256(repr(classes).encode(errors="replace"))
    for name, rows in splits.items():
        digest.update(name.encode())
        for row in rows.tolist():
            one = (index.ids[row], index.content[row], index.text_hashes[row], numbers[row])
            digest.update(repr(one).encode(errors="replace"))
    return digest.hexdigest()[:32]


def _cells_fingerprint(index: RowIndex, splits: dict[str, Rows]) -> str:
    found = [(name, [index.cells_hashes[row] for row in rows.tolist()]) for name, rows in splits.items()]
    return hashlib.sha256(repr(found).encode()).hexdigest()[:32]
