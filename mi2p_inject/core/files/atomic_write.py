"""Files and folders that are there whole or not at all, and no leftovers of a writer that was killed.

What is written goes into a temporary folder beside its place, which is locked while its writer lives; it is flushed to
disk and renamed. The next writer removes the temporary folders whose lock is free.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mi2p_inject.core.files.lock import LockHeldError, WriterLock

__all__ = ["PREFIX", "remove_leftovers", "temporary_folder", "write_file", "write_folder"]

PREFIX = ".writing-"
"""Names of temporary folders begin with this."""
_LOCK = "lock"


def write_file(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file in one step: a reader, and a crash at any moment, leave the old one or the new one, whole.

    The file has the mode that the umask gives, whatever `write` makes it.

    Args:
        path: the file that appears, or is replaced.
        write: writes to the path it is given, which has the same name in a folder of its own.

    Raises:
        OSError: of the disk; and whatever `write` raises. The old file, if any, is then still there.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_file(Path(folder) / "a", lambda path: path.write_text("b"))
        ...     (Path(folder) / "a").read_text()
        'b'
    """
    with temporary_folder(path.parent) as folder:
        temporary = folder / path.name
        temporary.touch()
        mode = stat.S_IMODE(temporary.stat().st_mode)
        write(temporary)
        temporary.chmod(mode)  # safetensors lets nobody else read
        _flush(temporary)
        os.replace(temporary, path)
    _flush_folder(path.parent)


def write_folder(path: Path, fill: Callable[[Path], object]) -> None:
    """Write a folder in one step, in place of an older one.

    A crash between the two renames leaves neither the old nor the new one; at any other moment one of them is there.

    Args:
        path: the folder that appears, or is replaced.
        fill: writes into the folder it is given, which is empty.

    Raises:
        OSError: of the disk; and whatever `fill` raises. The old folder, if any, is then still there.
    """
    with temporary_folder(path.parent) as folder:
        temporary = folder / path.name
        temporary.mkdir()
        plain = folder / "mode"
        plain.touch()
        mode = stat.S_IMODE(plain.stat().st_mode)
        fill(temporary)
        for parent, _, files in os.walk(temporary):
            for name in files:
                (Path(parent) / name).chmod(mode)
                _flush(Path(parent) / name)
            _flush_folder(Path(parent))
        if path.is_dir():
            os.replace(path, folder / "replaced")
        os.replace(temporary, path)
    _flush_folder(path.parent)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed writers left in a folder; what a live one is writing there stays."""
    for leftover in folder.glob(f"{PREFIX}*"):
        if leftover.is_symlink():  # no writer of ours makes one, and what it leads to is somebody's
            continue
        lock = WriterLock(leftover / _LOCK)
        try:
            lock.acquire()
        except OSError:  # somebody writes there, or has just finished
            continue
        shutil.rmtree(leftover, ignore_errors=True)
        lock.release()


@contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """A folder in `parent` that nobody takes for a leftover while this process lives, and that is gone at the end."""
    remove_leftovers(parent)
    while True:
        folder = parent / f"{PREFIX}{uuid.uuid4().hex[:12]}"
        folder.mkdir()
        lock = WriterLock(folder / _LOCK)
        try:
            lock.acquire()
        except (LockHeldError, FileNotFoundError, FileExistsError):
            # another writer took it for a leftover before it had its lock; filelock makes a folder that is gone again
            continue
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        break
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def _flush(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _flush_folder(path: Path) -> None:
    """Make renames in a folder last; not every system can."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
