"""The tables in a folder: one a split, in pieces, or that of a folder of pictures."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from mi2p_inject.recipes.data.source_table import is_split, split_name
from mi2p_inject.recipes.data.tables.read import ENDINGS
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["is_of_pictures", "split_files", "tables_in"]

_PIECE = re.compile(r"(?P<name>.+)-(?P<number>\d+)-of-(?P<count>\d+)")
"""How `datasets` and others name the files of a table that is cut into several."""


def tables_in(folder: Path) -> list[Path]:
    """The tables of a folder, or of folders of pictures in it that are called as splits; [] where there are none.

    Args:
        folder: as a user gives it.

    Raises:
        RecipeError: some folders of splits have a table, and some have none or several.
    """
    return _tables(folder) or list(_of_split_folders(folder))


def split_files(folder: Path) -> dict[Path, str | None]:
    """The tables of a folder -> their splits, None where the rows say it or one is to be made.

    Either ``train.csv``, ``dev.tsv``, ``test-00000-of-00002.parquet``..., or Hugging Face's imagefolder: one
    ``metadata.csv`` (or other table of that name) in the folder, or one in each of the folders ``train``, ``test``...
    (https://huggingface.co/docs/datasets/image_dataset#imagefolder).

    Args:
        folder: one in which `tables_in` finds some.

    Raises:
        RecipeError: a file is called as no split; a split has several tables, lacks pieces of one, or has pictures
            without a table.
    """
    tables = _tables(folder)
    if not tables:
        return dict(_of_split_folders(folder))
    if len(tables) == 1 and is_of_pictures(tables[0]):
        return {tables[0]: None}
    files: dict[Path, str | None] = {}
    whole: dict[str, set[str]] = {}
    for file in tables:
        piece = _PIECE.fullmatch(file.stem)
        name = piece["name"] if piece else file.stem
        files[file] = split = split_name(name, str(file))
        whole.setdefault(split, set()).add(f"{name} of {piece['count']}" if piece else file.name)
    if twice := sorted(split for split, found in whole.items() if len(found) > 1):
        raise RecipeError(f"{folder} has several tables for {', '.join(twice)}", fix="keep one table for each split")
    _check_pieces(folder, files)
    return files


def is_of_pictures(file: Path) -> bool:
    """Whether a file is called as the table of a folder of pictures, by Hugging Face's imagefolder."""
    return file.stem == "metadata" and file.suffix.lower() in ENDINGS


def _tables(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in ENDINGS)


def _of_split_folders(folder: Path) -> dict[Path, str]:
    """The tables of pictures in folders that are called as splits; all of these have one, or none has."""
    splits = sorted(one for one in folder.iterdir() if one.is_dir() and is_split(one.name))
    tables = {one: [file for file in _tables(one) if is_of_pictures(file)] for one in splits}
    if not any(tables.values()):
        return {}
    wrong = [one.name for one, found in tables.items() if len(found) != 1]
    names = [split_name(one.name, str(one)) for one in splits]
    if wrong or len(set(names)) < len(names):
        raise RecipeError(
            f"{folder}: {', '.join(wrong or [one.name for one in splits])} " + _fault(wrong),
            expected="one metadata.csv, .jsonl or .parquet in each folder of a split, and one folder a split",
            given="; ".join(f"{one.name}: {', '.join(file.name for file in found)}" for one, found in tables.items()),
            fix="add the table that lacks, or take the folder out",
        )
    return dict(zip((found[0] for found in tables.values()), names, strict=True))


def _fault(wrong: list[str]) -> str:
    return "has none, or several, of the tables that others have" if wrong else "are folders of the same split"


def _check_pieces(folder: Path, files: Mapping[Path, str | None]) -> None:
    for split in set(files.values()):
        pieces = [found for file, one in files.items() if one == split and (found := _PIECE.fullmatch(file.stem))]
        numbers = [int(one["number"]) for one in pieces]
        if pieces and sorted(numbers) != list(range(int(pieces[0]["count"]))):
            raise RecipeError(
                f"{folder} lacks pieces of the table for {split}, or has some twice",
                expected=f"{int(pieces[0]['count'])} files, such as {pieces[0].string}",
                given=", ".join(str(number) for number in sorted(numbers)[:20]),
                fix="copy all of them into the folder",
            )
