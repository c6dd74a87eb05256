"""`mi2p explain`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mi2p_inject.recipes.cli.exit_codes import reported
from mi2p_inject.recipes.cli.paths import home_path
from mi2p_inject.recipes.cli.run_commands import JsonOption, RunArgument
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["explain"]

OutOption = Annotated[
    Path | None, typer.Option(parser=home_path, metavar="PATH", help="The figure: a .png, .pdf or .svg file.")
]


def explain(
    run: RunArgument,
    image: Annotated[Path | None, typer.Option(parser=home_path, metavar="PATH", help="An image file.")] = None,
    text: Annotated[str | None, typer.Option(help="A text.")] = None,
    target: Annotated[str | None, typer.Option("--class", help="The class; default: the likeliest one.")] = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """What an expanded model takes from the other modality for one sample: a figure, and the numbers by word.

    Examples:

    - `mi2p explain runs/first --image cat.jpg --text "a small cat" --out fig.png`

    - `mi2p explain runs/first --image cat.jpg --text "a small cat" --class dog --json`
    """
    with reported():
        from mi2p_inject.recipes.explain.result import check_figure_file
        from mi2p_inject.recipes.explain.run import explain_run
        from mi2p_inject.recipes.saving.saved import load_run

        if out is None and not as_json:
            raise RecipeError("nothing to write", expected="--out or --json", fix="--out fig.png")
        if image is None or text is None:
            raise RecipeError(
                "an explanation shows what one modality takes from the other: it needs both",
                expected="--image and --text",
                given="no --image" if image is None else "no --text",
                fix="give both",
            )
        if out is not None:
            check_figure_file(out)
        found = explain_run(load_run(run), image, text, target)
        if out is not None:
            found.save(out)
        if as_json:
            typer.echo(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
