"""One label a sample: cross-entropy, the likeliest class, accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mi2p_inject.recipes.tasks.base import Decision, Floats, Labels, Logits, Scorer, Task
from mi2p_inject.recipes.tasks.counts import LabelCounts

if TYPE_CHECKING:
    from mi2p_inject.recipes.config import OptimisationConfig

__all__ = ["SingleLabel", "SingleLabelLoss"]


class SingleLabelLoss(nn.Module):
    """Cross-entropy or focal loss of one label a sample, a mean over samples.

    Focal: ``(1 - p)^gamma`` times the cross-entropy, p the probability of the right class (Lin et al., Focal Loss for
    Dense Object Detection, ICCV 2017, equation 4).

    Args:
        gamma: 0: cross-entropy.
        weights: (K,) of each class; None: all alike.

    Examples:
        >>> SingleLabelLoss()(torch.zeros(2, 4), torch.tensor([0, 3]))
        tensor(1.3863)
    """

    weights: Tensor | None

    def __init__(self, *, gamma: float = 0.0, weights: Tensor | None = None) -> None:
        super().__init__()
        self.gamma = gamma
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of (B, K) logits and (B,) class numbers, a scalar; computed in float32."""
        loss = cross_entropy(logits.float(), labels, reduction="none")
        if self.gamma:
            loss = loss * (1 - (-loss).exp()) ** self.gamma
        if self.weights is not None:
            loss = loss * self.weights[labels]
        return loss.mean()


@final
@dataclass(frozen=True)
class SingleLabel(Task):
    """One of K classes.

    Examples:
        >>> task = SingleLabel(("cat", "dog"))
        >>> task.decide(np.array([[0.1, 0.3], [2, -1]], dtype=np.float32), {}).tolist()
        [1, 0]
        >>> task.measure(np.array([0, 1, 1, 1]), np.array([0, 1, 1, 0]))["accuracy"]
        0.75
        >>> task.text(task.baseline(np.array([0, 1, 1])))
        'dog'
    """

    name: ClassVar[str] = "single-label"
    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "macro_f1", "weighted_f1")
    selection_metric: ClassVar[str] = "accuracy"

    def encode(self, labels: Sequence[Any]) -> Labels:
        return np.asarray(labels, dtype=np.int64)

    def loss(self, config: OptimisationConfig, targets: Labels | None = None) -> nn.Module:
        weights = None
        if config.class_weights and targets is not None:
            weights = torch.from_numpy(self.class_weights(targets)).float()
        return SingleLabelLoss(gamma=config.focal_gamma if config.loss == "focal" else 0.0, weights=weights)

    def class_weights(self, targets: Labels) -> Floats:
        """(K,) N / (classes that occur · count): every class counts the same, and the mean over samples is 1.

        Args:
            targets: (N,) class numbers. A class without samples has weight 0.

        Examples:
            >>> SingleLabel(("a", "b")).class_weights(np.array([0, 0, 0, 1])).round(2).tolist()
            [0.67, 2.0]
        """
        counts = np.bincount(targets, minlength=len(self.classes))
        return np.where(counts > 0, len(targets) / np.count_nonzero(counts) / np.maximum(counts, 1), 0.0)

    def decide(self, logits: Logits, decision: Decision) -> Labels:
        return np.asarray(logits.argmax(axis=1), dtype=np.int64)

    def scorer(self, true: Labels, predicted: Labels) -> Scorer:
        counts = self._counts(true, predicted)

        def measured(weights: Floats) -> Floats:
            found = counts.weighted(weights)
            f1, total = found.f1(), found.true.sum(axis=1)
            accuracy, weighted_f1 = found.right.sum(axis=1) / total, (f1 * found.true).sum(axis=1) / total
            return np.stack([accuracy, found.macro_f1(), weighted_f1], axis=1)

        return measured

    def baseline(self, targets: Labels) -> Labels:
        """The commonest class."""
        return np.asarray(np.bincount(targets, minlength=len(self.classes)).argmax(), dtype=np.int64)

    def answer(self, decided: Labels, probabilities: Floats) -> dict[str, Any]:
        return {"label": self.text(decided), "probabilities": self.named(probabilities)}

    def text(self, decided: Labels) -> str:
        return self.classes[int(decided)]

    def f1_of_classes(self, true: Labels, predicted: Labels) -> dict[str, float]:
        return self._counts(true, predicted).sums(0).f1_by_name(self.classes)

    def _counts(self, true: Labels, predicted: Labels) -> LabelCounts:
        every = np.eye(len(self.classes), dtype=np.int64)
        return LabelCounts.of(every[true], every[predicted])
