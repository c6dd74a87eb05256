"""Feature-wise modulation: the pooled source shifts each channel, and may scale it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor, nn

from mi2p_inject.core.numerics.precision import full_range, saturated
from mi2p_inject.core.views import ViewSpec
from mi2p_inject.sources.prepared import PreparedSource
from mi2p_inject.units.base import Unit, UnitConfig, check_flag, check_source_norm
from mi2p_inject.units.layers.linear import FullRangeLinear

__all__ = ["FiLM", "FiLMUnit"]


@final
@dataclass(frozen=True)
class FiLM(UnitConfig):
    """Options of the FiLM unit.

    Args:
        scale: scale each channel too, by 1 + a linear layer of the source; without it the unit only shifts.
        source_norm: layer normalisation of the pooled source, without weights of its own.

    Raises:
        UnitError: an option out of range.

    Source: FiLM (https://arxiv.org/abs/1709.07871), without its convolutional block.

    Examples:
        >>> from mi2p_inject import ViewSpec
        >>> from mi2p_inject.units import FiLM
        >>> unit = FiLM().build(site=ViewSpec.tokens(384), source=ViewSpec.map(320, 7, 7))
        >>> [tuple(parameter.shape) for parameter in unit.parameters()]
        [(384, 320), (384,)]
    """

    scale: bool = False
    source_norm: bool = True

    def __post_init__(self) -> None:
        check_flag("scale", self.scale)
        check_flag("source_norm", self.source_norm)

    @property
    def kind(self) -> str:
        return "film"

    def build(self, site: ViewSpec, source: ViewSpec, default_heads: int = 8) -> FiLMUnit:
        return FiLMUnit(self, site, source)


@final
class FiLMUnit(Unit):
    """β(s) or, with scale, γ(s) ⊙ x + β(s), the same at every pixel or token; s is the mean over the source.

    Both are linear layers that start at zero.

    Args:
        config: its options.
        site: the view it adds to, map or tokens.
        source: what is pooled: tokens over their length, a map over its pixels.

    Shapes:
        view (B, C, H, W) or (B, L, D), source of the same B -> residual of the view's shape.
    """

    def __init__(self, config: FiLM, site: ViewSpec, source: ViewSpec) -> None:
        super().__init__(site, source)
        check_source_norm(config.source_norm, source)
        self.source_norm = config.source_norm
        self.source_to_shift = FullRangeLinear(source.width, site.width)
        self.source_to_scale = FullRangeLinear(source.width, site.width) if config.scale else None
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, view: Tensor, source: PreparedSource) -> Tensor:
        self.check_width(view)
        with full_range(view):
            residual = self._residual(*self.widened(view, source))
        return self.zero_missing(saturated(residual, view.dtype), source)

    def _residual(self, view: Tensor, source: PreparedSource) -> Tensor:
        pooled = source.pooled(self.source_norm)
        residual = self._at_every_position(self.source_to_shift(pooled))
        if self.source_to_scale is not None:
            residual = self._at_every_position(self.source_to_scale(pooled)) * view + residual
        return residual.expand_as(view)

    def _at_every_position(self, channels: Tensor) -> Tensor:
        return channels[:, :, None, None] if self.site.kind == "map" else channels.unsqueeze(1)
