"""Runs a set of experiments: each with each seed is an ordinary run folder, then one report over all of them.

::

    run.json                             which set, on which data, with which settings: written first
    experiments/<experiment>/seed-<n>/   a run folder of `train_run`
    table.md figure.png                  the report
    metrics.json                         all numbers: written last
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import torch
from rich.console import Console

from mi2p_inject.core.human import printable
from mi2p_inject.recipes.characters import print_notes
from mi2p_inject.recipes.config import Config, with_options
from mi2p_inject.recipes.data import Samples
from mi2p_inject.recipes.encoders.encoder import Encoder
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.experiments.experiment import ExperimentSet
from mi2p_inject.recipes.experiments.figure import draw_figure
from mi2p_inject.recipes.experiments.folder import finished_runs, folder_of
from mi2p_inject.recipes.experiments.prose import pick_notes
from mi2p_inject.recipes.experiments.report import markdown, show
from mi2p_inject.recipes.experiments.results import Results, collect
from mi2p_inject.recipes.saving.identity import FINISHED, PLACES, check_identity
from mi2p_inject.recipes.saving.run_folder import RunFolder, check_out, remove_scratch
from mi2p_inject.recipes.saving.saved import FORMAT, SavedRun, load_run
from mi2p_inject.recipes.systems import build_system
from mi2p_inject.recipes.tasks import Task
from mi2p_inject.recipes.training.train import load_encoders, load_samples, load_task, quiet, train_run

__all__ = ["run_experiments"]

_SMOKE_SAMPLES = {"train": 64, "validation": 40, "test": 80}
_CACHE = "source-cache"


def run_experiments(
    experiments: ExperimentSet,
    config: Config,
    out: Path,
    console: Console,
    *,
    encoders: str | None = None,
    seeds: Sequence[int] | None = None,
    only: Sequence[str] = (),
    smoke: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Train what is not there yet, and write table.md, figure.png and metrics.json over all that is there.

    Works in one process and under ``torchrun``. A set that was interrupted or killed goes on where it stopped, in the
    middle of a run; more seeds and experiments can be added to a finished one. All of them share one split.

    Args:
        experiments: the set.
        config: of the set, see `ExperimentSet.config`; an experiment's own settings come on top.
        out: folder of the set.
        console: for progress and the table.
        encoders: a set of `ExperimentSet.encoders`; None: the first.
        seeds: each experiment is trained with each of them; None: the set's own.
        only: names of experiments; () for all.
        smoke: a few samples and one epoch: shows that everything runs, not what it scores.
        overwrite: delete an earlier set there first.

    Returns:
        What metrics.json holds.

    Raises:
        RecipeError: an unknown set of encoders or experiment, data that do not fit, a finished set to which nothing is
            added, or whatever `train_run` raises. Whatever can be found out before any training is.
    """
    quiet()
    encoders, seeds = encoders or next(iter(experiments.encoders)), tuple(seeds or experiments.seeds)
    if smoke:
        experiments, config = experiments.shortened(), with_options(config, {"epochs": 1})
    processes = accelerate.PartialState(cpu=not torch.accelerator.is_available())
    if not processes.is_main_process:
        console.quiet = True
    chosen = experiments.select(only)
    sources = {one.name: one.sources for one in chosen}
    planned = {
        (one.name, seed): experiments.config_of(one, config, encoders=encoders, seed=seed)
        for one in chosen
        for seed in seeds
        if not one.averages
    }
    with processes.main_process_first():
        if processes.is_main_process:
            check_out(out, overwrite=overwrite, extend=True)
        samples = _fewer(load_samples(config)) if smoke else load_samples(config)
    _check_data(experiments, samples)
    print_notes(samples.notes, console)
    identity = _identity(experiments, config, encoders, samples, smoke)
    if not overwrite:
        check_identity(out, identity)
    kept = () if overwrite else [(name, seed) for name, seed, _ in _finished(experiments, config, out, encoders)]
    missing = _missing(planned, kept, out)
    _check_models(missing, load_task(config, samples))
    if processes.is_main_process:
        folder = RunFolder(out, identity, overwrite=overwrite, extend=True)
    processes.wait_for_everyone()

    cache = out / _CACHE
    for number, ((name, seed), own) in enumerate(planned.items(), start=1):
        console.print(f"[{number}/{len(planned)}] {name}, seed {seed}: ", end="", highlight=False, markup=False)
        if (name, seed) not in missing:
            console.print("read back", highlight=False)
            continue
        runs = [str(folder_of(out, source, seed)) for source in sources[name]]
        needed = experiments.cache_sources or own.model.source_folds
        train_run(_placed(own, cache if needed else None, runs), folder_of(out, name, seed), console, samples=samples)
    processes.wait_for_everyone()
    results = _read(experiments, config, out, encoders, samples)
    numbers = collect(experiments, results, config, encoders=encoders, smoke=smoke)
    if processes.is_main_process:
        _write(folder, numbers, results, experiments, console)
        remove_scratch(out)
    processes.wait_for_everyone()
    return numbers


