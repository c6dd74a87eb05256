"""`mi2p eval` and `mi2p predict`: a run folder and new samples -> numbers, or class probabilities."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mi2p_inject.recipes.config import Config, with_options
from mi2p_inject.recipes.data import Samples, load_data, open_image
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.evaluation.metrics import bootstrap_metrics
from mi2p_inject.recipes.training.inputs import ImageTextDataset
from mi2p_inject.recipes.training.numbers import targets_of
from mi2p_inject.recipes.training.run_folder import read_identity
from mi2p_inject.recipes.training.saved import SavedRun, collator_of
from mi2p_inject.recipes.training.train import load_samples, quiet
from mi2p_inject.recipes.training.trainer import predict

__all__ = ["evaluate_run", "predict_file", "predict_one"]


def evaluate_run(run: SavedRun, data: str | None, columns: dict[str, Any], split: str = "test") -> dict[str, Any]:
    """Metrics of a trained model, with intervals.

    Args:
        run: the model.
        data: new data, whose labels must be among the run's; None: the data it was trained with, split as then.
        columns: options of the data that differ from the run's.
        split: which one; samples of new data without a split are "test".

    Raises:
        RecipeError: no such split, the trained-on data have changed, or the data do not fit the model.
    """
    quiet()
    config = with_options(run.config, columns)
    if data is None or data == run.config.data.data:
        samples = load_samples(config)
        if samples.fingerprint != (read_identity(run.path) or {}).get("data"):
            raise RecipeError(
                f"{config.data.data} is not what it was when this model was trained",
                fix="restore it; or name it otherwise (a copy) to evaluate all of it as new data",
            )
    else:
        config = with_options(config, {"data": data})
        options = {**config.data.for_loading(), "multi_label": run.task.multi_label}  # a small file need not show it
        samples = load_data(data, **options, classes=run.task.classes, seed=config.data.split_seed)
    if split not in samples.splits:
        raise RecipeError(f"there is no split {split!r}", expected=", ".join(samples.splits), fix="--split")
    _check_modalities(config, samples)
    true, decided = targets_of(run.task, samples, split), run.decide(_logits(run, samples.splits[split]))
    groups = np.unique(np.asarray(samples.splits[split]["group"][:], dtype=str), return_inverse=True)[1]
    intervals = bootstrap_metrics(run.task, true, decided, groups, seed=config.run.seed)
    return {
        "data": config.data.data,
        "split": split,
        "samples": len(true),
        "metrics": {name: asdict(one) for name, one in intervals.items()},
        "f1_of_classes": run.task.f1_of_classes(true, decided),
        "notes": list(samples.notes),
    }


def predict_one(run: SavedRun, image: Path | None, text: str | None) -> dict[str, Any]:
    """Class probabilities of one sample.

    Args:
        run: the model.
        image, text: the sample; an expanded or fused model does with one of them.

    Raises:
        RecipeError: nothing that the model reads, or the image cannot be opened.
    """
    quiet()
    if image is not None:
        open_image(image, on_bad="error")
    given = {"image": image is not None, "text": bool(text and text.strip())}
    if not any(given[modality] for modality in run.config.model.system.modalities):
        needed = " or ".join(f"--{modality}" for modality in run.config.model.system.modalities)
        raise RecipeError(f"model {run.config.model.model!r} has nothing to read", fix=f"give {needed}")
    row = {"image": None if image is None else str(image), "text": text}
    return _answers(run, _logits(run, [row]))[0]


def predict_file(run: SavedRun, data: str, columns: dict[str, Any]) -> list[dict[str, Any]]:
    """Class probabilities of every sample of a file, with its id; labels in it are not read.

    Raises:
        RecipeError: the file cannot be read, or has nothing that the model reads.
    """
    quiet()
    config = with_options(run.config, {**columns, "data": data, "label_col": None, "split_col": None})
    options = {**config.data.for_loading(), "missing": "keep"}
    samples = load_data(data, **options, classes=run.task.classes, labelled=False)
    _check_modalities(config, samples)
    found = []
    for rows in samples.splits.values():
        answers = _answers(run, _logits(run, rows))
        found += [{"id": name, **answer} for name, answer in zip(rows["id"], answers, strict=True)]
    return found


def _check_modalities(config: Config, samples: Samples) -> None:
    if not any(modality in samples.modalities for modality in config.model.system.modalities):
        raise RecipeError(
            f"model {config.model.model!r} has nothing to read in {config.data.data}",
            expected=" or ".join(f"{modality}s" for modality in config.model.system.modalities),
            given=", ".join(sorted(samples.modalities)) or "neither",
            fix="name the column: --image-col, --text-col",
        )


def _logits(run: SavedRun, rows: Any) -> NDArray[np.float32]:
    model, encoders = run.model()
    collator = collator_of(run.config.model.system, encoders, run.task)
    return predict(model, ImageTextDataset(rows, collator.image), collator, run.config)


def _answers(run: SavedRun, logits: NDArray[np.float32]) -> list[dict[str, Any]]:
    probabilities = run.task.probabilities(logits)
    return [run.task.answer(one, scores) for one, scores in zip(run.decide(logits), probabilities, strict=True)]
