"""The figure of an explanation."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mi2p_inject.recipes.characters import as_written

if TYPE_CHECKING:
    from mi2p_inject.recipes.explain.result import BranchExplanation, Explanation

__all__ = ["draw_explanation"]

Floats = NDArray[np.float64]
_INK, _FAINT, _FOR, _AGAINST = "#222222", "#777777", "#1b6ca8", "#b5452c"
_MOST_WORDS = 12
_WIDTH, _EDGE, _GAP = 11.0, 0.25, 0.14  # inches, as all numbers of the layout
_LARGE, _SMALL, _IN_A_ROW = 2.0, 1.62, 6
_COLOURS, _NAMES = 0.68, 1.3  # room for a map's colour bar, and for the bars' names
_HEAD, _TITLE_LINE, _CAPTION, _FOOT = 0.85, 0.55, 0.3, 0.15
_READS = {"image": "The picture model reads the text", "text": "The text model reads the picture"}
_WORD_MAPS = {
    "text": "where the channels are active that each word attends to more than evenly (one scale for all words)",
    "image": "where the channels are active that attend to each word more than evenly (one scale for all words)",
}


@dataclass
class _Page:
    """A figure that is filled from the top down, in inches."""

    figure: Any
    height: float
    top: float = 0.0

    def axes(self, left: float, width: float, height: float) -> Any:
        """Axes whose upper edge is at the place that the page is filled to."""
        bottom = self.height - self.top - height
        return self.figure.add_axes((left / _WIDTH, bottom / self.height, width / _WIDTH, height / self.height))

    def text(self, left: float, below: float, words: str, **look: Any) -> None:
        """Words, their baseline `below` the place that the page is filled to."""
        self.figure.text(left / _WIDTH, 1 - (self.top + below) / self.height, words, **look)


@as_written()
def draw_explanation(explanation: Explanation) -> Any:
    """A `matplotlib.figure.Figure`: a block for each expanded model."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = _columns_height(explanation)
    height = _HEAD + _FOOT + sum(_height(branch) for branch in explanation.branches) + columns
    page = _Page(Figure(figsize=(_WIDTH, height), dpi=130, facecolor="white"), height)
    FigureCanvasAgg(page.figure)
    _head(page, explanation)
    for branch in explanation.branches:
        _block_title(page, branch)
        _overview(page, explanation, branch)
        if branch.groups:
            _groups(page, explanation, branch)
        if branch.word_maps is not None:
            _words(page, explanation, branch)
    if columns:
        _columns(page, explanation)
    return page.figure


