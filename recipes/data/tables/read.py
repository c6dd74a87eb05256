"""Rows of CSV, TSV, JSONL and Parquet files, one after the other; errors name the line."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mi2p_inject.recipes.data.tables.delimited import delimited_rows, line_fields
from mi2p_inject.recipes.data.tables.features import class_names, features_of_parquet, with_names
from mi2p_inject.recipes.data.tables.json_lines import json_columns, json_rows
from mi2p_inject.recipes.data.tables.lines import check_regular, lines
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["ENDINGS", "line_rows", "table_columns", "table_rows"]

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_OTHER_MARKS = (";", "\t", ",", "|")
#: of the tables that are read
ENDINGS = (*_DELIMITERS, ".jsonl", ".parquet")


def table_columns(path: Path) -> list[str]:
    """Names of the columns of a table: of its first line; of all rows of a JSONL file.

    Raises:
        RecipeError: the file cannot be read, is empty, or is no such table.
    """
    if path.suffix.lower() == ".parquet":
        return _unlike(list(_parquet(path).schema_arrow.names), path)
    if path.suffix.lower() == ".jsonl":
        return json_columns(path)
    names = _first_row(path)
    if not any(names):
        raise RecipeError(
            f"{path} is empty",
            expected="a first line with the names of the columns",
            fix="write the names of the columns into its first line",
        )
    if len(names) == 1 and (other := [mark for mark in _OTHER_MARKS if mark in names[0]]):
        raise RecipeError(
            f"{path}: fields seem to be separated by {other[0]!r}",
            expected=", ".join(f"{mark!r} in {ending}" for ending, mark in _DELIMITERS.items()),
            fix="save it with that separator, or as .jsonl or .parquet",
        )
    return _unlike(names, path)


def _unlike(names: list[str], path: Path) -> list[str]:
    """The names of columns; of two that are called alike, one would be lost."""
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise RecipeError(f"{path} has two columns named {', '.join(map(repr, twice))}", fix="rename one")
    return names


def table_rows(path: Path, names: Sequence[str] | None = None) -> Iterator[tuple[int, dict[str, Any], str | None]]:
    """The rows of a table: the line each ends on, its fields, and what was done to read it (None: nothing).

    Args:
        path: a file with one of the `ENDINGS`.
        names: of the columns of a CSV or TSV file without a first line that names them.

    Raises:
        RecipeError: the file cannot be read or decoded, or a row has another number of fields than there are names.
    """
    if path.suffix.lower() == ".parquet":
        classes = class_names(features_of_parquet(_parquet(path).schema_arrow.metadata))
        for number, row in enumerate(_parquet_rows(path), 1):
            yield number, with_names(row, classes, f"{path}, row {number}") if classes else row, None
    elif path.suffix.lower() == ".jsonl":
        for number, row in json_rows(path):
            yield number, row, None
    else:
        delimiter = _DELIMITERS[path.suffix.lower()]
        fix = f"put fields that hold a {delimiter!r}, a quote or a line break between double quotes"
        rows = delimited_rows(path, delimiter, names)
        if names is None:
            names = [name.strip() for name in next(rows, (0, list[str](), None))[1]]
        for line, fields, mark in rows:
            yield line, _named(fields, names, path, line, fix), mark


def _first_row(path: Path) -> list[str]:
    delimiter = _DELIMITERS[path.suffix.lower()]
    try:
        fields = next(csv.reader(lines(path), delimiter=delimiter, strict=True), list[str]())
    except csv.Error:
        found = line_fields(next(lines(path)), delimiter, None)
        fields = found[0] if found else []
    return [name.strip() for name in fields]


def line_rows(path: Path, needed: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a TSV file in which every line is a row and a quote is a character like others.

    Args:
        path: the file; the first line names the columns.
        needed: columns that it must have.

    Raises:
        RecipeError: the file cannot be read or decoded, lacks a column, or a line has another number of fields.
    """
    names: list[str] | None = None
    for number, line in _joined_at_feed(path):
        fields = line.rstrip("\r\n").split("\t")
        if names is None:
            names = [name.strip() for name in fields]
            if missing := [name for name in needed if name not in names]:
                raise RecipeError(
                    f"{path} has no column {', '.join(missing)}", given=", ".join(names), fix="download the file again"
                )
        elif line.strip():
            yield number, _named(fields, names, path, number, "")
    if names is None:
        raise RecipeError(f"{path} has no column {', '.join(needed)}", given="an empty file", fix="download it again")


def _joined_at_feed(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that end with a line feed: a lone carriage return inside a text ends none."""
    number, before = 0, ""
    for line in lines(path):
        before += line
        if line.endswith("\n"):
            number += 1
            yield number, before
            before = ""
    if before:
        yield number + 1, before


def _named(fields: list[str], names: Sequence[str], path: Path, line: int, fix: str) -> dict[str, str]:
    if len(fields) != len(names):
        what = f"{path}, line {line}: {len(fields)} fields, expected {len(names)}"
        raise RecipeError(what, expected=", ".join(names), given=" | ".join(fields)[:200], fix=fix)
    return dict(zip(names, fields, strict=True))


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow

    file = _parquet(path)
    try:
        for batch in file.iter_batches(batch_size=1000):
            yield from batch.to_pylist()
    except (OSError, ValueError, OverflowError, pyarrow.ArrowException) as error:  # such as a date too late for Python
        raise RecipeError(f"cannot read {path}: {error}", fix="write it again") from error


def _parquet(path: Path) -> Any:
    import pyarrow
    import pyarrow.parquet

    check_regular(path)
    try:
        return pyarrow.parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise RecipeError(f"cannot read {path}: {error}", fix="write it again, as Parquet") from error
