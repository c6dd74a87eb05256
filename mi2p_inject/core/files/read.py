"""Reading what a stranger may have put there: regular files only, of a size that is known beforehand."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

__all__ = ["check_regular", "read_regular"]

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


def check_regular(path: Path, limit: int | None = None) -> int:
    """The size in bytes of a regular file, or of one that a symbolic link leads to.

    A named pipe would let its reader wait for ever, and a device gives bytes without an end.

    Args:
        path: the file.
        limit: most bytes it may have.

    Raises:
        OSError: there is none, it is no regular file, or it is larger than `limit`.
    """
    return _size(os.stat(path), path, limit)


def read_regular(path: Path, limit: int) -> bytes:
    """All bytes of a regular file; never more than `limit` are read.

    Args:
        path: the file.
        limit: most bytes it may have.

    Raises:
        OSError: there is none, it cannot be read, it is no regular file, or it is larger than `limit`.
        ValueError: the path holds a null character.

    Examples:
        >>> read_regular(Path(os.devnull), limit=100)
        Traceback (most recent call last):
        OSError: [Errno 22] a device, not a regular file: '/dev/null'
    """
    check_regular(path, limit)
    # somebody may exchange it in between: opening a pipe must not wait for its writer
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(descriptor, "rb") as file:
        _size(os.fstat(descriptor), path, limit)
        data = file.read(limit + 1) or b""  # None: of a file of /proc that waits for more
    if len(data) > limit:
        raise _too_large(path, f"more than {limit:,}", limit)
    return data


def _size(status: os.stat_result, path: Path, limit: int | None) -> int:
    if not stat.S_ISREG(status.st_mode):
        kind = next((name for test, name in _KINDS if test(status.st_mode)), "something else")
        raise OSError(errno.EINVAL, f"{kind}, not a regular file", str(path))
    if limit is not None and status.st_size > limit:
        raise _too_large(path, f"{status.st_size:,}", limit)
    return status.st_size


def _too_large(path: Path, size: str, limit: int) -> OSError:
    return OSError(errno.EFBIG, f"{size} bytes, where at most {limit:,} are expected", str(path))
