"""What every late fusion has in common: pooled vectors in, logits out, missing modalities defined."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mi2p_inject.core.errors import FusionError
from mi2p_inject.core.layout import describe
from mi2p_inject.core.numerics.recording import is_recording

__all__ = ["Fusion", "check_option", "check_size"]


class Fusion(nn.Module):
    """Base of the strategies: the pooled vectors of several branches -> logits (B, K).

    A branch is any encoder, expanded or not, that gives one vector a sample; encoders and fusion train jointly.
    ``softmax`` of the result (``sigmoid`` with ``multi_label``) is the class probability, whatever the strategy.

    A strategy is a class with `fuse`; keyword arguments of its ``__init__`` besides ``multi_label`` are its options
    (`build_fusion` checks their names). It says what a missing vector means, and rows are independent of each other.

    Args:
        widths: width D_i of each branch's vector.
        classes: K.
        multi_label: classes are independent yes/no questions.

    Raises:
        FusionError: a number of branches that the strategy does not take, or sizes below one.
    """

    branches: tuple[int, int | None] = (1, None)
    """Fewest and most branches."""

    def __init__(self, widths: Sequence[int], classes: int, *, multi_label: bool = False) -> None:
        super().__init__()
        fewest, most = self.branches
        if len(widths) < fewest or (most is not None and len(widths) > most) or min([*widths, classes]) < 1:
            count = f"{fewest} or more" if most is None else str(fewest)
            raise FusionError(
                f"{type(self).__name__} cannot be built",
                expected=f"the widths of {count} branches and the number of classes, each at least 1",
                given=f"widths {list(widths)}, {classes} classes",
                fix="pass one width a branch",
            )
        self.widths, self.classes, self.multi_label = tuple(widths), classes, multi_label

    def forward(self, vectors: Sequence[Tensor], present: Sequence[Tensor] | None = None) -> Tensor:
        """Fuse.

        Args:
            vectors: one (B, D_i) tensor a branch.
            present: one (B,) bool tensor a branch, False where the sample lacks what the branch reads; None: all are
                there. What stands in the vector of a missing sample, NaN included, has no effect.

        Returns:
            (B, K) logits.

        Raises:
            FusionError: vectors or masks that do not fit, or a strategy that gives no logits.
        """
        shapes = [tuple(vector.shape) for vector in vectors]
        batch = shapes[0][0] if shapes and shapes[0] else 0
        if shapes != [(batch, width) for width in self.widths]:
            raise FusionError(
                "the branches' vectors do not fit this fusion",
                expected=", ".join(f"(B, {width})" for width in self.widths),
                given=", ".join(map(str, shapes)) or "none",
                fix="pass one pooled vector a branch, in the order of the widths",
            )
        if present is None:
            present = [torch.ones(batch, dtype=torch.bool, device=vector.device) for vector in vectors]
        masks = [tuple(mask.shape) for mask in present]
        if masks != [(batch,)] * len(vectors) or any(mask.dtype != torch.bool for mask in present):
            raise FusionError(
                "present= does not fit the vectors",
                expected=f"{len(vectors)} bool tensors ({batch},)",
                given=", ".join(f"{mask.dtype} {tuple(mask.shape)}" for mask in present) or "none",
                fix="pass one bool tensor a branch",
            )
        kept = [vector.where(mask.unsqueeze(1), 0.0) for vector, mask in zip(vectors, present, strict=True)]
        logits = self.fuse(kept, torch.stack(list(present)))
        if not is_recording():  # a comparison of free sizes would bind them
            self._check_logits(logits, batch)
        return logits

    def fuse(self, vectors: list[Tensor], present: Tensor) -> Tensor:
        """The strategy: vectors (B, D_i), zero where missing, and present (branches, B) -> logits (B, K)."""
        raise NotImplementedError

    def _check_logits(self, logits: object, batch: int) -> None:
        """Losses broadcast what has another shape, or take it for another kind of target."""
        if not isinstance(logits, Tensor) or logits.shape != (batch, self.classes):
            raise FusionError(
                f"{type(self).__name__}.fuse gives no logits of each row and class",
                expected=f"a tensor ({batch}, {self.classes})",
                given=describe(logits),
                fix=f"correct {type(self).__name__}.fuse",
            )


def check_option(name: str, value: object, ok: bool, expected: str) -> None:
    """Raise `FusionError` for an option out of range."""
    if not ok:
        raise FusionError(
            f"the fusion's option {name} is out of range", expected=expected, given=repr(value), fix=f"change {name}="
        )


def check_size(name: str, value: object) -> None:
    """Raise `FusionError` for a size that is no positive integer."""
    fits = isinstance(value, int) and not isinstance(value, bool) and value > 0
    check_option(name, value, fits, "a positive integer")
