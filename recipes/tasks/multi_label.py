"""Any number of labels a sample: a yes-or-no question for each class, thresholds, F1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from mi2p_inject.recipes.tasks.average_precision import macro_average_precision
from mi2p_inject.recipes.tasks.base import Decision, Floats, Labels, Logits, Scorer, Task
from mi2p_inject.recipes.tasks.counts import LabelCounts
from mi2p_inject.recipes.tasks.thresholds import tune_thresholds

if TYPE_CHECKING:
    from mi2p_inject.recipes.config import OptimisationConfig

__all__ = ["MultiLabel", "MultiLabelLoss"]


class MultiLabelLoss(nn.Module):
    """Binary cross-entropy or focal loss: the mean over samples and classes of each yes-or-no question.

    Focal: ``(1 - p)^gamma`` times the cross-entropy, p the probability of the right answer (Lin et al., Focal Loss for
    Dense Object Detection, ICCV 2017, equation 4).

    Args:
        gamma: 0: cross-entropy.
        weights: (K,) of each class's yes answers; None: all alike.

    Examples:
        >>> MultiLabelLoss()(torch.zeros(2, 4), torch.tensor([[0, 0, 0, 1], [1, 1, 0, 0]]))
        tensor(0.6931)
    """

    weights: Tensor | None

    def __init__(self, *, gamma: float = 0.0, weights: Tensor | None = None) -> None:
        super().__init__()
        self.gamma = gamma
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of (B, K) logits and (B, K) zeros and ones, a scalar; computed in float32."""
        logits, labels = logits.float(), labels.float()
        loss = binary_cross_entropy_with_logits(logits, labels, reduction="none")
        if self.gamma:
            loss = loss * (1 - (-loss).exp()) ** self.gamma
        if self.weights is not None:
            loss = loss * (1 + labels * (self.weights - 1))
        return loss.mean()


@final
@dataclass(frozen=True)
class MultiLabel(Task):
    """Any of K classes; a label holds from its threshold on.

    Examples:
        >>> task = MultiLabel(("cat", "dog"))
        >>> task.encode([[0, 1], []]).tolist()
        [[1, 1], [0, 0]]
        >>> task.decide(np.array([[0.1, -0.3]], dtype=np.float32), {"thresholds": [0.5, 0.4]}).tolist()
        [[1, 1]]
        >>> task.text(task.baseline(np.array([[1, 0], [1, 1], [1, 0]])))
        'cat'
    """

    name: ClassVar[str] = "multi-label"
    multi_label: ClassVar[bool] = True
    independent: ClassVar[bool] = True
    metrics: ClassVar[tuple[str, ...]] = ("micro_f1", "macro_f1", "samples_f1")
    ranking_metrics: ClassVar[tuple[str, ...]] = ("macro_average_precision",)
    selection_metric: ClassVar[str] = "macro_average_precision"

    def encode(self, labels: Sequence[Any]) -> Labels:
        targets = np.zeros((len(labels), len(self.classes)), dtype=np.int64)
        for target, numbers in zip(targets, labels, strict=True):
            target[list(numbers)] = 1
        return targets

    def loss(self, config: OptimisationConfig, targets: Labels | None = None) -> nn.Module:
        weights = None
        if config.class_weights and targets is not None:
            weights = torch.from_numpy(self.class_weights(targets)).float()
        return MultiLabelLoss(gamma=config.focal_gamma if config.loss == "focal" else 0.0, weights=weights)

    def class_weights(self, targets: Labels) -> Floats:
        """(K,) negatives / positives of each class, the ``pos_weight`` of torch's BCEWithLogitsLoss.

        Args:
            targets: (N, K) zeros and ones. A class without samples has weight 0; one that all samples have, 1, so that
                it is learned at all.

        Examples:
            >>> MultiLabel(("a", "b")).class_weights(np.array([[1, 0], [1, 1], [0, 0], [0, 0]])).tolist()
            [1.0, 3.0]
        """
        counts = targets.sum(axis=0)
        negatives = np.where(counts < len(targets), len(targets) - counts, counts)
        return np.where(counts > 0, negatives / np.maximum(counts, 1), 0.0)

    def decide(self, logits: Logits, decision: Decision) -> Labels:
        return (self.probabilities(logits) >= np.asarray(decision["thresholds"])).astype(np.int64)

    def tune(self, logits: Logits, true: Labels) -> Decision:
        """One threshold, and a class's own as far as its samples go: see `mi2p_inject.recipes.tasks.thresholds`."""
        found = tune_thresholds(self.probabilities(logits), true)
        return {"thresholds": found.of_classes.tolist(), "common_threshold": found.common}

    def usual_decision(self) -> Decision:
        return {"thresholds": [0.5] * len(self.classes), "common_threshold": 0.5}

    def ranking_scorer(self, true: Labels, probabilities: Floats) -> Scorer:
        measured = macro_average_precision(true, probabilities)
        return lambda weights: measured(weights)[:, None]

    def scorer(self, true: Labels, predicted: Labels) -> Scorer:
        counts = LabelCounts.of(true, predicted)
        of_samples = counts.sums(1).f1()

        def measured(weights: Floats) -> Floats:
            found = counts.weighted(weights)
            samples_f1 = weights @ of_samples / weights.sum(axis=1)
            return np.stack([found.sums(1).f1(), found.macro_f1(), samples_f1], axis=1)

        return measured

    def baseline(self, targets: Labels) -> Labels:
        """As many of the commonest labels as have, always answered, the highest micro-F1 in training."""
        counts = targets.sum(axis=0)
        order = np.argsort(-counts, kind="stable")
        answered = len(targets) * np.arange(1, len(counts) + 1)
        f1 = 2 * np.cumsum(counts[order]) / np.maximum(answered + counts.sum(), 1)
        found = np.zeros(len(counts), dtype=np.int64)
        found[order[: f1.argmax() + 1]] = 1
        return found

    def answer(self, decided: Labels, probabilities: Floats) -> dict[str, Any]:
        return {"labels": self._held(decided), "probabilities": self.named(probabilities)}

    def shown_decision(self, decision: Decision) -> dict[str, Any]:
        return {"thresholds": self.named(np.asarray(decision["thresholds"], dtype=np.float64))}

    def text(self, decided: Labels) -> str:
        return ", ".join(self._held(decided)) or "no label"

    def f1_of_classes(self, true: Labels, predicted: Labels) -> dict[str, float]:
        return LabelCounts.of(true, predicted).sums(0).f1_by_name(self.classes)

    def _held(self, decided: Labels) -> list[str]:
        return [name for name, yes in zip(self.classes, decided, strict=True) if yes]
