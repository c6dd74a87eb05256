"""`mi2p eval`, `mi2p predict`, `mi2p report`: what is done with a trained run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from mi2p_inject.core.human import printable
from mi2p_inject.recipes.cli.config_options import NewDataOption
from mi2p_inject.recipes.cli.exit_codes import reported
from mi2p_inject.recipes.cli.paths import typed_path
from mi2p_inject.recipes.config import parse_assignments
from mi2p_inject.recipes.errors import RecipeError

__all__ = [
    "ColumnOption",
    "JsonOption",
    "RunArgument",
    "evaluate",
    "given",
    "named_cells",
    "predict",
    "report",
]

RunArgument = Annotated[
    Path,
    typer.Argument(
        parser=typed_path, metavar="PATH", help="A folder that `mi2p train --out` wrote, or the id of a Hub repository."
    ),
]
RunsArgument = Annotated[
    list[Path],
    typer.Argument(
        parser=typed_path,
        metavar="PATH",
        help="Folders that `mi2p train --out` wrote, or ids of Hub repositories; of several, their mean answers.",
    ),
]
ImageCol = Annotated[str | None, typer.Option(help="Column of image paths; default: as in training.")]
TextCol = Annotated[str | None, typer.Option(help="Column of texts; default: as in training.")]
ImageRoot = Annotated[
    Path | None,
    typer.Option(
        parser=typed_path,
        metavar="PATH",
        help="Folder that image paths of --data start from; default: the one --data is in.",
    ),
]
ColumnOption = Annotated[
    list[str] | None,
    typer.Option("--column", metavar="NAME=VALUE", help="A cell of a column that the run reads; repeatable."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Numbers as JSON, nothing else.")]


def evaluate(
    runs: RunsArgument,
    data: Annotated[str | None, typer.Option(help="New labelled data; default: the data of the training.")] = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    image_col: ImageCol = None,
    text_col: TextCol = None,
    label_col: Annotated[str | None, typer.Option(help="Column of labels; default: as in training.")] = None,
    split_col: Annotated[str | None, typer.Option(help="Column of splits; default: as in training.")] = None,
    image_root: ImageRoot = None,
    set_: NewDataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Test a trained model, or the mean of several, on its own data or on new ones.

    Examples:

    - `mi2p eval runs/first`

    - `mi2p eval runs/first --data other.csv --json`

    - `mi2p eval runs/first runs/second` (the mean of their probabilities)
    """
    with reported():
        from mi2p_inject.recipes.evaluation.evaluate import evaluate_run
        from mi2p_inject.recipes.evaluation.mean import mean_of
        from mi2p_inject.recipes.evaluation.run_report import print_evaluation
        from mi2p_inject.recipes.saving.saved import load_run
        from mi2p_inject.recipes.training.progress.bars import short_progress

        columns = {"image_col": image_col, "text_col": text_col, "label_col": label_col, "split_col": split_col}
        saved = mean_of([load_run(run) for run in runs])
        with short_progress(Console(stderr=True, quiet=not sys.stderr.isatty()), "evaluating") as on_step:
            numbers = evaluate_run(saved, data, given(set_, image_root=image_root, **columns), split, on_step)
        if as_json:
            typer.echo(json.dumps(numbers, indent=2, ensure_ascii=False))
        else:
            print_evaluation(numbers, Console())


def predict(
    runs: RunsArgument,
    image: Annotated[Path | None, typer.Option(parser=typed_path, metavar="PATH", help="An image file.")] = None,
    text: Annotated[str | None, typer.Option(help="A text.")] = None,
    column: ColumnOption = None,
    data: Annotated[str | None, typer.Option(help="Many samples: a CSV, TSV, JSONL, Parquet file or a folder.")] = None,
    image_col: ImageCol = None,
    text_col: TextCol = None,
    image_root: ImageRoot = None,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=typed_path,
            metavar="PATH",
            help="File of answers beside each record's own columns: .csv, .jsonl or .parquet.",
        ),
    ] = None,
    set_: NewDataOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier file in --out.")] = False,
) -> None:
    """Class probabilities of one sample, or of every record of a file (one JSON a line).

    An expanded or fused model reads a sample without image or without text, too.

    Of a file, each record is answered, in the file's order; columns of labels, splits and groups are not read. What
    could not be read is in the record's `problem` and in notes on stderr: an unreadable image counts as missing, and a
    record that leaves the model nothing to read is answered with null. The exit code is 0 all the same; it is 1 where
    the file itself cannot be read, and then --out is not written.

    Examples:

    - `mi2p predict runs/first --image cat.jpg --text "a small cat"`

    - `mi2p predict runs/first --data new.csv --out answers.csv`

    - `mi2p predict runs/first --data new.csv --image-root pictures > answers.jsonl`

    - `mi2p predict runs/first runs/second --data new.csv` (the mean of their probabilities)
    """
    with reported():
        if (data is None) == (image is None and text is None):
            raise RecipeError(
                "there is nothing to answer" if data is None else "there are two things to answer",
                expected="one sample (--image, --text) or a file (--data)",
                fix="give --image and --text, or --data" if data is None else "give one of the two",
            )
        options = given(set_, image_col=image_col, text_col=text_col, image_root=image_root)
        if data is None and (out is not None or options):
            raise RecipeError("--out and the options of a file need --data", fix="give --data, or leave them out")
        if data is not None and column:
            raise RecipeError("--column is of one sample", fix="put the column into the table of --data")
        if data is not None:
            _predict_file(runs, data, options, out, overwrite)
            return
        from mi2p_inject.recipes.ask import read_run
        from mi2p_inject.recipes.evaluation.evaluate import predict_one
        from mi2p_inject.recipes.evaluation.mean import mean_of
        from mi2p_inject.recipes.evaluation.sample_notes import notes_on_sample

        saved, cells = mean_of([read_run(run) for run in runs]), named_cells(column)
        typer.echo(json.dumps(predict_one(saved, image, text, cells), indent=2, ensure_ascii=False))
        for note in notes_on_sample(saved, image, text, cells):
            typer.echo(f"note: {printable(note)}", err=True)


