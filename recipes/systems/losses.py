"""Losses. Each is a mean over samples, so that accumulated batches and several processes give what one batch gives."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

__all__ = ["ClassLoss"]


class ClassLoss(nn.Module):
    """Cross-entropy or focal loss, of one label a sample or of several.

    Focal: ``(1 - p)^gamma`` times the cross-entropy, p the probability of the right answer (Lin et al., Focal Loss for
    Dense Object Detection, ICCV 2017, equation 4). Several labels: the mean over the classes' yes-or-no questions.

    Args:
        multi_label: labels are (B, K) zeros and ones instead of (B,) class numbers.
        gamma: 0: cross-entropy.
        weights: (K,) of each class, with several labels of its yes answers; None: all alike.

    Example:
        >>> import torch
        >>> ClassLoss()(torch.zeros(2, 4), torch.tensor([0, 3]))
        tensor(1.3863)
    """

    weights: Tensor | None

    def __init__(self, *, multi_label: bool = False, gamma: float = 0.0, weights: Tensor | None = None) -> None:
        super().__init__()
        self.multi_label, self.gamma = multi_label, gamma
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of (B, K) logits, a scalar; computed in float32."""
        logits = logits.float()
        if self.multi_label:
            labels = labels.to(logits.dtype)
            loss = binary_cross_entropy_with_logits(logits, labels, reduction="none")
        else:
            loss = cross_entropy(logits, labels, reduction="none")
        if self.gamma:
            loss = loss * (1 - (-loss).exp()) ** self.gamma
        if self.weights is not None:
            loss = loss * (1 + labels * (self.weights - 1) if self.multi_label else self.weights[labels])
        return loss.mean()
