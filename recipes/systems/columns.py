"""Columns of numbers and categories as a source of their own, beside the other modality."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mi2p_inject.core.registry import closest
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.sources.cells import category_in, number_in
from mi2p_inject.sources.columns import MOST_DEVIATIONS, Columns

if TYPE_CHECKING:
    from mi2p_inject.recipes.config import Config, DataConfig
    from mi2p_inject.recipes.data import Samples

__all__ = [
    "COLUMNS",
    "COLUMNS_FILE",
    "Cells",
    "by_column",
    "cells_batch",
    "cells_inputs",
    "cells_of",
    "check_columns",
    "column_notes",
    "fit_columns",
    "given_cells",
    "load_columns",
    "shown_cell",
    "shown_cells",
    "unusual_cells",
]

#: name of the source, and of what a sample has of it in batches and in the reading check
COLUMNS = "columns"
#: what `fit_columns` found, beside a run's weights
COLUMNS_FILE = "columns.json"
_WIDEST = 1024
_FEW = 10  # categories that are never too many

Cells = tuple[Sequence[float | None], Sequence[str | None]]
"""The numbers and the categories of a sample."""


def check_columns(config: Config) -> None:
    """That columns are named once, for a model that reads them.

    Raises:
        RecipeError: a column is named twice, or the model attends to none.
    """
    names = config.data.column_names
    if twice := [name for name in names if names.count(name) > 1]:
        raise RecipeError(
            f"the column {twice[0]!r} is named twice",
            expected="each column once, in numeric_cols or in categorical_cols",
            given=", ".join(names),
            fix="leave it out of one",
        )
    if names and not config.model.system.attends:
        raise RecipeError(
            f"model {config.model.model!r} reads no columns",
            expected="an expanded model, which attends to them: me-vision, me-text, me-fusion, me-vision+text, "
            "vision+me-text",
            given=f"numeric_cols and categorical_cols: {', '.join(names)}",
            fix="train one of them, or leave numeric_cols and categorical_cols out",
        )


def fit_columns(config: Config, samples: Samples) -> Columns | None:
    """What the training split tells of the columns that a configuration names; None where it names none.

    Raises:
        SourceError: a column is empty in all training samples, or has too many categories.
    """
    names = config.data.column_names
    if not names:
        return None
    numeric, categorical = config.data.columns_by_kind
    train = samples.splits["train"].select_columns(["numbers", "categories"])
    rows = (by_column(names, (row["numbers"], row["categories"])) for row in train)
    return Columns.fit(rows, numeric=numeric, categorical=categorical)


def column_notes(columns: Columns | None, samples: Samples) -> tuple[str, ...]:
    """What a user should know of the columns before they are trained on: missing cells, categories of no use.

    Args:
        columns: what `fit_columns` found; None: there are none.
        samples: the data.
    """
    if columns is None:
        return ()
    found: list[str] = []
    for split, rows in samples.splits.items():
        missing, unseen = Counter[str](), Counter[str]()
        for row in rows.select_columns(["numbers", "categories"]):
            for name, cell in by_column(columns.names, (row["numbers"], row["categories"])).items():
                missing[name] += cell is None
                unseen[name] += name in columns.categorical and cell is not None and not columns.knows(name, cell)
        found += [f"column {name!r}: missing in {n} of {len(rows)} {split} samples" for name, n in (+missing).items()]
        found += [
            f"column {name!r}: {n} of {len(rows)} {split} samples have a category that training did not have"
            for name, n in (+unseen).items()
        ]
        found += [
            f"column {name!r}: {len(known)} categories in {len(rows) - missing[name]} training cells: so many say "
            "little of new samples; give it as numeric, or leave it out"
            for name, known in columns.categorical.items()
            if split == "train" and len(known) > max(_FEW, (len(rows) - missing[name]) / 2)
        ]
    return tuple(found)


def load_columns(path: Path, config: DataConfig) -> Columns | None:
    """What `fit_columns` found, from a run's file; None where the configuration names no column.

    Raises:
        RecipeError: it is of other columns, or wider than any of ours.
        SourceError: it is absent or damaged.
    """
    if not config.column_names:
        return None
    found = Columns.load(path)
    if found.names != config.column_names or found.width > _WIDEST:
        raise RecipeError(
            f"{path} does not fit the settings of its run",
            expected=", ".join(config.column_names),
            given=f"{', '.join(found.names)}; {found.width} wide"[:200],
            fix="copy the run folder again",
        )
    return found


def cells_batch(columns: Columns, samples: Sequence[Cells | None]) -> dict[str, Tensor]:
    """The cells of samples as tensors of a batch.

    Args:
        columns: of the training.
        samples: the cells of each, in the order of `columns`; None: it has none.

    Returns:
        ``column_numbers`` (B, N), ``column_codes`` (B, C) and ``columns_present`` (B,) bool.
    """
    names = columns.names
    nothing: dict[str, Any] = dict.fromkeys(names)
    rows = [nothing if one is None else by_column(names, one) for one in samples]
    found = columns.batch(rows)
    return {
        "column_numbers": found["numbers"],
        "column_codes": found["codes"],
        f"{COLUMNS}_present": torch.tensor([one is not None for one in samples]),
    }


def by_column(names: Sequence[str], cells: Cells) -> dict[str, Any]:
    """The cells of a sample by the names of their columns, those of numbers first."""
    return dict(zip(names, (*cells[0], *cells[1]), strict=True))


def cells_of(row: Mapping[str, Any]) -> Cells | None:
    """The numbers and categories of a row of `Samples`; None where its data have no such columns."""
    numbers, categories = row.get("numbers") or [], row.get("categories") or []
    return (numbers, categories) if numbers or categories else None


def shown_cells(names: Sequence[str], cells: Cells | None) -> tuple[tuple[str, str], ...]:
    """(column, cell as it is written) of a sample; "" for a missing one; () where it has none, or no name is given.

    Examples:
        >>> shown_cells(["grams", "town"], ([600.0], [None]))
        (('grams', '600'), ('town', ''))
    """
    if not names or cells is None:
        return ()
    return tuple((name, shown_cell(cell)) for name, cell in by_column(names, cells).items())


def shown_cell(cell: float | str | None) -> str:
    """A cell as a reader expects it: 600 rather than 600.0."""
    return "" if cell is None else f"{cell:.10g}" if isinstance(cell, float) else str(cell)


def unusual_cells(columns: Columns, cells: Cells) -> Iterator[tuple[str, str]]:
    """(what is unusual, the cell) of each cell of a sample that training had nothing like.

    Examples:
        >>> columns = Columns({"grams": (600.0, 20.0)}, {"town": ("Bern",)})
        >>> list(unusual_cells(columns, ([9000.0], ["Olten"])))
        [("column 'grams': further than 10 deviations from training's mean, and counts as 10", '9000'), \
("column 'town': a category that training did not have", 'Olten')]
    """
    given = by_column(columns.names, cells)
    for name, (mean, deviation) in columns.numeric.items():
        if given[name] is not None and abs(given[name] - mean) > MOST_DEVIATIONS * deviation:
            most = f"{MOST_DEVIATIONS:g}"
            yield (
                f"column {name!r}: further than {most} deviations from training's mean, and counts as {most}",
                shown_cell(given[name]),
            )
    for name in columns.categorical:
        if given[name] is not None and not columns.knows(name, given[name]):
            yield f"column {name!r}: a category that training did not have", given[name]


def given_cells(columns: Columns | None, given: Mapping[str, Any] | None) -> Cells | None:
    """The cells that somebody names for one sample; those that are not named are missing; None where none is given.

    Args:
        columns: those that a model reads; None: none.
        given: cells by name.

    Raises:
        RecipeError: a name that no column has, or the model reads none.
        SourceError: no number where there must be one.
    """
    if not given:
        return None
    if columns is None:
        raise RecipeError(
            "this model reads no columns",
            expected="an image and a text",
            given=f"columns {', '.join(map(str, given))}",
            fix="leave them out, or train with numeric_cols and categorical_cols",
        )
    for name in given:
        if name not in columns.names:
            raise RecipeError(
                f"this model reads no column {name!r}",
                expected=f"some of {', '.join(columns.names)}",
                given=", ".join(map(str, given)),
                fix=closest(str(name), list(columns.names)),
            )
    numbers = [number_in(given.get(name), f"the cell of the numeric column {name!r}") for name in columns.numeric]
    return numbers, [category_in(given.get(name)) for name in columns.categorical]


def cells_inputs(batch: Any) -> dict[str, Tensor]:
    """What the encoder of columns is called with, of such a batch."""
    return {"numbers": batch["column_numbers"], "codes": batch["column_codes"]}
