"""A user's own tables: CSV, TSV, JSONL, Parquet; one file, or a folder with one file a split."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mi2p_inject.recipes.data.formats.table_files import ENDINGS, table_columns, table_rows
from mi2p_inject.recipes.data.source_table import Row, SourceTable, split_name
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["Columns", "load_table"]


@dataclass(frozen=True)
class Columns:
    """Which column is what. None: the column named ``image``, ``text``, ``label``, ``split``, ``id``, if there is one.

    Attributes:
        image: paths, absolute or from the folder of the table (or ``image_root``).
        text: the text.
        label: the label; several are separated by ``|``.
        split: train, validation (val, dev) or test.
        id: unique; default: the number of the row.
        group: rows with equal values stay in one split.
    """

    image: str | None = None
    text: str | None = None
    label: str | None = None
    split: str | None = None
    id: str | None = None
    group: str | None = None


def load_table(
    path: Path, columns: Columns, *, image_root: Path | None = None, labelled: bool = True, multi_label: bool | None
) -> SourceTable:
    """The rows of a table, or of a folder with ``train.csv``, ``dev.tsv``, ``test.parquet``...

    Args:
        path: the file or the folder.
        columns: which column is what.
        image_root: what image paths are relative to; default: the folder of the table.
        labelled: there must be a label column; else columns of labels, splits and groups are not read.
        multi_label: whether ``|`` separates labels; None: it does.

    Raises:
        RecipeError: a column, the image folder or every split is missing; a file cannot be read.
    """
    files = {path: None} if path.is_file() else _split_files(path)
    root = (image_root or (path.parent if path.is_file() else path)).absolute()
    if not root.is_dir():
        raise RecipeError(
            f"the images folder {root} does not exist", fix="give the folder of the images: --set image_root=..."
        )
    found = {file: _find(columns, table_columns(file), file, labelled) for file in files}

    def rows() -> Iterator[Row]:
        for file, split in files.items():
            prefix = f"{file.stem}-" if len(files) > 1 else ""
            yield from _rows(file, found[file], root, split, prefix, multi_label is not False)

    options = {
        "columns": [[str(file), vars(one)] for file, one in found.items()],
        "root": str(root),
        "multi_label": multi_label,
    }
    modalities = tuple(kind for kind in ("image", "text") if any(getattr(one, kind) for one in found.values()))
    notes = () if len(modalities) > 1 else (f"no {'text' if modalities == ('image',) else 'image'} column",)
    return SourceTable(
        str(path), rows, list(files), options, multi_label=multi_label, modalities=modalities, notes=notes
    )


def _split_files(folder: Path) -> dict[Path, str | None]:
    files: dict[Path, str | None] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in ENDINGS:
            files[file] = split_name(file.stem, str(file))
    splits = list(files.values())
    if twice := sorted({str(split) for split in splits if splits.count(split) > 1}):
        raise RecipeError(f"{folder} has several tables for {', '.join(twice)}")
    return files


def _find(columns: Columns, names: Sequence[str], path: Path, labelled: bool) -> Columns:
    """The columns that the table has, under the names that were given, or the default ones."""
    found: dict[str, str | None] = {}
    for kind, wanted in vars(columns).items():
        if not labelled and kind in ("label", "split", "group"):
            found[kind] = None
            continue
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


def _rows(path: Path, columns: Columns, root: Path, split: str | None, prefix: str, several: bool) -> Iterator[Row]:
    for number, (line, fields) in enumerate(table_rows(path), 1):
        where = f"{path}, line {line}"

        def cell(name: str | None, where: str = where, fields: dict[str, Any] = fields) -> str:
            value = fields.get(name) if name else None
            if value is not None and not isinstance(value, str | int | float | bool):
                raise RecipeError(f"{where}: column {name!r} holds a {type(value).__name__}", expected="a text")
            return "" if value is None else str(value).strip()

        labels = None if columns.label is None else _labels(fields.get(columns.label), several, f"{where}: label")
        here = split
        if columns.split:
            here = split_name(cell(columns.split), f"{where}: column {columns.split!r}")
        yield Row(
            id=cell(columns.id) or f"{prefix}{number}",
            image=_image_path(cell(columns.image), root),
            text=cell(columns.text),
            labels=labels,
            split=here,
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
