"""Characters that cannot be stored, compared or printed as they come."""

from __future__ import annotations

import codecs
import io
import sys
import unicodedata
from typing import TextIO

__all__ = ["composed", "decodable", "print_anything"]


def decodable(value: str) -> str:
    """The text with half characters (lone surrogates) replaced: they can be neither stored nor printed.

    JSON's escapes can hold them, and Python puts bytes that are no UTF-8 there, in names of files and in arguments.

    Example:
        >>> decodable("caf\\udce9") == "caf\\N{REPLACEMENT CHARACTER}"
        True
    """
    if value.isascii():
        return value
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def composed(value: str) -> str:
    """The text in Unicode's composed form (NFC): macOS writes an é as e and an accent, and they look the same."""
    return value if value.isascii() else unicodedata.normalize("NFC", value)


def print_anything(*streams: TextIO) -> None:
    """What a stream's encoding does not have is printed as JSON writes it (``\\u2603``), instead of ending the program.

    Args:
        streams: default: standard output and error.

    Example:
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
