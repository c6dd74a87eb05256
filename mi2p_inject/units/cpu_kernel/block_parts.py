"""What attention in blocks walks over: its blocks, and the keys or values of each, put together of their parts."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

__all__ = ["BLOCK", "LEAST_ROWS", "Blocks", "Side", "half", "pieces", "product_by_rows", "scratch"]

BLOCK = 2**20
"""Scores of a block, and numbers of a buffer that is kept, at most: 4 MB."""

NARROW, MANY = 12, 2**18
"""Fewer columns, of a product with so many numbers on its left, are formed transposed."""

LEAST_ROWS = 64
"""Of a part, for a product to be divided by rows."""


class Blocks:
    """Blocks of scores: the rows of one group, or a part of them; where heads ask with the same queries and a head's
    scores are few, of several groups.

    Args:
        queries: (G or fewer groups, N, d).
        parts: three of the keys, three of the values (see `mi2p_inject.units.token_factors.TokenFactors`).
        mask: (G or fewer groups, M) or None.
        width: of the whole values.

    Attributes:
        groups: G, the largest number of groups among queries, keys and values.
        together: groups of a block.
        share: blocks in turn that ask with the same queries.
        cuts: the rows of each block of a group.
        parts: in how many its rows enter a product, at most.
    """

    def __init__(self, queries: Tensor, parts: list[Tensor], mask: Tensor | None, width: int) -> None:
        self.queries = queries.unbind()
        self.unseen = None if mask is None else (~mask).unbind()
        self.groups = max(len(queries), len(parts[0]), len(parts[3]))
        (_, rows, wide), tokens = queries.shape, parts[0].shape[1]
        self.together = self._together(rows * tokens, ((parts[:3], wide), (parts[3:], width)))
        self.share = self.groups // max(1, len(queries)) // self.together
        step = max(1, math.ceil(rows / max(1, math.ceil(rows * tokens * self.together / max(1, BLOCK)))))
        self.cuts = [slice(at, min(at + step, rows)) for at in range(0, rows, step)]
        self.parts = max((pieces(cut.stop - cut.start) for cut in self.cuts), default=1)

    def _together(self, scores: int, sides: Sequence[tuple[list[Tensor], int]]) -> int:
        for (given, learned, _), width in sides:
            if learned is not None or len(given) < self.groups or given.shape[2] < width:
                return 1
        masks = 1 if self.unseen is None else len(self.unseen)
        most = math.gcd(self.groups // max(1, len(self.queries)), self.groups // max(1, masks))
        return next((few for few in range(most, 1, -1) if most % few == 0 and few * scores <= BLOCK), 1)

    def __iter__(self) -> Iterator[tuple[int, slice]]:
        """Of each block: the number of its groups' queries, keys and values, and its rows of them."""
        for number in range(self.groups // self.together):
            for rows in self.cuts:
                yield number, rows

    def scores(self, number: int, rows: slice, keys: Side) -> Tensor:
        """(rows, together, M) before their softmax, in a buffer that the next block overwrites.

        Those whose softmax is one of base 2, but in half precision, where torch's takes them as they are.
        """
        queries = self.asking(number)[rows]
        scores = scratch("scores", (len(queries), self.together, keys.tokens), queries)
        factor = 1.0 if half(queries) else math.log2(math.e)
        scores.flatten(1).addmm_(queries, keys.rows(number).T, beta=0, alpha=factor)
        if self.unseen is not None:
            unseen = self.unseen[number * self.together * len(self.unseen) // self.groups]
            scores.masked_fill_(unseen, torch.finfo(scores.dtype).min)
        return scores

    def asking(self, number: int) -> Tensor:
        """(N, d) the queries of a block."""
        return self.queries[number // self.share]

    def split(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """(G, N, ·) -> of each block (N, ·), or (together, N, ·) for more groups than one."""
        return tensor.unbind() if self.together == 1 else tensor.split(self.together)

    def split_rows(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """(G, N) in the order of the blocks -> of each block (N, together)."""
        return tensor.view(-1, tensor.shape[1], self.together).unbind() if tensor.numel() else ()


class Side:
    """Keys or values: a few samples' at a time, whole, in a buffer that the next few overwrite; and their gradients.

    Args:
        name: of the buffer.
        parts: of a `TokenFactors`.
        width: of the whole, filled with zeros.
        blocks: who asks. With several groups in a block, the parts are `given` alone, one for each group.
        wanted: which parts need a gradient.
    """

    def __init__(
        self, name: str, parts: list[Tensor], width: int, blocks: Blocks,
        wanted: tuple[bool, ...] = (False, False, False),
    ) -> None:  # fmt: skip
        self.given, self.learned, self.strengths = parts
        self.together, self.share = blocks.together, blocks.groups // max(1, len(self.given))
        self.split = self.given.shape[2]
        self.end = self.split if self.learned is None else self.split + self.learned.shape[1]
        self.tokens, self.wanted = self.given.shape[1], any(wanted)
        self.name, self.width = name, width
        self.first, self.filled = 0, blocks.split(self.given) if width == self.split else ()
        self.buffer: Tensor | None = None
        of_given, of_learned, of_strengths = wanted
        self.sums = (
            self.given.new_zeros(self.given.shape) if of_given else None,  # contiguous: its rows are written as views
            self.learned.new_zeros(blocks.parts, *self.learned.shape[::-1]) if of_learned else None,
            torch.zeros_like(self.strengths) if of_strengths else None,
        )
        self.places = () if self.sums[0] is None else blocks.split(self.sums[0])

    def rows(self, number: int) -> Tensor:
        """(together · M, width)."""
        return self[number] if self.together == 1 else self[number].flatten(0, 1)

    def __getitem__(self, number: int) -> Tensor:
        """(M, width); (together, M, width) for more groups than one."""
        place = number // self.share - self.first
        if not 0 <= place < len(self.filled):
            place = self._fill(number // self.share)
        return self.filled[place]

    def _fill(self, sample: int) -> int:
        """Put the parts of a sample and of those after it together, as many as the buffer takes: 0, its place there."""
        few = slice(sample, sample + max(1, BLOCK // max(1, self.tokens * self.width)))
        given = self.given[few]
        if self.buffer is None:
            self.buffer = scratch(self.name, (len(given), self.tokens, self.width), given)
        whole = self.buffer[: len(given)]
        whole[..., : self.split] = given
        if self.learned is not None and self.strengths is not None:
            torch.mul(self.strengths[few].unsqueeze(-1), self.learned, out=whole[..., self.split : self.end])
        elif self.learned is not None:
            whole[..., self.split : self.end] = self.learned
        if self.end < self.width:
            whole[..., self.end :] = 0
        self.first, self.filled = sample, whole.unbind()
        return 0

    def collect_read(self, number: int, attention: Tensor, above: Tensor) -> None:
        """Add attentionᵀ above, the gradient of a block's values, to those of their parts."""
        if self.together == 1:
            self.collect(number, attention[:, 0], above)
        elif self.places:  # each group is in one block only
            torch.bmm(attention.permute(1, 2, 0), above, out=self.places[number])

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
            rows += _products(right[:, : self.split], left).sum(0).T
        if self.learned is None or (of_learned is None and of_strengths is None):
            return
        right = right[:, self.split : self.end]
        if self.strengths is None:
            if of_learned is not None:
                right, left = _in_pieces(right), _in_pieces(left)
                of_learned[: len(left)].baddbmm_(right.mT, left)
            return
        products = _products(right, left)
        if of_strengths is not None:
            of_strengths[sample] += (products.sum(0).T * self.learned).sum(1)
        if of_learned is not None:
            of_learned[: len(products)].addcmul_(products, self.strengths[sample])

    def gradients(self) -> list[Tensor | None]:
        """Of the parts; None where none is wanted."""
        of_given, of_learned, of_strengths = self.sums
        return [of_given, None if of_learned is None else of_learned.sum(0).T.contiguous(), of_strengths]


def half(scores: Tensor) -> bool:
    """Whether these numbers are too coarse to take a logarithm from: torch's softmax computes in single precision."""
    return scores.dtype in (torch.bfloat16, torch.float16)


def pieces(rows: int) -> int:
    """In how many equal parts rows enter a product, each a product of its own: two for each thread, or one.

    Left to itself, MKL splits products that are long and narrow otherwise, and takes up to twice as long.
    """
    threads = torch.get_num_threads()
    return next((parts for parts in (2 * threads, threads) if rows % parts == 0 and rows >= LEAST_ROWS * parts), 1)


def product_by_rows(left: Tensor, right: Tensor, out: Tensor, *, add: bool = False) -> None:
    """left right: (rows, K)(K, w) -> out (rows, w), or added to it.

    A narrow one is formed transposed: MKL takes four times as long for 9 columns as for 9 rows, and longer than for 32.
    """
    width, parts = right.shape[1], _in_pieces(left)
    if width < NARROW and left.numel() >= MANY:
        shape = (len(parts), width, parts.shape[1])
        found = torch.bmm(right.T.expand(len(parts), -1, -1), parts.mT, out=scratch("narrow", shape, left)).mT
        _in_pieces(out).add_(found) if add else _in_pieces(out).copy_(found)
    elif add:
        out.addmm_(left, right)
    else:
        torch.bmm(parts, right.expand(len(parts), -1, -1), out=_in_pieces(out))


def _products(right: Tensor, left: Tensor) -> Tensor:
    """rightᵀ left in parts whose sum it is; into a buffer, and so in this very dtype, whatever autocast is on."""
    right, left = _in_pieces(right).mT, _in_pieces(left)
    return torch.bmm(right, left, out=scratch("product", (len(left), right.shape[1], left.shape[2]), left))


def _in_pieces(tensor: Tensor) -> Tensor:
    """(rows, ·) -> (pieces, rows ÷ pieces, ·)."""
    split: Tensor = tensor.unflatten(0, (pieces(len(tensor)), -1))
    return split


_buffers = threading.local()


def scratch(name: str, shape: Sequence[int], like: Tensor) -> Tensor:
    """A buffer, kept by this thread up to a block's size: fresh memory is out of the cache, and a fault every page."""
    size = math.prod(shape)
    if size > BLOCK:
        return torch.empty(shape, dtype=like.dtype, device=like.device)
    key = f"{name} {like.dtype}"
    kept: Tensor | None = getattr(_buffers, key, None)
    if kept is None or kept.numel() < size:
        with torch.inference_mode(False):  # a tensor made in inference mode cannot be written outside of it
            kept = torch.empty(BLOCK, dtype=like.dtype, device=like.device)
        setattr(_buffers, key, kept)
    return kept[:size].view(shape)
