"""UPMC Food-101: 101 dishes, photos and texts of web pages (Wang et al., ICME workshop 2015). Both copies in use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mi2p_inject.recipes.data.formats.folders import files_below, folder_with, read_bytes, subfolders
from mi2p_inject.recipes.data.source_table import Row, SourceTable
from mi2p_inject.recipes.data.tables.cells import labels_of
from mi2p_inject.recipes.data.tables.read import table_columns, table_rows
from mi2p_inject.recipes.data.values import UNDECODABLE
from mi2p_inject.recipes.errors import RecipeError

if TYPE_CHECKING:
    from mi2p_inject.recipes.data.load import Request

__all__ = ["load_food101", "wrong_food101"]

_SPLITS = ("train", "test")
_CLASSES = 101
_PAPER = {"train": 58131, "validation": 6452, "test": 21519}  # MI2P, Table 1
_TITLES = {"train+validation": 67972, "test": 22716}  # the copy with titles


def load_food101(request: Request) -> SourceTable:
    """Food-101 with texts: pages (``texts_txt/``, as in the paper) or titles (``texts/train_titles.csv``).

    A tenth of the training split becomes validation.

    Args:
        request: its root, or a folder in it, holds ``images/{train,test}/<class>/`` and one of the two kinds of texts.

    Raises:
        RecipeError: it is the other Food-101, without texts; or neither layout.
    """
    root = folder_with(request.folder("food101"), "texts_txt", "texts/train_titles.csv")
    pages, titles = root / "texts_txt", root / "texts"
    if not pages.is_dir() and not (titles / "train_titles.csv").is_file():
        if (root / "meta").is_dir() or any(map(_without_texts, root.glob("**/train-*-of-*.parquet"))):
            raise wrong_food101(str(root))
        raise RecipeError(
            f"{root} is not UPMC Food-101",
            expected="texts_txt/<class>/<name>.txt or texts/train_titles.csv and texts/test_titles.csv, beside images/",
            given=", ".join(sorted(path.name for path in root.iterdir())[:10]) or "an empty folder",
            fix="unpack the data set there, see docs/data.md",
        )
    folders = [root / "images" / split for split in _SPLITS]
    for folder in folders:
        if not folder.is_dir():
            raise RecipeError(f"the images folder {folder} does not exist", fix="unpack the images of UPMC Food-101")
    if pages.is_dir():
        files = [path for folder in (*folders, pages) for path in files_below(folder)]
        notes, published = _class_note(subfolders(folders[0])), _PAPER
        rows = lambda: _page_rows(root)  # noqa: E731
    else:
        files = [titles / f"{split}_titles.csv" for split in _SPLITS]
        notes, published = (), _TITLES
        rows = lambda: _title_rows(root)  # noqa: E731
    return SourceTable("food101", rows, files, {"root": str(root)}, multi_label=False, published=published, notes=notes)


def _without_texts(parquet: Path) -> bool:
    try:
        return set(table_columns(parquet)) <= {"image", "label"}
    except RecipeError:
        return True


def wrong_food101(given: str) -> RecipeError:
    """The error for the data set of the same name that has no texts."""
    return RecipeError(
        f"{given} is ETHZ Food-101 (on the Hub: ethz/food101): another data set, pictures without texts",
        expected="UPMC Food-101, with a text for each picture",
        fix="download UPMC Food-101 and give its folder: food101:/path",
    )


def _page_rows(root: Path) -> Iterator[Row]:
    texts = {(path.parent.name, path.stem): path for path in files_below(root / "texts_txt")}
    for split in _SPLITS:
        for path in files_below(root / "images" / split):
            label = path.parent.name
            text, repairs = _page(texts.pop((label, path.stem), None))
            yield Row(f"{split}/{label}/{path.name}", str(path), text, (label,), split, repairs=repairs)
    for (label, stem), path in texts.items():
        reason = "a text without an image: its split is unknown"
        yield Row(f"texts_txt/{label}/{stem}", None, _page(path)[0], (label,), dropped=reason)


def _page(path: Path | None) -> tuple[str | None, tuple[str, ...]]:
    """A web page's text, and what was done to read it: some of the published ones are no UTF-8 throughout."""
    if path is None:
        return None, ()
    text = read_bytes(path).decode("utf-8-sig", errors="replace")
    return text, (UNDECODABLE,) if "\N{REPLACEMENT CHARACTER}" in text else ()


def _title_rows(root: Path) -> Iterator[Row]:
    names = ["file", "title", "class"]
    for split in _SPLITS:
        table = root / "texts" / f"{split}_titles.csv"
        for number, (line, fields, _) in enumerate(table_rows(table, names)):
            label, file = fields["class"].strip(), fields["file"].strip()
            if number == 0 and not Path(file).suffix:
                continue  # names of columns, which the published file lacks
            image = str(root / "images" / split / label / file) if file else None
            labels = labels_of(label, False, f"{table}, line {line}: label")
            yield Row(f"{split}/{label}/{file}", image, fields["title"], labels, split)


def _class_note(found: list[str]) -> tuple[str, ...]:
    return () if len(found) == _CLASSES else (f"{len(found)} classes in images/train, published: {_CLASSES}",)
