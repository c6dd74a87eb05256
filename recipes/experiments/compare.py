"""`mi2p compare`: finished runs of the same data side by side, their differences paired."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mi2p_inject.recipes.data.duplicates import merge_groups
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.experiments.experiment import Experiment, ExperimentSet
from mi2p_inject.recipes.experiments.results import Results, collect
from mi2p_inject.recipes.saving.identity import PLACES
from mi2p_inject.recipes.saving.saved import SavedRun
from mi2p_inject.recipes.training.train import load_samples, quiet

__all__ = ["compare_runs"]

#: options in which runs of one experiment differ: the seed, and folders of this machine
_OWN = ("seed", "keep_weights", *PLACES)


def compare_runs(runs: Sequence[SavedRun]) -> dict[str, Any]:
    """The numbers of a table of runs, in the form of a set's metrics.json; each is compared with the first.

    Runs that differ in nothing but the seed are one line: their mean, paired seed by seed.

    Args:
        runs: two or more, of the same data and split.

    Raises:
        RecipeError: fewer than two lines, runs of different data or tasks, data that have changed, or no test split.
    """
    quiet()
    first = runs[0]
    samples = load_samples(first.config)
    for run in runs:
        if run.fingerprint != samples.fingerprint or run.task != first.task:
            raise RecipeError(
                f"{run.path} cannot be compared with {first.path}",
                expected=f"a run on {first.config.data.data} as it is now, with the same split and classes",
                given=f"{run.config.data.data}, {len(run.task.classes)} classes",
                fix="name runs of one data set; its split is made by split_seed, not by the seed",
            )
    if "test" not in samples.splits:
        raise RecipeError(
            "there is no test split to compare on",
            given=", ".join(samples.splits),
            fix="compare runs whose data have a test split",
        )
    lines = _lines(runs)
    if len(lines) < 2:
        raise RecipeError(
            "there is nothing to compare",
            expected="runs that differ in more than the seed",
            given=f"{len(runs)} runs",
            fix="name two runs or more of different settings",
        )
    names = list(lines)
    results = Results(samples, first.task, first.config.answers)
    notes = _join_groups(results, runs)
    experiments = []
    for name, members in lines.items():
        title = members[0].config.model.system.describe(members[0].config.model)
        base = () if name == names[0] else (names[0],)
        experiments.append(Experiment(name, title, {"model": members[0].config.model.model}, {}, base))
        for run in members:
            results.add_run(name, run.config.run.seed, run)
    made = ExperimentSet("compare", "Runs side by side", tuple(experiments), {"given": {}})
    numbers = collect(made, results, first.config, encoders="given")
    numbers["notes"] = [*numbers["notes"], *notes, *_unpaired(numbers)]
    return numbers


def _join_groups(results: Results, runs: Sequence[SavedRun]) -> list[str]:
    """Draws samples together that are of one group in any of the runs; a note where their groups differ."""
    own = [run.predictions()["test_groups"].tolist() for run in runs]
    parts = [merge_groups(one) for one in own]  # numbered by first occurrence
    if all(one == parts[0] for one in parts):
        return []
    results.groups = np.asarray(merge_groups(*parts), dtype=np.int64)
    count = len(np.unique(results.groups))
    return [f"the runs' groups differ: samples of one group in any of them are drawn together, in {count} groups."]


def _unpaired(numbers: Mapping[str, Any]) -> list[str]:
    """A note for each line that has no difference to the first, for want of a seed that both have."""
    lines = numbers["experiments"]
    first, *others = lines
    listed = {name: ", ".join(map(str, line["seeds"])) for name, line in lines.items()}
    return [
        f"{name} (seed {listed[name]}) and {first} (seed {listed[first]}) have no seed in common: no difference"
        for name in others
        if not lines[name]["gain"]
    ]


def _lines(runs: Sequence[SavedRun]) -> dict[str, list[SavedRun]]:
    """Runs of one configuration together, by a name that tells them apart: the model's, or the folder's."""
    same: dict[str, list[SavedRun]] = {}
    for run in runs:
        options = {name: value for name, value in run.config.to_json().items() if name not in _OWN}
        key = json.dumps([options, run.config.model.tuned], sort_keys=True)
        members = same.setdefault(key, [])
        if run.config.run.seed in [one.config.run.seed for one in members]:
            raise RecipeError(
                f"{run.path} repeats another of these runs", given=f"seed {run.config.run.seed}", fix="leave one out"
            )
        members.append(run)
    models = [members[0].config.model.model for members in same.values()]
    found: dict[str, list[SavedRun]] = {}
    for members, model in zip(same.values(), models, strict=True):
        name = model if models.count(model) == 1 else f"{model}, {members[0].path.name}"
        found[name if name not in found else f"{model}, {members[0].path}"] = members
    return found
