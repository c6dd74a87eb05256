"""softmax(QKᵀ/√d_k)V, its products taken in the cheapest order.

With X the basis of an embedder and W_h its weights for head h (see `mi2p_inject.units.embed`), all of these are equal:

    Q_h K_hᵀ = (X_q W_h^Q)(X_k W_h^K)ᵀ        "projected": heads·d_k numbers a token on both sides
             = (X_q (W_h^Q W_h^Kᵀ)) X_kᵀ      "keys": keys are the basis, one for all heads
             = X_q ((X_k W_h^K) W_h^Qᵀ)ᵀ      "queries": queries are the basis, one for all heads
    A_h V_h  = A_h (X_v W_h^V)                "projected"
             = (A_h X_v) W_h^V                "basis": values are the basis, one for all heads

The basis of a map is narrow (9 window means, 49 numbers of a 7×7 map) where queries and keys are 64 numbers a head; of
tokens it is wide. Which order is cheapest is counted once, when the unit is built. Large scores are never formed as a
whole: torch's fused attention where its shape rules fit, blocks of our own on a CPU (`mi2p_inject.units.blockwise`).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from mi2p_inject.units.blockwise import BLOCK, BlockwiseAttention
from mi2p_inject.units.embed import MULTIPLE, SiteEmbedder, SourceEmbedder

ScoreOrder = Literal["projected", "keys", "queries"]
ValueOrder = Literal["projected", "basis"]
Kernel = Literal["plain", "blocks", "fused"]


@dataclass(frozen=True)
class Order:
    """How a unit takes its products.

    Attributes:
        scores: see above.
        values: see above.
        fused: `scaled_dot_product_attention` fits, which never holds the scores.
        operations: multiplications counted for a batch.
    """

    scores: ScoreOrder
    values: ValueOrder
    fused: bool
    operations: int


@dataclass(frozen=True)
class Sizes:
    """All that the count depends on: a batch, its tokens, the widths of the three bases, the heads."""

    batch: int
    queries: int
    keys: int
    query_width: int
    key_width: int
    value_width: int
    heads: int
    d_k: int
    d_v: int


def cheapest(sizes: Sizes) -> Order:
    """The order with the fewest operations.

    Example:
        >>> from mi2p_inject.units.attention import Sizes, cheapest
        >>> words_from_picture = Sizes(8, 64, 1024, 769, 32, 80, heads=12, d_k=64, d_v=64)
        >>> order = cheapest(words_from_picture)
        >>> order.scores, order.values, order.fused
        ('keys', 'basis', False)
        >>> picture_from_words = Sizes(8, 256, 64, 32, 768, 768, heads=8, d_k=64, d_v=392)
        >>> order = cheapest(picture_from_words)
        >>> order.scores, order.values, order.fused
        ('queries', 'projected', False)
        >>> text_from_text = Sizes(8, 64, 64, 769, 768, 768, heads=12, d_k=64, d_v=64)
        >>> order = cheapest(text_from_text)
        >>> order.scores, order.values, order.fused
        ('projected', 'projected', True)
    """
    orders = [
        Order(scores, values, _fuses(sizes, scores, values), _score_count(sizes, scores) + _value_count(sizes, values))
        for scores, values in itertools.product(get_args(ScoreOrder), get_args(ValueOrder))
    ]
    return min(orders, key=lambda order: order.operations)


def attend(
    order: Order, query: SiteEmbedder, key: SourceEmbedder, value: SourceEmbedder, bases: tuple[Tensor, Tensor, Tensor],
    mask: Tensor | None, scale: float, frozen: bool,
) -> Tensor:  # fmt: skip
    """softmax(scale · QKᵀ)V of all heads side by side.

    Args:
        order: of the products.
        query, key, value: the embedders.
        bases: what their `basis` gave: (B, N, ·), (B, M, ·), (B, M, ·).
        mask: (B, M) True for tokens to attend to; every row has one.
        scale: 1/√d_k.
        frozen: the source features need no gradient.

    Returns:
        (B, N, heads·d_v).
    """
    queries, keys = _pair(order.scores, query, key, bases[0], bases[1], scale)
    values = _split(value(bases[2]), value.heads) if order.values == "projected" else _filled(bases[2])[:, None]
    batch, heads, tokens = len(queries), query.heads, bases[0].shape[1]
    if keys.shape[1] == values.shape[1] == 1:  # one attention of heads·N queries
        queries = queries.flatten(1, 2).unsqueeze(1)
    else:
        queries, keys, values = (one.expand(-1, heads, -1, -1) for one in (queries, keys, values))
    if mask is not None:
        mask = mask[:, None, None, :]
    kernel = kernel_for(order, queries, keys)
    if kernel == "fused":
        read = _fused(queries, keys, values, mask)
    elif kernel == "blocks":
        given = (key.given, value.given) if frozen and order.values == "basis" and order.scores == "keys" else (0, 0)
        read = _blockwise(queries, keys, values, mask, given)
    else:
        read = _plain(queries, keys, values, mask)
    read = read.reshape(batch, heads, tokens, read.shape[-1])
    if order.values == "projected":
        return read.transpose(1, 2).flatten(2)
    read = _by_head(read[..., : value.width], value.by_head().mT)
    bias = value.project.bias
    return read.transpose(1, 2).flatten(2) + bias.to(read.dtype)  # rows of the attention sum to one


def kernel_for(order: Order, queries: Tensor, keys: Tensor) -> Kernel:
    """Small scores are formed as a whole; large ones in blocks on a CPU, by a fused kernel elsewhere if it fits."""
    if torch.compiler.is_compiling() or queries.device.type != "cpu":
        return "fused" if order.fused else "plain"
    return "blocks" if queries[..., 0].numel() * keys.shape[-2] > BLOCK else "plain"


def _pair(
    order: ScoreOrder, query: SiteEmbedder, key: SourceEmbedder, left: Tensor, right: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Queries (B, heads or 1, N, ·) and keys (B, heads or 1, M, ·) whose products are the scaled scores."""
    if order == "projected":
        return _split(query(left) * scale, query.heads), _split(key(right), key.heads)
    bias = query.bias_by_head()
    rows = scale * key.by_head()  # (heads, d_k, key width)
    if order == "keys":
        rows = _filled(rows)
        weight = (rows.mT @ query.by_head()).flatten(0, 1)  # of all heads: (heads·key width, query width)
        offset = None if bias is None else (bias @ rows).flatten()
        return _split(F.linear(left, weight, offset), query.heads), _filled(right).unsqueeze(1)
    columns = query.by_head() if bias is None else torch.cat([query.by_head(), bias.mT], -1)
    keys = F.linear(right, (_filled(columns).mT @ rows).flatten(0, 1))
    return _filled(left, ones=bias is not None).unsqueeze(1), _split(keys, key.heads)


