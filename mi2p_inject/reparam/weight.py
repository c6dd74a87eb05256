"""The re-parameterised weight: W + λ·W_aux, computed whenever the layer asks for its weight."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mi2p_inject.reparam.pairing import Part

__all__ = ["CrossModalWeight"]


class CrossModalWeight(nn.Module):
    """A parametrization (`torch.nn.utils.parametrize`) of one linear layer's weight.

    Args:
        auxiliary: the auxiliary model's own parameters, not copies.
        parts: which rows of each.

    Shapes:
        (out, in) -> (out, in).

    Source: Multimodal Pathway (https://arxiv.org/abs/2401.14405), Cross-Modal Re-parameterization.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> from mi2p_inject.reparam.pairing import Part
        >>> from mi2p_inject.reparam.weight import CrossModalWeight
        >>> auxiliary = nn.Parameter(torch.ones(2, 3))
        >>> weight = CrossModalWeight([auxiliary], [Part("fc.weight")])
        >>> bool((weight(torch.zeros(2, 3)) == 0).all())
        True
    """

    def __init__(self, auxiliary: Sequence[nn.Parameter], parts: Sequence[Part]) -> None:
        super().__init__()
        self.auxiliary = nn.ParameterList(auxiliary)
        self.parts = tuple(parts)
        self.scale = nn.Parameter(auxiliary[0].new_zeros(1))

    def forward(self, weight: Tensor) -> Tensor:
        rows = [part.of(parameter) for part, parameter in zip(self.parts, self.auxiliary, strict=True)]
        return weight + self.scale * (rows[0] if len(rows) == 1 else torch.cat(rows))
