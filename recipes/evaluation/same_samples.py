"""Whether several runs are tested on the same samples: only then is there a mean to test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from mi2p_inject.recipes.config import DataConfig
from mi2p_inject.recipes.data import Samples
from mi2p_inject.recipes.data.row_index import examples
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.saving.saved import SavedRun

__all__ = ["check_same_samples"]

_ROWS = ("missing", "on_bad_image", "check_images", "dedupe", "id_col", "split_col", "task", "rare_classes")
"""Options that say which samples a table has, and how they are called."""


def check_same_samples(
    runs: Sequence[SavedRun], read: Sequence[tuple[DataConfig, Samples]], split: str, *, new: bool
) -> None:
    """Refuse a mean over samples that are not the same, as of runs that split their data otherwise.

    Ids alone do not tell: rows without any are numbered, and those of another table have the same numbers. Labels must
    be equal too, and texts and names of pictures where the runs read the same columns.

    Args:
        runs: two or more.
        read: of each, how its samples were read, and what they are.
        split: which of them are tested on.
        new: whether they are of data that no run was trained on.

    Raises:
        RecipeError: they are not the same.
    """
    (first, samples), *others = read
    ours = samples.splits[split]
    for run, (data, one) in zip(runs[1:], others, strict=True):
        theirs = one.splits[split]
        if list(ours["id"][:]) != list(theirs["id"][:]):
            raise _others(runs, run, ours, theirs, split, [data for data, _ in read], new=new)
        for what, column, options in (
            ("labels", "label", ("label_col",)),
            ("texts", "text", ("text_col", "repair_text")),
            ("images", "image", ("image_col",)),
        ):
            alike = all(getattr(first, name) == getattr(data, name) for name in options)
            if (alike or column == "label") and (row := _first_other(ours, theirs, column)) is not None:
                raise RecipeError(
                    f"the runs have other {what} in the split {split!r}, so there is no mean to test",
                    expected=f"the {what} of {runs[0].path}",
                    given=f"others in {run.path}, such as of the sample {ours[row]['id']}",
                    fix=_fix([] if alike else [*options], [data for data, _ in read], new=new),
                )


def _others(
    runs: Sequence[SavedRun],
    run: SavedRun,
    ours: Any,
    theirs: Any,
    split: str,
    read: Sequence[DataConfig],
    *,
    new: bool,
) -> RecipeError:
    here, there = (list(rows["id"][:]) for rows in (ours, theirs))
    only = [name for name in dict.fromkeys([*here, *there]) if (name in set(here)) != (name in set(there))]
    such = f" ({examples(only)} not in both)" if only else ", in another order"
    return RecipeError(
        f"the runs have other samples in the split {split!r}, so there is no mean to test",
        expected=f"the {len(here)} of {runs[0].path}",
        given=f"{len(there)} in {run.path}, {len(set(here) & set(there))} of them the same{such}",
        fix=_fix(_ROWS, read, new=new, leave=f"leave out the rows that one of them cannot read, {examples(only)}"),
    )


def _fix(options: Sequence[str], read: Sequence[DataConfig], *, new: bool, leave: str = "") -> str:
    """What makes the samples of new data the same, or which data have the same ones."""
    if not new:
        return "name labelled data that none was trained on: --data other.csv; or train them on one split"
    differ = {name: getattr(read[0], name) for name in options if len({getattr(one, name) for one in read}) > 1}
    if "missing" in options and any(one.missing == "drop" for one in read):
        differ["missing"] = "keep"
    named = [f"--set {name}={'null' if value is None else value}" for name, value in differ.items()]
    return f"read them alike: {' '.join(named)}" if named else leave or "name the same labels in all of them"


def _first_other(ours: Any, theirs: Any, column: str) -> int | None:
    """The first row in which a cell differs that both have; None where there is none."""
    for row, (one, other) in enumerate(zip_longest(_cells(ours, column), _cells(theirs, column))):
        if one is not None and other is not None and one != other:
            return row
    return None


def _cells(rows: Any, column: str) -> Iterator[Any]:
    """A column a thousand rows at a time; of pictures the files' names, for a copy has another folder."""
    if column == "image" and rows.features["image"].dtype != "string":  # drawn by the loader
        return
    for batch in rows.select_columns([column]).with_format("arrow").iter(1000):
        for cell in batch.column(column).to_pylist():
            yield Path(cell).name if column == "image" and cell is not None else cell
