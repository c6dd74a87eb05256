"""Open Clip Art: drawings with titles in topics, from two Debian packages; public domain.

``apt-get install openclipart-png openclipart-svg`` puts the pictures into ``/usr/share/openclipart/png`` and their
titles (in the SVG files) beside them. The titles are short, in several languages, and those of a collection, not of a
picture, are replaced by the words of the file name.
"""

from __future__ import annotations

import html
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mi2p_inject.recipes.data.formats.folders import files_below
from mi2p_inject.recipes.data.source_table import Row, SourceTable
from mi2p_inject.recipes.errors import RecipeError

if TYPE_CHECKING:
    from mi2p_inject.recipes.data.load import Request

__all__ = ["KEYWORDS", "LICENCE", "TASKS", "TOPICS", "load_openclipart"]

LICENCE = "Pictures and titles: Open Clip Art Library, public domain, as packaged by Debian 0.18."

#: folders that say what a picture shows, with 30 pictures or more
TOPICS = (
    "animals", "buildings", "computer", "education", "electronics", "food", "geography", "office", "people", "plants",
    "recreation", "signs_and_symbols", "tools", "transportation",
)  # fmt: skip
#: keywords of the SVG files that say what a picture shows, with 45 pictures or more: the labels of the task "keywords"
KEYWORDS = (
    "animal", "beverage", "bird", "building", "card", "computer", "dessert", "festive", "flag", "food", "fruit",
    "hardware", "insect", "mammal", "map", "music", "office", "people", "plant", "recreation", "roadsign", "shape",
    "sign", "smiley", "sports", "symbol", "tool", "transport", "weather",
)  # fmt: skip
TASKS = ("topics", "keywords")
_THEMES = ("computer/icons", "computer/buttons")  # folders, arrows, loupes: no pictures of computers
_DEBIAN = Path("/usr/share/openclipart")
_COLLECTION = 5  # a title that so many pictures have is none of theirs
_TITLE = re.compile(r"<dc:title[^>]*>([^<]*)</dc:title>")
_KEYWORD = re.compile(r"<rdf:li[^>]*>([^<]*)</rdf:li>")
_NUMBER = re.compile(r"[_\W]+|\d+$")


def load_openclipart(request: Request) -> SourceTable:
    """About 3,400 drawings with titles; no splits, so a split is made.

    Its task is "topics", one of 14 a picture, or "keywords", any number of 29: the pictures that have one of them,
    about 2,000.

    Args:
        request: its root holds ``png/`` and ``svg/``; default: where Debian puts them. Its task is the first
            by default.

    Raises:
        RecipeError: the packages are not installed, or no such task.
    """
    task = request.task or TASKS[0]
    if task not in TASKS:
        raise RecipeError(f"openclipart has no task {task!r}", expected=", ".join(TASKS), fix="give one as --task")
    root = request.root or _DEBIAN
    for kind in ("png", "svg"):
        if not (root / kind).is_dir():
            raise RecipeError(
                f"{root / kind} does not exist", fix="apt-get install openclipart-png openclipart-svg (Debian, Ubuntu)"
            )
    found = [path for topic in TOPICS for path in files_below(root / "png" / topic)]
    files = [path for path in found if path.suffix == ".png" and not path.is_symlink()]
    keywords = task == "keywords"
    return SourceTable(
        f"openclipart, {task}" if keywords else "openclipart",
        lambda: _rows(root, files, keywords),
        files,
        {"root": str(root), **({"task": task} if keywords else {})},
        multi_label=keywords,
        notes=(LICENCE,),
    )


def _rows(root: Path, files: list[Path], keywords: bool) -> Iterator[Row]:
    names = [path.relative_to(root / "png").with_suffix("") for path in files]
    drawings = [_drawing(root / "svg" / name.with_suffix(".svg")) for name in names]
    titles = [_title(drawing) for drawing in drawings]
    common = {title for title, count in Counter(titles).items() if count >= _COLLECTION}
    for path, name, title, drawing in zip(files, names, titles, drawings, strict=True):
        text = title if title and title not in common else " ".join(_NUMBER.sub(" ", name.name).split())
        theme = any(name.is_relative_to(one) for one in _THEMES)
        labels = _labels(drawing) if keywords else (name.parts[0],)
        dropped = "icons of desktop themes" if theme else None if labels else "none of the keywords"
        yield Row(name.as_posix(), str(path), text, labels, dropped=dropped)


def _drawing(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if os.path.exists(path) else ""


def _title(drawing: str) -> str:
    found = _TITLE.search(drawing)
    return html.unescape(found[1]).strip() if found else ""


def _labels(drawing: str) -> tuple[str, ...]:
    """Those of its keywords that are labels, in the order of the table."""
    found = {html.unescape(word).strip().lower() for word in _KEYWORD.findall(drawing)}
    return tuple(one for one in KEYWORDS if one in found)
