"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def write_whole(path: Path, write: Callable[[str], object]) -> None:
    """Write through a temporary file in the same folder, flushed to disk and renamed.

    Args:
        path: the file that appears, or is replaced, in one step.
        write: writes to the path it is given.

    Raises:
        OSError: of `write`, or of the disk; whatever `write` raises. The old file, if any, is then still there.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_whole(Path(folder) / "a", lambda name: Path(name).write_text("b"))
        ...     (Path(folder) / "a").read_text()
        'b'
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
