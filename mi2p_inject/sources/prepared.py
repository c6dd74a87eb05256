"""A source as the units read it, with what several of them need of it computed once a forward."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from mi2p_inject.core.errors import SourceError
from mi2p_inject.core.numerics.normalise import normalised
from mi2p_inject.core.numerics.windows import window_means

__all__ = ["STRENGTH_EPSILON", "PreparedSource"]

STRENGTH_EPSILON = 1e-8
"""Keeps the strengths of a map whose channels are all alike (a missing row's zeros) at zero."""


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
    _windows: dict[int, Tensor] = field(default_factory=dict)
    _strengths: Tensor | None = None
    _pooled: Tensor | None = None
    _normalised: PreparedSource | None = None
    _converted: dict[tuple[torch.device, torch.dtype], PreparedSource] = field(default_factory=dict)

    @property
    def batch(self) -> int:
        """Number of rows."""
        return self.tokens.shape[0]

    def to(self, device: torch.device | None = None, dtype: torch.dtype | None = None) -> PreparedSource:
        """The same on another device or in another floating dtype, converted at the first call and kept."""
        key = device or self.tokens.device, dtype or self.tokens.dtype
        if key == (self.tokens.device, self.tokens.dtype):
            return self
        if key not in self._converted:
            tokens, mask, rows = self.tokens.to(*key), self.mask, self.rows
            if tokens.device != self.tokens.device:
                mask, rows = (None if one is None else one.to(tokens.device) for one in (mask, rows))
            self._converted[key] = PreparedSource(tokens, mask, rows, self.grid)
        return self._converted[key]

    def windows(self, kernel_size: int) -> Tensor:
        """Window means (B, C, kernel_size²) of the source map, computed at the first call and kept."""
        if self.grid is None:
            raise SourceError("only a map has window means", expected="a map", given="tokens", fix="report this bug")
        if kernel_size not in self._windows:
            self._windows[kernel_size] = window_means(self.tokens.unflatten(2, self.grid), kernel_size)
        return self._windows[kernel_size]

    def strengths(self) -> Tensor:
        """How active each channel of the source map is, (B, C): its mean, standardised over the sample's channels."""
        if self._strengths is None:
            means = self.tokens.float().mean(2) if self.tokens.itemsize < 4 else self.tokens.mean(2)
            centred = means - means.mean(1, keepdim=True)
            scale = centred.detach().abs().amax(1, keepdim=True).clamp_min(1)  # squares of large numbers are infinite
            scaled = centred / scale
            self._strengths = (
                scaled * (scaled.square().mean(1, keepdim=True) + STRENGTH_EPSILON / scale.square()).rsqrt()
            )
        return self._strengths

    def pooled(self) -> Tensor:
        """The mean over the real tokens, or over the pixels of each channel: (B, width); zero in missing rows."""
        if self._pooled is None:
            tokens = self.tokens.float() if self.tokens.itemsize < 4 else self.tokens
            if self.grid is not None:
                mean = tokens.mean(2)
            elif self.mask is None:
                mean = tokens.mean(1)
            else:  # padding is zeros; no token at all counts as one
                mean = tokens.sum(1) / self.mask.sum(1, keepdim=True).clamp(min=1)
            self._pooled = mean.to(self.tokens.dtype)
        return self._pooled

    def normalised(self) -> PreparedSource:
        """The same with each token layer-normalised, made at the first call and kept; of a map, itself."""
        if self._normalised is None:
            self._normalised = (
                PreparedSource(normalised(self.tokens), self.mask, self.rows, None) if self.grid is None else self
            )
        return self._normalised
