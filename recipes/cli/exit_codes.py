"""What every command shares: errors as one line and exit code 1, an interruption as 130 with what to do next."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from mi2p_inject.core.errors import Mi2pError
from mi2p_inject.core.files.atomic_write import PREFIX

__all__ = ["INTERRUPTED", "reported"]

INTERRUPTED = 130
_ROOM = "make room; what was there before is as it was"
_RIGHT = "name a place that you may read and write, or copy it there"
#: errors that are of the place that something is written to, and what to do
_OF_THE_PLACE = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EROFS: _RIGHT,
    errno.EACCES: _RIGHT,
    errno.EPERM: _RIGHT,
    errno.ENAMETOOLONG: "name a shorter path",
    errno.ELOOP: "its links lead to each other: name another place",
}


@contextmanager
def reported(interrupted: Callable[[], str] = lambda: "Interrupted.") -> Iterator[None]:
    """Turn our errors, those of a place that cannot be written to, and Ctrl-C into messages and exit codes.

    Args:
        interrupted: what to say after Ctrl-C.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"\n{interrupted()}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except Mi2pError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    except OSError as error:
        if error.errno not in _OF_THE_PLACE:
            raise
        place = str(error.filename or "cannot write").partition(f"{os.sep}{PREFIX}")[0]
        typer.echo(f"error: {place}: {error.strerror}\n  fix: {_OF_THE_PLACE[error.errno]}", err=True)
        raise typer.Exit(1) from None
