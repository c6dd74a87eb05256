"""The figure of faithfulness: deletion and insertion curves beside those of random orders."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any, cast

from mi2p_inject.recipes.characters import as_written

if TYPE_CHECKING:
    from mi2p_inject.recipes.evaluation.faithfulness.result import Curve, Faithfulness, PieceCurves

__all__ = ["draw_faithfulness"]

_INK, _FAINT, _EVIDENCE, _RANDOM, _WORSE = "#222222", "#777777", "#1b6ca8", "#8a8a8a", "#b5452c"
_WIDTH, _HEAD, _BLOCK, _FOOT = 10.5, 0.75, 3.3, 0.1  # inches
_LOST = "#d9822b"
_LINES = {
    "random": {"color": _RANDOM, "lw": 1.6, "ls": "--", "label": "random order"},
    "lost": {"color": _LOST, "lw": 1.4, "label": "order of what is lost without each alone"},
    "evidence": {"color": _EVIDENCE, "lw": 2, "label": "order of the evidence"},
}
_PIECES = {
    "words": "Words of the text that the picture model reads, left out of it",
    "places": "Windows of the picture that the text model reads, blurred",
    "channels": "Channels of the picture's features that the text model attends to, set to zero",
    "tokens": "Tokens of the picture's features that the text model reads, masked",
}
_AXES = {"probability": "probability of the answer", "accuracy": "share of right answers"}


@as_written()
def draw_faithfulness(found: Faithfulness) -> Any:
    """A `matplotlib.figure.Figure`: a line for each expanded model and kind of pieces, four curves in it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height = _HEAD + _BLOCK * len(found.pieces) + _FOOT
    figure = Figure(figsize=(_WIDTH, height), dpi=130, facecolor="white")
    FigureCanvasAgg(figure)
    title = f"{found.title}: does taking away what the evidence names change the answer sooner than at random?"
    figure.text(0.02, 1 - 0.32 / height, title, fontsize=11.5, weight="bold", color=_INK)
    drawn = f"{found.drawn} of {found.of}" if found.drawn < found.of else f"{found.of}"
    said = f"{drawn} {found.split} samples of {textwrap.shorten(found.data, 60)}, {found.draws} random orders of each"
    figure.text(0.02, 1 - 0.58 / height, said, fontsize=8.5, color=_FAINT)
    for place, pieces in enumerate(found.pieces):
        _block(figure, found, pieces, height - _HEAD - place * _BLOCK, height)
    lines = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        *lines, fontsize=8, frameon=False, ncols=3, loc="center right", bbox_to_anchor=(0.99, 1 - 0.55 / height)
    )
    return figure


def _block(figure: Any, found: Faithfulness, pieces: PieceCurves, top: float, height: float) -> None:
    mean = f"{pieces.pieces:,.1f}".removesuffix(".0") + f" {pieces.kind} a sample"
    left_out = f", {pieces.too_few} samples with fewer than two left out" if pieces.too_few else ""
    heading = f"{_PIECES[pieces.kind]}; by {pieces.order}"
    figure.text(0.02, (top - 0.2) / height, heading, fontsize=9.5, weight="bold", color=_INK)
    said = f"Evidence: {pieces.verdict()}"
    colour = _EVIDENCE if pieces.better() else _WORSE
    figure.text(0.02, (top - 0.41) / height, said, fontsize=9, color=colour, weight="bold")
    if pieces.verdict("lost"):
        alone = f"Lost without each alone: {pieces.verdict('lost')}"
        figure.text(0.02, (top - 0.6) / height, alone, fontsize=8, color=_LOST)
    figure.text(0.985, (top - 0.2) / height, f"{mean}{left_out}", fontsize=8, color=_FAINT, ha="right")
    panels = [(measure, name) for measure in ("probability", "accuracy") for name in ("deletion", "insertion")]
    for place, (measure, name) in enumerate(panels):
        box = (0.055 + 0.243 * place, (top - 2.72) / height, 0.195, 1.7 / height)
        axes = figure.add_axes(box)
        curve: Curve = getattr(pieces, measure)[name]
        _panel(axes, found, curve)
        axes.set_title(f"{name}: {_AXES[measure]}", fontsize=8, color=_INK, loc="left")
        axes.set_xlabel(f"share {'deleted' if name == 'deletion' else 'inserted'}", fontsize=8, color=_FAINT)


def _panel(axes: Any, found: Faithfulness, curve: Curve) -> None:
    for order, look in _LINES.items():
        if order in curve.lines:
            axes.plot(found.shares, curve.lines[cast(Any, order)], **look)
    axes.fill_between(found.shares, curve.lines["evidence"], curve.lines["random"], color=_EVIDENCE, alpha=0.12, lw=0)
    gain = curve.gains["evidence"]
    area = f"area {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"
    axes.text(0.5, 0.03, area, transform=axes.transAxes, fontsize=7, color=_FAINT, ha="center")
    low, high = axes.get_ylim()
    axes.set_ylim(low - 0.15 * (high - low), high + 0.05 * (high - low))
    axes.set_xlim(0, 1)
    axes.tick_params(labelsize=7, colors=_FAINT, length=2)
    axes.grid(color="#e6e6e6", lw=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
