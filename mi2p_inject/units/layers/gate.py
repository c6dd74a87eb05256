"""A gate: a learned weight that starts at zero, so that the expanded model starts as the backbone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mi2p_inject.core.views import ViewSpec

__all__ = ["ZeroGate"]


class ZeroGate(nn.Module):
    """Multiplies a residual by a learned weight that starts at zero.

    Args:
        site: the view the residual is added to.
        per_channel: one weight a channel of a map (a feature of tokens) instead of one for the site.

    Shapes:
        (B, C, H, W) or (B, L, D) -> the same.

    Source: ReZero (https://arxiv.org/abs/2003.04887) and LayerScale (https://arxiv.org/abs/2103.17239).

    Examples:
        >>> import torch
        >>> from mi2p_inject import ViewSpec
        >>> from mi2p_inject.units.layers.gate import ZeroGate
        >>> float(ZeroGate(ViewSpec.tokens(4))(torch.ones(1, 2, 4)).sum())
        0.0
    """

    def __init__(self, site: ViewSpec, per_channel: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(site.width if per_channel else 1))
        self._axes = 2 if site.kind == "map" else 0

    def forward(self, residual: Tensor) -> Tensor:
        """The gated residual."""
        return residual * self.weight.view(-1, *[1] * self._axes)
