"""A user's own tables: CSV, TSV, JSONL, Parquet; one file, or a folder with one file a part."""

from __future__ import annotations

import csv
import difflib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mi2p_inject.recipes.data.raw import RawData, Row, part_name
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["TABLES", "Columns", "load_table", "table_columns", "table_rows"]

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
#: endings of the tables that are read
TABLES = (*_DELIMITERS, ".jsonl", ".parquet")
_MAX_FIELD = 2**30  # characters; the csv module's own limit of 131,072 is below some web pages


@dataclass(frozen=True)
class Columns:
    """Which column is what. None: the column named ``image``, ``text``, ``label``, ``split``, ``id``, if there is one.

    Attributes:
        image: paths, absolute or from the folder of the table (or ``image_root``).
        text: the text.
        label: the label; several are separated by ``|``.
        split: train, validation (val, dev) or test.
        id: unique; default: the number of the row.
        group: rows with equal values stay in one part.
    """

    image: str | None = None
    text: str | None = None
    label: str | None = None
    split: str | None = None
    id: str | None = None
    group: str | None = None


def load_table(
    path: Path, columns: Columns, *, image_root: Path | None = None, labelled: bool = True, multi_label: bool | None
) -> RawData:
    """The rows of a table, or of a folder with ``train.csv``, ``dev.tsv``, ``test.parquet``...

    Args:
        path: the file or the folder.
        columns: which column is what.
        image_root: what image paths are relative to; default: the folder of the table.
        labelled: there must be a label column.
        multi_label: whether ``|`` separates labels; None: it does.

    Raises:
        RecipeError: a column, the image folder or every part is missing; a file cannot be read.
    """
    files = {path: None} if path.is_file() else _part_files(path)
    root = (image_root or (path.parent if path.is_file() else path)).absolute()
    if not root.is_dir():
        raise RecipeError(f"the images folder {root} does not exist", fix="give the folder of the images")
    found = {file: _find(columns, table_columns(file), file, labelled) for file in files}

    def rows() -> Iterator[Row]:
        for file, part in files.items():
            prefix = f"{file.stem}-" if len(files) > 1 else ""
            yield from _rows(file, found[file], root, part, prefix, multi_label is not False)

    options = {
        "columns": [[str(file), vars(one)] for file, one in found.items()],
        "root": str(root),
        "multi_label": multi_label,
    }
    return RawData(str(path), rows, list(files), options, multi_label=multi_label)


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
            names = next(csv.reader(file, delimiter=_DELIMITERS[path.suffix.lower()]), [])
        except (csv.Error, UnicodeDecodeError) as error:
            raise _unreadable(path, 1, error) from error
    names = [name.strip() for name in names]
    if not any(names):
        raise RecipeError(f"{path} is empty", expected="a first line with the names of the columns")
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise RecipeError(f"{path} has two columns named {', '.join(map(repr, twice))}", fix="rename one")
    return names