def _predict_file(runs: list[Path], data: str, options: dict[str, Any], out: Path | None, overwrite: bool) -> None:
    from mi2p_inject.recipes.evaluation.answer_files import check_answers_file, write_answers
    from mi2p_inject.recipes.evaluation.evaluate import predict_file
    from mi2p_inject.recipes.evaluation.mean import mean_of
    from mi2p_inject.recipes.saving.saved import load_run

    if out is not None:
        check_answers_file(out, data, overwrite=overwrite)
    bar = sys.stderr.isatty() and (out is not None or not sys.stdout.isatty())
    answers = predict_file(mean_of([load_run(run) for run in runs]), data, options, progress=bar)
    notes: list[str] = []
    if out is not None:
        notes = write_answers(answers, out)
    else:
        for answer in answers:
            typer.echo(json.dumps(answer, ensure_ascii=False))
    for note in (*answers.notes, *notes):
        typer.echo(f"note: {printable(note)}", err=True)


def report(
    run: RunArgument,
    as_json: JsonOption = False,
    as_html: Annotated[
        bool, typer.Option("--html", help="Write report.html into the run folder: figures, classes, worst mistakes.")
    ] = False,
) -> None:
    """What a finished run, table or demo scored and how it was trained, as Markdown.

    Examples:

    - `mi2p report runs/first`

    - `mi2p report runs/first > first.md`

    - `mi2p report runs/first --html` (one file to look at in a browser)
    """
    with reported():
        if as_json and as_html:
            raise RecipeError("--json and --html are two reports", fix="leave one out")
        from mi2p_inject.recipes.evaluation.run_report import run_markdown
        from mi2p_inject.recipes.saving.run_folder import FINISHED, text_of
        from mi2p_inject.recipes.saving.saved import load_run

        if (run / "table.md").is_file() and (run / FINISHED).is_file():  # of `mi2p table` or `mi2p demo`
            if as_html:
                raise RecipeError(
                    f"{run} is a set of runs", fix=f"name one of {run}/experiments/*/seed-*; figure.png shows all"
                )
            text = text_of(run / (FINISHED if as_json else "table.md"))
            typer.echo(text if as_json else printable(text), nl=False)
            return
        saved = load_run(run)
        if as_html:
            from mi2p_inject.core.files.atomic_write import write_file
            from mi2p_inject.recipes.evaluation.page.write import html_page
            from mi2p_inject.recipes.saving.run_folder import REPORT

            if not run.is_dir():
                raise RecipeError(
                    f"{run} is on the Hub, and report.html is written into a run folder",
                    fix="train it, or copy it here",
                )
            page = html_page(saved)
            write_file(run / REPORT, lambda file: file.write_text(page, encoding="utf-8"))
            typer.echo(f"written: {run / REPORT}")
            return
        typer.echo(
            json.dumps(saved.numbers, indent=2, ensure_ascii=False) if as_json else run_markdown(saved), nl=False
        )


def named_cells(column: list[str] | None) -> dict[str, str]:
    """``["age=31", "town=Bern"]`` by name.

    Raises:
        RecipeError: one is not of the form name=value, or names a column again.
    """
    found: dict[str, str] = {}
    for one in column or ():
        name, equals, value = one.partition("=")
        name = name.strip()
        if not equals:
            raise RecipeError(f"--column takes NAME=VALUE, got {one!r}", fix="such as --column age=31")
        if name in found:
            raise RecipeError(f"--column {name} is given twice", given=f"{found[name]}, {value}", fix="leave one out")
        found[name] = value
    return found


def given(set_: list[str] | None, **options: Any) -> dict[str, Any]:
    """Options of new data: those of ``--set``, and over them those that have a switch of their own."""
    chosen = {name: str(value) for name, value in options.items() if value is not None}
    return {**parse_assignments(set_ or []), **chosen}
