"""One sample's answers as its pieces are deleted and inserted, in the order of the evidence and in other ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Order", "SampleCurves", "sample_curves"]

Floats = NDArray[np.float64]
Kept = NDArray[np.bool_]
Order = Literal["evidence", "lost", "random"]

_STEPS = 10
_MOST_ALONE = 64


@dataclass(frozen=True, eq=False)
class SampleCurves:
    """Numbers of one sample at each share of its pieces.

    Attributes:
        shares: (P,) of the pieces, from 0 to 1.
        deletion, insertion: order -> (P, M) with that share deleted, or inserted: "evidence" is the order of the
            evidence, "lost" that of what is lost without each piece alone (not of more than 64), "random" the mean over
            random orders.
    """

    shares: Floats
    deletion: Mapping[Order, Floats]
    insertion: Mapping[Order, Floats]

    def gains(self, order: Order) -> tuple[Floats, Floats]:
        """(M,) areas by which deletion is lower than at random, and by which insertion is higher."""
        from scipy.integrate import trapezoid

        deletion = trapezoid(self.deletion["random"] - self.deletion[order], self.shares, axis=0)
        insertion = trapezoid(self.insertion[order] - self.insertion["random"], self.shares, axis=0)
        return np.asarray(deletion), np.asarray(insertion)


def sample_curves(
    evidence: Floats, measure: Callable[[Kept], Floats], *, draws: int, random: np.random.Generator
) -> SampleCurves:
    """The curves of one sample; equal sets of pieces are measured once.

    Args:
        evidence: (n,) of the pieces; the largest is deleted, or inserted, first.
        measure: (S, n) which pieces are kept -> (S, M) numbers; the first one says what a piece alone is worth.
        draws: random orders. One is deleted from its front and inserted from its back, which are equally random, so
            that both need the same sets.
        random: draws them.

    Source: deletion and insertion as in Petsiuk et al. 2018, RISE, section 4.1 (https://arxiv.org/abs/1806.07421).

    Examples:
        >>> worth = np.array([1.0, 3.0, 0.0, 0.0])
        >>> found = sample_curves(worth, lambda kept: kept @ worth[:, None], draws=50, random=np.random.default_rng(0))
        >>> found.deletion["evidence"][:, 0].tolist(), found.insertion["lost"][:, 0].tolist()
        ([4.0, 1.0, 0.0, 0.0, 0.0], [0.0, 3.0, 4.0, 4.0, 4.0])
        >>> [bool(one[0] > 0.5) for one in found.gains("evidence")]
        [True, True]
    """
    count = len(evidence)
    half = np.round(np.linspace(0, count, _STEPS + 1)[: _STEPS // 2 + 1]).astype(int)
    steps = np.unique([*half, *(count - half)])  # as many deleted as are kept at the mirrored step
    worth: dict[Order, Floats] = {"evidence": evidence}
    if count <= _MOST_ALONE:
        alone = measure(np.concatenate([np.ones((1, count), dtype=bool), ~np.eye(count, dtype=bool)]))[:, 0]
        worth["lost"] = alone[0] - alone[1:]
    orders = [np.argsort(-one, kind="stable") for one in worth.values()]
    orders += [random.permutation(count) for _ in range(draws)]
    ranks = np.array([np.argsort(order) for order in orders])
    left = ranks[:, None, :] >= steps[None, :, None]  # (orders, P, n): without the first ones of the order
    sets = np.concatenate([left, ~left[: len(worth)]])
    distinct, which = np.unique(sets.reshape(-1, count), axis=0, return_inverse=True)
    numbers = measure(distinct)[which.reshape(-1)].reshape(*sets.shape[:2], -1)
    at_random = numbers[len(worth) : len(orders)].mean(axis=0)
    deletion: dict[Order, Floats] = dict(zip(worth, numbers, strict=False))
    insertion: dict[Order, Floats] = dict(zip(worth, numbers[len(orders) :], strict=True))
    return SampleCurves(steps / count, {**deletion, "random": at_random}, {**insertion, "random": at_random[::-1]})
