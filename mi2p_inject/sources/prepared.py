"""A source as the units read it, with what several of them need of it computed once a forward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from mi2p_inject.core.errors import SourceError
from mi2p_inject.core.numerics.normalise import normalised
from mi2p_inject.core.numerics.windows import window_means

__all__ = ["STRENGTH_EPSILON", "PreparedSource"]

STRENGTH_EPSILON = 1e-8
"""Keeps the strengths of a map whose channels are all alike (a missing row's zeros) at zero."""

T = TypeVar("T")


@dataclass
class PreparedSource:
    """Source features as the units read them: built once a forward, shared by every unit.

    Padding and missing rows are zeroed (a NaN there reaches neither output nor gradient), the map is pooled to the
    grid the units were built for, and its window means are computed once for each kernel size.
    """

    tokens: Tensor
    """(B, M, P): the M tokens a unit attends to; of a map, its channels with their P = H·W numbers."""
    mask: Tensor | None
    """(B, M) True for tokens to attend to; None: all. A row without any real token attends everywhere, to zeros."""
    rows: Tensor | None
    """(B,) True for rows that get a residual; None: all."""
    grid: tuple[int, int] | None
    _derived: dict[tuple[Any, ...], Any] = field(default_factory=dict)

    @property
    def batch(self) -> int:
        """Number of rows."""
        return self.tokens.shape[0]

    def to(self, device: torch.device | None = None, dtype: torch.dtype | None = None) -> PreparedSource:
        """The same on another device or in another floating dtype, converted at the first call and kept."""
        key = device or self.tokens.device, dtype or self.tokens.dtype
        if key == (self.tokens.device, self.tokens.dtype):
            return self

        def convert() -> PreparedSource:
            tokens, mask, rows = self.tokens.to(*key), self.mask, self.rows
            if tokens.device != self.tokens.device:
                mask, rows = (None if one is None else one.to(tokens.device) for one in (mask, rows))
            return PreparedSource(tokens, mask, rows, self.grid)

        return self._once(("converted", *key), convert)

    def windows(self, kernel_size: int) -> Tensor:
        """Window means (B, C, kernel_size²) of the source map, computed at the first call and kept."""
        grid = self.grid
        if grid is None:
            raise SourceError("only a map has window means", expected="a map", given="tokens", fix="report this bug")
        return self._once(("windows", kernel_size), lambda: window_means(self.tokens.unflatten(2, grid), kernel_size))

    def strengths(self) -> Tensor:
        """How active each channel of the source map is, (B, C): its mean, standardised over the sample's channels."""
        return self._once(("strengths",), self._make_strengths)

    def pooled(self, norm: bool = False) -> Tensor:
        """The mean over the real tokens, or over the pixels of each channel: (B, width); zero in missing rows.

        Args:
            norm: layer-normalised.
        """
        if norm:
            return self._once(("pooled", norm), lambda: normalised(self.pooled()))
        return self._once(("pooled", norm), self._make_pooled)

    def normalised(self) -> PreparedSource:
        """The same with each token layer-normalised, made at the first call and kept; of a map, itself."""
        if self.grid is not None:
            return self
        return self._once(("normalised",), lambda: PreparedSource(normalised(self.tokens), self.mask, self.rows, None))

    def _once(self, name: tuple[Any, ...], make: Callable[[], T]) -> T:
        """What `make` gives, kept for forwards with gradients and for those without: these have no graph to hand on.

        Of a source that requires gradients nothing is kept: a checkpointed region, run again for its graph, would find
        there what it made itself at first.
        """
        if self.tokens.requires_grad:
            return make()
        key = (*name, torch.is_grad_enabled())
        if key not in self._derived:
            self._derived[key] = make()
        found: T = self._derived[key]
        return found

    def _make_strengths(self) -> Tensor:
        means = self.tokens.float().mean(2) if self.tokens.itemsize < 4 else self.tokens.mean(2)
        centred = means - means.mean(1, keepdim=True)
        scale = centred.detach().abs().amax(1, keepdim=True).clamp_min(1)  # squares of large numbers are infinite
        scaled = centred / scale
        return scaled * (scaled.square().mean(1, keepdim=True) + STRENGTH_EPSILON / scale.square()).rsqrt()

    def _make_pooled(self) -> Tensor:
        tokens = self.tokens.float() if self.tokens.itemsize < 4 else self.tokens
        if self.grid is not None:
            mean = tokens.mean(2)
        elif self.mask is None:
            mean = tokens.mean(1)
        else:  # padding is zeros; no token at all counts as one
            mean = tokens.sum(1) / self.mask.sum(1, keepdim=True).clamp(min=1)
        return mean.to(self.tokens.dtype)
