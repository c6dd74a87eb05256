"""What every command shares: errors as one line and exit code 1, an interruption as 130 with what to do next."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from mi2p_inject.core.errors import Mi2pError

__all__ = ["INTERRUPTED", "reported"]

INTERRUPTED = 130


@contextmanager
def reported(interrupted: Callable[[], str] = lambda: "Interrupted.") -> Iterator[None]:
    """Turn our errors and Ctrl-C into messages and exit codes.

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
