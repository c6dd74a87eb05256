"""`mi2p train`: configuration -> data -> encoders -> classifier -> trained run folder."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
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

from mi2p_inject.core.errors import CheckpointError
from mi2p_inject.recipes.config import Config
from mi2p_inject.recipes.data import Samples, class_weights, load_data
from mi2p_inject.recipes.encoders.encoder import Encoder
from mi2p_inject.recipes.encoders.load import load_encoder
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.evaluation.metrics import (
    METRICS,
    METRICS_OF_SEVERAL,
    bootstrap_metrics,
    decide,
    f1_of_classes,
    measure,
    tune_thresholds,
)
from mi2p_inject.recipes.systems.classifier import Classifier, build_classifier
from mi2p_inject.recipes.training.caching import cache_sources
from mi2p_inject.recipes.training.inputs import Collator, ImageTextDataset
from mi2p_inject.recipes.training.progress import row_progress
from mi2p_inject.recipes.training.run_folder import FINISHED, RunFolder, check_out
from mi2p_inject.recipes.training.saved import FORMAT, collator_of, save_classifier
from mi2p_inject.recipes.training.trainer import CHECKPOINTS, fit, predict

__all__ = ["load_encoders", "load_samples", "quiet", "train_run"]

_PACKAGES = (
    "mi2p-inject",
    "torch",
    "timm",
    "transformers",
    "accelerate",
    "datasets",
    "scikit-learn",
    "open_clip_torch",
)


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
    processes = accelerate.PartialState(cpu=not torch.accelerator.is_available())
    if not processes.is_main_process:
        console.quiet = True
    with processes.main_process_first():  # the others find the stored rows ready
        if processes.is_main_process:
            check_out(out, overwrite=overwrite)
        notes = () if samples else None  # whoever has loaded them has said them
        samples = samples or load_samples(config)
        metric = _check(config, samples)
    for note in samples.notes if notes is None else notes:
        console.print(f"note: {note}", highlight=False, markup=False)

    transformers.set_seed(config.run.seed)
    encoders = load_encoders(config)
    transformers.set_seed(config.run.seed)  # whatever the encoders took: the same new parameters for all of them
    targets = samples.targets("train")
    weights = None
    if config.optimisation.class_weights:
        weights = torch.from_numpy(class_weights(targets, len(samples.classes))).float()
    classifier = build_classifier(config, encoders, len(samples.classes), samples.multi_label, weights)
    if processes.is_main_process:  # not before: a mistaken name must neither leave a folder nor delete an earlier run
        folder = RunFolder(out, _identity(config, samples), overwrite=overwrite)
    processes.wait_for_everyone()
    console.print(_described(config, encoders, classifier, samples), highlight=False)

    cached = {}
    if config.run.source_cache is not None:
        cached = cache_sources(classifier.to(processes.device), config, samples, console)
    collator = collator_of(config, encoders, len(samples.classes), samples.multi_label, cached)
    parts = {
        name: ImageTextDataset(
            rows, collator.image, augment=config.optimisation.augment and name == "train", seed=config.run.seed
        )
        for name, rows in samples.splits.items()
    }
    with row_progress(console, config.model.model) as on_step:
        fitted = fit(
            classifier,
            config,
            parts["train"],
            parts.get("validation"),
            collator,
            out,
            measure=_measure(samples),
            metric=metric,
            on_step=on_step,
        )
    predictions = _predict(classifier, config, samples, parts, collator)
    numbers = _numbers(config, samples, encoders, classifier, predictions)
    numbers |= {"best_step": fitted.best_step, "selected_by": metric, "seconds": round(fitted.seconds, 1)}
    if processes.is_main_process:
        _write(folder, config, classifier, encoders, predictions, fitted.history, numbers)
    processes.wait_for_everyone()
    return numbers


def load_samples(config: Config) -> Samples:
    """The data that a configuration names."""
    return load_data(config.data.data, **config.data.for_loading(), seed=config.data.split_seed)


def load_encoders(config: Config) -> dict[str, Encoder]:
    """Modality -> pre-trained encoder, for all that the model reads."""
    names = {"image": config.model.vision, "text": config.model.text}
    return {
        modality: load_encoder(
            names[modality],
            "image" if modality == "image" else "text",
            pretrained=config.model.pretrained,
            image_size=config.model.image_size if modality == "image" else None,
            max_length=config.model.max_length,
        )
        for modality in config.model.modalities
    }


def _check(config: Config, samples: Samples) -> str:
    """That data and model fit; gives the metric that chooses the best checkpoint."""
    for modality in config.model.modalities:
        if modality not in samples.modalities:
            raise RecipeError(
                f"model {config.model.model!r} reads {modality}s, and no sample has one",
                fix=f"name the column: --{modality}-col, or train another --model",
            )
    if "train" not in samples.splits:
        raise RecipeError("there is no training part", expected="train, validation, test", given=str([*samples.splits]))
    known = METRICS_OF_SEVERAL if samples.multi_label else METRICS
    metric = config.optimisation.metric or ("macro_f1" if samples.multi_label else "accuracy")
    if metric not in known:
        labels = "several labels" if samples.multi_label else "one label"
        raise RecipeError(f"metric={metric} is none of samples with {labels}", expected=", ".join(known))
    return metric


def _identity(config: Config, samples: Samples) -> dict[str, Any]:
    return {
        "recipe": "train",
        "format": FORMAT,
        "mi2p-inject": version("mi2p-inject"),
        "data": samples.fingerprint,
        "config": {**config.to_json(), "source_cache": "" if config.run.source_cache else None},  # wherever it is
    }


def _measure(samples: Samples) -> Any:
    several = np.full(len(samples.classes), 0.5) if samples.multi_label else None

    def of(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, float]:
        return measure(labels.astype(np.int64), decide(logits, several), len(samples.classes))

    return of


def _predict(
    classifier: Classifier, config: Config, samples: Samples, parts: Mapping[str, ImageTextDataset], collator: Collator
) -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = {}
    for part in ("validation", "test"):
        if part in parts:
            found[f"{part}_logits"] = predict(classifier, parts[part], collator, config)
            found[f"{part}_labels"] = samples.targets(part)
            groups = np.asarray(samples.splits[part]["group"][:], dtype=object).astype(str)
            found[f"{part}_groups"] = np.unique(groups, return_inverse=True)[1].astype(np.int64)
    return found


def _numbers(
    config: Config,
    samples: Samples,
    encoders: Mapping[str, Encoder],
    classifier: Classifier,
    predictions: Mapping[str, NDArray[Any]],
) -> dict[str, Any]:
    thresholds = None
    classes = len(samples.classes)
    if samples.multi_label:
        thresholds = np.full(classes, 0.5)
        if "validation_logits" in predictions:
            thresholds = tune_thresholds(predictions["validation_logits"], predictions["validation_labels"])
    numbers: dict[str, Any] = {
        "classes": list(samples.classes),
        "multi_label": samples.multi_label,
        "thresholds": None if thresholds is None else thresholds.tolist(),
        "parts": {name: len(rows) for name, rows in samples.splits.items()},
    }
    for part in ("validation", "test"):
        if f"{part}_logits" in predictions:
            true, groups = predictions[f"{part}_labels"], predictions[f"{part}_groups"]
            decided = decide(predictions[f"{part}_logits"], thresholds)
            intervals = bootstrap_metrics(true, decided, groups, classes, seed=config.run.seed)
            numbers[part] = {name: asdict(one) for name, one in intervals.items()}
            numbers[part]["f1_of_classes"] = f1_of_classes(true, decided, classes).tolist()
    new = classifier.new_parameters()
    trained = [(name, p.numel()) for name, p in classifier.named_parameters() if p.requires_grad]
    return numbers | {
        "encoders": {modality: encoder.name for modality, encoder in encoders.items()},
        "parameters": {
            "pretrained": sum(count for name, count in trained if name not in new),
            "new": sum(count for name, count in trained if name in new),
        },
        "notes": list(samples.notes),
        "config": config.to_json(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
    }


def _write(
    folder: RunFolder,
    config: Config,
    classifier: Classifier,
    encoders: Mapping[str, Encoder],
    predictions: Mapping[str, NDArray[Any]],
    history: list[dict[str, float]],
    numbers: dict[str, Any],
) -> None:
    tensors = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in predictions.items()}
    try:
        if config.run.keep_weights:
            folder.save_folder("model", lambda target: save_classifier(classifier, encoders, target))
        folder.write("predictions.safetensors", lambda file: save_file(tensors, file))
        folder.write_json("history.json", history)
        folder.write_json(FINISHED, numbers)
    except (OSError, RuntimeError, SafetensorError, CheckpointError) as error:
        raise RecipeError(
            f"cannot write the trained model: {error}",
            expected="room for it",
            given=str(folder.path),
            fix="make room and give the same command again: it goes on from the last checkpoint",
        ) from error
    shutil.rmtree(folder.path / CHECKPOINTS, ignore_errors=True)


def _described(config: Config, encoders: Mapping[str, Encoder], classifier: Classifier, samples: Samples) -> str:
    names = " + ".join(encoder.name for encoder in encoders.values())
    fused = f", {config.model.fusion} fusion" if len(config.model.backbones) > 1 else ""
    counts = " / ".join(f"{len(rows)} {name}" for name, rows in samples.splits.items())
    trained = sum(p.numel() for p in classifier.parameters() if p.requires_grad)
    model = f"{config.model.model} ({names}{fused})"
    return f"{model}, {trained:,} trained parameters; {counts}, {len(samples.classes)} classes"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def quiet() -> None:
    """Third-party bars and notices off: there is one progress display."""
    import datasets

    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
