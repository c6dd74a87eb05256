"""A user's own tables: CSV, TSV, JSONL, Parquet; one file, or a folder with one file a split."""

from __future__ import annotations

import difflib
import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mi2p_inject.recipes.characters import composed
from mi2p_inject.recipes.data.source_table import Row, SourceTable, split_name
from mi2p_inject.recipes.data.tables.cells import labels_of
from mi2p_inject.recipes.data.tables.in_memory import called
from mi2p_inject.recipes.data.tables.read import table_columns, table_rows
from mi2p_inject.recipes.data.tables.split_files import is_of_pictures, split_files
from mi2p_inject.recipes.data.values import MISSING_WORD, is_missing, missing_word, visible
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.sources.cells import category_in, number_in

__all__ = ["Columns", "load_table"]

_FILE_NAME = "file_name"  # the column of paths in the table of a folder of pictures


@dataclass(frozen=True)
class Columns:
    """Which column is what. None: the column named ``image``, ``text``, ``label``, ``split``, ``id``, if there is one.

    Attributes:
        image: paths, absolute or from the folder of the table (or ``image_root``); of a `metadata.csv`, ``file_name``.
        text: the text.
        label: the label; several are separated by ``|``.
        split: train, validation (val, dev) or test.
        id: unique; default: the number of the row.
        group: rows with equal values stay in one split.
        numeric, categorical: columns that a model reads as a source of its own.
    """

    image: str | None = None
    text: str | None = None
    label: str | None = None
    split: str | None = None
    id: str | None = None
    group: str | None = None
    numeric: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()


def load_table(
    path: Path, columns: Columns, *, image_root: Path | None = None, labelled: bool = True, multi_label: bool | None
) -> SourceTable:
    """The rows of a table, or of a folder with ``train.csv``, ``dev.tsv``, ``test-00000-of-00002.parquet``...

    Args:
        path: the file or the folder; see `split_files`.
        columns: which column is what.
        image_root: what image paths are relative to; default: the folder of each table.
        labelled: there must be a label column; else columns of labels, splits and groups are not read.
        multi_label: whether ``|`` separates labels; None: it does.

    Raises:
        RecipeError: a column, the image folder or every split is missing; a file cannot be read.
    """
    files = split_files(path) if path.is_dir() else {path: None}
    roots = {file: (image_root or file.parent).absolute() for file in files}
    if image_root and not image_root.is_dir():
        raise RecipeError(
            f"the images folder {image_root.absolute()} does not exist",
            fix="give the folder of the images: --set image_root=...",
        )
    found = {file: _find(columns, table_columns(file), file, labelled) for file in files}

    def rows() -> Iterator[Row]:
        for file, split in files.items():
            prefix = f"{file.parent.name if is_of_pictures(file) else file.stem}-" if len(files) > 1 else ""
            yield from _rows(file, found[file], roots[file], split, prefix, multi_label is not False)

    options = {
        "columns": [[str(file), vars(one)] for file, one in found.items()],
        "roots": sorted(map(str, set(roots.values()))),
        "multi_label": multi_label,
    }
    modalities = tuple(kind for kind in ("image", "text") if any(getattr(one, kind) for one in found.values()))
    notes = () if len(modalities) > 1 else (f"no {'text' if modalities == ('image',) else 'image'} column",)
    return SourceTable(
        called(path),
        rows,
        list(files),
        options,
        multi_label=multi_label,
        modalities=modalities,
        notes=notes,
        cells=bool(columns.numeric or columns.categorical),
    )


def _find(columns: Columns, names: Sequence[str], path: Path, labelled: bool) -> Columns:
    """The columns that the table has, under the names that were given, or the default ones."""
    found: dict[str, str | None] = {}
    named = {composed(str(name)): str(name) for name in names}
    for kind, wanted in vars(columns).items():
        if isinstance(wanted, tuple):
            continue
        if not labelled and kind in ("label", "split", "group"):
            found[kind] = None
            continue
        if wanted is not None and composed(wanted) not in named:
            raise _no_column(wanted, list(named), path)
        found[kind] = named.get(composed(wanted or kind))
    if found["image"] is None and is_of_pictures(path):
        found["image"] = named.get(_FILE_NAME)
    if found["image"] is None and found["text"] is None:
        raise RecipeError(
            f"{called(path)} has neither an image nor a text column",
            expected="columns named image, text, label, or their names in --image-col, --text-col, --label-col",
            given=", ".join(map(str, names)),
            fix="name them: --image-col, --text-col",
        )
    if labelled and found["label"] is None:
        raise RecipeError(
            f"{called(path)} has no column 'label'", given=", ".join(map(str, names)), fix="give --label-col"
        )
    numeric, categorical = (
        _read_columns(wanted, named, found, path, labelled) for wanted in (columns.numeric, columns.categorical)
    )
    return Columns(**found, numeric=numeric, categorical=categorical)


