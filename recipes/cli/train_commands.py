"""`mi2p train` and `mi2p settings`: options to a configuration; the training itself is in `recipes.training`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from mi2p_inject.recipes.cli.config_options import (
    ConfigOption,
    PresetOption,
    SetOption,
    given_options,
    merged,
    takes_options,
)
from mi2p_inject.recipes.cli.exit_codes import reported
from mi2p_inject.recipes.cli.paths import typed_path

__all__ = ["OverwriteOption", "settings", "train"]

OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run in --out.")]


def _train(
    out: Annotated[Path, typer.Option(parser=typed_path, metavar="PATH", help="Folder of the run.")],
    preset: PresetOption = "practical",
    config: ConfigOption = None,
    set_: SetOption = None,
    overwrite: OverwriteOption = False,
    **options: Any,
) -> None:
    """Train a classifier on pictures and texts: one encoder, two fused, or expanded with MI2P units.

    The run folder holds the weights, all numbers and what predicts with them. An interrupted or killed run goes on
    where it stopped when the same command is given again. Options with their choices and defaults: `mi2p settings`.

    Examples:

    - `mi2p train --data my.csv --vision densenet121 --text bert-base-uncased --model me-vision --out runs/first`

    - `mi2p train --data my.csv --vision demo --text demo --model me-fusion --fusion concat --epochs 5 --out runs/demo`

    - `mi2p train --data crisismmd:/data/CrisisMMD --task humanitarian --preset paper --model me-text --out runs/paper`

    - `mi2p train --config my.yaml --learning-rate 1e-4 --set vision_layers=[0,-1] --out runs/second`

    - `torchrun --nproc-per-node 2 -m mi2p_inject.recipes train --config my.yaml --out runs/two-processes`
    """
    with reported(lambda: f"Interrupted; the same command goes on from the last checkpoint in {out}."):
        wanted = merged(config, given_options(options), set_, preset)
        from mi2p_inject.recipes.evaluation.run_report import print_run
        from mi2p_inject.recipes.saving.run_folder import check_out
        from mi2p_inject.recipes.saving.saved import load_run

        check_out(out, overwrite=overwrite)  # before the seconds that the imports take
        from mi2p_inject.recipes.training.train import train_run

        console = Console()
        train_run(wanted, out, console, overwrite=overwrite)
        if not console.quiet:
            print_run(load_run(out), console)


train = takes_options(_train)


def settings(
    preset: PresetOption = "practical",
    config: ConfigOption = None,
    set_: SetOption = None,
    as_yaml: Annotated[bool, typer.Option("--yaml", help="As a file to edit, for --config.")] = False,
) -> None:
    """Print every option of a training with its meaning, choices and default.

    Examples:

    - `mi2p settings`

    - `mi2p settings --yaml --preset paper > paper.yaml`
    """
    with reported():
        from mi2p_inject.recipes.config.describe import settings_text, settings_yaml

        found = merged(config, {} if config else {"data": "my.csv"}, set_, preset)
        typer.echo(settings_yaml(found) if as_yaml else settings_text(found), nl=False)
