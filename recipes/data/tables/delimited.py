"""Rows of CSV and TSV files, also of those in which a quote stands for itself.

Spreadsheets and csv writers put a field between double quotes where it holds a separator, a quote or a line break.
Other tools write texts as they are: a text that begins with a quote then swallows the rows up to the next quote, and
nothing looks wrong. So a file with quotes is read once before: where the strict reading fails, or where lines that are
rows by themselves would be joined, each line is a row, and its lone quotes are characters like others.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mi2p_inject.recipes.data.tables.lines import MAX_LINE, lines, unreadable
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["LONE_QUOTE", "delimited_rows", "line_fields"]

LONE_QUOTE = "a quote that opens or closes no field, read as it stands"
_MANY = 1000  # values of a column that are kept, and doubtful rows
_ENDING = re.compile(r".*(\.\w{2,5})")


def delimited_rows(
    path: Path, delimiter: str, names: Sequence[str] | None
) -> Iterator[tuple[int, list[str], str | None]]:
    """Number of the line each row ends on, its fields, and `LONE_QUOTE` where it has one.

    Args:
        path: the file.
        delimiter: between fields.
        names: of the columns; None: the first row names them.

    Raises:
        RecipeError: the file cannot be read or decoded; quotes can be read neither way.
    """
    csv.field_size_limit(MAX_LINE)
    width = len(names) if names is not None else None
    by_line = _by_line(path, delimiter, width)
    rows = _line_rows(path, delimiter, width) if by_line else _strict_rows(path, delimiter)
    yield from (row for row in rows if row[1])


def _strict_rows(path: Path, delimiter: str) -> Iterator[tuple[int, list[str], None]]:
    reader = csv.reader(lines(path), delimiter=delimiter, strict=True)
    try:
        for fields in reader:
            yield reader.line_num, fields, None
    except csv.Error as error:
        raise unreadable(path, reader.line_num, error) from error


def _line_rows(path: Path, delimiter: str, width: int | None) -> Iterator[tuple[int, list[str], str | None]]:
    for number, line in enumerate(lines(path), 1):
        found = line_fields(line, delimiter, width)
        if found is None:
            raise _neither(path, number, f"not {width} fields", line.strip(), delimiter)
        width = width or len(found[0])
        yield number, *found


def line_fields(line: str, delimiter: str, width: int | None) -> tuple[list[str], str | None] | None:
    """The fields of a line that is a row by itself, and `LONE_QUOTE` where a quote stands for itself.

    Args:
        line: with or without its end.
        delimiter: between fields.
        width: how many fields there must be; None: any number.

    Returns:
        None where the line has another number of fields either way.

    Examples:
        >>> line_fields('a,"b, c"', ",", 2)
        (['a', 'b, c'], None)
        >>> line_fields('"a","b', ",", 2)[0]
        ['a', '"b']
    """
    bare = line.rstrip("\r\n")
    if not bare:
        return [], None
    try:
        fields = next(csv.reader([bare], delimiter=delimiter, strict=True))
        if width is None or len(fields) == width:
            return fields, None
    except csv.Error:
        pass
    fields = [_unquoted(field) for field in bare.split(delimiter)]
    return (fields, LONE_QUOTE) if '"' in bare and (width is None or len(fields) == width) else None


def _unquoted(field: str) -> str:
    """What a writer of CSV has put between quotes; any other field as it stands."""
    inner = field[1:-1].replace('""', "")
    quoted = len(field) > 1 and field[0] == field[-1] == '"' and '"' not in inner
    return field[1:-1].replace('""', '"') if quoted else field


@dataclass
class _Column:
    """What the plain rows say about a column: its few values, or the ending that all have, or that all are numbers."""

    values: set[str] = field(default_factory=set)
    endings: set[str] = field(default_factory=set)
    numbers: bool = True
    seen: int = 0

    def note(self, value: str) -> None:
        self.seen += 1
        self.numbers &= value.isdigit()
        if len(self.values) <= _MANY:
            self.values.add(value)
        if len(self.endings) <= 3:
            ending = _ENDING.fullmatch(value)
            self.endings.add(ending[1].lower() if ending else "")

    def fits(self, value: str) -> bool | None:
        """Whether a value is like those of the column; None where the column may hold anything, or a quote is lone."""
        if value.count('"') % 2:  # what is doubted is no evidence
            return None
        if 0 < 2 * len(self.values) <= self.seen and len(self.values) <= _MANY:
            return value in self.values
        if self.seen > 1 and len(self.endings) <= 3 and "" not in self.endings:
            ending = _ENDING.fullmatch(value)
            return ending is not None and ending[1].lower() in self.endings
        return value.isdigit() if self.seen > 1 and self.numbers else None


class _NotStrictError(Exception):
    """A quote that opens in a line closes nowhere, or in the middle of a field."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(why)
        self.line = line


