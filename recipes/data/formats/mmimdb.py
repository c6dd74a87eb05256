"""MM-IMDB: posters and plots of films, 23 genres, several a film (Arevalo et al., ICLR workshop 2017)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

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


def load_mmimdb(request: Request) -> SourceTable:
    """The films of ``split.json``, splits as published; of several plots the longest; films without a plot left out.

    Args:
        request: its root holds ``split.json`` and ``dataset/<id>.{json,jpeg}``, or a folder ``mmimdb`` with them.

    Raises:
        RecipeError: these are missing; a JSON file is damaged.
    """
    root = request.folder("mmimdb")
    root = root / "mmimdb" if (root / "mmimdb").is_dir() else root
    split_file = root / "split.json"
    for path in (split_file, root / "dataset"):
        if not path.exists():
            raise RecipeError(
                f"{path} does not exist",
                expected="split.json and dataset/ of mmimdb.tar.gz",
                fix="unpack mmimdb.tar.gz there",
            )
    splits = _read(split_file)
    if not isinstance(splits, dict) or not set(_SPLITS.values()) <= splits.keys():
        raise RecipeError(f"{split_file} has no lists train, dev and test", fix="unpack mmimdb.tar.gz again")
    return SourceTable(
        name="mmimdb",
        rows=lambda: _rows(root / "dataset", {split: splits[word] for split, word in _SPLITS.items()}),
        files=[
            split_file,
            *(path for path in [_json(root / "dataset", one) for one in _ids(splits)] if path.is_file()),
        ],
        options={"root": str(root)},
        classes=GENRES,
        multi_label=True,
        published=_PUBLISHED,
    )


def _ids(splits: dict[str, Any]) -> Iterator[str]:
    return (str(one) for word in _SPLITS.values() for one in splits[word])


def _rows(folder: Path, splits: dict[str, list[Any]]) -> Iterator[Row]:
    for split, ids in splits.items():
        for one in map(str, ids):
            path = _json(folder, one)
            if not path.is_file():
                yield Row(one, None, None, (), split, dropped="no JSON file")
                continue
            film = _read(path)
            plots, genres = film.get("plot") or [], film.get("genres") or []
            plot = max([plots] if isinstance(plots, str) else plots, key=len, default="").strip()
            labels = tuple(genre for genre in dict.fromkeys(genres) if genre in GENRES)
            dropped = "empty plot" if not plot else None if labels else "none of the 23 genres"
            yield Row(one, str(path.with_suffix(".jpeg")), plot, labels, split, dropped=dropped)


def _json(folder: Path, one: str) -> Path:
    """IMDb numbers have seven digits; where somebody read them as numbers, the leading zeros are gone."""
    path = folder / f"{one}.json"
    return path if path.is_file() else folder / f"{one.zfill(7)}.json"


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"cannot read {path}: {error}", fix="unpack mmimdb.tar.gz again") from error
