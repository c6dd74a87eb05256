"""Figures of a run's page as SVG, readable on a light and on a dark ground."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["calibration_figure", "confusion_figure", "learning_curves"]

_INK, _LINE, _SECOND = "#7d8590", "#2f81c7", "#d9822b"
_BINS = 10
_FEW_STEPS = 30  # losses up to which each is a dot: one alone would be no line
_MOST_NUMBERS = 20  # classes up to which a cell of the confusion matrix shows its number


def learning_curves(history: Sequence[Mapping[str, float]], metric: str, title: str, best_step: int) -> str:
    """Training loss by step, and the validation metric, with the step that was kept.

    Args:
        history: of the run.
        metric: that chose the checkpoint.
        title: how it is called.
        best_step: whose weights the run has.
    """
    figure = _figure(9.0, 3.2)
    losses = [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]
    scores = [(entry["step"], entry[f"eval_{metric}"]) for entry in history if f"eval_{metric}" in entry]
    left = figure.add_subplot(1, 2, 1)
    if losses:
        dots: dict[str, Any] = {"marker": "o", "ms": 4} if len(losses) <= _FEW_STEPS else {}
        left.plot(*zip(*losses, strict=True), color=_LINE, alpha=0.35, lw=1, **dots)
        left.plot(*_smoothed(losses), color=_LINE, lw=1.8)
    _style(left, "step", "training loss")
    left.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    right = figure.add_subplot(1, 2, 2)
    if scores:
        right.plot(*zip(*scores, strict=True), "o-", color=_SECOND, ms=4, lw=1.8)
        right.axvline(best_step, color=_INK, lw=1, ls=":")
    _style(right, "step", f"validation {title}")
    right.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    return _image(figure, "training loss and validation score by step")


def confusion_figure(counts: NDArray[np.int64], classes: Sequence[str]) -> str:
    """The confusion matrix; a row is a true class, its shade the share of the row.

    Args:
        counts: (K, K).
        classes: their names.
    """
    number = len(classes)
    side = min(9.0, 2.6 + 0.42 * number)
    figure = _figure(side, side * 0.86)
    axes = figure.add_subplot()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    small = max(4.0, min(8.0, 120 / number))
    for row, column in zip(*np.nonzero(counts), strict=True):
        if number <= _MOST_NUMBERS:
            shade = "white" if shares[row, column] > 0.55 else "#1b1f24"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=small, color=shade)
    axes.set_xticks(range(number), [_short(name) for name in classes], rotation=60, ha="right", fontsize=small)
    axes.set_yticks(range(number), [_short(name) for name in classes], fontsize=small)
    _style(axes, "answer", "true class", grid=False)
    return _image(figure, "confusion matrix")


def calibration_figure(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> str:
    """How often answers are right that are given with a certain probability.

    Args:
        confidence: (M,) probabilities of answers.
        right: (M,) whether they hold.
    """
    figure = _figure(4.6, 3.6)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=_INK, lw=1, ls=":")
    which = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    bins = [(confidence[which == b].mean(), right[which == b].mean(), (which == b).sum()) for b in np.unique(which)]
    if bins:
        x, y, sizes = (np.array(one, dtype=float) for one in zip(*bins, strict=True))
        axes.plot(x, y, color=_LINE, lw=1.5)
        axes.scatter(x, y, s=20 + 180 * sizes / sizes.sum(), color=_LINE, zorder=3)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    _style(axes, "probability of the answer", "share that is right")
    return _image(figure, "calibration: share of right answers by their probability")


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    figure.patch.set_alpha(0)
    return figure


def _style(axes: Any, x: str, y: str, grid: bool = True) -> None:
    axes.patch.set_alpha(0)
    axes.set_xlabel(x, color=_INK, fontsize=9)
    axes.set_ylabel(y, color=_INK, fontsize=9)
    axes.tick_params(colors=_INK, labelsize=8)
    for place, spine in axes.spines.items():
        spine.set_visible(place in ("left", "bottom"))
        spine.set_color(_INK)
    if grid:
        axes.grid(color=_INK, alpha=0.2, lw=0.6)


def _image(figure: Any, what: str) -> str:
    """An <img> with the figure inside."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "mi2p"}):  # else the names inside are random
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    data = base64.b64encode(buffer.getvalue().encode()).decode()
    width = round(figure.get_figwidth() * 88)
    return f'<img alt="{what}" width="{width}" src="data:image/svg+xml;base64,{data}">'


def _smoothed(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """A running mean over a twentieth of the steps."""
    steps, values = (list(one) for one in zip(*points, strict=True))
    width = max(1, len(values) // 20)
    means = [float(np.mean(values[max(0, i - width) : i + 1])) for i in range(len(values))]
    return steps, means


def _short(name: str) -> str:
    return name if len(name) <= 18 else f"{name[:17]}…"
