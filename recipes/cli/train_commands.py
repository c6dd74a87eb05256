"""`mi2p train`: options to a configuration; the training itself is in `train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from mi2p_inject.recipes.cli.exit_codes import reported
from mi2p_inject.recipes.config import Config, make_config, parse_assignments, read_yaml

__all__ = ["settings", "train"]

DataOption = Annotated[
    str | None, typer.Option(help="CSV, TSV, JSONL, Parquet, a folder, or a known set: crisismmd:/path.")
]
SetOption = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting; repeatable.")]
ConfigOption = Annotated[Path | None, typer.Option(help="A YAML file of settings; options override it.")]
PresetOption = Annotated[str, typer.Option(help="practical, or paper: its section 4.2 and Table 2.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run in --out.")]


def train(
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    data: DataOption = None,
    image_col: Annotated[str | None, typer.Option(help="Column of image paths.")] = None,
    text_col: Annotated[str | None, typer.Option(help="Column of texts.")] = None,
    label_col: Annotated[str | None, typer.Option(help="Column of labels; | separates several.")] = None,
    split_col: Annotated[str | None, typer.Option(help="Column of parts; default: a split is made.")] = None,
    task: Annotated[str | None, typer.Option(help="Task of a known set.")] = None,
    missing: Annotated[str | None, typer.Option(help="keep or drop samples without image or text.")] = None,
    model: Annotated[
        str | None, typer.Option(help="me-vision, me-text, me-fusion, vision, text or late-fusion.")
    ] = None,
    fusion: Annotated[str | None, typer.Option(help="score, concat or cross-attention.")] = None,
    vision: Annotated[
        str | None, typer.Option(help="Image encoder: a timm, HF or open_clip name, a folder, demo.")
    ] = None,
    text: Annotated[str | None, typer.Option(help="Text encoder: a HF or open_clip name, a folder, demo.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training part.")] = None,
    max_steps: Annotated[int | None, typer.Option(help="End after so many steps.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples a step and process.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of initial values, shuffling, dropout and bootstrap.")] = None,
    preset: PresetOption = "practical",
    config: ConfigOption = None,
    set_: SetOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Train a classifier on pictures and texts: one encoder, two fused, or expanded with MI2P units.

    The run folder holds the weights, all numbers and what predicts with them. An interrupted or killed run goes on
    where it stopped when the same command is given again. Settings and their defaults: `mi2p settings`.

    Examples:

    - `mi2p train --data my.csv --vision densenet121 --text bert-base-uncased --model me-vision --out runs/first`

    - `mi2p train --data my.csv --vision demo --text demo --model me-fusion --fusion concat --epochs 5 --out runs/demo`

    - `mi2p train --data crisismmd:/data/CrisisMMD --task humanitarian --preset paper --model me-text --out runs/paper`

    - `mi2p train --config my.yaml --set rate=1e-4 --set vision_layers=[0,-1] --out runs/second`

    - `torchrun --nproc-per-node 2 -m mi2p_inject.recipes train --config my.yaml --out runs/two-processes`
    """
    given = {
        "data": data,
        "image_col": image_col,
        "text_col": text_col,
        "label_col": label_col,
        "split_col": split_col,
        "task": task,
        "missing": missing,
        "model": model,
        "fusion": fusion,
        "vision": vision,
        "text": text,
        "epochs": epochs,
        "max_steps": max_steps,
        "batch_size": batch_size,
        "seed": seed,
    }
    with reported(lambda: f"Interrupted; the same command goes on from the last checkpoint in {out}."):
        wanted = merged(config, given, set_, preset)
        from mi2p_inject.recipes.evaluation.run_report import print_run
        from mi2p_inject.recipes.training.run_folder import check_out
        from mi2p_inject.recipes.training.saved import load_run

        check_out(out, overwrite=overwrite)  # before the seconds that the imports take
        from mi2p_inject.recipes.training.train import train_run

        console = Console()
        train_run(wanted, out, console, overwrite=overwrite)
        if not console.quiet:
            print_run(load_run(out), console)


def settings(preset: PresetOption = "practical", config: ConfigOption = None, set_: SetOption = None) -> None:
    """Print all settings of a training as YAML, ready for `mi2p train --config`.

    Examples:

    - `mi2p settings --preset paper > paper.yaml`
    """
    with reported():
        import yaml

        merged_config = merged(config, {"data": "my.csv"}, set_, preset)
        typer.echo(yaml.safe_dump(merged_config.to_json(), sort_keys=False), nl=False)


def merged(config: Path | None, given: dict[str, Any], assignments: list[str] | None, preset: str) -> Config:
    """The configuration of a preset, a YAML file, options and --set, each overriding those before."""
    layers = [read_yaml(config)] if config else []
    layers.append({name: value for name, value in given.items() if value is not None})
    return make_config(*layers, parse_assignments(assignments or []), preset=preset)
