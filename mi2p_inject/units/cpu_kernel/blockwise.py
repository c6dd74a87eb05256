"""Attention on a CPU whose scores, keys and values never exist as a whole.

What is large costs more to allocate than to compute: every fresh page of it is a fault. Here scores are formed block by
block in two small buffers that stay in the processor's cache, and formed again in the backward pass, for which one
number a row is kept. Keys and values are put together of their parts (`mi2p_inject.units.token_factors`) a few samples
at a time, and the gradients of what all samples share are summed in place (`mi2p_inject.units.cpu_kernel.block_parts`).
Exponentials are those of base 2, which torch takes in a quarter of the time on some processors; the factor that this
asks of the scores costs their product nothing. Unlike torch's fused kernels it wants no common width of queries, keys
and values, and what a frozen source gave gets no gradient computed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mi2p_inject.core.numerics.recording import hides_values
from mi2p_inject.units.cpu_kernel.block_parts import Blocks, Side, half, product_by_rows, scratch
from mi2p_inject.units.token_factors import TokenFactors

__all__ = ["SAFE", "BlockwiseAttention", "attend_in_blocks", "backward", "forward"]

SAFE = 58.0
"""Sums of exponentials between 2⁻⁵⁸ and 2⁵⁸ have lost nothing in single precision, where 2¹²⁷ is the end; where a row
has another sum, its largest score is taken off all of them first."""


def attend_in_blocks(
    queries: Tensor, keys: TokenFactors, values: TokenFactors, mask: Tensor | None, width: int
) -> Tensor:
    """softmax(QKᵀ)V.

    Args:
        queries: (G, N, d) with d at least the keys' width: more columns meet zeros.
        keys: of M tokens; G or fewer groups, each shared by as many groups of queries.
        values: of M tokens; as the keys.
        mask: (·, M) True for tokens to attend to; as the keys. None: all.
        width: of the result, at least the values': more columns are zeros.

    Returns:
        (G, N, width), where G is the largest number of groups among queries, keys and values.

    Examples:
        >>> import torch
        >>> from mi2p_inject.units.token_factors import TokenFactors
        >>> from mi2p_inject.units.cpu_kernel.blockwise import attend_in_blocks
        >>> q, k, v = torch.randn(2, 5, 3), torch.randn(2, 4, 3), torch.randn(2, 4, 6)
        >>> out = attend_in_blocks(q, TokenFactors(k), TokenFactors(v), None, 6)
        >>> torch.allclose(out, (q @ k.mT).softmax(-1) @ v, atol=1e-6)
        True
    """
    parts = (keys.given, keys.learned, keys.strengths, values.given, values.learned, values.strengths)
    attended: Tensor = BlockwiseAttention.apply(queries, *parts, mask, width)[0]
    return attended


class BlockwiseAttention(torch.autograd.Function):
    """`attend_in_blocks`: queries, three parts of keys, three of values, mask, width -> what `forward` gives."""

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, Tensor]:
        return forward(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        *tensors, ctx.width = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*tensors, output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, logs = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:7]
        # these gradients are to be differentiated themselves, or many of them are asked for at once
        if torch.is_grad_enabled() or hides_values(grad):
            found = _differentiable(*tensors, ctx.width, grad, wanted)
        else:
            found = backward(*tensors, ctx.width, logs, grad, wanted)
        return *found, None, None


def forward(*inputs: Any) -> tuple[Tensor, Tensor]:
    """Of what `BlockwiseAttention` takes.

    Returns:
        The result; and (G, N), in the order of the blocks, the logarithm to base 2 of the sum of each row's
        exponentials: with it the backward pass forms the attention by a single exponential. In half precision there
        is nothing in it.
    """
    queries, *parts, mask, width = inputs
    blocks = Blocks(queries, parts, mask, width)
    keys = Side("keys", parts[:3], queries.shape[2], blocks)
    values = Side("values", parts[3:], width, blocks)
    out = queries.new_empty(blocks.groups, queries.shape[1], width)
    logs = queries.new_empty(out.shape[:2])
    if not keys.tokens:
        return out.zero_(), logs.zero_()
    found, noted = blocks.split(out), blocks.split_rows(logs)
    shifted, coarse = False, half(queries)
    of_result = not coarse and width <= keys.tokens  # sums divide scores or result, whichever is smaller
    for number, rows in blocks:
        scores, log = blocks.scores(number, rows, keys), noted[number][rows]
        if coarse:
            torch.softmax(scores, -1, out=scores)
        else:
            sums = _exponentials(scores, log, shifted)
            if not shifted and not bool(log.abs().max() < SAFE):
                shifted, scores = True, blocks.scores(number, rows, keys)
                sums = _exponentials(scores, log, shifted)
            if not of_result:
                scores.div_(sums.unsqueeze(-1))
        read = found[number][..., rows, :]
        if blocks.together == 1:
            product_by_rows(scores[:, 0], values[number], read)
        else:
            torch.bmm(scores.transpose(0, 1), values[number], out=read)
        if of_result:
            read.div_(sums if blocks.together == 1 else sums.T.unsqueeze(-1))
    return out, logs


def _exponentials(scores: Tensor, log: Tensor, shift: bool) -> Tensor:
    """2 to the power of the scores, in their place; the sum of each row, whose logarithm goes to `log`."""
    most = scores.amax(-1) if shift else None
    if most is not None:
        scores.sub_(most.unsqueeze(-1))
    sums = scores.exp2_().sum(-1)
    torch.log2(sums, out=log)
    if most is not None:
        log.add_(most)
    return sums


def backward(*inputs: Any) -> list[Tensor | None]:
    """The gradients of queries and parts.

    Args:
        inputs: as `forward`'s, the logarithms it gave, the gradient of its result, and for queries and each part
            whether a gradient is wanted.
    """
    queries, *parts, mask, width, logs, grad, wanted = inputs
    blocks = Blocks(queries, parts, mask, width)
    keys = Side("keys", parts[:3], queries.shape[2], blocks, wanted[1:4])
    values = Side("values", parts[3:], width, blocks, wanted[4:7])
    grad_queries = torch.empty_like(queries) if wanted[0] else None
    found = () if grad_queries is None else grad_queries.unbind()
    grads, noted = blocks.split(grad), blocks.split_rows(logs)
    for number, rows in blocks:
        attention = blocks.scores(number, rows, keys)
        if half(attention):
            torch.softmax(attention, -1, out=attention)
        else:
            attention.sub_(noted[number][rows].unsqueeze(-1)).exp2_()
        above = grads[number][..., rows, :]
        values.collect_read(number, attention, above)
        if not (found or keys.wanted):
            continue
        of_scores = scratch("gradients", attention.shape, attention)
        if blocks.together == 1:
            torch.mm(above, values[number].T, out=of_scores[:, 0])
        else:
            torch.bmm(above, values[number].mT, out=of_scores.transpose(0, 1))
        torch.ops.aten._softmax_backward_data.out(of_scores, attention, -1, attention.dtype, grad_input=of_scores)
        flat = of_scores.flatten(1)
        if found:
            asked, again = divmod(number, blocks.share)
            product_by_rows(flat, keys.rows(number), found[asked][rows], add=again > 0)
        keys.collect(number, flat, blocks.asking(number)[rows])
    return [grad_queries, *keys.gradients(), *values.gradients()]


def _differentiable(*inputs: Any) -> list[Tensor | None]:
    """`backward` with everything formed as a whole, in operations that autograd can record and `vmap` can batch."""
    queries, *parts, mask, width, grad, wanted = inputs
    groups = len(grad)
    whole = (queries, TokenFactors(*parts[:3]).whole(queries.shape[2]), TokenFactors(*parts[3:]).whole(width))
    q, k, v = (_for_each(one, groups) for one in whole)
    scores = q @ k.mT
    unseen = None if mask is None else ~_for_each(mask, groups).unsqueeze(1)
    if unseen is not None:
        scores = scores.masked_fill(unseen, torch.finfo(scores.dtype).min)
    attention = scores.softmax(-1)
    above = grad @ v.mT
    of_scores = attention * (above - (above * attention).sum(-1, keepdim=True))
    found = [
        _shared(of_scores @ k, len(queries)),
        *_of_parts(of_scores.mT @ q, parts[:3]),
        *_of_parts(attention.mT @ grad, parts[3:]),
    ]
    return [one if needed else None for one, needed in zip(found, wanted, strict=True)]


def _for_each(tensor: Tensor, groups: int) -> Tensor:
    """(G or fewer groups, ...) -> (G, ...)."""
    return tensor.repeat_interleave(groups // max(1, len(tensor)), 0)


def _shared(of_each: Tensor, groups: int) -> Tensor:
    """(G, ...) -> the gradient of what these fewer groups share."""
    return of_each.reshape(groups, len(of_each) // max(1, groups), *of_each.shape[1:]).sum(1)


def _of_parts(of_each: Tensor, parts: list[Any]) -> list[Tensor | None]:
    """The gradients of a `TokenFactors`, from (G, M, width) those of the whole for each group."""
    given, learned, strengths = parts
    of_whole = _shared(of_each, len(given))
    of_given = of_whole.narrow(-1, 0, given.shape[2])
    if learned is None:
        return [of_given, None, None]
    of_rest = of_whole.narrow(-1, given.shape[2], learned.shape[1])
    if strengths is None:
        return [of_given, of_rest.sum(0), None]
    return [of_given, (of_rest * strengths.unsqueeze(-1)).sum(0), (of_rest * learned).sum(-1)]
