"""`mi2p eval` and `mi2p predict`: a run folder and new samples -> numbers, or class probabilities."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mi2p_inject.adapters.adapter import Modality
from mi2p_inject.recipes.characters import decodable
from mi2p_inject.recipes.config import OPTIONS, Config, DataConfig, with_options
from mi2p_inject.recipes.config.names import closest
from mi2p_inject.recipes.config.option import options_of
from mi2p_inject.recipes.data import Samples, load_data, open_image
from mi2p_inject.recipes.data.load import parse_spec
from mi2p_inject.recipes.encoders.encoder import Encoder
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.evaluation.answers import Answers, answers_of
from mi2p_inject.recipes.evaluation.mean import (
    Answering,
    MeanRun,
    cells_of_runs,
    check_something_read,
    combined,
    models_of,
    runs_of,
)
from mi2p_inject.recipes.evaluation.records import read_records
from mi2p_inject.recipes.evaluation.same_samples import check_same_samples
from mi2p_inject.recipes.evaluation.scores import Scores, for_answers
from mi2p_inject.recipes.metrics.metrics import resampled_answers
from mi2p_inject.recipes.metrics.resampling import few_groups
from mi2p_inject.recipes.paths import home_path
from mi2p_inject.recipes.saving.saved import SavedRun
from mi2p_inject.recipes.systems.base import SystemModel
from mi2p_inject.recipes.systems.inputs import ImageTextDataset
from mi2p_inject.recipes.training.numbers import readable, targets_of
from mi2p_inject.recipes.training.progress.bars import OnStep, no_progress
from mi2p_inject.recipes.training.text_notes import text_notes
from mi2p_inject.recipes.training.train import load_samples, quiet
from mi2p_inject.recipes.training.trainer import predict

__all__ = [
    "EVALUATE_OPTIONS",
    "PREDICT_OPTIONS",
    "evaluate_run",
    "labelled_samples",
    "predict_file",
    "predict_one",
]


#: options of a run that say how fast it answers, not what
_SPEED = ("precision", "eval_batch_size", "num_workers")
_OF_THE_MODEL = ("data", "problem_type", "numeric_cols", "categorical_cols")
#: options that new data may have otherwise than the training's
EVALUATE_OPTIONS = (*(name for name in options_of(DataConfig) if name not in _OF_THE_MODEL), *_SPEED)
PREDICT_OPTIONS = ("image_col", "text_col", "id_col", "image_root", "task", "repair_text", *_SPEED)


def evaluate_run(
    run: Answering,
    data: str | None,
    options: Mapping[str, Any],
    split: str = "test",
    on_step: OnStep = no_progress,
) -> dict[str, Any]:
    """Metrics of a trained model, or of the mean of several, with intervals.

    Args:
        run: the model or models.
        data: new data, whose labels must be among the run's; None: the data it was trained with, split as then. Image
            paths of new data start from their own folder, or ``image_root`` of `options`; never from the training's.
        options: of `EVALUATE_OPTIONS`, where they differ from the run's.
        split: which one; samples of new data without a split are "test".
        on_step: called after each batch.

    Raises:
        RecipeError: no such split, the trained-on data have changed, the data do not fit the model, or the models were
            trained with other samples in this split.
    """
    given = [_labelled(one, data, options, split) for one in runs_of(run)]
    notes = check_something_read(runs_of(run), [samples.modalities for _, samples in given], given[0][0].data.data)
    new = data is not None and not any(_same_data(data, one.config.data.data) for one in runs_of(run))
    check_same_samples(runs_of(run), [(own.data, samples) for own, samples in given], split, new=new)
    config, samples = given[0]
    logits, present, notes = [], [], [*samples.notes, *notes]
    for one, (own, rows) in zip(runs_of(run), given, strict=True):
        own, of_machine = for_answers(own)
        model, encoders = one.model()
        logits.append(_logits(one, own, model, encoders, rows.splits[split], on_step))
        if isinstance(run, MeanRun):
            present.append(readable(rows.splits[split], one.config.model.system.modalities))
        notes += [*text_notes(encoders, rows, split), *of_machine]
    true = targets_of(run.task, samples, split)
    decided, probabilities = run.task.answers(combined(run, logits, present), run.decision)
    groups = np.unique(np.asarray(samples.splits[split]["group"][:], dtype=str), return_inverse=True)[1]
    resampled = resampled_answers(run.task, true, decided, probabilities, groups, seed=config.run.seed)
    return {
        "data": config.data.data,
        "split": split,
        "samples": len(true),
        "metrics": {name: asdict(one) for name, one in resampled.intervals().items()},
        "f1_of_classes": run.task.f1_of_classes(true, decided),
        "notes": list(dict.fromkeys([*notes, *few_groups(groups, split), *_own_notes(run)])),
    }


def _own_notes(run: Answering) -> tuple[str, ...]:
    return (f"the mean of {len(run.runs)} runs", *run.notes) if isinstance(run, MeanRun) else ()


def labelled_samples(run: SavedRun, data: str | None, options: Mapping[str, Any], split: str) -> tuple[Config, Samples]:
    """The samples that `evaluate_run` tests on, and the run's configuration with the data's options.

    Raises:
        RecipeError: as `evaluate_run`.
    """
    config, samples = _labelled(run, data, options, split)
    check_something_read([run], [samples.modalities], config.data.data)
    return config, samples


def _labelled(run: SavedRun, data: str | None, options: Mapping[str, Any], split: str) -> tuple[Config, Samples]:
    quiet()
    _check_options(options, EVALUATE_OPTIONS)
    if data is None or _same_data(data, run.config.data.data):
        config = with_options(run.config, options)
        _check_there(config.data.data)
        samples = load_samples(config)
        if (samples.fingerprint, samples.cells_fingerprint) != (run.fingerprint, run.cells_fingerprint):
            raise _other_samples(config.data, run.config.data)
    else:
        config = with_options(run.config, {"image_root": None, **options, "data": data})
        given = {**config.data.for_loading(), "multi_label": run.task.multi_label}  # a small file need not show it
        samples = load_data(data, **given, classes=run.task.classes, seed=config.data.split_seed)
    if split not in samples.splits:
        fix = closest(split, samples.splits)
        raise RecipeError(f"there is no split {split!r}", expected=", ".join(samples.splits), fix=fix)
    return config, samples


def _other_samples(now: DataConfig, trained: DataConfig) -> RecipeError:
    """The error where the data of a training give other samples: because of an option, or because they have changed."""
    before = asdict(trained)
    differ = {name: value for name, value in asdict(now).items() if value != before[name] and name != "data"}
    anew = "name it otherwise (a copy) to evaluate all of it as new data"
    if not differ:
        return RecipeError(f"{now.data} is not what it was when this model was trained", fix=f"restore it; or {anew}")
    return RecipeError(
        f"{now.data} gives other samples with these options than this model was trained with",
        expected=", ".join(f"{name}={before[name]}" for name in differ),
        given=", ".join(f"{name}={value}" for name, value in differ.items()),
        fix=f"leave {' and '.join(differ)} out; or {anew}",
    )


def predict_one(
    run: Answering, image: Path | None, text: str | None, columns: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Class probabilities of one sample.

    Args:
        run: the model, or the mean of several.
        image: the sample; an expanded or fused model does with one of them.
        text: the same.
        columns: cells of the columns that the run reads, by name; None: the sample has none.

    Raises:
        RecipeError: nothing that the model reads, or the image cannot be opened.
    """
    quiet()
    if image is not None:
        open_image(image, on_bad="error")
    given = {"image": image is not None, "text": bool(text and text.strip())}
    logits, present = [], []
    for one, cells in cells_of_runs(run, columns):
        numbers, categories = cells or ((), ())
        row = {
            "numbers": numbers,
            "categories": categories,
            "image": None if image is None else str(image),
            "text": text and decodable(text),
        }
        there = any(given[modality] for modality in one.config.model.system.modalities)
        present.append(np.array([there]))
        if there:
            logits.append(_logits(one, for_answers(one.config)[0], *one.model(), [row]))
        else:
            logits.append(np.zeros((1, one.task.outputs), dtype=np.float32))
    if not any(present):
        reads = dict.fromkeys(kind for one in runs_of(run) for kind in one.config.model.system.modalities)
        needed = " or ".join(f"--{modality}" for modality in reads)
        raise RecipeError(f"model {models_of(runs_of(run))} has nothing to read", fix=f"give {needed}")
    return answers_of(run, combined(run, logits, present))[0]


