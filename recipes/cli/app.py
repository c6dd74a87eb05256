"""The commands behind `mi2p`. Heavy libraries are imported by the command that needs them."""

from __future__ import annotations

from typing import Annotated

import typer

import mi2p_inject
from mi2p_inject.recipes.cli.config_options import ConfigCommand
from mi2p_inject.recipes.cli.doctor import doctor
from mi2p_inject.recipes.cli.experiment_commands import compare, demo, table
from mi2p_inject.recipes.cli.layers import layers
from mi2p_inject.recipes.cli.run_commands import evaluate, predict, report
from mi2p_inject.recipes.cli.sweep import sweep
from mi2p_inject.recipes.cli.train_commands import settings, train
from mi2p_inject.recipes.cli.use.app_command import app_command
from mi2p_inject.recipes.cli.use.explain_command import explain
from mi2p_inject.recipes.cli.use.export_command import ExportCommand, export
from mi2p_inject.recipes.cli.use.push import push

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


app.command()(demo)
app.command()(layers)
app.command("train", cls=ConfigCommand)(train)
app.command(cls=ConfigCommand)(settings)
app.command("eval", cls=ConfigCommand)(evaluate)
app.command(cls=ConfigCommand)(predict)
app.command(cls=ConfigCommand)(report)
app.command(cls=ConfigCommand)(explain)
app.command(cls=ExportCommand)(export)
app.command("app")(app_command)
app.command()(push)
app.command("table", cls=ConfigCommand)(table)
app.command()(compare)
app.command()(doctor)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False)(sweep)
