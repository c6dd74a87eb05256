"""Score fusion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from mi2p_inject.fusion.base import Fusion

__all__ = ["ScoreFusion", "mean_scores"]


@final
class ScoreFusion(Fusion):
    """Each branch has a linear classifier; the mean of their class probabilities, over the branches that are there.

    ``p = (softmax(W_1 v_1 + b_1) + ... + softmax(W_n v_n + b_n)) / n``; the logits returned are ``log p``. With
    ``multi_label`` each softmax is a sigmoid. A sample that no branch can read gets the mean of what the biases say.
    One branch is the usual linear classifier.

    Source: MI2P (CVPR 2022), section 3.4.

    Examples:
        >>> import torch
        >>> present = [torch.tensor([True, True]), torch.tensor([True, False])]
        >>> ScoreFusion([4, 6], 3)([torch.randn(2, 4), torch.randn(2, 6)], present).shape
        torch.Size([2, 3])
    """

    def __init__(self, widths: Sequence[int], classes: int, *, multi_label: bool = False) -> None:
        super().__init__(widths, classes, multi_label=multi_label)
        self.heads = nn.ModuleList(nn.Linear(width, classes) for width in widths)

    def fuse(self, vectors: list[Tensor], present: Tensor) -> Tensor:
        """See `Fusion.fuse`."""
        logits = torch.stack([head(vector) for head, vector in zip(self.heads, vectors, strict=True)])
        return mean_scores(logits, present, multi_label=self.multi_label)


def mean_scores(logits: Tensor, present: Tensor | None = None, *, multi_label: bool = False) -> Tensor:
    """The logits of the mean probability of several classifiers.

    Args:
        logits: (n, B, K).
        present: (n, B), False for those that do not count; a sample without any counts all. None: all count.
        multi_label: sigmoids instead of a softmax.

    Returns:
        (B, K) logits: log p, or log(p / (1 - p)) with ``multi_label``.

    Examples:
        >>> import torch
        >>> mean_scores(torch.tensor([[[0.0, 0.0]], [[100.0, 0.0]]])).softmax(-1)
        tensor([[0.7500, 0.2500]])
    """
    if len(logits) == 1:
        return logits[0]
    counted = torch.ones(logits.shape[:2], dtype=torch.bool, device=logits.device) if present is None else present
    counted = (counted | ~counted.any(dim=0)).unsqueeze(-1)

    def log_mean(log_scores: Tensor) -> Tensor:
        return log_scores.masked_fill(~counted, -math.inf).logsumexp(0) - counted.sum(0).log()

    if not multi_label:
        return log_mean(logits.log_softmax(-1))
    return log_mean(logsigmoid(logits)) - log_mean(logsigmoid(-logits))
