"""What the run folders of a set say together: the numbers of its metrics.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mi2p_inject.recipes.config import AnswersConfig, Config
from mi2p_inject.recipes.data import Samples
from mi2p_inject.recipes.evaluation.mean import mean_logits
from mi2p_inject.recipes.experiments.experiment import Experiment, ExperimentSet
from mi2p_inject.recipes.experiments.picked import best_expanded, picking_metrics, rivals
from mi2p_inject.recipes.metrics.decisions import choose_decision
from mi2p_inject.recipes.metrics.metric_info import describe_metrics
from mi2p_inject.recipes.metrics.metrics import resampled_answers
from mi2p_inject.recipes.metrics.probability_metrics import log_loss
from mi2p_inject.recipes.metrics.resampling import Resampled, few_groups
from mi2p_inject.recipes.saving.card import without_paths
from mi2p_inject.recipes.saving.saved import SavedRun
from mi2p_inject.recipes.tasks import Decision, Floats, Labels, Logits, Task, scaled_logits
from mi2p_inject.recipes.training.numbers import targets_of
from mi2p_inject.recipes.training.reading import mean_reading

__all__ = ["Outcome", "Results", "collect", "public_data"]


@dataclass(frozen=True)
class Outcome:
    """What one experiment answered with one seed.

    Attributes:
        logits: split -> (N, K), of the validation and test split.
        present: split -> (N,) whether the model had anything to read.
        task: what was learned.
        decision: what the task decides by.
        encoders: modality -> name of the encoder that ran.
        run: what its training noted; {} for an average.
    """

    logits: Mapping[str, Logits]
    present: Mapping[str, NDArray[np.bool_]]
    task: Task
    decision: Decision
    encoders: Mapping[str, str]
    run: Mapping[str, Any] = field(default_factory=dict)

    def decided(self, split: str) -> Labels:
        """The task's answers."""
        return self.answers(split)[0]

    def scaled(self, split: str) -> Logits:
        """The logits after the decision's temperature."""
        return scaled_logits(self.logits[split], self.decision.get("temperature", 1.0))

    def answers(self, split: str) -> tuple[Labels, Floats]:
        """The task's answers, and their probabilities."""
        return self.task.answers(self.logits[split], self.decision)


class Results:
    """Outcomes of a set by experiment and seed, and their metrics, each resampled once.

    Args:
        samples: the data that all runs share.
        task: what they learn.
        answers: how the averages of several models are decided.
        resampling_seed: of the bootstrap.

    Attributes:
        true: the targets of the test split.
        groups: (N,) of the test split, whole ones of which are drawn.
    """

    def __init__(
        self, samples: Samples, task: Task, answers: AnswersConfig | None = None, resampling_seed: int = 0
    ) -> None:
        self.samples, self.task, self._answers = samples, task, answers or AnswersConfig()
        self.outcomes: dict[str, dict[int, Outcome]] = {}
        self._seed = resampling_seed
        self.true = targets_of(task, samples, "test")
        self.groups = np.unique(np.asarray(samples.splits["test"]["group"][:], dtype=str), return_inverse=True)[1]
        self._resampled: dict[tuple[str, int], Resampled] = {}

    def add_run(self, name: str, seed: int, run: SavedRun) -> None:
        """The finished run of a trained experiment."""
        found = run.predictions()
        splits = [split for split in ("validation", "test") if f"{split}_logits" in found]
        self.outcomes.setdefault(name, {})[seed] = Outcome(
            logits={split: found[f"{split}_logits"] for split in splits},
            present={split: found[f"{split}_present"] for split in splits},
            task=run.task,
            decision=run.decision,
            encoders=run.numbers["encoders"],
            run=run.numbers,
        )

    def add_average(self, experiment: Experiment) -> None:
        """The mean probability of the experiments that it averages, for every seed that all of them have."""
        members = [self.outcomes.get(name, {}) for name in experiment.averages]
        for seed in sorted(set.intersection(*(set(member) for member in members))):
            self.outcomes.setdefault(experiment.name, {})[seed] = self._average([member[seed] for member in members])

    def resampled(self, name: str, seeds: Sequence[int]) -> Resampled:
        """The metrics of an experiment on the test split, averaged over the seeds."""
        return Resampled.mean([self._of(name, seed) for seed in seeds])

    def baseline(self) -> tuple[str, Resampled]:
        """The one answer of a model that reads nothing, in words, and what it scores on the test split."""
        targets = targets_of(self.task, self.samples, "train")
        answer, prior = self.task.baseline(targets), self.task.prior(targets)
        always = np.broadcast_to(answer, self.true.shape)
        return self.task.text(answer), self._measured(always, np.broadcast_to(prior, (len(always), len(prior))))

    def _measured(self, decided: Labels, probabilities: Floats) -> Resampled:
        return resampled_answers(self.task, self.true, decided, probabilities, self.groups, seed=self._seed)

    def _of(self, name: str, seed: int) -> Resampled:
        if (name, seed) not in self._resampled:
            outcome = self.outcomes[name][seed]
            self._resampled[name, seed] = self._measured(*outcome.answers("test"))
        return self._resampled[name, seed]

    def _average(self, members: Sequence[Outcome]) -> Outcome:
        logits, present = {}, {}
        for split in members[0].logits:
            there = [one.present[split] for one in members]
            logits[split] = mean_logits(self.task, [one.scaled(split) for one in members], there)
            present[split] = np.logical_or.reduce(there)
        decision = self.task.usual_decision()
        if "validation" in logits:
            true = targets_of(self.task, self.samples, "validation")
            decision = choose_decision(self.task, logits["validation"], true, self._answers)
        encoders = {modality: name for one in members for modality, name in one.encoders.items()}
        return Outcome(logits, present, self.task, decision, dict(sorted(encoders.items())))


