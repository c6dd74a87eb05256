"""`mi2p table`: rows x seeds, each a run of `train_run`, summed up beside the paper's figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from mi2p_inject.recipes.config import Config, make_config
from mi2p_inject.recipes.data import Samples
from mi2p_inject.recipes.encoders.load import load_encoder
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.evaluation.metrics import bootstrap_difference, bootstrap_metrics, decide
from mi2p_inject.recipes.experiments.paper_tables import ENCODERS, TABLES, TableRow, paper_figures
from mi2p_inject.recipes.experiments.table_report import markdown, show
from mi2p_inject.recipes.training.run_folder import FINISHED, RunFolder, check_out
from mi2p_inject.recipes.training.saved import FORMAT, SavedRun, load_run
from mi2p_inject.recipes.training.train import load_samples, quiet, train_run

__all__ = ["RowResult", "run_table"]

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class RowResult:
    """What a row scored.

    Attributes:
        row: the row.
        encoders: names of its encoders, random ones marked.
        predicted: one (N,) or (N, K) prediction a seed, on the test part.
        mean: metric -> mean over the seeds, with its bootstrap interval.
        sd: metric -> standard deviation over the seeds; empty for one seed.
        gain: row that it should beat -> metric -> difference to it, paired.
    """

    row: TableRow
    encoders: str
    predicted: list[Labels]
    mean: dict[str, dict[str, float]]
    sd: dict[str, float]
    gain: dict[str, dict[str, dict[str, float]]]


def run_table(
    number: int,
    config: Config,
    out: Path,
    console: Console,
    *,
    encoders: str = "paper",
    seeds: Sequence[int] = (0, 1, 2),
    only: Sequence[str] = (),
    overwrite: bool = False,
) -> list[RowResult]:
    """Train what is not there yet, and write table.md and metrics.json.

    A run that was interrupted goes on, in the middle of a row; more seeds and rows can be added to a finished one. All
    rows and seeds share one split.

    Args:
        number: of the paper's table.
        config: data, preset and all other settings; a row's own come on top.
        out: folder of the table; each row and seed has a run folder in ``rows/<row>/seed-<n>``.
        console: for progress and the table.
        encoders: a set of `ENCODERS`.
        seeds: each row is trained with each of them.
        only: names of rows; all by default.
        overwrite: delete an earlier table there first.

    Raises:
        RecipeError: an unknown table, set of encoders or row, or whatever `train_run` raises, before any training.
    """
    rows = _rows(number, encoders, only)
    quiet()
    processes = accelerate.PartialState(cpu=not torch.accelerator.is_available())
    with processes.main_process_first():
        if processes.is_main_process:
            check_out(out, overwrite=overwrite, extend=True)
        samples = load_samples(config)
    for note in samples.notes:
        console.print(f"note: {note}", highlight=False, markup=False)
    if len(samples.modalities) < 2 or "test" not in samples.splits:
        raise RecipeError(
            "the tables need images, texts and a test part", fix="name the columns: --image-col, --text-col"
        )
    _check_encoders(rows, encoders, config)
    if processes.is_main_process:
        folder = RunFolder(out, _identity(number, config, encoders, samples), overwrite=overwrite, extend=True)
    processes.wait_for_everyone()

    for row in rows:
        for seed in seeds:
            run = out / "rows" / row.name / f"seed-{seed}"
            if (run / FINISHED).is_file():
                console.print(f"{row.name}, seed {seed}: read back", highlight=False)
                continue
            console.print(f"{row.name}, seed {seed}:", highlight=False, end=" ")
            train_run(_row_config(row, config, encoders, seed), run, console, samples=samples)
    results = _results(rows, seeds, out, samples)
    if processes.is_main_process:
        numbers = _numbers(number, config, encoders, seeds, results, samples)
        folder.write("table.md", lambda file: file.write_text(markdown(numbers), encoding="utf-8"))
        folder.write_json(FINISHED, numbers)
        show(numbers, console)
        console.print(f"written: {out}/table.md, metrics.json, rows/", highlight=False, soft_wrap=True)
    return results


def _rows(number: int, encoders: str, only: Sequence[str]) -> list[TableRow]:
    if number not in TABLES:
        raise RecipeError(f"no table {number}", expected=", ".join(map(str, TABLES)))
    if encoders not in ENCODERS:
        raise RecipeError(f"no set of encoders {encoders!r}", expected=", ".join(ENCODERS))
    rows = TABLES[number]
    if unknown := set(only) - {row.name for row in rows}:
        raise RecipeError(
            f"table {number} has no row {', '.join(sorted(unknown))}", expected=", ".join(row.name for row in rows)
        )
    return [row for row in rows if not only or row.name in only]


def _row_config(row: TableRow, config: Config, encoders: str, seed: int) -> Config:
    roles = ENCODERS[encoders]
    own = {**row.settings, "vision": roles[row.vision], "text": roles[row.text], "seed": seed}
    return make_config({**config.to_json(), **own})


def _check_encoders(rows: Sequence[TableRow], encoders: str, config: Config) -> None:
    """Load each encoder once, so that a name that cannot be reached is found before hours of training."""
    needed = set()
    for row in rows:
        chosen = _row_config(row, config, encoders, 0)
        needed |= {("image", chosen.model.vision)} if "image" in chosen.model.modalities else set()
        needed |= {("text", chosen.model.text)} if "text" in chosen.model.modalities else set()
    for modality, name in sorted(needed):
        load_encoder(
            name,
            "image" if modality == "image" else "text",
            pretrained=config.model.pretrained,
            image_size=config.model.image_size if modality == "image" else None,
            max_length=config.model.max_length,
        )


def _identity(number: int, config: Config, encoders: str, samples: Samples) -> dict[str, Any]:
    return {
        "recipe": "table",
        "format": FORMAT,
        "mi2p-inject": version("mi2p-inject"),
        "table": number,
        "encoders": encoders,
        "data": samples.fingerprint,
        "config": {**config.to_json(), "source_cache": "" if config.run.source_cache else None},  # wherever it is
    }


def _results(rows: Sequence[TableRow], seeds: Sequence[int], out: Path, samples: Samples) -> list[RowResult]:
    true = samples.targets("test")
    groups = np.unique(np.asarray(samples.splits["test"]["group"][:], dtype=str), return_inverse=True)[1]
    classes = len(samples.classes)
    results: dict[str, RowResult] = {}
    for row in rows:
        runs = [load_run(out / "rows" / row.name / f"seed-{seed}") for seed in seeds]
        predicted = [_predicted(run) for run in runs]
        mean = bootstrap_metrics(true, predicted, groups, classes, seed=0)
        single = [run.numbers["test"] for run in runs]
        sd = {name: float(np.std([one[name]["value"] for one in single], ddof=1)) for name in mean if len(runs) > 1}
        gains = {
            base: bootstrap_difference(true, predicted, results[base].predicted, groups, classes, seed=0)
            for base in row.beats
            if base in results
        }
        results[row.name] = RowResult(
            row=row,
            encoders=" + ".join(runs[0].numbers["encoders"].values()),
            predicted=predicted,
            mean={name: asdict(one) for name, one in mean.items()},
            sd=sd,
            gain={base: {name: asdict(one) for name, one in gain.items()} for base, gain in gains.items()},
        )
    return list(results.values())


def _predicted(run: SavedRun) -> Labels:
    return decide(run.predictions()["test_logits"], run.thresholds)


def _numbers(
    number: int,
    config: Config,
    encoders: str,
    seeds: Sequence[int],
    results: Sequence[RowResult],
    samples: Samples,
) -> dict[str, Any]:
    paper = paper_figures(number, config.data.data, config.data.task)
    return {
        "recipe": "table",
        "table": number,
        "data": _public(config),
        "encoders": encoders,
        "seeds": list(seeds),
        "parts": {name: len(rows) for name, rows in samples.splits.items()},
        "classes": list(samples.classes),
        "rows": {
            result.row.name: {
                "title": result.row.title,
                "encoders": result.encoders,
                "test": result.mean,
                "sd": result.sd,
                "gain": result.gain,
                "paper": paper.get(result.row.name, {}),
            }
            for result in results
        },
        "notes": list(samples.notes),
        "config": {**config.to_json(), "data": _public(config), "image_root": None, "source_cache": None},
    }


def _public(config: Config) -> str:
    """The data without their folder."""
    name, colon, _ = config.data.data.partition(":")
    shown = name if colon else Path(name).name
    return f"{shown} ({config.data.task})" if config.data.task else shown
