"""Sources that were trained on the task: the other modality's model alone, then frozen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from mi2p_inject.adapters.adapter import Modality
from mi2p_inject.recipes.config import Config, with_options
from mi2p_inject.recipes.encoders.encoder import Encoder
from mi2p_inject.recipes.encoders.preprocess import ImageSpec
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.paths import home_path
from mi2p_inject.recipes.saving.checksums import CHECKSUMS
from mi2p_inject.recipes.saving.saved import SavedRun, load_run
from mi2p_inject.recipes.systems import SystemModel
from mi2p_inject.recipes.tasks import Task

__all__ = ["SOURCES", "alone", "check_source_runs", "digests", "use_tuned"]

SOURCES = "sources"
"""Folder in a run folder: the run of each source that was trained for it."""

_ALONE: dict[Modality, str] = {"image": "vision", "text": "text"}
_BOTH: tuple[Modality, ...] = ("image", "text")


def alone(config: Config, modality: Modality) -> Config:
    """The configuration of the model that reads this modality alone, all of it trained; its schedule is the same."""
    whole = {"model": _ALONE[modality], "source": "pretrained", "source_run": None, "source_folds": 0}
    whole |= {"numeric_cols": None, "categorical_cols": None}
    return with_options(config, {**whole, "trainable": "all", "keep_weights": True})


def check_source_runs(
    config: Config, task: Task, encoders: Mapping[Modality, Encoder], samples_fingerprint: str
) -> dict[Modality, SavedRun]:
    """The runs that ``source_run`` names, by the modality they read; {} where it names none.

    Args:
        config: of the run that attends to them.
        task: what it learns.
        encoders: modality -> encoder, as it loads them.
        samples_fingerprint: of its data.

    Raises:
        RecipeError: no finished run, one of another kind of model, task, classes, data split or encoder, or one that
            kept no weights.
    """
    found: dict[Modality, SavedRun] = {}
    for path in config.model.source_run or ():
        run = load_run(home_path(str(path)))
        modality = _modality(run)
        if modality is None:
            raise _unfit(run, "reads one modality alone", f"a run of --model {run.config.model.model}")
        if modality in found:
            raise _unfit(run, f"one run for each modality; {found[modality].path} reads {modality} too", str(run.path))
        found[modality] = run
    if not found:
        return {}
    needed = config.model.system.source_modalities
    if set(found) != set(needed):
        raise RecipeError(
            f"source_run does not fit model {config.model.model!r}",
            expected="one run for each source: " + " and ".join(f"--model {_ALONE[one]}" for one in needed),
            given=" and ".join(f"{run.path} (--model {run.config.model.model})" for run in found.values()),
            fix="name the run of the other modality" if needed else "this model has no source",
        )
    for modality, run in found.items():
        _check(run, modality, task, encoders[modality], config, samples_fingerprint)
    return found


def digests(runs: Mapping[Modality, SavedRun]) -> dict[str, str]:
    """Modality -> what tells a source run from any other: a hash of all its checksums."""
    return {modality: hashlib.sha256((run.path / CHECKSUMS).read_bytes()).hexdigest() for modality, run in runs.items()}


def use_tuned(model: SystemModel, runs: Mapping[Modality, SavedRun]) -> None:
    """Give the model's frozen sources the weights that these runs ended with.

    Args:
        model: with sources of the same architectures; they stay frozen.
        runs: modality -> run of that modality alone.

    Raises:
        RecipeError: the weights cannot be read.
    """
    for modality, frozen in model.sources().items():
        _, encoders = runs[modality].model()
        frozen.encoder.model.load_state_dict(encoders[modality].model.state_dict())


def _modality(run: SavedRun) -> Modality | None:
    return next((one for one in _BOTH if run.config.model.model == _ALONE[one]), None)


def _check(
    run: SavedRun, modality: Modality, task: Task, encoder: Encoder, config: Config, samples_fingerprint: str
) -> None:
    if (run.task.name, run.task.classes) != (task.name, task.classes):
        wanted = f"{task.name}, {len(task.classes)} classes: {_few(task.classes)}"
        raise _unfit(run, wanted, f"{run.task.name}, {len(run.task.classes)} classes: {_few(run.task.classes)}")
    if run.fingerprint != samples_fingerprint:
        wanted = f"trained on the same samples in the same splits as here: {_split_of(config, samples_fingerprint)}"
        raise _unfit(run, wanted, _split_of(run.config, run.fingerprint))
    here, there = (_encoder_id(one) for one in (encoder, run.encoders()[modality]))
    if here != there:
        different = ", ".join(f"{name}={there.get(name)!r}" for name in here if here[name] != there.get(name))
        raise _unfit(run, f"the {modality} encoder of this run, {encoder.name}", different)


def _split_of(config: Config, fingerprint: str) -> str:
    """What samples and splits depend on, and a hash of the outcome."""
    data = config.data
    return (
        f"{data.data}, split_seed {data.split_seed}, missing={data.missing}, dedupe={data.dedupe} ({fingerprint[:8]})"
    )


def _encoder_id(encoder: Encoder) -> dict[str, Any]:
    """What two encoders must have in common so that one can have the other's weights and inputs."""
    spec = encoder.spec
    preprocessing = spec.to_json() if isinstance(spec, ImageSpec) else {"max_length": spec.max_length}
    value: dict[str, Any] = json.loads(json.dumps({**encoder.origin, **preprocessing}))
    return value


def _unfit(run: SavedRun, expected: str, given: str) -> RecipeError:
    return RecipeError(
        f"{run.path} cannot be the source",
        expected=expected,
        given=given,
        fix="name another source_run, or --source tuned to train one here",
    )


def _few(names: tuple[str, ...]) -> str:
    return ", ".join(names[:4]) + (" …" if len(names) > 4 else "")
