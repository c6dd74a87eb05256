"""What another distribution needs to add a unit and a fusion: two small classes, and two lines of metadata."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from mi2p_inject import ViewSpec
from mi2p_inject.fusion import Fusion
from mi2p_inject.sources.prepared import PreparedSource
from mi2p_inject.units import Unit, UnitConfig


@final
@dataclass(frozen=True)
class Nudge(UnitConfig):
    """A unit that adds the same to every position: a linear layer on the source's first token."""

    strength: float = 1.0

    @property
    def kind(self) -> str:
        return "nudge"

    def build(self, site: ViewSpec, source: ViewSpec, default_heads: int = 8) -> Unit:
        return NudgeUnit(self, site, source)


@final
class NudgeUnit(Unit):
    def __init__(self, config: Nudge, site: ViewSpec, source: ViewSpec) -> None:
        super().__init__(site, source)
        self.strength = config.strength
        self.nudge = nn.Linear(source.vector, site.width)
        nn.init.zeros_(self.nudge.weight)
        nn.init.zeros_(self.nudge.bias)

    def forward(self, view: Tensor, source: PreparedSource) -> Tensor:
        shift = self.strength * self.nudge(source.tokens[:, 0])
        if source.rows is not None:
            shift = shift.masked_fill(~source.rows.unsqueeze(1), 0)
        return shift[:, :, None, None].expand_as(view) if view.dim() == 4 else shift.unsqueeze(1).expand_as(view)

    def describe(self) -> dict[str, str]:
        return {"strength": str(self.strength)}


@final
class ProductFusion(Fusion):
    """A linear classifier on the product of two linear layers; what is missing counts as one."""

    branches = (2, 2)

    def __init__(self, widths: Sequence[int], classes: int, *, multi_label: bool = False, width: int = 8) -> None:
        super().__init__(widths, classes, multi_label=multi_label)
        self.both = nn.ModuleList(nn.Linear(own, width) for own in widths)
        self.head = nn.Linear(width, classes)

    def fuse(self, vectors: list[Tensor], present: Tensor) -> Tensor:
        one, other = (
            layer(vector).where(here.unsqueeze(1), 1.0)
            for layer, vector, here in zip(self.both, vectors, present, strict=True)
        )
        logits: Tensor = self.head(torch.tanh(one * other))
        return logits


NUDGE, NUMBER = Nudge(), 3
