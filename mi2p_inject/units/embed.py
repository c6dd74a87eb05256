"""Embedders: how a map and how tokens become query, key and value. A unit is built of three of them.

An embedder has *shared columns*, the numbers of a token that all heads share, and one linear layer whose rows are the
heads'. Of tokens (B, L, D) the shared columns are the tokens. Of a map (B, C, H, W) a channel is a token: its query and
key are head_dim kernels convolved over the channel and averaged, so their shared columns are the channel's k² window
means (the same numbers exactly); those of its value are its H·W numbers. All C channels share these weights, so the
literal form cannot tell one channel from another; a learned embedding of each channel stands beside these numbers.

The heads' linear layers are applied where that is cheapest: see `mi2p_inject.units.attention`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from mi2p_inject.core.numerics.windows import window_means
from mi2p_inject.core.views import ViewSpec
from mi2p_inject.sources.prepared import PreparedSource
from mi2p_inject.units.layers.linear import PlainLinear
from mi2p_inject.units.token_factors import TokenFactors

__all__ = [
    "Embedder", "MapKey", "MapQuery", "MapValue", "SiteEmbedder", "SourceEmbedder", "TokenKey", "TokenQuery",
    "TokenValue", "filled", "key_for", "query_for", "rounded", "value_for",
]  # fmt: skip

MULTIPLE = 16
"""Shared columns are this many or a multiple: a product 49 wide takes several times as long as one 64 wide."""

EMBEDDING_STD = 0.02
"""Of what a channel's embedding adds to its query, key or value before training: small, different for each channel."""


class Embedder(PlainLinear, ABC):
    """X W_h + b_h for every head h, with the columns X (B, N, width) shared by the heads.

    Args:
        width: numbers of a token that the paper's formula reads.
        num_heads: number of heads.
        out: width of all heads together.
        bias: whether there is one.
        channels: of a map with channel embeddings; 0 for tokens and for maps without.
        embedding_dim: asked width of the learned embedding of a channel; 0: none.

    Attributes:
        width: of the shared columns, channel embedding included.
        given: how many of them come from view or source; they stand first.
        weight, bias: the linear layers of all heads: rows are heads, columns the shared ones.
        channel_embedding: (channels, r) the learned embeddings, or None; r is the number nearest to the asked width
            that makes the shared columns a multiple of `MULTIPLE`.
    """

    def __init__(
        self, width: int, num_heads: int, out: int, bias: bool, channels: int = 0, embedding_dim: int = 0
    ) -> None:
        embedding_dim = rounded(width + embedding_dim, above=width) - width if channels and embedding_dim else 0
        super().__init__(width + embedding_dim, out, bias)
        self.given, self.width, self.num_heads = width, width + embedding_dim, num_heads
        self.channel_embedding = nn.Parameter(torch.randn(channels, embedding_dim)) if embedding_dim else None
        if embedding_dim:
            with torch.no_grad():
                self.weight[:, :width].uniform_(-(width**-0.5), width**-0.5)
                self.weight[:, width:].normal_(std=EMBEDDING_STD * embedding_dim**-0.5)

    def all_heads(self, factors: TokenFactors) -> Tensor:
        """All heads side by side: (B, N, width) -> (B, N, out)."""
        return self(factors.whole())  # type: ignore[no-any-return]

    def by_head(self) -> Tensor:
        """The weights (heads, d, width)."""
        split: Tensor = self.weights().unflatten(0, (self.num_heads, -1))
        return split

    def bias_by_head(self) -> Tensor | None:
        """The biases (heads, 1, d); None without."""
        bias = self.biases()
        return None if bias is None else bias.view(self.num_heads, 1, -1)


class SiteEmbedder(Embedder):
    """An embedder of a site's view."""

    @abstractmethod
    def factors(self, view: Tensor) -> TokenFactors:
        """(B, N, width)."""


class SourceEmbedder(Embedder):
    """An embedder of the source."""

    @abstractmethod
    def factors(self, source: PreparedSource) -> TokenFactors:
        """(B, M, width)."""


