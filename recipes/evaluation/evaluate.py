"""`mi2p eval` and `mi2p predict`: a run folder and new samples -> numbers, or class probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mi2p_inject.recipes.config import Config, with_options
from mi2p_inject.recipes.data import Samples, load_data, open_image
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.evaluation.metrics import bootstrap_metrics, decide, f1_of_classes
from mi2p_inject.recipes.training.inputs import ImageTextDataset
from mi2p_inject.recipes.training.run_folder import read_identity
from mi2p_inject.recipes.training.saved import SavedRun, collator_of
from mi2p_inject.recipes.training.train import load_samples, quiet
from mi2p_inject.recipes.training.trainer import predict

__all__ = ["evaluate_run", "predict_file", "predict_one"]


def evaluate_run(run: SavedRun, data: str | None, columns: dict[str, Any], part: str = "test") -> dict[str, Any]:
    """Metrics of a trained model, with intervals.

    Args:
        run: the model.
        data: new data, whose labels must be among the run's; None: the data it was trained with, split as then.
        columns: data options that differ from the run's.
        part: which part; samples of new data without one are "test".

    Raises:
        RecipeError: no such part, the trained-on data have changed, or the data do not fit the model.
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
        options = {**config.data.for_loading(), "multi_label": run.multi_label}  # a small file need not show it
        samples = load_data(data, **options, classes=run.classes, seed=config.data.split_seed)
    if part not in samples.splits:
        raise RecipeError(f"there is no part {part!r}", expected=", ".join(samples.splits), fix="--part")
    _check_modalities(config, samples)
    logits = _logits(run, samples.splits[part])
    true, decided = samples.targets(part), decide(logits, run.thresholds)
    groups = np.unique(np.asarray(samples.splits[part]["group"][:], dtype=str), return_inverse=True)[1]
    intervals = bootstrap_metrics(true, decided, groups, len(run.classes), seed=config.run.seed)
    return {
        "data": config.data.data,
        "part": part,
        "samples": len(true),
        "metrics": {name: asdict(one) for name, one in intervals.items()},
        "f1_of_classes": dict(zip(run.classes, f1_of_classes(true, decided, len(run.classes)).tolist(), strict=True)),
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
    if not any(given[modality] for modality in run.config.model.modalities):
        needed = " or ".join(f"--{modality}" for modality in run.config.model.modalities)
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
    samples = load_data(data, **options, classes=run.classes, labelled=False)
    _check_modalities(config, samples)
    found = []
    for rows in samples.splits.values():
        answers = _answers(run, _logits(run, rows))
        found += [{"id": name, **answer} for name, answer in zip(rows["id"], answers, strict=True)]
    return found


def _check_modalities(config: Config, samples: Samples) -> None:
    if not any(modality in samples.modalities for modality in config.model.modalities):
        raise RecipeError(
            f"model {config.model.model!r} has nothing to read in {config.data.data}",
            expected=" or ".join(f"{modality}s" for modality in config.model.modalities),
            given=", ".join(sorted(samples.modalities)) or "neither",
            fix="name the column: --image-col, --text-col",
        )


def _logits(run: SavedRun, rows: Any) -> NDArray[np.float32]:
    classifier, encoders = run.model()
    collator = collator_of(run.config, encoders, len(run.classes), run.multi_label)
    return predict(classifier, ImageTextDataset(rows, collator.image), collator, run.config)


def _answers(run: SavedRun, logits: NDArray[np.float32]) -> list[dict[str, Any]]:
    decided = decide(logits, run.thresholds)
    if run.thresholds is None:
        exponents = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
        probabilities = exponents / exponents.sum(axis=1, keepdims=True)
    else:
        probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    return [_answer(run.classes, one, scores) for one, scores in zip(decided, probabilities, strict=True)]


def _answer(classes: Sequence[str], decided: Any, probabilities: NDArray[np.float64]) -> dict[str, Any]:
    told = {name: round(float(score), 6) for name, score in zip(classes, probabilities, strict=True)}
    if np.ndim(decided) == 0:
        return {"label": classes[int(decided)], "probabilities": told}
    return {"labels": [name for name, yes in zip(classes, decided, strict=True) if yes], "probabilities": told}
