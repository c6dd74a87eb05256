"""What an experiment is, and a set of them: declarations that `run_experiments` trains and `report` shows.

An experiment is a line of a table. Nothing here is heavy: a command reads the declarations before it imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mi2p_inject.recipes.config import Config, make_config, with_options
from mi2p_inject.recipes.config.names import closest
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["Experiment", "ExperimentSet", "PaperFigures"]

#: modality of an encoder -> how a title names its place
_PLACES = {"image": "vision", "text": "text"}


@dataclass(frozen=True)
class Experiment:
    """One line of a table: a model that is trained, or the average of such models.

    Attributes:
        name: of its folder, and of its line.
        title: what it is; ``{vision}`` and ``{text}`` become the names of the encoders that ran.
        settings: of the configuration, besides data and schedule: model, fusion, layers. {} for an average.
        roles: setting -> role of an encoder, such as ``{"vision": "resnet"}``; a set says which encoder plays it.
        compared_with: names of the experiments that it is measured against, each an earlier one of the set.
        averages: names of earlier experiments whose class probabilities are averaged; nothing is trained.
        sources: names of earlier unimodal experiments whose trained encoders are its frozen sources, seed by seed.
        paper_title: how the paper calls this line; "" if it has none.
    """

    name: str
    title: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    roles: Mapping[str, str] = field(default_factory=dict)
    compared_with: tuple[str, ...] = ()
    averages: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    paper_title: str = ""

    def titled(self, encoders: Mapping[str, str]) -> str:
        """The title with the encoders' names.

        Args:
            encoders: modality ("image", "text") -> name of the encoder that ran.

        Examples:
            >>> Experiment("me-vision", "ME {vision}").titled({"image": "resnet50", "text": "bert"})
            'ME resnet50'
        """
        return self.title.format(**{_PLACES.get(modality, modality): name for modality, name in encoders.items()})


@dataclass(frozen=True)
class PaperFigures:
    """What the paper reports for one data set.

    Attributes:
        metrics: names of the metrics, in the order of the figures.
        figures: experiment -> its figures, in percent.
    """

    metrics: tuple[str, ...]
    figures: Mapping[str, tuple[float, ...]]

    def of(self, experiment: str) -> dict[str, float]:
        """Metric -> figure of an experiment; {} if the paper has none."""
        return dict(zip(self.metrics, self.figures.get(experiment, ()), strict=False))


@dataclass(frozen=True)
class ExperimentSet:
    """Experiments that share data, split and schedule, so that they can be compared.

    Attributes:
        name: how files and errors call it.
        title: heading of its report.
        experiments: in the order of the lines.
        encoders: set of encoders -> role -> name of an encoder; the first is the default.
        preset: of the configuration, where the user names none.
        settings: where the data come from and how is trained; a user's settings come on top, an experiment's on these.
        seeds: by default.
        paper: (data set, task or "") -> the paper's figures for these experiments.
        notes: for below the table, such as the pictures' licence.
        examples: an experiment whose corrected errors the figure shows as pictures; "" for none.
        packages: distributions whose versions decide the numbers, besides those that every training notes.
        held_to_rivals: compare the expanded experiment that is best on the validation split with every one that reads
            both modalities and is not expanded.
        cache_sources: keep the frozen encoders' features while the set runs: each sample is encoded once.

    Raises:
        RecipeError: two experiments of one name, one that needs a later one, or a role without an encoder.
    """

    name: str
    title: str
    experiments: tuple[Experiment, ...]
    encoders: Mapping[str, Mapping[str, str]]
    preset: str = "practical"
    settings: Mapping[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0, 1, 2)
    paper: Mapping[tuple[str, str], PaperFigures] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    examples: str = ""
    packages: tuple[str, ...] = ()
    cache_sources: bool = False
    held_to_rivals: bool = False

    def __post_init__(self) -> None:
        known: set[str] = set()
        for one in self.experiments:
            if one.name in known or not {*one.compared_with, *one.averages, *one.sources} <= known:
                raise RecipeError(
                    f"{self.name}: experiment {one.name!r} is out of place",
                    expected="names of its own, and compared_with, averages and sources that name earlier experiments",
                    given=f"{one.compared_with}, {one.averages} and {one.sources}, after {sorted(known)}",
                    fix="name it otherwise, or move it behind what it names",
                )
            if bool(one.settings) == bool(one.averages):
                raise RecipeError(
                    f"{self.name}: experiment {one.name!r} needs either settings or averages", fix="give one of the two"
                )
            for name, roles in self.encoders.items():
                if lacking := set(one.roles.values()) - set(roles):
                    raise RecipeError(
                        f"{self.name}: encoders {name!r} have no {', '.join(sorted(lacking))}",
                        fix="add them to this set of encoders",
                    )
            known.add(one.name)

    def select(self, names: Sequence[str] = ()) -> tuple[Experiment, ...]:
        """The experiments of these names with those that they average or have as sources, in order; all for ().

        Raises:
            RecipeError: an unknown name.
        """
        known = {one.name: one for one in self.experiments}
        if unknown := [name for name in names if name not in known]:
            raise RecipeError(
                f"{self.name} has no experiment {', '.join(unknown)}",
                expected=", ".join(known),
                fix=f"--experiment: {closest(unknown[0], known)}",
            )
        wanted = set(names or known)
        for one in reversed(self.experiments):
            if one.name in wanted:
                wanted |= {*one.averages, *one.sources}
        return tuple(one for one in self.experiments if one.name in wanted)

    def config(self, *layers: Mapping[str, Any], preset: str | None = None) -> Config:
        """The configuration of the set: its preset and settings, then what a user says.

        Args:
            layers: a user's settings, as `make_config` takes them.
            preset: instead of the set's own.
        """
        return make_config(self.settings, *layers, preset=preset or self.preset)

    def config_of(self, experiment: Experiment, config: Config, *, encoders: str, seed: int) -> Config:
        """The configuration that one experiment is trained with.

        Args:
            experiment: one of the set that is trained.
            config: of the set.
            encoders: a set of encoders.
            seed: of everything but the split.

        Raises:
            RecipeError: no such set of encoders, or settings that do not fit.
        """
        if encoders not in self.encoders:
            fix = f"--encoders: {closest(encoders, self.encoders)}"
            raise RecipeError(f"no set of encoders {encoders!r}", expected=", ".join(self.encoders), fix=fix)
        named = {setting: self.encoders[encoders][role] for setting, role in experiment.roles.items()}
        kept = {"keep_weights": True} if any(experiment.name in one.sources for one in self.experiments) else {}
        tuned = {"source": "tuned"} if experiment.sources else {}
        return with_options(config, {**experiment.settings, **named, **kept, **tuned, "seed": seed})

    def paper_figures(self, data: str, task: str | None) -> PaperFigures | None:
        """What the paper reports on these data; None where they are not the paper's.

        Args:
            data: the specification, such as ``crisismmd:/path``.
            task: of the data set; None: none was named.
        """
        return self.paper.get((data.partition(":")[0], task or ""))

    def shortened(self) -> ExperimentSet:
        """The same experiments, each for one epoch, whatever its own schedule: for a smoke run."""
        short = [
            one if one.averages else replace(one, settings={**one.settings, "epochs": 1}) for one in self.experiments
        ]
        return replace(self, experiments=tuple(short))
