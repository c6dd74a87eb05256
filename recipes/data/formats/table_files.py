"""Rows of CSV, TSV, JSONL and Parquet files, one after the other; errors name the line."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from mi2p_inject.recipes.errors import RecipeError

__all__ = ["ENDINGS", "line_rows", "table_columns", "table_rows"]

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_OTHER_MARKS = (";", "\t", ",", "|")
#: of the tables that are read
ENDINGS = (*_DELIMITERS, ".jsonl", ".parquet")
_MAX_FIELD = 2**30  # characters; the csv module's own limit of 131,072 is below some web pages


def table_columns(path: Path) -> list[str]:
    """Names of the columns of a table, read from its head.

    Raises:
        RecipeError: the file cannot be read, is empty, or is no such table.
    """
    if path.suffix.lower() == ".parquet":
        return list(_parquet(path).schema_arrow.names)
    if path.suffix.lower() == ".jsonl":
        first = next(_json_lines(path), None)
        if first is None:
            raise RecipeError(f"{path} is empty")
        return list(first)
    with _text_file(path) as file:
        try:
            names = next(csv.reader(file, delimiter=_DELIMITERS[path.suffix.lower()]), list[str]())
        except (csv.Error, UnicodeDecodeError) as error:
            raise _unreadable(path, 1, error) from error
    names = [name.strip() for name in names]
    if not any(names):
        raise RecipeError(f"{path} is empty", expected="a first line with the names of the columns")
    if len(names) == 1 and (other := [mark for mark in _OTHER_MARKS if mark in names[0]]):
        raise RecipeError(
            f"{path}: fields seem to be separated by {other[0]!r}",
            expected=", ".join(f"{mark!r} in {ending}" for ending, mark in _DELIMITERS.items()),
            fix="save it with that separator, or as .jsonl or .parquet",
        )
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise RecipeError(f"{path} has two columns named {', '.join(map(repr, twice))}", fix="rename one")
    return names


def table_rows(path: Path, names: Sequence[str] | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a table with the number of the line each ends on; never the whole file at once.

    Args:
        path: a file with one of the `ENDINGS`.
        names: of the columns of a CSV or TSV file without a first line that names them.

    Raises:
        RecipeError: the file cannot be read or decoded, or a row has another number of fields than there are names.
    """
    if path.suffix.lower() == ".parquet":
        start = 1
        for batch in _parquet(path).iter_batches(batch_size=1000):
            yield from enumerate(batch.to_pylist(), start)
            start += batch.num_rows
    elif path.suffix.lower() == ".jsonl":
        yield from enumerate(_json_lines(path), 1)
    else:
        yield from _delimited(path, names)


def line_rows(path: Path, needed: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a TSV file in which every line is a row and a quote is a character like others.

    Args:
        path: the file; the first line names the columns.
        needed: columns that it must have.

    Raises:
        RecipeError: the file cannot be read or decoded, lacks a column, or a line has another number of fields.
    """
    with _text_file(path, newline="\n") as file:  # a lone carriage return inside a text ends no line
        lines = enumerate(file, 1)
        number = 0
        try:
            number, first = next(lines, (1, ""))
            names = [name.strip() for name in first.rstrip("\r\n").split("\t")]
            if missing := [name for name in needed if name not in names]:
                raise RecipeError(f"{path} has no column {', '.join(missing)}", given=", ".join(names))
            for number, line in lines:
                if line.strip():
                    yield number, _named(line.rstrip("\r\n").split("\t"), names, path, number, "")
        except UnicodeDecodeError as error:
            raise _unreadable(path, number, error) from error


def _delimited(path: Path, names: Sequence[str] | None) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(_MAX_FIELD)
    delimiter = _DELIMITERS[path.suffix.lower()]
    with _text_file(path) as file:
        reader = csv.reader(file, delimiter=delimiter)
        try:
            found = [name.strip() for name in next(reader, [])] if names is None else names
            fix = f"put fields that hold a {delimiter!r}, a quote or a line break between double quotes"
            for fields in reader:
                if fields:
                    yield reader.line_num, _named(fields, found, path, reader.line_num, fix)
        except (csv.Error, UnicodeDecodeError) as error:
            raise _unreadable(path, reader.line_num, error) from error


def _named(fields: list[str], names: Sequence[str], path: Path, line: int, fix: str) -> dict[str, str]:
    if len(fields) != len(names):
        what = f"{path}, line {line}: {len(fields)} fields, expected {len(names)}"
        raise RecipeError(what, expected=", ".join(names), given=" | ".join(fields)[:200], fix=fix)
    return dict(zip(names, fields, strict=True))


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    with _text_file(path) as file:
        number = 0
        try:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise RecipeError(f"{path}, line {number}: {type(row).__name__}, expected an object {{...}}")
                yield row
        except ValueError as error:
            raise _unreadable(path, number, error) from error


def _parquet(path: Path) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise RecipeError(f"cannot read {path}: {error}") from error


def _text_file(path: Path, newline: str = "") -> TextIO:
    try:
        return path.open(encoding="utf-8-sig", newline=newline)
    except OSError as error:
        raise RecipeError(f"cannot read {path}: {error.strerror}") from error


def _unreadable(path: Path, line: int, error: Exception) -> RecipeError:
    if isinstance(error, UnicodeDecodeError):
        return RecipeError(
            f"{path} is not UTF-8, near line {line}: {error.reason}",
            fix=f"convert it: iconv -f cp1252 -t utf-8 {path.name} > utf8-{path.name}",
        )
    return RecipeError(f"cannot read {path}, line {line}: {error}")
