"""Characters that cannot be stored, compared or printed as they come."""

from __future__ import annotations

import codecs
import io
import re
import sys
import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from mi2p_inject.core.human import printable

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["as_written", "composed", "decodable", "in_markdown", "print_anything", "print_notes"]

#: what would start or end something in Markdown: a tag, a link, a cell of a table, stress, code, an entity
_MARKS = re.compile(r"[\\`*|]|<(?=[A-Za-z/!?])|\](?=[\[(:])|(?<!\w)_|_(?!\w)|&(?=#?\w+;)|~(?=~)")

#: families with what DejaVu Sans lacks, where they are installed
_FAMILIES = (
    *("DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "WenQuanYi Micro Hei", "PingFang SC"),
    *("Hiragino Sans", "Microsoft YaHei", "Malgun Gothic", "Noto Sans Devanagari", "Noto Sans Bengali"),
    *("Noto Sans Thai", "Noto Sans Arabic", "Arial Unicode MS", "Nirmala UI", "Noto Emoji"),
)


@contextmanager
def as_written(**settings: Any) -> Iterator[None]:
    """A block in which matplotlib writes texts as they are: a $ starts no formula, other scripts find their fonts.

    Args:
        **settings: more of matplotlib's, with _ for the point in their names.
    """
    import matplotlib
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    given = {name.replace("_", ".", 1): value for name, value in settings.items()}
    given |= {"text.parse_math": False, "font.family": [one for one in _FAMILIES if one in installed]}
    with matplotlib.rc_context(given), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield


def decodable(value: str) -> str:
    """The text with half characters (lone surrogates) replaced: they can be neither stored nor printed.

    JSON's escapes can hold them, and Python puts bytes that are no UTF-8 there, in names of files and in arguments.

    Examples:
        >>> decodable("caf\\udce9") == "caf\\N{REPLACEMENT CHARACTER}"
        True
    """
    if value.isascii():
        return value
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def composed(value: str) -> str:
    """The text in Unicode's composed form (NFC): macOS writes an é as e and an accent, and they look the same."""
    return value if value.isascii() else unicodedata.normalize("NFC", value)


def in_markdown(value: str) -> str:
    """A text of somebody else's in a line of Markdown: shown as it is, in a table too.

    Names of classes, columns and files, and what is said of them, may hold anything: a tag would be run by a reader, a
    picture's address be asked, and a line break end a table.

    Examples:
        >>> print(in_markdown("a|b <img src=x> ![](http://x) [0.1, 0.2]"))
        a\\|b \\<img src=x> ![\\](http://x) [0.1, 0.2]
    """
    return printable(_MARKS.sub(r"\\\g<0>", " ".join(value.split())))


def print_notes(notes: Iterable[str], console: Console) -> None:
    """What there is to say of the data, a line each."""
    for note in notes:
        console.print(f"note: {printable(note)}", highlight=False, markup=False)


def print_anything(*streams: TextIO) -> None:
    """What a stream's encoding does not have is printed as JSON writes it (``\\u2603``), instead of ending the program.

    Args:
        streams: default: standard output and error.

    Examples:
        >>> stream = io.TextIOWrapper(io.BytesIO(), "cp1252")
        >>> print_anything(stream)
        >>> stream.write("\\N{SNOWMAN}") and stream.flush()
        >>> stream.buffer.getvalue()
        b'\\\\u2603'
    """
    codecs.register_error("mi2p.escape", _escaped)
    for stream in streams or (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="mi2p.escape")


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2)), error.end
