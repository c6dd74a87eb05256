"""softmax(QKᵀ/√head_dim)V, its products taken in the cheapest order.

With X the shared columns of an embedder and W_h its weights for head h (see `mi2p_inject.units.embed`), all of these
are equal:

    Q_h K_hᵀ = (X_q W_h^Q)(X_k W_h^K)ᵀ        "projected": heads·head_dim numbers a token on both sides
             = (X_q (W_h^Q W_h^Kᵀ)) X_kᵀ      "keys": keys are the shared columns, one for all heads
             = X_q ((X_k W_h^K) W_h^Qᵀ)ᵀ      "queries": queries are the shared columns, one for all heads
    A_h V_h  = A_h (X_v W_h^V)                "projected"
             = (A_h X_v) W_h^V                "shared": values are the shared columns, one for all heads

The shared columns of a map are few (9 window means, 49 numbers of a 7×7 map) where queries and keys are 64 numbers a
head; those of tokens are many. Which order is cheapest is counted once, when the unit is built. Large scores are never
formed as a whole: torch's fused attention where its shape rules fit, blocks of our own on a CPU
(`units.cpu_kernel.blockwise`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mi2p_inject.core.numerics.weights_taken import give_weights, wants_weights
from mi2p_inject.units.base import attention_weights
from mi2p_inject.units.cpu_kernel.block_operator import opaque
from mi2p_inject.units.cpu_kernel.blockwise import attend_in_blocks
from mi2p_inject.units.embed import SiteEmbedder, SourceEmbedder, filled
from mi2p_inject.units.product_order import Order, ScoreOrder, kernel_for, takes_two_widths
from mi2p_inject.units.token_factors import TokenFactors

__all__ = ["attend"]


def attend(
    order: Order,
    query: SiteEmbedder,
    key: SourceEmbedder,
    value: SourceEmbedder,
    factors: tuple[TokenFactors, TokenFactors, TokenFactors],
    mask: Tensor | None,
    scale: float,
) -> Tensor:
    """softmax(scale · QKᵀ)V of all heads.

    Args:
        order: of the products.
        query: the embedder of the site.
        key: that of the source.
        value: that of the source's values.
        factors: what their `factors` gave: (B, N, ·), (B, M, ·), (B, M, ·).
        mask: (B, M) True for tokens to attend to; every row has one.
        scale: 1/√head_dim.

    Returns:
        (B, heads, N, value_dim).
    """
    (batch, tokens, _), num_heads = factors[0].given.shape, query.num_heads
    of_queries, of_keys = (1 if order.scores == shared else num_heads for shared in ("queries", "keys"))
    projected, recorded = order.values == "projected", wants_weights()
    of_values = num_heads if projected else 1
    value_width = value.weight.shape[0] // num_heads if projected else filled(value.width)
    kernel = kernel_for(order, batch * num_heads * tokens * factors[1].given.shape[1], factors[0].given)
    fused = kernel == "fused" and not recorded
    alone = of_keys == of_values == 1
    one_width = fused and not (alone and takes_two_widths(factors[0].given.device))
    queries, keys = _pair(order.scores, query, key, factors[0], factors[1], scale, value_width if one_width else 0)
    values = TokenFactors(_groups(value.all_heads(factors[2]), num_heads)) if projected else factors[2]
    if alone:  # one attention of N·heads queries, in the order in which they come
        queries, of_queries = queries.unflatten(2, (num_heads, -1)).flatten(1, 2), 1
    elif of_queries == num_heads:
        queries = _groups(queries, num_heads)
    key_width = queries.shape[-1]
    if kernel == "blocks" and not recorded:
        read = _blocks(queries, keys, values, mask, value_width, batch * max(of_queries, of_keys, of_values))
    else:
        if one_width:
            key_width = value_width = max(key_width, value_width)
            queries = _padded(queries, key_width)
        whole = (queries, of_queries), (keys.whole(key_width), of_keys), (values.whole(value_width), of_values)
        most = max(of_queries, of_keys, of_values)
        q, k, v = (one.unflatten(0, (batch, groups)).expand(-1, most, -1, -1) for one, groups in whole)
        seen = None if mask is None else mask[:, None, None, :]
        if recorded:
            read = _recorded(q, k, v, seen, tokens)
        else:
            read = _fused(q, k, v, seen) if fused else _plain(q, k, v, seen)
        read = read[..., : values.width]
    if alone:
        read = read.reshape(batch, tokens, num_heads, read.shape[-1]).transpose(1, 2)
    else:
        read = read.reshape(batch, num_heads, tokens, read.shape[-1])
    if not projected:  # rows of the attention sum to one: the bias is added once
        read = _by_head(read[..., : value.width], value.by_head().mT, value.bias_by_head())
    return read


def _pair(
    order: ScoreOrder,
    query: SiteEmbedder,
    key: SourceEmbedder,
    left: TokenFactors,
    right: TokenFactors,
    scale: float,
    least: int,
) -> tuple[Tensor, TokenFactors]:
    """Queries (B, N, · or heads·) and keys (B or B·heads, M, ·) whose products are the scaled scores.

    Some fused kernels want queries, keys and values of one width, and zeros change nothing. Where a weight makes the
    queries they come `least` wide, as zeros in it cost less than zeros beside them. The keys lack theirs.
    """
    if order == "projected":
        return query.all_heads(left) * scale, TokenFactors(_groups(key.all_heads(right), key.num_heads))
    bias = query.bias_by_head()
    rows = scale * key.by_head()  # (heads, head_dim, key width)
    if order == "keys":
        rows = _padded(rows, max(filled(key.width), least))
        weight = (rows.mT @ query.by_head()).flatten(0, 1)  # of all heads: (heads·key width, query width)
        offset = None if bias is None else (bias @ rows).flatten()
        return F.linear(left.whole(), weight, offset), right
    columns = query.by_head() if bias is None else torch.cat([query.by_head(), bias.mT], -1)
    width = max(filled(query.width + int(bias is not None)), least)
    columns = _padded(columns, width)
    # transposed afterwards: the gradients of the weights are laid out as these, as the graphs of torch 2.6 want
    keys = F.linear(right.whole(), (rows.mT @ columns).mT.flatten(0, 1))
    return left.whole(width, ones=bias is not None), TokenFactors(_groups(keys, key.num_heads))


def _plain(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    return attention_weights(queries, keys, mask).to(values.dtype) @ values


def _recorded(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, tokens: int) -> Tensor:
    """As `_plain`, of whose result the weights that are handed over (B, heads, N, M) stand in the graph.

    One attention of N·heads queries (B, 1, N·heads, M) is taken apart for that and put together again.
    """
    weights = attention_weights(queries, keys, mask)
    if weights.shape[2] == tokens:
        give_weights(weights)
    else:
        by_head = weights.squeeze(1).unflatten(1, (tokens, -1)).transpose(1, 2)
        give_weights(by_head)
        weights = by_head.transpose(1, 2).flatten(1, 2).unsqueeze(1)
    return weights.to(values.dtype) @ values


def _blocks(
    queries: Tensor, keys: TokenFactors, values: TokenFactors, mask: Tensor | None, width: int, groups: int
) -> Tensor:
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else queries.dtype
    queries, keys, values = queries.to(dtype), keys.to(dtype), values.to(dtype)
    if not torch.compiler.is_compiling():
        return attend_in_blocks(queries, keys, values, mask, width)
    parts = (keys.given, keys.learned, keys.strengths, values.given, values.learned, values.strengths)
    read: Tensor = opaque(queries, *parts, mask, width, groups)[0]
    return read


def _fused(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=1.0)


def _padded(columns: Tensor, width: int) -> Tensor:
    """With zeros up to a width; `F.pad` would copy what is as wide already, and its gradient."""
    missing = width - int(columns.shape[-1])
    return F.pad(columns, (0, missing)) if missing else columns


def _groups(packed: Tensor, num_heads: int) -> Tensor:
    """(B, N, heads·d) -> (B·heads, N, d)."""
    split: Tensor = packed.unflatten(2, (num_heads, -1))
    return split.transpose(1, 2).flatten(0, 1)


def _by_head(left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
    """(B, heads, N, i) times a weight of each head (heads, i, o) plus a bias (heads, 1, o) -> (B, heads, N, o).

    One product a head, of rows where they stand.
    """
    batch, _, tokens, _ = left.shape
    flat = left.transpose(0, 1).flatten(1, 2)  # (heads, B·N, i)
    right = right.to(left.dtype)
    product = flat @ right if bias is None else torch.baddbmm(bias.to(left.dtype), flat, right)
    split: Tensor = product.unflatten(1, (batch, tokens))
    return split.transpose(0, 1)
