"""What every task has in common: labels to targets, loss, decision, metrics, trivial baseline, answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import nn

if TYPE_CHECKING:
    from mi2p_inject.recipes.config import OptimisationConfig

__all__ = ["Decision", "Floats", "Labels", "Logits", "Scorer", "Task", "scaled_logits"]

Labels = NDArray[np.int64]
Floats = NDArray[np.float64]
Logits = NDArray[np.float32] | NDArray[np.float64]

Decision = Mapping[str, Any]
"""What `Task.decide` needs besides the logits, as JSON values; chosen on the validation split, kept in the run."""

Scorer = Callable[[Floats], Floats]
"""How often each sample counts, (R, N) -> the metrics, (R, M)."""


def scaled_logits(logits: Logits, temperature: float) -> Logits:
    """The logits divided by a temperature: in double precision, in which no two float32 become equal.

    Args:
        logits: of any shape.
        temperature: 1 leaves them as they are; above 1 probabilities are less extreme.
    """
    return logits if temperature == 1 else logits.astype(np.float64) / temperature


@dataclass(frozen=True)
class Task(ABC):
    """A kind of question about a sample; trainer, metrics, prediction and reports ask it and know no other.

    A new kind is a subclass with its abstract methods, and a line in `TASKS`.

    Attributes:
        classes: name of each class.
        name: of the table.
        multi_label: a sample has any number of labels: its label is a list of class numbers, not one number.
        independent: each output is a yes-or-no question of its own, its probability a sigmoid; else the outputs
            compete, and their probabilities are a softmax.
        metrics: of answers: names, in the order in which they are shown; of each, higher is better.
        ranking_metrics: of probabilities, whatever is decided by; shown after `metrics`, and higher is better too.
        selection_metric: chooses the best checkpoint where none is named.
    """

    classes: tuple[str, ...]
    name: ClassVar[str]
    multi_label: ClassVar[bool] = False
    independent: ClassVar[bool] = False
    metrics: ClassVar[tuple[str, ...]]
    ranking_metrics: ClassVar[tuple[str, ...]] = ()
    selection_metric: ClassVar[str]

    @property
    def outputs(self) -> int:
        """How many logits the model gives."""
        return len(self.classes)

    @abstractmethod
    def encode(self, labels: Sequence[Any]) -> Labels:
        """Labels as the data have them -> targets, (N,) or (N, K).

        Args:
            labels: class numbers; lists of them where `multi_label`.
        """

    @abstractmethod
    def loss(self, config: OptimisationConfig, targets: Labels | None = None) -> nn.Module:
        """(logits (B, outputs), targets) -> the loss, a mean over samples.

        Args:
            config: says which loss.
            targets: of the training split, for class weights; None: where nothing is trained.
        """

    @abstractmethod
    def decide(self, logits: Logits, decision: Decision) -> Labels:
        """(N, outputs) logits, after the decision's temperature -> answers, of the shape of targets; see `answers`."""

    @abstractmethod
    def scorer(self, true: Labels, predicted: Labels) -> Scorer:
        """The `metrics` as a function of how often each sample counts, for the bootstrap.

        Args:
            true: N targets.
            predicted: N answers.
        """

    @abstractmethod
    def baseline(self, targets: Labels) -> Labels:
        """The one answer that a model which reads nothing gives: of the shape of a single target.

        Args:
            targets: of the training split.
        """

    @abstractmethod
    def answer(self, decided: Labels, probabilities: Floats) -> dict[str, Any]:
        """What `mi2p predict` says about one sample, as JSON values.

        Args:
            decided: its answer.
            probabilities: (outputs,).
        """

    def shown_decision(self, decision: Decision) -> dict[str, Any]:
        """What `mi2p predict` says about how it decides, as JSON values; {} where there is nothing to say.

        Args:
            decision: what the answers are decided by.
        """
        return {}

    @abstractmethod
    def text(self, decided: Labels) -> str:
        """An answer in words, such as a class's name."""

    def tune(self, logits: Logits, true: Labels) -> Decision:
        """What to decide by, from the validation split; {} where there is nothing to choose.

        Args:
            logits: (N, outputs).
            true: N targets.
        """
        return {}

    def usual_decision(self) -> Decision:
        """What to decide by while training, and where there is no validation split."""
        return {}

    def ranking_scorer(self, true: Labels, probabilities: Floats) -> Scorer:
        """The `ranking_metrics` as a function of how often each sample counts, for the bootstrap.

        Args:
            true: N targets.
            probabilities: (N, classes).
        """
        return lambda weights: np.zeros((len(weights), 0))

    def prior(self, targets: Labels) -> Floats:
        """(classes,) the probabilities that a model which reads nothing gives: how common each class is.

        Args:
            targets: of the training split.
        """
        if targets.ndim == 2:
            return np.asarray(targets.mean(axis=0), dtype=np.float64)
        return np.bincount(targets, minlength=len(self.classes)) / len(targets)

    def unanswered(self, true: Labels, predicted: Labels) -> tuple[str, ...]:
        """The classes that some sample has and no answer names.

        Args:
            true: N targets.
            predicted: N answers.

        Examples:
            >>> from mi2p_inject.recipes.tasks import SingleLabel
            >>> SingleLabel(("a", "b", "c")).unanswered(np.array([0, 1, 1]), np.array([0, 0, 0]))
            ('b',)
        """
        there, named = (
            {*np.unique(one)} if one.ndim == 1 else {*np.flatnonzero(one.any(0))} for one in (true, predicted)
        )
        return tuple(name for number, name in enumerate(self.classes) if number in there - named)

    def answers(self, logits: Logits, decision: Decision) -> tuple[Labels, Floats]:
        """A model's logits -> answers, and the probabilities that are shown with them.

        The logits are divided by the decision's ``temperature``, where it has one, before anything is made of them
        (Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2).

        Args:
            logits: (N, outputs).
            decision: what `decide` needs.

        Raises:
            ValueError: the temperature is not a number above 0.
        """
        temperature = decision.get("temperature", 1.0)
        if not isinstance(temperature, (int, float)) or not 0 < temperature < float("inf"):
            raise ValueError(f"temperature {temperature!r}")
        scaled = scaled_logits(logits, temperature)
        return self.decide(scaled, decision), self.probabilities(scaled)

    def f1_of_classes(self, true: Labels, predicted: Labels) -> dict[str, float]:
        """The F1 of each class that a sample has or is said to have; {} where classes have none."""
        return {}

    def probabilities(self, logits: Logits) -> Floats:
        """(N, outputs) in double precision: a softmax over the outputs, or a sigmoid of each if `independent`."""
        from scipy.special import expit, softmax

        wide = logits.astype(np.float64)
        found: Floats = expit(wide) if self.independent else softmax(wide, axis=1)
        return found

    def measure(self, true: Labels, predicted: Labels) -> dict[str, float]:
        """Each metric of N answers."""
        values = self.scorer(true, predicted)(np.ones((1, len(true))))[0]
        return {name: float(value) for name, value in zip(self.metrics, values, strict=True)}

    def measure_ranking(self, true: Labels, probabilities: Floats) -> dict[str, float]:
        """Each ranking metric of N samples' probabilities."""
        values = self.ranking_scorer(true, probabilities)(np.ones((1, len(true))))[0]
        return {name: float(value) for name, value in zip(self.ranking_metrics, values, strict=True)}

    def named(self, probabilities: Floats) -> dict[str, float]:
        """The probabilities by class, rounded for people."""
        return {name: round(float(one), 6) for name, one in zip(self.classes, probabilities, strict=True)}
