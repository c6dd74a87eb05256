"""A user's own folder: ``<split>/<label>/<image>`` or ``<label>/<image>``, each image's text beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from mi2p_inject.recipes.data.source_table import Row, SourceTable, is_split, split_name
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["files_below", "load_folder", "read_text", "subfolders"]

_TEXT = ".txt"
_NOT_DATA = {"thumbs.db", "desktop.ini"}


def load_folder(folder: Path) -> SourceTable:
    """Samples of a folder. A file ``a.txt`` beside ``a.jpg`` is its text; alone, it is a sample without an image.

    Args:
        folder: holds a folder for each split (train, val, test...) with one for each label, or one for each label.

    Raises:
        RecipeError: there are no such folders; some are splits and some are not.
    """
    names = subfolders(folder)
    splits = [name for name in names if is_split(name)]
    if splits and len(splits) < len(names):
        raise RecipeError(
            f"{folder} has folders that are splits and others",
            given=", ".join(names[:10]),
            fix="<split>/<label>/<image> with splits train, validation and test, or <label>/<image>",
        )
    roots: dict[str | None, Path] = {split_name(one, str(folder)): folder / one for one in splits} or {None: folder}
    files = {(split, label): files_below(root / label) for split, root in roots.items() for label in subfolders(root)}
    if not any(files.values()):
        raise RecipeError(
            f"{folder} is empty" if not any(folder.iterdir()) else f"{folder} has neither tables nor folders of labels",
            given=f"{len(files_below(folder))} images and texts below it",
            expected="a table (train.csv, ...), or <split>/<label>/<image>, or <label>/<image>",
        )

    def rows() -> Iterator[Row]:
        for (split, label), found in files.items():
            texts = {path.with_suffix(""): path for path in found if path.suffix.lower() == _TEXT}
            images = [path for path in found if path.suffix.lower() != _TEXT]
            for path in images:
                text = texts.get(path.with_suffix(""))
                yield Row(path.relative_to(folder).as_posix(), str(path), read_text(text), (label,), split)
            for stem in texts.keys() - {path.with_suffix("") for path in images}:
                yield Row(texts[stem].relative_to(folder).as_posix(), None, read_text(texts[stem]), (label,), split)

    every = [path for found in files.values() for path in found]
    kinds = {"image" if path.suffix.lower() != _TEXT else "text" for path in every}
    modalities = tuple(kind for kind in ("image", "text") if kind in kinds)
    return SourceTable(str(folder), rows, every, {}, multi_label=False, modalities=modalities)


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted, without hidden ones."""
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def files_below(folder: Path) -> list[Path]:
    """The files in a folder and below, sorted, without hidden ones and those that desktops leave behind."""
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(root, name) for name in names if name[0] != "." and name.lower() not in _NOT_DATA]
    return sorted(found)


def read_text(path: Path | None) -> str | None:
    """The text of a file, bytes that are no UTF-8 replaced; None for no file.

    Raises:
        RecipeError: the file cannot be read.
    """
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise RecipeError(f"cannot read {path}: {error.strerror}") from error
