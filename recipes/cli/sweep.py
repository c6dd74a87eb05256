"""`mi2p sweep`: the door to a development tool that lies beside the package, in a clone."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import typer

import mi2p_inject

__all__ = ["sweep"]

TOOL = "benchmarks.sweep.command"


def sweep(context: typer.Context) -> None:
    """Check the contract on every kind of model of timm, transformers and open_clip (in a clone of the repository)."""
    tool = _load(Path(mi2p_inject.__file__).resolve().parents[1])
    if tool is None:
        typer.echo(
            "error: mi2p sweep is a development tool, not part of the installed package: clone the repository", err=True
        )
        raise typer.Exit(1)
    typer.main.get_command(tool.app).main(args=list(context.args), prog_name="mi2p sweep")


def _load(clone: Path) -> Any:
    """The tool's module from a clone, whatever the working directory; None where the package lies in no clone."""
    if not (clone / TOOL.replace(".", "/")).with_suffix(".py").is_file():
        return None
    sys.path.insert(0, str(clone))  # another project's `benchmarks` in the working directory must not be taken for ours
    try:
        return importlib.import_module(TOOL)
    finally:
        sys.path.remove(str(clone))