def table_rows(path: Path, quoting: int = csv.QUOTE_MINIMAL) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a table with the number of the line each ends on, one after the other, never the whole file.

    Args:
        path: a file with one of the endings `TABLES`.
        quoting: of CSV and TSV files, as the csv module names it.

    Raises:
        RecipeError: the file cannot be read or decoded, or a row has another number of fields than the first.
    """
    if path.suffix.lower() == ".parquet":
        start = 1
        for batch in _parquet(path).iter_batches(batch_size=1000):
            yield from enumerate(batch.to_pylist(), start)
            start += batch.num_rows
    elif path.suffix.lower() == ".jsonl":
        yield from enumerate(_json_lines(path), 1)
    else:
        yield from _delimited(path, quoting)


def _delimited(path: Path, quoting: int) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(_MAX_FIELD)
    delimiter = _DELIMITERS[path.suffix.lower()]
    with _text_file(path) as file:
        # QUOTE_NONE: a quote is a character like others, so that a line is a row whatever it holds.
        lines: Any = (line.rstrip("\r\n") for line in file) if quoting == csv.QUOTE_NONE else file
        reader = csv.reader(lines, delimiter=delimiter, quoting=quoting)
        try:
            names = [name.strip() for name in next(reader)]
            for fields in reader:
                if not fields:
                    continue
                if len(fields) != len(names):
                    raise RecipeError(
                        f"{path}, line {reader.line_num}: {len(fields)} fields, the first line names {len(names)}",
                        fix=f"put fields that hold a {delimiter!r}, a quote or a line break between double quotes",
                    )
                yield reader.line_num, dict(zip(names, fields, strict=True))
        except (csv.Error, UnicodeDecodeError) as error:
            raise _unreadable(path, reader.line_num, error) from error


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


def _text_file(path: Path) -> Any:
    try:
        return path.open(encoding="utf-8-sig", newline="")
    except OSError as error:
        raise RecipeError(f"cannot read {path}: {error.strerror}") from error


def _unreadable(path: Path, line: int, error: Exception) -> RecipeError:
    if isinstance(error, UnicodeDecodeError):
        return RecipeError(
            f"{path} is not UTF-8, near line {line}: {error.reason}",
            fix=f"convert it: iconv -f cp1252 -t utf-8 {path.name} > utf8-{path.name}",
        )
    return RecipeError(f"cannot read {path}, line {line}: {error}")


def _part_files(folder: Path) -> dict[Path, str | None]:
    files: dict[Path, str | None] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in TABLES:
            files[file] = part_name(file.stem, str(file))
    parts = list(files.values())
    if twice := sorted({str(part) for part in parts if parts.count(part) > 1}):
        raise RecipeError(f"{folder} has several tables for {', '.join(twice)}")
    return files


def _find(columns: Columns, names: Sequence[str], path: Path, labelled: bool) -> Columns:
    """The columns that the table has, under the names that were given, or the default ones."""
    found: dict[str, str | None] = {}
    for kind, wanted in vars(columns).items():
        if wanted is not None and wanted not in names:
            close = difflib.get_close_matches(wanted, names, n=3, cutoff=0.4)
            raise RecipeError(
                f"{path} has no column {wanted!r}",
                given=", ".join(map(str, names)),
                fix=f"did you mean {' or '.join(map(repr, close))}?" if close else "",
            )
        found[kind] = wanted or (kind if kind in names else None)
    if found["image"] is None and found["text"] is None:
        raise RecipeError(
            f"{path} has neither an image nor a text column",
            expected="columns named image, text, label, or their names in --image-col, --text-col, --label-col",
            given=", ".join(map(str, names)),
        )
    if labelled and found["label"] is None:
        raise RecipeError(f"{path} has no column 'label'", given=", ".join(map(str, names)), fix="give --label-col")
    return Columns(**found)


def _rows(path: Path, columns: Columns, root: Path, part: str | None, prefix: str, several: bool) -> Iterator[Row]:
    for number, (line, fields) in enumerate(table_rows(path), 1):
        where = f"{path}, line {line}"

        def cell(name: str | None, where: str = where, fields: dict[str, Any] = fields) -> str:
            value = fields.get(name) if name else None
            if value is not None and not isinstance(value, str | int | float | bool):
                raise RecipeError(f"{where}: column {name!r} holds a {type(value).__name__}", expected="a text")
            return "" if value is None else str(value).strip()

        labels = None if columns.label is None else _labels(fields.get(columns.label), several, f"{where}: label")
        here = part
        if columns.split:
            here = part_name(cell(columns.split), f"{where}: column {columns.split!r}")
        yield Row(
            id=cell(columns.id) or f"{prefix}{number}",
            image=_image_path(cell(columns.image), root),
            text=cell(columns.text),
            labels=labels,
            part=here,
            group=cell(columns.group) or None,
        )


def _labels(value: Any, several: bool, where: str) -> tuple[str, ...]:
    if isinstance(value, list | tuple):
        return tuple(str(one) for one in value)
    if isinstance(value, float) and value != value:  # NaN: no label
        return ()
    if isinstance(value, dict | bytes):
        raise RecipeError(f"{where} holds a {type(value).__name__}", expected="a text, a whole number or a list")
    cell = "" if value is None else str(value)
    return tuple(label for one in (cell.split("|") if several else [cell]) if (label := one.strip()))


def _image_path(cell: str, root: Path) -> str | None:
    if not cell:
        return None
    path = os.path.join(root, cell)  # 100,000 of them: pathlib takes seconds
    if "\\" in cell and os.sep == "/" and not os.path.exists(path):
        path = os.path.join(root, cell.replace("\\", "/"))
    return path
