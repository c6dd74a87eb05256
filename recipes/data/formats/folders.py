"""A user's own folder: ``<split>/<label>/<image>`` or ``<label>/<image>``, each image's text beside it."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from mi2p_inject.core.files.read import read_regular
from mi2p_inject.recipes.data.images import looks_like_image
from mi2p_inject.recipes.data.source_table import Row, SourceTable, is_split, split_name
from mi2p_inject.recipes.data.tables.lines import check_regular, decode
from mi2p_inject.recipes.data.tables.split_files import is_of_pictures
from mi2p_inject.recipes.errors import RecipeError

__all__ = [
    "files_below",
    "folder_with",
    "load_folder",
    "pictures_and_texts",
    "read_bytes",
    "read_text",
    "sample_folders",
    "subfolders",
]

_TEXT = ".txt"
#: what desktops, archives and version control leave behind
_NOT_DATA = frozenset({"thumbs.db", "desktop.ini"})
_NOT_FOLDERS = frozenset(
    {"__macosx", "__pycache__", "@eadir", "$recycle.bin", "system volume information", "lost+found", "node_modules"}
)
_RUN = "run.json"  # of a run folder
_MAX_TEXT = 2**26  # bytes


def load_folder(folder: Path) -> SourceTable:
    """Samples of a folder. ``a.txt`` or ``a.jpg.txt`` beside ``a.jpg`` is its text; alone, a sample without an image.

    Folders without any image or text (annotations, ``__MACOSX``, ``.git``) and run folders are no labels: they are left
    out, with a note. So are files that are neither image nor text.

    Args:
        folder: holds a folder for each split (train, val, test...) with one for each label, or one for each label.

    Raises:
        RecipeError: there are no such folders; some are splits and some are not.
    """
    notes: list[str] = []
    names = sample_folders(folder, notes)
    splits = [name for name in names if is_split(name)]
    if splits and len(splits) < len(names):
        raise RecipeError(
            f"{folder} has folders that are splits and others",
            given=", ".join(names[:10]),
            fix="<split>/<label>/<image> with splits train, validation and test, or <label>/<image>",
        )
    roots: dict[str | None, Path] = {split_name(one, str(folder)): folder / one for one in splits} or {None: folder}
    files = {
        (split, label): _samples(root / label)
        for split, root in roots.items()
        for label in (sample_folders(root, notes) if splits else names)
    }
    if not any(files.values()):
        table = next(filter(is_of_pictures, files_below(folder)), None)
        raise RecipeError(
            f"{folder} is empty" if not any(folder.iterdir()) else f"{folder} has neither tables nor folders of labels",
            given="; ".join([f"{len(_samples(folder))} images and texts below it", *notes[:3]]),
            expected="a table (train.csv, ...), or <split>/<label>/<image>, or <label>/<image>",
            fix=_instead(folder, table),
        )
    notes += _other_files([root / label for split, root in roots.items() for one, label in files if one == split])

    def rows() -> Iterator[Row]:
        for (split, label), found in files.items():
            for image, text in pictures_and_texts(found):
                name = (image or text or folder).relative_to(folder).as_posix()
                yield Row(name, None if image is None else str(image), read_text(text), (label,), split)

    every = [path for found in files.values() for path in found]
    kinds = {"image" if path.suffix.lower() != _TEXT else "text" for path in every}
    modalities = tuple(kind for kind in ("image", "text") if kind in kinds)
    return SourceTable(
        str(folder), rows, every, {}, multi_label=False, modalities=modalities, notes=tuple(dict.fromkeys(notes))
    )


def _instead(folder: Path, table: Path | None) -> str:
    if any((folder / name).is_file() for name in ("dataset_dict.json", "state.json")):
        return "datasets.save_to_disk wrote it; from Python: fit(datasets.load_from_disk(...))"
    if table:
        return f"--data {table}, with --image-col if its column of paths is not called file_name"
    return "make a table (docs/data.md), or a folder of pictures for each label"


def sample_folders(folder: Path, notes: list[str]) -> list[str]:
    """Names of the folders that hold samples somewhere, sorted; a note for each of the others.

    Args:
        folder: what they are in.
        notes: appended to.
    """
    found = []
    for name in subfolders(folder):
        if (folder / name / _RUN).is_file():
            notes.append(f"left out: the folder {name}: it is a run of mi2p, not a label")
        elif any(_is_sample(path) for path in files_below(folder / name)):
            found.append(name)
        else:
            notes.append(f"left out: the folder {name}: it holds no image and no text")
    return found


def _samples(folder: Path) -> list[Path]:
    return [path for path in files_below(folder) if _is_sample(path)]


def _is_sample(path: Path) -> bool:
    return path.suffix.lower() == _TEXT or looks_like_image(path)


def _other_files(folders: list[Path]) -> list[str]:
    kinds = Counter(
        path.suffix.lower() or "no ending" for folder in folders for path in files_below(folder) if not _is_sample(path)
    )
    if not kinds:
        return []
    shown = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(5))
    return [f"left out: {sum(kinds.values())} files that are neither image nor text ({shown})"]


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted, without hidden ones and those that tools leave behind."""
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not _left_behind(entry.name))


