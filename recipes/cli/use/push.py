"""`mi2p push`: a run to the Hugging Face Hub."""

from __future__ import annotations

from typing import Annotated

import typer

from mi2p_inject.recipes.cli.exit_codes import reported
from mi2p_inject.recipes.cli.run_commands import RunArgument

__all__ = ["push"]


def push(
    run: RunArgument,
    repository: Annotated[str, typer.Argument(metavar="REPOSITORY", help="organisation/name; made if there is none.")],
    license_: Annotated[str | None, typer.Option("--license", help="Of what you push, such as apache-2.0.")] = None,
    dataset: Annotated[list[str] | None, typer.Option(help="A data set on the Hub that it was trained on.")] = None,
    revision: Annotated[str | None, typer.Option(help="The branch; default: the main one.")] = None,
    private: Annotated[bool, typer.Option("--private", help="A new repository is private.")] = False,
    pull_request: Annotated[bool, typer.Option("--pull-request", help="Open a pull request.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would leave, and the card; ask no Hub.")
    ] = False,
) -> None:
    """Upload a run to the Hugging Face Hub: weights, encoders, numbers and a model card.

    Predictions, reports, logs, notes on the data and paths of this machine stay here. Log in with `hf auth login`, or
    set HF_TOKEN. From then on `mi2p predict REPOSITORY` and `load_run("REPOSITORY")` read it.

    Examples:

    - `mi2p push runs/first me/first --license apache-2.0`

    - `mi2p push runs/first me/first --dry-run`
    """
    with reported():
        from mi2p_inject.recipes.saving import hub
        from mi2p_inject.recipes.saving.saved import load_run

        saved = load_run(run)
        card = {name: value for name, value in {"license": license_, "datasets": dataset}.items() if value}
        with hub.portable(saved.path, saved.config, saved.numbers, card, repository) as ready:
            if dry_run:
                for file, size in ready.files.items():
                    typer.echo(f"{size:>14,}  {file}")
                typer.echo("\n" + (ready.folder / "README.md").read_text(encoding="utf-8"))
                return
            where = hub.push(ready, repository, revision=revision, private=private or None, create_pr=pull_request)
        typer.echo(f"pushed: {where}")
