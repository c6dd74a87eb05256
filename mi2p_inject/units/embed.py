"""Embedders: how a map and how tokens become query, key and value. A unit is built of three of them.

An embedder is a *basis*, the numbers of a token that all heads share, and one linear layer whose rows are the heads'.
Of tokens (B, L, D) the basis is the tokens. Of a map (B, C, H, W) a channel is a token: its query and key are head_dim
kernels convolved over the channel and averaged, so their basis is the channel's k² window means (the same numbers
exactly); the basis of its value is its H·W numbers. All C channels share these weights, so the literal form cannot tell
one channel from another; with an identity the basis also holds a learned embedding of each channel.

The heads' linear layers are applied where that is cheapest: see `mi2p_inject.units.attention`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mi2p_inject.core.views import ViewSpec
from mi2p_inject.core.windows import window_means
from mi2p_inject.sources.features import PreparedSource
from mi2p_inject.units.basis import TokenFactors

MULTIPLE = 16
"""Bases are this wide or a multiple: a product 49 wide takes several times as long as one 64 wide."""

IDENTITY_STD = 0.02
"""Of the identity part of a query, key or value before training: small and different from channel to channel."""


class Embedder(nn.Module):
    """X W_h + b_h for every head h, with the basis X (B, N, width) shared by the heads.

    Args:
        width: numbers of a token that the paper's formula reads.
        heads: number of heads.
        out: width of all heads together.
        bias: whether there is one.
        channels: of a map with an identity; 0 for tokens and for maps without.
        identity: asked width of the learned embedding of a channel; 0: none.

    Attributes:
        width: of the basis, identity included.
        given: how many of its columns come from view or source; they stand first.
        project: the linear layers of all heads: rows are heads, columns the basis.
        identity: (channels, r) the learned embeddings, or None; r is the number nearest to the asked width that makes
            the basis a multiple of `MULTIPLE`.
    """

    def __init__(
        self, width: int, num_heads: int, out: int, bias: bool, channels: int = 0, embedding_dim: int = 0
    ) -> None:
        super().__init__()
        embedding_dim = rounded(width + embedding_dim, above=width) - width if channels and embedding_dim else 0
        self.given, self.width, self.num_heads = width, width + embedding_dim, num_heads
        self.project = nn.Linear(self.width, out, bias)
        self.channel_embedding = nn.Parameter(torch.randn(channels, embedding_dim)) if embedding_dim else None
        if embedding_dim:
            with torch.no_grad():
                self.project.weight[:, :width].uniform_(-(width**-0.5), width**-0.5)
                self.project.weight[:, width:].normal_(std=IDENTITY_STD * embedding_dim**-0.5)

    def weight(self) -> Tensor:
        """The linear layer (out, width)."""
        return self.project.weight

    def forward(self, basis: TokenFactors) -> Tensor:
        """All heads side by side: (B, N, width) -> (B, N, out)."""
        return F.linear(basis.whole(), self.weight(), self.project.bias)

    def by_head(self) -> Tensor:
        """The weights (heads, d, width)."""
        num_heads: Tensor = self.weight().unflatten(0, (self.num_heads, -1))
        return num_heads

    def bias_by_head(self) -> Tensor | None:
        """The biases (heads, 1, d); None without."""
        return None if self.project.bias is None else self.project.bias.view(self.num_heads, 1, -1)


class SiteEmbedder(Embedder, ABC):
    """An embedder of a site's view."""

    @abstractmethod
    def basis(self, view: Tensor) -> TokenFactors:
        """(B, N, width)."""


class SourceEmbedder(Embedder, ABC):
    """An embedder of the source."""

    @abstractmethod
    def basis(self, source: PreparedSource) -> TokenFactors:
        """(B, M, width)."""


class TokenQuery(SiteEmbedder):
    """Q = T W_Q + b (equation 2)."""

    def basis(self, view: Tensor) -> TokenFactors:
        return TokenFactors(view)


class MapQuery(SiteEmbedder):
    """Q = mean over space of head_dim kernels on each channel (equation 1, figure 2a), plus the channel's identity."""

    def basis(self, view: Tensor) -> TokenFactors:
        return TokenFactors(window_means(view, round(self.given**0.5)), self.channel_embedding)


class TokenKey(SourceEmbedder):
    """K = T' W_K (equation 1). No bias: it would add the same to a query's every score, and softmax drops it."""

    def basis(self, source: PreparedSource) -> TokenFactors:
        return TokenFactors(source.tokens)


class MapKey(SourceEmbedder):
    """K = mean over space of head_dim kernels on each channel (equation 2, figure 2b), plus the channel's identity."""

    def basis(self, source: PreparedSource) -> TokenFactors:
        return TokenFactors(source.windows(round(self.given**0.5)), self.channel_embedding)


class TokenValue(SourceEmbedder):
    """V = T' W_V + b (equation 1)."""

    def basis(self, source: PreparedSource) -> TokenFactors:
        return TokenFactors(source.tokens)


class MapValue(SourceEmbedder):
    """V = Ẑ W_V + b with Ẑ (C, H·W) (equation 2), plus the channel's identity as strong as the channel is active.

    The literal value says where a channel is active and never which channel it is: what a unit reads is then the same
    for any order of the channels. Identity adds √C · s_c · e_c, with s_c the channel's mean in units of the sample's
    spread over channels: under even attention that alone is a linear layer on the pooled map.
    """

    def basis(self, source: PreparedSource) -> TokenFactors:
        return TokenFactors(
            source.tokens, self.channel_embedding, None if self.channel_embedding is None else source.strengths()
        )

    def weight(self) -> Tensor:
        if self.channel_embedding is None:
            return self.project.weight
        plain, loud = self.project.weight.split([self.given, self.width - self.given], -1)
        return torch.cat([plain, loud * len(self.channel_embedding) ** 0.5], -1)


def filled(width: int) -> int:
    """A width, rounded up to a multiple of `MULTIPLE`."""
    return width + -width % MULTIPLE


def rounded(width: int, above: int) -> int:
    """The nearest multiple of `MULTIPLE` that is larger than `above`.

    Example:
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
    """The value embedder of a source; `out` = heads·d_v."""
    if source.kind == "map":
        return MapValue(source.vector, num_heads, out, True, source.width, embedding_dim)
    return TokenValue(source.width, num_heads, out, True)
