"""Figures of a run's page as SVG, readable on a light and on a dark ground."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mi2p_inject.recipes.characters import as_written
from mi2p_inject.recipes.metrics.probability_metrics import confidence_bins

__all__ = ["calibration_figure", "confusion_figure", "learning_curves"]

_INK, _LINE, _SECOND = "#7d8590", "#2f81c7", "#d9822b"
_LETTERS = 28
_LARGEST = 1e100  # of a number in a curve; axes overflow beyond
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
    losses = [(entry["step"], entry["loss"]) for entry in history if _plots(entry, "loss")]
    scores = [(entry["step"], entry[f"eval_{metric}"]) for entry in history if _plots(entry, f"eval_{metric}")]
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
    else:
        right.text(0.5, 0.5, "no validation split", ha="center", va="center", color=_INK, fontsize=9)
    _style(right, "step", f"validation {title}")
    right.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    return _image(figure, "training loss and validation score by step")


def _plots(entry: Mapping[str, float], name: str) -> bool:
    """Whether an entry has a number that axes can show."""
    return abs(entry.get(name, math.inf)) < _LARGEST


@as_written()
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
    axes.imshow(shares, cmap=_from_nothing(), vmin=0, vmax=1, aspect="auto")
    small = max(4.0, min(8.0, 120 / number))
    for row, column in zip(*np.nonzero(counts), strict=True):
        if number <= _MOST_NUMBERS:
            shade = "white" if shares[row, column] > 0.55 else _INK
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=small, color=shade)
    names = [_short(name) for name in classes]
    axes.set_xticks(range(number), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=small)
    axes.set_yticks(range(number), names, fontsize=small)
    _style(axes, "answer", "true class", grid=False)
    return _image(figure, "confusion matrix")


def _from_nothing() -> Any:
    """Colours from transparent to blue: on a dark ground as on a light one."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgba

    return LinearSegmentedColormap.from_list("shares", [to_rgba(_LINE, 0), to_rgba(_LINE, 1)])


def calibration_figure(confidence: NDArray[np.float64], right: NDArray[np.bool_], *, single: bool) -> str:
    """How often answers are right that are given with a certain probability, as the calibration error counts them.

    Args:
        confidence: (M,) probabilities: of answers, or of every label of every sample.
        right: (M,) whether they hold.
        single: a sample has one label.
    """
    figure = _figure(4.6, 3.6)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=_INK, lw=1, ls=":")
    which = confidence_bins(confidence)
    bins = [(confidence[which == b].mean(), right[which == b].mean(), (which == b).sum()) for b in np.unique(which)]
    if bins:
        x, y, sizes = (np.array(one, dtype=float) for one in zip(*bins, strict=True))
        axes.plot(x, y, color=_LINE, lw=1.5)
        axes.scatter(x, y, s=20 + 180 * sizes / sizes.sum(), color=_LINE, zorder=3)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    words = ("probability of the answer", "share that is right") if single else ("probability of a label", "its share")
    _style(axes, *words)
    return _image(figure, f"calibration: {words[1]} by the {words[0]}")


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
    buffer = io.StringIO()
    # the salt: else the names inside are random; no fonttype: the browser writes the text, in any script
    with as_written(svg_hashsalt="mi2p", svg_fonttype="none"):
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
    return name if len(name) <= _LETTERS else f"{name[: _LETTERS - 1]}…"
