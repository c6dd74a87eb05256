"""What `datasets` knows of a table's columns and the cells do not say: the names of classes, the files of pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mi2p_inject.recipes.errors import RecipeError

__all__ = ["class_names", "features_of_parquet", "rows_of_datasets", "with_names"]


def class_names(features: Mapping[str, Any]) -> dict[str, Sequence[str]]:
    """The names of classes of each column that has them, one number or a list of numbers a cell.

    Args:
        features: name of a column -> its feature as `datasets.Features.to_dict` writes it.

    Examples:
        >>> class_names({"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}, "text": {"dtype": "string"}})
        {'label': ['cat', 'dog']}
    """
    inner = {name: one.get("feature", one) for name, one in features.items() if isinstance(one, Mapping)}
    return {
        name: one["names"]
        for name, one in inner.items()
        if isinstance(one, Mapping) and one.get("_type") == "ClassLabel"
    }


def with_names(row: Mapping[str, Any], names: Mapping[str, Sequence[str]], where: str) -> dict[str, Any]:
    """The row with the names of classes for their numbers; -1, which stands for no label, becomes None.

    Raises:
        RecipeError: a number that has no name.

    Examples:
        >>> with_names({"label": 1, "text": "a dog"}, {"label": ["cat", "dog"]}, "row 1")
        {'label': 'dog', 'text': 'a dog'}
    """
    return {
        column: _named(cell, names[column], f"{where}: column {column!r}") if column in names else cell
        for column, cell in row.items()
    }


def _named(cell: Any, names: Sequence[str], where: str) -> Any:
    if hasattr(cell, "tolist"):  # of a data set in the format of numpy or torch
        cell = cell.tolist()
    if isinstance(cell, list | tuple):
        return [_named(one, names, where) for one in cell]
    if not isinstance(cell, int) or cell == -1:
        return None if cell == -1 else cell
    if not 0 <= cell < len(names):
        raise RecipeError(
            f"{where} holds the class number {cell}",
            expected=f"0 to {len(names) - 1}, of the {len(names)} names that the column has",
            fix="correct the number, or write the name of the class",
        )
    return names[cell]


def features_of_parquet(metadata: Mapping[bytes, bytes] | None) -> Mapping[str, Any]:
    """The features that `datasets` writes into the schema of a Parquet file; empty if another program wrote it."""
    try:
        found = json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, Mapping) else {}


def rows_of_datasets(data: Any, where: str) -> Iterator[dict[str, Any]]:
    """The rows of a `datasets.Dataset`, with the names of classes; pictures are not decoded: one may be damaged.

    Raises:
        RecipeError: a class number that has no name.
    """
    import datasets

    features = getattr(data, "features", None) or datasets.Features()
    plain = getattr(data, "format", {"type": None})["type"] is None  # a transform of the user's may want pictures
    for name, feature in features.items() if plain else ():
        if isinstance(feature, datasets.Image):
            data = data.cast_column(name, datasets.Image(decode=False))
    names = class_names(features.to_dict())
    for number, row in enumerate(data):
        yield with_names(row, names, f"{where}, row {number}")
