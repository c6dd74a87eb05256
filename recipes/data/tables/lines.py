"""Text files line by line: of any Unicode encoding that marks itself, never a line that fills the memory."""

from __future__ import annotations

import codecs
import os
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TextIO

from mi2p_inject.recipes.errors import RecipeError

__all__ = ["MAX_LINE", "check_regular", "decode", "lines", "open_text", "unreadable"]

#: characters; the longest web pages have some millions
MAX_LINE = 2**26
_HEAD = 4096  # bytes
_MARKS = (  # UTF-32's begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
#: first bytes -> what the file is, and what to do
_FOREIGN = (
    (b"PK\x03\x04", "a zip archive or a spreadsheet (.xlsx, .ods)", "save it from the spreadsheet as CSV UTF-8"),
    (b"\xd0\xcf\x11\xe0", "an Excel file (.xls)", "save it from the spreadsheet as CSV UTF-8"),
    (b"\x1f\x8b", "compressed with gzip", "gunzip it"),
    (b"BZh", "compressed with bzip2", "bunzip2 it"),
    (b"\xfd7zXZ", "compressed with xz", "unxz it"),
    (b"PAR1", "a Parquet file", "name it .parquet"),
    (b"SQLite format 3", "an SQLite database", "export the table as CSV"),
)


def check_regular(path: Path) -> os.stat_result:
    """The status of a regular file: a pipe would block for ever, a device never ends.

    Raises:
        RecipeError: there is no such file, or it is none.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise _closed(path, error) from error
    if not stat.S_ISREG(status.st_mode):
        raise RecipeError(
            f"{path} is no regular file",
            expected="a file on a disk",
            given="a folder, a pipe or a device",
            fix="write what it gives into a file first",
        )
    return status


def _closed(path: Path, error: OSError | ValueError) -> RecipeError:
    return RecipeError(
        f"cannot read {path}: {getattr(error, 'strerror', None) or error}",
        fix="check that it is there and that this user may read it",
    )


def open_text(path: Path) -> TextIO:
    """The file, decoded as its byte-order mark says, else as UTF-8; line ends as they are.

    Raises:
        RecipeError: it cannot be opened, is no text, or is UTF-16 without a mark.
    """
    check_regular(path)
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
        return path.open(encoding=_encoding(path, head), newline="")
    except OSError as error:
        raise _closed(path, error) from error


def decode(path: Path, content: bytes) -> str:
    """A text file's content, decoded as its byte-order mark says, else as UTF-8.

    Args:
        path: the file, for messages.
        content: all of it.

    Raises:
        RecipeError: it cannot be decoded, is no text, or is UTF-16 without a mark.
    """
    try:
        return content.decode(_encoding(path, content[:_HEAD]))
    except UnicodeError as error:
        raise unreadable(path, 1, error) from error


def _encoding(path: Path, head: bytes) -> str:
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    _check_text(path, head)
    return "utf-8-sig"


def _check_text(path: Path, head: bytes) -> None:
    for start, what, fix in _FOREIGN:
        if head.startswith(start):
            raise RecipeError(f"{path} is no text but {what}", fix=fix)
    quarters = [_zeros(head[start::4]) for start in range(4)]
    for order, empty in (("le", quarters[2:]), ("be", quarters[:2])):
        if all(empty):
            raise _unmarked(path, f"utf-32{order}")
    sides = (head[::2], head[1::2])
    if not any(map(_zeros, sides)) and b"\0\xc3" not in head[:64]:
        return
    if head.startswith(("ÿþ".encode(), "þÿ".encode())):
        raise RecipeError(
            f"{path} was UTF-16 and has been converted as if it were cp1252",
            expected="UTF-8, or UTF-16 with its byte-order mark",
            fix=f"take the file before that conversion; to convert it: iconv -f utf-16 -t utf-8 ORIGINAL > {path.name}",
        )
    order = "le" if sides[1].count(0) > sides[0].count(0) else "be"
    raise _unmarked(path, f"utf-16{order}")


def _zeros(part: bytes) -> bool:
    """Whether nearly all bytes are zero."""
    return part.count(0) > 0.8 * len(part) > 0


def _unmarked(path: Path, encoding: str) -> RecipeError:
    return RecipeError(
        f"{path} holds zero bytes: it seems to be {encoding[:6].upper()} without a byte-order mark",
        expected="UTF-8, or UTF-16 or UTF-32 with its byte-order mark",
        fix=f"convert it: {_converting(encoding, path)}",
    )


def lines(path: Path) -> Iterator[str]:
    """The lines with their ends, which may be LF, CRLF or CR.

    Raises:
        RecipeError: see `open_text`; a line cannot be decoded, or is longer than `MAX_LINE` characters.
    """
    number = 0
    with open_text(path) as file:
        try:
            while line := file.readline(MAX_LINE):
                number += 1
                if len(line) == MAX_LINE and line[-1] not in "\r\n":
                    raise RecipeError(
                        f"{path}, line {number} is longer than {MAX_LINE:,} characters",
                        fix="is this a table? Long texts go into files of their own",
                    )
                yield line
        except UnicodeError as error:
            raise unreadable(path, number + 1, error) from error


def unreadable(path: Path, line: int, error: Exception, fix: str = "save it as UTF-8") -> RecipeError:
    """The error for a line that is no text, or no such row.

    Args:
        path: the file.
        line: near which it is; undecodable bytes are looked for.
        error: what happened.
        fix: of what is no matter of characters.
    """
    if isinstance(error, UnicodeDecodeError) and error.encoding == "utf-8":
        with path.open("rb") as file:
            line, given = _undecodable(file) or (line, "")
        return RecipeError(
            f"{path} is not UTF-8, near line {line}: {error.reason}",
            given=given,
            fix=f"convert it; if it is Western European text from Windows: {_converting('cp1252', path)}",
        )
    if isinstance(error, UnicodeError):
        return RecipeError(f"{path}, near line {line}: {error}", fix="save it as UTF-8")
    return RecipeError(f"cannot read {path}, line {line}: {error}", fix=fix)


def _converting(encoding: str, path: Path) -> str:
    """The command that makes a file UTF-8. A text beside a picture keeps its name, which says whose it is."""
    old, new = shlex.quote(path.name), shlex.quote(f"utf8-{path.name}")
    command = f"iconv -f {encoding} -t utf-8 {old} > {new}"
    return f"{command} && mv {new} {old}" if path.suffix.lower() == ".txt" else command


def _undecodable(file: BinaryIO) -> tuple[int, str] | None:
    """Number and beginning of the first line that is no UTF-8."""
    for number, line in enumerate(file, 1):
        try:
            line.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            return number, repr(line[max(error.start - 20, 0) : error.end + 20])[1:]
    return None
