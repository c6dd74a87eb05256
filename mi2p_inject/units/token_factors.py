"""The numbers of a token that all heads share, kept in the parts they come from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["TokenFactors"]


@dataclass(frozen=True)
class TokenFactors:
    """Tokens in parts: [given | strengths · learned].

    The source gave `given`, the same to all units; `learned` is the same for every sample. Side by side they would be
    copied for each unit and each sample, and so would their gradients: attention in blocks reads the parts.

    Args:
        given: (B, N, g) what view or source give, or what was computed from them.
        learned: (N, r) a learned embedding of each token; None: r = 0.
        strengths: (B, N) how strong each token's embedding is; None: 1.

    Examples:
        >>> import torch
        >>> from mi2p_inject.units.token_factors import TokenFactors
        >>> TokenFactors(torch.zeros(2, 5, 9), torch.ones(5, 7)).whole().shape
        torch.Size([2, 5, 16])
    """

    given: Tensor
    learned: Tensor | None = None
    strengths: Tensor | None = None

    @property
    def width(self) -> int:
        """Of the whole: g + r."""
        return int(self.given.shape[-1]) + (0 if self.learned is None else int(self.learned.shape[-1]))

    def whole(self, width: int | None = None, ones: bool = False) -> Tensor:
        """(B, N, width): the parts side by side, with a column of ones if asked for, and zeros up to `width`."""
        columns = [self.given]
        if self.learned is not None:
            learned = self.learned.to(self.given.dtype)
            if self.strengths is None:
                columns.append(learned.expand(self.given.shape[0], -1, -1))
            else:
                columns.append(self.strengths.unsqueeze(-1).to(learned.dtype) * learned)
        if ones:
            columns.append(self.given.new_ones(()).expand(*self.given.shape[:-1], 1))
        # `int`: torch.jit.trace has sizes that no bool can be taken from
        if width is not None and (missing := width - self.width - int(ones)):
            columns.append(self.given.new_zeros(()).expand(*self.given.shape[:-1], missing))
        return torch.cat(columns, -1) if len(columns) > 1 else self.given

    def to(self, dtype: torch.dtype) -> TokenFactors:
        """The parts in another floating dtype."""
        learned, strengths = (None if one is None else one.to(dtype) for one in (self.learned, self.strengths))
        return TokenFactors(self.given.to(dtype), learned, strengths)