def collect(
    experiments: ExperimentSet, results: Results, config: Config, *, encoders: str, smoke: bool = False
) -> dict[str, Any]:
    """The numbers of metrics.json: all that a report shows, free of folders of this machine.

    Args:
        experiments: the set.
        results: with at least one outcome.
        config: of the set.
        encoders: name of the set of encoders.
        smoke: whether it was a smoke run.
    """
    samples = results.samples
    paper = experiments.paper_figures(config.data.data, config.data.task)
    lines: dict[str, Any] = {}
    for one in experiments.experiments:
        if results.outcomes.get(one.name):
            lines[one.name] = _line(one, results) | {"paper": paper.of(one.name) if paper else {}}
    first = next(iter(lines.values()))
    metrics = describe_metrics(first["test"])
    picking = picking_metrics(metrics) if experiments.held_to_rivals else []
    for best in dict.fromkeys(name for metric in picking if (name := best_expanded(lines, metric))):
        gain = lines[best]["gain"]
        gain |= {name: found for name in rivals(lines) if name not in gain and (found := _gain(best, name, results))}
    answer, always = results.baseline()
    for name, line in lines.items():
        difference = results.resampled(name, line["seeds"]).only(always.names) - always
        line["over_baseline"] = _json(difference)
    return {
        "recipe": experiments.name,
        "title": experiments.title,
        "smoke": smoke,
        "encoders": encoders,
        "seeds": sorted({seed for line in lines.values() for seed in line["seeds"]}),
        "data": {
            "name": public_data(config),
            "splits": {name: len(rows) for name, rows in samples.splits.items()},
            "groups": len({group for rows in samples.splits.values() for group in rows["group"][:]}),
            "classes": list(samples.classes),
            "notes": without_paths(samples.notes),
        },
        "metrics": metrics,
        "experiments": lines,
        "baseline": {"answer": answer, "test": _json(always)},
        "notes": [*(f"{line}." for line in few_groups(results.groups, "test")), *experiments.notes],
        "settings": {**config.to_json(), "data": public_data(config), "image_root": None, "source_cache": None},
        "versions": _versions(experiments, results),
    }


def public_data(config: Config) -> str:
    """The data without their folder."""
    name, colon, _ = config.data.data.partition(":")
    shown = name if colon else Path(name).name
    return f"{shown} ({config.data.task})" if config.data.task else shown


def _line(one: Experiment, results: Results) -> dict[str, Any]:
    outcomes = results.outcomes[one.name]
    seeds = sorted(outcomes)
    mean = results.resampled(one.name, seeds)
    by_seed: dict[str, list[float]] = {name: [] for name in mean.names}
    for seed in seeds:
        for name, value in zip(mean.names, results.resampled(one.name, [seed]).values[0], strict=True):
            by_seed[name].append(float(value))
    runs = [outcomes[seed].run for seed in seeds]
    noted = {name: [run[name] for run in runs] for name in ("seconds", "best_step") if all(runs)}
    return {
        "title": one.titled(outcomes[seeds[0]].encoders),
        "paper_title": one.paper_title,
        "encoders": dict(outcomes[seeds[0]].encoders),
        "settings": dict(one.settings),
        "averages": list(one.averages),
        "seeds": seeds,
        "test": _json(mean),
        "sd": {name: float(np.std(values, ddof=1)) for name, values in by_seed.items() if len(seeds) > 1},
        "by_seed": by_seed,
        "validation": _validation(outcomes, results),
        "unanswered": [name for name in results.task.classes if name in _unanswered(outcomes, results)],
        "reading": mean_reading([run["reading"] for run in runs if run.get("reading")]),
        "gain": {base: gain for base in one.compared_with if (gain := _gain(one.name, base, results))},
        **noted,
        **({"parameters": runs[0]["parameters"]} if all(runs) else {}),
    }


def _json(resampled: Resampled) -> dict[str, dict[str, float]]:
    return {name: asdict(interval) for name, interval in resampled.intervals().items()}


def _gain(name: str, base: str, results: Results) -> dict[str, Any]:
    """The paired difference over the seeds that both have; {} if there are none."""
    seeds = sorted(set(results.outcomes[name]) & set(results.outcomes.get(base, {})))
    if not seeds:
        return {}
    difference = results.resampled(name, seeds) - results.resampled(base, seeds)
    single = [(results.resampled(name, [seed]) - results.resampled(base, [seed])).values[0] for seed in seeds]
    return {
        "seeds": seeds,
        "test": _json(difference),
        "by_seed": {metric: [float(one[i]) for one in single] for i, metric in enumerate(difference.names)},
    }


def _validation(outcomes: Mapping[int, Outcome], results: Results) -> dict[str, float]:
    """The mean metrics on the validation split, which experiments may be chosen by."""
    if "validation" not in results.samples.splits:
        return {}
    true = targets_of(results.task, results.samples, "validation")
    found = []
    for one in outcomes.values():
        decided, likely = one.answers("validation")
        ranked = results.task.measure_ranking(true, likely)
        found.append({**results.task.measure(true, decided), **ranked, "log_loss": log_loss(true, likely)})
    return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


def _unanswered(outcomes: Mapping[int, Outcome], results: Results) -> set[str]:
    """Classes of the test split that at least one seed never answers."""
    return {name for one in outcomes.values() for name in results.task.unanswered(results.true, one.decided("test"))}


def _versions(experiments: ExperimentSet, results: Results) -> dict[str, str]:
    runs = [one.run for by_seed in results.outcomes.values() for one in by_seed.values() if one.run]
    found: dict[str, str] = dict(runs[0]["versions"])
    for name in experiments.packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
