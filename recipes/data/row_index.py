"""The small columns of a data set, in memory: everything but texts and pictures."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mi2p_inject.recipes.data.duplicates import common_keys
from mi2p_inject.recipes.data.source_table import MAX_CHARACTERS, SourceTable
from mi2p_inject.recipes.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Hashable

    import datasets

__all__ = ["RowIndex", "examples", "read_row_index"]

_NAMED = 3  # examples in a note
_SMALL = ("id", "labels", "split", "group", "dropped", "text_hash", "text_key", "cells_hash", "repairs")


@dataclass
class RowIndex:
    """One entry a sample, in the order of the stored rows; rows that are no samples are left out.

    Attributes:
        stored_rows: (N,) the row in the stored data set.
        ids, labels, splits: as the loader gave them.
        images: path of the image, "drawn" for a drawn one, None for none.
        text_hashes: of the text, None for none.
        cells_hashes: of the cells of further columns, None for none.
        text_keys, image_keys: equal for duplicates; see `duplicates`.
        groups: the loader's keys, then merged with those of the duplicates into numbers.
        content: key of the content of the image file.
    """

    stored_rows: NDArray[np.int64]
    ids: list[str]
    labels: list[tuple[str, ...]]
    splits: list[str | None]
    images: list[str | None]
    text_hashes: list[str | None]
    cells_hashes: list[str | None]
    text_keys: list[str | None]
    groups: list[Any]
    image_keys: list[Hashable | None] = field(default_factory=list)
    content: list[str | None] = field(default_factory=list)

    def drop_common_keys(self, notes: list[str]) -> None:
        """Texts and images that very many samples share say nothing about duplicates: forget their keys."""
        for what, keys in (("text", self.text_keys), ("image", self.image_keys)):
            common = common_keys(keys)
            several = sum(key in common for key in keys)
            for row, key in enumerate(keys):
                if key in common:
                    keys[row] = None
            if common:
                notes.append(f"{several} samples share {len(common)} very common {what}(s), not taken as duplicates")


def read_row_index(table: SourceTable, stored: datasets.Dataset, notes: list[str]) -> RowIndex:
    """The small columns of the stored rows.

    Args:
        table: what the loader said.
        stored: by `source_table.store`.
        notes: what was dropped, cut or wrongly decoded is appended.

    Raises:
        RecipeError: there are no samples; two have the same id.
    """
    columns = stored.data
    small = {name: columns.column(name).to_pylist() for name in _SMALL}
    dropped = Counter(reason for reason in small["dropped"] if reason)
    notes += [f"left out: {count} rows: {reason}" for reason, count in dropped.most_common()]
    stored_rows = [row for row, reason in enumerate(small["dropped"]) if reason is None]
    if not stored_rows:
        raise RecipeError(
            f"{table.name} has no samples", given="; ".join(notes), fix="check the table: each row was left out"
        )
    ids = [small["id"][row] for row in stored_rows]
    _check_ids(ids, table.name)

    images = _pictures(stored) if table.drawn else columns.column("image").to_pylist()
    index = RowIndex(
        stored_rows=np.asarray(stored_rows, dtype=np.int64),
        ids=ids,
        labels=[tuple(small["labels"][row] or ()) for row in stored_rows],
        splits=[small["split"][row] for row in stored_rows],
        images=["drawn" if table.drawn and images[row] else images[row] for row in stored_rows],
        text_hashes=[small["text_hash"][row] for row in stored_rows],
        cells_hashes=[small["cells_hash"][row] for row in stored_rows],
        text_keys=[small["text_key"][row] for row in stored_rows],
        groups=[small["group"][row] for row in stored_rows],
    )
    if table.drawn:
        index.image_keys = [images[row] for row in stored_rows]
        index.content = [images[row] for row in stored_rows]
    for column, what, fix in (
        ("mojibake", "texts were decoded with a wrong character set", "; --set repair_text=true undoes it"),
        ("cut", f"texts were cut after {MAX_CHARACTERS} characters", ""),
    ):
        marks = columns.column(column).to_pylist()
        if rows := [row for row in stored_rows if marks[row]]:
            notes.append(f"{len(rows)} {what} ({examples([small['id'][row] for row in rows])}){fix}")
    repaired: dict[str, list[str]] = {}
    for row in stored_rows:
        for reason in small["repairs"][row] or ():
            repaired.setdefault(reason, []).append(small["id"][row])
    notes += [f"{len(found)} rows with {reason} ({examples(found)})" for reason, found in repaired.items()]
    return index


def examples(names: list[str]) -> str:
    """``"such as a, b, c"``: the first few."""
    return "such as " + ", ".join(names[:_NAMED])


def _check_ids(ids: list[str], name: str) -> None:
    if len(set(ids)) < len(ids):
        twice = [one for one, count in Counter(ids).items() if count > 1]
        raise RecipeError(
            f"{name}: {len(twice)} ids are not unique, {examples(twice)}",
            fix="take out the doubled rows; a table can do without an id column, its rows are then numbered",
        )


def _pictures(stored: datasets.Dataset) -> list[str | None]:
    """Keys of drawn pictures."""
    keys: list[str | None] = []
    for batch in stored.data.column("image").chunks:
        for row in batch:
            content = row["bytes"].as_py() if row.is_valid else None
            keys.append(content and hashlib.blake2b(content, digest_size=16).hexdigest())
    return keys
