"""Score fusion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from mi2p_inject.errors import Mi2pError

__all__ = ["ScoreFusion"]


@final
class ScoreFusion(nn.Module):
    """The mean of the branches' class probabilities; nothing to train.

    ``p = (softmax(logits_1) + ... + softmax(logits_n)) / n``

    Example:
        >>> import torch
        >>> ScoreFusion()([torch.tensor([[0.0, 0.0]]), torch.tensor([[100.0, 0.0]])])
        tensor([[0.7500, 0.2500]])
    """

    def forward(self, logits: Sequence[Tensor]) -> Tensor:
        """Fuse.

        Args:
            logits: one (B, K) tensor a branch, at least one.

        Returns:
            (B, K) class probabilities (not logits).

        Raises:
            Mi2pError: no branch, or branches of different shapes.
        """
        shapes = [tuple(branch.shape) for branch in logits]
        if not shapes or len(set(shapes)) > 1 or len(shapes[0]) != 2:
            raise Mi2pError(f"score fusion needs branches of one shape (B, K), got {shapes}")
        return torch.stack([branch.softmax(dim=-1) for branch in logits]).mean(dim=0)