class TokenQuery(SiteEmbedder):
    """Q = T W_Q + b (equation 2)."""

    def factors(self, view: Tensor) -> TokenFactors:
        return TokenFactors(view)


class MapQuery(SiteEmbedder):
    """Q = mean over space of head_dim kernels on each channel (equation 1, figure 2a), plus the channel's embedding."""

    def factors(self, view: Tensor) -> TokenFactors:
        return TokenFactors(window_means(view, round(self.given**0.5)), self.channel_embedding)


class TokenKey(SourceEmbedder):
    """K = T' W_K (equation 1). No bias: it would add the same to a query's every score, and softmax drops it."""

    def factors(self, source: PreparedSource) -> TokenFactors:
        return TokenFactors(source.tokens)


class MapKey(SourceEmbedder):
    """K = mean over space of head_dim kernels on each channel (equation 2, figure 2b), plus the channel's embedding."""

    def factors(self, source: PreparedSource) -> TokenFactors:
        return TokenFactors(source.windows(round(self.given**0.5)), self.channel_embedding)


class TokenValue(SourceEmbedder):
    """V = T' W_V + b (equation 1)."""

    def factors(self, source: PreparedSource) -> TokenFactors:
        return TokenFactors(source.tokens)


class MapValue(SourceEmbedder):
    """V = Ẑ W_V + b with Ẑ (C, H·W) (equation 2), plus the channel's embedding as strong as the channel is active.

    The literal value says where a channel is active and never which channel it is: what a unit reads is then the same
    for any order of the channels. The embedding adds √C · s_c · e_c, with s_c the channel's mean in units of the
    sample's spread over channels: under even attention that alone is a linear layer on the pooled map.
    """

    def factors(self, source: PreparedSource) -> TokenFactors:
        return TokenFactors(
            source.tokens, self.channel_embedding, None if self.channel_embedding is None else source.strengths()
        )

    def weights(self) -> Tensor:
        weights = super().weights()
        if self.channel_embedding is None:
            return weights
        plain, embedded = weights.split([self.given, self.width - self.given], -1)
        return torch.cat([plain, embedded * len(self.channel_embedding) ** 0.5], -1)


def filled(width: int) -> int:
    """A width, rounded up to a multiple of `MULTIPLE`."""
    return width + -width % MULTIPLE


def rounded(width: int, above: int) -> int:
    """The nearest multiple of `MULTIPLE` that is larger than `above`.

    Examples:
        >>> from mi2p_inject.units.embed import rounded
        >>> rounded(49 + 16, above=49), rounded(9 + 16, above=9), rounded(64 + 1, above=64)
        (64, 32, 80)
    """
    return max(MULTIPLE * round(width / MULTIPLE), filled(above + 1))


def query_for(site: ViewSpec, num_heads: int, head_dim: int, kernel_size: int, embedding_dim: int) -> SiteEmbedder:
    """The query embedder of a site's view."""
    if site.kind == "map":
        return MapQuery(kernel_size**2, num_heads, num_heads * head_dim, True, site.width, embedding_dim)
    return TokenQuery(site.width, num_heads, num_heads * head_dim, True)


def key_for(source: ViewSpec, num_heads: int, head_dim: int, kernel_size: int, embedding_dim: int) -> SourceEmbedder:
    """The key embedder of a source."""
    if source.kind == "map":
        return MapKey(kernel_size**2, num_heads, num_heads * head_dim, False, source.width, embedding_dim)
    return TokenKey(source.width, num_heads, num_heads * head_dim, False)


def value_for(source: ViewSpec, num_heads: int, out: int, embedding_dim: int) -> SourceEmbedder:
    """The value embedder of a source; `out`: width of all heads together."""
    if source.kind == "map":
        return MapValue(source.vector, num_heads, out, True, source.width, embedding_dim)
    return TokenValue(source.width, num_heads, out, True)
