"""`mi2p eval`, `mi2p predict`, `mi2p report`: what is done with a trained run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from mi2p_inject.recipes.cli.exit_codes import reported
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["evaluate", "predict", "report"]

RunArgument = Annotated[Path, typer.Argument(help="A folder that `mi2p train --out` wrote.")]
ImageCol = Annotated[str | None, typer.Option(help="Column of image paths; default: as in training.")]
TextCol = Annotated[str | None, typer.Option(help="Column of texts; default: as in training.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Numbers as JSON, nothing else.")]


def evaluate(
    run: RunArgument,
    data: Annotated[str | None, typer.Option(help="New labelled data; default: the data of the training.")] = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    image_col: ImageCol = None,
    text_col: TextCol = None,
    label_col: Annotated[str | None, typer.Option(help="Column of labels; default: as in training.")] = None,
    split_col: Annotated[str | None, typer.Option(help="Column of splits; default: as in training.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Test a trained model, on its own data or on new ones.

    Examples:

    - `mi2p eval runs/first`

    - `mi2p eval runs/first --data other.csv --json`
    """
    with reported():
        from mi2p_inject.recipes.evaluation.evaluate import evaluate_run
        from mi2p_inject.recipes.evaluation.run_report import print_evaluation
        from mi2p_inject.recipes.training.saved import load_run

        columns = _given(image_col=image_col, text_col=text_col, label_col=label_col, split_col=split_col)
        saved = load_run(run)
        numbers = evaluate_run(saved, data, columns, split)
        if as_json:
            typer.echo(json.dumps(numbers, indent=2, ensure_ascii=False))
        else:
            print_evaluation(numbers, saved.task, Console())


def predict(
    run: RunArgument,
    image: Annotated[Path | None, typer.Option(help="An image file.")] = None,
    text: Annotated[str | None, typer.Option(help="A text.")] = None,
    data: Annotated[str | None, typer.Option(help="Many samples: a CSV, TSV, JSONL, Parquet file or a folder.")] = None,
    image_col: ImageCol = None,
    text_col: TextCol = None,
) -> None:
    """Class probabilities of one sample, or of every sample of a file (one JSON a line).

    An expanded or fused model reads a sample without image or without text, too.

    Examples:

    - `mi2p predict runs/first --image cat.jpg --text "a small cat"`

    - `mi2p predict runs/first --data new.csv > predictions.jsonl`
    """
    with reported():
        if (data is None) == (image is None and text is None):
            raise RecipeError("give one sample (--image, --text) or a file (--data)")
        from mi2p_inject.recipes.evaluation.evaluate import predict_file, predict_one
        from mi2p_inject.recipes.training.saved import load_run

        if data is None:
            answers, indent = [predict_one(load_run(run), image, text)], 2
        else:
            answers, indent = predict_file(load_run(run), data, _given(image_col=image_col, text_col=text_col)), None
        for answer in answers:
            typer.echo(json.dumps(answer, indent=indent, ensure_ascii=False))


def report(run: RunArgument, as_json: JsonOption = False) -> None:
    """What a finished run, table or demo scored and how it was trained, as Markdown.

    Examples:

    - `mi2p report runs/first`

    - `mi2p report runs/first > first.md`
    """
    with reported():
        from mi2p_inject.recipes.evaluation.run_report import run_markdown
        from mi2p_inject.recipes.training.run_folder import FINISHED
        from mi2p_inject.recipes.training.saved import load_run

        if (run / "table.md").is_file() and (run / FINISHED).is_file():  # of `mi2p table` or `mi2p demo`
            typer.echo((run / (FINISHED if as_json else "table.md")).read_text(encoding="utf-8"), nl=False)
            return
        saved = load_run(run)
        typer.echo(
            json.dumps(saved.numbers, indent=2, ensure_ascii=False) if as_json else run_markdown(saved), nl=False
        )


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
