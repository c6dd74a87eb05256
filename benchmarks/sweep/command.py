"""`mi2p sweep`."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

import mi2p_inject
from benchmarks.sweep.picks import FAMILIES, Family, picks
from benchmarks.sweep.report import totals
from benchmarks.sweep.run import Limits, ResultFile, sweep
from benchmarks.sweep.verdict import VERDICTS, Result
from mi2p_inject.core.errors import Mi2pError
from mi2p_inject.testing import iter_checks

__all__ = ["app", "import_libraries", "sweep_command", "versions", "write_json"]

INTERRUPTED = 130
WORRYING = ("silent", "crashed")

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


@app.command()
def sweep_command(
    out: Annotated[Path, typer.Option(help="Folder of the run: results.jsonl, and timm's sizes.")] = Path("runs/sweep"),
    family: Annotated[list[str] | None, typer.Option(help=f"{', '.join(FAMILIES)}; may be given again.")] = None,
    only: Annotated[str, typer.Option(help="A glob over model names.")] = "*",
    jobs: Annotated[int, typer.Option(min=1, help="Models at once, one thread each.")] = 1,
    memory: Annotated[float, typer.Option(min=0.5, help="GiB a model may take.")] = Limits.memory,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds a model may take.")] = Limits.seconds,
    again: Annotated[str, typer.Option(help="Judge models of this verdict again, such as crashed.")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Drop earlier results in --out.")] = False,
    to_json: Annotated[Path | None, typer.Option("--json", help="Also write all results as one JSON file.")] = None,
) -> None:
    """Run `mi2p_inject.testing.check_model` on every kind of model of timm, transformers and open_clip.

    Random weights, tiny where the configuration allows, offline. Each model is checked as a backbone and as a source
    encoder: every check passes, or `inject` refuses the model and says why. Each result is kept as it comes: the same
    command continues after an interruption.

    Ends with 1 where a check fails on a model that `inject` accepts, or the model crashes.

    Examples:

    - `mi2p sweep --family open_clip`

    - `mi2p sweep --only 'vit*' --jobs 4`

    - `mi2p sweep --json docs/support.json && python docs/make_tables.py`
    """
    console = Console(stderr=True)
    try:
        results = _run(console, out, family, only, jobs, Limits(memory, timeout), again, overwrite)
    except KeyboardInterrupt:
        typer.echo("\nInterrupted; the same command goes on from here.", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except Mi2pError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    if to_json is not None:
        write_json(to_json, results, {name: len(picks([name], "*", out)) for name in FAMILIES})
    console.print(_table(list(results.results.values())))
    worrying = [one for one in results.results.values() if {one.backbone.verdict, one.source.verdict} & {*WORRYING}]
    for one in worrying:
        roles = ((role, getattr(one, role)) for role in ("backbone", "source"))
        said = "; ".join(f"as a {role} {answer.verdict} {answer.reason}" for role, answer in roles)
        console.print(f"{one.family} {one.name}: {said}", markup=False)
    raise typer.Exit(1 if worrying else 0)


def versions() -> dict[str, str]:
    """Versions of what the results depend on."""
    names = {"torch": "torch", "timm": "timm", "transformers": "transformers", "open_clip": "open_clip_torch"}
    return {name: version(package) for name, package in names.items()} | {
        "python": platform.python_version(),
        "mi2p_inject": mi2p_inject.__version__,
    }


def write_json(path: Path, results: ResultFile, of: dict[Family, int]) -> None:
    """All results, a line each, in a stable order, with what was checked and how many models there are to sweep."""
    ordered = sorted(results.results.values(), key=lambda one: (FAMILIES.index(one.family), one.name))
    lines = ",\n".join(json.dumps(one.to_json(), ensure_ascii=False, separators=(",", ":")) for one in ordered)
    checks = {str(check): check.contract for check in iter_checks()}
    head = ",".join(
        f"{json.dumps(name)}:{json.dumps(value)}"
        for name, value in (("versions", results.versions), ("checks", checks), ("of", of))
    )
    half = path.with_name(path.name + ".half")
    half.write_text(f'{{{head},"results":[\n{lines}\n]}}\n', encoding="utf-8")
    half.replace(path)


def _run(
    console: Console,
    out: Path,
    family: list[str] | None,
    only: str,
    jobs: int,
    limits: Limits,
    again: str,
    overwrite: bool,
) -> ResultFile:
    families = [name for name in FAMILIES if not family or name in family]
    for what, given, known in (("--family", family or [], FAMILIES), ("--again", [again] if again else [], VERDICTS)):
        if unknown := [name for name in given if name not in known]:
            raise typer.BadParameter(f"{what} takes {', '.join(known)}, not {unknown[0]!r}")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    path = out / "results.jsonl"
    if overwrite:
        path.unlink(missing_ok=True)
    results = ResultFile(path, versions())
    with console.status("Finding the models (timm's sizes take some minutes the first time) …"):
        import_libraries()
        chosen = picks(families, only, out)
    if not chosen:
        raise typer.BadParameter(
            f"--only {only!r} is no model's name in {', '.join(families)}: give one, or a glob such as 'vit*'"
        )
    kept = {
        name
        for name, one in results.results.items()
        if not again or again not in (one.backbone.verdict, one.source.verdict)
    }
    todo = [pick for pick in chosen if pick.name not in kept]
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=len(chosen), completed=len(chosen) - len(todo))
        for result in sweep(todo, limits, jobs):
            results.add(result)
            progress.update(task, advance=1, description=f"{result.name}: {result.backbone.verdict}")
    return results


def import_libraries() -> None:
    """Everything a model may need, once, before the forks."""
    import open_clip
    import timm
    import transformers

    transformers.logging.set_verbosity_error()
    del open_clip, timm


def _table(results: list[Result]) -> Table:
    table = Table("family", "role", *VERDICTS, title="Models by verdict")
    for family, role, counts in totals(results):
        table.add_row(family, role, *(str(counts[verdict]) for verdict in VERDICTS))
    return table
