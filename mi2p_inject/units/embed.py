"""Embedders: how a map and how tokens become query, key and value. A unit is built of three of them.

Of tokens (B, L, D) all three are linear. Of a map (B, C, H, W) a channel is a token: its query or key is d_k kernels
convolved over the channel and averaged (here: its k² window means times the kernels, the same numbers exactly), its
value is a linear map of its H·W numbers. All C channels share these weights, so the literal form cannot tell one
channel from another; with `identity` each channel also has a learned embedding.

Keys and values never hand out a (B, M, heads·d) tensor where a product in another order is cheaper: `scores` and
`attend` are the whole interface, exact by associativity.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from mi2p_inject.features import PreparedSource
from mi2p_inject.views import ViewSpec
from mi2p_inject.windows import window_means


class Query(nn.Module, ABC):
    """A view -> queries (B, heads, N, d_k) for its N tokens."""

    @abstractmethod
    def forward(self, view: Tensor) -> Tensor:
        """Queries of a site's view."""


class Key(nn.Module, ABC):
    """Queries and a source -> scores."""

    @abstractmethod
    def scores(self, queries: Tensor, source: PreparedSource) -> Tensor:
        """QKᵀ, unscaled: (B, heads, N, d_k) -> (B, heads, N, M)."""


class Value(nn.Module, ABC):
    """Attention weights and a source -> what the heads read."""

    @abstractmethod
    def attend(self, attention: Tensor, source: PreparedSource) -> Tensor:
        """AV of all heads side by side: (B, heads, N, M) -> (B, N, heads·d_v)."""


class TokenQuery(Query):
    """Q = T W_Q + b (equation 2)."""

    def __init__(self, width: int, heads: int, d_k: int) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(width, heads * d_k)

    def forward(self, view: Tensor) -> Tensor:
        return split_heads(self.project(view), self.heads)


class MapQuery(Query):
    """Q = mean over space of d_k kernels on each channel (equation 1, figure 2a), plus the channel's identity."""

    def __init__(self, channels: int, heads: int, d_k: int, kernel_size: int, identity: bool) -> None:
        super().__init__()
        self.heads, self.kernel_size = heads, kernel_size
        self.project = nn.Linear(kernel_size**2, heads * d_k)
        self.identity = channel_identity(channels, heads * d_k) if identity else None

    def forward(self, view: Tensor) -> Tensor:
        queries = self.project(window_means(view, self.kernel_size))
        if self.identity is not None:
            queries = queries + self.identity.to(queries.dtype)
        return split_heads(queries, self.heads)


class TokenKey(Key):
    """K = T' W_K (equation 1). No bias: it would add the same to a query's every score, and softmax drops it."""

    def __init__(self, width: int, heads: int, d_k: int) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(width, heads * d_k, bias=False)

    def scores(self, queries: Tensor, source: PreparedSource) -> Tensor:
        return queries @ split_heads(self.project(source.tokens), self.heads).mT


class MapKey(Key):
    """K = mean over space of d_k kernels on each channel (equation 2, figure 2b), plus the channel's identity.

    QKᵀ = (Q W_Kᵀ) Sᵀ + Q Eᵀ with S the (C, k²) window means and E the identities: the keys are k² wide, shared by all
    heads and, through `PreparedSource`, by all units.
    """

    def __init__(self, channels: int, heads: int, d_k: int, kernel_size: int, identity: bool) -> None:
        super().__init__()
        self.heads, self.kernel_size = heads, kernel_size
        self.project = nn.Linear(kernel_size**2, heads * d_k, bias=False)
        self.identity = channel_identity(channels, heads * d_k) if identity else None

    def scores(self, queries: Tensor, source: PreparedSource) -> Tensor:
        kernels = self.project.weight.unflatten(0, (self.heads, -1))  # (heads, d_k, k²)
        narrow = queries @ kernels.to(queries.dtype)  # (B, heads, N, k²)
        scores: Tensor = narrow @ source.windows(self.kernel_size).mT.unsqueeze(1).to(narrow.dtype)
        if self.identity is not None:
            scores = scores + by_head(queries, self.identity.unflatten(1, (self.heads, -1)).permute(1, 2, 0))
        return scores


class TokenValue(Value):
    """V = T' W_V + b (equation 1)."""

    def __init__(self, width: int, heads: int, out: int) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(width, out)

    def attend(self, attention: Tensor, source: PreparedSource) -> Tensor:
        values = split_heads(self.project(source.tokens), self.heads)
        return (attention.to(values.dtype) @ values).transpose(1, 2).flatten(2)


class MapValue(Value):
    """V = Ẑ W_V + b with Ẑ (C, H·W) (equation 2), plus the channel's identity as strong as the channel is active.

    The literal value says where a channel is active and never which channel it is: what a unit reads is then the same
    for any order of the channels. Identity adds √C · s_c · e_c, with s_c the channel's mean in units of the sample's
    spread over channels: under even attention that alone is a linear layer on the pooled map.

    AV = (A Ẑ) W_V + (A ∘ s) E √C + b, as rows of A sum to one: values are H·W wide and shared by all heads and units.
    """

    def __init__(self, channels: int, pixels: int, heads: int, out: int, identity: bool) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(pixels, out)
        self.identity = channel_identity(channels, out) if identity else None

    def attend(self, attention: Tensor, source: PreparedSource) -> Tensor:
        read = attention @ source.tokens.unsqueeze(1).to(attention.dtype)  # (B, heads, N, H·W)
        out = by_head(read, self.project.weight.unflatten(0, (self.heads, -1)).mT)
        if self.identity is not None:
            loud = attention * (source.strengths() * len(self.identity) ** 0.5)[:, None, None, :].to(attention.dtype)
            out = out + by_head(loud, self.identity.unflatten(1, (self.heads, -1)).transpose(0, 1))
        return out.transpose(1, 2).flatten(2) + self.project.bias.to(out.dtype)


def channel_identity(channels: int, width: int) -> nn.Parameter:
    """A learned embedding (channels, width), one row a channel, started small and different."""
    return nn.Parameter(torch.randn(channels, width) * 0.02)


def split_heads(packed: Tensor, heads: int) -> Tensor:
    """(B, N, heads·d) -> (B, heads, N, d)."""
    split: Tensor = packed.unflatten(2, (heads, -1))
    return split.transpose(1, 2)


def by_head(left: Tensor, right: Tensor) -> Tensor:
    """(B, heads, N, i) times a weight of each head (heads, i, o) -> (B, heads, N, o), as one product a head."""
    batch, _, tokens, _ = left.shape
    flat = left.transpose(0, 1).flatten(1, 2)  # (heads, B·N, i)
    product: Tensor = torch.bmm(flat, right.to(left.dtype)).unflatten(1, (batch, tokens))
    return product.transpose(0, 1)


def query_for(site: ViewSpec, heads: int, d_k: int, kernel_size: int, identity: bool) -> Query:
    """The query embedder of a site's view."""
    if site.kind == "map":
        return MapQuery(site.width, heads, d_k, kernel_size, identity)
    return TokenQuery(site.width, heads, d_k)


def key_for(source: ViewSpec, heads: int, d_k: int, kernel_size: int, identity: bool) -> Key:
    """The key embedder of a source."""
    if source.kind == "map":
        return MapKey(source.width, heads, d_k, kernel_size, identity)
    return TokenKey(source.width, heads, d_k)


def value_for(source: ViewSpec, heads: int, out: int, identity: bool) -> Value:
    """The value embedder of a source; `out` = heads·d_v."""
    if source.kind == "map":
        return MapValue(source.width, source.vector, heads, out, identity)
    return TokenValue(source.width, heads, out)
