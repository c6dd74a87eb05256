"""What a loader reads, before labels are numbered and splits are made; stored on disk once."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mi2p_inject.core.errors import Mi2pError
from mi2p_inject.recipes.characters import composed, decodable
from mi2p_inject.recipes.data.duplicates import text_key
from mi2p_inject.recipes.data.values import UNDECODABLE, visible
from mi2p_inject.recipes.errors import RecipeError

if TYPE_CHECKING:
    import datasets
    from PIL import Image

__all__ = ["MAX_CHARACTERS", "Row", "SourceTable", "is_split", "split_name", "store"]

#: longer texts are cut: 20,000 characters are some ten times what a text encoder reads
MAX_CHARACTERS = 20_000
_VERSION = 8  # of the stored columns and of how loaders fill them: count up when either changes
_SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "development"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}


class Row(NamedTuple):
    """One sample as it was found.

    Attributes:
        id: unique in the data set.
        image: absolute path, or a picture that the loader drew; None if the sample has none.
        text: as it was found; None if the sample has none.
        labels: names of its labels; None if it is unlabelled.
        split: "train", "validation", "test"; None where the split is still to be made.
        group: samples with the same key belong together.
        dropped: why this is no sample of the task, for counting; None for a sample.
        repairs: what was done to read it, for counting.
        numbers, categories: cells of further columns that a model reads, in the order in which they were named; None
            where a cell is missing.
    """

    id: str
    image: str | Image.Image | None
    text: str | None
    labels: tuple[str, ...] | None
    split: str | None = None
    group: str | None = None
    dropped: str | None = None
    repairs: tuple[str, ...] = ()
    numbers: tuple[float | None, ...] = ()
    categories: tuple[str | None, ...] = ()


@dataclass(frozen=True)
class SourceTable:
    """A data set as its loader found it.

    Attributes:
        name: of the data set and its task, for messages.
        rows: reads all rows; called at most once, not at all where the same rows are stored already.
        files: what the rows depend on; a change of size or time of one makes them be read again.
        options: what else the rows depend on, as JSON values.
        classes: the labels in their order; None: those found, sorted.
        multi_label: whether a sample may have several labels; None: whether one has.
        modalities: what a sample should have.
        published: size of each split, or of several joined by ``+``, as published; a difference is reported.
        notes: what the loader has to say.
        drawn: the images are pictures, not paths.
        cells: rows have ``numbers`` or ``categories``.
    """

    name: str
    rows: Callable[[], Iterator[Row]]
    files: Iterable[Path]
    options: dict[str, Any]
    classes: tuple[str, ...] | None = None
    multi_label: bool | None = None
    modalities: tuple[str, ...] = ("image", "text")
    published: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    drawn: bool = False
    cells: bool = False


def is_split(name: str) -> bool:
    """Whether a name is one of a split, such as "dev"."""
    return name.strip().lower() in _SPLIT_NAMES


def split_name(value: str, where: str) -> str:
    """``"dev"`` -> ``"validation"`` and so on.

    Raises:
        RecipeError: the value names no split.
    """
    if not is_split(value):
        raise RecipeError(
            f"{where}: {value!r} is no split of a data set",
            expected=", ".join(_SPLIT_NAMES),
            fix="write train, validation or test, or name another column: --split-col",
        )
    return _SPLIT_NAMES[value.strip().lower()]


def store(table: SourceTable, *, repair_text: bool = False, cache_dir: Path | None = None) -> datasets.Dataset:
    """The rows as a memory-mapped data set, read from the stored one if nothing has changed.

    Columns: those of `Row`, ``cells_hash`` (of numbers and categories), ``text_hash``, ``text_key`` (see `duplicates`),
    ``mojibake`` (the text was decoded with a wrong character set) and ``cut`` (it was longer than `MAX_CHARACTERS`).
    Texts are stripped; empty ones are None.

    Args:
        table: what a loader found.
        repair_text: undo wrong decodings of texts (``â€™`` becomes ``’``).
        cache_dir: where to store; default: the cache folder of `datasets`.

    Raises:
        RecipeError: there are no rows; the disk is full; whatever the loader raises while it reads.
    """
    import datasets

    text = datasets.Value("string")
    columns = {
        **dict.fromkeys(("id", "text", "split", "group", "dropped", "text_hash", "text_key", "cells_hash"), text),
        "image": datasets.Image() if table.drawn else text,
        **dict.fromkeys(("labels", "repairs", "categories"), datasets.List(text)),
        "numbers": datasets.List(datasets.Value("float64")),
        **dict.fromkeys(("mojibake", "cut"), datasets.Value("bool")),
    }
    try:
        return datasets.Dataset.from_generator(
            _columns,
            features=datasets.Features(columns),
            gen_kwargs={"table": table, "repair_text": repair_text},
            fingerprint=_fingerprint(table, repair_text),
            cache_dir=cache_dir and str(cache_dir),
        )
    except (datasets.exceptions.DatasetGenerationError, OSError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if isinstance(cause, Mi2pError):
            raise cause from None
        if not isinstance(cause, OSError):
            raise
        raise RecipeError(
            f"cannot store the rows of {table.name}: {cause}",
            fix="free some space, or set HF_DATASETS_CACHE to a folder that can be written",
        ) from cause


def _fingerprint(table: SourceTable, repair_text: bool) -> str:
    digest = hashlib.sha256(json.dumps([_VERSION, table.name, table.options, repair_text], sort_keys=True).encode())
    for path in table.files:
        status = os.stat(path)
        digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()[:32]


def _stored(row: Row) -> Row:
    """The row without half characters, which nothing can store; labels and groups in Unicode's composed form."""
    texts = (row.id, row.text or "", row.group or "", *(row.labels or ()), *(one or "" for one in row.categories))
    image = row.image if isinstance(row.image, str) else ""
    if all(one.isascii() for one in texts) and image.isascii():
        return row
    repairs = row.repairs
    if any(decodable(one) != one for one in (*texts, image)):
        repairs = (*repairs, UNDECODABLE)
    return row._replace(
        id=decodable(row.id),
        image=decodable(image) if isinstance(row.image, str) else row.image,
        text=row.text and decodable(row.text),
        labels=None if row.labels is None else tuple(visible(composed(decodable(one))) for one in row.labels),
        group=row.group and visible(composed(decodable(row.group))),
        repairs=repairs,
        categories=tuple(one and decodable(one) for one in row.categories),
    )


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=8).hexdigest()


def _columns(table: SourceTable, repair_text: bool) -> Iterator[dict[str, Any]]:
    from ftfy import fix_encoding
    from ftfy.badness import is_bad

    row = None
    for row in table.rows():
        row = _stored(row)
        text = (row.text or "").replace("\0", " ").strip()
        mojibake = not text.isascii() and is_bad(text)
        if mojibake and repair_text:
            text = fix_encoding(text)
        cut = text[:MAX_CHARACTERS]
        yield {
            **row._asdict(),
            "text": cut or None,
            "text_hash": _hash(cut) if cut else None,
            "text_key": text_key(cut),
            "cells_hash": _hash(repr((row.numbers, row.categories))) if row.numbers or row.categories else None,
            "labels": None if row.labels is None else list(row.labels),
            "repairs": list(row.repairs),
            "numbers": list(row.numbers),
            "categories": list(row.categories),
            "mojibake": mojibake,
            "cut": len(cut) < len(text),
        }
    if row is None:
        raise RecipeError(f"{table.name} has no samples", fix="add rows below the names of the columns")
