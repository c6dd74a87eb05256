"""Tux Paint's stamps: pictures with one sentence each, in topics, from a Debian package.

``apt-get install tuxpaint-stamps-default`` puts them into ``/usr/share/tuxpaint/stamps``: ``<topic>/…/<name>.png`` with
``<name>.txt``, whose first line is the sentence in English.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mi2p_inject.recipes.data.formats.folders import files_below
from mi2p_inject.recipes.data.source_table import Row, SourceTable
from mi2p_inject.recipes.errors import RecipeError

if TYPE_CHECKING:
    from mi2p_inject.recipes.data.load import Request

__all__ = ["LICENCE", "TOPICS", "load_tuxpaint"]

LICENCE = (
    "Pictures and texts: stamps of Tux Paint 2022.06.04, GPL 2 or later and other free licences, as packaged by Debian."
)

#: folders with thirty pictures or more
TOPICS = ("animals", "food", "household", "plants", "seasonal", "symbols", "town", "vehicles")
_DEBIAN = Path("/usr/share/tuxpaint/stamps")
_MIRRORED = "_mirror"  # of a stamp that is drawn anew where it is mirrored: the same thing


def load_tuxpaint(request: Request) -> SourceTable:
    """About 700 pictures with a sentence each, in 8 topics; no splits, so a split is made.

    Stamps that are drawings (.svg) are left out and counted: no renderer is needed.

    Args:
        request: its root is the folder of the stamps; default: where Debian puts it.

    Raises:
        RecipeError: the package is not installed.
    """
    root = request.root or _DEBIAN
    if not any((root / topic).is_dir() for topic in TOPICS):
        raise RecipeError(
            f"{root} holds no stamps",
            expected=f"folders such as {', '.join(TOPICS[:3])}",
            fix="apt-get install tuxpaint-stamps-default (Debian, Ubuntu), or --data tuxpaint:/path/to/stamps",
        )
    every = [path for topic in TOPICS if (root / topic).is_dir() for path in files_below(root / topic)]
    files = [path for path in every if path.suffix == ".png" and not path.stem.endswith(_MIRRORED)]
    drawn = {path.with_suffix("") for path in every if path.suffix == ".svg"} - {one.with_suffix("") for one in files}
    notes = (f"{len(drawn)} stamps are drawings (.svg) and are left out.",) if drawn else ()
    return SourceTable("tuxpaint", lambda: _rows(root, files), files, {"root": str(root)}, notes=(*notes, LICENCE))


def _rows(root: Path, files: list[Path]) -> Iterator[Row]:
    for path in files:
        name, text = path.relative_to(root).with_suffix(""), _text(path.with_suffix(".txt"))
        yield Row(name.as_posix(), str(path), text, (name.parts[0],), dropped=None if text else "no text")


def _text(path: Path) -> str:
    """The first line: the others are translations."""
    if not path.is_file():
        return ""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return lines[0].strip() if lines else ""