def _write(
    folder: RunFolder, numbers: dict[str, Any], results: Results, experiments: ExperimentSet, console: Console
) -> None:
    folder.write("figure.png", lambda file: draw_figure(numbers, file, results, experiments.examples))
    picks = pick_notes(numbers)
    text = markdown(numbers) + "".join(f"\n{one}\n" for one in picks)
    folder.write("table.md", lambda file: file.write_text(text, encoding="utf-8"))
    folder.write_json(FINISHED, numbers)
    folder.close()
    show(numbers, console)
    for one in picks:
        console.print(printable(one.replace("**", "").replace("`", "")), highlight=False, markup=False)
    console.print(
        f"written: {folder.path}/table.md, figure.png, metrics.json, experiments/",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _read(experiments: ExperimentSet, config: Config, out: Path, encoders: str, samples: Samples) -> Results:
    """All finished runs of the folder, and the averages of them."""
    results = Results(samples, load_task(config, samples), config.answers)
    for name, seed, run in _finished(experiments, config, out, encoders):
        results.add_run(name, seed, run)
    for one in experiments.experiments:
        if one.averages:
            results.add_average(one)
    return results


def _finished(
    experiments: ExperimentSet, config: Config, out: Path, encoders: str
) -> Iterator[tuple[str, int, SavedRun]]:
    """The finished runs of the folder, those of earlier commands too; each must be whole, and what it would be now."""
    found = finished_runs(out)
    for one in experiments.experiments:
        for seed in () if one.averages else found.get(one.name, []):
            run = load_run(folder_of(out, one.name, seed))
            wanted = experiments.config_of(one, config, encoders=encoders, seed=seed)
            _check_same(run.config, wanted, run.path)
            run.predictions()
            yield one.name, seed, run


def _missing(
    planned: Mapping[tuple[str, int], Config], kept: Collection[tuple[str, int]], out: Path
) -> dict[tuple[str, int], Config]:
    """What is still to be trained."""
    missing = {one: config for one, config in planned.items() if one not in kept}
    for name, seed in kept:
        remove_scratch(folder_of(out, name, seed))
    if not missing and (out / FINISHED).is_file():
        raise RecipeError(
            f"--out {out} holds a finished run, and nothing is missing in it",
            fix=f"`mi2p report {out}` shows it; name more seeds to add, or --overwrite to train all anew",
        )
    return missing


def _check_same(config: Config, wanted: Config, path: Path) -> None:
    """That a run was trained as its experiment says now; the set's own run.json does not hold the experiments."""
    was, now = ({**one.to_json(), **dict.fromkeys(PLACES)} for one in (config, wanted))
    if different := sorted(name for name in now if was.get(name) != now[name]):
        raise RecipeError(
            f"{path} was trained with other settings ({', '.join(different)} differ)",
            fix="remove that folder to train it again, or add --overwrite to train all anew",
        )


def _check_data(experiments: ExperimentSet, samples: Samples) -> None:
    if len(samples.modalities) < 2 or "test" not in samples.splits:
        raise RecipeError(
            f"{experiments.name} needs images, texts and a test split",
            given=f"{', '.join(sorted(samples.modalities)) or 'neither'}; splits {', '.join(samples.splits)}",
            fix="name the columns: --image-col, --text-col, --split-col",
        )


def _check_models(configs: Mapping[tuple[str, int], Config], task: Task) -> None:
    """Load each encoder and build each model once, without memory for its weights: what cannot be reached or does not
    fit is found before hours of training."""
    known: dict[tuple[Any, ...], Encoder] = {}  # on the meta device
    different = {name: config for (name, _), config in configs.items()}  # whatever the seed
    for config in sorted(different.values(), key=lambda one: -len(one.model.system.modalities)):
        model = config.model
        keys = {one: (one, name, model.image_size, model.max_length) for one, name in model.encoder_names.items()}
        if not set(keys.values()) <= known.keys():
            for modality, encoder in load_encoders(config).items():
                encoder.model.to("meta")
                known[keys[modality]] = encoder
        shapes = {one: replace(known[key], model=copy.deepcopy(known[key].model)) for one, key in keys.items()}
        with torch.device("meta"):
            build_system(config, shapes, task)


def _identity(
    experiments: ExperimentSet, config: Config, encoders: str, samples: Samples, smoke: bool
) -> dict[str, Any]:
    """What a command must have in common with one that it goes on with; seeds and experiments may differ."""
    return {
        "recipe": experiments.name,
        "format": FORMAT,
        "mi2p-inject": version("mi2p-inject"),
        "encoders": encoders,
        "smoke": smoke,
        "data": samples.fingerprint,
        "config": {**config.to_json(), "source_cache": "" if config.run.source_cache else None},  # wherever it is
    }


def _placed(config: Config, cache: Path | None, source_runs: Sequence[str]) -> Config:
    """The configuration with the folders that it uses: that of the cache, and those of its source runs."""
    cached = {"source_cache": str(cache)} if cache is not None and not config.run.source_cache else {}
    return with_options(config, {**cached, **({"source_run": list(source_runs)} if source_runs else {})})


def _fewer(samples: Samples) -> Samples:
    """A few random samples of each split."""
    random = np.random.default_rng(0)
    splits = {
        name: rows.select(random.permutation(len(rows))[: _SMOKE_SAMPLES[name]])
        for name, rows in samples.splits.items()
    }
    return replace(samples, splits=splits, fingerprint=f"{samples.fingerprint} smoke")
