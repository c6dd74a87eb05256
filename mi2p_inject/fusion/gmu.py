"""The gated multimodal unit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast, final, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mi2p_inject.fusion.base import Fusion, check_option, check_size

__all__ = ["GMUFusion"]

Form = Literal["paper", "code"]
EPSILON = 1e-4
"""Of the batch normalisation in the authors' code."""


@final
class GMUFusion(Fusion):
    """A gate of each feature chooses between both vectors, then the mixture is classified.

    ``h_v = tanh(W_v v)``, ``h_t = tanh(W_t t)``, ``z = σ(W_z [v; t])``, logits = ``W (z ⊙ h_v + (1 − z) ⊙ h_t) + b``.

    With ``form="code"``, as the authors' code has it: each vector is batch-normalised first, and the gate reads the
    projections, ``z = σ(W_z [W_v v; W_t t])``. Their head (batch normalisation and maxout layers) is left out.

    A missing vector leaves the gate to the other one (z is 0 or 1), and does not count for the batch's statistics; with
    both missing the mixture is zero.

    Source: Arevalo et al., Gated Multimodal Units for Information Fusion, 2017 (https://arxiv.org/abs/1702.01992),
    section 3.

    Args:
        width: of h_v and h_t.
        form: "paper" or "code".

    Examples:
        >>> import torch
        >>> GMUFusion([4, 6], 3)([torch.randn(2, 4), torch.randn(2, 6)]).shape
        torch.Size([2, 3])
    """

    branches = (2, 2)

    def __init__(
        self,
        widths: Sequence[int],
        classes: int,
        *,
        multi_label: bool = False,
        width: int = 512,
        form: Form = "paper",
    ) -> None:
        super().__init__(widths, classes, multi_label=multi_label)
        check_size("width", width)
        check_option("form", form, form in get_args(Form), " or ".join(map(repr, get_args(Form))))
        self.form = form
        self.norms = nn.ModuleList(nn.BatchNorm1d(own, eps=EPSILON) for own in widths if form == "code")
        self.projections = nn.ModuleList(nn.Linear(own, width, bias=False) for own in widths)
        self.gate = nn.Linear(2 * width if form == "code" else sum(widths), width, bias=False)
        self.head = nn.Linear(width, classes)

    def fuse(self, vectors: list[Tensor], present: Tensor) -> Tensor:
        """See `Fusion.fuse`."""
        for number, norm in enumerate(self.norms):
            vectors[number] = _normalised(cast(nn.BatchNorm1d, norm), vectors[number], present[number])
        projected = [layer(vector) for layer, vector in zip(self.projections, vectors, strict=True)]
        gate = self.gate(torch.cat(projected if self.form == "code" else vectors, 1)).sigmoid()
        first, second = present.unsqueeze(-1)
        gate = gate.masked_fill(~second, 1.0).masked_fill(~first, 0.0)
        logits: Tensor = self.head(gate * projected[0].tanh() + (1 - gate) * projected[1].tanh())
        return logits


def _normalised(norm: nn.BatchNorm1d, vectors: Tensor, there: Tensor) -> Tensor:
    """Batch normalisation over the rows that are there, the others zero.

    One row gives no statistics: then the running ones are taken, in training too.
    """
    if norm.training and there.sum() > 1:
        rows: Tensor = norm(vectors[there])
        return rows.new_zeros(vectors.shape).index_put((there,), rows)
    found = F.batch_norm(vectors, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
    return found.where(there.unsqueeze(1), 0.0)
