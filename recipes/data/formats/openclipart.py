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

__all__ = ["LICENCE", "TOPICS", "load_openclipart"]

LICENCE = "Pictures and titles: Open Clip Art Library, public domain, as packaged by Debian 0.18."

#: folders that say what a picture shows, with 30 pictures or more
TOPICS = (
    "animals", "buildings", "computer", "education", "electronics", "food", "geography", "office", "people", "plants",
    "recreation", "signs_and_symbols", "tools", "transportation",
)  # fmt: skip
_THEMES = ("computer/icons", "computer/buttons")  # folders, arrows, loupes: no pictures of computers
_DEBIAN = Path("/usr/share/openclipart")
_COLLECTION = 5  # a title that so many pictures have is none of theirs
_TITLE = re.compile(r"<dc:title[^>]*>([^<]*)</dc:title>")
_NUMBER = re.compile(r"[_\W]+|\d+$")


def load_openclipart(request: Request) -> SourceTable:
    """About 3,400 drawings with titles, in 14 topics; no splits, so a split is made.

    Args:
        request: its root holds ``png/`` and ``svg/``; default: where Debian puts them.

    Raises:
        RecipeError: the packages are not installed.
    """
    root = request.root or _DEBIAN
    for kind in ("png", "svg"):
        if not (root / kind).is_dir():
            raise RecipeError(
                f"{root / kind} does not exist", fix="apt-get install openclipart-png openclipart-svg (Debian, Ubuntu)"
            )
    found = [path for topic in TOPICS for path in files_below(root / "png" / topic)]
    files = [path for path in found if path.suffix == ".png" and not path.is_symlink()]
    return SourceTable("openclipart", lambda: _rows(root, files), files, {"root": str(root)}, notes=(LICENCE,))


def _rows(root: Path, files: list[Path]) -> Iterator[Row]:
    names = [path.relative_to(root / "png").with_suffix("") for path in files]
    titles = [_title(root / "svg" / name.with_suffix(".svg")) for name in names]
    common = {title for title, count in Counter(titles).items() if count >= _COLLECTION}
    for path, name, title in zip(files, names, titles, strict=True):
        text = title if title and title not in common else " ".join(_NUMBER.sub(" ", name.name).split())
        theme = any(name.is_relative_to(one) for one in _THEMES)
        dropped = "icons of desktop themes" if theme else None
        yield Row(name.as_posix(), str(path), text, (name.parts[0],), dropped=dropped)


def _title(path: Path) -> str:
    if not os.path.exists(path):
        return ""
    found = _TITLE.search(path.read_text(encoding="utf-8", errors="replace"))
    return html.unescape(found[1]).strip() if found else ""
