"""Multi-head cross-attention: each pixel or token of the site attends to the source's tokens or pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch.nn.functional as F
from torch import Tensor, nn

from mi2p_inject.core.numerics.normalise import normalised
from mi2p_inject.core.numerics.precision import full_range, saturated
from mi2p_inject.core.numerics.recording import is_transformed
from mi2p_inject.core.numerics.weights_taken import Axis, give_weights, wants_weights
from mi2p_inject.core.views import ViewSpec
from mi2p_inject.sources.prepared import PreparedSource
from mi2p_inject.units.base import (
    Unit,
    UnitConfig,
    attention_weights,
    check_flag,
    check_option,
    check_source_norm,
    is_positive,
)
from mi2p_inject.units.layers.linear import FullRangeLinear

__all__ = ["CrossAttention", "CrossAttentionUnit"]


@final
@dataclass(frozen=True)
class CrossAttention(UnitConfig):
    """Options of the cross-attention unit.

    Args:
        num_heads: attention heads; None: the adapter's number (8 for CNNs, 12 for BERT).
        head_dim: width of queries, keys and values, a head.
        source_norm: layer normalisation of what is attended to, without weights of its own.

    Raises:
        UnitError: an option out of range.

    Source: attention as in Vaswani et al. 2017 (https://arxiv.org/abs/1706.03762), section 3.2.2, with normalised
    queries and a residual as in Flamingo (https://arxiv.org/abs/2204.14198), section 2.2, without its feed-forward
    layer; in place of its scalar gate, the output projection starts at zero.

    Torch's fused attention has no second derivatives; a forward under
    ``torch.nn.attention.sdpa_kernel(SDPBackend.MATH)`` has them.

    Examples:
        >>> from mi2p_inject import ViewSpec
        >>> from mi2p_inject.units import CrossAttention
        >>> unit = CrossAttention(num_heads=4).build(site=ViewSpec.map(320, 7, 7), source=ViewSpec.tokens(384))
        >>> unit.describe(), unit.site_to_queries.out_features
        ({'heads': '4'}, 256)
    """

    num_heads: int | None = None
    head_dim: int = 64
    source_norm: bool = True

    def __post_init__(self) -> None:
        heads = self.num_heads
        check_option("num_heads", heads, heads is None or is_positive(heads), "None or a positive integer")
        check_option("head_dim", self.head_dim, is_positive(self.head_dim), "a positive integer")
        check_flag("source_norm", self.source_norm)

    @property
    def kind(self) -> str:
        return "cross-attention"

    def build(self, site: ViewSpec, source: ViewSpec, default_heads: int = 8) -> CrossAttentionUnit:
        return CrossAttentionUnit(self, site, source, self.num_heads or default_heads)


@final
class CrossAttentionUnit(Unit):
    """W_O softmax(QKᵀ/√head_dim)V + b_O with Q from the site's positions, K and V from the source's.

    The positions of a map are its H·W pixels, C numbers each; those of tokens are the tokens. Nothing tells the order
    of positions but what their numbers hold. The output projection starts at zero.

    Args:
        config: its options.
        site: the view it adds to, map or tokens.
        source: the features it attends to, tokens or a map.
        num_heads: attention heads.

    Shapes:
        view (B, C, H, W) or (B, L, D), source of the same B -> residual of the view's shape.
    """

    def __init__(self, config: CrossAttention, site: ViewSpec, source: ViewSpec, num_heads: int) -> None:
        super().__init__(site, source)
        check_source_norm(config.source_norm, source)
        self.source_norm, self.num_heads = config.source_norm, num_heads
        width = num_heads * config.head_dim
        self.site_to_queries = FullRangeLinear(site.width, width)
        self.source_to_keys = FullRangeLinear(source.width, width, bias=False)  # softmax would drop a bias
        self.source_to_values = FullRangeLinear(source.width, width)
        self.heads_to_site = FullRangeLinear(width, site.width)
        nn.init.zeros_(self.heads_to_site.weight)
        nn.init.zeros_(self.heads_to_site.bias)

    def forward(self, view: Tensor, source: PreparedSource) -> Tensor:
        self.check_width(view)
        with full_range(view):
            residual = self._residual(*self.widened(view, source))
        return self.zero_missing(saturated(residual, view.dtype), source)

    def _residual(self, view: Tensor, source: PreparedSource) -> Tensor:
        positions = view.flatten(2).mT if self.site.kind == "map" else view
        if source.grid is None:
            attended = (source.normalised() if self.source_norm else source).tokens
        else:
            attended = normalised(source.tokens.mT) if self.source_norm else source.tokens.mT
        queries = self._by_head(self.site_to_queries(normalised(positions)))
        keys, values = (self._by_head(layer(attended)) for layer in (self.source_to_keys, self.source_to_values))
        mask = None if source.mask is None else source.mask[:, None, None, :]
        if wants_weights() or is_transformed(queries):  # the fused kernels know no dual numbers
            read = _plain(queries, keys, values, mask)
        else:
            read = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        residual: Tensor = self.heads_to_site(read.transpose(1, 2).flatten(2))
        return residual.mT.unflatten(2, view.shape[2:]) if self.site.kind == "map" else residual

    def describe(self) -> dict[str, str]:
        return {"heads": str(self.num_heads)}

    def attention_axes(self) -> tuple[Axis, Axis]:
        return self.axes(of_map="pixels")

    def _by_head(self, packed: Tensor) -> Tensor:
        """(B, N, heads·d) -> (B, heads, N, d)."""
        split: Tensor = packed.unflatten(2, (self.num_heads, -1))
        return split.transpose(1, 2)


def _plain(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """As `F.scaled_dot_product_attention`, with the weights formed, and handed over where somebody wants them."""
    weights = attention_weights(queries * queries.shape[-1] ** -0.5, keys, mask)
    give_weights(weights)
    read: Tensor = weights.to(values.dtype) @ values
    return read
