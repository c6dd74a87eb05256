"""Compact bilinear gated pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from mi2p_inject.fusion.base import Fusion, check_option, check_size
from mi2p_inject.fusion.compact_bilinear import CompactBilinearHead

__all__ = ["GatedBilinearFusion"]


@final
class GatedBilinearFusion(Fusion):
    """One vector, squashed to a gate, meets the other in compact bilinear pooling.

    ``u = σ(U t)``, ``w = V v``, then the compact bilinear pooling of w and u, and a linear layer; see
    `CompactBilinearHead`. This is our reading: the bilinear-gated form is known as an outer product,
    ``W (σ(U t) ⊗ V v)``, and no recipe for its compact form is published.

    A missing gate is 1 everywhere. A missing gated vector leaves the gate's own sketch.

    Source: Kiela et al., Efficient Large-Scale Multi-Modal Classification, AAAI 2018 (https://arxiv.org/abs/1802.02892);
    MI2P (CVPR 2022), table 3.

    Args:
        gate: which vector is the gate, 0 or 1; with an image and a text in this order, 1 is the text.
        width: of u and w.
        sketch_width: D, numbers of the pooled vector.
        dropout: of the pooled vector, in training.

    Examples:
        >>> import torch
        >>> GatedBilinearFusion([4, 6], 3, sketch_width=64)([torch.randn(2, 4), torch.randn(2, 6)]).shape
        torch.Size([2, 3])
    """

    branches = (2, 2)

    def __init__(
        self,
        widths: Sequence[int],
        classes: int,
        *,
        multi_label: bool = False,
        gate: int = 1,
        width: int = 512,
        sketch_width: int = 16_000,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(widths, classes, multi_label=multi_label)
        check_size("width", width)
        is_branch = not isinstance(gate, bool) and gate in (0, 1)
        check_option("gate", gate, is_branch, "0 or 1, whose vector is the gate")
        self.gating = gate
        self.projections = nn.ModuleList(nn.Linear(own, width, bias=False) for own in widths)
        self.head = CompactBilinearHead([width, width], classes, sketch_width, dropout)

    def fuse(self, vectors: list[Tensor], present: Tensor) -> Tensor:
        """See `Fusion.fuse`."""
        projected = [layer(vector) for layer, vector in zip(self.projections, vectors, strict=True)]
        gate = projected[self.gating].sigmoid().where(present[self.gating].unsqueeze(1), 1.0)
        gated, there = projected[1 - self.gating], present[1 - self.gating]
        logits: Tensor = self.head([gated, gate], torch.stack([there, torch.ones_like(there)]))
        return logits
