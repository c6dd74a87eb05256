"""MM-IMDB: posters and plots of films, 23 genres, several a film (Arevalo et al., ICLR workshop 2017)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mi2p_inject.recipes.data.formats.folders import folder_with
from mi2p_inject.recipes.data.source_table import Row, SourceTable
from mi2p_inject.recipes.errors import RecipeError

if TYPE_CHECKING:
    from mi2p_inject.recipes.data.load import Request

__all__ = ["GENRES", "load_mmimdb"]

#: the genres, the most frequent first; films have others, too, which are not part of the task
GENRES = (
    "Drama", "Comedy", "Romance", "Thriller", "Crime", "Action", "Adventure", "Horror", "Documentary", "Mystery",
    "Sci-Fi", "Fantasy", "Family", "Biography", "War", "History", "Music", "Animation", "Musical", "Western", "Sport",
    "Short", "Film-Noir",
)  # fmt: skip
_SPLITS = {"train": "train", "validation": "dev", "test": "test"}
_PUBLISHED = {"train": 15552, "validation": 2608, "test": 7799}
_ID = re.compile(r"[\w-]{1,100}")


def load_mmimdb(request: Request) -> SourceTable:
    """The films of ``split.json``, splits as published; of several plots the longest; films without a plot left out.

    Args:
        request: its root, or a folder in it, holds ``split.json`` and ``dataset/<id>.{json,jpeg}``.

    Raises:
        RecipeError: these are missing; a JSON file is damaged, or holds something else than published.
    """
    root = folder_with(request.folder("mmimdb"), "split.json")
    split_file = root / "split.json"
    for path in (split_file, root / "dataset"):
        if not path.exists():
            raise RecipeError(
                f"{path} does not exist",
                expected="split.json and dataset/ of mmimdb.tar.gz",
                fix="unpack mmimdb.tar.gz there",
            )
    splits = _splits(split_file)
    return SourceTable(
        name="mmimdb",
        rows=lambda: _rows(root / "dataset", splits),
        files=[
            split_file,
            *(path for ids in splits.values() for one in ids if (path := _json(root / "dataset", one)).is_file()),
        ],
        options={"root": str(root)},
        classes=GENRES,
        multi_label=True,
        published=_PUBLISHED,
    )


def _splits(path: Path) -> dict[str, list[str]]:
    """Our name of each split -> the numbers of its films."""
    found = _read(path)
    lists = [found.get(word) for word in _SPLITS.values()] if isinstance(found, dict) else [None]
    if not all(isinstance(one, list) for one in lists):
        raise RecipeError(f"{path} has no lists train, dev and test", fix="unpack mmimdb.tar.gz again")
    splits = {split: [str(one) for one in found[word]] for split, word in _SPLITS.items()}
    if wrong := [one for ids in splits.values() for one in ids if not _ID.fullmatch(one)]:
        raise RecipeError(
            f"{path}: {len(wrong)} entries are no numbers of films",
            expected="such as 0111161",
            given=", ".join(repr(one[:40]) for one in wrong[:3]),
            fix="unpack mmimdb.tar.gz again",
        )
    return splits


def _rows(folder: Path, splits: dict[str, list[str]]) -> Iterator[Row]:
    for split, ids in splits.items():
        for one in ids:
            path = _json(folder, one)
            if not path.is_file():
                yield Row(one, None, None, (), split, dropped="no JSON file")
                continue
            film = _read(path)
            plot = max(_texts(film, "plot", path), key=len, default="").strip()
            genres = [part.strip() for one in _texts(film, "genres", path) for part in one.split(",")]
            labels = tuple(genre for genre in dict.fromkeys(genres) if genre in GENRES)
            dropped = "empty plot" if not plot else None if labels else "none of the 23 genres"
            yield Row(one, str(path.with_suffix(".jpeg")), plot, labels, split, dropped=dropped)


def _texts(film: Any, name: str, path: Path) -> list[str]:
    """What a film's file says under a name: a list of texts, one text, or nothing."""
    found = film.get(name) if isinstance(film, dict) else film
    texts = [one for one in (found if isinstance(found, list) else [found]) if one is not None]
    if not isinstance(film, dict) or not all(isinstance(one, str) for one in texts):
        raise RecipeError(
            f"{path} is no film of MM-IMDB",
            expected=f"an object with {name!r}: a list of texts",
            given=repr(found)[:80],
            fix="unpack mmimdb.tar.gz again, or take the film out of split.json",
        )
    return texts


def _json(folder: Path, one: str) -> Path:
    """IMDb numbers have seven digits; where somebody read them as numbers, the leading zeros are gone."""
    path = folder / f"{one}.json"
    return path if path.is_file() else folder / f"{one.zfill(7)}.json"


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"cannot read {path}: {error}", fix="unpack mmimdb.tar.gz again") from error
