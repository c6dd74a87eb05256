"""One writer: a file lock that the system takes back from a killed process, and that says who holds it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import weakref
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from mi2p_inject.core.files.read import read_regular

if TYPE_CHECKING:
    from filelock import BaseFileLock

__all__ = ["Holder", "LockHeldError", "WriterLock", "holder_of"]


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock."""

    pid: int
    host: str
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


class LockHeldError(OSError):
    """Another process holds the lock.

    Args:
        path: the lock file.
        holder: who it is; None where the file does not say so (yet).
    """

    def __init__(self, path: Path, holder: Holder | None) -> None:
        super().__init__(f"{path.parent} is in use by {holder or 'another process'}")
        self.holder = holder


class WriterLock:
    """An exclusive lock on a file, which holds the name of its holder and is gone once it is released.

    The lock is the operating system's: when its holder is killed, the next one gets it at once. It is released with
    `release`, or when this object goes; not by processes that are forked from its holder.

    Args:
        path: the lock file, in a folder that exists.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with WriterLock(Path(folder) / ".lock"):
        ...         try:
        ...             WriterLock(Path(folder) / ".lock").acquire()
        ...         except LockHeldError as error:
        ...             print(error.holder.pid == os.getpid())
        True
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: BaseFileLock | None = None
        self._made_in = 0
        self._holder: Holder | None = None
        self._finalizer: weakref.finalize[..., WriterLock] | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds it."""
        alive = self._finalizer is not None and self._finalizer.alive
        return alive and self._holder is not None and self._holder.pid == os.getpid()

    @property
    def kept(self) -> bool:
        """Whether it is held, and its file is still there: who deletes the folder takes the lock from its holder."""
        return self.held and holder_of(self.path) == self._holder

    def acquire(self, timeout: float = 0) -> None:
        """Take the lock.

        Args:
            timeout: seconds to wait for another holder; 0: not at all, -1: as long as it takes.

        Raises:
            LockHeldError: another one holds it.
            OSError: the lock file cannot be written.
        """
        from filelock import FileLock, Timeout

        if self._lock is None or self._made_in != os.getpid():  # that of its parent is of no use to a fork
            self._lock, self._made_in = FileLock(self.path, thread_local=False), os.getpid()
        try:
            self._lock.acquire(timeout=timeout)
        except (Timeout, RuntimeError) as error:  # RuntimeError: this very thread holds it, so waiting is vain
            raise LockHeldError(self.path, holder_of(self.path)) from error
        now = datetime.now(timezone.utc).isoformat(sep=" ", timespec="seconds")
        holder = Holder(os.getpid(), socket.gethostname(), now)
        try:
            self.path.write_text(json.dumps(asdict(holder)), encoding="utf-8")
        except BaseException:
            self._lock.release()
            raise
        self._holder = holder
        self._finalizer = weakref.finalize(self, _give_back, self._lock, self.path, holder)

    def release(self) -> None:
        """Give the lock back and remove its file; nothing where it is not held."""
        if self._finalizer is not None:
            self._finalizer()

    def __enter__(self) -> WriterLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


def _give_back(lock: BaseFileLock, path: Path, holder: Holder) -> None:
    if holder.pid != os.getpid():
        return
    with contextlib.suppress(OSError):
        if holder_of(path) == holder:  # not where somebody has deleted the folder, and another one made it anew
            path.unlink()  # while it is held: whoever has opened it meanwhile finds it gone, and starts over
    lock.release()


def holder_of(path: Path) -> Holder | None:
    """Who wrote a lock file last; None where there is none or it cannot be read."""
    try:
        return Holder(**json.loads(read_regular(path, 4096)))
    except (OSError, ValueError, TypeError):
        return None
