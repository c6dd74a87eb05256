"""Compact bilinear pooling: the outer product of two vectors, sketched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mi2p_inject.core.numerics.recording import is_recording
from mi2p_inject.fusion.base import Fusion, check_option, check_size

__all__ = ["CompactBilinearFusion", "CompactBilinearHead"]

ROOT_EPSILON = 1e-8
"""The slope of a square root is infinite at zero, where a sketch of nothing is; with this it is at most 5,000."""


@final
class CompactBilinearFusion(Fusion):
    """A linear classifier on the compact bilinear pooling of both vectors; see `CompactBilinearHead`.

    The sketch of a missing vector is the convolution's identity, which leaves the other one's sketch as it is.

    Source: Fukui et al., Multimodal Compact Bilinear Pooling, EMNLP 2016 (https://arxiv.org/abs/1606.01847), section
    3.1.

    Args:
        sketch_width: D, numbers of the pooled vector.
        dropout: of the pooled vector, in training.

    Examples:
        >>> import torch
        >>> CompactBilinearFusion([4, 6], 3, sketch_width=64)([torch.randn(2, 4), torch.randn(2, 6)]).shape
        torch.Size([2, 3])
    """

    branches = (2, 2)

    def __init__(
        self,
        widths: Sequence[int],
        classes: int,
        *,
        multi_label: bool = False,
        sketch_width: int = 16_000,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(widths, classes, multi_label=multi_label)
        self.head = CompactBilinearHead(widths, classes, sketch_width, dropout)

    def fuse(self, vectors: list[Tensor], present: Tensor) -> Tensor:
        """See `Fusion.fuse`."""
        logits: Tensor = self.head(vectors, present)
        return logits


class CompactBilinearHead(nn.Module):
    """Sketch, convolve, take signed roots, normalise, drop out, classify.

    Each vector's count sketch is ``ψ(x)_j = Σ_{i: h(i) = j} s(i) x_i`` with a place h(i) and a sign s(i) drawn once and
    never learned (they are buffers, so they are saved). The circular convolution ``φ = ψ_1(x) * ψ_2(y)`` is the count
    sketch of the outer product; then ``sign(φ) √|φ|``, divided by its length, times a linear layer.

    Args:
        widths: of the two vectors.
        classes: K.
        sketch_width: D.
        dropout: of the pooled vector, in training.

    Shapes:
        two vectors (B, n_k) and present (2, B) -> (B, K).
    """

    def __init__(self, widths: Sequence[int], classes: int, sketch_width: int, dropout: float) -> None:
        super().__init__()
        check_size("sketch_width", sketch_width)
        is_number = isinstance(dropout, (int, float)) and not isinstance(dropout, bool)
        check_option("dropout", dropout, is_number and 0 <= dropout < 1, "0 or more, less than 1")
        self.sketch_width = sketch_width
        for number, width in enumerate(widths):
            self.register_buffer(f"places_{number}", torch.randint(sketch_width, (width,)))
            self.register_buffer(f"signs_{number}", torch.randint(2, (width,), dtype=torch.int8) * 2 - 1)
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(sketch_width, classes)
        nn.init.xavier_uniform_(self.classify.weight)
        nn.init.zeros_(self.classify.bias)

    def forward(self, vectors: Sequence[Tensor], present: Tensor) -> Tensor:
        """See the class."""
        sketches = [self._sketch(number, vector, present[number]) for number, vector in enumerate(vectors)]
        pooled = self._convolved(*sketches)
        rooted = pooled.sign() * ((pooled.abs() + ROOT_EPSILON).sqrt() - ROOT_EPSILON**0.5)
        pooled = self.dropout(F.normalize(rooted)).to(vectors[0].dtype)
        logits: Tensor = self.classify(pooled)
        return logits

    def _convolved(self, first: Tensor, second: Tensor) -> Tensor:
        if not is_recording() and not len(first):  # torch 2.6's FFT on a CPU refuses no rows
            return first * second
        frequencies = torch.fft.rfft(first) * torch.fft.rfft(second)
        pooled: Tensor = torch.fft.irfft(frequencies, n=self.sketch_width)
        return pooled

    def _sketch(self, number: int, vector: Tensor, there: Tensor) -> Tensor:
        """(B, n) -> (B, D), where it is missing a one at the first place.

        In double precision where there is one: the root makes much of the rounding beside zero.
        """
        places, signs = self.get_buffer(f"places_{number}"), self.get_buffer(f"signs_{number}")
        whole = vector.float() if vector.device.type == "mps" else vector.double()
        sketch = whole.new_zeros(vector.shape[0], self.sketch_width).index_add(1, places, whole * signs)
        one = F.pad(whole.new_ones(1), (0, self.sketch_width - 1))
        return sketch.where(there.unsqueeze(1), one)
