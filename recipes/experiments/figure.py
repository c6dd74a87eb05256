"""The demo's figure: test accuracy of the six rows, and pictures that the expanded model gets right."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mi2p_inject.recipes.data.formats.openmoji import LICENCE
from mi2p_inject.recipes.evaluation.metrics import Interval
from mi2p_inject.recipes.experiments.demo_experiment import PAIRS

if TYPE_CHECKING:
    from mi2p_inject.recipes.experiments.report import Report

__all__ = ["draw_figure"]

_INK, _FAINT = "#222222", "#8a8a8a"
_COLOURS = {"vision": "#1b6ca8", "text": "#c2571a", "score": "#5a5a5a"}
_SHOWN = "me-vision"
_GRID = (2, 4)


def draw_figure(
    report: Report, tested: dict[str, dict[str, Interval]], gained: dict[str, dict[str, Interval]], file: Path
) -> None:
    """Draw and save.

    Args:
        report: the predictions and pictures.
        tested: row -> metric -> test result.
        gained: expanded row -> metric -> paired gain.
        file: a .png path.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(1, 2, width_ratios=(1, 1.1), wspace=0.1, left=0.085, right=0.985, top=0.86, bottom=0.17)
    _accuracies(figure.add_subplot(grid[0]), tested, gained)
    _examples(figure, grid[1], report)
    smoke = "SMOKE RUN, numbers mean nothing. " if report.smoke else ""
    note = f"{smoke}Pictures: OpenMoji (openmoji.org), {LICENCE}. {len(report.true)} test pictures, seed {report.seed}."
    figure.text(0.985, 0.02, note, ha="right", va="bottom", fontsize=7.5, color=_FAINT)
    figure.savefig(file, format="png")


def _accuracies(axes: Any, tested: dict[str, dict[str, Interval]], gained: dict[str, dict[str, Interval]]) -> None:
    order = [name for expanded, alone in PAIRS.items() for name in (alone, expanded)]
    heights = [-(i + i // 2 * 0.45) for i in range(len(order))]
    for name, height in zip(order, heights, strict=True):
        result, colour = tested[name]["accuracy"], _COLOURS[PAIRS.get(name, name)]
        face = colour if name in PAIRS else "white"
        axes.plot([100 * result.low, 100 * result.high], [height, height], color=colour, lw=2, solid_capstyle="round")
        axes.plot(100 * result.value, height, "o", ms=8, mfc=face, mec=colour, mew=1.8, zorder=3)
        label = f"{100 * result.value:.1f}"
        if name in PAIRS:
            gain = gained[name]["accuracy"]
            label += f"  ({100 * gain.value:+.1f} [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}])"
        axes.text(100 * result.high, height, f"  {label}", va="center", ha="left", fontsize=8.5, color=_INK)
    axes.set_yticks(heights, order, fontsize=9.5)
    low = min(tested[name]["accuracy"].low for name in order)
    high = max(tested[name]["accuracy"].high for name in order)
    axes.set_xlim(100 * low - 2, 100 * high + 60 * (high - low))
    axes.set_xticks([tick for tick in axes.get_xticks() if tick <= 100])
    axes.set_xlim(100 * low - 2, 100 * high + 60 * (high - low))
    axes.set_ylim(heights[-1] - 0.6, 0.6)
    axes.set_xlabel("test accuracy, % (bar: 95 % interval; in brackets: gain of the pair)", fontsize=8.5, color=_INK)
    axes.grid(axis="x", color="#e6e6e6", lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.set_title("Alone (open) and expanded with MI2P (filled)", loc="left", fontsize=10.5, color=_INK)


def _examples(figure: Any, cell: Any, report: Report) -> None:
    alone, expanded = (report.predictions[name]["test"] for name in (PAIRS[_SHOWN], _SHOWN))
    fixed = np.flatnonzero((alone != report.true) & (expanded == report.true))
    broken = np.flatnonzero((alone == report.true) & (expanded != report.true))
    # One picture a group, so that eight variants of one person do not fill the grid.
    single = fixed[np.unique(report.groups[fixed], return_index=True)[1]]
    count = _GRID[0] * _GRID[1]
    chosen = np.sort(np.random.default_rng(report.seed).permutation(single)[:count])
    grid = cell.subgridspec(*_GRID, hspace=0.7, wspace=0.12)
    title = f"{_SHOWN} corrects {len(fixed)} of {PAIRS[_SHOWN]}'s errors, adds {len(broken)}"
    title += f"; {len(chosen)} of the {len(fixed)}:" if len(chosen) else ""
    figure.text(0.535, 0.885, title, fontsize=10.5, color=_INK)
    for slot in range(count):
        axes = figure.add_subplot(grid[divmod(slot, _GRID[1])])
        axes.set_axis_off()
        if slot >= len(chosen):
            continue
        row = report.samples.splits["test"][int(chosen[slot])]
        axes.imshow(row["image"])
        wrong, right = (report.samples.classes[int(labels[chosen[slot]])] for labels in (alone, report.true))
        name = textwrap.shorten(row["text"], 22, placeholder="…")
        axes.text(0.5, -0.04, f"“{name}”", transform=axes.transAxes, ha="center", va="top", fontsize=8, color=_INK)
        axes.text(0.5, -0.19, wrong, transform=axes.transAxes, ha="center", va="top", fontsize=7, color="#b03030")
        axes.text(
            0.5, -0.32, f"→ {right}", transform=axes.transAxes, ha="center", va="top", fontsize=7, color="#1e7a3c"
        )
