"""Cross-attention fusion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from mi2p_inject.fusion.base import Fusion, check_size

__all__ = ["CrossAttentionFusion"]


@final
class CrossAttentionFusion(Fusion):
    """Each vector is filtered by a gate computed from the other one, then both are concatenated and classified.

    ``ṽ = ReLU(W_v v + b_v)``, ``t̃ = ReLU(W_t t + b_t)``, ``α_v = σ(W'_v t̃ + b'_v)``, ``α_t = σ(W'_t ṽ + b'_t)``,
    logits = ``W [α_v ⊙ ṽ; α_t ⊙ t̃] + b``.

    A missing vector counts as ``ṽ = 0`` and filters nothing: the other one's gate is 1.

    Source: Abavisani et al., Multimodal Categorization of Crisis Events in Social Media, CVPR 2020, section 3.2;
    MI2P (CVPR 2022), section 3.4. The published text leaves open what a gate is computed from; this is our reading.

    Args:
        width: of ṽ and t̃.

    Examples:
        >>> import torch
        >>> CrossAttentionFusion([4, 6], 3)([torch.randn(2, 4), torch.randn(2, 6)]).shape
        torch.Size([2, 3])
    """

    branches = (2, 2)

    def __init__(self, widths: Sequence[int], classes: int, *, multi_label: bool = False, width: int = 512) -> None:
        super().__init__(widths, classes, multi_label=multi_label)
        check_size("width", width)
        self.projections = nn.ModuleList(nn.Linear(own, width) for own in widths)
        self.gates = nn.ModuleList(nn.Linear(width, width) for _ in widths)
        self.head = nn.Linear(2 * width, classes)

    def fuse(self, vectors: list[Tensor], present: Tensor) -> Tensor:
        """See `Fusion.fuse`."""
        there = present.unsqueeze(-1)
        projected = [
            layer(vector).relu().where(here, 0.0)
            for layer, vector, here in zip(self.projections, vectors, there, strict=True)
        ]
        filtered = [
            projected[own] * self.gates[own](projected[other]).sigmoid().where(there[other], 1.0)
            for own, other in ((0, 1), (1, 0))
        ]
        logits: Tensor = self.head(torch.cat(filtered, dim=1))
        return logits
