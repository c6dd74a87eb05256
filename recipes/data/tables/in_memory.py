"""Data in memory, a pandas or `datasets` table or a list of records, as a Parquet file that all commands read."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mi2p_inject.core.files.atomic_write import write_file
from mi2p_inject.recipes.characters import decodable
from mi2p_inject.recipes.data.images import open_image
from mi2p_inject.recipes.data.tables.features import rows_of_datasets
from mi2p_inject.recipes.data.values import is_missing
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.paths import home_path

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["IN_MEMORY", "as_file", "called", "records_of"]

IN_MEMORY = "the data in memory"

_TABLE, _PICTURES, _HOME, _DIGEST = "table.parquet", "images", "mi2p_inject", "[0-9a-f]{24}"


def as_file(data: Any, *image_cols: str | None, folder: Path | None = None) -> str:
    """The specification of data: a path is one already; a table in memory is written to a file once.

    Pictures in cells are stored as PNG files beside it, as a training reads them; paths become absolute ones. The
    folder is named by the content, so that the same data have the same name: a run on them can be gone on with.

    Args:
        data: a path or the name of a known set; a `pandas.DataFrame`, a `datasets.Dataset`, a `datasets.DatasetDict`
            (its splits become the column ``split``), or a list of mappings.
        image_cols: the columns of paths or pictures; none, or None among them: ``image``.
        folder: where to write; default: the cache folder of `datasets`.

    Raises:
        RecipeError: data of another type, no rows, or a cell that holds neither a picture nor a path.
    """
    if isinstance(data, (str, Path)):
        return str(data)
    columns = dict.fromkeys(one or "image" for one in image_cols or (None,))
    rows = list(_stored(records_of(data), columns))
    if not rows:
        raise RecipeError(
            "the data have no rows", given=type(data).__name__, fix="give rows with the columns image, text and label"
        )
    names = dict.fromkeys(name for row in rows for name in row)  # the columns of a table are those of all its rows
    whole = [{name: row.get(name) for name in names} for row in rows]
    return str(_written(whole, columns, folder or _cache()))


def called(table: Path) -> str:
    """How a table is named in messages: one from memory lies where its owner never looked.

    Examples:
        >>> called(Path("my.csv")), called(_cache() / ("0" * 24) / "table.parquet")
        ('my.csv', 'the data in memory')
    """
    stored = table.name == _TABLE and re.fullmatch(_DIGEST, table.parent.name)
    return IN_MEMORY if stored and table.parent.parent.name == _HOME else str(table)


def records_of(data: Any) -> Iterable[Mapping[str, Any]]:
    """The rows of a table in memory, as mappings.

    Raises:
        RecipeError: it is none.

    Examples:
        >>> list(records_of([{"text": "a cat"}]))
        [{'text': 'a cat'}]
    """
    if hasattr(data, "iloc") and hasattr(data, "columns"):  # pandas
        _check_unlike(data.columns)
        found: list[Mapping[str, Any]] = data.to_dict("records")
        return found
    if isinstance(data, Mapping):
        return _records_of_mapping(data)
    if hasattr(data, "column_names") and hasattr(data, "features"):
        return list(rows_of_datasets(data, IN_MEMORY))
    if hasattr(data, "__arrow_c_stream__") or hasattr(data, "__arrow_c_array__"):  # pyarrow, polars, duckdb, ...
        import pyarrow

        table = pyarrow.table(data)
        _check_unlike(table.column_names)
        return cast("list[Mapping[str, Any]]", table.to_pylist())
    if isinstance(data, Sequence):
        rows = list(data)
        if all(isinstance(row, Mapping) for row in rows):
            return rows
    raise RecipeError(
        f"data of type {type(data).__name__} cannot be read",
        expected="a path, a pandas.DataFrame, a datasets.Dataset, an Arrow table, or a list of mappings",
        given=type(data).__name__,
        fix="pandas.DataFrame({'image': paths, 'text': texts, 'label': labels})",
    )


def _records_of_mapping(data: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The splits of a `datasets.DatasetDict`; the rows of a mapping of columns, as ``dataset[:9]`` is; one record."""
    if data and all(hasattr(one, "column_names") for one in data.values()):
        return [{**row, "split": split} for split, one in data.items() for row in records_of(one)]
    if not data or not all(isinstance(one, list | tuple) for one in data.values()):
        return [data]
    if len({len(column) for column in data.values()}) > 1:
        raise RecipeError(
            "the columns of the data in memory are not of one length",
            given=", ".join(f"{name}: {len(column)}" for name, column in data.items())[:200],
            fix="give each row a cell in every column: None where it has nothing",
        )
    return [dict(zip(data, cells, strict=True)) for cells in zip(*data.values(), strict=True)]


def _check_unlike(names: Iterable[Any]) -> None:
    """Refuse two columns that are called alike: one would be lost."""
    counts = Counter(map(str, names))
    if twice := [name for name, count in counts.items() if count > 1]:
        raise RecipeError(f"{IN_MEMORY} have two columns named {', '.join(map(repr, twice))}", fix="rename one")


