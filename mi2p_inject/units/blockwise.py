"""Attention on a CPU whose scores, keys and values never exist as a whole.

What is large costs more to allocate than to compute: every fresh page of it is a fault. Here scores are formed block by
block in two small buffers that stay in the processor's cache, and formed again in the backward pass. Keys and values
are put together of their parts (`mi2p_inject.units.basis`) a sample at a time, and the gradients of what all samples
share are summed in place. Where heads ask with the same queries and a head's scores are few, a block is several heads'.
Unlike torch's fused kernels it wants no common width of queries, keys and values, and what a
frozen source gave gets no gradient computed.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from mi2p_inject.units.basis import Basis

BLOCK = 2**19
"""Scores of a block, at most: 2 MB."""


def attend_in_blocks(queries: Tensor, keys: Basis, values: Basis, mask: Tensor | None, width: int) -> Tensor:
    """softmax(QKᵀ)V.

    Args:
        queries: (G, N, d) with d at least the keys' width: more columns meet zeros.
        keys: of M tokens; G or fewer groups, each shared by as many groups of queries.
        values: of M tokens; as the keys.
        mask: (·, M) True for tokens to attend to; as the keys. None: all.
        width: of the result, at least the values': more columns are zeros.

    Returns:
        (G, N, width), where G is the largest number of groups among queries, keys and values.

    Example:
        >>> import torch
        >>> from mi2p_inject.units.basis import Basis
        >>> from mi2p_inject.units.blockwise import attend_in_blocks
        >>> q, k, v = torch.randn(2, 5, 3), torch.randn(2, 4, 3), torch.randn(2, 4, 6)
        >>> out = attend_in_blocks(q, Basis(k), Basis(v), None, 6)
        >>> torch.allclose(out, (q @ k.mT).softmax(-1) @ v, atol=1e-6)
        True
    """
    parts = (keys.given, keys.learned, keys.strengths, values.given, values.learned, values.strengths)
    attended: Tensor = BlockwiseAttention.apply(queries, *parts, mask, width)
    return attended


class BlockwiseAttention(torch.autograd.Function):
    """`attend_in_blocks`: queries, three parts of keys, three of values, mask, width -> (G, N, width)."""

    @staticmethod
    def forward(*inputs: Any) -> Tensor:
        attended: Tensor = forward(*inputs)
        return attended

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.width = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[:7]
        # With gradients on, these gradients are to be differentiated themselves.
        found = (_differentiable if torch.is_grad_enabled() else backward)(*ctx.saved_tensors, ctx.width, grad, wanted)
        return *found, None, None


def forward(*inputs: Any) -> Tensor:
    """Of what `BlockwiseAttention` takes."""
    queries, *parts, mask, width = inputs
    groups = max(len(queries), len(parts[0]), len(parts[3]))
    together = _together(queries, parts, mask, width, groups)
    keys = _Side(parts[:3], queries.shape[2], groups, together)
    values = _Side(parts[3:], width, groups, together)
    out: Tensor = queries.new_empty(groups, queries.shape[1], width)
    found = _by_block(out, together)
    for number, rows, _, attention in _blocks(queries, keys, mask, groups, together):
        if together == 1:
            torch.mm(attention, values[number], out=_cut(found[number], rows))
        else:
            torch.bmm(_apart(attention, together), values[number], out=found[number])
    return out


def backward(*inputs: Any) -> list[Tensor | None]:
    """The gradients of queries and parts.

    Args:
        inputs: as `forward`'s, the gradient of its result, and for queries and each part whether a gradient is wanted.
    """
    queries, *parts, mask, width, grad, wanted = inputs
    groups = len(grad)
    together = _together(queries, parts, mask, width, groups)
    keys = _Side(parts[:3], queries.shape[2], groups, together, wanted[1:4])
    values = _Side(parts[3:], width, groups, together, wanted[4:7])
    share = groups // max(1, len(queries)) // together  # blocks of the same queries
    grad_queries = torch.empty_like(queries) if wanted[0] else None
    found, grads = grad_queries.unbind() if grad_queries is not None else (), _by_block(grad, together)
    for number, rows, asking, attention in _blocks(queries, keys, mask, groups, together):
        above = _cut(grads[number], rows)
        values.collect_read(number, attention, above)
        if not (found or keys.wanted):
            continue
        of_scores = _scratch("gradients", attention.shape, attention)
        if together == 1:
            torch.mm(above, values[number].T, out=of_scores)
        else:
            torch.bmm(above, values[number].mT, out=_apart(of_scores, together))
        split = of_scores.view(len(of_scores), together, -1), attention.view(len(attention), together, -1)
        torch.ops.aten._softmax_backward_data.out(*split, -1, attention.dtype, grad_input=split[0])
        if found and number % share:
            _cut(found[number // share], rows).addmm_(of_scores, keys.rows(number))
        elif found:
            torch.mm(of_scores, keys.rows(number), out=_cut(found[number // share], rows))
        keys.collect(number, of_scores, asking)
    return [grad_queries, *keys.gradients(), *values.gradients()]


class _Side:
    """Keys or values: a block's at a time, whole, in a buffer that the next block overwrites; and their gradients.

    Args:
        parts: of a `Basis`.
        width: of the whole, filled with zeros.
        groups: how many ask.
        together: groups of a block; with more than one, the parts are `given` alone, one for each group.
        wanted: which parts need a gradient.
    """

    def __init__(
        self, parts: list[Tensor], width: int, groups: int, together: int,
        wanted: tuple[bool, ...] = (False, False, False),
    ) -> None:  # fmt: skip
        self.given, self.learned, self.strengths = parts
        self.together, self.share = together, groups // max(1, len(self.given))
        self.split = self.given.shape[2]
        self.end = self.split if self.learned is None else self.split + self.learned.shape[1]
        self.tokens, self.wanted = self.given.shape[1], any(wanted)
        self.at, self.samples = -1, _by_block(self.given, together)
        of_given, of_learned, of_strengths = wanted
        self.sums = (
            self.given.new_zeros(self.given.shape) if of_given else None,  # contiguous: its rows are written as views
            self.learned.new_zeros(self.learned.shape[::-1]) if of_learned else None,
            torch.zeros_like(self.strengths) if of_strengths else None,
        )
        self.places = () if self.sums[0] is None else _by_block(self.sums[0], together)
        self.buffer = None if width == self.split else self.given.new_zeros(self.tokens, width)
        if self.buffer is not None and self.learned is not None and self.strengths is None:
            self.buffer[:, self.split : self.end] = self.learned

    def rows(self, number: int) -> Tensor:
        """(together · M, width)."""
        return self[number] if self.together == 1 else self[number].flatten(0, 1)

    def __getitem__(self, number: int) -> Tensor:
        """(M, width); (together, M, width) for more groups than one."""
        sample = number // self.share
        if self.buffer is None:
            return self.samples[sample]
        if sample != self.at:
            self.at = sample
            self.buffer[:, : self.split] = self.samples[sample]
            if self.learned is not None and self.strengths is not None:
                torch.mul(self.strengths[sample, :, None], self.learned, out=self.buffer[:, self.split : self.end])
        return self.buffer

    def collect_read(self, number: int, attention: Tensor, above: Tensor) -> None:
        """Add attentionᵀ above, the gradient of a block's values, to those of their parts."""
        if self.together == 1:
            self.collect(number, attention, above)
        elif self.places:  # each group is in one block only
            torch.bmm(_apart(attention, self.together).mT, above, out=self.places[number])

    def collect(self, number: int, left: Tensor, right: Tensor) -> None:
        """Add leftᵀ right (together · M, width), the gradient of a block's whole, to those of its parts.

        The narrow sums are formed transposed: two threads take a third of the time for a product of 31 rows than for
        one of 31 columns.
        """
        sample = number // self.share
        _, of_learned, of_strengths = self.sums
        if self.places:
            place = self.places[sample]
            rows = place if self.together == 1 else place.flatten(0, 1)
            rows += self._product(right[:, : self.split], left).T
        if self.learned is None or (of_learned is None and of_strengths is None):
            return
        right = right[:, self.split : self.end]
        if self.strengths is None:
            if of_learned is not None:
                of_learned.addmm_(right.T, left)
            return
        product = self._product(right, left)
        if of_learned is not None:
            of_learned.addcmul_(product, self.strengths[sample])
        if of_strengths is not None:
            of_strengths[sample] += (product.T * self.learned).sum(1)

    @staticmethod
    def _product(right: Tensor, left: Tensor) -> Tensor:
        """rightᵀ left; into a buffer, and so in this very dtype, whatever autocast is on around a backward."""
        return torch.mm(right.T, left, out=_scratch("product", (right.shape[1], left.shape[1]), left))

    def gradients(self) -> list[Tensor | None]:
        """Of the parts; None where none is wanted."""
        of_given, of_learned, of_strengths = self.sums
        return [of_given, None if of_learned is None else of_learned.T.contiguous(), of_strengths]


