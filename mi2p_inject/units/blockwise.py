"""Attention on a CPU whose scores never exist as a whole.

Large scores cost more to allocate than to compute: every fresh page of them is a fault. Here they are formed block by
block in two small buffers that stay in the processor's cache, and formed again in the backward pass. Unlike torch's
fused kernels it wants no common width of queries, keys and values, and the columns of keys and values that a frozen
source gave get no gradient computed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

BLOCK = 2**20
"""Scores of a block, at most: 4 MB."""


class BlockwiseAttention(torch.autograd.Function):
    """softmax(QKᵀ)V.

    Shapes:
        queries (G, N, d), keys (G, M, d), values (G, M, w), mask (G, M) or None, and how many of the first columns of
        keys and of values need no gradient -> (G, N, w).

    Example:
        >>> import torch
        >>> q, k, v = torch.randn(2, 5, 3), torch.randn(2, 4, 3), torch.randn(2, 4, 6)
        >>> out = BlockwiseAttention.apply(q, k, v, None, 0, 0)
        >>> torch.allclose(out, (q @ k.mT).softmax(-1) @ v, atol=1e-6)
        True
    """

    @staticmethod
    def forward(
        queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, given_keys: int, given_values: int
    ) -> Tensor:
        out = queries.new_empty(*queries.shape[:2], values.shape[2])
        for group, rows, attention in _blocks(queries, keys, mask):
            torch.mm(attention, values[group], out=out[group, rows])
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:4])
        ctx.given_keys, ctx.given_values = inputs[4:]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        queries, keys, values, mask = ctx.saved_tensors
        if torch.is_grad_enabled():  # these gradients are to be differentiated themselves
            return *_differentiable(queries, keys, values, mask, grad), None, None, None
        for_queries, for_keys, for_values, *_ = ctx.needs_input_grad
        grad_queries = torch.empty_like(queries) if for_queries else None
        grad_keys = torch.zeros_like(keys) if for_keys else None
        grad_values = torch.zeros_like(values) if for_values else None
        buffer = _buffer(queries, keys)
        for group, rows, attention in _blocks(queries, keys, mask):
            above = grad[group, rows]
            if grad_values is not None:
                grad_values[group, :, ctx.given_values :].addmm_(attention.T, above[:, ctx.given_values :])
            if grad_queries is None and grad_keys is None:
                continue
            of_scores = torch.mm(above, values[group].T, out=buffer[: len(attention)])
            of_scores = torch.ops.aten._softmax_backward_data.out(
                of_scores, attention, -1, attention.dtype, grad_input=of_scores
            )
            if grad_queries is not None:
                torch.mm(of_scores, keys[group], out=grad_queries[group, rows])
            if grad_keys is not None:
                learned = queries[group, rows, ctx.given_keys :]
                grad_keys[group, :, ctx.given_keys :].addmm_(of_scores.T, learned)
        return grad_queries, grad_keys, grad_values, None, None, None


def _differentiable(
    queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The three gradients with the scores formed as a whole, in operations that autograd can record."""
    scores = queries @ keys.mT
    if mask is not None:
        scores = scores.masked_fill(~mask.unsqueeze(1), torch.finfo(scores.dtype).min)
    attention = scores.softmax(-1)
    of_attention = attention * (grad @ values.mT)
    of_scores = of_attention - attention * of_attention.sum(-1, keepdim=True)
    return of_scores @ keys, of_scores.mT @ queries, attention.mT @ grad


def _blocks(queries: Tensor, keys: Tensor, mask: Tensor | None) -> Any:
    """(group, slice of queries, their attention), the attention in one buffer that the next block overwrites."""
    buffer = _buffer(queries, keys)
    for group in range(len(queries)):
        for start in range(0, queries.shape[1], len(buffer)):
            rows = slice(start, min(start + len(buffer), queries.shape[1]))
            scores = torch.mm(queries[group, rows], keys[group].T, out=buffer[: rows.stop - rows.start])
            if mask is not None:
                scores.masked_fill_(~mask[group], torch.finfo(scores.dtype).min)
            yield group, rows, torch.softmax(scores, -1, out=scores)


def _buffer(queries: Tensor, keys: Tensor) -> Tensor:
    rows = min(queries.shape[1], max(1, BLOCK // keys.shape[1]))
    return queries.new_empty(rows, keys.shape[1])
