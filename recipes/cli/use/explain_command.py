"""`mi2p explain`: what an expanded model takes from the other modality, and whether that is to be believed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from mi2p_inject.recipes.cli.config_options import NewDataOption
from mi2p_inject.recipes.cli.exit_codes import reported
from mi2p_inject.recipes.cli.paths import typed_path
from mi2p_inject.recipes.cli.run_commands import ColumnOption, JsonOption, RunArgument, given, named_cells
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["explain"]


def explain(
    run: RunArgument,
    image: Annotated[Path | None, typer.Option(parser=typed_path, metavar="PATH", help="An image file.")] = None,
    text: Annotated[str | None, typer.Option(help="A text.")] = None,
    column: ColumnOption = None,
    target: Annotated[str | None, typer.Option("--class", help="The class; default: the likeliest one.")] = None,
    out: Annotated[
        Path | None, typer.Option(parser=typed_path, metavar="PATH", help="The figure: a .png, .pdf or .svg file.")
    ] = None,
    as_json: JsonOption = False,
    faithfulness: Annotated[
        bool, typer.Option("--faithfulness", help="Of a split: does deleting what the evidence names change answers?")
    ] = False,
    data: Annotated[str | None, typer.Option(help="With --faithfulness: new labelled data, as for eval.")] = None,
    split: Annotated[str, typer.Option(help="With --faithfulness: train, validation or test.")] = "test",
    limit: Annotated[int, typer.Option(help="With --faithfulness: samples at most.")] = 100,
    draws: Annotated[int, typer.Option(help="With --faithfulness: random orders of each sample.")] = 5,
    set_: NewDataOption = None,
) -> None:
    """What an expanded model takes from the other modality for one sample: a figure, and the numbers by word.

    With --faithfulness: deletion and insertion curves over a split, in the order of the evidence and in random ones; a
    figure, and its numbers in a .json file beside it.

    Examples:

    - `mi2p explain runs/first --image cat.jpg --text "a small cat" --out fig.png`

    - `mi2p explain runs/first --image cat.jpg --text "a small cat" --class dog --json`

    - `mi2p explain runs/first --faithfulness --limit 50 --out faithful.png`
    """
    with reported():
        from mi2p_inject.recipes.explain.result import check_figure_file
        from mi2p_inject.recipes.explain.run import explain_run
        from mi2p_inject.recipes.saving.saved import load_run

        if out is None and not as_json:
            raise RecipeError("nothing to write", expected="--out or --json", fix="--out fig.png")
        if faithfulness:
            if image is not None or text is not None or target is not None or column:
                raise RecipeError("--faithfulness is of a split", fix="leave out --image, --text, --column, --class")
            _faithfulness(run, out, as_json, (data, given(set_), split), limit, draws)
            return
        if data is not None or set_:
            raise RecipeError("--data and --set need --faithfulness", fix="add it, or leave them out")
        if image is None or text is None:
            raise RecipeError(
                "an explanation shows what one modality takes from the other: it needs both",
                expected="--image and --text",
                given="no --image" if image is None else "no --text",
                fix="give both",
            )
        if out is not None:
            check_figure_file(out, image)
        found = explain_run(load_run(run), image, text, target, named_cells(column))
        if out is not None:
            found.save(out)
            if not as_json:
                typer.echo(f"written: {out}")
        if as_json:
            typer.echo(json.dumps(found.to_json(), indent=2, ensure_ascii=False))


def _faithfulness(
    run: Path, out: Path | None, as_json: bool, data: tuple[str | None, dict[str, Any], str], limit: int, draws: int
) -> None:
    from mi2p_inject.recipes.evaluation.faithfulness.measure import measure_faithfulness
    from mi2p_inject.recipes.explain.result import check_figure_file
    from mi2p_inject.recipes.saving.saved import load_run

    if out is not None:
        check_figure_file(out)
    found = measure_faithfulness(load_run(run), *data, limit=limit, draws=draws, console=Console(stderr=True))
    if out is not None:
        found.save(out)
        typer.echo(f"written: {out}, {out.with_suffix('.json').name}", err=True)
    for one in found.pieces:
        typer.echo(f"{one.kind}, {one.samples} samples, by the evidence: {one.verdict()}", err=True)
        if one.verdict("lost"):
            typer.echo(f"{one.kind}, by what is lost without each alone: {one.verdict('lost')}", err=True)
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