def _differentiable(*inputs: Any) -> list[Tensor | None]:
    """`backward` with everything formed as a whole, in operations that autograd can record."""
    queries, *parts, mask, width, grad, wanted = inputs
    tensors = [queries, *parts]
    groups = len(grad)
    whole = (queries, Basis(*parts[:3]).whole(queries.shape[2]), Basis(*parts[3:]).whole(width))
    q, k, v = (one.repeat_interleave(groups // max(1, len(one)), 0) for one in whole)
    scores = q @ k.mT
    if mask is not None:
        unseen = ~mask.repeat_interleave(groups // max(1, len(mask)), 0).unsqueeze(1)
        scores = scores.masked_fill(unseen, torch.finfo(scores.dtype).min)
    asked = [one for one, needed in zip(tensors, wanted, strict=True) if needed]
    found = iter(torch.autograd.grad(scores.softmax(-1) @ v, asked, grad, create_graph=True))
    return [next(found) if needed else None for _, needed in zip(tensors, wanted, strict=True)]


def _together(queries: Tensor, parts: list[Tensor], mask: Tensor | None, width: int, groups: int) -> int:
    """Groups of a block: as many of those with the same queries as have few scores together."""
    for given, learned, whole in ((parts[0], parts[1], queries.shape[2]), (parts[3], parts[4], width)):
        if learned is not None or len(given) < groups or given.shape[2] < whole:
            return 1
    share = math.gcd(groups // max(1, len(queries)), groups if mask is None else groups // max(1, len(mask)))
    scores = queries.shape[1] * parts[0].shape[1]
    return next((few for few in range(share, 1, -1) if share % few == 0 and few * scores <= BLOCK), 1)


def _blocks(
    queries: Tensor, keys: _Side, mask: Tensor | None, groups: int, together: int
) -> Iterator[tuple[int, slice | None, Tensor, Tensor]]:
    """(number of the block, slice of its queries or None for all, these queries, their attention).

    The attention (queries, together · M) stands in a buffer that the next block overwrites.
    """
    asking, tokens = queries.unbind(), queries.shape[1]
    step = max(1, BLOCK // max(1, together * keys.tokens))
    cuts = [None] if tokens <= step else [slice(at, min(at + step, tokens)) for at in range(0, tokens, step)]
    unseen = None if mask is None else (~mask).unbind()
    for number in range(groups // together):
        first = number * together
        for rows in cuts:
            block = _cut(asking[first * len(asking) // groups], rows)
            scores = _scratch("scores", (len(block), together * keys.tokens), block)
            torch.mm(block, keys.rows(number).T, out=scores)
            split = scores.view(len(block), together, -1)
            if unseen is not None:
                split.masked_fill_(unseen[first * len(unseen) // groups], torch.finfo(scores.dtype).min)
            torch.softmax(split, -1, out=split)
            yield number, rows, block, scores


def _by_block(tensor: Tensor, together: int) -> tuple[Tensor, ...]:
    """(G, ·, ·) -> of each block (·, ·), or (together, ·, ·) for more groups than one."""
    return tensor.unbind() if together == 1 else tensor.split(together)


def _apart(scores: Tensor, together: int) -> Tensor:
    """(N, together · M) -> (together, N, M)."""
    return scores.view(len(scores), together, -1).transpose(0, 1)


def _cut(tensor: Tensor, rows: slice | None) -> Tensor:
    return tensor if rows is None else tensor[rows]


_buffers = threading.local()


def _scratch(name: str, shape: Sequence[int], like: Tensor) -> Tensor:
    """A buffer of this thread, kept: fresh memory is a fault for every page, and out of the cache."""
    rows, columns = shape
    key = f"{name} {like.dtype}"
    kept: Tensor | None = getattr(_buffers, key, None)
    if kept is None or kept.numel() < rows * columns:
        with torch.inference_mode(False):  # a tensor made in inference mode cannot be written outside of it
            kept = torch.empty(max(BLOCK, rows * columns), dtype=like.dtype)
        setattr(_buffers, key, kept)
    return kept[: rows * columns].view(rows, columns)