def _stored(rows: Iterable[Mapping[str, Any]], image_cols: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Rows whose pictures are bytes (PNG) or absolute paths, and whose missing cells are None."""
    for number, row in enumerate(rows):
        cells = {str(name): None if is_missing(value) else value for name, value in row.items()}
        if len(cells) < len(row):
            _check_unlike(row)
        _check_whole(cells, image_cols, number)
        for name in image_cols:
            if cells.get(name) is not None:
                cells[name] = _picture(cells[name], f"row {number}: column {name!r}")
        yield {name: _plain(value) for name, value in cells.items()}


def _check_whole(cells: Mapping[str, Any], image_cols: Iterable[str], number: int) -> None:
    """Refuse half characters, which nothing can store."""
    for name, cell in cells.items():
        if isinstance(cell, str) and decodable(cell) != cell:
            whole = f'{name} = {name}.encode("utf-16", "surrogatepass").decode("utf-16", "replace")'
            raise RecipeError(
                f"row {number}: column {name!r} holds half a character (a lone surrogate)",
                expected="Unicode text",
                given=ascii(cell)[:100],
                fix="give the file a name in UTF-8" if name in image_cols else f"replace it: {whole}",
            )


def _plain(value: Any) -> Any:
    """numpy's numbers and arrays as Python's."""
    return value.tolist() if hasattr(value, "tolist") else value


def _picture(cell: Any, where: str) -> bytes | str:
    from PIL import Image

    if isinstance(cell, Mapping):  # as `datasets` stores an undecoded one
        if not {"bytes", "path"} & set(cell):
            raise RecipeError(
                f"{where} holds a dict without a picture",
                expected="the keys bytes and path",
                given=", ".join(map(str, cell)),
                fix='{"bytes": the content of a file, "path": None}',
            )
        cell = cell.get("bytes") or _nearby(cell.get("path"), where) or ""
    if isinstance(cell, (str, Path)):
        return str(home_path(cell).absolute()) if str(cell).strip() else ""
    if isinstance(cell, Image.Image):
        try:
            return _png(cell)
        except (ValueError, OSError) as error:
            raise RecipeError(
                f"{where} holds a picture that cannot be read: {error}", expected="an open picture", fix="open it again"
            ) from error
    if isinstance(cell, bytes):
        return cell
    raise RecipeError(
        f"{where} holds a {type(cell).__name__}", expected="a path or a PIL image", fix="Image.fromarray(...)"
    )


def _png(picture: Image.Image) -> bytes:
    """As it is read from a file, for PNG keeps neither EXIF's rotation nor 32 bits: upright, on white, 8-bit RGB."""
    buffer = io.BytesIO()
    cast("Image.Image", open_image(picture, on_bad="error")).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _nearby(path: str | None, where: str) -> str | Image.Image | None:
    """A path of this machine; a picture from elsewhere, `datasets` fetches."""
    if path is None or "://" not in path:
        return path
    import datasets

    try:
        found: Image.Image = datasets.Image().decode_example({"path": path, "bytes": None})
        return found
    except (OSError, ValueError) as error:
        raise RecipeError(f"{where}: cannot read {path}: {error}", fix="download it, or leave it empty") from error


def _written(rows: list[dict[str, Any]], image_cols: Iterable[str], folder: Path) -> Path:
    import pyarrow
    import pyarrow.parquet

    digest = hashlib.sha256()
    pictures: dict[str, bytes] = {}
    for row in rows:
        for column in image_cols:
            picture = row.get(column)
            if isinstance(picture, bytes):
                name = f"{hashlib.sha256(picture).hexdigest()}.png"
                pictures[name], row[column] = picture, name
        digest.update(json.dumps(row, sort_keys=True, default=str).encode(errors="surrogatepass"))
    home = folder / digest.hexdigest()[:24]
    if (home / _TABLE).is_file():
        return home / _TABLE
    try:
        (home / _PICTURES).mkdir(parents=True, exist_ok=True)
        for name, picture in pictures.items():
            write_file(home / _PICTURES / name, lambda file, content=picture: file.write_bytes(content))  # type: ignore[misc]
        for row in rows:
            row |= {name: f"{_PICTURES}/{row[name]}" for name in image_cols if row.get(name) in pictures}
        table = pyarrow.Table.from_pylist(rows)
        write_file(home / _TABLE, lambda file: pyarrow.parquet.write_table(table, file))
    except (pyarrow.ArrowException, UnicodeEncodeError) as error:
        name, kinds = _mixed(rows)
        raise RecipeError(
            f"the data in memory cannot be stored: {f'the column {name!r}' if name else error}",
            expected="cells of one type a column",
            given=kinds or str(error),
            fix=f"convert the column: str({name or '...'}), or a number or None in each of its cells",
        ) from error
    except OSError as error:
        raise RecipeError(f"cannot write to {home}: {error.strerror}", fix="make room, or set HF_HOME") from error
    return home / _TABLE


def _mixed(rows: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """The first column that no one type holds, and the types in it; "" where it is not told."""
    import pyarrow

    for name in dict.fromkeys(name for row in rows for name in row):
        cells = [row.get(name) for row in rows]
        try:
            pyarrow.array(cells)
        except (pyarrow.ArrowException, UnicodeEncodeError):
            return name, ", ".join(sorted({type(cell).__name__ for cell in cells if cell is not None}))
    return "", ""


def _cache() -> Path:
    import datasets

    return Path(datasets.config.HF_DATASETS_CACHE) / _HOME