def predict_file(run: Answering, data: str, options: Mapping[str, Any], *, progress: bool = False) -> Answers:
    """Class probabilities of every record of a file, in its order; made while the answers are iterated.

    Args:
        run: the model, or the mean of several.
        data: a table, a folder of images and texts, or a benchmark; labels, splits and groups in it are not read. Image
            paths start from its folder, or ``image_root`` of `options`; never from the training's.
        options: of `PREDICT_OPTIONS`, where they differ from the run's.
        progress: a bar on stderr.

    Raises:
        RecipeError: the file cannot be read, or has no column that the model reads.
    """
    quiet()
    _check_options(options, PREDICT_OPTIONS)
    size = {"eval_batch_size": runs_of(run)[0].config.run.eval_batch_size}
    configs = [with_options(one.config, {"image_root": None, **size, **options, "data": data}) for one in runs_of(run)]
    records = [read_records(data, config.data, options) for config in configs]
    check_something_read(runs_of(run), [one.modalities for one in records], records[0].name)
    scores = [Scores(one, rows, own) for one, rows, own in zip(runs_of(run), records, configs, strict=True)]
    return Answers(run, scores, progress=progress)


def _check_options(options: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for name in options:
        if name not in known:
            if name in EVALUATE_OPTIONS:
                fix = "leave it out: it is of labelled data, which `mi2p eval` reads"
            elif name in OPTIONS:
                fix = "leave it out: the model stays as it was trained"
            else:
                fix = closest(name, known)
            raise RecipeError(f"{name!r} is no option of new data", expected=", ".join(known), given=name, fix=fix)


def _check_there(data: str) -> None:
    """The data of the training are still where they were."""
    try:
        parse_spec(data)
    except RecipeError as error:
        raise RecipeError(
            f"the data of the training are not there: {error.args[0].splitlines()[0]}",
            expected="the same path as then, seen from the folder of the training",
            given=f"{data}, from {Path.cwd()}",
            fix="go to that folder, put them back, or name labelled data: --data other.csv",
        ) from error


def _same_data(data: str, trained: str) -> bool:
    """Whether a specification names the data of the training."""
    try:
        return data == trained or os.path.samefile(home_path(data), home_path(trained))
    except (OSError, ValueError):  # one is no file, or no name of one
        return False


def _logits(
    run: SavedRun,
    config: Config,
    model: SystemModel,
    encoders: Mapping[Modality, Encoder],
    rows: Any,
    on_step: OnStep = no_progress,
) -> NDArray[np.float32]:
    collator = run.collator(encoders)
    return predict(model, ImageTextDataset(rows, collator.image), collator, config, on_step)
