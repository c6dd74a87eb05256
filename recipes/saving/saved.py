"""A trained model in its run folder, and back: self-contained, no pickles, nothing downloaded.

::

    model/model.safetensors        the trained model's weights: backbones, units, fusion
    model/sources.safetensors      those of the frozen encoders whose features it attends to
    model/columns.json             means, deviations and categories of the columns that it reads, where it reads any
    model/encoders/<modality>/     what builds each encoder and its preprocessing: JSON and the tokenizer's files
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from mi2p_inject.adapters.adapter import Modality
from mi2p_inject.core.errors import Mi2pError
from mi2p_inject.core.files.json_rules import Fault
from mi2p_inject.expansion.expanded_model import ExpandedModel
from mi2p_inject.recipes.config import Config, make_config
from mi2p_inject.recipes.encoders.encoder import Encoder
from mi2p_inject.recipes.encoders.preprocess import ImageSpec, TextSpec
from mi2p_inject.recipes.encoders.saved import rebuild_encoder, save_encoder
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.saving.as_trained import as_trained
from mi2p_inject.recipes.saving.checksums import check_files, check_weights, read_json
from mi2p_inject.recipes.saving.hub import local_run
from mi2p_inject.recipes.saving.numbers_schema import history_fault, numbers_fault
from mi2p_inject.recipes.saving.predictions import PREDICTIONS, load_predictions
from mi2p_inject.recipes.saving.run_folder import FINISHED, IDENTITY, read_identity, which_run
from mi2p_inject.recipes.systems import System, SystemModel, build_system
from mi2p_inject.recipes.systems.columns import COLUMNS_FILE, load_columns
from mi2p_inject.recipes.systems.expand import expansion_of
from mi2p_inject.recipes.systems.inputs import Collator
from mi2p_inject.recipes.tasks import TASKS, Decision, Floats, Labels, Logits, Task
from mi2p_inject.sources.cache import SourceCache
from mi2p_inject.sources.columns import Columns

__all__ = ["FORMAT", "SavedRun", "collator_of", "load_run", "save_trained"]

#: of a run folder; another one is refused
FORMAT = 3
_MODEL, _SOURCES = "model.safetensors", "sources.safetensors"
_HISTORY, _SLACK = "history.json", 2**24


@dataclass(frozen=True)
class SavedRun:
    """A finished training, read back.

    Attributes:
        path: the run folder.
        config: what it was trained with.
        task: what was learned, with the names of the classes.
        decision: what `Task.decide` decides by, chosen on the validation split.
        numbers: all of metrics.json.
    """

    path: Path
    config: Config
    task: Task
    decision: Decision
    numbers: dict[str, Any]

    def decide(self, logits: Logits) -> Labels:
        """The answers to (N, K) logits of this model."""
        return self.task.answers(logits, self.decision)[0]

    def probabilities(self, logits: Logits) -> Floats:
        """The (N, classes) probabilities for (N, K) logits of this model."""
        return self.task.answers(logits, self.decision)[1]

    def model(self) -> tuple[SystemModel, Mapping[Modality, Encoder]]:
        """The trained model in eval mode, and its encoders by modality.

        Raises:
            RecipeError: the run kept no weights, or they are damaged.
        """
        folder = self.path / "model"
        encoders = self.encoders()
        columns = self.columns()
        config = as_trained(self.config, folder / _MODEL)
        self._check_size(config, encoders, columns)
        model = build_system(config, encoders, self.task, columns=columns)
        try:
            load_model(model, folder / _MODEL)
            if model.sources():
                load_model(_sources(model), folder / _SOURCES)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise RecipeError(
                f"the weights in {folder} cannot be read: {error}",
                expected="the files that the training wrote",
                fix="copy the run folder again, or train again with --overwrite",
            ) from error
        return model.eval(), encoders

    def encoders(self) -> dict[Modality, Encoder]:
        """Its encoders by modality, with random weights.

        Raises:
            RecipeError: the run kept no weights, or its files are damaged.
        """
        folder = self.path / "model"
        check_weights(self.path)
        check_files(self.path, "model")
        stored = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        return {
            modality: rebuild_encoder(folder / "encoders" / modality, modality, max_bytes=stored)
            for modality in self.config.model.system.modalities
        }

    def columns(self) -> Columns | None:
        """What its training split told of the columns that it reads; None where it reads none.

        Raises:
            RecipeError, SourceError: the run kept no weights, or the file is damaged or of other columns.
        """
        if self.config.data.column_names:
            check_weights(self.path)
        return load_columns(self.path / "model" / COLUMNS_FILE, self.config.data)

    def collator(self, encoders: Mapping[Modality, Encoder]) -> Collator:
        """What makes batches of samples for its model, with the encoders that `model` gave."""
        return collator_of(self.config.model.system, encoders, self.task, columns=self.columns())

    @property
    def fingerprint(self) -> str:
        """Of the data that it was trained on, their split included, but for the columns that it reads."""
        return str((read_identity(self.path) or {}).get("data"))

    @property
    def cells_fingerprint(self) -> str:
        """Of the columns that it reads; "" where it reads none."""
        return str((read_identity(self.path) or {}).get("cells", ""))

    def _check_size(self, config: Config, encoders: Mapping[Modality, Encoder], columns: Columns | None) -> None:
        """Refuse settings whose model is larger than its file, before memory is taken for it."""
        shapes = {
            modality: replace(encoder, model=copy.deepcopy(encoder.model).to("meta"))
            for modality, encoder in encoders.items()
        }
        stored = (self.path / "model" / _MODEL).stat().st_size
        try:
            with torch.device("meta"):
                model = build_system(config, shapes, self.task, columns=columns)
        except Mi2pError:
            raise
        except (RuntimeError, ValueError, TypeError, OverflowError) as error:
            raise _damaged(self.path, f"no model can be built from {IDENTITY}: {error}") from error
        size = sum(parameter.nbytes for parameter in model.parameters())
        if size > 2 * stored + _SLACK:  # tied weights are stored once
            raise _damaged(self.path, f"{IDENTITY} describes a model of {size:,} bytes, {_MODEL} holds {stored:,}")

    def history(self) -> list[dict[str, float]]:
        """The learning curve: what was logged at each step.

        Raises:
            RecipeError: the file is damaged.
        """
        check_files(self.path, _HISTORY)
        found = read_json(self.path / _HISTORY)
        if broken := history_fault(found):
            raise _damaged(self.path, f"{_HISTORY}: {broken.place or 'all of it'}", broken)
        return list(found)

    @property
    def has_predictions(self) -> bool:
        """Whether it has those of its splits: a run from the Hub has none."""
        return (self.path / PREDICTIONS).exists()

    def predictions(self) -> dict[str, NDArray[Any]]:
        """What the model gave for the validation and test splits, as `load_predictions` has it.

        Raises:
            RecipeError: the file is damaged, or was left out.
        """
        check_files(self.path, PREDICTIONS)
        try:
            return load_predictions(self.path, self.task, self.decide)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise _damaged(self.path, f"{PREDICTIONS}: {type(error).__name__}: {error}") from error


def load_run(path: str | Path, *, revision: str | None = None, token: str | bool | None = None) -> SavedRun:
    """A finished run of `mi2p train`.

    Args:
        path: its folder, or the id of a Hugging Face Hub repository that it was pushed to.
        revision: of a repository: a branch, a tag or a commit.
        token: of a user who may read it; None: the one that ``hf auth login`` stored.

    Raises:
        RecipeError: no run, an unfinished one, one of another command, of another version of its format, or one whose
            files are not what the run wrote.
        HubError: no such repository or revision, or it cannot be read.
    """
    path = local_run(path, revision=revision, token=token)
    identity = read_identity(path)
    if identity is None:
        raise RecipeError(
            f"{path} is no run folder",
            expected="a folder that `mi2p train --out` wrote",
            fix=which_run(path),
        )
    if identity["recipe"] != "train":
        raise RecipeError(
            f"{path} is a run of {identity['recipe']!r}",
            expected="one of `mi2p train`",
            fix="name one of the runs in it: experiments/*/seed-*",
        )
    if identity.get("format") != FORMAT:
        raise RecipeError(
            f"{path} was written by another version of mi2p-inject",
            expected=f"format {FORMAT}",
            given=f"format {identity.get('format')}, by mi2p-inject {identity.get('mi2p-inject', 'unknown')}",
            fix="install that version, or train again",
        )
    if not (path / FINISHED).is_file():
        raise RecipeError(f"the run in {path} is not finished", fix="give its `mi2p train` again: it goes on")
    check_files(path, IDENTITY, FINISHED)
    numbers = read_json(path / FINISHED)
    if broken := numbers_fault(numbers):
        raise _damaged(path, f"{FINISHED}: {broken.place or 'all of it'}", broken)
    try:
        config = make_config(identity["config"])
        task = TASKS[numbers["problem_type"]](tuple(numbers["classes"]))
        task.answers(np.zeros((1, task.outputs), dtype=np.float32), numbers["decision"])
        return SavedRun(path, config, task, numbers["decision"], numbers)
    except Mi2pError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error


def save_trained(
    model: SystemModel, encoders: Mapping[Modality, Encoder], folder: Path, columns: Columns | None = None
) -> None:
    """Write the files that `SavedRun.model` reads."""
    if columns is not None:
        columns.save(folder / COLUMNS_FILE)
    save_model(model, str(folder / _MODEL))
    if model.sources():
        save_model(_sources(model), str(folder / _SOURCES))
    expanded = {id(one.backbone): expansion_of(one) for one in model.modules() if isinstance(one, ExpandedModel)}
    for modality, encoder in encoders.items():
        save_encoder(encoder, folder / "encoders" / modality, expanded.get(id(encoder.model)))


def collator_of(
    system: System,
    encoders: Mapping[Modality, Encoder],
    task: Task,
    cached: Mapping[str, SourceCache] | None = None,
    columns: Columns | None = None,
) -> Collator:
    """The collator that makes what a system reads; a modality that only a cached source needs is not read again."""
    cached = cached or {}
    read = [one for one in system.modalities if one in system.reads or one not in cached]
    specs = [encoders[modality].spec for modality in read]
    image = next((spec for spec in specs if isinstance(spec, ImageSpec)), None)
    text = next((spec for spec in specs if isinstance(spec, TextSpec)), None)
    return Collator(image, text, task, cached, columns)


def _damaged(path: Path, why: str, broken: Fault | None = None) -> RecipeError:
    return RecipeError(
        f"{path} is damaged: {why}",
        expected="the files that `mi2p train` wrote" if broken is None else broken.expected,
        given=path.name if broken is None else broken.given,
        fix="copy it again",
    )


def _sources(model: SystemModel) -> nn.Module:
    """The frozen encoders as one module, for reading and writing their weights."""
    return nn.ModuleDict({str(modality): frozen.encoder.model for modality, frozen in model.sources().items()})