def _read_columns(
    wanted: Sequence[str], named: Mapping[str, str], found: Mapping[str, str | None], path: Path, labelled: bool
) -> tuple[str, ...]:
    """Columns that a model reads, under the names of the table; none that has a meaning of another kind."""
    for name in wanted:
        if composed(name) not in named:
            raise _no_column(
                name,
                list(named),
                path,
                fix="add it to the table, with empty cells where nothing is known"
                + ("; in a training, name one that it has" if labelled else ""),
            )
        for kind in ("label", "image", "split", "id"):
            if found[kind] == named[composed(name)]:
                more = ", and a model that reads it learns no more" if kind == "label" else ""
                raise RecipeError(
                    f"{called(path)}: the column {name!r} is the {kind} column{more}",
                    expected="other columns in numeric_cols and categorical_cols",
                    given=", ".join(wanted),
                    fix=f"leave it out, or name the {kind} column: --{kind}-col",
                )
    return tuple(named[composed(name)] for name in wanted)


def _no_column(
    wanted: str, names: Sequence[str], path: Path, *, fix: str = "name one that it has, or add it to the table"
) -> RecipeError:
    close = difflib.get_close_matches(wanted, names, n=3, cutoff=0.6)
    fix = f"{fix}; did you mean {' or '.join(map(repr, close))}?" if close else fix
    if "," in wanted and all(composed(one.strip()) in names for one in wanted.split(",")):
        fix = f"write a list: [{wanted}]"
    return RecipeError(f"{called(path)} has no column {wanted!r}", given=", ".join(names), fix=fix)


def _rows(path: Path, columns: Columns, root: Path, split: str | None, prefix: str, several: bool) -> Iterator[Row]:
    for number, (line, fields, mark) in enumerate(table_rows(path), 1):
        where = f"{called(path)}, {'row' if path.suffix.lower() == '.parquet' else 'line'} {line}"
        cells = {kind: _cell(fields, getattr(columns, kind), where) for kind in ("id", "image", "text", "group")}
        words = any(missing_word(cells[kind]) for kind in ("image", "text"))
        cells = {kind: "" if missing_word(one) else one for kind, one in cells.items()}
        here = split
        if columns.split:
            here = split_name(_cell(fields, columns.split, where), f"{where}: column {columns.split!r}")
        yield Row(
            id=cells["id"] or f"{prefix}{number}",
            image=_image_path(cells["image"], root),
            text=cells["text"],
            labels=None if columns.label is None else labels_of(fields.get(columns.label), several, f"{where}: label"),
            split=here,
            group=_category(fields.get(columns.group or "")) if cells["group"] else None,
            numbers=tuple(_number(fields.get(name), f"{where}: column {name!r}") for name in columns.numeric),
            categories=tuple(_category(fields.get(name)) for name in columns.categorical),
            repairs=tuple(reason for reason in (mark, MISSING_WORD if words else None) if reason),
        )


def _number(cell: Any, where: str) -> float | None:
    return None if is_missing(cell) or missing_word(str(cell)) else number_in(cell, where)


def _category(cell: Any) -> str | None:
    """The name of a category as that of a label is kept."""
    found = None if is_missing(cell) else category_in(cell)
    return None if found is None or missing_word(found, label=True) else visible(composed(found))


def _cell(fields: dict[str, Any], name: str | None, where: str) -> str:
    value = fields.get(name) if name else None
    if is_missing(value):
        return ""
    if not isinstance(value, str | int | float | bool):
        picture = isinstance(value, bytes | dict)
        raise RecipeError(
            f"{where}: column {name!r} holds a {type(value).__name__}",
            expected="a text, or the path of a picture",
            fix="write pictures to files, and their paths into the column; or from Python: "
            "fit(datasets.Dataset.from_parquet(...))"
            if picture
            else "name another column",
        )
    return str(value).strip()


def _image_path(cell: str, root: Path) -> str | None:
    if not cell:
        return None
    path = os.path.join(root, cell)  # 100,000 of them: pathlib takes seconds
    if (cell.isascii() and "\\" not in cell) or os.path.lexists(path):
        return path
    plain = cell.replace("\\", "/") if os.sep == "/" else cell
    forms = [plain, *(unicodedata.normalize(form, plain) for form in ("NFC", "NFD"))]  # macOS names files in the latter
    return next((other for form in forms if os.path.lexists(other := os.path.join(root, form))), path)
