"""`mi2p app`: a page in the browser that asks a trained run."""

from __future__ import annotations

from typing import Annotated

import typer

from mi2p_inject.recipes.cli.exit_codes import reported
from mi2p_inject.recipes.cli.run_commands import RunArgument

__all__ = ["app_command"]


def app_command(
    run: RunArgument,
    host: Annotated[
        str, typer.Option(help="Address it is reached at; 0.0.0.0: by every machine that reaches this one.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: one that is free.")] = 7860,
) -> None:
    """A page in the browser: a picture and a text in; the answer, those without the one or the other, and why.

    Works offline, for a run of any model; Ctrl-C ends it. Nothing goes to another machine, and uploads are deleted.

    Examples:

    - `mi2p app runs/first`

    - `mi2p app runs/first --port 8000`
    """
    with reported():
        from mi2p_inject.recipes.app.serve import serve

        typer.echo(f"Loading {run} …")
        serve(run, host, port, lambda url: typer.echo(f"Open {url} in a browser; Ctrl-C ends."))
        typer.echo("Closed.")