def folder_with(root: Path, *names: str) -> Path:
    """The folder that has one of these entries: the root, or one of its folders and their folders, as archives unpack.

    Args:
        root: of a data set.
        names: paths in the folder; where none has any of them, it is the root.
    """
    below = [root / one for one in subfolders(root)]
    places = [root, *below, *(one / other for one in below for other in subfolders(one))]
    return next((place for place in places if any((place / name).exists() for name in names)), root)


def files_below(folder: Path) -> list[Path]:
    """The files in a folder and below, sorted, without hidden ones, run folders, and what tools leave behind."""
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not _left_behind(name)]
        if _RUN in names:
            folders.clear()
            continue
        found += [Path(root, name) for name in names if name[0] != "." and name.lower() not in _NOT_DATA]
    return sorted(found)


def _left_behind(name: str) -> bool:
    return name.startswith(".") or name.lower() in _NOT_FOLDERS


def pictures_and_texts(files: Iterable[Path]) -> list[tuple[Path | None, Path | None]]:
    """The samples among images and texts: each image with the text beside it, then the texts that are no image's.

    Args:
        files: ``a.jpg.txt`` or else ``a.txt`` is the text of ``a.jpg``.

    Examples:
        >>> [(str(image), str(text)) for image, text in pictures_and_texts(map(Path, ["a.jpg", "a.txt", "b.txt"]))]
        [('a.jpg', 'a.txt'), ('None', 'b.txt')]
    """
    every = list(files)
    texts = {path.with_suffix(""): path for path in every if path.suffix.lower() == _TEXT}
    images = [path for path in every if path.suffix.lower() != _TEXT]
    found: list[tuple[Path | None, Path | None]] = [
        (image, texts.get(image) or texts.get(image.with_suffix(""))) for image in images
    ]
    taken = {text for _, text in found}
    return found + [(None, text) for text in texts.values() if text not in taken]


def read_text(path: Path | None) -> str | None:
    """The text of a file, decoded as its byte-order mark says, else as UTF-8; None for no file.

    Raises:
        RecipeError: it cannot be decoded; see `read_bytes`.
    """
    return None if path is None else decode(path, read_bytes(path))


def read_bytes(path: Path) -> bytes:
    """The content of a text file.

    Raises:
        RecipeError: the file cannot be read, is none, or has more than 64 MiB.
    """
    check_regular(path)
    try:
        return read_regular(path, _MAX_TEXT)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise RecipeError(
                f"{path} is too large for a text",
                expected=f"at most {_MAX_TEXT:,} bytes",
                fix="take it out, or make a table with a text column",
            ) from error
        raise RecipeError(
            f"cannot read {path}: {error.strerror}", fix="let this user read it, or take it out"
        ) from error