def _plain(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    scores = queries @ keys.mT
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores.softmax(-1).to(values.dtype) @ values


def _blockwise(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, given: tuple[int, int]) -> Tensor:
    batch, heads = queries.shape[:2]
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else queries.dtype
    if mask is not None:
        mask = mask.expand(-1, heads, -1, -1).flatten(0, 2)
    flat = (one.to(dtype).flatten(0, 1) for one in (queries, keys, values))
    read: Tensor = BlockwiseAttention.apply(*flat, mask, *given).unflatten(0, (batch, heads))
    return read


def _fused(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """The kernels want queries, keys and values of one width: zeros change nothing."""
    width = max(queries.shape[-1], values.shape[-1])
    q, k, v = (F.pad(one, (0, width - one.shape[-1])) for one in (queries, keys, values))
    read = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)
    return read[..., : values.shape[-1]]


def _filled(basis: Tensor, ones: bool = False) -> Tensor:
    """A basis with a column of ones, if asked for, and zeros up to a multiple of `MULTIPLE` columns."""
    columns = [basis]
    if ones:
        columns.append(basis.new_ones(()).expand(*basis.shape[:-1], 1))
    if missing := -(basis.shape[-1] + ones) % MULTIPLE:
        columns.append(basis.new_zeros(()).expand(*basis.shape[:-1], missing))
    return torch.cat(columns, -1) if len(columns) > 1 else basis


def _split(packed: Tensor, heads: int) -> Tensor:
    """(B, N, heads·d) -> (B, heads, N, d)."""
    split: Tensor = packed.unflatten(2, (heads, -1))
    return split.transpose(1, 2)


def _by_head(left: Tensor, right: Tensor) -> Tensor:
    """(B, heads, N, i) times a weight of each head (heads, i, o) -> (B, heads, N, o), as one product a head."""
    batch, _, tokens, _ = left.shape
    flat = left.transpose(0, 1).flatten(1, 2)  # (heads, B·N, i)
    product: Tensor = torch.bmm(flat, right.to(left.dtype)).unflatten(1, (batch, tokens))
    return product.transpose(0, 1)


def _score_count(sizes: Sizes, order: ScoreOrder) -> int:
    s = sizes
    wide = s.heads * s.d_k
    joint = s.query_width * s.key_width * wide
    if order == "projected":
        return s.batch * wide * (s.queries * s.query_width + s.keys * s.key_width + s.queries * s.keys)
    if order == "keys":
        return joint + s.batch * s.heads * s.queries * s.key_width * (s.query_width + s.keys)
    return joint + s.batch * s.heads * s.keys * s.query_width * (s.key_width + s.queries)


def _value_count(sizes: Sizes, order: ValueOrder) -> int:
    s = sizes
    if order == "projected":
        return s.batch * s.heads * s.d_v * s.keys * (s.value_width + s.queries)
    return s.batch * s.heads * s.queries * s.value_width * (s.keys + s.d_v)


def _fuses(sizes: Sizes, scores: ScoreOrder, values: ValueOrder) -> bool:
    """Where it fits: queries, keys and values are nearly of one width, as fused kernels want."""
    s = sizes
    narrow, wide = sorted(
        ({"projected": s.d_k, "keys": s.key_width, "queries": s.query_width}[scores],
         s.d_v if values == "projected" else s.value_width)
    )  # fmt: skip
    return wide <= 1.25 * narrow
