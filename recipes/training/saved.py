"""A trained model in its run folder, and back: self-contained, no pickles, nothing downloaded.

::

    model/classifier.safetensors   the trained model's weights: backbones, units, fusion
    model/sources.safetensors      those of the frozen encoders that expanded models hear
    model/encoders/<modality>/     what builds each encoder and its preprocessing: JSON and the tokenizer's files
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_model
from torch import nn

from mi2p_inject.recipes.config import Config, make_config
from mi2p_inject.recipes.encoders.encoder import Encoder
from mi2p_inject.recipes.encoders.preprocess import ImageSpec, TextSpec
from mi2p_inject.recipes.encoders.saved import rebuild_encoder, save_encoder
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.systems.classifier import Classifier, build_classifier
from mi2p_inject.recipes.training.inputs import Collator
from mi2p_inject.recipes.training.run_folder import FINISHED, read_identity
from mi2p_inject.sources.cache import SourceCache

__all__ = ["FORMAT", "SavedRun", "collator_of", "load_run", "save_classifier"]

#: of a run folder; another one is refused
FORMAT = 2


@dataclass(frozen=True)
class SavedRun:
    """A finished training, read back.

    Attributes:
        path: the run folder.
        config: what it was trained with.
        classes: name of each class.
        multi_label: a sample has any number of labels.
        thresholds: (K,) probabilities from which a label holds; None where a sample has one label.
        numbers: all of metrics.json.
    """

    path: Path
    config: Config
    classes: tuple[str, ...]
    multi_label: bool
    thresholds: NDArray[np.float64] | None
    numbers: dict[str, Any]

    def model(self) -> tuple[Classifier, Mapping[str, Encoder]]:
        """The trained classifier in eval mode, and its encoders by modality.

        Raises:
            RecipeError: the run kept no weights, or they are damaged.
        """
        folder = self.path / "model"
        if not (folder / "classifier.safetensors").is_file():
            raise RecipeError(f"{self.path} kept no weights", fix="train with keep_weights=true")
        stored = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        encoders = {
            modality: rebuild_encoder(
                folder / "encoders" / modality, "image" if modality == "image" else "text", max_bytes=stored
            )
            for modality in self.config.model.modalities
        }
        classifier = build_classifier(self.config, encoders, len(self.classes), self.multi_label)
        try:
            load_model(classifier, folder / "classifier.safetensors")
            if classifier.sources():
                load_model(_sources(classifier), folder / "sources.safetensors")
        except (OSError, RuntimeError, SafetensorError) as error:
            raise RecipeError(
                f"the weights in {folder} cannot be read: {error}",
                expected="the files that the training wrote",
                fix="copy the run folder again, or train again with --overwrite",
            ) from error
        return classifier.eval(), encoders

    def predictions(self) -> dict[str, NDArray[Any]]:
        """``<part>_logits`` (N, K), ``<part>_labels`` and ``<part>_groups`` of the validation and test parts."""
        return {name: value.numpy() for name, value in load_file(self.path / "predictions.safetensors").items()}


def load_run(path: Path) -> SavedRun:
    """A finished run of `mi2p train`.

    Raises:
        RecipeError: no run, an unfinished one, one of another command, or of another version of its format.
    """
    identity = read_identity(path)
    if identity is None:
        raise RecipeError(f"{path} is no run folder", expected="a folder that `mi2p train --out` wrote")
    if identity["recipe"] != "train":
        raise RecipeError(f"{path} is a run of {identity['recipe']!r}", expected="one of `mi2p train`")
    if identity.get("format") != FORMAT:
        raise RecipeError(
            f"{path} was written by another version of mi2p-inject",
            expected=f"format {FORMAT}",
            given=f"format {identity.get('format')}, by mi2p-inject {identity.get('mi2p-inject', 'unknown')}",
            fix="install that version, or train again",
        )
    if not (path / FINISHED).is_file():
        raise RecipeError(f"the run in {path} is not finished", fix="give its `mi2p train` again: it goes on")
    try:
        numbers = json.loads((path / FINISHED).read_text(encoding="utf-8"))
        thresholds = numbers["thresholds"]
        return SavedRun(
            path=path,
            config=make_config(identity["config"]),
            classes=tuple(numbers["classes"]),
            multi_label=bool(numbers["multi_label"]),
            thresholds=None if thresholds is None else np.asarray(thresholds, dtype=np.float64),
            numbers=numbers,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecipeError(f"{path} is damaged: {type(error).__name__}: {error}", fix="copy it again") from error


def save_classifier(classifier: Classifier, encoders: Mapping[str, Encoder], folder: Path) -> None:
    """Write the files that `SavedRun.model` reads."""
    save_model(classifier, str(folder / "classifier.safetensors"))
    if classifier.sources():
        save_model(_sources(classifier), str(folder / "sources.safetensors"))
    for modality, encoder in encoders.items():
        save_encoder(encoder, folder / "encoders" / modality)


def collator_of(
    config: Config,
    encoders: Mapping[str, Encoder],
    classes: int,
    multi_label: bool,
    cached: Mapping[str, SourceCache] | None = None,
) -> Collator:
    """The collator that makes what these encoders read; cached sources are not read again."""
    cached = cached or {}
    read = [one for one in config.model.modalities if one in config.model.backbones or one not in cached]
    specs = [encoders[modality].spec for modality in read]
    image = next((spec for spec in specs if isinstance(spec, ImageSpec)), None)
    text = next((spec for spec in specs if isinstance(spec, TextSpec)), None)
    return Collator(image, text, classes, multi_label, cached)


def _sources(classifier: Classifier) -> nn.Module:
    """The frozen encoders as one module, for reading and writing their weights."""
    return nn.ModuleDict({modality: source.model for modality, source in classifier.sources().items()})
