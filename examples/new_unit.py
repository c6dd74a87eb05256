"""A unit kind of one's own: the mean of the source, through one linear layer, added to every position.

A kind is a frozen dataclass of options (`UnitConfig`) and the module it builds (`Unit`). `mi2p_inject.units.base` says
what a kind guarantees; an entry point of the group `mi2p_inject.units` makes it known by name, `UNITS.register` does so
in a notebook.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import timm
import torch
from torch import Tensor, nn

from mi2p_inject import SourceFeatures, ViewSpec, inject
from mi2p_inject.sources.prepared import PreparedSource
from mi2p_inject.units import UNITS, Unit, UnitConfig


@final
@dataclass(frozen=True)
class MeanShift(UnitConfig):
    """Options of the unit.

    Args:
        bias: whether the linear layer has a bias.
    """

    bias: bool = True

    @property
    def kind(self) -> str:
        return "mean-shift"

    def build(self, site: ViewSpec, source: ViewSpec, default_heads: int = 8) -> Unit:
        return MeanShiftUnit(self, site, source)


@final
class MeanShiftUnit(Unit):
    """(view, prepared source) -> a residual of the view's shape; zero at the start and where the source is missing."""

    def __init__(self, config: MeanShift, site: ViewSpec, source: ViewSpec) -> None:
        super().__init__(site, source)
        self.shift = nn.Linear(source.width, site.width, bias=config.bias)
        for parameter in self.shift.parameters():
            nn.init.zeros_(parameter)

    def forward(self, view: Tensor, source: PreparedSource) -> Tensor:
        shift = self.shift(source.pooled())  # the mean over the real tokens, padding apart, or over a map's pixels
        shift = shift[:, :, None, None] if self.site.kind == "map" else shift.unsqueeze(1)
        return self.zero_missing(shift.expand_as(view), source)

    def describe(self) -> dict[str, str]:
        return {}


def main() -> None:
    UNITS.register("mean-shift", MeanShift())
    torch.manual_seed(0)
    backbone = timm.create_model("resnet10t", num_classes=5)
    me = inject(backbone, source_spec=ViewSpec.tokens(32), unit="mean-shift", bias=False)
    images, words = torch.randn(2, 3, 64, 64), SourceFeatures(torch.randn(2, 6, 32))
    print("equal before training:", torch.equal(me.eval()(images, source=words), me(images)))
    me(images, source=words).sum().backward()
    gradients = [float(one.grad.abs().sum()) for one in me.units.parameters() if one.grad is not None]
    print(f"{len(gradients)} units, all with a gradient:", min(gradients) > 0)


if __name__ == "__main__":
    main()
