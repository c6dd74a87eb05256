"""What every loader ends in, and all that training needs to know about data."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from mi2p_inject.recipes.data.images import image_problem

if TYPE_CHECKING:
    import datasets

__all__ = ["SPLITS", "Samples", "present", "readable", "with_text"]

#: names of the splits, in the order in which they are shown
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Samples:
    """Image-text samples with labels, of a train, validation and test split; rows on disk, images unopened.

    Attributes:
        splits: ``"train"``, ``"validation"``, ``"test"`` (those that exist) -> a memory-mapped `datasets.Dataset` with
            the columns ``id`` (str), ``image`` (str path or None; a `datasets.Image` where the loader draws its own
            pictures), ``text`` (str or None), ``label`` (int; list of int if ``multi_label``; None if unlabelled) and
            ``group`` (str: samples of one group are duplicates or variants of one another); and where further columns
            are read ``numbers`` and ``categories`` (lists of float, and of str, or None where a cell is missing).
        classes: name of each label.
        multi_label: a sample has any number of labels.
        notes: what a user should know: counts, differences from published ones, what was missing, bad or dropped.
        fingerprint: changes with the content and with the options that made it. Images enter by name and size.
        cells_fingerprint: of ``numbers`` and ``categories``; "" where there are none.
    """

    splits: dict[str, datasets.Dataset]
    classes: tuple[str, ...]
    multi_label: bool
    notes: tuple[str, ...]
    fingerprint: str
    cells_fingerprint: str = ""

    @property
    def modalities(self) -> frozenset[Literal["image", "text"]]:
        """Which of ``"image"`` and ``"text"`` at least one sample has."""
        kinds: tuple[Literal["image", "text"], ...] = ("image", "text")
        return frozenset(
            kind
            for kind in kinds
            if any(
                batch.column(kind).null_count < batch.num_rows
                for split in self.splits.values()
                for batch in split.select_columns(kind).with_format("arrow").iter(1000)
            )
        )

    def targets(self, split: str) -> NDArray[np.int64]:
        """Labels of a split: (N,) class numbers, or (N, classes) of 0 and 1 if ``multi_label``.

        Raises:
            KeyError: there is no such split.
        """
        labels = self.splits[split]["label"]
        if not self.multi_label:
            return np.asarray(labels[:], dtype=np.int64)
        table = np.zeros((len(labels), len(self.classes)), dtype=np.int64)
        for row, numbers in enumerate(labels):
            table[row, list(numbers)] = 1
        return table


def with_text(rows: datasets.Dataset) -> NDArray[np.bool_]:
    """(N,) whether each row has a text, read a thousand rows at a time: all texts may be more than the memory holds."""
    found = [
        [bool(text and text.strip()) for text in batch.column("text").to_pylist()]
        for batch in rows.select_columns(["text"]).with_format("arrow").iter(1000)
    ]
    return np.asarray([one for batch in found for one in batch], dtype=np.bool_)


def present(rows: datasets.Dataset, modality: str) -> NDArray[np.bool_]:
    """(N,) whether each row has a text, or a picture that can be read."""
    return with_text(rows) if modality == "text" else readable(rows)


def readable(rows: datasets.Dataset) -> NDArray[np.bool_]:
    """(N,) whether each row has a picture that can be read: a bad one counts as missing."""
    images = rows.select_columns(["image"]).with_format("arrow")[:].column("image")
    found: NDArray[np.bool_] = images.is_valid().to_numpy(zero_copy_only=False)
    if rows.features["image"].dtype != "string":  # pictures that a loader drew itself
        return found
    with ThreadPoolExecutor(8) as pool:
        good = list(pool.map(lambda path: path is not None and image_problem(path) is None, images.to_pylist()))
    return np.asarray(good, dtype=np.bool_)
