"""Out-of-fold features of a tuned source: a training sample is encoded by a source that was trained without it.

A source that was trained on a sample has seen its label: what it says of the training split is better than what it will
say of anything else, and units learn to trust it too much (stacking: Wolpert, Neural Networks 5, 1992). With folds, the
features of a training sample come from a source that was trained on the other folds; those of validation, of the test
split and of everything later come from the one that was trained on all. All start from the same pre-trained weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from sklearn.model_selection import GroupKFold

from mi2p_inject.adapters.adapter import Modality
from mi2p_inject.recipes.config import Config
from mi2p_inject.recipes.data import Samples
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.saving.saved import SavedRun
from mi2p_inject.recipes.systems import SystemModel
from mi2p_inject.recipes.training.caching import cache_sources
from mi2p_inject.recipes.training.sources.tuned import use_tuned
from mi2p_inject.sources.cache import SourceCache

__all__ = ["check_folds", "fold_folder", "folds_of", "out_of_fold"]


def check_folds(config: Config, samples: Samples) -> None:
    """That the training split can be folded as the configuration says.

    Raises:
        RecipeError: the source is not tuned, its features are not cached, or there are fewer groups than folds.
    """
    folds = config.model.source_folds
    if not folds:
        return
    if not config.model.tuned:
        raise RecipeError(f"source_folds={folds} needs a tuned source", fix="give --source tuned too")
    if config.run.source_cache is None:
        raise RecipeError(f"source_folds={folds} needs a source cache", fix="give --source-cache FOLDER too")
    if (groups := len(set(samples.splits["train"]["group"][:]))) < folds:
        raise RecipeError(
            f"source_folds={folds} does not fit the data",
            expected=f"at least {folds} independent groups of training samples",
            given=str(groups),
            fix="take fewer folds",
        )


def folds_of(samples: Samples, folds: int, seed: int) -> list[tuple[Samples, frozenset[str]]]:
    """For each fold: the data without it, and the ids of the training samples in it; duplicates stay together.

    Args:
        samples: with a training split.
        folds: how many, at least 2.
        seed: of the division.

    Returns:
        `folds` pairs. The data have no test split: nothing of it is needed.
    """
    train = samples.splits["train"]
    ids, groups = np.asarray(train["id"][:]), train["group"][:]
    others = {name: rows for name, rows in samples.splits.items() if name not in ("train", "test")}
    found = []
    for number, (kept, left_out) in enumerate(
        GroupKFold(folds, shuffle=True, random_state=seed).split(ids, groups=groups), start=1
    ):
        without = replace(
            samples,
            splits={"train": train.select(kept), **others},
            notes=(),
            fingerprint=f"{samples.fingerprint} without fold {number} of {folds}, seed {seed}",
        )
        found.append((without, frozenset(ids[left_out].tolist())))
    return found


def fold_folder(sources: Path, modality: Modality, number: int) -> Path:
    """Where the run without a fold lies, among a run's sources."""
    return sources / f"{modality}-without-fold-{number}"


def out_of_fold(
    model: SystemModel,
    config: Config,
    cached: Mapping[str, SourceCache],
    folds: list[tuple[Samples, frozenset[str]]],
    runs: list[Mapping[Modality, SavedRun]],
    whole: Mapping[Modality, SavedRun],
    samples: Samples,
    console: Console,
) -> dict[str, SourceCache]:
    """The cached features, those of training samples by sources that were trained without them.

    Args:
        model: with its sources; they end with the weights of ``whole``.
        config: of the run.
        cached: modality -> features by the source that was trained on all.
        folds: see `folds_of`.
        runs: of each fold, modality -> the source that was trained without it.
        whole: modality -> the source that was trained on all.
        samples: all of them.
        console: for progress.

    Returns:
        Modality -> features of all samples.
    """
    joined = dict(cached)
    for (_, ids), tuned in zip(folds, runs, strict=True):
        use_tuned(model, tuned)
        for modality, cache in cache_sources(model, config.run, samples, console, only=ids).items():
            joined[modality] = joined[modality].overlaid(cache, ids)
    use_tuned(model, whole)
    return joined
