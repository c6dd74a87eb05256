"""`mi2p train`: configuration -> data -> encoders -> model -> trained run folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from rich.console import Console
from safetensors import SafetensorError
from safetensors.torch import save_file

from mi2p_inject.adapters.adapter import Modality
from mi2p_inject.checkpoint.card import write_card
from mi2p_inject.core.errors import CheckpointError
from mi2p_inject.recipes.characters import print_notes
from mi2p_inject.recipes.config import Config
from mi2p_inject.recipes.config.unused import unused_notes
from mi2p_inject.recipes.data import Samples, load_data
from mi2p_inject.recipes.encoders.encoder import Encoder
from mi2p_inject.recipes.encoders.load import load_encoder
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.metrics.decisions import check_decision
from mi2p_inject.recipes.saving.card import card_of
from mi2p_inject.recipes.saving.output_folder import check_outside_data
from mi2p_inject.recipes.saving.run_folder import FINISHED, RunFolder, check_out, remove_scratch
from mi2p_inject.recipes.saving.saved import FORMAT, SavedRun, collator_of, load_run, save_trained
from mi2p_inject.recipes.systems import SystemModel, build_system
from mi2p_inject.recipes.systems.auxiliary import add_auxiliary, load_auxiliary
from mi2p_inject.recipes.systems.columns import column_notes, fit_columns
from mi2p_inject.recipes.systems.inputs import ImageTextDataset
from mi2p_inject.recipes.tasks import Task, task_of
from mi2p_inject.recipes.training.caching import cache_sources
from mi2p_inject.recipes.training.numbers import described, numbers_of, predict_splits, targets_of
from mi2p_inject.recipes.training.progress.bars import busy, row_progress, short_progress
from mi2p_inject.recipes.training.progress.logs import check_log
from mi2p_inject.recipes.training.reading import reading_numbers
from mi2p_inject.recipes.training.sharding import check_launch
from mi2p_inject.recipes.training.sources.out_of_fold import check_folds, fold_folder, folds_of, out_of_fold
from mi2p_inject.recipes.training.sources.tuned import SOURCES, alone, check_source_runs, digests, use_tuned
from mi2p_inject.recipes.training.text_notes import text_notes
from mi2p_inject.recipes.training.trainer import fit
from mi2p_inject.reparam import Pathway
from mi2p_inject.sources.columns import Columns

__all__ = ["load_encoders", "load_samples", "load_task", "quiet", "train_run"]


def train_run(
    config: Config, out: Path, console: Console, *, overwrite: bool = False, samples: Samples | None = None
) -> dict[str, Any]:
    """Train a model and write its run folder; an unfinished run there with the same settings goes on.

    Works in one process and under ``torchrun``; then the first process writes and prints.

    Args:
        config: what to train on what.
        out: the run folder.
        console: for progress.
        overwrite: replace an earlier run there.
        samples: the data, where they are loaded already.

    Returns:
        What metrics.json holds.

    Raises:
        RecipeError: folder, data or encoders cannot be used (before any training), the loss is no number, or the disk
            is full.
    """
    quiet()
    check_launch(config.run)
    processes = accelerate.PartialState(cpu=not torch.accelerator.is_available())
    console.quiet = console.quiet or not processes.is_main_process
    with processes.main_process_first():  # the others find the stored rows ready
        if processes.is_main_process:
            check_out(out, overwrite=overwrite)
            check_log(config.run.log)
            check_outside_data(config.data.data, {"--out": out, "source_cache": config.run.source_cache})
        notes = () if samples else None  # whoever has loaded them has shown them
        if samples is None:
            with busy(console, "reading the data"):
                samples = _with_notes(load_samples(config), unused_notes(config))
        task = load_task(config, samples)
        metric = _check(config, task, samples)
    print_notes(samples.notes if notes is None else notes, console)

    with busy(console, "loading the encoders"):
        columns, encoders, model, pathway = _build(config, task, samples)
    samples = _noted((*column_notes(columns, samples), *text_notes(encoders, samples)), samples, console)
    sources = check_source_runs(config, task, encoders, samples.fingerprint)
    if processes.is_main_process:  # not before: a mistaken name must neither leave a folder nor delete an earlier run
        folder = RunFolder(out, _identity(config, samples, sources), overwrite=overwrite)
    processes.wait_for_everyone()
    if config.model.tuned:
        sources = sources or _tune(config, out / SOURCES, console, samples)
        use_tuned(model, sources)
    folded = _without_folds(config, out / SOURCES, console, samples)
    console.print(described(config, encoders, model, samples), highlight=False, markup=False)

    cached = {}
    if config.run.source_cache is not None:
        cached = cache_sources(model.to(processes.device), config.run, samples, console)
        if folded is not None:
            cached = out_of_fold(model, config, cached, *folded, sources, samples, console)
    collator = collator_of(config.model.system, encoders, task, cached, columns)
    augment = config.optimisation.augment
    data = {
        name: ImageTextDataset(rows, collator.image, augment=augment and name == "train", seed=config.run.seed)
        for name, rows in samples.splits.items()
    }
    with row_progress(console, config.model.model) as on_step:
        say = partial(console.print, highlight=False, markup=False)
        fitted = fit(model, config, task, data, collator, out, metric=metric, on_step=on_step, say=say)
    if pathway is not None:
        pathway.fold()  # from here on the model is what a plain training leaves
    with short_progress(console, "predicting") as on_step:
        predictions = predict_splits(model, config, task, samples, data, collator, on_step)
    numbers = numbers_of(config, task, samples, encoders, model, predictions)
    with short_progress(console, "reading check") as on_step:
        numbers |= reading_numbers(model, config, task, data, collator, predictions, numbers, metric, on_step)
    numbers |= {"best_step": fitted.best_step, "selected_by": metric, "seconds": round(fitted.seconds, 1)}
    if processes.is_main_process:
        _write(folder, config, model, encoders, columns, predictions, fitted.history, numbers)
    processes.wait_for_everyone()
    return numbers


def _tune(
    config: Config, sources: Path, console: Console, samples: Samples, fold: int | None = None
) -> dict[Modality, SavedRun]:
    """Train each source encoder by itself, each in a run folder inside; a finished one is read back."""
    found: dict[Modality, SavedRun] = {}
    for modality in config.model.system.source_modalities:
        folder = sources / modality if fold is None else fold_folder(sources, modality, fold)
        if not (folder / FINISHED).is_file():
            without = "" if fold is None else f" without fold {fold}"
            console.print(f"first the source, {modality} alone{without}: ", end="", highlight=False)
            train_run(alone(config, modality), folder, console, samples=samples)
        found[modality] = load_run(folder)
    return found


def _without_folds(
    config: Config, sources: Path, console: Console, samples: Samples
) -> tuple[list[tuple[Samples, frozenset[str]]], list[Mapping[Modality, SavedRun]]] | None:
    """The folds, and of each the sources that were trained without it; None where there are to be none."""
    if not config.model.source_folds:
        return None
    folds = folds_of(samples, config.model.source_folds, config.data.split_seed)
    return folds, [_tune(config, sources, console, rest, number) for number, (rest, _) in enumerate(folds, start=1)]


def load_samples(config: Config) -> Samples:
    """The data that a configuration names."""
    return load_data(config.data.data, **config.data.for_loading(), seed=config.data.split_seed)


def load_task(config: Config, samples: Samples) -> Task:
    """What is learned from the labels of the data.

    Raises:
        RecipeError: the configuration names a task that does not fit them.
    """
    return task_of(config.data.problem_type, samples.classes, multi_label=samples.multi_label)


def load_encoders(config: Config) -> dict[Modality, Encoder]:
    """Modality -> pre-trained encoder, for all that the system reads."""
    model = config.model
    return {
        modality: load_encoder(
            name,
            modality,
            pretrained=model.pretrained,
            image_size=model.image_size if modality == "image" else None,
            max_length=model.max_length,
        )
        for modality, name in model.encoder_names.items()
    }


def _build(
    config: Config, task: Task, samples: Samples
) -> tuple[Columns | None, dict[Modality, Encoder], SystemModel, Pathway | None]:
    columns = fit_columns(config, samples)
    transformers.set_seed(config.run.seed)
    encoders, auxiliary = load_encoders(config), load_auxiliary(config.model)
    transformers.set_seed(config.run.seed)  # whatever the encoders took: the same new parameters for all of them
    model = build_system(config, encoders, task, targets_of(task, samples, "train"), columns)
    return columns, encoders, model, add_auxiliary(encoders, auxiliary, config.model)


def _noted(notes: tuple[str, ...], samples: Samples, console: Console) -> Samples:
    """The samples with what else there is to say of them, which is printed, too."""
    print_notes(notes, console)
    return _with_notes(samples, notes)


def _with_notes(samples: Samples, notes: tuple[str, ...]) -> Samples:
    return replace(samples, notes=(*samples.notes, *notes))


def _check(config: Config, task: Task, samples: Samples) -> str:
    """That data, task and system fit; gives the metric that chooses the best checkpoint."""
    for modality in config.model.system.modalities:
        if modality not in samples.modalities:
            raise RecipeError(
                f"model {config.model.model!r} reads {modality}s, and no sample has one",
                fix=f"name the column: --{modality}-col, or train another --model",
            )
    if "train" not in samples.splits:
        raise RecipeError(
            "there is no training split",
            expected="train, validation, test",
            given=str([*samples.splits]),
            fix="call a split train, or leave the split column out: a split is then made",
        )
    if config.model.tuned and not config.model.system.source_modalities:
        raise RecipeError(
            f"model {config.model.model!r} has no source to tune",
            expected="an expanded model, such as me-vision",
            given="source_run" if config.model.source_run else "source=tuned",
            fix="leave it out, or train another --model",
        )
    metric = config.optimisation.metric or task.selection_metric
    known = (*task.metrics, *task.ranking_metrics)
    if metric not in known:
        raise RecipeError(
            f"metric={metric} is none of a {task.name} task",
            expected=", ".join(known),
            given=metric,
            fix="choose one of these: --metric",
        )
    check_decision(config, task, samples.splits)
    check_folds(config, samples)
    return metric


def _identity(config: Config, samples: Samples, sources: Mapping[Modality, SavedRun]) -> dict[str, Any]:
    return {
        "recipe": "train",
        "format": FORMAT,
        "mi2p-inject": version("mi2p-inject"),
        "data": samples.fingerprint,
        **({"cells": samples.cells_fingerprint} if samples.cells_fingerprint else {}),
        **({"source_runs": digests(sources)} if sources else {}),
        # wherever it is; and whether it is logged is no other training
        "config": {**config.to_json(), "source_cache": "" if config.run.source_cache else None, "log": None},
    }


def _write(
    folder: RunFolder,
    config: Config,
    model: SystemModel,
    encoders: Mapping[Modality, Encoder],
    columns: Columns | None,
    predictions: Mapping[str, NDArray[Any]],
    history: list[dict[str, float]],
    numbers: dict[str, Any],
) -> None:
    tensors = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in predictions.items()}
    try:
        if config.run.keep_weights:
            folder.save_folder("model", lambda target: save_trained(model, encoders, target, columns))
        folder.write("predictions.safetensors", lambda file: save_file(tensors, file))
        folder.write_json("history.json", history)
        write_card(folder.path, card_of(config, numbers))
        folder.finish(numbers)
    except (OSError, RuntimeError, SafetensorError, CheckpointError) as error:
        raise RecipeError(
            f"cannot write the trained model: {error}",
            expected="room for it",
            given=str(folder.path),
            fix="make room and give the same command again: it goes on from the last checkpoint",
        ) from error
    remove_scratch(folder.path)
    folder.close()


def quiet() -> None:
    """Third-party bars and notices off: there is one progress display."""
    import datasets

    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
