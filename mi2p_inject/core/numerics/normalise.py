"""Layer normalisation without weights, of what a source gives."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["normalised"]


def normalised(tokens: Tensor) -> Tensor:
    """Layer normalisation over the last axis without weights: mean 0, variance 1; zeros stay zeros.

    Numbers above 1e10 are scaled down first, as the squares of the largest that sources may hold are infinite.

    Examples:
        >>> import torch
        >>> from mi2p_inject.core.numerics.normalise import normalised
        >>> normalised(torch.tensor([[100.0, 300.0], [0.0, 0.0]])).tolist()
        [[-1.0, 1.0], [0.0, 0.0]]
    """
    largest = tokens.detach().abs().amax(-1, keepdim=True)
    return F.layer_norm(tokens / (largest.clamp_min(1e10) / 1e10), tokens.shape[-1:])
