"""What a measurement of faithfulness holds: curves, areas between them with intervals, and a figure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mi2p_inject.adapters.adapter import Modality
from mi2p_inject.core.files.atomic_write import write_file
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.evaluation.faithfulness.orders import Order
from mi2p_inject.recipes.explain.pieces import PieceKind
from mi2p_inject.recipes.explain.result import check_figure_file, figure_bytes, save_figure
from mi2p_inject.recipes.metrics.resampling import Interval

__all__ = ["Curve", "CurveName", "Faithfulness", "PieceCurves"]

Floats = NDArray[np.float64]
CurveName = Literal["deletion", "insertion"]
_DIGITS = 3  # that are shown of a gain: what rounds to nothing is none


@dataclass(frozen=True, eq=False)
class Curve:
    """A number against the share of pieces that is deleted or inserted, a mean over samples.

    Attributes:
        lines: order -> (P,): "evidence": of the evidence, the largest first; "lost": of what is lost without each piece
            alone, where there are no more than 64; "random": the mean over random orders.
        gains: order -> the area between it and random, with a 95 % interval over groups of samples; above 0 where the
            order is better: deletion falls, or insertion rises, sooner than at random.
    """

    lines: Mapping[Order, Floats]
    gains: Mapping[Order, Interval]


@dataclass(frozen=True, eq=False)
class PieceCurves:
    """The curves of one kind of pieces of what one expanded model reads.

    Attributes:
        modality: what the expanded model's backbone reads.
        kind: words, places, channels or tokens: see `mi2p_inject.recipes.explain.pieces`.
        order: what the evidence is.
        samples: that are measured.
        too_few: samples that are left out, because they have fewer than two pieces.
        pieces: how many a sample has, on average.
        probability: of the class that the whole sample is answered with.
        accuracy: the share of right answers (with several labels: right about that class).
    """

    modality: Modality
    kind: PieceKind
    order: str
    samples: int
    too_few: int
    pieces: float
    probability: Mapping[CurveName, Curve]
    accuracy: Mapping[CurveName, Curve]

    def better(self, order: Order = "evidence") -> bool:
        """Whether the intervals of deletion and insertion of the probability are both above 0, as they are shown."""
        return all(round(one.gains[order].low, _DIGITS) > 0 for one in self.probability.values())

    def verdict(self, order: Order = "evidence") -> str:
        """One line that says whether an order is better than a random one; "" for one that was not measured."""
        said = []
        for name, curve in self.probability.items():
            if order in curve.gains:
                found = curve.gains[order]
                low, high = round(found.low, _DIGITS), round(found.high, _DIGITS)
                how = "better" if low > 0 else "WORSE" if high < 0 else "NOT better"
                said.append(f"{name} {how} than random ({found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}])")
        return "; ".join(said)


@dataclass(frozen=True, eq=False)
class Faithfulness:
    """Deletion and insertion curves of a run's explanations, against random.

    Attributes:
        title: the run's model.
        data, split: what was measured on.
        drawn, of: samples that were drawn, of how many with a text; those whose picture is missing are left out.
        draws: random orders of each sample.
        shares: (P,) shares of the pieces at which the curves are given.
        pieces: the curves, of each expanded model and kind of pieces.
    """

    title: str
    data: str
    split: str
    drawn: int
    of: int
    draws: int
    shares: Floats
    pieces: tuple[PieceCurves, ...]

    def figure(self) -> Any:
        """A `matplotlib.figure.Figure`."""
        from mi2p_inject.recipes.evaluation.faithfulness.draw import draw_faithfulness

        return draw_faithfulness(self)

    def _repr_png_(self) -> bytes:
        """The figure, for notebooks."""
        return figure_bytes(self.figure())

    def save(self, file: str | Path) -> None:
        """Write the figure (.png, .pdf or .svg), and its numbers beside it (.json).

        Raises:
            RecipeError: another ending, or the files cannot be written.
        """
        path = Path(file)
        check_figure_file(path)
        save_figure(self.figure(), path)
        text = json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n"
        try:
            write_file(path.with_suffix(".json"), lambda made: made.write_text(text, encoding="utf-8"))
        except OSError as error:
            raise RecipeError(
                f"{path.with_suffix('.json')} cannot be written: {error}", given=str(path), fix="another --out"
            ) from error

    def to_json(self) -> dict[str, Any]:
        """All numbers, as JSON."""
        return {
            "model": self.title,
            "data": self.data,
            "split": self.split,
            "samples": {"drawn": self.drawn, "of": self.of},
            "draws": self.draws,
            "shares": self.shares.tolist(),
            "pieces": [
                {
                    "modality": one.modality,
                    "kind": one.kind,
                    "order": one.order,
                    "samples": one.samples,
                    "too_few": one.too_few,
                    "pieces": one.pieces,
                    "better_than_random": {order: one.better(order) for order in one.probability["deletion"].gains},
                    "verdict": one.verdict(),
                    "probability": {name: _json(curve) for name, curve in one.probability.items()},
                    "accuracy": {name: _json(curve) for name, curve in one.accuracy.items()},
                }
                for one in self.pieces
            ],
        }


def _json(curve: Curve) -> dict[str, Any]:
    lines: dict[str, Any] = {order: np.round(line, 6).tolist() for order, line in curve.lines.items()}
    return {**lines, "area_to_random": {order: asdict(gain) for order, gain in curve.gains.items()}}