def _height(branch: BranchExplanation) -> float:
    height = _TITLE_LINE + _CAPTION + _LARGE + 0.45
    if branch.groups:
        height += _CAPTION + 0.6 + _SMALL + _GAP
    if branch.word_maps is not None:
        rows = -(-len(_shown_words(branch, len(branch.word_maps))) // _IN_A_ROW)
        height += _CAPTION + rows * (_SMALL + 0.34)
    return height


def _shown_words(branch: BranchExplanation, count: int) -> list[int]:
    """The words of the most evidence, in their order."""
    weight = np.abs(branch.word_evidence) if branch.word_evidence is not None else np.zeros(count)
    return sorted(np.argsort(-weight, kind="stable")[:_MOST_WORDS].tolist())


def _head(page: _Page, explanation: Explanation) -> None:
    answer = f"{explanation.target}: {_percent(explanation.probabilities[explanation.target])}"
    page.text(_EDGE, 0.34, answer, fontsize=14, color=_INK, weight="bold")
    parts = [f"without the {name} {_percent(one)}" for name, one in explanation.without.items()]
    page.text(_WIDTH - _EDGE, 0.34, ",  ".join(parts), fontsize=9, color=_FAINT, ha="right")
    text = textwrap.shorten(" ".join(explanation.words), 110, placeholder=" …")
    page.text(_EDGE, 0.64, f"“{text}”", fontsize=10.5, color=_INK, style="italic")
    page.top += _HEAD


def _block_title(page: _Page, branch: BranchExplanation) -> None:
    line = page.axes(_EDGE, _WIDTH - 2 * _EDGE, 0.02)
    line.axis("off")
    line.axhline(0, color="#cccccc", lw=1)
    page.text(_EDGE, 0.3, _READS[branch.modality], fontsize=11, weight="bold", color=_INK)
    said = f"{branch.unit} units, which have no attention: no maps of words"
    if branch.spread is not None:
        said = (
            f"{branch.unit} at {branch.site}: a head's attention is spread over {branch.spread:,.0f} of {branch.keys:,}"
        )
        said += " tokens" if branch.modality == "image" else " pixels" if "cross" in branch.unit else " channels"
    page.text(_WIDTH - _EDGE, 0.3, said, fontsize=8.5, color=_FAINT, ha="right")
    page.top += _TITLE_LINE


def _overview(page: _Page, explanation: Explanation, branch: BranchExplanation) -> None:
    maps = [
        (np.asarray(one), caption, look)
        for one, caption, look in (
            (branch.evidence_map, "evidence by place", "bicubic"),
            (branch.place_loss, "lost where a window is blurred", "nearest"),
        )
        if one is not None
    ]
    page.text(_EDGE, 0.14, "the picture, as the model sees it", fontsize=8.5, color=_INK)
    left, captions = _EDGE + _LARGE + 2 * _GAP, page.top
    page.top += _CAPTION - 0.08
    _picture(page.axes(_EDGE, _LARGE, _LARGE), explanation, None)
    for found, caption, look in maps:
        page.figure.text(left / _WIDTH, 1 - (captions + 0.14) / page.height, caption, fontsize=8.5, color=_INK)
        _evidence(page, left, explanation, found, look)
        left += _LARGE + _COLOURS
    if branch.word_evidence is not None:
        what = "what it takes from the picture" if branch.modality == "text" else "what is taken from it"
        caption = f"evidence of each word: {what}"
        page.figure.text(left / _WIDTH, 1 - (captions + 0.14) / page.height, caption, fontsize=8.5, color=_INK)
        _bars(page.axes(left + _NAMES, _WIDTH - _EDGE - left - _NAMES, _LARGE), explanation, branch)
    page.top += _LARGE + 0.45 + 0.08


def _evidence(page: _Page, left: float, explanation: Explanation, found: Floats, look: str) -> None:
    largest = float(np.abs(found).max()) or 1.0
    axes = page.axes(left, _LARGE, _LARGE)
    shown = _picture(axes, explanation, found, signed=True, largest=largest, interpolation=look)
    bar = page.figure.colorbar(shown, cax=page.axes(left + _LARGE + 0.08, 0.09, _LARGE), ticks=[-largest, 0, largest])
    bar.ax.set_yticklabels([f"-{largest:.2g}", "0", f"+{largest:.2g}"], fontsize=7, color=_FAINT)
    bar.ax.tick_params(length=0)
    bar.outline.set_visible(False)


def _bars(axes: Any, explanation: Explanation, branch: BranchExplanation) -> None:
    evidence = np.asarray(branch.word_evidence)
    chosen = _shown_words(branch, len(evidence))
    names = [_short(explanation.words[one], 16) for one in chosen]
    names.append("special tokens" if len(chosen) == len(evidence) else "all others")
    values = [*evidence[chosen], branch.rest_evidence + float(np.delete(evidence, chosen).sum())]
    if branch.word_attention is not None:
        others = branch.rest_attention + float(np.delete(branch.word_attention, chosen).sum())
        shares = [*branch.word_attention[chosen], others]
        names = [f"{name} ({_percent(share)})" for name, share in zip(names, shares, strict=True)]
    places = -np.arange(len(values))
    axes.barh(places, values, height=0.62, color=[_FOR if one >= 0 else _AGAINST for one in values])
    axes.axvline(0, color=_FAINT, lw=0.8)
    if branch.word_loss is not None:
        axes.plot(branch.word_loss[chosen], places[: len(chosen)], "D", color=_INK, ms=3.5)
    axes.set_yticks(places, names, fontsize=8, color=_INK)
    axes.set_ylim(min(places[-1], -4) - 0.6, 0.6)
    _plain(axes)
    notes = [f"logits of {_short(explanation.target, 24)}"]
    notes += ["diamonds: lost without the word"] if branch.word_loss is not None else []
    notes += ["in brackets: shares of the attention"] if branch.word_attention is not None else []
    axes.set_xlabel("\n".join(notes), fontsize=7, color=_FAINT)


def _columns_height(explanation: Explanation) -> float:
    return _TITLE_LINE + 0.5 + 0.22 * len(explanation.column_loss) if explanation.column_loss else 0.0


def _columns(page: _Page, explanation: Explanation) -> None:
    page.text(_EDGE, 0.3, "Columns: lost where the cell is missing", fontsize=11, weight="bold", color=_INK)
    page.top += _TITLE_LINE
    names, values = list(explanation.column_loss), list(explanation.column_loss.values())
    axes = page.axes(_EDGE + 2 * _NAMES, _WIDTH - 2 * _EDGE - 2 * _NAMES, 0.22 * len(names))
    places = -np.arange(len(names))
    axes.barh(places, values, height=0.62, color=[_FOR if one >= 0 else _AGAINST for one in values])
    axes.axvline(0, color=_FAINT, lw=0.8)
    axes.set_yticks(places, [_cell(explanation, one) for one in names], fontsize=8, color=_INK)
    axes.set_xlabel(f"logits of {_short(explanation.target, 24)}", fontsize=7, color=_FAINT)
    _plain(axes)


def _cell(explanation: Explanation, name: str) -> str:
    """A column with its cell, in the room that there is."""
    cell = explanation.cells.get(name) or "missing"
    return f"{_short(name, 20)}: {_short(cell, 16)}" + (" (unseen)" if name in explanation.unseen else "")


def _plain(axes: Any) -> None:
    axes.tick_params(axis="x", labelsize=7, colors=_FAINT)
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _groups(page: _Page, explanation: Explanation, branch: BranchExplanation) -> None:
    page.text(
        _EDGE, 0.14, "channels that attend alike: where they are active, and what they read", fontsize=8.5, color=_INK
    )
    page.top += _CAPTION
    step = (_WIDTH - 2 * _EDGE) / 4
    for place, group in enumerate(branch.groups[:4]):
        left = _EDGE + place * step
        _picture(page.axes(left, _SMALL, _SMALL), explanation, group.map)
        best = np.argsort(-group.words)[:4]
        lines = [f"{_short(explanation.words[one], 12)} {_percent(group.words[one])}" for one in best]
        said = "\n".join([f"{group.channels} channels", *lines, f"special {_percent(group.rest)}"])
        page.text(left + _SMALL + 0.07, 0.12, said, fontsize=7.5, color=_INK, va="top", linespacing=1.5)
    page.top += _SMALL + 0.6 + _GAP - 0.35


def _words(page: _Page, explanation: Explanation, branch: BranchExplanation) -> None:
    maps = np.asarray(branch.word_maps)
    chosen, largest = _shown_words(branch, len(maps)), float(maps.max()) or 1.0
    page.text(_EDGE, 0.14, _WORD_MAPS[branch.modality], fontsize=8.5, color=_INK)
    page.top += _CAPTION
    for start in range(0, len(chosen), _IN_A_ROW):
        for place, word in enumerate(chosen[start : start + _IN_A_ROW]):
            left = _EDGE + place * (_SMALL + _GAP)
            page.text(left, 0.08, _short(explanation.words[word], 20), fontsize=9, color=_INK, weight="bold")
            page.top += 0.14
            _picture(page.axes(left, _SMALL, _SMALL), explanation, maps[word], largest=largest)
            page.top -= 0.14
        page.top += _SMALL + 0.34


def _picture(
    axes: Any,
    explanation: Explanation,
    heat: Floats | None,
    *,
    signed: bool = False,
    largest: float | None = None,
    interpolation: str = "bicubic",
) -> Any:
    """The picture, and over its grey form a heat map stretched to its size."""
    height, width = explanation.image.shape[:2]
    extent = (0, width, height, 0)
    axes.axis("off")
    if heat is None:
        return axes.imshow(explanation.image, extent=extent, aspect="auto")
    axes.imshow(explanation.image.mean(2), extent=extent, cmap="gray", vmin=-60, vmax=255, aspect="auto")
    top = (float(np.abs(heat).max()) or 1.0) if largest is None else largest
    look: dict[str, Any] = {"cmap": "RdBu", "vmin": -top} if signed else {"cmap": "inferno", "vmin": 0}
    return axes.imshow(heat, extent=extent, interpolation=interpolation, alpha=0.55, vmax=top, aspect="auto", **look)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
