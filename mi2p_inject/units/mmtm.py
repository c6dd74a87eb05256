"""The multimodal transfer module, one-sided: map and source are squeezed together, the map's channels are gated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from mi2p_inject.core.errors import UnitError
from mi2p_inject.core.numerics.precision import full_range, saturated
from mi2p_inject.core.views import ViewSpec
from mi2p_inject.sources.prepared import PreparedSource
from mi2p_inject.units.base import (
    Unit,
    UnitConfig,
    check_flag,
    check_option,
    check_source_norm,
    is_positive,
)
from mi2p_inject.units.layers.linear import FullRangeLinear

__all__ = ["MMTM", "MMTMUnit"]


@final
@dataclass(frozen=True)
class MMTM(UnitConfig):
    """Options of the one-sided MMTM unit.

    Args:
        reduction: the joint vector has 2·(C + D) // reduction numbers, for C channels of the map and width D of the
            source; 4 is the authors' value.
        source_norm: layer normalisation of the pooled source, without weights of its own. The original has none.

    Raises:
        UnitError: an option out of range.

    Source: MMTM, Joze et al., CVPR 2020 (https://arxiv.org/abs/1911.08670), section 3. The original gates both streams
    of two networks that run in step; here the source is given, and only the backbone's map is gated.

    Examples:
        >>> from mi2p_inject import ViewSpec
        >>> from mi2p_inject.units import MMTM
        >>> unit = MMTM().build(site=ViewSpec.map(320, 7, 7), source=ViewSpec.tokens(384))
        >>> unit.squeeze.out_features
        352
    """

    reduction: int = 4
    source_norm: bool = False

    def __post_init__(self) -> None:
        check_option("reduction", self.reduction, is_positive(self.reduction), "a positive integer")
        check_flag("source_norm", self.source_norm)

    @property
    def kind(self) -> str:
        return "mmtm"

    def build(self, site: ViewSpec, source: ViewSpec, default_heads: int = 8) -> MMTMUnit:
        return MMTMUnit(self, site, source)


@final
class MMTMUnit(Unit):
    """(2σ(E) − 1) ⊙ x with E = W_E ReLU(W_Z [mean of x; mean of the source] + b_Z) + b_E: gated minus given.

    W_E and b_E start at zero, so the gate 2σ(E) starts at 1.

    Args:
        config: its options.
        site: the map it adds to.
        source: what is pooled: tokens over their length, a map over its pixels.

    Shapes:
        view (B, C, H, W), source of the same B -> residual of the view's shape.

    Raises:
        UnitError: a site of tokens, whose mean would depend on padding that a unit cannot see.
    """

    def __init__(self, config: MMTM, site: ViewSpec, source: ViewSpec) -> None:
        super().__init__(site, source)
        if site.kind != "map":
            raise UnitError(
                "the unit 'mmtm' gates the channels of a map, and this site is tokens",
                expected="a site map (B, C, H, W); the source may be tokens or a map",
                given=str(site),
                fix="choose sites that are maps, or unit='film' (with scale=True it gates the features of tokens)",
            )
        check_source_norm(config.source_norm, source)
        self.source_norm = config.source_norm
        both = site.width + source.width
        self.squeeze = FullRangeLinear(both, max(1, 2 * both // config.reduction))
        self.excite = FullRangeLinear(self.squeeze.out_features, site.width)
        nn.init.zeros_(self.excite.weight)
        nn.init.zeros_(self.excite.bias)

    def forward(self, view: Tensor, source: PreparedSource) -> Tensor:
        self.check_width(view)
        with full_range(view):
            residual = self._residual(*self.widened(view, source))
        return self.zero_missing(saturated(residual, view.dtype), source)

    def _residual(self, view: Tensor, source: PreparedSource) -> Tensor:
        pooled = source.pooled(self.source_norm)
        joint = self.squeeze(torch.cat([view.mean((2, 3)), pooled], 1)).relu()
        gate = torch.tanh(self.excite(joint) / 2)  # 2σ(E) − 1, without the rounding beside 1 in half precision
        return gate[:, :, None, None] * view
