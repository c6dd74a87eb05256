"""Feature concatenation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from mi2p_inject.fusion.base import Fusion

__all__ = ["ConcatFusion"]


@final
class ConcatFusion(Fusion):
    """A linear classifier on the concatenated vectors: ``W [v; t] + b``. A missing vector counts as zeros.

    Source: MI2P (CVPR 2022), section 3.4.

    Examples:
        >>> import torch
        >>> ConcatFusion([4, 6], 3)([torch.randn(2, 4), torch.randn(2, 6)]).shape
        torch.Size([2, 3])
    """

    def __init__(self, widths: Sequence[int], classes: int, *, multi_label: bool = False) -> None:
        super().__init__(widths, classes, multi_label=multi_label)
        self.head = nn.Linear(sum(widths), classes)

    def fuse(self, vectors: list[Tensor], present: Tensor) -> Tensor:
        """See `Fusion.fuse`."""
        logits: Tensor = self.head(torch.cat(vectors, dim=1))
        return logits
