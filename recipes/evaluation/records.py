"""What a model is asked about: every record of a table, a folder or a benchmark, in order, with its own columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mi2p_inject.recipes.config import DataConfig
from mi2p_inject.recipes.data.formats.folders import files_below, pictures_and_texts, read_text
from mi2p_inject.recipes.data.images import looks_like_image
from mi2p_inject.recipes.data.load import LOADERS, Request, parse_spec
from mi2p_inject.recipes.data.row_index import examples
from mi2p_inject.recipes.data.source_table import MAX_CHARACTERS, Row, SourceTable, store
from mi2p_inject.recipes.data.tables.load import Columns
from mi2p_inject.recipes.data.tables.read import ENDINGS, table_columns, table_rows
from mi2p_inject.recipes.data.tables.split_files import tables_in
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.paths import home_path

if TYPE_CHECKING:
    import datasets

__all__ = ["Records", "read_records"]

_TEXT = ".txt"
_UNREADABLE = "a text file that cannot be read as UTF-8"


@dataclass(frozen=True)
class Records:
    """Records in the order of their file; none is dropped, merged or moved.

    Attributes:
        name: of the data, for messages.
        stored: on disk, a row each: ``id``, ``image`` (path, picture or None), ``text`` (or None) and what was done to
            read it; see `mi2p_inject.recipes.data.source_table.store`.
        modalities: which of "image" and "text" there is a column for.
        notes: what the reader has to say.
        tables: the files that hold the records' own columns; () where there are none.
        repaired: wrong decodings of texts were undone.
        image_root: the folder that paths of images start from; None where they are none.
    """

    name: str
    stored: datasets.Dataset
    modalities: tuple[str, ...]
    notes: tuple[str, ...]
    tables: tuple[Path, ...] = ()
    repaired: bool = False
    image_root: Path | None = None

    def __len__(self) -> int:
        return len(self.stored)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the records' own columns."""
        return tuple(dict.fromkeys(name for table in self.tables for name in table_columns(table)))

    def own(self) -> Iterator[dict[str, Any]]:
        """Each record's own columns, as its file has them; read again from the file, never all at once."""
        if not self.tables:
            yield from ({} for _ in range(len(self)))
        for table in self.tables:
            for entry in table_rows(table):
                yield entry[1]

    def remarks(self, start: int, stop: int) -> list[list[str]]:
        """What was done to read each of some records' texts: nothing, as a rule.

        Args:
            start: number of the first record, from 0.
            stop: number after the last.
        """
        rows = self.stored.select_columns(["mojibake", "cut", "repairs"])[start:stop]
        found: list[list[str]] = []
        for mojibake, cut, repairs in zip(rows["mojibake"], rows["cut"], rows["repairs"], strict=True):
            said = {
                "text: decoded with a wrong character set": mojibake and not self.repaired,
                f"text: cut after {MAX_CHARACTERS} characters": cut,
            }
            found.append([*(words for words, holds in said.items() if holds), *repairs])
        return found


def read_records(data: str, config: DataConfig, asked: Mapping[str, Any]) -> Records:
    """All records; columns of labels, splits and groups are their own columns like others, whatever they hold.

    Args:
        data: a table, a folder or a benchmark, as in `load_data`. A folder without tables: every image in it and below,
            with the text beside it, and every text alone, sorted by path.
        config: its columns, ``image_root``, ``task`` and ``repair_text`` count.
        asked: the options that the user gives for these data: others come from the training and may be missing.

    Raises:
        RecipeError: the data cannot be read, or hold nothing; a row that cannot be read is named.
    """
    name, root = parse_spec(data)
    if name == "own" and root is not None and root.is_dir() and not tables_in(root):
        if config.image_root is not None:
            raise RecipeError(
                f"{data} is a folder of pictures: no path starts from --image-root", fix="leave --image-root out"
            )
        table = _pictures(root)
        stored = store(table, repair_text=config.repair_text)
        notes = table.notes
        if unread := [
            id_ for id_, said in zip(stored["id"][:], stored["repairs"][:], strict=True) if _UNREADABLE in said
        ]:
            notes = (*notes, f"{len(unread)} of {len(stored)} records have {_UNREADABLE} ({examples(unread)})")
        return Records(table.name, stored, table.modalities, notes, repaired=config.repair_text)
    table = LOADERS[name](_request(name, root, config, asked))
    stored = store(table, repair_text=config.repair_text)
    notes = table.notes
    if left_out := [row for row, why in enumerate(stored["dropped"][:]) if why is not None]:
        notes = (*notes, f"left out: {len(left_out)} rows that are no samples of {table.name}")
        stored = stored.select(sorted(set(range(len(stored))) - set(left_out)))
    own = tuple(table.files) if name == "own" else ()
    start = config.image_root or (own[0].parent if own else None)
    return Records(table.name, stored, table.modalities, notes, own, config.repair_text, start and Path(start))


def _request(name: str, root: Path | None, config: DataConfig, asked: Mapping[str, Any]) -> Request:
    id_col = config.id_col
    if name == "own" and root is not None and "id_col" not in asked:  # a new table need not have the training's
        tables = tables_in(root) if root.is_dir() else [root] if root.suffix.lower() in ENDINGS else []
        if not all(id_col in table_columns(table) for table in tables):
            id_col = None
    numeric, categorical = config.columns_by_kind
    return Request(
        root=root,
        task=config.task,
        columns=Columns(
            image=config.image_col, text=config.text_col, id=id_col, numeric=numeric, categorical=categorical
        ),
        image_root=None if config.image_root is None else home_path(config.image_root),
        multi_label=None,
        labelled=False,
    )


def _pictures(folder: Path) -> SourceTable:
    """Every image in a folder with the text beside it, and every text alone: labels of folders are not read."""
    files = files_below(folder)
    texts = [path for path in files if path.suffix.lower() == _TEXT]
    images = [path for path in files if path.suffix.lower() != _TEXT and looks_like_image(path)]
    if not images and not texts:
        raise RecipeError(
            f"{folder} holds no table, no image and no text",
            given=f"{len(files)} files",
            expected="some of them",
            fix="name the folder of the pictures, or a table",
        )
    samples = {image or text or folder: (image, text) for image, text in pictures_and_texts([*images, *texts])}

    def rows() -> Iterator[Row]:
        for path, (image, beside) in sorted(samples.items()):
            text, repairs = _text(beside)
            picture = None if image is None else str(image)
            yield Row(path.relative_to(folder).as_posix(), picture, text, None, repairs=repairs)

    others = len(files) - len(images) - len(texts)
    return SourceTable(
        str(folder),
        rows,
        sorted([*images, *texts]),
        {"labelled": False},
        modalities=tuple(kind for kind, found in (("image", images), ("text", texts)) if found),
        notes=(f"left out: {others} files that are neither image nor text",) if others else (),
    )


def _text(path: Path | None) -> tuple[str | None, tuple[str, ...]]:
    """A text and no problem, or none and what kept it from being read."""
    try:
        return read_text(path), ()
    except RecipeError:
        return None, (_UNREADABLE,)