def _by_line(path: Path, delimiter: str, width: int | None) -> bool:
    """Whether each line is a row and quotes are characters.

    Raises:
        RecipeError: the file does not show it, or neither reading goes through.
    """
    if not any('"' in line for line in lines(path)):
        return False
    try:
        columns, doubtful = _joined_rows(path, delimiter, width)
    except _NotStrictError as wrong:
        if _all_rows(path, delimiter, width):
            return True
        raise _neither(path, wrong.line, str(wrong), "", delimiter) from None
    if not doubtful:
        return False
    rows = [fields for _, found in doubtful for fields in found]
    fitting = sum(all(one.fits(value) is not False for one, value in zip(columns, row, strict=True)) for row in rows)
    known = any(column.fits("") is not None for column in columns)
    if known and fitting == 0:
        return False
    if known and fitting == len(rows) and _all_rows(path, delimiter, width):
        return True
    first, found = doubtful[0]
    below = f"{len(found) - 1} lines below"
    why = f"a quote opens here and closes {below}, and each of these lines could be a row by itself"
    raise _neither(path, first, why, " | ".join(found[0]), delimiter)


def _all_rows(path: Path, delimiter: str, width: int | None) -> bool:
    """Whether every line is a row by itself."""
    for line in lines(path):
        found = line_fields(line, delimiter, width)
        if found is None:
            return False
        width = width or len(found[0])
    return True


def _neither(path: Path, line: int, why: str, given: str, delimiter: str) -> RecipeError:
    return RecipeError(
        f"{path}, line {line}: {why}",
        expected="one row a line, or double quotes around fields that hold line breaks",
        given=given[:200],
        fix=f"put fields that hold a {delimiter!r}, a quote or a line break between double quotes, and double the "
        'quotes inside: say "no" becomes "say ""no"""; or save the table as .jsonl or .parquet',
    )


def _joined_rows(
    path: Path, delimiter: str, width: int | None
) -> tuple[list[_Column], list[tuple[int, list[list[str]]]]]:
    """The columns as plain rows show them, and the rows of several lines of which each could be a row.

    Raises:
        _NotStrictError: quotes are not as a csv writer writes them.
    """
    parts: list[str] = []

    def kept() -> Iterator[str]:
        for line in lines(path):
            parts.append(line)
            yield line

    columns: list[_Column] = []
    doubtful: list[tuple[int, list[list[str]]]] = []
    header = width is None
    reader = csv.reader(kept(), delimiter=delimiter, strict=True)
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as error:
            end = "nowhere" if "end of data" in str(error) else f"in the middle of line {reader.line_num}"
            why = f"a quote opens here and closes {end}"
            raise _NotStrictError(reader.line_num - len(parts) + 1, why) from error
        if fields is None:
            return columns, doubtful
        here, parts = parts, []
        width = width or len(fields)
        columns = columns or [_Column() for _ in range(width)]
        if len(here) == 1 and len(fields) == width and not header:
            for column, value in zip(columns, fields, strict=True):
                column.note(value)
        elif len(here) > 1 and width > 1 and len(doubtful) < _MANY:
            rows = [line_fields(line, delimiter, width) for line in here if line.strip()]
            if all(row is not None for row in rows):
                doubtful.append((reader.line_num - len(here) + 1, [row[0] for row in rows if row]))
        header = False
